//! The table of an instance's life, on every backend.

use mainstay_core::problem::Code;
use mainstay_store::Revision;

use super::stage::{Stage, instance, lines, plain, registration, service};
use crate::audit::Author;
use crate::registry::{EmptyBecause, Filter, RawSettings, RegistryError, Settings, Shares};

/// Plays one story on each backend.
macro_rules! on_each_backend {
    ($($story:ident)*) => {
        mod memory { $(
            #[tokio::test]
            async fn $story() { super::$story(super::Stage::memory()).await; }
        )* }
        mod embedded { $(
            #[tokio::test]
            async fn $story() { super::$story(super::Stage::embedded()).await; }
        )* }
    };
}

on_each_backend! {
    an_instance_that_stops_beating_turns_critical_and_goes
    a_beat_brings_a_late_one_back
    registering_again_under_one_id_changes_nothing
    only_the_registration_that_is_withdrawn_goes
    a_service_is_of_one_kind_as_long_as_it_has_instances
    a_drain_ends_with_removal_and_of_a_persistent_one_with_rest
}

async fn an_instance_that_stops_beating_turns_critical_and_goes(stage: Stage) {
    let node = stage.node("n1").await;
    let order = service("order");
    // In the first minute nobody knows what went before, so nothing is removed.
    stage.pass_seconds(61).await;
    let done = node.register(&order, &plain("a")).await.unwrap();
    assert!(done.is_new && done.beat_every_seconds == 5);
    assert_eq!(lines(&node.view(&order).unwrap()), ["a passing up"]);
    stage.pass_seconds(14).await;
    assert_eq!(lines(&node.view(&order).unwrap()), ["a passing up"]);
    let view = || node.view(&order).unwrap();
    stage.within(2, "it is critical", || lines(&view()) == ["a critical up"]).await;
    let reason = view().instances[0].instance.reason.clone();
    assert_eq!(reason.as_deref(), Some("no heartbeat for 15 s"));
    assert!(view().protected.is_some(), "the only one went");
    stage.within(17, "it is removed", || view().instances.is_empty()).await;
    assert_eq!(view().empty_because, Some(EmptyBecause::Expired));
    let missing = node.heartbeat(&instance("order", "a")).await.unwrap_err();
    assert_eq!(missing.code(), Code::InstanceNotFound);
}

async fn a_beat_brings_a_late_one_back(stage: Stage) {
    let node = stage.node("n1").await;
    let (order, a) = (service("order"), instance("order", "a"));
    node.register(&order, &plain("a")).await.unwrap();
    let view = || node.view(&order).unwrap();
    let quiet = node.revision();
    for _ in 0..6 {
        stage.pass_seconds(4).await;
        node.heartbeat(&a).await.unwrap();
    }
    assert_eq!(node.revision(), quiet, "beats write nothing");
    stage.within(17, "it is critical", || lines(&view()) == ["a critical up"]).await;
    node.heartbeat(&a).await.unwrap();
    assert_eq!(lines(&view()), ["a passing up"], "a writer reads its own write");
    node.deregister(&a, None).await.unwrap();
    assert_eq!(view().empty_because, Some(EmptyBecause::Deregistered));
    assert!(node.deregister(&a, None).await.is_err());
}

