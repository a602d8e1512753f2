//! What can be listed, however many names were used.

use std::time::Duration;

use mainstay_coord::lock::{Reason, Swept};
use mainstay_coord::name::{Gid, LockName};
use mainstay_coord::{Area, LockError, Place, Request, Timer};
use mainstay_store::{Batch, Key, Put, Store};

use crate::world::{World, exclusive, namespace};

fn named(area: Area, name: &str) -> Place {
    Place { area, namespace: namespace(), name: LockName::new(name).unwrap() }
}

/// Puts `value` at each of `keys`.
async fn put_all(world: &World, keys: impl IntoIterator<Item = Key>, value: &[u8]) {
    let keys: Vec<Key> = keys.into_iter().collect();
    for chunk in keys.chunks(100) {
        let puts = chunk.iter().map(|key| Put::new(key.clone(), value.to_vec()));
        let batch = puts.fold(Batch::new(), Batch::then);
        world.memory.apply(batch).await.unwrap();
    }
}

/// Notes of `count` places of `area` that nobody holds.
async fn released(world: &World, area: Area, count: usize) {
    let note = br#"{"v":1,"token":7,"reason":"released","unix_ms":0}"#;
    let keys = (0..count).map(|number| named(area, &format!("name-{number:05}")).last());
    put_all(world, keys, note).await;
}

#[tokio::test]
async fn places_held_by_transactions_are_found_behind_any_number_of_names() {
    let world = World::new();
    let node = world.node();
    released(&world, Area::Semaphore, 2_500).await;
    let a = node.session("a", 60).await;
    let zz = LockName::new("zz").unwrap();
    let gid = Gid::new("tx-1").unwrap();
    let permits = Request::permits(namespace(), zz.clone(), 1, 1).unwrap();
    let _permits = a.acquire(permits).await.unwrap().bind(&gid).await.unwrap();
    let candidate = Request::candidate(namespace(), zz, "a").unwrap();
    let _leading = a.acquire(candidate).await.unwrap().bind(&gid).await.unwrap();
    let locks = node.ground.locks();
    let (mut found, mut after) = (Vec::new(), None);
    for _page in 0..10 {
        let page = locks.bound(after.as_ref()).await.unwrap();
        found.extend(page.places.into_iter().map(|bound| bound.place));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, [named(Area::Semaphore, "zz"), named(Area::Election, "zz")]);
    assert_eq!(after, None, "it does not end");
}

#[tokio::test]
async fn a_held_lock_is_listed_behind_any_number_of_names() {
    let world = World::new();
    let node = world.node();
    released(&world, Area::Lock, 2_500).await;
    let name = LockName::new("zz").unwrap();
    let a = node.session("a", 60).await;
    let _held = a.acquire(Request::exclusive(namespace(), name)).await.unwrap();
    let page = node.ground.locks().list(Area::Lock, &namespace(), None).await.unwrap();
    assert_eq!((page.places.as_slice(), page.more), (&[named(Area::Lock, "zz")][..], false));
}

#[tokio::test]
async fn a_queue_takes_as_many_places_as_it_is_said_to() {
    let world = World::new();
    let node = world.node();
    let session = node.session("a", 600).await;
    let ask = || Request::permits(namespace(), exclusive().place().name.clone(), 1, 10_000);
    // One that came and went leaves a note beside the queue.
    session.acquire(ask().unwrap()).await.unwrap().release().await.unwrap();
    let held = session.acquire(ask().unwrap()).await.unwrap();
    let first = Key::try_from(world.keys("sem/shop/stock/q/").await.remove(0).as_str()).unwrap();
    let record = world.memory.get(mainstay_store::Get::new(first)).await.unwrap().entry.unwrap();
    let others =
        (1..9_999).map(|number| Key::new(format!("sem/shop/stock/q/{number:016x}~one")).unwrap());
    put_all(&world, others, &record.value).await;
    let last = session.acquire(ask().unwrap()).await.unwrap();
    assert_eq!(world.keys("sem/shop/stock/last").await.len(), 1);
    let error = session.acquire(ask().unwrap()).await.unwrap_err();
    assert!(matches!(error, LockError::Busy { queued: 10_001, .. }), "{error}");
    drop((held, last));
    world.pass(1_000).await;
}

