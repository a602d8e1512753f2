//! What a real process listens on, and who may come through.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::{Gateway, free_port};
use support::wait::until;

/// Asks clients' door at `at` as `host`, with more headers.
fn ask(at: SocketAddr, method: &str, path: &str, host: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn config(consul: &str) -> String {
    format!(
        "server = {{ listen = \"127.0.0.1:0\" }}\n[gateway]\nlisten = [\"127.0.0.1:0\"]\n\
         drain_delay_seconds = 0\n[consul]\n{consul}\n"
    )
}

#[test]
fn clients_of_consul_have_a_door_of_their_own() {
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let node = Gateway::start_server(
        "doors-consul",
        &config(&format!("listen = \"{at}\"\nnode_name = \"web-1\"\nallow_leave = true")),
    );
    let bears = format!("x-consul-token: {}\r\n", node.door().1);
    let ask = |method: &str, path: &str, headers: &str| ask(at, method, path, "localhost", headers);
    assert_eq!(ask("GET", "/v1/agent/self", "").0, 403, "nobody without the token");
    let (status, text) = ask("GET", "/v1/agent/self", &bears);
    let own: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &own["Config"]["NodeName"]), (200, &json!("web-1")), "{text}");
    assert_eq!(ask("GET", "/api/v1/store/status", &bears).0, 404, "it is for those clients alone");
    assert_eq!(super_host(at, &bears), 403, "a page whose name leads here");
    let (_, nodes) = ask("GET", "/v1/catalog/nodes", &bears);
    assert!(nodes.contains("\"web-1\""), "{nodes}");

    // It ends as if its supervisor had told it to.
    let mut node = node;
    assert_eq!(ask("PUT", "/v1/agent/leave", &bears).0, 200);
    assert!(node.ended().success());
}

fn super_host(at: SocketAddr, headers: &str) -> u16 {
    ask(at, "GET", "/v1/agent/self", "evil.example", headers).0
}

#[test]
fn whoever_may_write_may_not_end_the_process_unless_it_says_so() {
    let node = Gateway::start_dev("doors-leave", &config(""));
    assert_eq!(node.call("PUT", "/v1/agent/leave", "").0, 403);
    assert_eq!(node.control("/api/v1/ready").0, 200);
}

/// The services that pass, of a service whose instances all fail but one of four.
fn passing(name: &str, consul: &str) -> usize {
    let node = Gateway::start_dev(name, &config(consul));
    for n in 0..4 {
        let register = json!({
            "ID": format!("web-{n}"), "Name": "web", "Port": 80 + n,
            "Check": { "TTL": "60s", "Status": "passing" }
        });
        let (status, said) = node.call("PUT", "/v1/agent/service/register", &register.to_string());
        assert_eq!(status, 200, "{said}");
    }
    for n in 1..4 {
        let (status, said) = node.call("PUT", &format!("/v1/agent/check/fail/service:web-{n}"), "");
        assert_eq!(status, 200, "{said}");
    }
    let mut found = 0;
    until("the catalog follows", Duration::from_secs(5), || {
        let (_, text) = node.control("/v1/health/service/web?passing");
        let list: Value = serde_json::from_str(&text).unwrap();
        found = list.as_array().unwrap().len();
        let (_, all) = node.control("/v1/health/state/critical");
        all.matches("\"CheckID\"").count() == 3
    });
    found
}

#[test]
fn protection_shows_in_this_door_only_where_it_is_asked_for() {
    assert_eq!(passing("doors-plain", ""), 1);
    assert_eq!(passing("doors-protect", "protect = true"), 4);
}

#[test]
fn dev_is_for_this_machine_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mainstay.toml");
    let far = "server = { listen = \"127.0.0.1:0\" }\ngateway = { listen = [\"0.0.0.0:0\"] }\n\
        dns = { listen = \"127.0.0.1:0\" }\n";
    std::fs::write(&file, far).unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["dev", "--ephemeral", "-o", "json", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr) + String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("dev-not-loopback") && said.contains("gateway.listen[0]"), "{said}");
    let node = Gateway::start_dev("doors-near", &config(""));
    std::fs::write(node.home().join("mainstay.toml"), far).unwrap();
    let mut node = node;
    node.signal(Signal::TERM);
    node.ended();
    let node = node.again("doors-far", &["--allow-remote"]);
    assert_eq!(node.control("/api/v1/ready").0, 200);
}
