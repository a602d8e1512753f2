//! Global transactions by the native API of a real process, with real participants.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::participant::Participant;
use support::wait::until;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[transaction]
backoff_initial_milliseconds = 20
backoff_max_seconds = 1
call_timeout_seconds = 2
stuck_attempts = 3
"#;

const PATIENCE: Duration = Duration::from_secs(20);

fn call(node: &Gateway, method: &str, path: &str, document: &Value) -> (u16, Value) {
    let body = if document.is_null() { String::new() } else { document.to_string() };
    let (status, text) = node.call(method, &format!("/api/v1{path}"), &body);
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn post(node: &Gateway, path: &str, document: Value) -> (u16, Value) {
    call(node, "POST", path, &document)
}

fn show(node: &Gateway, gid: &str) -> Value {
    call(node, "GET", &format!("/transactions/{gid}"), &Value::Null).1
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

/// Waits until a transaction is `state`.
#[track_caller]
fn ends(node: &Gateway, gid: &str, state: &str) {
    let mut seen = Value::Null;
    until(&format!("{gid} is {state}"), PATIENCE, || {
        seen = show(node, gid);
        seen["state"] == state
    });
}

fn step(participant: &Participant, name: &str) -> Value {
    json!({
        "action": { "url": participant.url(&format!("/{name}")) },
        "compensate": { "url": participant.url(&format!("/undo-{name}")) },
        "payload": { "step": name },
    })
}

fn seat(participant: &Participant) -> Value {
    let at = |path: &str| json!({ "url": participant.url(path) });
    let targets = json!({ "confirm": at("/confirm"), "cancel": at("/cancel") });
    json!({ "kind": "endpoint", "payload": { "seat": 7 }, "targets": targets })
}

#[test]
fn a_saga_is_done_step_by_step_and_says_whose_it_is() {
    let (node, shop) = (Gateway::start_dev("tx-saga", CONFIG), Participant::start());
    let begin = json!({
        "gid": "order-1", "mode": "saga", "name": "order", "labels": { "shop": "blue" },
        "steps": [step(&shop, "stock"), step(&shop, "pay")],
        "wait": "done", "wait_seconds": 20,
    });
    let (status, done) = post(&node, "/transactions", begin.clone());
    assert_eq!((status, &done["state"]), (201, &json!("committed")), "{done}");
    assert_eq!((&done["decision"], &done["branch_count"]), (&json!("commit"), &json!(2)));
    assert_eq!(shop.paths(), ["/stock", "/pay"]);
    let asked = &shop.asked()[0];
    assert_eq!((asked.method.as_str(), asked.body.as_str()), ("POST", r#"{"step":"stock"}"#));
    for (name, want) in [
        ("mainstay-gid", "order-1"),
        ("mainstay-branch", "01"),
        ("mainstay-op", "action"),
        ("mainstay-mode", "saga"),
        ("mainstay-branch-attempt", "1"),
        ("mainstay-decision", "commit"),
        ("idempotency-key", "order-1:01:action"),
        ("content-type", "application/json"),
        ("mainstay-timeout-ms", "2000"),
    ] {
        assert_eq!(asked.headers.get(name).map(String::as_str), Some(want), "{name}");
    }
    // The same again is the same; with other content it is refused.
    let (status, again) = post(&node, "/transactions", begin.clone());
    assert_eq!((status, &again["state"]), (200, &json!("committed")));
    let mut other = begin;
    other["steps"][0]["payload"] = json!({ "step": "more" });
    assert_eq!(code(&post(&node, "/transactions", other)), (409, "transaction-gid-taken"));
    assert_eq!(shop.asked().len(), 2);
    assert_eq!(node.counted("mainstay_transaction_finished_total", "committed"), 1);
    assert_eq!(node.counted("mainstay_branch_calls_total", "result=\"done\""), 2);
}

#[test]
fn a_step_that_fails_is_undone_with_those_before_it() {
    let (node, shop) = (Gateway::start_dev("tx-undo", CONFIG), Participant::start());
    shop.answers("/pay", 409, "no money");
    let begin = json!({
        "gid": "order-1", "mode": "saga", "wait": "done",
        "steps": [step(&shop, "stock"), step(&shop, "pay"), step(&shop, "mail")],
    });
    let (status, done) = post(&node, "/transactions", begin);
    assert_eq!((status, &done["state"]), (201, &json!("aborted")), "{done}");
    assert_eq!(done["reason"]["why"], "step-failed");
    assert!(done["reason"]["detail"].as_str().unwrap().contains("no money"));
    assert_eq!(shop.paths(), ["/stock", "/pay", "/undo-pay", "/undo-stock"]);
    // Concurrent: the third waits for the first two.
    let mut steps = [step(&shop, "a"), step(&shop, "b"), step(&shop, "pay")];
    steps[2]["after"] = json!([0, 1]);
    let begin = json!({
        "gid": "order-2", "mode": "saga", "concurrent": true, "wait": "done", "steps": steps,
    });
    let (_, done) = post(&node, "/transactions", begin);
    assert_eq!(done["state"], "aborted", "{done}");
    let paths = shop.paths().split_off(4);
    assert_eq!(paths[2..4], ["/pay", "/undo-pay"]);
    for half in [&paths[..2], &paths[4..]] {
        let mut half = half.to_vec();
        half.sort();
        assert!(half == ["/a", "/b"] || half == ["/undo-a", "/undo-b"], "{half:?}");
    }
}

#[test]
fn branches_are_tried_then_confirmed_or_cancelled() {
    let (node, shop) = (Gateway::start_dev("tx-tcc", CONFIG), Participant::start());
    let branch = seat(&shop);
    for (gid, verb, path) in [("trip-1", "submit", "/confirm"), ("trip-2", "abort", "/cancel")] {
        let begin = json!({ "gid": gid, "mode": "tcc" });
        assert_eq!(post(&node, "/transactions", begin).0, 201);
        let at = format!("/transactions/{gid}");
        let (status, first) = post(&node, &format!("{at}/branches"), branch.clone());
        assert_eq!((status, &first["branch"]), (201, &json!("01")));
        let mut named = branch.clone();
        named["branch"] = json!("02");
        assert_eq!(post(&node, &format!("{at}/branches"), named.clone()).0, 201);
        assert_eq!(post(&node, &format!("{at}/branches"), named).0, 200, "the same again");
        let (status, decided) = post(&node, &format!("{at}/{verb}"), json!({}));
        assert_eq!(status, 200, "{decided}");
        ends(&node, gid, if verb == "submit" { "committed" } else { "aborted" });
        assert_eq!(shop.count(path), 2);
        let late = post(&node, &format!("{at}/branches"), branch.clone());
        assert_eq!(code(&late), (409, "transaction-not-active"), "{late:?}");
    }
    let late = post(&node, "/transactions/trip-2/submit", json!({}));
    assert_eq!(code(&late), (409, "transaction-aborted"));
    let late = post(&node, "/transactions/trip-1/abort", json!({}));
    assert_eq!(code(&late), (409, "transaction-committed"));
    let nobody = post(&node, "/transactions/never/submit", json!({}));
    assert_eq!(code(&nobody), (409, "transaction-aborted"), "presumed");
    let seen = call(&node, "GET", "/transactions/never", &Value::Null);
    assert_eq!(code(&seen), (404, "transaction-unknown"));
}

#[test]
fn a_message_is_delivered_if_and_only_if_its_sender_committed() {
    let (node, shop) = (Gateway::start_dev("tx-message", CONFIG), Participant::start());
    let message = |gid: &str, check: &str| {
        json!({
            "gid": gid, "mode": "message", "deadline_seconds": 0.2,
            "check": { "url": shop.url(check) }, "steps": [{ "action": { "url": shop.url("/mail") } }],
        })
    };
    shop.answers("/never", 409, "");
    for gid in ["m-1", "m-2"] {
        let check = if gid == "m-1" { "/sent" } else { "/never" };
        assert_eq!(post(&node, "/transactions", message(gid, check)).1["state"], "active");
    }
    ends(&node, "m-1", "committed");
    ends(&node, "m-2", "aborted");
    assert_eq!(show(&node, "m-2")["reason"]["why"], "check-refused");
    assert_eq!(shop.count("/mail"), 1);
    let asked = shop.asked();
    let check = asked.iter().find(|asked| asked.target == "/sent").unwrap();
    assert_eq!((&*check.headers["mainstay-op"], &*check.headers["mainstay-branch"]), ("msg", "00"));
    // One way, at least once: durable, then delivered however often it takes.
    shop.answers("/slow", 500, "not yet");
    let send = json!({ "gid": "m-3", "target": { "url": shop.url("/slow") }, "payload": "hello" });
    let (status, sent) = post(&node, "/messages", send);
    assert_eq!((status, &sent["gid"]), (202, &json!("m-3")));
    until("it is stuck", PATIENCE, || show(&node, "m-3")["stuck"] == true);
    let stuck = call(&node, "GET", "/transactions?stuck=true", &Value::Null).1;
    assert_eq!(stuck["items"][0]["gid"], "m-3");
    shop.answers("/slow", 200, "");
    ends(&node, "m-3", "committed");
    let given = json!({
        "target": { "url": shop.url("/dead") }, "give_up_after_seconds": 0.3, "payload_base64": "AAE=",
    });
    shop.answers("/dead", 503, "");
    let gid = post(&node, "/messages", given).1["gid"].as_str().unwrap().to_owned();
    ends(&node, &gid, "aborted");
    assert_eq!(show(&node, &gid)["reason"]["why"], "gave-up");
    shop.answers("/dead", 200, "");
    let at = format!("/transactions/{gid}/redeliver");
    let (status, again) = post(&node, &at, json!({ "reason": "the receiver is back" }));
    assert_eq!((status, &again["gid"]), (200, &json!(format!("{gid}.r1"))), "{again}");
    ends(&node, &format!("{gid}.r1"), "committed");
}

#[test]
fn what_was_decided_goes_on_after_a_kill() {
    let (node, shop) = (Gateway::start_dev("tx-kill", CONFIG), Participant::start());
    shop.answers("/pay", 503, "");
    let begin = json!({
        "gid": "order-1", "mode": "saga", "steps": [step(&shop, "stock"), step(&shop, "pay")],
    });
    assert_eq!(post(&node, "/transactions", begin.clone()).0, 201);
    let tcc = json!({ "gid": "trip-1", "mode": "tcc", "deadline_seconds": 3600 });
    assert_eq!(post(&node, "/transactions", tcc).0, 201);
    let branch = seat(&shop);
    assert_eq!(post(&node, "/transactions/trip-1/branches", branch).0, 201);
    until("the second step was tried", PATIENCE, || 0 < shop.count("/pay"));
    node.signal(Signal::KILL);
    let mut node = node;
    node.ended();
    shop.answers("/pay", 200, "");
    let node = node.again("tx-kill-again", &[]);
    ends(&node, "order-1", "committed");
    assert_eq!(show(&node, "trip-1")["state"], "active", "nothing is aborted by a crash");
    let (status, done) = post(&node, "/transactions/trip-1/submit", json!({ "wait": "done" }));
    assert_eq!((status, &done["state"]), (200, &json!("committed")));
    assert_eq!(shop.count("/confirm"), 1);
    // And history answers whoever asks late.
    assert_eq!(post(&node, "/transactions", begin).1["state"], "committed");
}

#[test]
fn wrong_use_is_told_what_is_wrong() {
    let (node, shop) = (Gateway::start_dev("tx-wrong", CONFIG), Participant::start());
    let refused = |document: Value| post(&node, "/transactions", document);
    let one = |target: Value| json!({ "mode": "saga", "steps": [{ "action": target }] });
    let large = json!({
        "mode": "saga",
        "steps": [{ "action": { "url": shop.url("/a") }, "payload": "x".repeat(70_000) }],
    });
    let control = format!("http://{}/api/v1/backup", node.door().0);
    for (document, want) in [
        (json!({ "mode": "2pc" }), (400, "transaction-invalid")),
        (json!({ "mode": "xa", "gid": "a b" }), (400, "transaction-gid-invalid")),
        (large, (413, "payload-too-large")),
        (one(json!({ "url": "http://10.9.8.7:80/a" })), (403, "branch-target-denied")),
        (one(json!({ "url": "http://169.254.169.254/latest" })), (403, "branch-target-denied")),
        (one(json!({ "url": control })), (403, "branch-target-denied")),
        (one(json!({ "url": "ftp://a/b" })), (400, "transaction-invalid")),
        (one(json!({ "service": "stock", "path": "deduct" })), (400, "transaction-invalid")),
        (one(json!({ "host": "stock" })), (422, "invalid-request")),
        (json!({ "mode": "tcc", "deadline_seconds": 3601 }), (400, "transaction-invalid")),
        (json!({ "mode": "saga", "colour": "blue" }), (422, "invalid-request")),
    ] {
        let answer = refused(document.clone());
        assert_eq!(code(&answer), want, "{document}: {answer:?}");
        assert!(20 < answer.1["detail"].as_str().unwrap().len(), "{answer:?}");
    }
    // A deadline passes, and nothing joins or commits any more.
    let begin = json!({ "gid": "late", "mode": "tcc", "deadline_seconds": 0.1 });
    assert_eq!(refused(begin).0, 201);
    ends(&node, "late", "aborted");
    let late = post(&node, "/transactions/late/submit", json!({}));
    assert_eq!(
        (code(&late), &late.1["reason"]["why"]),
        ((409, "transaction-aborted"), &json!("deadline"))
    );
    // Databases nobody has configured cannot take part.
    assert_eq!(refused(json!({ "gid": "pay-1", "mode": "xa" })).0, 201);
    let branch = json!({ "kind": "resource", "resource": "orders" });
    let unknown = post(&node, "/transactions/pay-1/branches", branch);
    assert_eq!(code(&unknown), (409, "resource-unknown"));
    let votes = json!({ "votes": [{ "branch": "01", "resource": "orders", "vote": "yes" }] });
    assert_eq!(code(&post(&node, "/transactions/pay-1/submit", votes)), (409, "resource-unknown"));
    assert_eq!(shop.asked(), [], "nobody was called");
}

#[test]
fn a_two_phase_commit_of_services_that_keep_their_own_data() {
    let (node, shop) = (Gateway::start_dev("tx-xa", CONFIG), Participant::start());
    let branch = |prepare: &str, suffix: &str| {
        let at = |op: &str| json!({ "url": shop.url(&format!("/{op}{suffix}")) });
        json!({
            "kind": "endpoint", "prepare": prepare,
            "targets": {
                "prepare": at("prepare"), "commit": at("commit"), "rollback": at("rollback"),
            },
        })
    };
    let run = |gid: &str, suffix: &str| {
        assert_eq!(post(&node, "/transactions", json!({ "gid": gid, "mode": "xa" })).0, 201);
        let at = format!("/transactions/{gid}");
        for prepare in ["self", "called"] {
            let joined = post(&node, &format!("{at}/branches"), branch(prepare, suffix));
            assert_eq!(joined.0, 201, "{joined:?}");
        }
        let votes = json!([{ "branch": "01", "vote": "yes" }]);
        post(&node, &format!("{at}/submit"), json!({ "votes": votes, "wait": "done" }))
    };
    let (status, done) = run("pay-1", "-1");
    assert_eq!((status, &done["state"]), (200, &json!("committed")), "{done}");
    assert_eq!((shop.count("/prepare-1"), shop.count("/commit-1")), (1, 2));
    shop.answers("/prepare-2", 409, "no room");
    let answer = run("pay-2", "-2");
    assert_eq!(
        (code(&answer), &answer.1["reason"]["why"]),
        ((409, "transaction-aborted"), &json!("vote-no"))
    );
    ends(&node, "pay-2", "aborted");
    assert_eq!((shop.count("/commit-2"), shop.count("/rollback-2")), (0, 2));
}

#[test]
fn services_are_called_wherever_they_are_registered() {
    let (node, shop) = (Gateway::start_dev("tx-service", CONFIG), Participant::start());
    let begin = json!({
        "gid": "order-1", "mode": "saga",
        "steps": [{ "action": { "service": "stock", "path": "/deduct?x=1", "method": "PUT" } }],
    });
    assert_eq!(post(&node, "/transactions", begin).0, 201);
    until("nobody can be asked", PATIENCE, || {
        let seen = show(&node, "order-1");
        seen["branches"][0]["ops"][0]["last_error"]
            .as_str()
            .is_some_and(|e| e.contains("no-instance"))
    });
    let register = json!({ "address": "127.0.0.1", "port": shop.address.port() });
    let at = "/registry/default/services/stock/instances/stock-1";
    let (status, registered) = call(&node, "PUT", at, &register);
    assert!(status < 300, "{registered}");
    ends(&node, "order-1", "committed");
    let asked = shop.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].target.as_str()), ("PUT", "/deduct?x=1"));
    assert!(asked[0].headers.contains_key("mainstay-timeout-ms"));
}

#[test]
fn operators_say_why_and_are_remembered() {
    let (node, shop) = (Gateway::start_dev("tx-operate", CONFIG), Participant::start());
    shop.answers("/pay", 500, "broken");
    shop.answers("/undo-pay", 500, "broken too");
    let begin = json!({ "gid": "order-1", "mode": "saga", "steps": [step(&shop, "pay")] });
    assert_eq!(post(&node, "/transactions", begin).0, 201);
    let verb = |verb: &str, document: Value| {
        post(&node, &format!("/transactions/order-1/{verb}"), document)
    };
    assert_eq!(code(&verb("pause", json!({}))), (422, "reason-required"));
    let (status, paused) = verb("pause", json!({ "reason": "the bank is down" }));
    assert_eq!((status, &paused["paused"]), (200, &json!(true)), "{paused}");
    let calls = shop.count("/pay");
    support::wait::pause(Duration::from_millis(500));
    assert!(shop.count("/pay") <= calls + 1, "one may have been under way");
    assert_eq!(verb("resume", json!({ "reason": "it is back" })).1["paused"], false);
    let (_, aborted) = verb("abort", json!({ "reason": "it was not back" }));
    assert_eq!(aborted["state"], "aborting", "{aborted}");
    until("it is stuck", PATIENCE, || show(&node, "order-1")["stuck"] == true);
    assert_eq!(verb("retry", json!({ "reason": "once more" })).0, 200);
    let (_, done) = verb("resolve", json!({ "as": "aborted", "reason": "undone by hand" }));
    assert_eq!(done["heuristic"], true, "{done}");
    ends(&node, "order-1", "aborted");
    assert_eq!(
        code(&verb("retry", json!({ "reason": "and again" }))),
        (409, "transaction-verb-not-allowed")
    );
    // What was refused is recorded as well, and nobody waits for that.
    let records = |outcome: &str| {
        let at = format!("/audit?action=transaction:*&outcome={outcome}");
        call(&node, "GET", &at, &Value::Null).1["items"].as_array().unwrap().clone()
    };
    until("the refusals are recorded", PATIENCE, || records("refused").len() == 2);
    for (action, code) in [("pause", "reason-required"), ("retry", "transaction-verb-not-allowed")]
    {
        let action = format!("transaction:{action}");
        let refused = records("refused").into_iter().find(|item| item["action"] == action).unwrap();
        assert_eq!((&refused["code"], &refused["target"]["id"]), (&json!(code), &json!("order-1")));
    }
    assert_eq!((node.logged("transaction.pause"), node.logged("transaction.resolve")), (1, 1));
    let records = records("done");
    let actions: Vec<&str> = records.iter().filter_map(|item| item["action"].as_str()).collect();
    for action in ["pause", "resume", "abort", "retry", "resolve"] {
        let action = format!("transaction:{action}");
        assert_eq!(
            actions.iter().filter(|known| **known == action).count(),
            1,
            "{action}: {actions:?}"
        );
    }
    let record = records.iter().find(|item| item["action"] == "transaction:resolve").unwrap();
    assert_eq!(
        (&record["target"]["id"], &record["reason"]),
        (&json!("order-1"), &json!("undone by hand"))
    );
    let timeline = show(&node, "order-1")["timeline"].to_string();
    assert!(timeline.contains("undone by hand"), "{timeline}");
}

#[test]
fn a_lock_lasts_as_long_as_its_transaction() {
    let (node, shop) = (Gateway::start_dev("tx-lock", CONFIG), Participant::start());
    let owner = json!({ "host": "h", "pid": 7, "name": "test" });
    let (_, session) = post(&node, "/sessions", json!({ "ttl_seconds": 30, "owner": owner }));
    let secret = format!("mainstay-session-secret: {}\r\n", session["secret"].as_str().unwrap());
    let with = |method: &str, path: &str, document: Value| {
        let (status, text) =
            node.call_with(method, &format!("/api/v1{path}"), &secret, &document.to_string());
        (status, serde_json::from_str::<Value>(&text).unwrap_or(Value::Null))
    };
    let at = "/locks/default/sku-1";
    let ask = json!({ "session": session["session"], "request_id": "1", "wait_seconds": 0 });
    let (status, granted) = with("POST", &format!("{at}/acquire"), ask);
    assert_eq!(status, 200, "{granted}");
    assert_eq!(post(&node, "/transactions", json!({ "gid": "trip-1", "mode": "tcc" })).0, 201);
    let branch = seat(&shop);
    assert_eq!(post(&node, "/transactions/trip-1/branches", branch).0, 201);
    let bind = json!({ "session": session["session"], "token": granted["token"], "gid": "trip-1" });
    let (status, bound) = with("POST", &format!("{at}/bind"), bind);
    assert_eq!(status, 200, "{bound}");
    let id = session["session"].as_str().unwrap();
    assert_eq!(with("DELETE", &format!("/sessions/{id}"), json!({})).0, 204);
    let holders = || {
        let (_, status) = call(&node, "GET", at, &Value::Null);
        status["holders"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(holders(), 1, "it survives its session");
    assert_eq!(post(&node, "/transactions/trip-1/submit", json!({})).0, 200);
    ends(&node, "trip-1", "committed");
    until("the lock is released", PATIENCE, || holders() == 0);
}

#[test]
fn lists_are_filtered_and_go_on_where_a_page_ended() {
    let (node, shop) = (Gateway::start_dev("tx-list", CONFIG), Participant::start());
    for n in 0..5 {
        let begin = json!({
            "gid": format!("s-{n}"), "mode": "saga", "name": "order", "wait": "done",
            "labels": { "n": n.to_string() }, "steps": [step(&shop, "stock")],
        });
        assert_eq!(post(&node, "/transactions", begin).1["state"], "committed");
        let begin = json!({ "gid": format!("t-{n}"), "mode": "tcc", "deadline_seconds": 600 });
        assert_eq!(post(&node, "/transactions", begin).0, 201);
    }
    let list = |query: &str| {
        let (status, page) = call(&node, "GET", &format!("/transactions{query}"), &Value::Null);
        assert_eq!(status, 200, "{page}");
        let gid = |item: &Value| item["gid"].as_str().unwrap().to_owned();
        (
            page["items"].as_array().unwrap().iter().map(gid).collect::<Vec<_>>(),
            page["next"].clone(),
        )
    };
    until("what has ended is history", PATIENCE, || list("?state=committed").0.len() == 5);
    let live = ["t-4", "t-3", "t-2", "t-1", "t-0"];
    let ended = ["s-4", "s-3", "s-2", "s-1", "s-0"];
    assert_eq!(list("").0, [live, ended].concat());
    assert_eq!(list("?mode=tcc").0, live);
    assert_eq!(list("?state=active").0, live);
    assert_eq!(list("?name=order&label.n=3").0, ["s-3"]);
    assert_eq!(list(&format!("?target={}", shop.address)).0, ended);
    assert_eq!(list("?target=nobody").0, [""; 0]);
    let (mut all, mut next) = list("?limit=3");
    while let Some(cursor) = next.as_str() {
        let cursor = cursor.replace(':', "%3A");
        let page = list(&format!("?limit=3&cursor={cursor}"));
        assert!(page.0.len() <= 3);
        all.extend(page.0);
        next = page.1;
    }
    assert_eq!(all, [live, ended].concat());
    let answer = call(&node, "GET", "/transactions?colour=blue", &Value::Null);
    assert_eq!(code(&answer), (422, "invalid-request"));
}

#[test]
fn the_command_line_looks_after_them() {
    let (node, shop) = (Gateway::start_dev("tx-cli", CONFIG), Participant::start());
    shop.answers("/pay", 500, "broken");
    let begin = json!({ "gid": "order-1", "mode": "saga", "steps": [step(&shop, "pay")] });
    assert_eq!(post(&node, "/transactions", begin).0, 201);
    until("it is stuck", PATIENCE, || show(&node, "order-1")["stuck"] == true);
    let (_, stuck, _) = node.cli(&["tx", "stuck"]);
    assert!(stuck.contains("order-1") && stuck.contains("committing"), "{stuck}");
    let found = node.cli_json(&["transaction", "list", "--state", "committing", "--since", "1h"]);
    assert_eq!(found["items"][0]["gid"], "order-1");
    let (code, shown, _) = node.cli(&["transaction", "show", "order-1"]);
    assert!(code == 0 && shown.contains("500 broken"), "{shown}");
    let (code, _, said) = node.cli(&["transaction", "retry", "order-1"]);
    assert_eq!(code, 2, "a reason is missing: {said}");
    let (code, _, said) = node.cli(&["transaction", "show", "nobody"]);
    assert!(code == 3 && said.contains("transaction-unknown"), "{said}");
    let (code, _, said) = node.cli(&["tx", "wait", "order-1", "--for", "1s"]);
    assert!(code != 0 && said.contains("still committing"), "{code} {said}");
    let abort = ["tx", "abort", "order-1", "--reason", "sent by mistake"];
    let (code, _, said) = node.cli(&abort);
    assert!(code == 2 && said.contains("--yes"), "{said}");
    let (code, _, said) = node.cli(&[&abort[..], &["--yes"]].concat());
    assert!(code == 0 && said.contains("order-1 is abort"), "{said}");
    let (code, _, said) = node.cli(&["tx", "wait", "order-1"]);
    assert_eq!(code, 1, "it ended otherwise than committed: {said}");
    assert_eq!(node.cli(&["tx", "wait", "order-1", "--until", "aborted"]).0, 0);
    let watched = node.cli(&["tx", "watch", "order-1"]);
    assert_eq!((watched.0, watched.1.trim()), (0, "order-1 saga aborted (operator)"));
}
