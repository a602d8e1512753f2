//! Being told.

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;

use super::stage::{World, anna, group, interest, payment, publication, publish};
use crate::centre::{Interest, Turn};

#[tokio::test]
async fn a_subscriber_gets_what_it_lacks_then_each_change() {
    for world in [World::memory(), World::embedded()] {
        let node = world.node("n1").await;
        publish(&node, &payment(), &["a=1", "b=1"]).await.unwrap();
        publish(&node, &group("orders"), &["x=1"]).await.unwrap();
        let wanted = [(payment(), None), (group("orders"), Some(1)), (group("later"), None)];
        let mut told = node.subscribe(interest("x", &wanted)).unwrap();
        let first = told.next().await;
        assert_eq!((&*first.group, first.release, first.from), ("default/payment", 1, 0));
        assert_eq!(first.contents.unwrap().len(), 2);
        assert!(told.next().now_or_never().is_none(), "the other group is held already");

        publish(&node, &payment(), &["a=2", "-b"]).await.unwrap();
        let change = told.next().await;
        assert_eq!((change.release, change.from), (2, 1));
        let turns: Vec<(&str, Turn)> =
            change.changed.iter().map(|it| (&*it.item, it.change)).collect();
        assert_eq!(turns, [("a", Turn::Changed), ("b", Turn::Removed)]);
        let contents = change.contents.unwrap();
        assert_eq!(contents.len(), 1);
        assert_eq!(contents["a"].content.as_deref(), Some("2"));

        publish(&node, &group("later"), &["z=1"]).await.unwrap();
        assert_eq!(told.next().await.group, "default/later");
        // What nobody takes in time is told as one.
        publish(&node, &payment(), &["a=3"]).await.unwrap();
        publish(&node, &payment(), &["c=4"]).await.unwrap();
        let both = told.next().await;
        assert_eq!((both.release, both.from, both.changed.len()), (4, 2, 2));
        assert!(told.next().now_or_never().is_none());
        drop(told);
        assert_eq!(node.shutdown(Duration::from_secs(5)).await, 0);
    }
}

#[tokio::test]
async fn an_update_that_nobody_took_is_told_again() {
    let world = World::memory();
    let node = world.node("n1").await;
    let mut told = node.subscribe(interest("x", &[(payment(), None)])).unwrap();
    {
        let mut next = Box::pin(told.next());
        assert!((&mut next).now_or_never().is_none());
        publish(&node, &payment(), &["a=1"]).await.unwrap();
    }
    assert_eq!(told.next().await.release, 1);
}

#[tokio::test]
async fn a_canary_reaches_those_it_is_for_and_goes_with_its_abort() {
    let world = World::memory();
    let node = world.node("n1").await;
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    let mut some = node.subscribe(interest("pay-5", &[(payment(), Some(1))])).unwrap();
    let mut most = node.subscribe(interest("pay-1", &[(payment(), Some(1))])).unwrap();
    let publication = publication(json!({
        "items": { "a": { "content": "2" } },
        "canary": { "percent": 20 },
    }));
    node.publish(&payment(), &publication, &anna()).await.unwrap();
    let update = some.next().await;
    assert!(update.canary && update.release == 2);
    assert!(most.next().now_or_never().is_none());
    node.abort(&payment(), &anna()).await.unwrap();
    let back = some.next().await;
    assert_eq!((back.release, back.from, back.canary), (1, 2, false));
    assert!(most.next().now_or_never().is_none());
}

#[tokio::test]
async fn large_contents_are_named_and_secrets_kept_back() {
    let world = World::memory();
    let node = world.node("n1").await;
    let secret = json!({ "items": { "key": { "content": "hush", "secret": true } } });
    node.publish(&payment(), &publication(secret), &anna()).await.unwrap();
    let wish = |secrets| Interest { secrets, ..interest("x", &[(payment(), None)]) };
    let mut barred = node.subscribe(wish(false)).unwrap();
    let mut may = node.subscribe(wish(true)).unwrap();
    assert_eq!(barred.next().await.contents.unwrap()["key"].content, None);
    let contents = may.next().await.contents.unwrap();
    assert_eq!(contents["key"].content.as_deref(), Some("hush"));
    let fits = "x".repeat(65_536);
    publish(&node, &payment(), &[&format!("big={fits}")]).await.unwrap();
    assert!(barred.next().await.contents.is_some());
    publish(&node, &payment(), &[&format!("big={fits}y")]).await.unwrap();
    let update = barred.next().await;
    assert_eq!((update.contents, &*update.changed[0].item), (None, "big"));
}

#[tokio::test]
async fn an_update_is_written_as_the_api_shows_it() {
    let world = World::memory();
    let node = world.node("n1").await;
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    let mut told = node.subscribe(interest("x", &[(payment(), None)])).unwrap();
    let update = told.next().await;
    let revision = update.revision;
    assert_eq!(
        serde_json::to_value(update).unwrap(),
        json!({
            "group": "default/payment", "revision": revision, "release": 1, "canary": false,
            "from": 0, "changed": [{ "item": "a", "change": "added" }],
            "contents": { "a": { "format": "text", "secret": false, "content": "1" } },
        })
    );
}

#[tokio::test]
async fn a_held_release_that_was_swept_is_told_from_the_start() {
    let world = World::memory();
    let node = world.node("n1").await;
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    let mut told = node.subscribe(interest("x", &[(payment(), Some(77))])).unwrap();
    let update = told.next().await;
    assert_eq!((update.from, update.changed[0].change), (0, Turn::Added));
    let mut wordy = interest("x", &[]);
    wordy.client.labels.insert("k".to_owned(), "v".repeat(513));
    assert!(node.subscribe(wordy).is_err());
    let groups: Vec<_> = (0..101).map(|n| (group(&format!("g{n}")), None)).collect();
    assert!(node.subscribe(interest("x", &groups)).is_err());
}
