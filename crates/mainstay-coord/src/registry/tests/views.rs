//! What a service looks like to whoever asks and watches.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::Revision;

use super::stage::{Stage, instance, lines, plain, registration, service};
use crate::audit::Author;
use crate::name::Reporter;
use crate::registry::{Change, Filter};

#[tokio::test]
async fn changes_within_a_moment_are_merged_into_one_push() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    let mut views = node.watch(&order).unwrap();
    assert_eq!(views.borrow_and_update().empty_because(), Some("never registered"));
    for id in 0..10 {
        node.register(&order, &plain(&id.to_string())).await.unwrap();
    }
    assert!(!views.has_changed().unwrap(), "gathered");
    stage.pass(Duration::from_millis(50)).await;
    assert_eq!(views.borrow_and_update().instances.len(), 10);
    stage.pass_seconds(1).await;
    assert!(!views.has_changed().unwrap(), "one push");
}

#[tokio::test]
async fn a_long_poll_wakes_for_its_service_and_for_no_other() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let (order, stock) = (service("order"), service("stock"));
    let first = node.register(&order, &plain("a")).await.unwrap();
    let at_once = node.view_after(&order, Revision::NEVER, Duration::from_mins(1)).await.unwrap();
    assert_eq!(at_once.revision, first.revision);
    stage.pass(Duration::from_millis(100)).await;
    let poll = node.view_after(&order, at_once.revision, Duration::from_mins(1));
    let mut poll = Box::pin(poll);
    node.register(&stock, &plain("x")).await.unwrap();
    stage.pass_seconds(1).await;
    assert!(futures_util::poll!(&mut poll).is_pending());
    stage.pass_seconds(1).await;
    assert!(futures_util::poll!(&mut poll).is_pending(), "another service changed");
    let second = node.weigh(&instance("order", "a"), 9, &Author::default()).await.unwrap();
    stage.pass_seconds(1).await;
    assert_eq!(poll.await.unwrap().revision, second.revision);
    let poll = node.view_after(&order, second.revision, Duration::from_secs(2));
    let (view, ()) = tokio::join!(poll, stage.pass_seconds(3));
    assert_eq!(view.unwrap().revision, second.revision, "nothing happened");
}

#[tokio::test]
async fn lists_are_filtered_and_say_why() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    for json in [
        r#"{"id": "a", "zone": "z1", "tags": ["x", "y"], "version": "1"}"#,
        r#"{"id": "b", "zone": "z2", "tags": ["x"], "status": "warning"}"#,
        r#"{"id": "c", "zone": "z1", "status": "critical"}"#,
        r#"{"id": "d", "zone": "z1", "weight": 0}"#,
        r#"{"id": "e", "zone": "z1", "state": "starting"}"#,
    ] {
        node.register(&order, &registration(json)).await.unwrap();
    }
    let view = node.view(&order).unwrap();
    let ids = |filter: &Filter| {
        view.answer(filter).map(|listed| listed.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    let zone = Some("z1".to_owned());
    assert_eq!(ids(&Filter::default()).len(), 5);
    assert_eq!(ids(&Filter { healthy: true, ..Filter::default() }), ["a", "b"]);
    assert_eq!(ids(&Filter { zone, ..Filter::default() }), ["a", "c", "d", "e"]);
    let tags = vec!["x".to_owned(), "y".to_owned()];
    assert_eq!(ids(&Filter { tags, ..Filter::default() }), ["a"]);
    let version = Some("1".to_owned());
    let strict = Filter { healthy: true, version, ..Filter::default() };
    let why: Vec<_> =
        view.explain(&strict).map(|(_, why)| why.map(|why| why.to_string())).collect();
    let want = [
        None,
        Some("another version was asked for"),
        Some("critical"),
        Some("weight 0"),
        Some("starting"),
    ];
    assert_eq!(why, want.map(|why| why.map(str::to_owned)));
    let usable: Vec<_> = view.endpoints().map(|endpoint| endpoint.usable).collect();
    assert_eq!(usable, [true, true, false, false, false]);
}

#[tokio::test]
async fn protection_ends_after_five_good_seconds_and_says_when_it_began() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    for id in ["a", "b", "c"] {
        node.register(&order, &plain(id)).await.unwrap();
    }
    let mut views = node.watch(&order).unwrap();
    let view = || node.view(&order).unwrap();
    stage.within(20, "all are late", || view().protected.is_some()).await;
    stage.pass_seconds(1).await;
    let protected = view().protected.clone().unwrap();
    assert_eq!((protected.healthy, protected.total), (0, 3));
    assert_eq!(protected.reason, "only 0 of 3 instances are healthy");
    for id in ["a", "b"] {
        node.heartbeat(&instance("order", id)).await.unwrap();
    }
    stage.pass_seconds(4).await;
    assert_eq!(view().protected.clone().unwrap().since_unix_ms, protected.since_unix_ms);
    stage.pass_seconds(2).await;
    assert!(view().protected.is_none());
    // It is pushed though nothing was written.
    assert!(views.borrow_and_update().protected.is_none());
    assert_eq!(view().instances.len(), 3);
}

