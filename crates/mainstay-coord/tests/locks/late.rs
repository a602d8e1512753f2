//! Batches of which nothing is known, and what must not come of them afterwards.

use std::time::Duration;

use mainstay_coord::lock::Released;
use mainstay_coord::name::RequestId;
use mainstay_coord::{Credential, Grant, LockError, Wait};
use mainstay_store::{Error, Store};

use crate::world::{Fate, Node, World, exclusive, owner, settle};

const QUEUE: &str = "lock/shop/stock/q/";

/// A session of a holder elsewhere, who does not renew it, and the lock under it.
async fn far_holder(node: &Node, ttl_seconds: u64) -> (Credential, Grant) {
    let ttl = Duration::from_secs(ttl_seconds);
    let own = node.ground.sessions().open(owner("far"), ttl).await.unwrap().credential;
    let grant = node.ground.locks().acquire(&own, exclusive()).await.unwrap();
    (own, grant)
}

#[tokio::test]
async fn a_lock_delay_is_kept_though_nobody_knows_whether_it_began() {
    for fate in [Fate::AnswerLost, Fate::Lost, Fate::Late] {
        let world = World::new();
        let (near, far) = (world.node(), world.node());
        let (a, b) = (near.session("a", 5).await, far.session("b", 60).await);
        let delayed = exclusive().lock_delay(Duration::from_secs(10)).unwrap();
        let _held = a.acquire(delayed).await.unwrap();
        near.link.cut(true);
        world.pass(7_000).await;
        assert_eq!(world.keys(QUEUE).await, [""; 0], "it has vanished");
        // The first batch puts the place into the queue, the second lets the delay begin.
        far.link.script([Fate::Arrives, fate]);
        let waiting = tokio::spawn(async move { b.acquire(exclusive()).await });
        settle().await;
        far.link.deliver().await;
        world.pass(9_000).await;
        assert!(!waiting.is_finished(), "{fate:?}: no delay");
        world.pass(2_500).await;
        waiting.await.unwrap().unwrap().release().await.unwrap();
    }
}

#[tokio::test]
async fn a_late_batch_cannot_count_a_request_that_was_put_away() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 60).await;
    let held = a.acquire(exclusive()).await.unwrap();
    let before = node.link.applies();
    // The first batch finds the session's place, the second counts it once more.
    node.link.script([Fate::Arrives, Fate::Late]);
    let asking = tokio::spawn(async move { (a.acquire(exclusive()).await, a) });
    while node.link.applies() < before + 2 {
        tokio::task::yield_now().await;
    }
    node.link.cut(true);
    world.pass(7_000).await;
    let (again, _session) = asking.await.unwrap();
    assert!(matches!(again, Err(LockError::Store(_))), "{again:?}");
    node.link.cut(false);
    world.pass(2_000).await;
    node.link.deliver().await;
    assert_eq!(held.release().await.unwrap().count, 0);
    assert_eq!(world.keys(QUEUE).await, [""; 0]);
}

#[tokio::test]
async fn giving_back_by_the_id_of_a_request_gives_back() {
    let world = World::new();
    let node = world.node();
    let (own, grant) = far_holder(&node, 15).await;
    let (locks, place) = (node.ground.locks(), exclusive().place().clone());
    let id = |text: &str| RequestId::new(text).unwrap();
    let two = locks.acquire(&own, exclusive().id(id("two"))).await.unwrap();
    assert_eq!((two.count, two.token), (2, grant.token));
    for _repeated in 0..2 {
        let released = locks.release(&own, &place, grant.token, &id("two")).await.unwrap();
        assert_eq!(released, Released { count: 1 });
    }
    // It is still known as a request that was counted.
    let again = locks.acquire(&own, exclusive().id(id("two"))).await.unwrap();
    assert_eq!(again.count, 1);
    let released = locks.release(&own, &place, grant.token, &id("three")).await.unwrap();
    assert_eq!(released, Released { count: 0 });
    assert_eq!(world.keys(QUEUE).await, [""; 0]);
}

#[tokio::test]
async fn what_was_lost_while_it_was_given_back_is_not_said_to_be_given_back() {
    let world = World::new();
    let node = world.node();
    for is_lost in [true, false] {
        let (own, grant) = far_holder(&node, 60).await;
        let (session, before) = (own.session, node.link.applies());
        node.link.script([if is_lost { Fate::Lost } else { Fate::AnswerLost }]);
        let locks = node.ground.locks();
        let giving_back = tokio::spawn(async move {
            let op = RequestId::random();
            locks.release(&own, exclusive().place(), grant.token, &op).await
        });
        while node.link.applies() == before {
            tokio::task::yield_now().await;
        }
        // The session ends before the next try.
        world.memory.revoke(session).await.unwrap();
        world.pass(1_000).await;
        let released = giving_back.await.unwrap();
        if is_lost {
            assert_eq!(released, Err(LockError::Store(Error::OutcomeUnknown)));
        } else {
            assert_eq!(released, Ok(Released { count: 0 }));
        }
    }
    let next = node.session("b", 15).await.acquire(exclusive().wait(Wait::Try)).await;
    next.unwrap().release().await.unwrap();
}
