//! Who holds what.

use std::time::Duration;

use super::stage::{World, client, group, interest, payment, publish};
use crate::centre::{Centre, State, Verdict};
use crate::keys::GroupRef;

/// What `node` says of a group: `node client state release` for each.
async fn listed(node: &Centre, group: &GroupRef) -> Vec<String> {
    let holders = node.holders(group).await.unwrap();
    let lines = holders.iter().flat_map(|(node, of_node)| {
        of_node
            .iter()
            .map(move |it| format!("{node} {} {} {}", it.client, it.state.as_str(), it.release))
    });
    lines.collect()
}

#[tokio::test]
async fn every_node_sees_who_holds_what_within_two_seconds() {
    for world in [World::memory(), World::embedded()] {
        let (n1, n2) = (world.node("n1").await, world.node("n2").await);
        publish(&n1, &payment(), &["a=1"]).await.unwrap();
        let a = n1.subscribe(interest("a", &[(payment(), Some(1))])).unwrap();
        let b = n2.subscribe(interest("b", &[(payment(), None)])).unwrap();
        world.stage.pass(Duration::from_millis(2_250)).await;
        let want = ["n1 a holding 1", "n2 b behind 0"];
        assert_eq!(listed(&n1, &payment()).await, want);
        assert_eq!(listed(&n2, &payment()).await, want);
        assert!(listed(&n1, &group("other")).await.is_empty());

        n2.report(&payment(), &client("b"), 1, &Verdict::Applied).unwrap();
        publish(&n1, &payment(), &["a=2"]).await.unwrap();
        let reason = "no such\nfield".to_owned();
        n1.report(&payment(), &client("a"), 2, &Verdict::Rejected { reason }).unwrap();
        world.stage.pass(Duration::from_millis(2_250)).await;
        assert_eq!(listed(&n2, &payment()).await, ["n1 a rejected 1", "n2 b behind 1"]);
        let holders = n2.holders(&payment()).await.unwrap();
        let of_n1 = holders.values().next().unwrap();
        assert_eq!(of_n1[0].reason.as_deref(), Some("no suchfield"));

        // Who goes is shown as gone for a while, then no more.
        drop(a);
        drop(b);
        world.stage.pass_seconds(63).await;
        assert_eq!(listed(&n2, &payment()).await, ["n1 a gone 1", "n2 b gone 1"]);
    }
}

#[tokio::test]
async fn who_is_gone_is_forgotten_and_what_a_dead_node_wrote_goes_with_it() {
    let world = World::memory();
    let (n1, n2) = (world.node("n1").await, world.node("n2").await);
    publish(&n1, &payment(), &["a=1"]).await.unwrap();
    n1.report(&payment(), &client("a"), 1, &Verdict::Applied).unwrap();
    let _b = n2.subscribe(interest("b", &[(payment(), Some(1))])).unwrap();
    world.stage.pass_seconds(5).await;
    assert_eq!(listed(&n2, &payment()).await, ["n1 a holding 1", "n2 b holding 1"]);
    world.stage.pass_seconds(600).await;
    assert_eq!(listed(&n2, &payment()).await, ["n2 b holding 1"]);
    n1.report(&payment(), &client("a"), 1, &Verdict::Applied).unwrap();
    world.stage.pass_seconds(3).await;
    assert_eq!(listed(&n2, &payment()).await.len(), 2);
    let (left, ()) = tokio::join!(n1.shutdown(Duration::from_secs(5)), world.stage.pass_seconds(1));
    assert_eq!(left, 0);
    assert_eq!(listed(&n2, &payment()).await, ["n2 b holding 1"]);
}

#[tokio::test]
async fn a_lost_lease_makes_a_node_write_everything_anew() {
    let world = World::memory();
    let (n1, n2) = (world.node("n1").await, world.node("n2").await);
    publish(&n1, &payment(), &["a=1"]).await.unwrap();
    let _a = n1.subscribe(interest("a", &[(payment(), Some(1))])).unwrap();
    world.stage.pass_seconds(3).await;
    assert_eq!(listed(&n2, &payment()).await.len(), 1);
    let key = payment().hold(&crate::name::NodeName::new("n1").unwrap(), 0);
    let got = world.stage.store.get(mainstay_store::Get::new(key)).await.unwrap();
    world.stage.store.revoke(got.entry.unwrap().lease.unwrap()).await.unwrap();
    assert!(listed(&n2, &payment()).await.is_empty());
    world.stage.pass_seconds(6).await;
    assert_eq!(listed(&n2, &payment()).await, ["n1 a holding 1"]);
}

#[tokio::test]
async fn many_clients_go_in_chunks_and_one_of_them_writes_one() {
    let world = World::memory();
    let (n1, n2) = (world.node("n1").await, world.node("n2").await);
    publish(&n1, &payment(), &["a=1"]).await.unwrap();
    for n in 0..450 {
        n1.report(&payment(), &client(&format!("c{n:03}")), 1, &Verdict::Applied).unwrap();
    }
    world.stage.pass_seconds(3).await;
    let holders = n2.holders(&payment()).await.unwrap();
    assert_eq!(holders.values().next().unwrap().len(), 450);
    let before = world.stage.store.status().await.unwrap().revision.get();
    n1.report(&payment(), &client("c007"), 1, &Verdict::Applied).unwrap();
    world.stage.pass_seconds(3).await;
    assert_eq!(world.stage.store.status().await.unwrap().revision.get(), before + 1);
    let states = n1.shared.local.lock().holders.counts();
    assert_eq!(states[0], (State::Holding, 450));
}
