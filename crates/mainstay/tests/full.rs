//! What the API says where something is used up: a disk, a quota, a size; and that it recovers.
//!
//! The full disk is a real one: a small tmpfs, which needs the right to mount. Where that is
//! missing it is not tried, and the test says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/connection.rs"]
mod connection;
#[path = "support/disk.rs"]
mod disk;
#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use connection::Connection;
use disk::Disk;
use rustix::process::Signal;
use serde_json::{Value, json};

use support::gateway::Gateway;
use support::wait::until;

fn config(store: &str) -> String {
    format!(
        "server = {{ listen = \"127.0.0.1:0\" }}\n[gateway]\nlisten = [\"127.0.0.1:0\"]\n\
         drain_delay_seconds = 0\n[store.embedded]\n{store}\n"
    )
}

/// Asks for a session, which writes; the status and the code of a refusal.
fn open_session(node: &Gateway, ttl_seconds: u64) -> (u16, String) {
    let owner = json!({ "host": "h", "pid": 7, "name": "test" });
    let ask = json!({ "ttl_seconds": ttl_seconds, "owner": owner }).to_string();
    let (status, body) = node.call("POST", "/api/v1/sessions", &ask);
    let body: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

/// Puts values of so many bytes below `name` until one is refused; returns how many were taken.
fn fill(node: &Gateway, name: &str, bytes: usize) -> usize {
    let mut connection = Connection::open(node.control).unwrap();
    let (value, at_most) = (vec![b'x'; bytes], 5_000);
    for number in 0..at_most {
        let answer = connection.ask("PUT", &format!("/v1/kv/{name}/{number:04}"), "", &value);
        match answer.expect("it answers") {
            (200, body) if body == "true" => {}
            (status, body) => {
                assert!((500..600).contains(&status), "{status}: {body}");
                return number;
            }
        }
    }
    panic!("{at_most} values were taken, and the store was never full");
}

/// Every value that was taken is there, whole.
fn all_there(node: &Gateway, taken: usize) {
    let mut connection = Connection::open(node.control).unwrap();
    for number in 0..taken {
        let path = format!("/v1/kv/fill/{number:04}?raw");
        let (status, body) = connection.ask("GET", &path, "", b"").unwrap();
        assert_eq!((status, body.len()), (200, 100_000), "value {number} of {taken}");
    }
}

#[test]
fn a_full_disk_stops_writes_loses_nothing_and_recovers() {
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&home.path().join("disk"), "size=6m") else { return };
    let store = disk.path().join("store");
    let mut node = Gateway::start_dev("full-disk", &config(&format!("path = {store:?}")));
    let taken = fill(&node, "fill", 100_000);
    assert!(5 < taken, "only {taken} values fit");
    assert_eq!(open_session(&node, 30), (507, "store-full".to_owned()));
    all_there(&node, taken);
    // It is killed while it is full, and opens with all that it had acknowledged.
    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("full-disk-again", &[]);
    all_there(&node, taken);
    disk.grow("size=64m");
    until("it takes writes again", Duration::from_secs(20), || open_session(&node, 30).0 == 201);
    all_there(&node, taken);
    drop(node);
}

#[test]
fn a_quota_refuses_what_grows_and_lets_go_what_shrinks() {
    let node = Gateway::start_dev("full-quota", &config("bytes_max = 1048576"));
    let taken = fill(&node, "fill", 100_000);
    // What is smaller may still fit; in the end nothing does.
    assert!(0 < fill(&node, "small", 50));
    assert_eq!(open_session(&node, 30), (507, "store-full".to_owned()));
    all_there(&node, taken);
    let mut connection = Connection::open(node.control).unwrap();
    let deleted = connection.ask("DELETE", "/v1/kv/fill/0000", "", b"").unwrap();
    assert_eq!(deleted, (200, "true".to_owned()));
    let (status, _) = connection.ask("GET", "/v1/kv/fill/0000", "", b"").unwrap();
    assert_eq!(status, 404);
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    let node = Gateway::start_dev("full-sizes", &config(""));
    let mut connection = Connection::open(node.control).unwrap();
    let value = |bytes| vec![b'x'; bytes];
    let (status, _) = connection.ask("PUT", "/v1/kv/a", "", &value(524_288)).unwrap();
    assert_eq!(status, 200, "as large as a value may be");
    let mut connection = Connection::open(node.control).unwrap();
    let (status, _) = connection.ask("PUT", "/v1/kv/b", "", &value(524_289)).unwrap();
    assert_eq!(status, 413);
    for (ttl_seconds, want) in [(2, 201), (3_600, 201), (1, 400), (3_601, 400)] {
        let (status, code) = open_session(&node, ttl_seconds);
        assert_eq!((status, code.is_empty()), (want, want == 201), "ttl {ttl_seconds}: {code}");
    }
    let lock = |name: &str| {
        let ask = json!({ "session": "1", "request_id": "r", "wait_seconds": 0 }).to_string();
        node.call("POST", &format!("/api/v1/locks/default/{name}/acquire"), &ask)
    };
    let (status, body) = lock(&"x".repeat(256));
    assert!((400..500).contains(&status) && body.contains("\"code\""), "{status} {body}");
}
