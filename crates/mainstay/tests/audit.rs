//! Audit records of a real process: by its API, and on the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::wait::until;

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
    // Those of our own reading come when they come.
    let all = page["items"].as_array().unwrap().iter().rev().map(line);
    all.filter(|line: &String| !line.starts_with("audit:search")).collect()
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
fn secrets_that_are_shown_and_changes_of_the_process_are_recorded() {
    let node = Gateway::start_dev("audit-shown", CONFIG);
    let payment = "/config/default/payment";
    let secret = json!({ "content": "hunter2", "secret": true });
    let items = json!({ "items": { "password": secret } });
    done(&node, "POST", &format!("{payment}/releases"), &items);
    // What is masked is no secret that was shown.
    done(&node, "GET", payment, &json!({}));
    done(&node, "GET", &format!("{payment}?secrets=true"), &json!({}));
    done(&node, "GET", &format!("{payment}/releases/1?secrets=true"), &json!({}));
    let group = json!({ "namespace": "default", "group": "payment" });
    let watch = json!({ "client": "one", "groups": vec![group; 101], "secrets": true });
    let (status, refused) = call(&node, "POST", "/config/watch", "", &watch);
    assert!((400..500).contains(&status), "nothing is shown of so many: {refused}");
    let fault = json!({
        "fault": "reset", "match": { "service": "order" }, "percent": 10.0,
        "reason": "a drill", "ttl_seconds": 60,
    });
    let (_, fault) = call(&node, "POST", "/faults", "", &fault);
    let fault = fault["id"].as_str().unwrap_or_else(|| panic!("{fault}")).to_owned();
    done(&node, "DELETE", &format!("/faults/{fault}"), &json!({}));
    done(&node, "POST", "/settings/reload", &json!({ "reason": "a new route" }));
    let forced = json!({ "mode": "forced-open" });
    let (status, _) = call(&node, "PUT", "/circuit-states/nobody/mode", "", &forced);
    assert_eq!(status, 422, "a reason is needed");
    let want = [
        "circuit:mode nobody",
        "config:publish default/payment",
        "config:reveal default/payment",
        "config:reveal default/payment",
        "fault:clear ",
        "fault:set ",
        "settings:reload settings",
    ];
    until("all are recorded", Duration::from_secs(10), || {
        let mut found = records(&node);
        found.sort();
        let is_it = |(found, want): (&String, &&str)| found.starts_with(*want);
        found.len() == want.len() && found.iter().zip(&want).all(is_it)
    });
    let (_, page) = call(&node, "GET", "/audit?action=settings:reload", "", &json!({}));
    assert_eq!(page["items"][0]["reason"], "a new route", "{page}");
    assert!(!page.to_string().contains("hunter2"));
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

    let (_, page) =
        call(&node, "GET", "/audit?object=service/shop/order&outcome=done", "", &json!({}));
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
    let (_, lines, more) =
        node.cli(&["audit", "search", "--action", "service:remove", "--limit", "1"]);
    assert!(lines.contains("service:remove") && more.contains("--cursor"), "{lines}{more}");
    let (code, lines, _) = node.cli(&["audit", "search", "--until", "1h", "-o", "name"]);
    assert_eq!((code, &*lines), (0, ""), "nothing is that old");
    assert_eq!(node.cli(&["audit", "show", "nonsense"]).0, 3);
    assert_eq!(node.cli(&["audit", "search", "--since", "soon"]).0, 2);
    let (status, refused) = call(&node, "GET", "/audit?cursor=x", "", &json!({}));
    assert_eq!((status, refused["code"].as_str()), (422, Some("invalid-request")));
    // The log takes all of them over, that of the refusal within a second.
    until("all are logged", Duration::from_secs(5), || {
        let (_, metrics) = node.control("/metrics");
        let changes =
            r#"mainstay_audit_records_total{action="service:settings",outcome="refused"} 1"#;
        metrics.contains("mainstay_audit_outbox_records 0") && metrics.contains(changes)
    });
}

