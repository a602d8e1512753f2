//! `openssl s_client` in front of the gateway, `openssl s_server` behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/authority.rs"]
mod authority;
#[path = "support/echo.rs"]
mod echo;
#[path = "support/support.rs"]
mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use authority::Authority;
use echo::{curl, has};
use rustix::process::Signal;
use support::gateway::{Gateway, free_port, log_of};
use support::wait::{pause, until};

const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway with TLS for `a.example` and `b.example`, their files at `home`.
#[track_caller]
fn gateway(name: &str, home: &Path, upstream: SocketAddr, more: &str) -> Gateway {
    let pair = |host: &str| {
        let at = home.join(host).display().to_string();
        format!(
            "{{ hosts = [\"{host}\"], certificate_file = \"{at}.pem\", key_file = \"{at}.key\" }}"
        )
    };
    let config = format!(
        r#"
server = {{ listen = "127.0.0.1:0" }}
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[route.all]
to = "all"
[upstream.all]
instances = ["{upstream}"]
{more}
[gateway]
listen = ["127.0.0.1:0"]
tls_listen = ["127.0.0.1:0"]
strict_sni = true
certificates = [{}, {}]
access_log = {{ format = "off" }}
"#,
        pair("a.example"),
        pair("b.example")
    );
    Gateway::start(name, &config)
}