/// A day and a bit.
const DAY_MS: u64 = 25 * 3_600 * 1_000;

#[tokio::test]
async fn how_unused_locks_were_held_is_forgotten_after_a_day_and_tokens_still_rise() {
    let world = World::new();
    let node = world.node();
    let (locks, now) = (node.ground.locks(), node.clock.unix_millis());
    let a = node.session("a", 600).await;
    let mut last = 0;
    for name in (0..60).map(|number| format!("order-{number}")) {
        let request = Request::exclusive(namespace(), LockName::new(name).unwrap());
        let held = a.acquire(request).await.unwrap();
        last = held.token().get();
        held.release().await.unwrap();
    }
    let used = Request::exclusive(namespace(), LockName::new("used").unwrap());
    a.acquire(used.clone()).await.unwrap().release().await.unwrap();
    let held = a.acquire(used).await.unwrap();
    let few = Swept { notes: 0, delays: 0 };
    assert_eq!(locks.sweep(now + DAY_MS / 2).await.unwrap(), few, "too young");
    assert_eq!(world.keys("lock/").await.len(), 60 + 2);
    assert_eq!(locks.sweep(now + DAY_MS).await.unwrap(), Swept { notes: 60, delays: 0 });
    assert_eq!(world.keys("lock/shop/order").await, [""; 0]);
    assert_eq!(world.keys("lock/shop/used/").await.len(), 2, "it is held");
    held.check().unwrap();
    let again = Request::exclusive(namespace(), LockName::new("order-59").unwrap());
    assert!(last < a.acquire(again).await.unwrap().token().get());
}

#[tokio::test]
async fn a_note_that_is_used_again_is_left_and_the_others_go() {
    let world = World::new();
    let node = world.node();
    released(&world, Area::Election, 1_100).await;
    // Its queue begins on the second page, its note is the last of the first one.
    let leader = named(Area::Election, "name-00999");
    let candidate = Request::candidate(namespace(), leader.name.clone(), "a").unwrap();
    let a = node.session("a", 600).await;
    let held = a.acquire(candidate).await.unwrap();
    let swept = node.ground.locks().sweep(node.clock.unix_millis() + DAY_MS).await.unwrap();
    assert_eq!(swept, Swept { notes: 1_099, delays: 0 });
    assert_eq!(world.keys("elect/").await.len(), 2);
    held.check().unwrap();
}

#[tokio::test]
async fn the_delay_after_a_holder_that_vanished_unseen_is_begun_and_not_forgotten() {
    let world = World::new();
    let (near, far) = (world.node(), world.node());
    let delayed = exclusive().lock_delay(Duration::from_secs(10)).unwrap();
    let (a, b) = (near.session("a", 5).await, far.session("b", 600).await);
    let held = a.acquire(delayed).await.unwrap();
    let (locks, place, now) = (far.ground.locks(), held.place().clone(), far.clock.unix_millis());
    // However long it was held: as long as it is, there is nothing to do.
    assert_eq!(locks.sweep(now + DAY_MS).await.unwrap(), Swept { notes: 0, delays: 0 });
    near.link.cut(true);
    world.pass(7_000).await;
    assert_eq!(locks.sweep(now + DAY_MS).await.unwrap(), Swept { notes: 0, delays: 1 });
    let past = locks.status(&place).await.unwrap().past.unwrap();
    assert_eq!((past.token, past.reason), (held.token(), Reason::Lost));
    let waiting = tokio::spawn(async move { b.acquire(exclusive()).await });
    world.pass(9_000).await;
    assert!(!waiting.is_finished());
    world.pass(1_500).await;
    waiting.await.unwrap().unwrap().release().await.unwrap();
}
