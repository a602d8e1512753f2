//! `HAProxy`, Apache and nginx as child processes, each from a file written here, on a free port.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::gateway::{free_port, log_of, send};
use crate::support::wait::until;

/// A proxy that others wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `HAProxy`.
    Haproxy,
    /// Apache httpd with `mod_proxy_http`.
    Apache,
    /// nginx.
    Nginx,
}

/// How much a peer lets pass that the grammar forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mind {
    /// As its makers ship it.
    Shipped,
    /// With everything allowed that it can be told to allow.
    Lenient,
}

/// A running peer that sends everything on to one address.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _home: TempDir,
}

/// One request, as a proxy's own log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Target, or whatever the proxy writes where it could read none.
    pub(crate) target: String,
    /// Status it answered with.
    pub(crate) status: String,
    /// Whether it chose a server for it.
    pub(crate) sent: bool,
    /// Whether it refused the message as malformed, if its log says so.
    pub(crate) malformed: bool,
}

impl Peer {
    /// Starts one in front of `next`. Clients that say nothing are left after `idle_seconds`.
    #[track_caller]
    pub(crate) fn start(kind: Kind, mind: Mind, idle_seconds: u32, next: SocketAddr) -> Self {
        let home = TempDir::new().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = log_of(&format!("{kind:?}-{mind:?}").to_lowercase());
        let written = Written { at: home.path(), log: &log, address, next, idle_seconds };
        let (config, program, arguments): (_, _, &[&str]) = match kind {
            Kind::Haproxy => (written.haproxy(mind), "haproxy", &["-db", "-f"]),
            Kind::Apache => (written.apache(mind), "apache2", &["-DFOREGROUND", "-f"]),
            Kind::Nginx => (written.nginx(mind), "nginx", &["-c"]),
        };
        let file = home.path().join("conf");
        fs::write(&file, config).unwrap();
        let errors = log.with_extension("err");
        let child = Command::new(program)
            .args(arguments)
            .arg(&file)
            .env("PATH", search_path())
            .stdout(File::options().create(true).append(true).open(&log).unwrap())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .expect("scripts/test installs the peers");
        let mut peer = Self { child, log, address, _home: home };
        until(program, Duration::from_secs(20), || {
            let ended = peer.child.try_wait().unwrap();
            assert!(ended.is_none(), "{program} ended; see {}", errors.display());
            TcpStream::connect(address).is_ok()
        });
        peer
    }

    /// Every request it logged so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned();
        let line = |line: &str| {
            let mut parts = line.rsplitn(3, '|');
            let (server, status, target) = (parts.next()?, parts.next()?, parts.next()?);
            let sent = !matches!(server, "" | "-" | "<NOSRV>");
            let (target, status) = (target.to_owned(), status.to_owned());
            Some(Line { target, status, sent, malformed: false })
        };
        // Without the last piece: empty, or a line that is still being written.
        let (whole, _rest) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().filter_map(line).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The polite way: a server that forked stops its children too.
        send(&self.child, Signal::TERM);
        drop(self.child.wait());
    }
}

/// Debian keeps servers where only root looks.
fn search_path() -> String {
    format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default())
}

struct Written<'a> {
    at: &'a Path,
    log: &'a Path,
    address: SocketAddr,
    next: SocketAddr,
    idle_seconds: u32,
}

impl Written<'_> {
    fn haproxy(&self, mind: Mind) -> String {
        let Self { address, next, idle_seconds, .. } = self;
        let (front, back) = match mind {
            Mind::Shipped => ("", ""),
            Mind::Lenient => {
                ("option accept-invalid-http-request", "option accept-invalid-http-response")
            }
        };
        format!(
            r#"
global
  nbthread 1
  log stdout format raw local0
defaults
  mode http
  log global
  option dontlognull
  timeout connect 2s
  timeout client 1s
  timeout server 2s
  timeout http-request 1s
  timeout http-keep-alive {idle_seconds}s
  retries 0
  http-reuse always
frontend in
  bind {address}
  {front}
  log-format "%HU|%ST|%s"
  default_backend out
backend out
  {back}
  server next {next}
"#
        )
    }

    fn apache(&self, mind: Mind) -> String {
        let Self { address, next, idle_seconds, .. } = self;
        let (home, log) = (self.at.display(), self.log.display());
        let modules =
            apache_modules(&["mpm_event", "authz_core", "reqtimeout", "proxy", "proxy_http"]);
        let options = match mind {
            Mind::Shipped => "",
            Mind::Lenient => "HttpProtocolOptions Unsafe LenientMethods Allow0.9",
        };
        format!(
            r#"
ServerRoot "{home}"
ServerName localhost
PidFile "{home}/pid"
DefaultRuntimeDir "{home}"
ErrorLog "{log}.errors"
{modules}
User nobody
Group nogroup
Listen {address}
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
MinSpareThreads 1
MaxSpareThreads 8
{options}
Timeout 2
KeepAlive On
KeepAliveTimeout {idle_seconds}
MaxKeepAliveRequests 0
RequestReadTimeout header=1 body=1
LogFormat "%r|%>s|%R" count
CustomLog "{log}" count
ProxyPass "/" "http://{next}/" max=1 retry=0 timeout=2 connectiontimeout=2
"#
        )
    }

    fn nginx(&self, mind: Mind) -> String {
        let Self { address, next, idle_seconds, .. } = self;
        let (home, log) = (self.at.display(), self.log.display());
        let options = match mind {
            Mind::Shipped => "",
            Mind::Lenient => {
                "ignore_invalid_headers off; underscores_in_headers on; merge_slashes off;"
            }
        };
        format!(
            r#"
daemon off;
user root;
worker_processes 1;
pid {home}/pid;
error_log {log}.errors;
events {{ worker_connections 256; }}
http {{
  log_format count '$request_uri|$status|$upstream_addr';
  access_log {log} count;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  client_header_timeout 1s;
  client_body_timeout 1s;
  keepalive_timeout {idle_seconds}s;
  lingering_timeout 1s;
  {options}
  upstream next {{ server {next}; keepalive 1; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://next;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_request_buffering off;
      proxy_next_upstream off;
      proxy_connect_timeout 2s;
      proxy_read_timeout 2s;
      proxy_send_timeout 2s;
    }}
  }}
}}
"#
        )
    }
}

fn apache_modules(names: &[&str]) -> String {
    let line =
        |name: &&str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    names.iter().map(line).collect()
}
