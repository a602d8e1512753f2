//! Messages in two phases.

use serde_json::json;

use super::support::gateway::Gateway;
use super::support::participant::Participant;
use super::support::wait::until;
use super::{CONFIG, PATIENCE, base, becomes, refuses, steps, succeeds, with};

#[test]
fn a_message_is_delivered_when_it_is_submitted_and_not_before() {
    let (node, shop) = (Gateway::start_dev("dtm-msg", CONFIG), Participant::start());
    let mut message = steps(&shop, "m1", "msg", &["mail", "bell"]);
    message["payloads"][1] = json!("");
    refuses(&node, "prepare", &message, 500, "query_prepared");
    message["query_prepared"] = json!(shop.url("/asked"));
    succeeds(&node, "prepare", &message);
    succeeds(&node, "prepare", &message);
    assert_eq!(
        becomes(&node, "m1", "prepared")["transaction"]["query_prepared"],
        shop.url("/asked")
    );
    assert!(shop.asked().is_empty());
    succeeds(&node, "submit", &with(message.clone(), json!({ "wait_result": true })));
    let asked = shop.asked();
    let told: Vec<_> = asked.iter().map(|asked| (&*asked.method, &*asked.target)).collect();
    assert_eq!(
        told,
        [
            ("POST", "/mail?gid=m1&trans_type=msg&branch_id=01&op=action"),
            ("GET", "/bell?gid=m1&trans_type=msg&branch_id=02&op=action"),
        ]
    );
    refuses(&node, "abort", &base("m1", "msg"), 409, "succeed");
    // What was never prepared is submitted at once.
    succeeds(&node, "submit", &steps(&shop, "m2", "msg", &["mail"]));
    becomes(&node, "m2", "succeed");
    // And what is aborted is told nobody.
    let dropped = with(message, json!({ "gid": "m3" }));
    succeeds(&node, "prepare", &dropped);
    succeeds(&node, "abort", &base("m3", "msg"));
    becomes(&node, "m3", "failed");
    refuses(&node, "submit", &dropped, 409, "failed");
    refuses(&node, "abort", &dropped, 409, "failed");
    assert_eq!(shop.count("/mail"), 2);
}

#[test]
fn a_message_that_nobody_submits_has_its_sender_asked() {
    let (node, shop) = (Gateway::start_dev("dtm-query", CONFIG), Participant::start());
    shop.answers("/no", 409, "");
    shop.answers("/later", 425, "");
    for (gid, path) in [("yes", "/yes"), ("no", "/no"), ("later", "/later")] {
        let asks = json!({ "query_prepared": shop.url(path), "timeout_to_fail": 1 });
        succeeds(&node, "prepare", &with(steps(&shop, gid, "msg", &[gid]), asks));
    }
    becomes(&node, "yes", "succeed");
    becomes(&node, "no", "failed");
    let asked = shop.asked().into_iter().find(|asked| asked.target.starts_with("/yes?")).unwrap();
    assert_eq!(asked.target, "/yes?gid=yes&trans_type=msg&branch_id=00&op=msg");
    assert_eq!((asked.method.as_str(), shop.count("/no")), ("GET", 1));
    until("it was asked for once", PATIENCE, || 0 < shop.count("/later"));
    becomes(&node, "later", "prepared");
    shop.answers("/later", 200, "");
    becomes(&node, "later", "succeed");
    assert!(shop.count("/later") >= 3, "asked twice at least, and delivered");
}

#[test]
fn options_of_the_submit_count() {
    let (node, shop) = (Gateway::start_dev("dtm-options", CONFIG), Participant::start());
    let asks = json!({ "query_prepared": shop.url("/asked") });
    let prepared = with(steps(&shop, "m", "msg", &["a", "b"]), asks);
    succeeds(&node, "prepare", &prepared);
    // Steps of the submit do not; those that were prepared stay.
    let again = with(
        steps(&shop, "m", "msg", &["other"]),
        json!({
            "custom_data": "{\"delay\":2}", "concurrent": true, "wait_result": true,
            "branch_headers": { "x-late": "1" },
        }),
    );
    refuses(&node, "submit", &again, 425, "goes on");
    assert!(shop.asked().is_empty(), "it waits for its delay");
    let seen = becomes(&node, "m", "succeed");
    assert_eq!(seen["transaction"]["custom_data"], "{\"delay\":2}");
    assert_eq!(seen["transaction"]["steps"].as_array().unwrap().len(), 2);
    let mut paths = shop.paths();
    paths.sort();
    assert_eq!(paths, ["/a", "/b"]);
    assert!(shop.asked().iter().all(|asked| asked.headers["x-late"] == "1"));
    // A message of another kind under the name is no such message.
    refuses(&node, "submit", &base("m", "tcc"), 500, "taken");
}