async fn registering_again_under_one_id_changes_nothing(stage: Stage) {
    let node = stage.node("n1").await;
    let order = service("order");
    let once = registration(r#"{"id": "a", "registration": "r1", "weight": 3}"#);
    let first = node.register(&order, &once).await.unwrap();
    let second = node.register(&order, &once).await.unwrap();
    assert_eq!((first.revision, &*second.registration), (second.revision, "r1"));
    assert!(first.is_new && !second.is_new);
    let other = node.register(&order, &plain("a")).await.unwrap();
    assert!(first.revision < other.revision && !other.is_new);
}

async fn only_the_registration_that_is_withdrawn_goes(stage: Stage) {
    let node = stage.node("n1").await;
    let (order, a) = (service("order"), instance("order", "a"));
    let by = |token: &str| registration(&format!(r#"{{"id": "a", "registration": "{token}"}}"#));
    node.register(&order, &by("r1")).await.unwrap();
    node.register(&order, &by("r2")).await.unwrap();
    let late = node.withdraw(&a, "r1", None).await.unwrap_err();
    assert_eq!(late.code(), Code::InstanceNotFound);
    assert_eq!(late.to_string(), r#"instance default/order/a is not there by registration "r1""#);
    assert_eq!(lines(&node.view(&order).unwrap()), ["a passing up"], "who came since stays");
    node.withdraw(&a, "r2", None).await.unwrap();
    assert_eq!(node.view(&order).unwrap().empty_because, Some(EmptyBecause::Deregistered));
    assert!(node.withdraw(&a, "r2", None).await.is_err());
}

async fn a_service_is_of_one_kind_as_long_as_it_has_instances(stage: Stage) {
    let node = stage.node("n1").await;
    let order = service("order");
    let lasting = registration(r#"{"id": "b", "kind": "persistent"}"#);
    node.register(&order, &plain("a")).await.unwrap();
    let refused = node.register(&order, &lasting).await.unwrap_err();
    assert_eq!(refused.code(), Code::KindConflict);
    assert_eq!(refused.to_string(), "service default/order has ephemeral instances");
    let in_use = node.delete_service(&order, &Author::default()).await.unwrap_err();
    assert_eq!(in_use.code(), Code::ServiceInUse);
    node.deregister(&instance("order", "a"), None).await.unwrap();
    node.register(&order, &lasting).await.unwrap();
    // It neither beats nor goes.
    stage.pass_seconds(120).await;
    assert_eq!(lines(&node.view(&order).unwrap()), ["b passing up"]);
    node.deregister(&instance("order", "b"), None).await.unwrap();
    node.delete_service(&order, &Author::default()).await.unwrap();
    assert_eq!(
        node.delete_service(&order, &Author::default()).await.unwrap_err().code(),
        Code::ServiceNotFound
    );
    assert!(node.services().unwrap().is_empty());
    assert_eq!(node.view(&order).unwrap().empty_because, Some(EmptyBecause::NeverRegistered));
}

async fn a_drain_ends_with_removal_and_of_a_persistent_one_with_rest(stage: Stage) {
    let node = stage.node("n1").await;
    let (order, stock) = (service("order"), service("stock"));
    node.register(&order, &registration(r#"{"id": "a", "ttl_seconds": 600}"#)).await.unwrap();
    node.register(&stock, &registration(r#"{"id": "b", "kind": "persistent"}"#)).await.unwrap();
    node.drain(&instance("order", "a"), 10, &Author::default()).await.unwrap();
    node.drain(&instance("stock", "b"), 10, &Author::default()).await.unwrap();
    let healthy = Filter { healthy: true, ..Filter::default() };
    let view = node.view(&order).unwrap();
    assert_eq!(lines(&view), ["a passing draining"], "still in the full list");
    assert_eq!(view.answer(&healthy).count(), 0);
    let endpoint = view.endpoints().next().unwrap();
    assert_eq!((endpoint.weight, endpoint.usable), (0, false));
    stage.pass_seconds(9).await;
    assert_eq!(node.view(&order).unwrap().instances.len(), 1);
    let gone = || node.view(&order).unwrap().instances.is_empty();
    stage.within(2, "it is removed", gone).await;
    let view = node.view(&order).unwrap();
    assert_eq!(view.empty_because, Some(EmptyBecause::Deregistered));
    let rests = || lines(&node.view(&stock).unwrap()) == ["b critical down"];
    stage.within(2, "it is down", rests).await;
    node.bring_up(&instance("stock", "b"), &Author::default()).await.unwrap();
    assert_eq!(lines(&node.view(&stock).unwrap()), ["b passing up"]);
    let too_long =
        node.drain(&instance("stock", "b"), 3_601, &Author::default()).await.unwrap_err();
    assert_eq!(too_long.code(), Code::InvalidRequest);
}

#[tokio::test]
async fn maintenance_counts_as_critical_until_it_ends() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let (order, a) = (service("order"), instance("order", "a"));
    node.register(&order, &plain("a")).await.unwrap();
    node.maintain(&a, "new disk", &Author::default()).await.unwrap();
    let view = node.view(&order).unwrap();
    assert_eq!(lines(&view), ["a critical down"]);
    assert_eq!(view.instances[0].instance.reason.as_deref(), Some("maintenance: new disk"));
    assert!(view.protected.is_none(), "one that is down on purpose is not missed");
    node.register(&order, &plain("a")).await.unwrap();
    assert_eq!(lines(&node.view(&order).unwrap()), ["a critical down"], "it outlives a restart");
    node.bring_up(&a, &Author::default()).await.unwrap();
    assert_eq!(lines(&node.view(&order).unwrap()), ["a passing up"]);
}

#[tokio::test]
async fn the_seventh_of_twenty_is_held_back() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    stage.pass_seconds(61).await;
    for id in 0..20 {
        node.register(&order, &plain(&format!("i{id:02}"))).await.unwrap();
    }
    let view = || node.view(&order).unwrap();
    stage.within(40, "six are gone", || view().instances.len() == 14).await;
    stage.pass_seconds(10).await;
    let held = view();
    assert_eq!(held.instances.len(), 14);
    assert!(held.instances.iter().all(|listed| listed.instance.removal_held));
    assert!(held.protected.is_some());
    let healthy = Filter { healthy: true, ..Filter::default() };
    assert_eq!(held.answer(&healthy).count(), 14, "protected: all are answered");
    node.heartbeat(&instance("order", "i19")).await.unwrap();
    assert!(!view().instances[13].instance.removal_held);
    stage.within(60, "the next minute allows more", || view().instances.len() < 14).await;
    assert!(view().instances.iter().any(|listed| listed.id.as_str() == "i19"));
}

#[tokio::test]
async fn nothing_is_removed_in_the_first_minute() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    node.register(&order, &plain("a")).await.unwrap();
    stage.pass_seconds(55).await;
    assert_eq!(lines(&node.view(&order).unwrap()), ["a critical up"]);
    let gone = || node.view(&order).unwrap().instances.is_empty();
    stage.within(10, "the minute is over", gone).await;
}

#[tokio::test]
async fn settings_are_changed_by_whoever_has_read_them_last() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let order = service("order");
    let settings = |json: &str| {
        let raw: RawSettings = serde_json::from_str(json).unwrap();
        Settings::new(raw, Shares::default())
    };
    let zero = settings(r#"{"protect_threshold": 0}"#).unwrap();
    let first =
        node.set_settings(&order, &zero, Some(Revision::NEVER), &Author::default()).await.unwrap();
    let half = settings(r#"{"protect_threshold": 0.5}"#).unwrap();
    let late = node
        .set_settings(&order, &half, Some(Revision::NEVER), &Author::default())
        .await
        .unwrap_err();
    assert!(matches!(late, RegistryError::Changed { found, .. } if found == first.revision));
    assert_eq!(late.code(), Code::RevisionMoved);
    let (known, revision) = node.settings(&order).unwrap();
    assert_eq!((known.protect_threshold().basis_points(), revision), (0, first.revision));
    assert!(settings(r#"{"protect_treshold": 0}"#).is_err(), "a member nobody knows");
    assert!(
        settings(r#"{"checks": [{"name": "a", "kind": "tcp"}, {"name": "a", "kind": "tcp"}]}"#)
            .is_err()
    );
    let missing = node.settings(&service("stock")).unwrap_err();
    assert_eq!(missing.code(), Code::ServiceNotFound);
}
