//! What comes between a look and a write.

use std::time::Duration;

use mainstay_store::{Batch, Op};

use super::checks::with_checks;
use super::stage::{
    Fault, Faulty, Stage, eventually, instance, lines, plain, registration, service,
};
use crate::health::Health;
use crate::keys::node;
use crate::name::{NodeName, Reporter};

#[tokio::test]
async fn a_beat_while_it_is_marked_late_brings_it_back() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let n1 = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let (order, a) = (service("order"), instance("order", "a"));
    n1.register(&order, &plain("a")).await.unwrap();
    stage.pass_seconds(14).await;
    faulty.set(Fault::Lost);
    stage.within(3, "it is being marked", || faulty.fault() == Fault::None).await;
    // The mark is written again in a moment; nothing of it is seen yet.
    n1.heartbeat(&a).await.unwrap();
    stage.pass_seconds(2).await;
    assert_eq!(lines(&n1.view(&order).unwrap()), ["a passing up"]);
}

#[tokio::test]
async fn beats_of_one_request_count_though_another_cannot_be_written() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let n1 = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let n2 = stage.node("n2").await;
    let (own, other) = (service("own"), service("other"));
    let long = r#"{"id": "a", "ttl_seconds": 30}"#;
    n1.register(&own, &registration(long)).await.unwrap();
    n2.register(&other, &registration(r#"{"id": "a", "ttl_seconds": 3600}"#)).await.unwrap();
    eventually("it is known", || n1.view(&other).unwrap().instances.len() == 1).await;
    stage.pass_seconds(20).await;
    faulty.set(Fault::Refuses);
    let beats = [instance("other", "a"), instance("own", "a"), instance("own", "b")];
    let (refused, ()) = tokio::join!(n1.heartbeats(&beats), stage.pass(Duration::from_secs(7)));
    assert!(refused.unwrap_err().is_retryable());
    faulty.set(Fault::None);
    stage.pass_seconds(8).await;
    assert_eq!(lines(&n1.view(&own).unwrap()), ["a passing up"], "35 s after it registered");
    assert_eq!(n1.heartbeats(&beats).await.unwrap(), [instance("own", "b")]);
    assert_eq!(n1.view(&other).unwrap().instances[0].instance.owner, "n1");
}

#[tokio::test]
async fn results_of_a_check_go_with_it() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let n1 = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let (order, a) = (service("order"), instance("order", "a"));
    let job = r#"{"name": "job", "kind": "ttl", "ttl_seconds": 600}"#;
    let sync = r#"{"name": "sync", "kind": "ttl", "ttl_seconds": 600}"#;
    with_checks(&n1, "order", &format!("{job}, {sync}")).await;
    n1.register(&order, &registration(r#"{"id": "a", "kind": "persistent"}"#)).await.unwrap();
    n1.report(&a, "sync", Health::Passing, "").await.unwrap();
    n1.report(&a, "job", Health::Critical, "no").await.unwrap();
    assert_eq!(lines(&n1.view(&order).unwrap()), ["a critical up"]);
    with_checks(&n1, "order", sync).await;
    // The first write fails.
    faulty.set(Fault::Lost);
    let passing = || lines(&n1.view(&order).unwrap()) == ["a passing up"];
    stage.within(3, "nobody checks that any more", passing).await;
    let view = n1.view(&order).unwrap();
    assert_eq!(view.instances[0].instance.checks.keys().collect::<Vec<_>>(), ["sync"]);
    let quiet = n1.revision();
    stage.pass_seconds(3).await;
    assert_eq!(n1.revision(), quiet, "once");
}

#[tokio::test]
async fn output_alone_is_written_every_half_minute() {
    let stage = Stage::memory();
    let n1 = stage.node("n1").await;
    let (order, a) = (service("order"), instance("order", "a"));
    with_checks(&n1, "order", r#"{"name": "job", "kind": "ttl", "ttl_seconds": 60}"#).await;
    n1.register(&order, &registration(r#"{"id": "a", "kind": "persistent"}"#)).await.unwrap();
    let output = || n1.view(&order).unwrap().instances[0].instance.checks["job"].output.clone();
    n1.report(&a, "job", Health::Passing, "1 left").await.unwrap();
    let shown = n1.view(&order).unwrap().revision;
    stage.pass_seconds(20).await;
    n1.report(&a, "job", Health::Passing, "2 left").await.unwrap();
    assert_eq!(output(), "1 left");
    stage.pass_seconds(11).await;
    n1.report(&a, "job", Health::Passing, "3 left").await.unwrap();
    assert_eq!(output(), "3 left");
    n1.report(&a, "job", Health::Passing, "4 left").await.unwrap();
    assert_eq!(output(), "3 left");
    assert_eq!(n1.view(&order).unwrap().revision, shown, "no list changed");
}

#[tokio::test]
async fn reports_of_one_caller_to_several_nodes_keep_one_key() {
    let stage = Stage::memory();
    let (n1, n2) = (stage.node("n1").await, stage.node("n2").await);
    let (order, a) = (service("order"), instance("order", "a"));
    n1.register(&order, &registration(r#"{"id": "a", "kind": "persistent"}"#)).await.unwrap();
    let gateway = Reporter::new("gw1").unwrap();
    let suspect = || lines(&n1.view(&order).unwrap()) == ["a warning up"];
    eventually("it is known", || n2.view(&order).unwrap().instances.len() == 1).await;
    n1.observe(&a, &gateway, 1, "timeouts").await.unwrap();
    eventually("the other knows", || lines(&n2.view(&order).unwrap()) == ["a warning up"]).await;
    n2.observe(&a, &gateway, 1, "timeouts").await.unwrap();
    for _ in 0..5 {
        stage.pass_seconds(10).await;
        n1.observe(&a, &gateway, 1, "timeouts").await.unwrap();
        assert!(suspect());
    }
    stage.within(33, "it is silent", || !suspect()).await;
}

#[tokio::test]
async fn an_announcement_that_arrives_late_does_not_make_a_node_unknown() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    faulty.set(Fault::Late);
    let options = crate::registry::Options::new(NodeName::new("n1").unwrap());
    let timer = std::sync::Arc::new(stage.clock.clone());
    let n1 = crate::registry::Registry::start(
        faulty.clone(),
        timer,
        stage.outbox(faulty.clone()),
        options,
    );
    stage.within(5, "it is known", || n1.nodes().is_ok_and(|nodes| nodes.len() == 1)).await;
    faulty.arrive().await;
    for _ in 0..8 {
        stage.pass_seconds(3).await;
        assert_eq!(n1.nodes().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_node_whose_key_was_taken_away_makes_itself_known_again() {
    let stage = Stage::memory();
    let n1 = stage.node("n1").await;
    let name = NodeName::new("n1").unwrap();
    stage.store.apply(Batch::new().then(Op::delete(&node(&name)))).await.unwrap();
    eventually("it is gone", || n1.nodes().unwrap().is_empty()).await;
    stage.within(4, "it is back", || n1.nodes().unwrap().len() == 1).await;
}
