//! Names of services, asked for with `dig` at the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use support::gateway::Gateway;
use support::wait::until;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
node = "host-a"
[dns]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[system]
cpu_percent_max = 0
"#;

/// Soon enough for a change to be "at once" on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// What `dig` understood of an answer.
#[derive(Debug)]
struct Dug {
    text: String,
    status: String,
    flags: String,
    answers: Vec<Vec<String>>,
    authorities: Vec<Vec<String>>,
    additionals: Vec<Vec<String>>,
}

/// Asks with `dig`; its own words are the arguments.
#[track_caller]
fn dig(node: &Gateway, arguments: &[&str]) -> Dug {
    let address = door(node);
    let output = Command::new("dig")
        .args([&format!("@{}", address.ip()), "-p", &address.port().to_string()])
        .args(["+noall", "+comments", "+question", "+answer", "+authority", "+additional"])
        .args(["+time=5", "+tries=2", "+norec", "+nocookie"])
        .args(arguments)
        .output()
        .expect("scripts/test installs dig");
    let text = String::from_utf8(output.stdout).unwrap();
    let between = |from: &str, to: &str| {
        let rest = text.split_once(from).map(|(_, rest)| rest);
        let found = rest.and_then(|rest| rest.split(to).next());
        found.unwrap_or_default().trim().to_owned()
    };
    let section = |name: &str| {
        let rest = text.split_once(&format!(";; {name} SECTION:\n")).map_or("", |(_, rest)| rest);
        let lines = rest.lines().take_while(|line| !line.is_empty() && !line.starts_with(';'));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    Dug {
        status: between("status: ", ","),
        flags: between(";; flags: ", ";"),
        answers: section("ANSWER"),
        authorities: section("AUTHORITY"),
        additionals: section("ADDITIONAL"),
        text,
    }
}

impl Dug {
    /// The data of the answers, in order of text.
    fn told(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.answers.iter().map(|fields| fields.get(4..).unwrap().join(" ")).collect();
        all.sort();
        all
    }

    /// Code, and the first word of the zone when it is named.
    fn standing(&self) -> (&str, Option<&str>) {
        let zone = self.authorities.first().filter(|fields| fields[3] == "SOA");
        (&self.status, zone.map(|fields| &*fields[0]))
    }
}

/// Where the node answers names, as its ready line says.
#[track_caller]
fn door(node: &Gateway) -> SocketAddr {
    let printed = node.printed();
    let ready: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    ready["dns"].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn register(node: &Gateway, path: &str, document: &Value) {
    let path = format!("/api/v1/registry/{path}");
    let (status, body) = node.call("PUT", &path, &document.to_string());
    assert!(matches!(status, 200 | 201), "{status} {body}");
}

fn web(node: &Gateway, id: &str, address: &str) {
    let document = json!({ "address": address, "port": 8080, "ports": { "admin": 9100 },
                           "tags": ["v1"], "ttl_seconds": 60 });
    register(node, &format!("default/services/web/instances/{id}"), &document);
}

#[test]
fn services_are_found_by_name() {
    let node = Gateway::start_dev("dns", CONFIG);
    web(&node, "a", "127.0.0.1");
    web(&node, "b", "127.0.0.2");
    web(&node, "six", "::1");
    register(
        &node,
        "shop/services/Cart.v2/instances/x",
        &json!({ "address": "127.0.0.9", "port": 80, "ttl_seconds": 60 }),
    );
    let found = dig(&node, &["web.svc.mainstay", "A"]);
    assert_eq!(found.told(), ["127.0.0.1", "127.0.0.2"], "{}", found.text);
    assert_eq!((&*found.answers[0][1], &*found.flags), ("5", "qr aa"));
    assert!(found.text.contains("EDNS: version: 0, flags:; udp: 1232"), "{}", found.text);
    assert_eq!(dig(&node, &["web.default.svc.mainstay", "AAAA"]).told(), ["::1"]);
    assert_eq!(dig(&node, &["+tcp", "web.svc.mainstay", "ANY"]).told().len(), 3);

    let found = dig(&node, &["_admin._tcp.web.svc.mainstay", "SRV"]);
    let target = |id: &str| format!("1 1 9100 {id}.web.default.inst.mainstay.");
    assert_eq!(found.told(), [target("a"), target("b"), target("six")], "{}", found.text);
    let mut extra: Vec<String> = found.additionals.iter().map(|fields| fields[4].clone()).collect();
    extra.sort();
    assert_eq!(extra, ["127.0.0.1", "127.0.0.2", "::1"], "{}", found.text);
    assert_eq!(dig(&node, &["a.web.default.inst.mainstay", "A"]).told(), ["127.0.0.1"]);

    // Capitals and dots in a service's own name.
    assert_eq!(dig(&node, &["cart.V2.shop.svc.mainstay", "A"]).told(), ["127.0.0.9"]);
    assert_eq!(
        dig(&node, &["v2.shop.svc.mainstay", "A"]).standing(),
        ("NOERROR", Some("mainstay."))
    );

    let counted = |label: &str| node.counted("mainstay_dns_queries_total", label);
    assert!(5 <= counted(r#"zone="mainstay",type="A""#) + counted(r#"type="SRV""#));
    assert!(1 <= node.counted("mainstay_dns_query_seconds_count", ""));
}

#[test]
fn consuls_names_and_addresses_find_the_same() {
    let node = Gateway::start_dev("dns-consul", CONFIG);
    web(&node, "a", "127.0.0.1");
    web(&node, "b", "127.0.0.2");
    web(&node, "six", "::1");
    let found = dig(&node, &["_web._tcp.service.consul", "SRV"]);
    assert!(found.told().contains(&"1 1 8080 7f000002.addr.dc1.consul.".to_owned()));
    assert_eq!(dig(&node, &["v1.web.service.dc1.consul", "A"]).told().len(), 2);
    assert_eq!(dig(&node, &["host-a.node.consul", "A"]).told(), ["127.0.0.1"]);

    assert_eq!(dig(&node, &["-x", "127.0.0.2"]).told(), ["b.web.default.inst.mainstay."]);
    assert_eq!(dig(&node, &["-x", "::1"]).told(), ["six.web.default.inst.mainstay."]);
    assert_eq!(dig(&node, &["-x", "192.0.2.1"]).standing(), ("REFUSED", None));
    let soa = dig(&node, &["mainstay", "SOA"]).told();
    assert!(soa[0].starts_with("ns.mainstay. hostmaster.mainstay. "), "{soa:?}");

    let refused = r#"zone="reverse",type="PTR",rcode="REFUSED""#;
    assert!(1 <= node.counted("mainstay_dns_queries_total", refused));
}

#[test]
fn what_is_not_there_is_said_so_that_it_is_kept_right() {
    let node = Gateway::start_dev("dns-missing", CONFIG);
    web(&node, "a", "127.0.0.1");
    let standing = |arguments: &[&str]| {
        let found = dig(&node, arguments);
        assert!(found.answers.is_empty(), "{}", found.text);
        let (status, zone) = found.standing();
        (status.to_owned(), zone.map(str::to_owned))
    };
    let zone = || Some("mainstay.".to_owned());
    assert_eq!(standing(&["none.svc.mainstay", "A"]), ("NXDOMAIN".to_owned(), zone()));
    assert_eq!(standing(&["web.svc.mainstay", "AAAA"]), ("NOERROR".to_owned(), zone()));
    assert_eq!(standing(&["example.com", "A"]), ("REFUSED".to_owned(), None));
    assert_eq!(standing(&["-c", "CH", "web.svc.mainstay", "A"]), ("REFUSED".to_owned(), None));
    assert_eq!(standing(&["+edns=1", "+noednsneg", "web.svc.mainstay"]).0, "BADVERS");
    assert_eq!(standing(&["+opcode=NOTIFY", "web.svc.mainstay"]).0, "NOTIMP");
    let found = dig(&node, &["+noedns", "wEB.Svc.MAINSTAY", "A"]);
    assert!(found.text.contains(";wEB.Svc.MAINSTAY."), "{}", found.text);
    assert!(!found.text.contains("EDNS"), "{}", found.text);
    assert_eq!(found.answers[0][0], "wEB.Svc.MAINSTAY.");
}

#[test]
fn long_answers_are_cut_and_asked_for_again() {
    let node = Gateway::start_dev("dns-long", CONFIG);
    for n in 1..=80 {
        web(&node, &format!("i{n}"), &format!("127.0.1.{n}"));
    }
    let name = "web.default.svc.mainstay";
    let counts = |arguments: &[&str]| {
        let found = dig(&node, &[arguments, &[name, "A"]].concat());
        (found.answers.len(), found.flags.contains("tc"))
    };
    assert_eq!(counts(&["+noedns", "+ignore"]), (29, true));
    assert_eq!(counts(&["+bufsize=4096", "+ignore"]), (73, true));
    assert_eq!(counts(&["+noedns"]), (80, false), "asked again over TCP");
    assert_eq!(counts(&["+tcp"]), (80, false));
    assert!(2 <= node.counted("mainstay_dns_truncated_total", ""));
    let orders: std::collections::BTreeSet<String> =
        (0..8).map(|_| dig(&node, &["+tcp", name, "A"]).answers[0][4].clone()).collect();
    assert!(1 < orders.len(), "always {orders:?} first");
}

#[test]
fn who_drains_or_leaves_is_no_longer_named() {
    let node = Gateway::start_dev("dns-drain", CONFIG);
    web(&node, "a", "127.0.0.1");
    web(&node, "b", "127.0.0.2");
    let told = || dig(&node, &["web.svc.mainstay", "A"]).told();
    assert_eq!(told().len(), 2);
    let at = "/api/v1/registry/default/services/web/instances";
    assert_eq!(node.call("POST", &format!("{at}/a/drain"), r#"{"seconds":60}"#).0, 200);
    until("the one that drains is left out", SOON, || told() == ["127.0.0.2"]);
    assert_eq!(dig(&node, &["a.web.default.inst.mainstay", "A"]).told(), ["127.0.0.1"]);
    assert_eq!(node.call("DELETE", &format!("{at}/b"), "{}").0, 200);
    until("the one that left is too", SOON, || told().is_empty());
    assert_eq!(dig(&node, &["b.web.default.inst.mainstay", "A"]).status, "NXDOMAIN");
    assert_eq!(dig(&node, &["web.service.consul", "A"]).standing(), ("NXDOMAIN", Some("consul.")));
}

/// A question for the A records of `web.svc.mainstay`, with its length in front.
fn framed(id: u8) -> Vec<u8> {
    let mut message = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["web", "svc", "mainstay", ""] {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.extend([0, 1, 0, 1]);
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], &message].concat()
}

#[test]
fn a_connection_takes_many_questions_and_ends_with_the_process() {
    let mut node = Gateway::start_dev("dns-tcp", CONFIG);
    web(&node, "a", "127.0.0.1");
    let mut stream = TcpStream::connect(door(&node)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let many: Vec<u8> = (0..100).flat_map(framed).collect();
    stream.write_all(&many).unwrap();
    for id in 0..100 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!((answer[1], answer[7]), (id, 1), "an answer for each question, in order");
    }
    // What is no message is not worth a word, and hurts nobody else.
    let mut lost = TcpStream::connect(door(&node)).unwrap();
    lost.set_read_timeout(Some(SOON)).unwrap();
    lost.write_all(b"\x00\x04GET ").unwrap();
    assert_eq!(lost.read(&mut [0; 16]).unwrap(), 0);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"GET / HTTP/1.1", door(&node)).unwrap();
    assert_eq!(dig(&node, &["web.svc.mainstay"]).told(), ["127.0.0.1"]);

    node.signal(Signal::TERM);
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "idle connections end with the process");
    assert!(node.ended().success());
}

#[test]
fn a_port_that_is_taken_is_said_before_anything_starts() {
    for transport in ["udp", "tcp"] {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (tcp, udp) = (tcp.unwrap(), udp.unwrap());
        let taken = if transport == "udp" { udp.local_addr() } else { tcp.local_addr() };
        let taken = taken.unwrap().to_string();
        let home = tempfile::TempDir::new().unwrap();
        let file = home.path().join("mainstay.toml");
        let config = CONFIG
            .replace("[dns]\nlisten = \"127.0.0.1:0\"", &format!("[dns]\nlisten = \"{taken}\""));
        std::fs::write(&file, config).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(["dev", "-o", "json", "--ephemeral", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{transport}: {said}");
        assert!(said.contains("port-in-use") && said.contains(&taken), "{transport}: {said}");
    }
}

#[test]
fn the_command_line_asks_by_the_wire() {
    let node = Gateway::start_dev("dns-cli", CONFIG);
    for n in 1..=100 {
        web(&node, &format!("i{n}"), &format!("127.0.1.{n}"));
    }
    let ask = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(["dns", "query"])
            .args(arguments)
            .env("XDG_RUNTIME_DIR", node.home())
            .env("XDG_DATA_HOME", node.home().join("share"))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    // Where the command line looks for the process of its user.
    let folder = node.home().join("mainstay");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(node.home().join("data/control.toml"), folder.join("dev.toml")).unwrap();
    let (code, out, err) = ask(&["web.svc.mainstay"]);
    assert_eq!((code, out.lines().count()), (Some(0), 101), "{out}{err}");
    let (code, out, err) = ask(&["_web._tcp.svc.mainstay", "--type", "srv", "-o", "json"]);
    let document: Value = serde_json::from_str(&out).expect(&err);
    assert_eq!((code, document["items"][0]["port"].as_u64()), (Some(0), Some(8080)));
    let (code, _, err) = ask(&["none.svc.mainstay"]);
    assert!(code == Some(3) && err.contains("none.svc.mainstay"), "{code:?} {err}");
    let (code, out, err) = ask(&["web.svc.mainstay", "--type", "AAAA"]);
    assert!(code == Some(0) && out.is_empty() && err.contains("without a record"), "{out}{err}");
}

#[test]
fn nodes_without_an_agent_have_names() {
    let node = Gateway::start_dev("dns-nodes", CONFIG);
    let record = json!({ "Node": "DB-1", "Address": "10.9.8.7" }).to_string();
    assert_eq!(node.call("PUT", "/v1/catalog/register", &record).0, 200);
    let told = || dig(&node, &["db-1.node.consul", "A"]).told();
    until("the node has a name", SOON, || told() == ["10.9.8.7"]);
    assert_eq!(dig(&node, &["-x", "10.9.8.7"]).told(), ["DB-1.node.dc1.consul."]);
    let record = json!({ "Node": "DB-1" }).to_string();
    assert_eq!(node.call("PUT", "/v1/catalog/deregister", &record).0, 200);
    until("it is forgotten", SOON, || dig(&node, &["db-1.node.consul", "A"]).status == "NXDOMAIN");
}
