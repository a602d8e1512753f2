//! A store that is away, or whose answers are lost.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::problem::Code;
use serde_json::json;

use super::stage::{World, agree, anna, by, canary, gets, interest, payment, publication, publish};
use crate::centre::{Centre, Options};
use crate::name::NodeName;
use crate::registry::tests::stage::{Fault, Faulty};

/// Does `act` while time passes.
async fn with_time<T>(world: &World, act: impl Future<Output = T>) -> T {
    let (done, ()) = tokio::join!(act, world.stage.pass(Duration::from_secs(8)));
    done
}

/// A node whose store fails when told to.
async fn node(world: &World) -> (Centre, Arc<Faulty>) {
    let faulty = Faulty::new(world.stage.store.clone());
    (world.node_on(faulty.clone(), "n1").await, faulty)
}

#[tokio::test]
async fn an_unknown_outcome_of_a_publication_is_resolved_by_reading_its_release() {
    for world in [World::memory(), World::embedded()] {
        // The content goes first, then the release: either may be what is lost.
        for (fault, skip) in
            [(Fault::Applied, 0), (Fault::Lost, 0), (Fault::Applied, 1), (Fault::Lost, 1)]
        {
            let (node, faulty) = node(&world).await;
            let group = super::stage::group(&format!("g{skip}{}", u8::from(fault == Fault::Lost)));
            publish(&node, &group, &["a=1"]).await.unwrap();
            faulty.set_after(skip, fault);
            let done = with_time(&world, publish(&node, &group, &["a=2"])).await.unwrap();
            assert_eq!((done.release, done.is_new), (2, true), "{fault:?} {skip}");
            assert_eq!(faulty.fault(), Fault::None, "it happened");
            assert_eq!(gets(&node, &group).await, "2: a=2");
            let history = node.history(&group, None, 10).await.unwrap();
            assert_eq!(history.len(), 2, "once, not twice: {fault:?} {skip}");
            let revision = node.shared.ground(&group).await.unwrap().written.get();
            assert_eq!(done.revision, revision);

            faulty.set(fault);
            let back = with_time(&world, node.roll_back(&group, 1, "", &anna())).await.unwrap();
            assert_eq!(back.release, 3, "{fault:?}");
            assert_eq!(node.history(&group, None, 10).await.unwrap().len(), 3);
            node.shutdown(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test]
async fn an_unknown_outcome_of_a_canary_s_step_is_resolved_by_reading_the_head() {
    for fault in [Fault::Applied, Fault::Lost] {
        let world = World::memory();
        let (node, faulty) = node(&world).await;
        publish(&node, &payment(), &["a=1"]).await.unwrap();
        let some = json!({ "items": { "a": { "content": "2" } }, "canary": { "percent": 1 } });
        node.publish(&payment(), &publication(some), &anna()).await.unwrap();
        faulty.set(fault);
        let wider = canary(json!({ "percent": 2 }));
        let head = with_time(&world, node.set_canary(&payment(), &wider, &anna())).await.unwrap();
        assert_eq!(head.canary.unwrap().percent.hundredths(), 200, "{fault:?}");
        faulty.set(fault);
        let head = with_time(&world, node.promote(&payment(), &anna())).await.unwrap();
        assert_eq!((head.release, head.canary), (2, None), "{fault:?}");
        assert_eq!(faulty.fault(), Fault::None);
    }
}

#[tokio::test]
async fn an_unknown_outcome_of_a_draft_is_resolved_by_reading_it() {
    for fault in [Fault::Applied, Fault::Lost] {
        let world = World::memory();
        let (node, faulty) = node(&world).await;
        let item = || serde_json::from_value(json!({ "content": "1" })).unwrap();
        faulty.set_after(1, fault);
        let group = payment();
        let bo = by("bo");
        let editing = node.edit_draft(&group, "a", Some(item()), &bo);
        with_time(&world, editing).await.unwrap();
        assert_eq!(node.drafts(&payment()).await.unwrap().len(), 1, "{fault:?}");
        faulty.set(fault);
        with_time(&world, node.remove_draft(&payment(), "a", &by("bo"))).await.unwrap();
        assert!(node.drafts(&payment()).await.unwrap().is_empty(), "{fault:?}");
        assert_eq!(faulty.fault(), Fault::None);
    }
}

#[tokio::test]
async fn while_the_store_is_away_what_is_in_force_is_still_pushed_and_known() {
    let world = World::memory();
    let (node, faulty) = node(&world).await;
    publish(&node, &payment(), &["a=1"]).await.unwrap();
    assert_eq!(gets(&node, &payment()).await, "1: a=1");
    faulty.set(Fault::Away);
    assert_eq!(node.head(&payment()).unwrap().release, 1);
    assert_eq!(gets(&node, &payment()).await, "1: a=1", "its contents are in memory");
    let mut told = node.subscribe(interest("x", &[(payment(), None)])).unwrap();
    assert_eq!(told.next().await.release, 1);
    let refused = with_time(&world, publish(&node, &payment(), &["a=2"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::StoreUnavailable);

    // Meanwhile another node goes on; this one learns of it when the store is back, though its
    // history is gone.
    let other = world.node("n2").await;
    for n in 2..6 {
        publish(&other, &payment(), &[&format!("a={n}")]).await.unwrap();
    }
    let revision = world.stage.store.status().await.unwrap().revision;
    world.stage.store.compact(revision).await.unwrap();
    faulty.set(Fault::None);
    let is_back = || node.head(&payment()).unwrap().release == 5;
    world.stage.within(15, "it has caught up", is_back).await;
    assert_eq!(told.next().await.release, 5);
    assert!(agree(&node, &other));
}

#[tokio::test]
async fn a_node_that_cannot_read_says_so_instead_of_nothing() {
    let world = World::memory();
    let faulty = Faulty::new(world.stage.store.clone());
    faulty.set(Fault::Away);
    let options = Options::new(NodeName::new("n1").unwrap());
    let timer = Arc::new(world.stage.clock.clone());
    let outbox = world.stage.outbox(faulty.clone());
    let node = Centre::start(faulty.clone(), timer, outbox, world.keyring.clone(), options);
    world.stage.pass_seconds(3).await;
    let code = |error: crate::centre::CentreError| error.code();
    assert_eq!(node.head(&payment()).map_err(code), Err(Code::ConfigLoading));
    assert!(node.subscribe(interest("x", &[])).is_err());
    let fetched = node.fetch(&payment(), None, false).await;
    assert_eq!(fetched.map_err(code), Err(Code::ConfigLoading));
    faulty.set(Fault::None);
    let is_there = || node.head(&payment()).map_err(code) == Err(Code::ConfigNotFound);
    world.stage.within(15, "it has read", is_there).await;
}
