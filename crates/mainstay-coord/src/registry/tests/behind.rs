//! A node whose copy is behind decides nothing that is no longer so.

use std::time::Duration;

use super::stage::{Faulty, Stage, eventually, instance, lines, plain, registration, service};
use crate::audit::Author;

#[tokio::test]
async fn a_beat_that_this_node_did_not_hear_of_keeps_the_instance() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let n1 = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let n2 = stage.node("n2").await;
    let (order, a) = (service("order"), instance("order", "a"));
    stage.pass_seconds(61).await;
    n1.register(&order, &plain("a")).await.unwrap();
    let late = || lines(&n1.view(&order).unwrap()) == ["a critical up"];
    stage.within(17, "it is late", late).await;
    eventually("the other knows", || lines(&n2.view(&order).unwrap()) == ["a critical up"]).await;
    stage.pass_seconds(8).await;
    faulty.deafen(true);
    n2.heartbeat(&a).await.unwrap();
    for _ in 0..3 {
        stage.pass_seconds(4).await;
        n2.heartbeat(&a).await.unwrap();
    }
    assert!(late(), "the first still believes it");
    assert_eq!(lines(&n2.view(&order).unwrap()), ["a passing up"]);
    faulty.deafen(false);
}

#[tokio::test]
async fn one_that_was_brought_up_elsewhere_is_not_drained_away() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let n1 = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let n2 = stage.node("n2").await;
    let (order, a) = (service("order"), instance("order", "a"));
    n1.register(&order, &registration(r#"{"id": "a", "ttl_seconds": 600}"#)).await.unwrap();
    n1.drain(&a, 10, &Author::default()).await.unwrap();
    eventually("the other knows", || lines(&n2.view(&order).unwrap()) == ["a passing draining"])
        .await;
    faulty.deafen(true);
    n2.bring_up(&a, &Author::default()).await.unwrap();
    stage.pass_seconds(14).await;
    assert_eq!(lines(&n1.view(&order).unwrap()), ["a passing draining"], "it is behind");
    assert_eq!(lines(&n2.view(&order).unwrap()), ["a passing up"]);
    faulty.deafen(false);
}

#[tokio::test]
async fn nothing_to_do_is_said_only_when_the_store_says_so() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let n1 = stage.node("n1").await;
    let n2 = stage.node_on(faulty.clone(), "n2", |_options| {}).await;
    let (order, a) = (service("order"), instance("order", "a"));
    n1.register(&order, &registration(r#"{"id": "a", "ttl_seconds": 600}"#)).await.unwrap();
    eventually("both know it", || lines(&n2.view(&order).unwrap()) == ["a passing up"]).await;
    faulty.deafen(true);
    n1.drain(&a, 30, &Author::default()).await.unwrap();
    assert_eq!(lines(&n2.view(&order).unwrap()), ["a passing up"], "it is behind");
    // The copy does not get there within the time a write waits for it; it is written all the same.
    let author = Author::default();
    let (done, ()) = tokio::join!(n2.bring_up(&a, &author), stage.pass(Duration::from_secs(6)));
    done.unwrap();
    assert_eq!(lines(&n1.view(&order).unwrap()), ["a passing up"]);
    faulty.deafen(false);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_leaves_the_one_before() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let (order, a) = (service("order"), instance("order", "a"));
    node.register(&order, &registration(r#"{"id": "a", "ttl_seconds": 600}"#)).await.unwrap();
    let newer = mainstay_store::Put::new(a.key(), b"{\"v\": 2}".to_vec());
    let batch = mainstay_store::Batch::new().then(newer);
    let revision = stage.store.apply(batch).await.unwrap().revision;
    eventually("it came in", || revision <= node.revision()).await;
    assert_eq!(lines(&node.view(&order).unwrap()), ["a passing up"]);
    assert_eq!(node.services().unwrap(), [(order.clone(), 1)]);
    node.heartbeat(&a).await.unwrap();
    node.deregister(&a, None).await.unwrap();
    assert!(node.view(&order).unwrap().instances.is_empty());
}
