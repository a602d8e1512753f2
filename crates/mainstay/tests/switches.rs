//! Switches and plans of a real process: by its API, on the command line, and in its gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/origin.rs"]
#[expect(dead_code, reason = "what it counts is asked by others")]
mod origin;
#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use origin::Origin;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::events::Events;
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
fn done(node: &Gateway, method: &str, path: &str, body: &Value) -> Value {
    let why = "mainstay-reason: because\r\n";
    let (status, answer) = call(node, method, path, why, body);
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    answer
}

#[track_caller]
fn refused(node: &Gateway, method: &str, path: &str, body: &Value, want: (u16, &str)) -> Value {
    let why = "mainstay-reason: because\r\n";
    let (status, answer) = call(node, method, path, why, body);
    let code = answer["code"].as_str().unwrap_or_default();
    assert_eq!((status, code), want, "{method} {path}: {answer}");
    answer
}

/// Makes a switch of `shop`.
#[track_caller]
fn make(node: &Gateway, name: &str, kind: &str, value: Value) {
    let content = json!({ "type": kind, "value": value });
    done(node, "PUT", &format!("/switches/shop/{name}"), &json!({ "content": content }));
}

#[track_caller]
fn value(node: &Gateway, name: &str) -> Value {
    done(node, "GET", &format!("/switches/shop/{name}"), &json!({}))["content"]["value"].clone()
}

#[test]
fn switches_have_a_history_and_plans_give_back_what_was_not_changed() {
    let mut node = Gateway::start_dev("switches", CONFIG);
    make(&node, "recommend", "boolean", json!(true));
    make(&node, "limit", "number", json!(100));
    let sale = json!({ "content": { "switches": { "recommend": false, "limit": 40 } } });
    done(&node, "PUT", "/plans/shop/sale", &sale);
    let rehearsed = done(&node, "POST", "/plans/shop/sale/rehearse", &json!({}));
    assert_eq!(rehearsed["effects"][0]["to"], 40, "{rehearsed}");
    assert_eq!(value(&node, "limit"), 100, "a rehearsal changes nothing");
    let (status, why) = call(&node, "POST", "/plans/shop/sale/activate", "", &json!({}));
    assert_eq!((status, why["code"].as_str()), (422, Some("reason-required")));
    done(&node, "POST", "/plans/shop/sale/activate", &json!({}));
    assert_eq!((value(&node, "recommend"), value(&node, "limit")), (json!(false), json!(40)));
    refused(&node, "POST", "/plans/shop/sale/activate", &json!({}), (409, "plan-active"));
    let other = json!({ "content": { "switches": { "limit": 1 } } });
    done(&node, "PUT", "/plans/shop/other", &other);
    let told =
        refused(&node, "POST", "/plans/shop/other/activate", &json!({}), (409, "plan-conflict"));
    assert_eq!((&told["other"], &told["switches"]), (&json!("shop/sale"), &json!(["limit"])));

    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("switches-killed", &[]);
    let shown = done(&node, "GET", "/plans/shop/sale", &json!({}));
    assert_eq!(shown["active"]["who"], "operator", "{shown}");
    until("active plans are counted", Duration::from_secs(5), || {
        node.control("/metrics").1.contains("mainstay_plans_active 1")
    });
    done(&node, "PUT", "/switches/shop/limit/value", &json!({ "value": 60 }));
    let over = done(&node, "POST", "/plans/shop/sale/deactivate", &json!({}));
    assert_eq!(over["kept"], json!(["limit"]), "{over}");
    assert_eq!((value(&node, "recommend"), value(&node, "limit")), (json!(true), json!(60)));

    let history = done(&node, "GET", "/switches/shop/limit/history", &json!({}));
    let numbers: Vec<u64> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["revision"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [3, 2, 1]);
    let diff = done(&node, "GET", "/switches/shop/limit/diff?from=1&to=3", &json!({}));
    assert_eq!(diff["fields"], json!([{ "path": "value", "before": 100, "after": 60 }]));
    done(&node, "POST", "/switches/shop/limit/rollback", &json!({ "to": 1 }));
    assert_eq!(value(&node, "limit"), 100);
    let used = refused(&node, "DELETE", "/switches/shop/limit", &json!({}), (409, "switch-in-use"));
    assert_eq!(used["references"], json!(["plan shop/other", "plan shop/sale"]));
}

