//! TCC, and XA in two phases over HTTP.

use serde_json::{Value, json};

use super::support::gateway::Gateway;
use super::support::participant::Participant;
use super::{CONFIG, base, becomes, check, refuses, succeeds, with};

fn branch(shop: &Participant, gid: &str, id: &str) -> Value {
    json!({
        "gid": gid, "trans_type": "tcc", "branch_id": id, "status": "prepared", "data": "{\"n\":1}",
        "confirm": shop.url(&format!("/confirm-{id}")), "cancel": shop.url(&format!("/cancel-{id}")),
    })
}

#[test]
fn branches_are_confirmed_or_cancelled_the_last_that_joined_first() {
    let (node, shop) = (Gateway::start_dev("dtm-tcc", CONFIG), Participant::start());
    for gid in ["good", "bad"] {
        succeeds(&node, "prepare", &base(gid, "tcc"));
        succeeds(&node, "prepare", &base(gid, "tcc"));
        for id in ["01", "02", "0201"] {
            succeeds(&node, "registerBranch", &branch(&shop, gid, id));
        }
    }
    // The same again is the same, and a branch is not changed by registering it again.
    succeeds(&node, "registerTccBranch", &branch(&shop, "good", "02"));
    let other = with(branch(&shop, "good", "02"), json!({ "data": "other" }));
    refuses(&node, "registerBranch", &other, 500, "other content");
    succeeds(&node, "submit", &with(base("good", "tcc"), json!({ "wait_result": true })));
    assert_eq!(shop.paths(), ["/confirm-0201", "/confirm-02", "/confirm-01"]);
    let query = "/confirm-0201?gid=good&trans_type=tcc&branch_id=0201&op=confirm";
    let asked = &shop.asked()[0];
    assert_eq!((&*asked.target, &*asked.body), (query, r#"{"n":1}"#));
    succeeds(&node, "abort", &with(base("bad", "tcc"), json!({ "rollback_reason": "sold out" })));
    let seen = becomes(&node, "bad", "failed");
    assert_eq!(seen["transaction"]["rollback_reason"], "sold out");
    assert_eq!(shop.paths().split_off(3), ["/cancel-0201", "/cancel-02", "/cancel-01"]);
    let ops: Vec<_> = seen["branches"].as_array().unwrap().iter().map(|row| &row["op"]).collect();
    assert_eq!(ops, ["cancel", "confirm", "cancel", "confirm", "cancel", "confirm"]);
}

#[test]
fn verbs_that_come_too_late_or_for_nobody_are_failures() {
    let (node, shop) = (Gateway::start_dev("dtm-late", CONFIG), Participant::start());
    // Whoever is not known was aborted.
    refuses(&node, "submit", &base("absent", "tcc"), 409, "absent");
    refuses(&node, "submit", &base("absent", "xa"), 409, "absent");
    let nobody = (
        409,
        r#"{"dtm_result":"FAILURE","message":"no trans with gid: absent status: prepared found FAILURE"}"#,
    );
    check(&node, "registerBranch", &branch(&shop, "absent", "01"), nobody);
    let xa = json!({ "gid": "absent", "branch_id": "01", "url": shop.url("/x") });
    check(&node, "registerXaBranch", &xa, nobody);
    succeeds(&node, "prepare", &base("done", "tcc"));
    succeeds(&node, "submit", &base("done", "tcc"));
    becomes(&node, "done", "succeed");
    refuses(&node, "prepare", &base("done", "tcc"), 409, "committed");
    refuses(&node, "submit", &base("done", "tcc"), 409, "succeed");
    refuses(&node, "abort", &base("done", "tcc"), 409, "succeed");
    refuses(&node, "registerBranch", &branch(&shop, "done", "01"), 409, "status: prepared");
    // Nobody submits it in time.
    let hasty = with(base("hasty", "tcc"), json!({ "timeout_to_fail": 1 }));
    succeeds(&node, "prepare", &hasty);
    succeeds(&node, "registerBranch", &branch(&shop, "hasty", "01"));
    let seen = becomes(&node, "hasty", "failed");
    assert_eq!(seen["transaction"]["rollback_reason"], "Timeout after 1 seconds");
    assert_eq!(shop.paths(), ["/cancel-01"]);
    refuses(&node, "submit", &hasty, 409, "failed");
    for id in ["", "00"] {
        refuses(&node, "registerBranch", &branch(&shop, "hasty", id), 500, "branch_id");
    }
}

#[test]
fn a_second_phase_that_meets_an_error_stops_there_and_says_so() {
    let (node, shop) = (Gateway::start_dev("dtm-stop", CONFIG), Participant::start());
    shop.answers("/confirm-02", 500, "down");
    succeeds(&node, "prepare", &base("g", "tcc"));
    for id in ["01", "02"] {
        succeeds(&node, "registerBranch", &branch(&shop, "g", id));
    }
    let submit = with(base("g", "tcc"), json!({ "wait_result": true, "retry_interval": 60 }));
    refuses(&node, "submit", &submit, 500, "500 down");
    assert_eq!(shop.paths(), ["/confirm-02"], "the other one waits for it");
    let seen = becomes(&node, "g", "submitted");
    let (interval, options) = (&seen["transaction"]["next_cron_interval"], &seen["transaction"]);
    assert_eq!((interval, &options["retry_interval"]), (&json!(120), &json!(60)));
    shop.answers("/confirm-02", 200, "");
    succeeds(&node, "resetNextCronTime", &json!({ "gid": "g" }));
    becomes(&node, "g", "succeed");
    assert_eq!(shop.paths(), ["/confirm-02", "/confirm-02", "/confirm-01"]);
    refuses(&node, "resetNextCronTime", &json!({ "gid": "g" }), 409, "ended");
}

#[test]
fn xa_tells_each_branch_its_phase_at_the_one_place_it_names() {
    let (node, shop) = (Gateway::start_dev("dtm-xa", CONFIG), Participant::start());
    for gid in ["good", "bad"] {
        succeeds(&node, "prepare", &base(gid, "xa"));
        for id in ["01", "02"] {
            let url = shop.url(&format!("/xa-{id}"));
            let branch = with(base(gid, "xa"), json!({ "branch_id": id, "url": url }));
            succeeds(&node, "registerBranch", &branch);
        }
    }
    succeeds(&node, "submit", &with(base("good", "xa"), json!({ "wait_result": true })));
    succeeds(&node, "abort", &base("bad", "xa"));
    becomes(&node, "bad", "failed");
    let asked = shop.asked();
    let told: Vec<_> = asked.iter().map(|asked| asked.target.as_str()).collect();
    assert_eq!(
        told,
        [
            "/xa-01?gid=good&trans_type=xa&branch_id=01&op=commit",
            "/xa-02?gid=good&trans_type=xa&branch_id=02&op=commit",
            "/xa-01?gid=bad&trans_type=xa&branch_id=01&op=rollback",
            "/xa-02?gid=bad&trans_type=xa&branch_id=02&op=rollback",
        ]
    );
    assert!(asked.iter().all(|asked| asked.method == "POST"), "{asked:?}");
    refuses(&node, "abort", &base("good", "xa"), 409, "succeed");
}
