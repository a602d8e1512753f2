//! The door for clients of Consul, as they find it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "consul/services.rs"]
mod services;
#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use support::gateway::Gateway;
use support::wait::now;

const CONFIG: &str = r#"
server = { listen = "127.0.0.1:0" }
[gateway]
listen = ["127.0.0.1:0"]
"#;

/// Longer than any answer that is not blocked takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    #[track_caller]
    fn index(&self) -> u64 {
        self.header("x-consul-index").expect("an index").parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// A request without a token, but with `headers`, whole lines.
#[track_caller]
fn ask(to: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} /v1/{path} HTTP/1.1\r\nhost: {to}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[track_caller]
fn get(gateway: &Gateway, path: &str) -> Answer {
    ask(gateway.control, "GET", path, "", b"")
}

#[track_caller]
fn put(gateway: &Gateway, path: &str, body: &str) -> Answer {
    ask(gateway.control, "PUT", path, "", body.as_bytes())
}

/// Asks, and checks the status and the whole body.
#[track_caller]
fn check(gateway: &Gateway, request: &str, body: &str, status: u16, want: &str) {
    let (method, path) = request.split_once(' ').unwrap();
    let got = ask(gateway.control, method, path, "", body.as_bytes());
    assert_eq!((got.status, &*got.body), (status, want), "{request}");
}

#[test]
fn pairs_are_written_read_and_listed() {
    let dev = Gateway::start_dev("consul-kv", CONFIG);
    let check = |request: &str, body: &str, status: u16, want: &str| {
        check(&dev, request, body, status, want);
    };
    check("GET kv/a", "", 404, "");
    check("PUT kv/a?flags=42", "hi", 200, "true");
    let answer = get(&dev, "kv/a");
    let index = answer.index();
    assert_eq!(
        answer.body,
        format!(
            r#"[{{"LockIndex":0,"Key":"a","Flags":42,"Value":"aGk=","CreateIndex":{index},"ModifyIndex":{index}}}]"#
        )
    );
    for (name, value) in [
        ("x-consul-knownleader", "true"),
        ("x-consul-lastcontact", "0"),
        ("x-consul-effective-consistency", "leader"),
        ("x-consul-default-acl-policy", "allow"),
        ("x-consul-query-backend", "blocking-query"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
        assert_eq!(get(&dev, "kv/none").header(name), Some(value), "{name}");
    }
    let raw = get(&dev, "kv/a?raw");
    assert_eq!((&*raw.body, raw.header("content-type")), ("hi", Some("text/plain")));
    assert_eq!(raw.header("content-security-policy"), Some("sandbox"));
    assert_eq!(raw.header("x-content-type-options"), Some("nosniff"));
    check("PUT kv/empty", "", 200, "true");
    assert_eq!(get(&dev, "kv/empty").json()[0]["Value"], Value::Null);
    check("PUT kv/a?cas=0", "x", 200, "false");
    check(&format!("PUT kv/a?cas={index}"), "x", 200, "true");
    check(&format!("PUT kv/a?cas={index}"), "x", 200, "false");
    assert_eq!(get(&dev, "kv/a").json()[0]["CreateIndex"], index);
    check("PUT kv/new?cas=0", "x", 200, "true");
    check("POST kv/web/x/1", "", 200, "true");
    check("PUT kv/web/x/2", "", 200, "true");
    check("PUT kv/web/y%23%20z", "", 200, "true");
    check("GET kv/web/?keys&separator=/", "", 200, r#"["web/x/","web/y# z"]"#);
    check("GET kv/web/?keys", "", 200, r#"["web/x/1","web/x/2","web/y# z"]"#);
    check("GET kv/zzz?keys", "", 404, "");
    check("GET kv/zzz?recurse", "", 404, "");
    assert_eq!(get(&dev, "kv/?recurse").json().as_array().unwrap().len(), 6);
    check("DELETE kv/web/?recurse", "", 200, "true");
    check("DELETE kv/a?cas=1", "", 200, "false");
    check("DELETE kv/a", "", 200, "true");
    check("DELETE kv/a", "", 200, "true");
    check("DELETE kv/?recurse", "", 200, "true");
    check("GET kv/?keys", "", 200, "[]");
    check("GET kv/", "", 400, "Missing key name");
    check("GET kv/a?dc=other", "", 500, "No path to datacenter");
    check("GET kv/a?index=x", "", 400, "Invalid index");
    check("GET kv/a?wait=10", "", 400, "Invalid wait time");
    assert_eq!(put(&dev, "kv/a?cas=0&acquire=x", "").status, 400);
    assert_eq!(put(&dev, "kv/big", &"x".repeat(524_288)).body, "true");
    assert_eq!(put(&dev, "kv/big", &"x".repeat(524_289)).status, 413);
    let patch = ask(dev.control, "PATCH", "kv/a", "", b"");
    assert_eq!(patch.status, 405);
    assert!(patch.header("allow").unwrap().contains("DELETE"));
    assert_eq!(get(&dev, "connect/ca/roots").status, 501);
}

/// Much sooner than the waits of queries.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_query_waits_for_a_change_of_its_own() {
    let dev = Gateway::start_dev("consul-blocking", CONFIG);
    let floor = get(&dev, "kv/c").index();
    put(&dev, "kv/a", "1");
    put(&dev, "kv/b", "1");
    let (a, b) = (get(&dev, "kv/a").index(), get(&dev, "kv/b").index());
    assert!(floor <= a && a < b);
    assert_eq!(get(&dev, "kv/?recurse").index(), b);
    let missing = get(&dev, "kv/c");
    assert_eq!((missing.status, missing.index()), (404, floor));
    let control = dev.control;
    let waits = std::thread::spawn(move || {
        ask(control, "GET", &format!("kv/a?index={a}&wait=60s"), "", b"")
    });
    for _ in 0..20 {
        put(&dev, "kv/b", "2");
    }
    assert!(!waits.is_finished(), "an unrelated change woke it");
    let began = now();
    ask(dev.control, "DELETE", "kv/a", "", b"");
    let woken = waits.join().unwrap();
    assert!(began.elapsed() < SOON, "woken by the change, not by the clock");
    let b = get(&dev, "kv/b").index();
    assert_eq!((woken.status, woken.index()), (404, b + 1));
    for index in [floor, 1_000_000] {
        let at_once = get(&dev, &format!("kv/a?index={index}"));
        assert_eq!((at_once.status, at_once.index()), (404, b + 1), "{index}");
    }
    let began = now();
    let same = get(&dev, &format!("kv/b?index={b}&wait=200ms"));
    assert_eq!(same.index(), b);
    assert!(Duration::from_millis(200) <= began.elapsed());
    let control = dev.control;
    let created = std::thread::spawn(move || {
        ask(control, "GET", &format!("kv/c?index={floor}&wait=60s"), "", b"")
    });
    let began = now();
    put(&dev, "kv/c", "1");
    assert_eq!(created.join().unwrap().status, 200);
    assert!(began.elapsed() < SOON);
}

#[test]
fn a_session_holds_pairs_and_its_end_delays_them() {
    let dev = Gateway::start_dev("consul-sessions", CONFIG);
    let session = |body: &str| {
        let answer = put(&dev, "session/create", body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["ID"].as_str().unwrap().to_owned()
    };
    let (one, two) = (session(r#"{"lock_delay": "1s", "TTL": "10s"}"#), session(""));
    let info = get(&dev, &format!("session/info/{one}"));
    let index = info.json()[0]["CreateIndex"].clone();
    let node = info.json()[0]["Node"].clone();
    assert_eq!(
        info.body,
        format!(
            r#"[{{"ID":"{one}","Name":"","Node":{node},"LockDelay":1000000000,"Behavior":"release","TTL":"10s","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":{index},"ModifyIndex":{index}}}]"#
        )
    );
    check(&dev, &format!("PUT kv/l?acquire={one}"), "v", 200, "true");
    check(&dev, &format!("PUT kv/l?acquire={one}"), "w", 200, "true");
    check(&dev, &format!("PUT kv/l?acquire={two}"), "x", 200, "false");
    check(&dev, &format!("PUT kv/l?release={two}"), "x", 200, "false");
    check(&dev, "PUT kv/l?acquire=none", "x", 500, r#"invalid session "none""#);
    check(&dev, "PUT kv/l?release=none", "x", 200, "false");
    let pair = get(&dev, "kv/l").json();
    assert_eq!((&pair[0]["LockIndex"], &pair[0]["Session"]), (&json!(1), &json!(one)));
    assert_eq!(put(&dev, &format!("session/renew/{one}"), "").json()[0]["ID"], json!(one));
    check(&dev, &format!("PUT session/destroy/{one}"), "", 200, "true");
    check(&dev, &format!("PUT session/destroy/{one}"), "", 200, "true");
    check(
        &dev,
        &format!("PUT session/renew/{one}"),
        "",
        404,
        &format!("Session id '{one}' not found"),
    );
    let pair = get(&dev, "kv/l").json();
    assert_eq!((&pair[0]["LockIndex"], pair[0].get("Session")), (&json!(1), None));
    assert_eq!(pair[0]["Value"], json!("dw=="));
    check(&dev, &format!("PUT kv/l?acquire={two}"), "x", 200, "false");
    let began = now();
    while put(&dev, &format!("kv/l?acquire={two}"), "x").body != "true" {
        assert!(began.elapsed() < PATIENCE, "the delay never ends");
        std::thread::yield_now();
    }
    check(&dev, &format!("PUT kv/l?release={two}"), "y", 200, "true");
    check(&dev, &format!("PUT kv/l?acquire={two}"), "y", 200, "true");
    assert_eq!(get(&dev, "kv/l").json()[0]["LockIndex"], 3);
    check(&dev, "GET session/info/none", "", 200, "[]");
    assert_eq!(get(&dev, "session/list").json().as_array().unwrap().len(), 1);
    for bad in [r#"{"TTL":"9s"}"#, r#"{"Node":"x"}"#, r#"{"Checks":["x"]}"#] {
        assert_eq!(put(&dev, "session/create", bad).status, 500, "{bad}");
    }
    assert_eq!(put(&dev, "session/create", "{").status, 400);
}

#[test]
fn operations_of_one_request_happen_together() {
    let dev = Gateway::start_dev("consul-txn", CONFIG);
    let set = r#"[{"KV":{"Verb":"set","Key":"a","Value":"aGk="}},{"kv":{"verb":"get","key":"a"}}]"#;
    let done = put(&dev, "txn", set);
    assert_eq!(done.status, 200, "{}", done.body);
    let done = done.json();
    assert_eq!(done["Errors"], Value::Null);
    assert_eq!(done["Results"][0]["KV"]["Value"], Value::Null);
    assert_eq!(done["Results"][1]["KV"]["Value"], json!("aGk="));
    let bad = r#"[{"KV":{"Verb":"delete","Key":"a"}},{"KV":{"Verb":"cas","Key":"a","Index":1}}]"#;
    check(
        &dev,
        "PUT txn",
        bad,
        409,
        r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"failed to set key \"a\", index is stale"}]}"#,
    );
    assert_eq!(get(&dev, "kv/a").status, 200);
    let many = vec![json!({"KV": {"Verb": "get-tree", "Key": ""}}); 129];
    assert_eq!(put(&dev, "txn", &Value::from(many).to_string()).status, 413);
}

#[test]
fn the_door_knows_who_may_enter() {
    let dev = Gateway::start_dev("consul-open", CONFIG);
    let from_page = ask(dev.control, "POST", "kv/a", "origin: https://evil.example\r\n", b"x");
    assert_eq!(from_page.status, 403);
    assert_eq!(get(&dev, "kv/a?token=of-another-consul").status, 404);
    assert_eq!(get(&dev, "agent/self").json()["Config"]["Datacenter"], "dc1");
    check(&dev, "GET catalog/datacenters", "", 200, r#"["dc1"]"#);
    check(&dev, "GET status/leader", "", 200, r#""127.0.0.1:8300""#);
    for about_tokens in ["acl/tokens", "acl/token/self", "agent/token/default"] {
        let answer = get(&dev, about_tokens);
        assert_eq!(
            (answer.status, answer.body.trim()),
            (401, "ACL support disabled"),
            "{about_tokens}"
        );
    }
    assert_eq!(get(&dev, "connect/ca/roots").status, 501);
    let mut stream = TcpStream::connect(dev.control).unwrap();
    stream
        .write_all(b"GET /v1/kv/a HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
}