#[test]
fn changes_are_compared_checked_and_can_be_tried() {
    let node = Gateway::start_dev("switches-conditions", CONFIG);
    make(&node, "limit", "number", json!(1));
    let path = "/switches/shop/limit";
    let put = |headers: &str, content: &Value| {
        call(&node, "PUT", path, headers, &json!({ "content": content }))
    };
    let two = json!({ "type": "number", "value": 2 });
    let (status, moved) = put("if-match: \"7\"\r\n", &two);
    assert_eq!((status, moved["code"].as_str()), (412, Some("revision-moved")));
    assert_eq!(moved["current"]["content"]["value"], 1, "{moved}");
    assert_eq!(put("if-match: \"1\"\r\n", &two).0, 200);
    let tried = json!({ "content": { "type": "number", "value": 3 } });
    let (_, tried) = call(&node, "PUT", &format!("{path}?dry_run=true"), "", &tried);
    assert_eq!((&tried["revision"], value(&node, "limit")), (&json!(3), json!(2)), "{tried}");
    let (status, wrong) = put("", &json!({ "type": "number", "value": "x" }));
    assert_eq!((status, wrong["code"].as_str()), (422, Some("switch-type")), "{wrong}");
    assert_eq!(wrong["errors"][0]["path"], "value");
    let other = put("", &json!({ "type": "boolean", "value": true }));
    assert_eq!(other.1["code"], "switch-type", "a type is for life");
    let checked = json!({ "content": { "type": "number" } });
    let checked = done(&node, "POST", "/switches/validate", &checked);
    assert_eq!(checked["errors"][0]["path"], "value");
    let watch = json!({ "content": two });
    refused(&node, "PUT", "/switches/shop/watch", &watch, (422, "invalid-request"));
    refused(&node, "GET", "/switches/shop/none", &json!({}), (404, "not-found"));
    let listed = done(&node, "GET", "/switches/shop", &json!({}));
    assert_eq!(listed["items"][0]["name"], "limit");
    // A time that is over: the server writes the default down.
    let soon = json!({ "value": 9, "until": "2020-01-01T00:00:00Z" });
    done(&node, "PUT", "/switches/shop/limit/value", &soon);
    until("its time is over", Duration::from_secs(20), || value(&node, "limit") == 2);
    let history = done(&node, "GET", "/switches/shop/limit/history", &json!({}));
    assert_eq!(history["items"][0]["who"], "system/timers", "{history}");
}

#[test]
fn whoever_follows_is_told_and_goes_on_where_they_were() {
    let node = Gateway::start_dev("switches-watch", CONFIG);
    make(&node, "a", "boolean", json!(true));
    let follow =
        |headers: &str| Events::of(node.open("GET", "/api/v1/switches/shop/watch", headers, ""));
    let mut told = follow("");
    let first = told.next();
    assert_eq!(first.name, "snapshot");
    assert_eq!(first.document["switches"]["a"]["content"]["value"], true, "{first:?}");
    let before = first.id;
    done(&node, "PUT", "/switches/shop/a/value", &json!({ "value": false }));
    let change = told.find("change");
    assert_eq!((&change["name"], &change["put"]["content"]["value"]), (&json!("a"), &json!(false)));
    // Another namespace is not theirs.
    let other = json!({ "content": { "type": "boolean", "value": true } });
    done(&node, "PUT", "/switches/other/b", &other);
    done(&node, "DELETE", "/switches/shop/a", &json!({}));
    assert_eq!(
        told.find("change"),
        json!({ "revision": change_revision(&node), "name": "a", "removed": true })
    );

    let mut again = follow(&format!("last-event-id: {before}\r\n"));
    let whole = again.next();
    assert_eq!((&*whole.name, &whole.document["switches"]), ("snapshot", &json!({})));
    let mut known = follow(&format!("last-event-id: {}\r\n", whole.id));
    make(&node, "c", "boolean", json!(true));
    assert_eq!(known.find("change")["name"], "c", "what is known is not told again");
}

/// The revision the copy of switches is at: that of the last change.
fn change_revision(node: &Gateway) -> u64 {
    let (_, page) = call(node, "GET", "/audit?object=switch/shop/a&limit=1", "", &json!({}));
    page["items"][0]["store_revision"].as_u64().unwrap()
}

