//! Whether an answer is as of what was asked for.

use std::time::Duration;

use mainstay_store::{Batch, Key, Put, Revision};

use super::checks::with_checks;
use super::stage::{Faulty, Stage, instance, lines, plain, service};
use crate::audit::Author;

/// The revision of a write that has nothing to do with the registry.
async fn elsewhere(stage: &Stage) -> Revision {
    let put = Put::new(Key::new("elsewhere").unwrap(), b"x".to_vec());
    stage.store.apply(Batch::new().then(put)).await.unwrap().revision
}

/// What comes of `wait` though no time passes.
async fn at_once<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it waits for time to pass")
}

#[tokio::test]
async fn what_is_written_elsewhere_is_not_waited_for() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    assert!(at_once(node.caught_up(&order)).await.is_ok(), "nobody registered it");
    node.register(&order, &plain("a")).await.unwrap();
    let revision = elsewhere(&stage).await;
    assert_eq!(at_once(node.caught_up(&order)).await.unwrap(), revision);
    at_once(node.reached(&order, revision)).await.unwrap();
    let (late, ()) = tokio::join!(node.reached(&order, revision.next()), stage.pass_seconds(6));
    assert!(late.is_err(), "a revision that is not there yet");
}

#[tokio::test]
async fn whatever_is_newer_of_the_service_is_waited_for() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let n1 = stage.node("n1").await;
    let behind = stage.node_on(faulty.clone(), "n2", |_options| {}).await;
    let (order, a) = (service("order"), instance("order", "a"));
    let seen = || lines(&behind.view(&order).unwrap());
    for (step, want) in [
        ("register", vec!["a passing up"]),
        ("settings", vec!["a passing up"]),
        ("deregister", vec![]),
        ("delete", vec![]),
    ] {
        faulty.deafen(true);
        match step {
            "register" => drop(n1.register(&order, &plain("a")).await.unwrap()),
            "settings" => with_checks(&n1, "order", r#"{"name": "up", "kind": "tcp"}"#).await,
            "deregister" => drop(n1.deregister(&a, None).await.unwrap()),
            _ => drop(n1.delete_service(&order, &Author::default()).await.unwrap()),
        }
        let mut wait = Box::pin(behind.caught_up(&order));
        for _ in 0..3 {
            assert!(futures_util::poll!(&mut wait).is_pending(), "{step}");
            stage.settle().await;
        }
        faulty.deafen(false);
        at_once(wait).await.unwrap();
        assert_eq!(seen(), want, "{step}");
    }
    assert!(behind.services().unwrap().is_empty());
}

#[tokio::test]
async fn a_long_poll_from_another_history_is_answered_at_once() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    let first = node.register(&order, &plain("a")).await.unwrap().revision;
    let wait = Duration::from_mins(5);
    let view = at_once(node.view_after(&order, Revision::new(9_999), wait)).await.unwrap();
    assert_eq!(view.revision, first);
    let poll = node.view_after(&order, first, wait);
    assert!(futures_util::poll!(Box::pin(poll)).is_pending());
}

#[tokio::test]
async fn the_end_of_a_protection_between_two_polls_is_told_soon() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    node.register(&order, &plain("a")).await.unwrap();
    let view = || node.view(&order).unwrap();
    stage.within(20, "it is late", || view().protected.is_some()).await;
    node.heartbeat(&instance("order", "a")).await.unwrap();
    let protected = view();
    assert!(protected.protected.is_some());
    for _ in 0..4 {
        stage.pass_seconds(2).await;
        node.heartbeat(&instance("order", "a")).await.unwrap();
    }
    let now = view();
    assert!(now.protected.is_none() && now.revision == protected.revision, "nothing was written");
    let poll = node.view_after(&order, protected.revision, Duration::from_mins(5));
    let (told, ()) = tokio::join!(poll, stage.pass_seconds(11));
    assert!(told.unwrap().protected.is_none());
}
