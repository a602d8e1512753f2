//! Names asked for by others: `kdig` of Knot DNS, and `HAProxy`, whose servers are those of a
//! service for as long as it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backend::Backend;
use serde_json::{Value, json};
use support::gateway::{Gateway, free_port};
use support::wait::{pause, until};

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[dns]
listen = "127.0.0.1:0"
ttl_seconds = 1
"#;

/// The spec of the door: names follow within this.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_backend() {
    backend::serve_if_asked();
}

/// Where the node answers names, as its ready line says.
#[track_caller]
fn door(node: &Gateway) -> SocketAddr {
    let printed = node.printed();
    let ready: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    ready["dns"].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn register(node: &Gateway, id: &str, to: SocketAddr, weight: u16) {
    let document = json!({ "address": to.ip(), "port": to.port(), "weight": weight,
                           "ttl_seconds": 600 });
    let path = format!("/api/v1/registry/default/services/web/instances/{id}");
    let (status, body) = node.call("PUT", &path, &document.to_string());
    assert!(matches!(status, 200 | 201), "{status} {body}");
}

/// What `kdig` says, line by line.
#[track_caller]
fn kdig(node: &Gateway, arguments: &[&str]) -> Vec<String> {
    let address = door(node);
    let output = Command::new("kdig")
        .args([&format!("@{}", address.ip()), "-p", &address.port().to_string()])
        .args(["+time=5", "+retry=1"])
        .args(arguments)
        .output()
        .expect("scripts/test installs kdig");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn kdig_understands_every_answer() {
    let node = Gateway::start_server("dns-kdig", CONFIG);
    for n in 1..=80 {
        register(&node, &format!("i{n}"), SocketAddr::from(([127, 0, 1, n], 8080)), 1);
    }
    let name = "web.svc.mainstay";
    let short = |arguments: &[&str]| {
        let mut lines = kdig(&node, &[&["+short"], arguments].concat());
        // It says beside the answer that it asks again.
        lines.retain(|line| !line.is_empty() && !line.starts_with(';'));
        lines
    };
    // Cut, and asked for again over TCP; a whole answer there at once.
    for transport in [&[][..], &["+tcp"]] {
        let mut all = short(&[transport, &[name, "A"]].concat());
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 80, "{transport:?}: {all:?}");
    }
    assert_eq!(short(&["+notcp", name, "A"]).len(), 29, "as many as fit");
    let ports = short(&["+tcp", "_web._tcp.svc.mainstay", "SRV"]);
    assert_eq!(ports.len(), 80);
    assert!(ports.iter().all(|line| line.starts_with("1 1 8080 i")), "{ports:?}");
    let target = ports[0].rsplit(' ').next().unwrap();
    assert_eq!(short(&[target, "A"]).len(), 1);
    let status = |arguments: &[&str]| {
        let lines = kdig(&node, arguments);
        let header = lines.iter().find(|line| line.contains("status: ")).unwrap();
        header.split("status: ").nth(1).unwrap().split(';').next().unwrap().to_owned()
    };
    assert_eq!(status(&["none.svc.mainstay", "A"]), "NXDOMAIN");
    assert_eq!(status(&[name, "AAAA"]), "NOERROR");
    assert_eq!(status(&["example.com", "A"]), "REFUSED");
    assert_eq!(status(&["+edns=1", name, "A"]), "BADVERS");
    // What it asks for beyond that is passed over: signatures, a client's network, padding.
    let asked = ["+dnssec", "+subnet=192.0.2.0/24", "+padding=128", "+tcp", name, "A"];
    assert_eq!(status(&asked), "NOERROR");
    // Many questions on one connection.
    let kept = short(&["+keepopen", "+tcp", name, "A", "i1.web.default.inst.mainstay", "A"]);
    assert_eq!(kept.len(), 81);
}

/// `HAProxy` with places for the servers of a service.
struct HaProxy {
    child: Child,
    front: SocketAddr,
    admin: SocketAddr,
}

impl HaProxy {
    fn start(names: SocketAddr) -> Self {
        let front = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = format!(
            "global\n  stats socket ipv4@{admin} level admin\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 10s\n\
             timeout server 10s\n  timeout queue 2s\n\
             resolvers mainstay\n  nameserver one {names}\n  accepted_payload_size 1232\n\
             resolve_retries 3\n  timeout resolve 500ms\n  timeout retry 500ms\n\
             hold valid 1s\n  hold obsolete 0s\n  hold nx 0s\n  hold other 0s\n\
             hold refused 0s\n  hold timeout 0s\n\
             frontend front\n  bind {front}\n  default_backend web\n\
             backend web\n  balance roundrobin\n\
             server-template web 5 _web._tcp.svc.mainstay resolvers mainstay \
             resolve-prefer ipv4 init-addr none\n"
        );
        // Debian puts servers where users need not look.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let mut child = Command::new("haproxy")
            .args(["-db", "-f", "/dev/stdin"])
            .env("PATH", path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("scripts/test installs the peers");
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let proxy = Self { child, front, admin };
        until("HAProxy", Duration::from_secs(20), || TcpStream::connect(front).is_ok());
        proxy
    }

    /// The addresses of the servers it uses now, and their weights, in order.
    fn servers(&self) -> Vec<(String, u16)> {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.write_all(b"show servers state web\n").unwrap();
        let mut state = String::new();
        stream.read_to_string(&mut state).unwrap();
        // A line a server, of fields: backend, its name, id, name, address, state, admin state (bits
        // below 64 are set for those that are not used), weight in force, …, and the port as the
        // nineteenth.
        let fields = state.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let is_used = |f: &Vec<&str>| f[6].parse::<u32>().unwrap().is_multiple_of(64);
        let used = fields.filter(|f| f.get(1) == Some(&"web") && f[4] != "-" && is_used(f));
        let mut all: Vec<_> =
            used.map(|f| (format!("{}:{}", f[4], f[18]), f[7].parse().unwrap())).collect();
        all.sort();
        all
    }

    fn status(&self) -> u16 {
        let mut stream = TcpStream::connect(self.front).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_servers_of_haproxy_are_those_of_a_service_as_it_grows_shrinks_and_drains() {
    let node = Gateway::start_server("dns-haproxy", CONFIG);
    let (a, b, c) = (Backend::start(), Backend::start(), Backend::start());
    register(&node, "a", a.address, 1);
    let proxy = HaProxy::start(door(&node));
    let addresses = |backends: &[&Backend]| {
        let mut all: Vec<_> = backends.iter().map(|backend| backend.address.to_string()).collect();
        all.sort();
        all
    };
    let used = || proxy.servers().into_iter().map(|(address, _)| address).collect::<Vec<_>>();
    until("it has the first one", SOON, || used() == addresses(&[&a]));
    until("it serves", SOON, || proxy.status() == 200);
    register(&node, "b", b.address, 1);
    register(&node, "c", c.address, 600);
    until("it has all of them", SOON, || used() == addresses(&[&a, &b, &c]));
    // It has 256 steps where names have 65,536.
    let weight = |of: &Backend| {
        let of = of.address.to_string();
        proxy.servers().into_iter().find(|(at, _)| *at == of).map(|(_, weight)| weight)
    };
    assert!(weight(&a) < weight(&c), "{:?}", proxy.servers());
    let at = "/api/v1/registry/default/services/web/instances";
    assert_eq!(node.call("POST", &format!("{at}/c/drain"), r#"{"seconds":60}"#).0, 200);
    until("one that drains is left alone", SOON, || used() == addresses(&[&a, &b]));
    assert_eq!(node.call("DELETE", &format!("{at}/a"), "{}").0, 200);
    until("one that left is forgotten", SOON, || used() == addresses(&[&b]));
    for _ in 0..20 {
        assert_eq!(proxy.status(), 200);
        pause(Duration::from_millis(20));
    }
}
