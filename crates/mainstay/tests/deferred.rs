//! Requests that a real process takes on and makes later.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::participant::Participant;
use support::wait::until;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node whose route `/` leads to the service at `address`.
fn config(address: &str, more: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[transaction]
backoff_initial_milliseconds = 20
backoff_max_seconds = 1
call_timeout_seconds = 1
payload_bytes_max = 1000
[route.orders]
prefix = "/"
to = "order"
switch = "open"
fallback = "orders"
[upstream.order]
instances = ["{address}"]
connect_seconds = 0.2
[upstream.order.retry]
attempts = 1
[fallback.orders]
steps = [
  {{ when = ["switch:later", "unavailable", "5xx"], defer = {{ queue = "orders" }} }},
  {{ when = ["switch:later", "any"], fail = {{ status = 503 }} }},
]
{more}"#
    )
}

/// An answer of the gateway.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn ask(node: &Gateway, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(node.address(0)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\
         content-type: text/plain\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    let status = head.get(9..12).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn order(node: &Gateway, headers: &str, body: &str) -> Answer {
    ask(node, "POST", "/orders?x=1", headers, body)
}

fn look(node: &Gateway, location: &str) -> Value {
    ask(node, "GET", location, "", "").json()
}

#[track_caller]
fn turns_into(node: &Gateway, location: &str, state: &str) -> Value {
    let mut seen = Value::Null;
    until(&format!("{location} is {state}"), PATIENCE, || {
        seen = look(node, location);
        seen["state"] == state
    });
    seen
}