/// What is answered to a request as it stands here.
fn raw(node: &Gateway, request: &str) -> String {
    let mut stream = TcpStream::connect(node.door().0).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The record with this action and outcome, once it is there.
fn refused(node: &Gateway, action: &str) -> Value {
    let mut found = Value::Null;
    until(&format!("{action} is recorded"), Duration::from_secs(5), || {
        let path = format!("/audit?action={action}&limit=1000");
        found = call(node, "GET", &path, "", &json!({})).1["items"][0].clone();
        !found.is_null()
    });
    found
}

#[test]
fn what_is_refused_is_recorded_with_who_asked() {
    let mut node = Gateway::start_dev("audit-refused", CONFIG);
    let put = |path: &str, body: Value| call(&node, "PUT", path, "", &body).0;
    assert_eq!(put("/limits/shop/sale", json!({ "content": "max = 0" })), 422);
    let record = refused(&node, "limit:write");
    for (pointer, want) in [
        ("/outcome", "refused"),
        ("/code", "invalid-rule"),
        ("/target/kind", "limit"),
        ("/target/id", "shop/sale"),
        ("/actor/principal", "operator"),
        ("/actor/address", "127.0.0.1"),
    ] {
        assert_eq!(record.pointer(pointer).and_then(Value::as_str), Some(want), "{record}");
    }
    // Who only looks changes nothing.
    assert_eq!(put("/circuits/shop/x?dry_run=true", json!({ "content": "probes = 0" })), 422);
    assert_eq!(call(&node, "DELETE", "/registry/shop/services/x", "", &json!({})).0, 404);
    assert_eq!(refused(&node, "service:remove")["code"], "service-not-found");
    let resolve = json!({ "as": "aborted" });
    assert_eq!(call(&node, "POST", "/transactions/g/resolve", "", &resolve).0, 422);
    let record = refused(&node, "transaction:resolve");
    assert_eq!(
        (&record["code"], &record["target"]["id"]),
        (&json!("reason-required"), &json!("g"))
    );

    // Who is not let in is nobody.
    let request = "POST /api/v1/store/compact HTTP/1.1\r\nhost: localhost\r\n\
        authorization: Bearer wrong\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = raw(&node, request);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let record = refused(&node, "store:compact");
    assert_eq!(record["actor"]["principal"], "anonymous");
    assert_eq!(
        (&record["outcome"], &record["code"]),
        (&json!("refused"), &json!("credential-missing"))
    );
    let outcome = call(&node, "GET", "/audit?action=circuit:write", "", &json!({})).1;
    assert_eq!(outcome["items"], json!([]), "a rehearsal is no change");

    // The door that is open to this machine knows nobody, unless a token says who it is.
    let check = "/v1/agent/service/register";
    assert_eq!(node.call_with("PUT", check, "", &json!({ "Name": "web" }).to_string()).0, 200);
    let gone = "PUT /v1/agent/service/deregister/web HTTP/1.1\r\nhost: localhost\r\n\
        content-length: 0\r\nconnection: close\r\n\r\n";
    assert!(raw(&node, gone).starts_with("HTTP/1.1 200"));
    let record = refused(&node, "instance:deregister");
    assert_eq!(
        (&record["actor"]["principal"], &record["actor"]["via"]),
        (&json!("anonymous"), &json!("consul"))
    );
    assert_eq!(record["outcome"], "done");
    node.signal(Signal::TERM);
    node.ended();
}

/// How many records there are of `action`, by outcome.
fn outcomes(node: &Gateway, action: &str) -> [usize; 3] {
    ["done", "failed", "refused"].map(|outcome| {
        let path = format!("/audit?action={action}&outcome={outcome}");
        call(node, "GET", &path, "", &json!({})).1["items"].as_array().unwrap().len()
    })
}

#[test]
fn what_is_tried_at_a_database_and_fails_is_recorded_where_it_is_tried() {
    let away = "[[transaction.resource]]\nname = \"away\"\nkind = \"mariadb\"\n\
        url = \"mariadb://coordinator@%2Fnowhere%2Fsocket/shop\"\n";
    let node = Gateway::start_dev("audit-database", &[CONFIG, away].concat());
    let verb = |verb: &str, document: &Value| {
        let path = format!("/transaction-resources/away/{verb}");
        let (status, answer) = call(&node, "POST", &path, "", document);
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    };
    let unreachable = (503, "resource-unreachable".to_owned());
    until("databases are spoken to", Duration::from_secs(20), || {
        verb("sweep", &json!({ "report_only": true })) == unreachable
    });
    for (name, action) in [("sweep", "transaction:sweep"), ("init", "transaction:resource-init")] {
        let before = outcomes(&node, action);
        assert_eq!(verb(name, &json!({ "reason": "looks after ghosts" })), unreachable);
        assert_eq!(verb(name, &json!({})), (422, "reason-required".to_owned()));
        // Records of refusals are put in order: none of the failure can follow this one.
        let mut after = before;
        until("the refusal is recorded", Duration::from_secs(5), || {
            after = outcomes(&node, action);
            before[2] < after[2]
        });
        let more = [0, 1, 2].map(|at| after[at] - before[at]);
        assert_eq!(more, [1, 1, 1], "{action}: begun, failed; refused");
    }
    // A deferred request is named by its queue and receipt, as no transaction is.
    let receipt = "0".repeat(32);
    let path = format!("/deferred/orders/{receipt}/replay");
    assert_eq!(call(&node, "POST", &path, "", &json!({})).0, 422);
    let target = refused(&node, "deferred:replay")["target"].clone();
    let id = format!("orders/{receipt}");
    assert_eq!((&target["kind"], &target["id"]), (&json!("deferred"), &json!(id)));
}
