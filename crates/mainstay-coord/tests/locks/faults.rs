//! Requests that are given up at every point, and batches whose outcome nobody knows.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use mainstay_coord::name::Gid;
use mainstay_coord::{LockError, Request, Session, Wait};
use proptest::prelude::*;

use crate::world::{Fate, Node, World, exclusive, lock_name, namespace, settle, shared};

/// Polls `call` `times` times, letting everything else run in between, then drops it. Returns
/// whether it ended before.
async fn give_up_after<F: Future>(times: usize, call: F) -> Option<F::Output> {
    let mut call = pin!(call);
    for _poll in 0..times {
        let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Nobody holds or waits any more, and another session can have it.
async fn is_free(world: &World, node: &Node, at: &str) {
    node.link.heal();
    world.pass(2_000).await;
    let left = world.keys("lock/shop/stock/q/").await;
    assert!(left.is_empty(), "{at}: {left:?}");
    let other = node.session("other", 15).await;
    let held = other.acquire(exclusive().wait(Wait::Try)).await;
    held.unwrap_or_else(|error| panic!("{at}: {error}")).release().await.unwrap();
    other.end().await.unwrap();
}

#[tokio::test]
async fn a_request_given_up_at_any_point_leaves_nothing_in_the_queue() {
    let mut finished = 0;
    for times in 0..40 {
        let world = World::new();
        let node = world.node();
        let a = node.session("a", 15).await;
        let held = give_up_after(times, a.acquire(exclusive())).await;
        finished += usize::from(held.is_some());
        drop(held);
        is_free(&world, &node, &format!("after {times} polls")).await;
        a.check().unwrap();
    }
    assert!((1..40).contains(&finished), "{finished} of 40 were granted");
}

#[tokio::test]
async fn a_waiter_given_up_at_any_point_lets_the_next_one_pass() {
    for times in 0..40 {
        let world = World::new();
        let node = world.node();
        let (a, b) = (node.session("a", 15).await, node.session("b", 15).await);
        let held = a.acquire(exclusive()).await.unwrap();
        // Released while the other is being given up, so that the grant races with it.
        let releasing = tokio::spawn(async move {
            for _turn in 0..20 {
                tokio::task::yield_now().await;
            }
            held.release().await
        });
        drop(give_up_after(times, b.acquire(exclusive())).await);
        releasing.await.unwrap().unwrap();
        is_free(&world, &node, &format!("after {times} polls")).await;
    }
}

#[tokio::test]
async fn a_release_given_up_at_any_point_goes_on() {
    for times in 0..20 {
        let world = World::new();
        let node = world.node();
        let a = node.session("a", 15).await;
        let held = a.acquire(exclusive()).await.unwrap();
        drop(give_up_after(times, held.release()).await);
        is_free(&world, &node, &format!("after {times} polls")).await;
    }
}

#[tokio::test]
async fn a_binding_given_up_at_any_point_is_bound_or_free() {
    for times in 0..20 {
        let world = World::new();
        let node = world.node();
        let a = node.session("a", 15).await;
        let held = a.acquire(exclusive()).await.unwrap();
        let gid = Gid::new("tx").unwrap();
        drop(give_up_after(times, held.bind(&gid)).await);
        world.pass(2_000).await;
        let locks = node.ground.locks();
        for bound in locks.bound(None).await.unwrap().places {
            locks.finish(&bound).await.unwrap();
        }
        is_free(&world, &node, &format!("after {times} polls")).await;
    }
}

#[tokio::test]
async fn a_session_whose_opening_is_given_up_ends_by_itself() {
    for times in 0..10 {
        let world = World::new();
        let node = world.node();
        drop(give_up_after(times, node.session("a", 2)).await);
        world.pass(4_000).await;
        let left = world.keys("ses/").await;
        assert!(left.is_empty(), "after {times} polls: {left:?}");
    }
}

/// Asks, holds and gives back while batch number `at` meets `fate`, for each of the first ones.
async fn everything_under(fate: Fate, request: fn() -> Request) {
    for at in 0..8 {
        let world = World::new();
        let node = world.node();
        let a = node.session("a", 15).await;
        let before = std::iter::repeat_n(Fate::Arrives, at);
        node.link.script(before.chain([fate]));
        let asking = tokio::spawn(async move { (a.acquire(request()).await, a) });
        world.pass(1_000).await;
        let (held, a) = asking.await.unwrap();
        let held = held.unwrap_or_else(|error| panic!("batch {at} {fate:?}: {error}"));
        assert_eq!(held.count(), 1, "batch {at} {fate:?}");
        held.check().unwrap();
        let releasing = tokio::spawn(held.release());
        world.pass(1_000).await;
        assert_eq!(releasing.await.unwrap().unwrap().count, 0, "batch {at} {fate:?}");
        // Whatever was late arrives now, when nobody expects it.
        node.link.deliver().await;
        settle().await;
        is_free(&world, &node, &format!("batch {at} {fate:?}")).await;
        a.check().unwrap();
    }
}

#[tokio::test]
async fn an_unknown_outcome_becomes_known_and_leaves_no_ghost() {
    for fate in [Fate::AnswerLost, Fate::Lost, Fate::Late] {
        everything_under(fate, exclusive).await;
        everything_under(fate, shared).await;
        everything_under(fate, || {
            exclusive().lock_delay(std::time::Duration::from_secs(3)).unwrap()
        })
        .await;
    }
}

#[tokio::test]
async fn a_late_batch_cannot_put_back_a_request_that_was_resolved_and_given_back() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    node.link.script([Fate::Late]);
    let asking = tokio::spawn(async move { (a.acquire(exclusive()).await, a) });
    world.pass(1_000).await;
    let (held, a) = asking.await.unwrap();
    held.unwrap().release().await.unwrap();
    node.link.deliver().await;
    assert_eq!(world.keys("lock/shop/stock/q/").await, [""; 0]);
    a.check().unwrap();
}

#[tokio::test]
async fn a_request_that_stays_unknown_says_so_and_is_put_away_when_the_store_is_back() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 60).await;
    node.link.script([Fate::AnswerLost]);
    let asking = tokio::spawn(async move { (a.acquire(exclusive()).await, a) });
    // The answer is lost, and then the whole store.
    while node.link.applies() < 2 {
        tokio::task::yield_now().await;
    }
    node.link.cut(true);
    world.pass(7_000).await;
    let (held, a) = asking.await.unwrap();
    assert!(matches!(held, Err(LockError::Store(_))), "{held:?}");
    assert_eq!(world.keys("lock/shop/stock/q/").await.len(), 1);
    node.link.cut(false);
    is_free(&world, &node, "the store is back").await;
    a.check().unwrap();
}

