//! A store that is away while this process shuts down, and renewals that lost something.

use std::time::Duration;

use mainstay_coord::name::LockName;
use mainstay_coord::{Credential, LockError, Loss, Request};
use mainstay_store::{Batch, Op, Store};

use crate::world::{Fate, Node, World, exclusive, namespace, owner, settle};

/// What a shutdown waits for at most: by the real clock, while the one of the node stands still.
const GRACE: Duration = Duration::from_secs(1);

async fn far_session(node: &Node) -> Credential {
    let ttl = Duration::from_mins(10);
    node.ground.sessions().open(owner("far"), ttl).await.unwrap().credential
}

#[tokio::test]
async fn a_waiter_that_cannot_read_the_queue_ends_with_its_process() {
    let world = World::new();
    let (far, node) = (world.node(), world.node());
    let held = far.session("a", 600).await.acquire(exclusive()).await.unwrap();
    let own = far_session(&node).await;
    let locks = node.ground.locks();
    let waiting = tokio::spawn(async move { locks.acquire(&own, exclusive()).await });
    settle().await;
    // It hears that it is its turn, and the store is away from then on.
    node.link.cut(true);
    node.link.deaf(false);
    held.release().await.unwrap();
    settle().await;
    assert!(!waiting.is_finished());
    assert_eq!(node.ground.shutdown(GRACE).await, 0);
    let answer = waiting.await.unwrap();
    assert!(matches!(answer, Err(LockError::Stopped | LockError::Store(_))), "{answer:?}");
}

#[tokio::test]
async fn what_is_still_to_be_put_away_ends_with_its_process() {
    let world = World::new();
    let node = world.node();
    let own = far_session(&node).await;
    let before = node.link.applies();
    node.link.script([Fate::AnswerLost]);
    let locks = node.ground.locks();
    let asking = tokio::spawn(async move { locks.acquire(&own, exclusive()).await });
    while node.link.applies() == before {
        tokio::task::yield_now().await;
    }
    node.link.cut(true);
    world.pass(7_000).await;
    let answer = asking.await.unwrap();
    assert!(matches!(answer, Err(LockError::Store(_))), "{answer:?}");
    // From now on it is put away, which takes until the store is back.
    assert_eq!(node.ground.shutdown(GRACE).await, 0);
}

#[tokio::test]
async fn a_grant_that_nobody_took_ends_with_its_process() {
    let world = World::new();
    let node = world.node();
    let own = far_session(&node).await;
    let locks = node.ground.locks();
    let asking = tokio::spawn(async move { locks.acquire(&own, exclusive()).await });
    // Its place is in the queue and it is its turn; whoever asked goes before it hears.
    while world.keys("lock/shop/stock/q/").await.is_empty() {
        tokio::task::yield_now().await;
    }
    asking.abort();
    node.link.cut(true);
    settle().await;
    assert_eq!(node.ground.shutdown(GRACE).await, 0);
}

#[tokio::test]
async fn what_was_lost_costs_later_renewals_nothing() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 2).await;
    let mut held = Vec::new();
    for number in 0..20 {
        let name = LockName::new(format!("lock-{number}")).unwrap();
        held.push(a.acquire(Request::exclusive(namespace(), name)).await.unwrap());
    }
    // One is taken while no watch tells of it.
    node.link.deaf(true);
    let taken = world.keys("lock/shop/lock-7/q/").await.remove(0);
    let delete = Op::delete(&taken.as_str().try_into().unwrap());
    world.memory.apply(Batch::new().then(delete)).await.unwrap();
    let mut batches = Vec::new();
    for _renewal in 0..3 {
        let before = node.link.applies();
        world.pass(700).await;
        batches.push(node.link.applies() - before);
    }
    assert_eq!(held[7].check().unwrap_err(), LockError::Lost(Loss::Revoked));
    assert_eq!(batches, [1, 1, 1], "batches a renewal");
    held[8].check().unwrap();
}
