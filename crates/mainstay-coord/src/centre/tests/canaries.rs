//! A release that some get first.

use mainstay_core::problem::Code;
use serde_json::json;

use super::stage::{World, anna, by, canary, client, payment, publication, publish, said};
use crate::centre::{Centre, Editor};

/// `a=1` for all, `a=2` for some.
async fn under_way(node: &Centre, canary: serde_json::Value) {
    publish(node, &payment(), &["a=1"]).await.unwrap();
    let some = json!({ "items": { "a": { "content": "2" } }, "canary": canary });
    let done = node.publish(&payment(), &publication(some), &anna()).await.unwrap();
    assert!(done.canary && done.release == 2);
}

async fn gets(node: &Centre, id: &str) -> String {
    said(&node.fetch(&payment(), Some(&client(id)), false).await.unwrap())
}

#[tokio::test]
async fn some_get_it_first_then_more_then_all() {
    for world in [World::memory(), World::embedded()] {
        let node = world.node("n1").await;
        under_way(&node, json!({ "percent": 20 })).await;
        assert_eq!(gets(&node, "pay-5").await, "2: a=2");
        assert_eq!(gets(&node, "pay-4").await, "1: a=1");
        let wider = canary(json!({ "percent": 50, "clients": ["pay-3"] }));
        node.set_canary(&payment(), &wider, &anna()).await.unwrap();
        for (id, want) in [("pay-5", 2), ("pay-4", 2), ("pay-3", 2), ("pay-1", 1)] {
            assert!(gets(&node, id).await.starts_with(&format!("{want}:")), "{id}");
        }
        let head = node.promote(&payment(), &anna()).await.unwrap();
        assert_eq!((head.release, head.canary), (2, None));
        assert_eq!(gets(&node, "pay-1").await, "2: a=2");
        let none = node.promote(&payment(), &anna()).await.unwrap_err();
        assert_eq!(none.code(), Code::CanaryNotFound);
    }
}

#[tokio::test]
async fn while_one_is_under_way_nothing_else_is_published() {
    let world = World::memory();
    let node = world.node("n1").await;
    under_way(&node, json!({ "percent": 20 })).await;
    let error = publish(&node, &payment(), &["a=3"]).await.unwrap_err();
    assert_eq!(error.code(), Code::CanaryRunning);
    let told = "group default/payment has release 2 under way as a canary";
    assert_eq!(error.to_string(), told);
    let other = canary(json!({ "release": 3, "percent": 1 }));
    let error = node.set_canary(&payment(), &other, &anna()).await.unwrap_err();
    assert_eq!(error.code(), Code::CanaryRunning);
    let stale = Editor { author: by("bo"), base: Some(2), dry_run: false };
    let error = node.promote(&payment(), &stale).await.unwrap_err();
    assert_eq!(error.code(), Code::RevisionMoved);
}

#[tokio::test]
async fn an_aborted_one_keeps_its_number_and_can_be_tried_again() {
    let world = World::memory();
    let node = world.node("n1").await;
    under_way(&node, json!({ "clients": ["pay-5"] })).await;
    node.abort(&payment(), &anna()).await.unwrap();
    assert_eq!(gets(&node, "pay-5").await, "1: a=1");
    assert_eq!(node.abort(&payment(), &anna()).await.unwrap_err().code(), Code::CanaryNotFound);
    let unnamed = canary(json!({ "percent": 1 }));
    let error = node.set_canary(&payment(), &unnamed, &anna()).await.unwrap_err();
    assert_eq!(error.code(), Code::CanaryNotFound);
    // A node whose copy has forgotten it sees it in the revision that names it again.
    let again = canary(json!({ "release": 2, "clients": ["pay-4"] }));
    node.set_canary(&payment(), &again, &anna()).await.unwrap();
    assert_eq!(gets(&node, "pay-4").await, "2: a=2");
    assert_eq!(gets(&node, "pay-5").await, "1: a=1");
    node.abort(&payment(), &anna()).await.unwrap();
    assert_eq!(publish(&node, &payment(), &["a=3"]).await.unwrap().release, 3);
    let older = canary(json!({ "release": 2, "percent": 1 }));
    let error = node.set_canary(&payment(), &older, &anna()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidRequest);
    let missing = canary(json!({ "release": 9, "percent": 1 }));
    let error = node.set_canary(&payment(), &missing, &anna()).await.unwrap_err();
    assert_eq!(error.code(), Code::ReleaseNotFound);
}

#[tokio::test]
async fn a_rollback_aborts_it() {
    let world = World::memory();
    let node = world.node("n1").await;
    under_way(&node, json!({ "percent": 100 })).await;
    assert_eq!(gets(&node, "pay-1").await, "2: a=2");
    let back = node.roll_back(&payment(), 1, "errors", &anna()).await.unwrap();
    assert_eq!((back.release, back.canary), (3, false));
    assert_eq!(gets(&node, "pay-1").await, "3: a=1");
    assert_eq!(node.head(&payment()).unwrap().canary, None);
}

#[tokio::test]
async fn the_first_release_is_for_everybody() {
    let world = World::memory();
    let node = world.node("n1").await;
    let some = json!({ "items": { "a": { "content": "1" } }, "canary": { "percent": 1 } });
    let error = node.publish(&payment(), &publication(some), &anna()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidRequest);
    let many: Vec<String> = (0..1_001).map(|n| format!("c{n}")).collect();
    let many = canary(json!({ "clients": many }));
    let error = node.set_canary(&payment(), &many, &anna()).await.unwrap_err();
    assert_eq!(error.to_string(), "clients of the canary has 1001 members, and may have 1000");
}
