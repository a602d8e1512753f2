//! A store that is away, or whose answers are lost.

use std::time::Duration;

use mainstay_core::problem::Code;

use super::stage::{Fault, Faulty, Stage, eventually, instance, lines, plain, service};
use crate::audit::Author;
use crate::registry::GoneReason;
use crate::registry::RegistryError;

#[tokio::test]
async fn an_unknown_outcome_is_resolved_by_reading_the_registration() {
    for fault in [Fault::Applied, Fault::Lost] {
        let stage = Stage::memory();
        let faulty = Faulty::new(stage.store.clone());
        let node = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
        let (order, a) = (service("order"), instance("order", "a"));
        faulty.set(fault);
        let registering = plain("a");
        let (done, ()) = tokio::join!(node.register(&order, &registering), async {
            stage.pass(Duration::from_secs(1)).await;
        });
        let done = done.unwrap();
        assert!(done.is_new, "{fault:?}");
        let view = node.view(&order).unwrap();
        assert_eq!(view.instances.len(), 1, "{fault:?}");
        assert_eq!(view.instances[0].instance.registration, done.registration);
        assert_eq!(view.instances[0].revision, done.revision, "once, not twice: {fault:?}");

        let author = Author::default();
        faulty.set(fault);
        let (done, ()) =
            tokio::join!(node.weigh(&a, 7, &author), stage.pass(Duration::from_secs(1)));
        done.unwrap();
        assert_eq!(node.view(&order).unwrap().instances[0].instance.weight, 7);

        faulty.set(fault);
        let (done, ()) =
            tokio::join!(node.deregister(&a, None), stage.pass(Duration::from_secs(1)));
        done.unwrap();
        eventually("it is gone", || node.view(&order).unwrap().instances.is_empty()).await;
        assert_eq!(faulty.fault(), Fault::None);
    }
}

#[tokio::test]
async fn while_the_store_is_away_reads_go_on_and_nothing_is_removed() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let node = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let (order, a) = (service("order"), instance("order", "a"));
    stage.pass_seconds(61).await;
    node.register(&order, &plain("a")).await.unwrap();
    faulty.set(Fault::Away);
    let stale = || node.view(&order).unwrap().stale_since_unix_ms.is_some();
    stage.within(2, "it says that it is stale", stale).await;
    stage.pass_seconds(5).await;
    node.heartbeat(&a).await.unwrap();
    let author = Author::default();
    let (refused, ()) =
        tokio::join!(node.weigh(&a, 7, &author), stage.pass(Duration::from_secs(8)));
    assert_eq!(refused.unwrap_err().code(), Code::StoreUnavailable);
    let unknown = node.heartbeat(&instance("order", "b")).await.unwrap_err();
    assert_eq!(unknown, RegistryError::Loading, "it may have been registered elsewhere");
    stage.pass_seconds(120).await;
    assert_eq!(lines(&node.view(&order).unwrap()), ["a passing up"]);
    faulty.set(Fault::None);
    stage.within(15, "it follows again", || !stale()).await;
    // Back, nobody knows what went meanwhile: nothing goes for a minute.
    stage.pass_seconds(30).await;
    assert_eq!(lines(&node.view(&order).unwrap()), ["a critical up"]);
    let gone = || node.view(&order).unwrap().instances.is_empty();
    stage.within(40, "the minute is over", gone).await;
}

#[tokio::test]
async fn a_node_that_cannot_read_says_so_instead_of_nothing() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    faulty.set(Fault::Away);
    let options = crate::registry::Options::new(crate::name::NodeName::new("n1").unwrap());
    let timer = std::sync::Arc::new(stage.clock.clone());
    let node = crate::registry::Registry::start(
        faulty.clone(),
        timer,
        stage.outbox(faulty.clone()),
        options,
    );
    stage.pass_seconds(3).await;
    assert_eq!(node.view(&service("order")).unwrap_err().code(), Code::RegistryLoading);
    assert!(node.watch(&service("order")).is_err() && node.services().is_err());
    faulty.set(Fault::None);
    stage.within(15, "it has read", || node.view(&service("order")).is_ok()).await;
}

#[tokio::test]
async fn a_reader_that_lost_history_lists_anew_and_says_so() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let slow = stage.node_on(faulty.clone(), "slow", |_options| {}).await;
    let quick = stage.node("quick").await;
    let order = service("order");
    for id in ["a", "b"] {
        quick.register(&order, &plain(id)).await.unwrap();
    }
    eventually("both are seen", || slow.view(&order).unwrap().instances.len() == 2).await;
    let mut told = slow.watch(&order).unwrap();
    told.borrow_and_update();
    let mut changes = slow.changes(&order, slow.revision()).unwrap();
    faulty.set(Fault::Away);
    assert!(changes.next().await.is_err());
    quick.deregister(&instance("order", "a"), None).await.unwrap();
    quick.register(&order, &plain("c")).await.unwrap();
    for weight in 0..50 {
        quick.weigh(&instance("order", "c"), weight, &Author::default()).await.unwrap();
    }
    let revision = stage.store.status().await.unwrap().revision;
    stage.store.compact(revision).await.unwrap();
    faulty.set(Fault::None);
    let fresh = || slow.view(&order).unwrap().instances == quick.view(&order).unwrap().instances;
    stage.within(15, "it has caught up", fresh).await;
    assert_eq!(slow.view(&order).unwrap().instances.len(), 2);
    // The first change of the watch may be that it was stale.
    stage.within(2, "whoever watches is told", || told.borrow_and_update().resync).await;
    assert_eq!(told.borrow().instances.len(), 2);
    let (_, said) = changes.next().await.unwrap();
    assert!(matches!(&*said, [crate::registry::Change::Resync(all)] if all.len() == 2));
    quick.deregister(&instance("order", "c"), None).await.unwrap();
    let (_, said) = changes.next().await.unwrap();
    let c = crate::name::InstanceId::new("c").unwrap();
    assert_eq!(said, [crate::registry::Change::Removed(c)]);
    stage.within(2, "the next is ordinary", || told.borrow().instances.len() == 1).await;
    assert!(!told.borrow().resync);
}

#[tokio::test]
async fn of_two_nodes_only_one_removal_counts() {
    // Two nodes each own one of the last two instances; the budget is one a minute in all.
    let stage = Stage::memory();
    let (n1, n2) = (stage.node("n1").await, stage.node("n2").await);
    stage.pass_seconds(61).await;
    let order = service("order");
    n1.register(&order, &plain("a")).await.unwrap();
    n2.register(&order, &plain("b")).await.unwrap();
    let left = || n1.view(&order).unwrap().instances.len();
    stage.within(40, "one is removed", || left() < 2).await;
    stage.pass_seconds(20).await;
    assert_eq!(left(), 1);
    assert!(n1.view(&order).unwrap().instances[0].instance.removal_held);
    stage.within(60, "a minute later the other", || left() == 0).await;
    assert_eq!(n1.view(&order).unwrap().empty_because(), Some(GoneReason::Expired.as_str()));
}
