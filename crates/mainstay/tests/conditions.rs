//! `dry_run` and `If-Match`: every change of what is agreed knows them, or refuses to go on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use support::gateway::Gateway;

const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

const ORDER: &str = "/api/v1/registry/default/services/order";

/// A request about a node, told as `METHOD path`, with what it is based on.
fn ask(node: &Gateway, call: &str, base: Option<u64>, document: &Value) -> (u16, Value) {
    let (method, path) = call.split_once(' ').unwrap();
    let header = base.map(|base| format!("if-match: \"{base}\"\r\n")).unwrap_or_default();
    let (status, text) = node.call_with(method, path, &header, &document.to_string());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// How many changes were made: each leaves a record in the batch that makes it. The revision of the
/// store would not do, since records of refusals move it a moment later.
#[track_caller]
fn changes(node: &Gateway) -> usize {
    let (status, text) = node.control("/api/v1/audit?outcome=done&limit=1000");
    assert_eq!(status, 200, "{text}");
    let records: Value = serde_json::from_str(&text).unwrap();
    let records = records["items"].as_array().unwrap();
    records.iter().filter(|record| record["action"] != "audit:search").count()
}

fn listed(node: &Gateway) -> Value {
    let (_, text) = node.control(ORDER);
    serde_json::from_str::<Value>(&text).unwrap()["instances"][0].clone()
}

#[test]
fn every_verb_of_an_instance_is_tried_without_effect_and_refused_on_what_has_moved() {
    let node = Gateway::start_server("conditions-instance", CONFIG);
    let at = format!("{ORDER}/instances/a");
    let document = json!({ "address": "127.0.0.1", "port": 80, "kind": "persistent" });
    let put = format!("PUT {at}");
    assert_eq!(ask(&node, &put, Some(7), &document).0, 412, "it is not there at all");
    assert_eq!(ask(&node, &put, Some(0), &document).0, 201, "nobody was there");
    assert_eq!(ask(&node, &put, Some(0), &document).0, 412, "now somebody is");
    for (verb, body, changed) in [
        ("drain", json!({ "seconds": 600 }), ("state", json!("draining"))),
        ("undrain", json!({}), ("state", json!("up"))),
        ("maintenance", json!({ "enable": true, "reason": "disk" }), ("state", json!("down"))),
        ("undrain", json!({}), ("state", json!("up"))),
        ("weight", json!({ "weight": 7 }), ("weight", json!(7))),
    ] {
        let (path, before) = (format!("POST {at}/{verb}"), listed(&node));
        let base = before["revision"].as_u64();
        let quiet = changes(&node);
        let (status, tried) = ask(&node, &format!("{path}?dry_run=true"), base, &body);
        assert_eq!((status, &tried["dry_run"]), (200, &json!(true)), "{verb}: {tried}");
        let (member, value) = &changed;
        assert_eq!(tried["after"][member], *value, "{verb}: {tried}");
        assert_eq!(tried["before"][member], before[member], "{verb}: {tried}");
        assert_eq!((changes(&node), listed(&node)), (quiet, before), "{verb} was only tried");
        let stale = ask(&node, &path, base.map(|base| base - 1), &body);
        assert_eq!((stale.0, &stale.1["code"]), (412, &json!("revision-moved")), "{verb}");
        let (status, made) = ask(&node, &path, base, &body);
        assert_eq!(status, 200, "{verb}: {made}");
        assert_eq!(listed(&node)[member], *value, "{verb}");
        // What the answer names is a base too, also for whoever has read nothing since.
        let again = ask(&node, &format!("{path}?dry_run=true"), made["revision"].as_u64(), &body);
        assert_eq!(again.0, 200, "{verb}: {}", again.1);
    }
    goes_at_last(&node, &at);
}

/// The instance `at` and its service are taken away, which others are kept from.
#[track_caller]
fn goes_at_last(node: &Gateway, at: &str) {
    let kind = json!({ "address": "127.0.0.1", "port": 81, "kind": "ephemeral" });
    let other = format!("PUT {ORDER}/instances/b?dry_run=true");
    assert_eq!(ask(node, &other, None, &kind).1["code"], "kind-conflict", "a try says it, too");
    let delete = format!("DELETE {ORDER}?dry_run=true");
    assert_eq!(ask(node, &delete, None, &Value::Null).1["code"], "service-in-use");
    let gone = format!("DELETE {at}");
    let base = listed(node)["revision"].as_u64();
    assert_eq!(ask(node, &gone, Some(1), &Value::Null).0, 412);
    assert_eq!(ask(node, &format!("{gone}?dry_run=true"), base, &Value::Null).0, 200);
    assert_eq!(ask(node, &gone, base, &Value::Null).0, 200);
    let (_, tried) = ask(node, &delete, None, &Value::Null);
    assert_eq!((&tried["dry_run"], &tried["after"]), (&json!(true), &Value::Null));
    assert_eq!(ask(node, &format!("DELETE {ORDER}"), Some(1), &Value::Null).0, 412);
    let settings = tried["revision"].as_u64();
    assert_eq!(ask(node, &format!("DELETE {ORDER}"), settings, &Value::Null).0, 200);
}

#[test]
fn every_verb_of_a_group_is_tried_without_effect_and_refused_on_what_has_moved() {
    let node = Gateway::start_server("conditions-group", CONFIG);
    let group = "/api/v1/config/default/payment";
    let publish = format!("POST {group}/releases");
    let content = |text: &str| json!({ "items": { "a": { "content": text } } });
    let canary =
        |text: &str| json!({ "items": { "a": { "content": text } }, "canary": { "percent": 10 } });
    for text in ["1", "2"] {
        assert_eq!(ask(&node, &publish, None, &content(text)).0, 201);
    }
    let draft = format!("PUT {group}/drafts/a");
    let item = json!({ "content": "3" });
    assert_eq!(ask(&node, &draft, Some(9), &item).0, 412);
    let quiet = changes(&node);
    let (status, tried) = ask(&node, &format!("{draft}?dry_run=true"), Some(0), &item);
    assert_eq!((status, &tried["dry_run"]), (200, &json!(true)), "{tried}");
    assert_eq!(changes(&node), quiet, "no draft, and no content of one");
    let (status, made) = ask(&node, &draft, Some(0), &item);
    assert_eq!(status, 200, "{made}");
    let (_, drafts) = ask(&node, &format!("GET {group}/drafts"), None, &Value::Null);
    assert_eq!(drafts["items"][0]["revision"], made["revision"]);
    let drop = format!("DELETE {group}/drafts/a");
    assert_eq!(ask(&node, &drop, Some(1), &Value::Null).0, 412);
    assert_eq!(ask(&node, &format!("{drop}?dry_run=true"), None, &Value::Null).0, 200);
    assert_eq!(ask(&node, &drop, made["revision"].as_u64(), &Value::Null).0, 200);

    let walk = |verb: &str, body: &Value, member: &str, want: &Value| {
        let (call, quiet) = (format!("POST {group}/{verb}"), changes(&node));
        let call = if verb == "canary" { call.replace("POST", "PUT") } else { call };
        assert_eq!(ask(&node, &call, Some(1), body).0, 412, "{verb}");
        let (status, tried) = ask(&node, &format!("{call}?dry_run=true"), Some(2), body);
        assert_eq!((status, &tried["dry_run"]), (200, &json!(true)), "{verb}: {tried}");
        assert_eq!(changes(&node), quiet, "{verb} was only tried");
        let found = tried.pointer(member).unwrap_or(&Value::Null);
        assert_eq!(found, want, "{verb}: {tried}");
    };
    walk("rollback", &json!({ "to": 1, "note": "back" }), "/diff/from", &json!(2));
    assert_eq!(ask(&node, &publish, None, &canary("3")).0, 201);
    walk("canary", &json!({ "percent": 50 }), "/canary/percent", &json!(50.0));
    walk("canary/promote", &Value::Null, "/release", &json!(3));
    walk("canary/abort", &Value::Null, "/canary", &Value::Null);
    assert_eq!(ask(&node, &format!("POST {group}/canary/promote"), Some(2), &Value::Null).0, 200);
}

#[test]
fn a_change_that_can_be_neither_tried_nor_compared_is_not_made() {
    let node = Gateway::start_server("conditions-bare", CONFIG);
    for call in [
        "POST /api/v1/registry/heartbeats",
        "POST /api/v1/registry/observations",
        "POST /api/v1/config/reports",
        "POST /api/v1/config/rewrap",
        "POST /api/v1/sessions",
        "POST /api/v1/keyring/rotate",
        "POST /api/v1/store/compact",
        "POST /api/v1/locks/default/a/acquire",
    ] {
        let quiet = changes(&node);
        let tried = ask(&node, &format!("{call}?dry_run=true"), None, &json!({}));
        assert_eq!((tried.0, &tried.1["code"]), (422, &json!("invalid-request")), "{call}");
        let compared = ask(&node, call, Some(1), &json!({}));
        assert_eq!((compared.0, &compared.1["code"]), (422, &json!("invalid-request")), "{call}");
        assert_eq!(changes(&node), quiet, "{call}");
    }
}