#[tokio::test]
async fn a_request_asked_for_again_is_not_put_away_with_the_first_time() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 60).await;
    let request = exclusive();
    node.link.script([Fate::AnswerLost]);
    let (session, first) = (a.clone(), request.clone());
    let asking = tokio::spawn(async move { session.acquire(first).await });
    while node.link.applies() < 2 {
        tokio::task::yield_now().await;
    }
    node.link.cut(true);
    world.pass(7_000).await;
    let failed = asking.await.unwrap();
    assert!(matches!(failed, Err(LockError::Store(_))), "{failed:?}");
    // Asked for again before what may be left of the first time could be put away.
    node.link.cut(false);
    let held = a.acquire(request).await.unwrap();
    world.pass(10_000).await;
    held.check().unwrap();
    assert_eq!(held.count(), 1);
    assert_eq!(world.keys("lock/shop/stock/q/").await.len(), 1, "it was put away");
    held.release().await.unwrap();
    is_free(&world, &node, "given back").await;
}

/// One step of a session's work with one lock.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    GiveBack,
    Drop,
}

async fn play(a: &Session, steps: &[Step]) {
    let mut held = Vec::new();
    for step in steps {
        match step {
            Step::Ask => {
                let request = Request::exclusive(namespace(), lock_name());
                held.extend(a.acquire(request.wait(Wait::Try)).await.ok());
            }
            Step::GiveBack => {
                if let Some(held) = held.pop() {
                    drop(held.release().await);
                }
            }
            Step::Drop => drop(held.pop()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever becomes of the batches of a session that takes a lock several times and gives it
    /// back in whatever way: in the end every count is given back.
    #[test]
    fn every_count_is_given_back(
        steps in prop::collection::vec(
            prop_oneof![Just(Step::Ask), Just(Step::GiveBack), Just(Step::Drop)], 1..8),
        fates in prop::collection::vec(
            prop_oneof![
                4 => Just(Fate::Arrives), 1 => Just(Fate::AnswerLost),
                1 => Just(Fate::Lost), 1 => Just(Fate::Late)
            ], 0..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let node = world.node();
            let a = node.session("a", 60).await;
            node.link.script(fates);
            let session = a.clone();
            let playing = tokio::spawn(async move { play(&session, &steps).await });
            while !playing.is_finished() {
                world.pass(500).await;
                node.link.deliver().await;
            }
            world.pass(10_000).await;
            node.link.deliver().await;
            world.pass(10_000).await;
            is_free(&world, &node, "in the end").await;
            a.check().unwrap();
        });
    }
}