#[track_caller]
fn taken(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

#[track_caller]
fn turn(node: &Gateway, name: &str, value: bool) {
    let content = json!({ "content": { "type": "boolean", "value": value } }).to_string();
    let why = "mainstay-reason: because\r\n";
    let path = format!("/api/v1/switches/default/{name}");
    let (status, answer) = node.call_with("PUT", &path, why, &content);
    assert!((200..300).contains(&status), "{answer}");
}

#[test]
fn a_switch_has_requests_made_later_and_each_has_a_receipt() {
    let shop = Participant::start();
    let node = Gateway::start_dev("deferred", &config(&shop.address.to_string(), ""));
    assert_eq!(order(&node, "", "1").status, 200);
    turn(&node, "later", true);
    shop.answers("/orders", 503, "busy");
    let mut first = None;
    until("the switch is seen", PATIENCE, || {
        let headers = "authorization: Bearer x\r\nx-user: 7\r\n";
        first = Some(order(&node, headers, "2")).filter(|answer| answer.status == 202);
        first.is_some()
    });
    let first = first.unwrap();
    let (location, told) = (taken(&first), first.json());
    assert_eq!(first.header("mainstay-outcome"), Some("defer;cause=switch"));
    // It may be on its way already.
    assert!(told["state"] == "queued" || told["state"] == "delivering", "{told}");
    let id = told["receipt"].as_str().unwrap();
    assert_eq!(location, format!("/.well-known/mainstay/receipts/{id}"));
    // It is tried, and fails, and is tried again.
    until("it was tried twice", PATIENCE, || {
        let seen = look(&node, &location);
        seen["tries"].as_u64() >= Some(2) && seen["next_try_at"].is_string()
    });
    assert!(node.counted("mainstay_deferred_items", "queue=\"orders\"") <= 1);
    shop.answers("/orders", 200, "");
    let done = turns_into(&node, &location, "done");
    assert!(done["ended_at"].is_string() && done["next_try_at"].is_null(), "{done}");
    let asked = shop.asked();
    let sent: Vec<_> = asked.iter().filter(|asked| asked.body == "2").collect();
    assert!(2 < sent.len(), "{asked:?}");
    for sent in sent {
        assert_eq!((&*sent.method, &*sent.target), ("POST", "/orders?x=1"));
        for (name, want) in [
            ("idempotency-key", Some(id)),
            ("content-type", Some("text/plain")),
            ("host", Some("shop.example")),
            ("x-user", Some("7")),
            ("authorization", None),
            ("mainstay-queue", None),
        ] {
            assert_eq!(sent.headers.get(name).map(String::as_str), want, "{name}");
        }
    }
    let unknown = "/.well-known/mainstay/receipts/00000000000000000000000000000000";
    assert_eq!(ask(&node, "GET", unknown, "", "").status, 404);
    assert_eq!(ask(&node, "DELETE", &location, "", "").status, 405);
    // A body that may not be kept is not, and the next step answers.
    assert_eq!(order(&node, "", &"x".repeat(1_001)).status, 503);
}

#[test]
fn a_receipt_survives_a_kill_and_a_repeat_is_given_the_same() {
    let shop = Participant::start();
    shop.answers("/orders", 503, "busy");
    let mut node = Gateway::start_dev("deferred-kill", &config(&shop.address.to_string(), ""));
    let key = "idempotency-key: k-1\r\n";
    let location = taken(&order(&node, key, "7"));
    assert_eq!(taken(&order(&node, key, "7")), location, "a repeat");
    assert_eq!(order(&node, key, "8").status, 503, "another request with the same key");
    node.signal(Signal::KILL);
    node.ended();
    let node = node.again("deferred-killed", &[]);
    assert_eq!(taken(&order(&node, key, "7")), location, "a repeat after the kill");
    shop.answers("/orders", 201, "");
    let done = turns_into(&node, &location, "done");
    assert_eq!(done["receipt"].as_str(), location.rsplit('/').next());
    let asked = shop.asked();
    let last = asked.last().unwrap();
    assert_eq!((&*last.headers["idempotency-key"], &*last.body), ("k-1", "7"));
}

#[test]
fn a_full_queue_leaves_it_to_the_next_step_and_what_lies_there_goes_on() {
    let shop = Participant::start();
    shop.answers("/orders", 503, "busy");
    let more = "[deferred.orders]\nitems_max = 2\n";
    let node = Gateway::start_dev("deferred-full", &config(&shop.address.to_string(), more));
    let kept = [taken(&order(&node, "", "1")), taken(&order(&node, "", "2"))];
    let full = order(&node, "", "3");
    assert_eq!(full.status, 503, "{full:?}");
    assert_eq!(full.header("mainstay-outcome").unwrap().split(';').next(), Some("degraded"));
    shop.answers("/orders", 200, "");
    for location in kept {
        turns_into(&node, &location, "done");
    }
    shop.answers("/orders", 503, "busy");
    until("there is room again", PATIENCE, || order(&node, "", "4").status == 202);
}

#[test]
fn one_that_was_given_up_is_not_taken_on_again_and_can_be_delivered_after_all() {
    let shop = Participant::start();
    shop.answers("/orders", 503, "busy");
    // Time for a try that is answered, whatever else this machine does.
    let more = "[deferred.orders]\nexpire_seconds = 5\n";
    let node = Gateway::start_dev("deferred-dead", &config(&shop.address.to_string(), more));
    let key = "idempotency-key: k-1\r\n";
    let location = taken(&order(&node, key, "7"));
    // To others than participants it is an answer like any other.
    shop.answers("/orders", 409, "no such article");
    let dead = turns_into(&node, &location, "dead");
    assert_eq!(dead["final_status"], 409, "{dead}");
    shop.answers("/orders", 503, "busy");
    assert_eq!(order(&node, key, "7").status, 503, "nobody makes it any more");
    assert_eq!(node.counted("mainstay_deferred_refused_total", "reason=\"given-up\""), 1);
    shop.answers("/orders", 200, "");
    let id = location.rsplit('/').next().unwrap();
    let path = format!("/api/v1/transactions/deferred-{id}/redeliver");
    let (status, answer) = node.call("POST", &path, r#"{"reason":"the shop has it again"}"#);
    assert_eq!(status, 200, "{answer}");
    turns_into(&node, &location, "done");
    shop.answers("/orders", 503, "busy");
    assert_eq!(taken(&order(&node, key, "7")), location, "it was made");
}

/// What the control API says of queues; never what requests say.
#[track_caller]
fn get(node: &Gateway, path: &str) -> Value {
    let (status, text) = node.control(&format!("/api/v1/deferred{path}"));
    assert_eq!(status, 200, "{text}");
    assert!(!text.contains("secret"), "{text}");
    serde_json::from_str(&text).unwrap()
}

/// An operator's `verb` on a request, for the reason in `body`.
fn verb(node: &Gateway, receipt: &str, verb: &str, body: &Value) -> (u16, Value) {
    let path = format!("/api/v1/deferred/orders/{receipt}/{verb}");
    let (status, text) = node.call("POST", &path, &body.to_string());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Receipts of those that are dead, in order.
#[track_caller]
fn dead(node: &Gateway) -> Vec<String> {
    let page = get(node, "/orders?state=dead");
    let items = page["items"].as_array().unwrap().iter();
    let mut all: Vec<_> = items.map(|it| it["receipt"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

#[test]
fn an_operator_sees_what_waits_and_replays_or_discards_what_is_dead() {
    let shop = Participant::start();
    let more = "[deferred.orders]\nexpire_seconds = 1\n";
    let mut node = Gateway::start_dev("deferred-doors", &config(&shop.address.to_string(), more));
    shop.answers("/orders", 500, "not today");
    let receipts: Vec<String> = (0..3)
        .map(|n| {
            let headers = format!("idempotency-key: k-{n}\r\nauthorization: Bearer secret\r\n");
            let answer = order(&node, &headers, "a secret body");
            taken(&answer);
            answer.json()["receipt"].as_str().unwrap().to_owned()
        })
        .collect();
    let queue = get(&node, "")["items"][0].clone();
    assert_eq!((&queue["queue"], &queue["items_max"]), (&json!("orders"), &json!(10_000)));
    let mut all = receipts.clone();
    all.sort();
    until("all are dead", PATIENCE, || dead(&node) == all);
    let one = get(&node, &format!("/orders/{}", receipts[0]));
    // A try that the circuit refused may have been the last: it is the last answer that counts.
    assert!(one["state"] == "dead" && one["final_status"] == 500, "{one}");
    assert_eq!((&one["method"], &one["path"]), (&json!("POST"), &json!("/orders")), "{one}");
    let (_, text) = node.control("/api/v1/deferred/others/x");
    assert!(text.contains("not-found"), "{text}");

    // Made again over a crash, under the same receipt.
    let why = json!({ "reason": "order is back" });
    assert_eq!(verb(&node, &receipts[0], "replay", &json!({})).0, 422, "without a reason");
    let (status, again) = verb(&node, &receipts[0], "replay", &why);
    assert_eq!((status, &again["receipt"]), (200, &json!(receipts[0])), "{again}");
    node.signal(Signal::KILL);
    node.ended();
    shop.answers("/orders", 200, "");
    node = node.again("deferred-doors-again", &[]);
    let location = format!("/.well-known/mainstay/receipts/{}", receipts[0]);
    until("it is done", PATIENCE, || {
        let state = look(&node, &location)["state"].clone();
        // It expired, while the node was away or was not asked in time.
        if state == "dead" {
            assert_eq!(verb(&node, &receipts[0], "replay", &why).0, 200);
        }
        state == "done"
    });
    let refused = verb(&node, &receipts[0], "replay", &why);
    assert_eq!((refused.0, &refused.1["code"]), (409, &json!("transaction-verb-not-allowed")));

    // Forgotten: its key counts as never used.
    assert_eq!(verb(&node, &receipts[1], "discard", &why).0, 204);
    assert_eq!(dead(&node), [receipts[2].clone()]);
    let (status, _) = node.control(&format!("/api/v1/deferred/orders/{}", receipts[1]));
    assert_eq!(status, 404);
    let (_, audit) = node.control("/api/v1/audit?action=deferred:*");
    for action in ["deferred:replay", "deferred:discard"] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
}

#[test]
fn an_operator_gives_up_for_good_what_still_waits() {
    let shop = Participant::start();
    shop.answers("/orders", 503, "busy");
    // It is tried for a day.
    let node = Gateway::start_dev("deferred-waits", &config(&shop.address.to_string(), ""));
    let waits = order(&node, "", "x").json();
    let (waits, why) = (waits["receipt"].as_str().unwrap(), json!({ "reason": "nobody needs it" }));
    assert_eq!(verb(&node, waits, "discard", &why).0, 204);
    until("it is dead", PATIENCE, || dead(&node) == [waits]);
    assert_eq!(verb(&node, waits, "replay", &why).0, 409);
}

/// A request that was given up, by its receipt.
fn given_up(node: &Gateway, shop: &Participant) -> String {
    shop.answers("/orders", 503, "busy");
    let location = taken(&order(node, "", "7"));
    turns_into(node, &location, "dead");
    location.rsplit('/').next().unwrap().to_owned()
}

fn replay(node: &Gateway, receipt: &str) -> u16 {
    verb(node, receipt, "replay", &json!({ "reason": "order is back" })).0
}

#[test]
fn replays_at_once_make_a_request_once() {
    let shop = Participant::start();
    shop.answers("/orders", 503, "busy");
    let more = "[deferred.orders]\nexpire_seconds = 2\n";
    let node = Gateway::start_dev("deferred-twice", &config(&shop.address.to_string(), more));
    let kept: Vec<String> = (0..20).map(|_| taken(&order(&node, "", "7"))).collect();
    for location in &kept {
        turns_into(&node, location, "dead");
    }
    // What is replayed is done: it cannot die again before the last has asked.
    shop.answers("/orders", 200, "");
    for location in kept {
        let id = location.rsplit('/').next().unwrap();
        let together = Barrier::new(6);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let one = || {
                together.wait();
                replay(&node, id)
            };
            let all: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        // Who comes late finds nothing dead.
        assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
        let gid = |number| format!("/api/v1/transactions/deferred-{id}.r{number}");
        assert_eq!((node.control(&gid(1)).0, node.control(&gid(2)).0), (200, 404), "{statuses:?}");
    }
}

#[test]
fn one_that_was_replayed_is_listed_when_the_first_of_it_is_forgotten() {
    let shop = Participant::start();
    let config = config(&shop.address.to_string(), "[deferred.orders]\nexpire_seconds = 1\n");
    let config = config.replace("[transaction]", "[transaction]\nhistory_count_max = 1");
    let node = Gateway::start_dev("deferred-forgotten", &config);
    let id = given_up(&node, &shop);
    assert_eq!(replay(&node, &id), 200);
    let first = format!("/api/v1/transactions/deferred-{id}");
    until("the first is forgotten", PATIENCE, || node.control(&first).0 == 404);
    let page = get(&node, "/orders?state=dead");
    let items = page["items"].as_array().unwrap();
    let shown: Vec<_> = items.iter().map(|item| (&item["receipt"], &item["gid"])).collect();
    assert_eq!(shown, [(&json!(id), &json!(format!("deferred-{id}.r1")))]);
}

#[test]
fn what_waits_is_not_sent_to_a_service_that_speaks_otherwise_by_then() {
    let shop = Participant::start();
    shop.answers("/orders", 503, "busy");
    let plain = config(&shop.address.to_string(), "");
    let node = Gateway::start_dev("deferred-moved", &plain);
    let location = taken(&order(&node, "", "7"));
    let reload = |config: &str| {
        node.configure(config);
        let (status, answer) =
            node.call("POST", "/api/v1/settings/reload", r#"{"reason":"moved"}"#);
        assert_eq!(status, 200, "{answer}");
    };
    let other = plain.replace("fallback = \"orders\"", "");
    reload(&other.replace("connect_seconds", "protocol = \"http2\"\nconnect_seconds"));
    let tries = || look(&node, &location)["tries"].as_u64().unwrap();
    let goes_on = |when: &str| {
        let before = tries();
        until(when, PATIENCE, || before + 1 < tries());
    };
    goes_on("one that was under way has ended");
    let sent = shop.count("/orders");
    shop.answers("/orders", 200, "");
    goes_on("it is not forgotten");
    assert_eq!(shop.count("/orders"), sent);
    reload(&plain);
    turns_into(&node, &location, "done");
}

#[test]
fn a_gateway_without_a_coordinator_defers_nothing() {
    let shop = Participant::start();
    shop.answers("/orders", 503, "busy");
    let node = Gateway::start("deferred-alone", &config(&shop.address.to_string(), ""));
    assert_eq!(order(&node, "", "1").status, 503);
    let path = "/.well-known/mainstay/receipts/00000000000000000000000000000000";
    assert_eq!(ask(&node, "GET", path, "", "").status, 200, "it is the service's");
}
