//! Audit records of a real process: by its API, and on the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::Gateway;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

fn call(node: &Gateway, method: &str, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let path = format!("/api/v1{path}");
    let (status, text) = node.call_with(method, &path, headers, &body.to_string());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[track_caller]
fn done(node: &Gateway, method: &str, path: &str, body: &Value) {
    let (status, answer) = call(node, method, path, "", body);
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
}

/// `action object` of every record, oldest first.
fn records(node: &Gateway) -> Vec<String> {
    let (status, page) = call(node, "GET", "/audit?limit=1000", "", &json!({}));
    assert_eq!(status, 200, "{page}");
    let line = |record: &Value| {
        let text = |pointer| record.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
        format!("{} {}", text("/action"), text("/target/id"))
    };
    page["items"].as_array().unwrap().iter().rev().map(line).collect()
}

#[test]
fn every_change_has_its_record_and_programs_have_none() {
    let mut node = Gateway::start_dev("audit", CONFIG);
    let order = "/registry/default/services/order";
    let at = format!("{order}/instances/a");
    let instance = json!({ "address": "127.0.0.1", "port": 80, "kind": "persistent" });
    done(&node, "PUT", &at, &instance);
    done(&node, "POST", &format!("{at}/heartbeat"), &json!({}));
    done(&node, "POST", &format!("{at}/weight"), &json!({ "weight": 7 }));
    done(&node, "POST", &format!("{at}/maintenance"), &json!({ "enable": true, "reason": "disk" }));
    done(&node, "POST", &format!("{at}/undrain"), &json!({}));
    done(&node, "POST", &format!("{at}/drain"), &json!({ "seconds": 60 }));
    done(&node, "DELETE", &at, &json!({}));
    done(&node, "PUT", order, &json!({ "metadata": { "team": "shop" } }));
    done(&node, "DELETE", order, &json!({}));

    let payment = "/config/default/payment";
    done(&node, "PUT", &format!("{payment}/drafts/a"), &json!({ "content": "1" }));
    done(&node, "POST", &format!("{payment}/releases"), &json!({ "from_drafts": true }));
    let canary = json!({ "items": { "a": { "content": "2" } }, "canary": { "percent": 10 } });
    done(&node, "POST", &format!("{payment}/releases"), &canary);
    done(&node, "PUT", &format!("{payment}/canary"), &json!({ "percent": 50 }));
    done(&node, "POST", &format!("{payment}/canary/promote"), &json!({}));
    done(&node, "POST", &format!("{payment}/rollback"), &json!({ "to": 1 }));
    // Nothing changes, nothing is recorded.
    done(&node, "POST", &format!("{payment}/rollback"), &json!({ "to": 1 }));
    done(&node, "POST", "/store/compact", &json!({ "revision": 2 }));
    let want = [
        "instance:weight default/order/a",
        "instance:maintenance default/order/a",
        "instance:enable default/order/a",
        "instance:drain default/order/a",
        "instance:deregister default/order/a",
        "service:settings default/order",
        "service:remove default/order",
        "config:draft default/payment",
        "config:publish default/payment",
        "config:publish default/payment",
        "config:canary default/payment",
        "config:promote default/payment",
        "config:rollback default/payment",
        "store:compact history",
    ];
    assert_eq!(records(&node), want);
    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("audit-killed", &[]);
    assert_eq!(records(&node), want, "what was acknowledged is there");
}

#[test]
fn a_record_says_who_from_where_and_why_and_is_found() {
    let node = Gateway::start_dev("audit-search", CONFIG);
    let settings = "/registry/shop/services/order";
    let headers = "mainstay-reason: %E9%99%90%E6%B5%81%E4%B8%AD\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
        idempotency-key: k-1\r\n";
    let body = json!({ "metadata": { "team": "shop" } });
    assert_eq!(call(&node, "PUT", settings, headers, &body).0, 200);
    let short = call(&node, "PUT", settings, "mainstay-reason: ab\r\n", &json!({}));
    assert_eq!((short.0, short.1["code"].as_str()), (422, Some("reason-required")));

    let (_, page) = call(&node, "GET", "/audit?object=service/shop/order", "", &json!({}));
    let record = &page["items"][0];
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "{page}");
    for (pointer, want) in [
        ("/actor/principal", "operator"),
        ("/actor/via", "api"),
        ("/actor/address", "127.0.0.1"),
        ("/reason", "限流中"),
        ("/trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("/correlation", "k-1"),
        ("/after/metadata/team", "shop"),
        ("/outcome", "done"),
    ] {
        assert_eq!(record.pointer(pointer).and_then(Value::as_str), Some(want), "{pointer}");
    }
    assert_eq!((&record["before"], &page["trimmed"]), (&Value::Null, &json!(0)));

    let (code, _, said) =
        node.cli(&["service", "remove", "shop/order", "--reason", "renamed", "--yes"]);
    assert_eq!(code, 0, "{said}");
    let found = node.cli_json(&["audit", "search", "--words", "RENAMED", "--since", "1h"]);
    assert_eq!(found["items"][0]["action"], "service:remove", "{found}");
    assert_eq!(found["items"][0]["actor"]["via"], "cli");
    let id = found["items"][0]["id"].as_str().unwrap();
    let (code, shown, _) = node.cli(&["audit", "show", id]);
    assert!(code == 0 && shown.contains("reason: renamed"), "{shown}");
    let (_, lines, more) = node.cli(&["audit", "search", "--limit", "1"]);
    assert!(lines.contains("service:remove") && more.contains("--cursor"), "{lines}{more}");
    let (code, lines, _) = node.cli(&["audit", "search", "--until", "1h", "-o", "name"]);
    assert_eq!((code, &*lines), (0, ""), "nothing is that old");
    assert_eq!(node.cli(&["audit", "show", "nonsense"]).0, 3);
    assert_eq!(node.cli(&["audit", "search", "--since", "soon"]).0, 2);
    let (status, refused) = call(&node, "GET", "/audit?cursor=x", "", &json!({}));
    assert_eq!((status, refused["code"].as_str()), (422, Some("invalid-request")));
    assert!(node.control("/metrics").1.contains("mainstay_audit_outbox_records 2"));
}
