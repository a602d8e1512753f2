//! A view is made once for each change, and is right at every moment.

use std::sync::Arc;
use std::time::Duration;

use super::checks::with_checks;
use super::stage::{Fault, Faulty, Stage, instance, lines, plain, registration, service};
use crate::audit::Author;
use crate::health::Health;

#[tokio::test]
async fn whoever_asks_gets_the_same_list_until_it_changes() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let (order, stock) = (service("order"), service("stock"));
    with_checks(&node, "order", r#"{"name": "job", "kind": "ttl", "ttl_seconds": 600}"#).await;
    node.register(&order, &registration(r#"{"id": "a", "kind": "persistent"}"#)).await.unwrap();
    let view = || node.view(&order).unwrap();
    let same = |before: &Arc<_>| Arc::ptr_eq(before, &view());
    let told = node.watch(&order).unwrap();
    let first = view();
    node.register(&stock, &plain("x")).await.unwrap();
    stage.pass_seconds(1).await;
    assert!(same(&first) && Arc::ptr_eq(&first, &told.borrow()), "of another service");

    node.weigh(&instance("order", "a"), 7, &Author::default()).await.unwrap();
    assert!(!same(&first));
    assert_eq!((first.instances[0].instance.weight, view().instances[0].instance.weight), (1, 7));

    node.report(&instance("order", "a"), "job", Health::Passing, "1").await.unwrap();
    let before = view();
    stage.pass(Duration::from_secs(31)).await;
    node.report(&instance("order", "a"), "job", Health::Passing, "2").await.unwrap();
    assert_eq!(view().instances[0].instance.checks["job"].output, "2", "though no list changed");
    assert_eq!(view().revision, before.revision);
}

#[tokio::test]
async fn what_time_and_the_store_change_is_in_it() {
    let stage = Stage::memory();
    let faulty = Faulty::new(stage.store.clone());
    let node = stage.node_on(faulty.clone(), "n1", |_options| {}).await;
    let order = service("order");
    for id in ["a", "b"] {
        node.register(&order, &plain(id)).await.unwrap();
    }
    let view = || node.view(&order).unwrap();
    stage.within(20, "both are late", || view().protected.is_some()).await;
    for id in ["a", "b"] {
        node.heartbeat(&instance("order", id)).await.unwrap();
    }
    let well = view();
    assert_eq!(lines(&well), ["a passing up", "b passing up"]);
    assert!(well.protected.is_some());
    // Nobody asks and nobody is told meanwhile: the next question finds it ended.
    stage.pass(Duration::from_millis(5_250)).await;
    assert!(view().protected.is_none());
    faulty.set(Fault::Away);
    stage.within(2, "it is stale", || view().stale_since_unix_ms.is_some()).await;
    faulty.set(Fault::None);
    stage.within(15, "it is not", || view().stale_since_unix_ms.is_none()).await;
}
