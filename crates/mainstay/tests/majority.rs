//! A node while most members of its store are away: it shows the last it knew, refuses what it
//! cannot keep, and goes on by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::gateway::Gateway;
use support::members::Etcd;
use support::wait::until;

const PATIENCE: Duration = Duration::from_mins(1);

fn call(node: &Gateway, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = node.call(method, &format!("/api/v1{path}"), &body.to_string());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn switch(value: bool) -> Value {
    json!({ "content": { "type": "boolean", "default": false, "value": value } })
}

#[test]
fn without_a_majority_reads_go_on_writes_are_refused_and_all_recovers() {
    let mut etcd = Etcd::start();
    let node = Gateway::start_dev("majority", &etcd.config());
    let order = "/registry/default/services/order";
    let instance = json!({ "address": "127.0.0.1", "port": 80, "kind": "persistent" });
    let registered = || call(&node, "PUT", &format!("{order}/instances/a"), &instance).0;
    until("the store serves", PATIENCE, || matches!(registered(), 200 | 201));
    assert_eq!(call(&node, "PUT", "/switches/shop/sale", &switch(true)).0, 200);
    let route = json!({ "content": "path = '/sale'\nrespond = { body = 'sale' }" });
    assert_eq!(call(&node, "PUT", "/routes/shop/sale", &route).0, 200);

    etcd.kill(0);
    etcd.kill(1);
    let weigh = |weight: u16| {
        let weight = json!({ "weight": weight });
        call(&node, "POST", &format!("{order}/instances/a/weight"), &weight).0
    };
    until("writes are refused", PATIENCE, || 500 <= weigh(3));
    // The last state: it says that it is old, and nobody is told of an emptiness.
    let mut last = Value::Null;
    until("it is known that the store is away", PATIENCE, || {
        last = call(&node, "GET", order, &Value::Null).1;
        last["stale"] == true
    });
    assert_eq!(last["instances"].as_array().unwrap().len(), 1, "{last}");
    let (status, rule) = call(&node, "GET", "/routes/shop/sale", &Value::Null);
    assert_eq!((status, &rule["state"]), (200, &json!("in_force")), "{rule}");

    // What was not sent had no effect, and says so; what may have been says that.
    let refused = |method: &str, path: &str, body: &Value| {
        let (status, said) = call(&node, method, path, body);
        let code = said["code"].as_str().unwrap_or_default().to_owned();
        assert!(
            (status == 503 && code == "store-unavailable")
                || (status == 504 && code == "outcome-unknown"),
            "{method} {path}: {status} {said}"
        );
        code
    };
    let mut codes = Vec::new();
    for _ in 0..2 {
        codes.push(refused("PUT", "/switches/shop/sale", &switch(false)));
        codes.push(refused(
            "POST",
            &format!("{order}/instances/a/weight"),
            &json!({ "weight": 7 }),
        ));
    }
    let session = json!({ "ttl_seconds": 10, "owner": { "host": "h", "pid": 1, "name": "t" } });
    codes.push(refused("POST", "/sessions", &session));
    assert!(codes.contains(&"store-unavailable".to_owned()), "{codes:?}");

    etcd.run(0);
    etcd.run(1);
    until("writes go on by themselves", PATIENCE, || weigh(9) < 300);
    until("nothing is stale any more", PATIENCE, || {
        let now = call(&node, "GET", order, &Value::Null).1;
        now["stale"] != true && now["instances"][0]["weight"] == 9
    });
    assert_eq!(call(&node, "PUT", "/switches/shop/sale", &switch(false)).0, 200);
    assert_eq!(call(&node, "POST", "/sessions", &session).0 / 100, 2);
}
