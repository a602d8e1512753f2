//! Who looks after an instance, and what happens when that node dies.

use std::time::Duration;

use super::stage::{Stage, eventually, instance, lines, plain, service};
use crate::registry::Registry;

fn owner(node: &Registry, name: &str) -> String {
    let view = node.view(&service(name)).unwrap();
    view.instances.first().map(|listed| listed.instance.owner.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_beat_at_another_node_moves_the_ownership_there() {
    let stage = Stage::memory();
    let (n1, n2) = (stage.node("n1").await, stage.node("n2").await);
    let (order, a) = (service("order"), instance("order", "a"));
    n1.register(&order, &plain("a")).await.unwrap();
    eventually("the other has it", || owner(&n2, "order") == "n1").await;
    n2.heartbeat(&a).await.unwrap();
    assert_eq!(owner(&n2, "order"), "n2");
    for _ in 0..10 {
        stage.pass_seconds(4).await;
        n2.heartbeat(&a).await.unwrap();
    }
    assert_eq!(lines(&n1.view(&order).unwrap()), ["a passing up"], "the first no longer judges");
}

#[tokio::test]
async fn instances_of_a_dead_node_are_taken_over_with_a_full_ttl() {
    let stage = Stage::memory();
    let faulty = super::stage::Faulty::new(stage.store.clone());
    let n1 = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let n2 = stage.node("n2").await;
    let order = service("order");
    n1.register(&order, &plain("a")).await.unwrap();
    stage.pass_seconds(10).await;
    // It dies without a word: it neither renews its lease nor writes.
    faulty.set(super::stage::Fault::Away);
    stage.within(13, "the other takes over", || owner(&n2, "order") == "n2").await;
    assert_eq!(n2.nodes().unwrap().len(), 1);
    assert_eq!(lines(&n2.view(&order).unwrap()), ["a passing up"]);
    stage.pass_seconds(14).await;
    assert_eq!(lines(&n2.view(&order).unwrap()), ["a passing up"], "a full ttl from there");
    let late = || lines(&n2.view(&order).unwrap()) == ["a critical up"];
    stage.within(2, "then it is late", late).await;
    // The first comes back and is told that it no longer owns the instance.
    faulty.set(super::stage::Fault::None);
    let both = || n2.nodes().unwrap().len() == 2 && owner(&n1, "order") == "n2";
    stage.within(15, "it is known again", both).await;
}

#[tokio::test]
async fn a_node_that_leaves_hands_over_at_once() {
    let stage = Stage::memory();
    let (n1, n2) = (stage.node("n1").await, stage.node("n2").await);
    n1.register(&service("order"), &plain("a")).await.unwrap();
    assert_eq!(n1.shutdown(Duration::from_secs(5)).await, 0);
    // No time passes.
    eventually("the other takes over", || owner(&n2, "order") == "n2").await;
}

#[tokio::test]
async fn a_node_that_restarts_gives_its_instances_a_full_ttl() {
    let stage = Stage::memory();
    let (order, a) = (service("order"), instance("order", "a"));
    let before = stage.node("n1").await;
    before.register(&order, &plain("a")).await.unwrap();
    stage.pass_seconds(14).await;
    assert_eq!(before.shutdown(Duration::from_secs(5)).await, 0);
    let after = stage.node("n1").await;
    stage.pass_seconds(14).await;
    assert_eq!(lines(&after.view(&order).unwrap()), ["a passing up"]);
    after.heartbeat(&a).await.unwrap();
}

#[tokio::test]
async fn a_process_that_stood_still_blames_nobody() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    node.register(&order, &plain("a")).await.unwrap();
    stage.pass_seconds(10).await;
    stage.clock.advance(Duration::from_secs(8));
    stage.settle().await;
    stage.pass_seconds(4).await;
    assert_eq!(lines(&node.view(&order).unwrap()), ["a passing up"]);
    let late = || lines(&node.view(&order).unwrap()) == ["a critical up"];
    stage.within(3, "then its ttl is over", late).await;
}