#[tokio::test]
async fn two_callers_make_an_instance_suspect_for_as_long_as_they_say_so() {
    let stage = Stage::memory();
    let (n1, n2) = (stage.node("n1").await, stage.node("n2").await);
    let (order, a) = (service("order"), instance("order", "a"));
    n1.register(&order, &registration(r#"{"id": "a", "kind": "persistent"}"#)).await.unwrap();
    let by = |name: &str| Reporter::new(name).unwrap();
    n1.observe(&a, &by("gw1"), 3, "timeouts").await.unwrap();
    assert_eq!(lines(&n1.view(&order).unwrap()), ["a passing up"], "one may be cut off itself");
    // The second report comes to another node.
    n2.observe(&a, &by("gw2"), 3, "timeouts").await.unwrap();
    let suspect = || lines(&n1.view(&order).unwrap()) == ["a warning up"];
    super::stage::eventually("both count", suspect).await;
    for _ in 0..3 {
        stage.pass_seconds(15).await;
        let before = stage.store.status().await.unwrap().revision;
        n1.observe(&a, &by("gw1"), 3, "timeouts").await.unwrap();
        n2.observe(&a, &by("gw2"), 3, "timeouts").await.unwrap();
        assert_eq!(stage.store.status().await.unwrap().revision, before, "nothing is written");
        assert!(suspect());
    }
    stage
        .within(33, "they are silent", || lines(&n1.view(&order).unwrap()) == ["a passing up"])
        .await;
    n1.observe(&a, &by("gw1"), 1, "timeouts").await.unwrap();
    assert!(suspect(), "the only caller there is");
    let missing = n1.observe(&instance("order", "b"), &by("gw1"), 1, "x").await;
    assert!(missing.is_err());
}

#[tokio::test]
async fn every_step_is_told_to_whoever_wants_each() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let (order, a) = (service("order"), instance("order", "a"));
    let start = node.register(&order, &plain("a")).await.unwrap().revision;
    for weight in 2..5 {
        node.weigh(&a, weight, &Author::default()).await.unwrap();
    }
    node.deregister(&a, None).await.unwrap();
    let mut changes = node.changes(&order, start).unwrap();
    for weight in 2..5 {
        let (revision, told) = changes.next().await.unwrap();
        assert!(start < revision);
        assert!(matches!(&*told, [Change::Put(listed)] if listed.instance.weight == weight));
    }
    let (revision, told) = changes.next().await.unwrap();
    assert!(matches!(&*told, [Change::Removed(id)] if id.as_str() == "a"));
    // Dropped half way, nothing is lost.
    assert!(futures_util::poll!(Box::pin(changes.next())).is_pending());
    node.register(&order, &plain("b")).await.unwrap();
    let (next, told) = changes.next().await.unwrap();
    assert!(revision < next && matches!(&*told, [Change::Put(_)]));
}

#[tokio::test]
async fn a_view_becomes_what_a_balancer_takes() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    let json = r#"{"id": "a", "address": "2001:db8::1", "port": 8080, "weight": 3, "zone": "z1",
        "metadata": {"priority": "2"}}"#;
    node.register(&order, &registration(json)).await.unwrap();
    let view = Arc::new(node.view(&order).unwrap());
    let endpoint = view.endpoints().next().unwrap();
    assert_eq!(&*endpoint.address, "[2001:db8::1]:8080");
    assert_eq!((&*endpoint.name, &*endpoint.zone), ("a", "z1"));
    assert_eq!((endpoint.weight, endpoint.priority, endpoint.usable), (3, 2, true));
}
