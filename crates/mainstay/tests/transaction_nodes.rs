//! Transactions on several nodes of one etcd: passed on to their owner, and taken over.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::participant::Participant;
use support::wait::until;

const PATIENCE: Duration = Duration::from_secs(30);

fn on(etcd: &Etcd, name: &str, token: &Path) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{name}\"\ntoken_file = \"{}\"\n\
         [gateway]\nlisten = [\"127.0.0.1:0\"]\ndrain_delay_seconds = 0\n\
         [transaction]\nbackoff_initial_milliseconds = 50\nbackoff_max_seconds = 1\n\
         [store]\nbackend = \"etcd\"\n[store.etcd]\nendpoints = [\"{}\"]\nprefix = \"/test/\"\n",
        token.display(),
        etcd.endpoint()
    )
}

fn call(node: &Gateway, method: &str, path: &str, document: &Value) -> (u16, Value) {
    let body = if document.is_null() { String::new() } else { document.to_string() };
    let (status, text) = node.call(method, &format!("/api/v1{path}"), &body);
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[test]
fn whoever_is_asked_answers_and_another_goes_on_when_one_dies() {
    let etcd = Etcd::start();
    let home = tempfile::TempDir::new().unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "a token that nodes share\n".replace(' ', "-")).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let shop = Participant::start();
    let mut a = Gateway::start_server("tx-nodes-a", &on(&etcd, "a", &token));
    let b = a.beside("tx-nodes-b", &on(&etcd, "b", &token));
    let owned = |node: &Gateway| {
        let (_, text) = node.control("/metrics");
        let line = text.lines().find(|line| line.starts_with("mainstay_shard_owned_count "));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
    };
    until("both own shards", PATIENCE, || 0 < owned(&b) && owned(&a) + owned(&b) == 64);
    shop.answers("/slow", 503, "");
    for n in 0..8 {
        let begin = json!({
            "gid": format!("order-{n}"), "mode": "saga",
            "steps": [{ "action": { "url": shop.url("/slow") } }],
        });
        let node = if n % 2 == 0 { &a } else { &b };
        let (status, begun) = call(node, "POST", "/transactions", &begin);
        assert_eq!(status, 201, "{begun}");
    }
    for n in 0..8 {
        let path = format!("/transactions/order-{n}");
        for node in [&a, &b] {
            let (status, seen) = call(node, "GET", &path, &Value::Null);
            assert_eq!((status, &seen["state"]), (200, &json!("committing")), "{seen}");
        }
    }
    // Clients of DTM know one address.
    for n in 0..8 {
        let gid = format!("trip-{n}");
        let named = json!({ "gid": gid, "trans_type": "tcc" });
        let dtm = |method: &str, path: &str, body: &Value| {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let (status, text) = a.call(method, &format!("/api/dtmsvr/{path}"), &body);
            (status, serde_json::from_str::<Value>(&text).unwrap())
        };
        let done = (200, json!({ "dtm_result": "SUCCESS" }));
        assert_eq!(dtm("POST", "prepare", &named), done, "{gid}");
        let seen = dtm("GET", &format!("query?gid={gid}"), &Value::Null);
        assert_eq!((seen.0, &seen.1["transaction"]["status"]), (200, &json!("prepared")), "{gid}");
        assert_eq!(dtm("POST", "abort", &named), done, "{gid}");
    }
    // A name of its own making is always one that the node asked can take.
    for _message in 0..8 {
        let send = json!({ "target": { "url": shop.url("/mail") } });
        assert_eq!(call(&b, "POST", "/messages", &send).0, 202);
    }
    a.signal(Signal::KILL);
    a.ended();
    until("b owns all", PATIENCE, || owned(&b) == 64);
    shop.answers("/slow", 200, "");
    for n in 0..8 {
        until("it is committed", PATIENCE, || {
            let path = format!("/transactions/order-{n}");
            call(&b, "GET", &path, &Value::Null).1["state"] == "committed"
        });
    }
}