/// The status of a GET by the gateway, and its `Mainstay-Outcome`.
fn ask(node: &Gateway, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(node.address(0)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{headers}\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

const GATEWAY: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[route.plain]
namespace = "shop"
prefix = "/plain"
to = "page"
switch = "plain"
[route.soft]
namespace = "shop"
prefix = "/soft"
to = "page"
switch = "plain"
fallback = "soft"
[route.armed]
namespace = "shop"
prefix = "/armed"
to = "page"
fallback = "armed"
[route.share]
namespace = "shop"
prefix = "/share"
to = "page"
switch = "share"
split_key = "header:x-user"
[route.gone]
namespace = "shop"
prefix = "/gone"
to = "gone"
[upstream.gone]
namespace = "shop"
instances = ["127.0.0.1:1"]
attempts_switch = "tries"
circuits = []
retry = { attempts = 3 }
[upstream.page]
namespace = "shop"
instances = ["PAGE"]
limits = ["page"]
circuits = ["page"]
[circuit.page]
consecutive_failures = 0
mode_switch = "page-circuit"
[limit.page]
kind = "bucket"
max = 1000
window_seconds = 3600
scale_switch = "scale"
[[fallback.soft.steps]]
when = ["switch"]
value = { status = 203, body = "soft" }
[[fallback.armed.steps]]
when = ["switch:later"]
value = { status = 203, body = "armed" }
"#;

#[test]
fn turning_a_switch_changes_what_the_gateway_answers_within_a_second() {
    let page = Origin::start();
    let config = GATEWAY.replace("PAGE", &page.address.to_string());
    let node = Gateway::start_dev("switches-gateway", &config);
    let second = Duration::from_secs(1);
    // Nobody made the switches: what is written holds.
    assert_eq!((ask(&node, "/plain", "").0, ask(&node, "/armed", "").0), (200, 200));
    make(&node, "plain", "boolean", json!(false));
    until("it is off", second, || ask(&node, "/plain", "").0 == 503);
    assert!(ask(&node, "/plain", "").1.contains("switched-off"));
    assert_eq!(ask(&node, "/soft", "").0, 203, "a step answers in its place");
    done(&node, "PUT", "/switches/shop/plain/value", &json!({ "value": true }));
    until("it is on", second, || ask(&node, "/plain", "").0 == 200);
    make(&node, "later", "boolean", json!(true));
    until("the step is armed", second, || ask(&node, "/armed", "").0 == 203);

    // A plan moves it too.
    let plan = json!({ "content": { "switches": { "plain": false, "later": false } } });
    done(&node, "PUT", "/plans/shop/calm", &plan);
    done(&node, "POST", "/plans/shop/calm/activate", &json!({}));
    until("the plan moves them", second, || {
        (ask(&node, "/plain", "").0, ask(&node, "/armed", "").0) == (503, 200)
    });
    done(&node, "POST", "/plans/shop/calm/deactivate", &json!({}));
    until("and back", second, || ask(&node, "/plain", "").0 == 200);

    // A share of the callers, the same ones every time: of default/checkout-v2 only u-3 at 5 %.
    make(&node, "share", "percent", json!(0));
    until("nobody", second, || ask(&node, "/share", "x-user: u-1\r\n").0 == 503);
    done(&node, "PUT", "/switches/shop/share/value", &json!({ "value": 50 }));
    let sides = || -> Vec<u16> {
        (0..40).map(|n| ask(&node, "/share", &format!("x-user: u-{n}\r\n")).0).collect()
    };
    until("some of them", second, || sides().contains(&200));
    let (once, twice) = (sides(), sides());
    assert!(once == twice && once.contains(&503), "{once:?}");

    let used = refused(&node, "DELETE", "/switches/shop/plain", &json!({}), (409, "switch-in-use"));
    let used = used["references"].to_string();
    for name in ["route plain", "route soft", "plan shop/calm"] {
        assert!(used.contains(name), "{used}");
    }
}

#[test]
fn a_switch_scales_a_limit_sets_a_circuit_and_stops_retries() {
    let page = Origin::start();
    let config = GATEWAY.replace("PAGE", &page.address.to_string());
    let node = Gateway::start_dev("switches-machines", &config);
    let second = Duration::from_secs(1);
    assert_eq!(ask(&node, "/soft", "").0, 200);
    let put = |name: &str, kind: &str, value: Value| {
        let content = json!({ "content": { "type": kind, "value": value } });
        done(&node, "PUT", &format!("/switches/default/{name}"), &content);
    };
    let capacity = || {
        let usage = done(&node, "GET", "/limits/default/page/usage", &json!({}));
        usage["capacity"].as_u64().unwrap()
    };
    assert_eq!(capacity(), 1_000);
    put("scale", "number", json!(40));
    until("a lower quota", second, || capacity() == 400);
    put("scale", "number", json!(5_000));
    until("a value of no use moves nothing", second, || capacity() == 1_000);
    until("and is told", second, || node.logged("switch-unfit") == 1);

    // Nobody is there: a call is tried three times, and once when a switch says so.
    let repeats = || {
        let before = node.counted("mainstay_retries_total", "gone");
        let _answer = ask(&node, "/gone", "");
        node.counted("mainstay_retries_total", "gone") - before
    };
    assert_eq!(repeats(), 2);
    make(&node, "tries", "number", json!(1));
    until("it is not tried again", second, || repeats() == 0);

    put("page-circuit", "string", json!("forced-open"));
    until("the circuit is open", second, || ask(&node, "/soft", "").0 == 503);
    let mode = || done(&node, "GET", "/circuit-states", &json!({}))["items"][0]["mode"].clone();
    assert_eq!(mode(), "forced-open");
    put("page-circuit", "string", json!("auto"));
    until("the circuit judges itself", second, || ask(&node, "/soft", "").0 == 200);
}

#[test]
fn the_command_line_makes_turns_and_undoes() {
    let node = Gateway::start_dev("switches-cli", CONFIG);
    let run = |line: &[&str]| {
        let (code, out, said) = node.cli(line);
        assert_eq!(code, 0, "{line:?}: {out}{said}");
        out + &said
    };
    let made = run(&["switch", "set", "shop/recommend", "true", "--type", "boolean"]);
    assert!(made.contains("undo: mainstay switch remove shop/recommend"), "{made}");
    run(&["switch", "set", "shop/limit", "100", "--type", "number", "--description", "calls"]);
    let off = run(&["switch", "off", "shop/recommend", "--reason", "INC-7"]);
    assert!(off.contains("-  \"value\": true") && off.contains("--to 1"), "{off}");
    assert_eq!(value(&node, "recommend"), false);
    run(&["switch", "on", "shop/recommend", "--until", "2h"]);
    let shown = node.cli_json(&["switch", "show", "shop/recommend"]);
    assert_eq!(shown["content"]["default"], false, "what comes then was the value: {shown}");
    let tried = run(&["switch", "set", "shop/limit", "7", "--dry-run"]);
    assert!(tried.contains("nothing was changed") && value(&node, "limit") == 100, "{tried}");
    let list = run(&["switch", "list", "--namespace", "shop"]);
    assert!(list.contains("recommend") && list.contains("operator"), "{list}");
    assert!(run(&["switch", "list"]).contains("recommend"), "of all namespaces");
    assert!(!run(&["switch", "list", "-n", "default"]).contains("recommend"));
}

#[test]
fn the_command_line_activates_and_rolls_back() {
    let node = Gateway::start_dev("plans-cli", CONFIG);
    let run = |line: &[&str]| {
        let (code, out, said) = node.cli(line);
        assert_eq!(code, 0, "{line:?}: {out}{said}");
        out + &said
    };
    make(&node, "recommend", "boolean", json!(true));
    make(&node, "limit", "number", json!(100));
    run(&["plan", "set", "shop/sale", "--switch", "recommend=false", "--switch", "limit=40"]);
    assert!(run(&["plan", "rehearse", "shop/sale"]).contains("40"));
    run(&["plan", "activate", "shop/sale", "--reason", "the sale begins"]);
    assert_eq!(value(&node, "limit"), 40);
    assert!(run(&["plan", "show", "shop/sale"]).contains("active: at="));
    run(&["plan", "deactivate", "shop/sale", "--reason", "it is over"]);
    assert_eq!(value(&node, "limit"), 100);
    assert!(run(&["switch", "history", "shop/limit"]).contains("the sale begins"));
    assert!(
        run(&["switch", "diff", "shop/limit", "--from", "1", "--to", "2"])
            .contains("+  \"value\": 40")
    );
    run(&["switch", "rollback", "shop/limit", "--to", "2", "--reason", "again"]);
    assert_eq!(value(&node, "limit"), 40);
    for (line, want) in [
        (vec!["switch", "show", "shop/none"], 3),
        (vec!["switch", "set", "shop/limit", "x"], 7),
        (vec!["switch", "remove", "shop/limit", "--yes"], 2),
        (vec!["switch", "remove", "shop/limit", "--yes", "--reason", "in use"], 4),
        (vec!["plan", "deactivate", "shop/sale", "--reason", "twice"], 4),
        (vec!["switch", "show", "a/b/c"], 2),
    ] {
        assert_eq!(node.cli(&line).0, want, "{line:?}");
    }
    run(&["plan", "remove", "shop/sale", "--yes", "--reason", "never again"]);
    run(&["switch", "remove", "shop/limit", "--yes", "--reason", "not used"]);
}
