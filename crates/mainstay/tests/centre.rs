//! The config centre of a real process, by its native API.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::events::Events;
use support::gateway::Gateway;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

fn call(node: &Gateway, method: &str, path: &str, document: &Value) -> (u16, Value) {
    let path = format!("/api/v1/config{path}");
    let (status, body) = node.call(method, &path, &document.to_string());
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn publish(node: &Gateway, document: &Value) -> (u16, Value) {
    call(node, "POST", "/default/payment/releases", document)
}

fn limit(value: u32) -> Value {
    json!({ "format": "json", "content": format!("{{\"limit\":{value}}}") })
}

#[test]
fn releases_are_published_compared_rolled_back_and_survive_a_kill() {
    let mut node = Gateway::start_dev("centre", CONFIG);
    let first = json!({ "items": { "a.json": limit(1) }, "note": "first" });
    let (status, published) = publish(&node, &first);
    assert_eq!((status, published["release"].as_u64()), (201, Some(1)), "{published}");
    // Nothing changed: the release in force is the answer.
    assert_eq!(publish(&node, &first).0, 200);

    let schema = json!({ "properties": { "limit": { "maximum": 10 } } });
    let strict = json!({ "format": "json", "content": "{\"limit\":11}", "schema": schema });
    let (status, refused) = publish(&node, &json!({ "items": { "a.json": strict } }));
    assert_eq!((status, refused["code"].as_str()), (422, Some("schema-violation")));
    assert_eq!(refused["errors"][0]["pointer"], "/limit");

    let second = json!({ "items": { "a.json": limit(2) } });
    let (_, preview) = call(&node, "POST", "/default/payment/releases?dry_run=true", &second);
    assert_eq!(preview["dry_run"], true);
    let (status, body) = node.call_with(
        "POST",
        "/api/v1/config/default/payment/releases",
        "if-match: \"7\"\r\n",
        &second.to_string(),
    );
    assert_eq!(status, 412, "{body}");
    assert_eq!(publish(&node, &second).1["release"], 2);
    let (status, diff) = call(&node, "GET", "/default/payment/diff?from=1&to=2", &json!({}));
    assert_eq!((status, diff.to_string().contains("a.json")), (200, true));

    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("centre-killed", &[]);
    let (_, rolled) = call(&node, "POST", "/default/payment/rollback", &json!({ "to": 1 }));
    assert_eq!(rolled["release"], 3, "{rolled}");
    let (_, now) = call(&node, "GET", "/default/payment", &json!({}));
    assert_eq!(now["items"]["a.json"]["content"], "{\"limit\":1}");
    let (_, history) = call(&node, "GET", "/default/payment/releases", &json!({}));
    assert_eq!(history["items"][0]["rollback_of"], 1);
    assert_eq!(call(&node, "GET", "/default/nothing", &json!({})).0, 404);
}

#[test]
fn a_canary_is_for_some_and_whoever_follows_is_told() {
    let node = Gateway::start_dev("centre-canary", CONFIG);
    publish(&node, &json!({ "items": { "a.json": limit(1) } }));
    let ask =
        json!({ "client": "pay-5", "groups": [{ "namespace": "default", "group": "payment" }] });
    let stream = node.open("POST", "/api/v1/config/watch", "", &ask.to_string());
    let mut told = Events::of(stream);
    assert_eq!(told.next().document["release"], 1);

    // Bucket of pay-5 is 1551: 20 % reaches it, and pay-6 (2202) not.
    let canary = json!({ "items": { "a.json": limit(9) }, "canary": { "percent": 20 } });
    assert_eq!(publish(&node, &canary).1["canary"], true);
    let update = told.next().document;
    assert_eq!((update["release"].as_u64(), update["canary"].as_bool()), (Some(2), Some(true)));
    let of = |client: &str| {
        let path = format!("/default/payment?client={client}");
        call(&node, "GET", &path, &json!({})).1["release"].as_u64()
    };
    assert_eq!((of("pay-5"), of("pay-6")), (Some(2), Some(1)));
    let busy = publish(&node, &json!({ "items": { "a.json": limit(3) } }));
    assert_eq!((busy.0, busy.1["code"].as_str()), (409, Some("canary-running")));
    assert_eq!(call(&node, "POST", "/default/payment/canary/promote", &json!({})).0, 200);
    assert_eq!(of("pay-6"), Some(2));

    let applied = json!({
        "client": "pay-5", "namespace": "default", "group": "payment", "release": 2,
        "outcome": "applied"
    });
    assert_eq!(call(&node, "POST", "/reports", &applied).0, 204);
    let (_, listeners) = call(&node, "GET", "/default/payment/listeners", &json!({}));
    assert_eq!(listeners["items"][0]["state"], "holding", "{listeners}");
}

#[test]
fn a_secret_is_sealed_on_disk_and_shown_only_when_asked_for() {
    let node = Gateway::start_dev("centre-secret", CONFIG);
    let secret = json!({ "content": "hunter2-of-the-shop", "secret": true });
    assert_eq!(publish(&node, &json!({ "items": { "password": secret } })).0, 201);
    let (_, shown) = call(&node, "GET", "/default/payment", &json!({}));
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    let (_, shown) = call(&node, "GET", "/default/payment?secrets=true", &json!({}));
    assert_eq!(shown["items"]["password"]["content"], "hunter2-of-the-shop");
    let file = std::fs::read(node.home().join("data/store/mainstay.redb")).unwrap();
    let there = file.windows(7).any(|bytes| bytes == b"hunter2");
    assert!(!there && !node.log().contains("hunter2"));
}