/// An open `s_client`: what is written goes through TLS.
struct Client {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Client {
    #[track_caller]
    fn connect(to: SocketAddr, arguments: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &to.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// Sends a request for `path` and reads its answer, which ends with `end`.
    #[track_caller]
    fn ask(&mut self, path: &str, end: &str) -> String {
        write!(self.input, "GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        self.input.flush().unwrap();
        let (mut got, mut part) = (String::new(), [0; 4096]);
        while !got.contains(end) {
            let count = self.output.read(&mut part).unwrap();
            assert!(count > 0, "ended after {got:?}");
            got.push_str(&String::from_utf8_lossy(&part[..count]));
        }
        got
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What `s_client` prints of a handshake; it says `errno` or `alert` in it when there was none.
#[track_caller]
fn handshake(to: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &to.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Two hosts with certificates of one authority.
fn two_hosts(home: &Path) -> Authority {
    let authority = Authority::new(home, "authority");
    for host in ["a.example", "b.example"] {
        authority.issue(host, host);
    }
    authority
}

#[test]
fn names_protocols_and_versions_are_agreed_on() {
    let home = tempfile::tempdir().unwrap();
    let authority = two_hosts(home.path());
    let gateway = gateway("openssl", home.path(), echo::serve("e"), "");
    let to = gateway.address(1);
    let trusted = ["-CAfile", authority.certificate.to_str().unwrap(), "-verify_return_error"];
    let shake = |more: &[&str]| handshake(to, &[&trusted, more].concat());
    for host in ["a.example", "b.example"] {
        let said = shake(&["-servername", host, "-verify_hostname", host]);
        has(&said, &["Verify return code: 0 (ok)", &format!("subject=CN = {host}")]);
    }
    let a = ["-servername", "a.example"];
    for (offered, agreed) in [
        ("h2,http/1.1", "ALPN protocol: h2"),
        ("http/1.1,h2", "ALPN protocol: h2"),
        ("http/1.1", "ALPN protocol: http/1.1"),
    ] {
        has(&shake(&[&a[..], &["-alpn", offered]].concat()), &[agreed]);
    }
    has(&shake(&a), &["No ALPN negotiated"]);
    // RFC 7301: nothing in common ends the handshake with an alert of its own.
    has(&shake(&[&a[..], &["-alpn", "smtp"]].concat()), &["no application protocol"]);
    has(&shake(&[&a[..], &["-tls1_3"]].concat()), &["New, TLSv1.3", "Verify return code: 0"]);
    has(&shake(&[&a[..], &["-tls1_2"]].concat()), &["New, TLSv1.2", "Verify return code: 0"]);
    let old = shake(&[&a[..], &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]].concat());
    has(&old, &["no peer certificate available", "SSL alert number"]);
    for nobody in [&["-servername", "c.example"][..], &["-noservername"]] {
        let said = shake(nobody);
        assert!(said.contains("no peer certificate available"), "{nobody:?}\n{said}");
    }
}

#[test]
fn an_old_connection_outlives_its_certificate() {
    let home = tempfile::tempdir().unwrap();
    let authority = two_hosts(home.path());
    let gateway = gateway("openssl-reload", home.path(), echo::serve("e"), "");
    let to = gateway.address(1);
    let serial = || {
        let said = handshake(to, &["-servername", "a.example", "-showcerts"]);
        said.lines().filter(|line| line.len() > 60).take(3).collect::<String>()
    };
    let first = serial();
    let mut kept = Client::connect(to, &["-servername", "a.example"]);
    has(&kept.ask("/one", "HTTP/1.1\n"), &["GET /one"]);
    for round in 1..=20 {
        authority.issue("a.example", "a.example");
        gateway.signal(Signal::HUP);
        until("a reload", PATIENCE, || gateway.logged("configuration reloaded") >= round);
        has(&kept.ask(&format!("/{round}"), "HTTP/1.1\n"), &[" 200 "]);
    }
    assert_ne!(serial(), first, "new connections get the new certificate");
}

/// `openssl s_server` that answers every request with what it knows of the handshake.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Shows the certificate `own`; asks for one of `authority` and takes no other.
    #[track_caller]
    fn start(home: &Path, own: &str, authority: &Authority) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = File::create(log_of("s_server")).unwrap();
        let child = Command::new("openssl")
            .args(["s_server", "-www", "-Verify", "1", "-verify_return_error", "-accept"])
            .arg(address.to_string())
            .args(["-cert".as_ref(), home.join(format!("{own}.pem")).as_os_str()])
            .args(["-key".as_ref(), home.join(format!("{own}.key")).as_os_str()])
            .args(["-CAfile".as_ref(), authority.certificate.as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        until("s_server", PATIENCE, || TcpStream::connect(address).is_ok());
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_gateway_proves_itself_to_a_service_and_asks_it_to() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let authority = two_hosts(at);
    let stranger = Authority::new(at, "stranger");
    authority.issue("client", "gateway.example");
    stranger.issue("other", "gateway.example");
    let server = Server::start(at, "a.example", &authority);
    let tls = |sni: &str, ca: &str, client: &str| {
        let file = |name: &str, kind: &str| at.join(format!("{name}.{kind}")).display().to_string();
        let own = match client {
            "" => String::new(),
            _ => format!(
                ", client_certificate = \"{}\", client_key = \"{}\"",
                file(client, "pem"),
                file(client, "key")
            ),
        };
        let ca = file(ca, "pem");
        let tls = format!("mode = \"on\", sni = \"{sni}\", ca_file = \"{ca}\"{own}");
        format!("protocol = \"http1\"\ncircuits = []\ntls = {{ {tls} }}")
    };
    let good = tls("a.example", "authority", "client");
    for (name, more, works) in [
        ("good", good, true),
        ("wrong-name", tls("b.example", "authority", "client"), false),
        ("wrong-authority", tls("a.example", "stranger", "client"), false),
        ("wrong-client", tls("a.example", "authority", "other"), false),
        ("no-client", tls("a.example", "authority", ""), false),
    ] {
        let gateway = gateway(&format!("mtls-{name}"), at, server.address, &more);
        let answer = curl(&[&format!("http://{}/", gateway.address(0))]);
        if works {
            has(&answer, &[" 200 ", "Client certificate", "gateway.example"]);
        } else {
            assert!(answer.contains(" 502 ") || answer.contains(" 503 "), "{name}: {answer}");
        }
    }
}

#[test]
fn the_certificate_for_services_changes_under_load() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let authority = two_hosts(at);
    authority.issue("client", "one.gateway.example");
    let server = Server::start(at, "a.example", &authority);
    let more = format!(
        "protocol = \"http1\"\ntls = {{ mode = \"on\", sni = \"a.example\", \
         ca_file = \"{0}/authority.pem\", client_certificate = \"{0}/client.pem\", \
         client_key = \"{0}/client.key\" }}",
        at.display()
    );
    let gateway = gateway("mtls-reload", at, server.address, &more);
    let url = format!("http://{}/", gateway.address(0));
    let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    has(&curl(&[&url]), &[" 200 ", "gateway.example"]);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=10 {
            authority.issue("client", &format!("r{round}.gateway.example"));
            gateway.signal(Signal::HUP);
            until("a reload", PATIENCE, || gateway.logged("configuration reloaded") >= round);
            let so_far = done.load(Ordering::Relaxed);
            until("some load", PATIENCE, || done.load(Ordering::Relaxed) > so_far + 2);
        }
        stop.store(true, Ordering::Relaxed);
    });
    until("the last certificate is shown", PATIENCE, || {
        pause(Duration::from_millis(50));
        curl(&[&url]).contains("r10.gateway.example")
    });
}
