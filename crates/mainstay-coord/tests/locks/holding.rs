//! What a holder believes, and how it hears that it holds no longer.

use std::time::Duration;

use mainstay_coord::lock::Reason;
use mainstay_coord::{LockError, Loss, Standing, Wait};
use mainstay_core::Clock;
use mainstay_store::{Batch, Compare, Key, Put, Store};

use crate::world::{World, exclusive, settle};

fn write(value: &str) -> Batch {
    Batch::new().then(Put::new(Key::try_from("test/register").unwrap(), value.to_owned()))
}

#[tokio::test]
async fn a_session_is_renewed_for_as_long_as_it_is_wanted() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let held = a.acquire(exclusive()).await.unwrap();
    for _minute in 0..5 {
        world.pass(60_000).await;
        held.check().unwrap();
        assert!(Duration::from_secs(8) <= held.remaining().unwrap());
    }
}

#[tokio::test]
async fn a_holder_that_is_cut_off_stops_before_anybody_else_begins() {
    let world = World::new();
    let (near, far) = (world.node(), world.node());
    let (a, b) = (near.session("a", 15).await, far.session("b", 15).await);
    let held = a.acquire(exclusive()).await.unwrap();
    let waiting = tokio::spawn(async move { b.acquire(exclusive()).await });
    world.pass(5_000).await;
    assert_eq!(a.standing(), Standing::Held);
    near.link.cut(true);
    world.pass(5_000).await;
    // Renewed at 5 s: believed until 18.5 s. The renewal at 10 s failed at once.
    assert!(held.is_in_jeopardy());
    held.check().unwrap();
    let lost = tokio::spawn(async move { (held.lost().await, held) });
    world.pass(8_400).await;
    assert!(!lost.is_finished(), "told too early");
    world.pass(100).await;
    let (loss, held) = lost.await.unwrap();
    assert_eq!(loss, Loss::Expired);
    let stopped = near.clock.now();
    assert_eq!(Duration::from_nanos(stopped.as_nanos()), Duration::from_millis(18_500));
    assert!(!waiting.is_finished());
    while !waiting.is_finished() {
        world.pass(100).await;
    }
    let next = waiting.await.unwrap().unwrap();
    let between = world.time.now().since(stopped);
    assert!(Duration::from_millis(1_500) <= between, "{between:?}");
    assert!(between <= Duration::from_millis(2_600), "{between:?}");
    assert!(held.token() < next.token());

    // The way is there again; the session is not, and nothing of it comes back.
    near.link.cut(false);
    world.pass(5_000).await;
    assert_eq!(held.check().unwrap_err(), LockError::Lost(Loss::Expired));
    next.check().unwrap();
}

#[tokio::test]
async fn a_holder_that_stood_still_has_lost_before_it_does_any_work() {
    let world = World::new();
    let (near, far) = (world.node(), world.node());
    let (a, b) = (near.session("a", 15).await, far.session("b", 15).await);
    let held = a.acquire(exclusive()).await.unwrap();
    world.pass(6_000).await;
    near.pause();
    let waiting = tokio::spawn(async move { b.acquire(exclusive()).await });
    world.pass(34_000).await;
    let next = waiting.await.unwrap().unwrap();
    near.wake();
    assert_eq!(held.check().unwrap_err(), LockError::Lost(Loss::Expired));
    assert_eq!(held.remaining(), None);
    assert_eq!(held.apply(write("late")).await.unwrap_err(), LockError::Lost(Loss::Expired));
    next.check().unwrap();
}

#[tokio::test]
async fn a_write_that_was_under_way_when_the_lock_was_lost_is_refused_by_the_store() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let held = a.acquire(exclusive()).await.unwrap();
    assert!(held.apply(write("1")).await.unwrap().succeeded);
    let never = Compare::missing(&Key::try_from("test/register").unwrap());
    assert!(!held.apply(write("2").when(never)).await.unwrap().succeeded, "its own compare");
    held.check().unwrap();

    // Its place goes; the holder has not heard of it.
    node.link.deaf(true);
    let place = held.place().clone();
    world.node().force_release(&place, held.token()).await.unwrap();
    held.check().unwrap();
    assert_eq!(held.apply(write("3")).await.unwrap_err(), LockError::Lost(Loss::Revoked));
    assert_eq!(held.check().unwrap_err(), LockError::Lost(Loss::Revoked));
    let mut registry = prometheus_client::registry::Registry::with_prefix("mainstay");
    node.ground.figures().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("mainstay_fencing_rejections_total 1"), "{text}");
    assert!(text.contains("mainstay_lock_lost_total{reason=\"revoked\"} 1"), "{text}");
}

#[tokio::test]
async fn a_session_that_is_revoked_is_told_at_once() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let held = a.acquire(exclusive()).await.unwrap();
    settle().await;
    world.memory.revoke(a.id()).await.unwrap();
    settle().await;
    assert_eq!(held.check().unwrap_err(), LockError::Lost(Loss::SessionGone));
    assert_eq!(a.check().unwrap_err(), Loss::SessionGone);
}

#[tokio::test]
async fn a_lock_that_was_taken_is_missed_by_the_next_renewal_when_the_watch_hangs() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let held = a.acquire(exclusive()).await.unwrap();
    node.link.deaf(true);
    let place = held.place().clone();
    let other = world.node();
    other.force_release(&place, held.token()).await.unwrap();
    world.pass(4_900).await;
    held.check().unwrap();
    world.pass(200).await;
    assert_eq!(held.check().unwrap_err(), LockError::Lost(Loss::Revoked));
    a.check().unwrap();
}

#[tokio::test]
async fn after_a_holder_has_vanished_the_next_waits_for_the_delay_it_asked_for() {
    let world = World::new();
    let (near, far) = (world.node(), world.node());
    let delayed = || exclusive().lock_delay(Duration::from_secs(10)).unwrap();
    let (a, b) = (near.session("a", 5).await, far.session("b", 5).await);
    let held = a.acquire(delayed()).await.unwrap();
    let token = held.token();
    near.link.cut(true);
    world.pass(7_000).await;
    assert_eq!(world.keys("lock/shop/stock/q/").await, [""; 0], "it has vanished");
    // Nobody watched it vanish, and still the delay is kept.
    let error = b.acquire(exclusive().wait(Wait::Try)).await.unwrap_err();
    assert!(matches!(error, LockError::Busy { holder: None, .. }), "{error:?}");
    let began = world.time.now();
    let waiting = tokio::spawn(async move { b.acquire(delayed()).await });
    world.pass(9_000).await;
    assert!(!waiting.is_finished());
    let place = exclusive().place().clone();
    let status = far.ground.locks().status(&place).await.unwrap();
    let past = status.past.unwrap();
    assert!(status.is_delayed);
    assert_eq!((past.token, past.reason), (token, Reason::Lost));
    world.pass(1_300).await;
    let next = waiting.await.unwrap().unwrap();
    assert!(Duration::from_secs(10) <= world.time.now().since(began));
    // Given back in order: no delay.
    next.release().await.unwrap();
    let c = far.session("c", 5).await;
    c.acquire(delayed().wait(Wait::Try)).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_holder_without_a_delay_leaves_none() {
    let world = World::new();
    let (near, far) = (world.node(), world.node());
    let (a, b) = (near.session("a", 5).await, far.session("b", 5).await);
    let _held = a.acquire(exclusive()).await.unwrap();
    near.link.cut(true);
    world.pass(7_000).await;
    b.acquire(exclusive().wait(Wait::Try)).await.unwrap().release().await.unwrap();
}
