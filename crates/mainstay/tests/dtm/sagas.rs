//! Sagas.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::gateway::Gateway;
use super::support::participant::Participant;
use super::support::wait::until;
use super::{CONFIG, PATIENCE, becomes, check, get, refuses, steps, succeeds, with};

#[test]
fn a_saga_calls_its_steps_in_order_and_is_shown_as_dtm_shows_it() {
    let (node, shop) = (Gateway::start_dev("dtm-saga", CONFIG), Participant::start());
    let mut saga = steps(&shop, "order 1", "saga", &["out", "in"]);
    saga = with(
        saga,
        json!({
            "custom_data": null, "query_prepared": null, "protocol": "", "unknown": [1],
            "branch_headers": { "X-Region": "eu" }, "wait_result": true,
        }),
    );
    saga["steps"][0]["action"] = json!(shop.url("/out?kind=a"));
    succeeds(&node, "submit", &saga);
    assert_eq!(shop.paths(), ["/out", "/in"]);
    let asked = &shop.asked()[0];
    let query = "kind=a&gid=order%201&trans_type=saga&branch_id=01&op=action";
    assert_eq!((&*asked.method, &*asked.target), ("POST", format!("/out?{query}").as_str()));
    assert_eq!(asked.body, r#"{"step":"out"}"#);
    assert_eq!(asked.headers["content-type"], "application/json");
    assert_eq!(asked.headers["x-region"], "eu");

    let seen = get(&node, "query?gid=order%201");
    let shown = &seen["transaction"];
    for (name, want) in [
        ("gid", json!("order 1")),
        ("trans_type", json!("saga")),
        ("status", json!("succeed")),
        ("protocol", json!("http")),
        ("concurrent", json!(false)),
        ("wait_result", json!(true)),
        ("branch_headers", json!({ "X-Region": "eu" })),
        ("payloads", json!([r#"{"step":"out"}"#, r#"{"step":"in"}"#])),
    ] {
        assert_eq!(shown[name], want, "{name}");
    }
    let members = shown.as_object().unwrap();
    assert!(members.values().all(|member| !member.is_null()), "{shown}");
    assert!(!members.contains_key("custom_data") && !members.contains_key("query_prepared"));
    assert!(members.contains_key("finish_time") && !members.contains_key("rollback_time"));
    let rows = seen["branches"].as_array().unwrap().iter();
    let rows: Vec<_> = rows
        .map(|row| format!("{} {} {}", row["branch_id"], row["op"], row["status"]).replace('"', ""))
        .collect();
    let want = [
        "01 compensate prepared",
        "01 action succeed",
        "02 compensate prepared",
        "02 action succeed",
    ];
    assert_eq!(rows, want);
    // What has ended is not submitted again, nor prepared.
    refuses(&node, "submit", &saga, 409, "succeed");
    assert_eq!(shop.asked().len(), 2);
}

#[test]
fn a_step_that_fails_is_undone_with_those_before_it() {
    let (node, shop) = (Gateway::start_dev("dtm-undo", CONFIG), Participant::start());
    // A branch that can set no status says it in its text.
    shop.answers("/in", 200, r#"{"dtm_result":"FAILURE"}"#);
    let saga = with(steps(&shop, "g1", "saga", &["out", "in"]), json!({ "wait_result": true }));
    let reason = format!("url:{} return failed: ", shop.url("/in"));
    refuses(&node, "submit", &saga, 409, &reason);
    let seen = becomes(&node, "g1", "failed");
    assert_eq!(shop.paths(), ["/out", "/in", "/undo-in", "/undo-out"]);
    let told = seen["transaction"]["rollback_reason"].as_str().unwrap();
    assert!(told.starts_with(&reason), "{told}");
    assert!(seen["transaction"]["rollback_time"].is_string());
    assert_eq!(seen["branches"][3]["status"], "failed");
    assert_eq!(seen["branches"][2]["status"], "succeed");
    // 409 without a word is a failure as well; the two before the last one have no order.
    shop.answers("/in", 409, "");
    let custom = r#"{"orders":{"2":[0,1]},"concurrent":true}"#;
    let saga =
        with(steps(&shop, "g2", "saga", &["a", "b", "in"]), json!({ "custom_data": custom }));
    succeeds(&node, "submit", &saga);
    becomes(&node, "g2", "failed");
    let paths = shop.paths().split_off(4);
    assert_eq!(paths[2..4], ["/in", "/undo-in"], "{paths:?}");
}

#[test]
fn what_goes_on_is_asked_again_and_what_is_tried_too_often_is_undone() {
    let (node, shop) = (Gateway::start_dev("dtm-again", CONFIG), Participant::start());
    shop.answers("/slow", 200, r#"{"dtm_result":"ONGOING"}"#);
    let waits = json!({ "wait_result": true });
    let slow = with(steps(&shop, "slow", "saga", &["slow"]), waits.clone());
    refuses(&node, "submit", &slow, 425, "goes on");
    // An error of a saga is no decision either.
    shop.answers("/wrong", 500, "down");
    let wrong = with(steps(&shop, "wrong", "saga", &["wrong"]), waits);
    refuses(&node, "submit", &wrong, 425, "500 down");
    let seen = get(&node, "query?gid=wrong");
    assert_eq!(seen["transaction"]["status"], "submitted");
    assert_eq!(seen["transaction"]["next_cron_interval"], 2, "doubled before it is waited");
    shop.answers("/slow", 200, "");
    becomes(&node, "slow", "succeed");
    // The same submit again has it tried at once.
    shop.answers("/wrong", 200, "");
    succeeds(&node, "submit", &with(wrong, json!({ "wait_result": false })));
    becomes(&node, "wrong", "succeed");

    shop.answers("/never", 425, "");
    let few = with(steps(&shop, "few", "saga", &["never"]), json!({ "retry_limit": 2 }));
    succeeds(&node, "submit", &few);
    let seen = becomes(&node, "few", "failed");
    let reason = "RetryCount is greater than RetryLimit, RetryLimit: 2";
    assert_eq!(seen["transaction"]["rollback_reason"], reason);
    assert_eq!((shop.count("/never"), shop.count("/undo-never")), (3, 1));
    let late = with(steps(&shop, "late", "saga", &["never"]), json!({ "timeout_to_fail": 1 }));
    succeeds(&node, "submit", &late);
    let seen = becomes(&node, "late", "failed");
    assert_eq!(seen["transaction"]["rollback_reason"], "Timeout after 1 seconds");
}

#[test]
fn what_was_submitted_is_done_by_the_next_process_after_a_kill() {
    let (mut node, shop) = (Gateway::start_dev("dtm-kill", CONFIG), Participant::start());
    shop.answers("/in", 500, "down");
    for n in 0..8 {
        succeeds(&node, "submit", &steps(&shop, &format!("g{n}"), "saga", &["out", "in"]));
    }
    let tcc = json!({ "gid": "open", "trans_type": "tcc" });
    succeeds(&node, "prepare", &tcc);
    let (confirm, cancel) = (shop.url("/confirm"), shop.url("/cancel"));
    let branch = json!({
        "gid": "open", "trans_type": "tcc", "branch_id": "01", "data": "{}",
        "confirm": confirm, "cancel": cancel,
    });
    succeeds(&node, "registerBranch", &branch);
    until("a step was tried", PATIENCE, || shop.count("/in") >= 8);
    node.signal(Signal::KILL);
    node.ended();
    shop.answers("/in", 200, "");
    let node = node.again("dtm-kill-again", &[]);
    for n in 0..8 {
        let seen = becomes(&node, &format!("g{n}"), "succeed");
        assert_eq!(seen["transaction"]["payloads"][0], r#"{"step":"out"}"#);
    }
    succeeds(&node, "submit", &tcc);
    becomes(&node, "open", "succeed");
    assert_eq!((shop.count("/confirm"), shop.count("/cancel")), (1, 0));
}

#[test]
fn what_cannot_be_meant_is_said_with_500_and_no_word_that_decides() {
    let (node, shop) = (Gateway::start_dev("dtm-wrong", CONFIG), Participant::start());
    let saga = || steps(&shop, "FAILURE-1", "saga", &["out"]);
    let cases: [(&str, Value, &str); 9] = [
        ("submit", json!({}), "trans_type"),
        ("submit", json!({ "trans_type": "saga" }), "no gid specified"),
        ("submit", json!([1]), "JSON object"),
        ("submit", with(saga(), json!({ "payloads": [] })), "1 steps and 0 payloads"),
        ("submit", with(saga(), json!({ "trans_type": "workflow" })), "docs/dtm.md"),
        ("submit", with(saga(), json!({ "protocol": "grpc" })), "docs/dtm.md"),
        (
            "submit",
            with(saga(), json!({ "steps": [{ "action": "topic://t" }] })),
            "topic not found",
        ),
        ("prepare", saga(), "submitted"),
        ("abort", json!({ "gid": "nobody" }), "no TransGlobal with gid: nobody found"),
    ];
    for (verb, body, part) in cases {
        refuses(&node, verb, &body, 500, part);
    }
    // Nobody has a cloud's secrets read through us, and nothing of it is recorded.
    let stray = with(saga(), json!({ "steps": [{ "action": "http://169.254.169.254/x" }] }));
    refuses(&node, "submit", &stray, 409, "not allowed");
    check(
        &node,
        "forceStop",
        &json!({ "gid": "FAILURE-1" }),
        (500, r#"{"message":"no TransGlobal with gid: failure-1 found"}"#),
    );
}
