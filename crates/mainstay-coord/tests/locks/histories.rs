//! Many contend for one lock while holders vanish and requests are given up; what the store saw
//! and what the callers saw is checked afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use mainstay_coord::keys::Slot;
use mainstay_coord::{Held, LockError, Wait};
use mainstay_core::ManualClock;
use mainstay_sim::check::locks::{
    Call, Hold, What, calls_are_linearizable, holds_do_not_overlap, writes_do_not_go_back,
};
use mainstay_store::embedded::{Options, Ticks};
use mainstay_store::{Batch, Compare, Embedded, Key, Memory, Put, Revision, Store};
use parking_lot::Mutex;

use crate::log::log;
use crate::world::{Node, World, exclusive};

const WORKERS: u64 = 6;
const ROUNDS: u32 = 15;

/// What the callers saw.
#[derive(Default)]
struct Seen {
    time: AtomicI64,
    calls: Mutex<Vec<Call>>,
    /// Key, create revision, token, and the revision of the grant.
    grants: Mutex<Vec<(Key, Revision, u64, Revision)>>,
    released: AtomicI64,
    vanished: AtomicI64,
    given_up: AtomicI64,
    refused: AtomicI64,
}

impl Seen {
    fn now(&self) -> i64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    fn call(&self, client: u64, what: What, called: i64, returned: i64) {
        let client = u32::try_from(client).unwrap();
        self.calls.lock().push(Call { client, what, called, returned });
    }
}

/// A store, and the clocks that are turned together with it.
struct Stage {
    store: Arc<dyn Store>,
    time: ManualClock,
    nodes: Mutex<Vec<Node>>,
    over: AtomicBool,
}

impl Stage {
    fn node(&self) -> Node {
        let node = Node::over(Arc::clone(&self.store));
        self.nodes.lock().push(node.clone());
        node
    }

    /// Lets time pass until all is over: 50 ms of it each millisecond.
    async fn turn(&self, tick: impl AsyncFn()) {
        let step = Duration::from_millis(50);
        while !self.over.load(Ordering::SeqCst) {
            self.time.advance(step);
            tick().await;
            self.nodes.lock().iter().for_each(|node| node.clock.advance(step));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn register() -> Key {
    Key::try_from("test/register").unwrap()
}

fn write(token: u64) -> Batch {
    Batch::new().then(Put::new(register(), token.to_string()))
}

/// A number from 0 to `below`, from a seed (Marsaglia's xorshift, 2003).
fn draw(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed % below
}

async fn work(stage: Arc<Stage>, seen: Arc<Seen>, client: u64) {
    let mut seed = client * 7_919 + 1;
    let mut node = stage.node();
    let mut session = node.session("worker", 5).await;
    for _round in 0..ROUNDS {
        if session.check().is_err() {
            session = node.session("worker", 5).await;
        }
        let called = seen.now();
        let request = exclusive().wait(Wait::AtMost(Duration::from_mins(1)));
        let held = if draw(&mut seed, 5) == 0 {
            let patience = Duration::from_millis(draw(&mut seed, 8));
            let asking = tokio::time::timeout(patience, session.acquire(request)).await;
            let Ok(held) = asking else {
                seen.given_up.fetch_add(1, Ordering::SeqCst);
                // What was given up is put away in its own time. Until then the same session would
                // join it and hold with the same token, which the checker has no word for.
                session = node.session("worker", 5).await;
                continue;
            };
            held
        } else {
            session.acquire(request).await
        };
        let held = match held {
            Ok(held) => held,
            Err(LockError::Store(error)) => panic!("{error}"),
            Err(_lost_or_late) => continue,
        };
        let token = held.token().get();
        let granted_at = seen.now();
        seen.call(client, What::Acquire(token), called, granted_at);
        let slot = Slot { session: session.id(), request: None };
        let grant = (held.place().slot(&slot), Revision::new(token), token, held.revision());
        seen.grants.lock().push(grant);
        drop(held.apply(write(token)).await);
        if draw(&mut seed, 8) == 0 {
            // It is never heard of again, but for a write that is still under way.
            seen.call(client, What::Release(token), granted_at, i64::MAX);
            seen.vanished.fetch_add(1, Ordering::SeqCst);
            node.link.cut(true);
            write_late(&stage, &seen, held).await;
            node = stage.node();
            session = node.session("worker", 5).await;
            continue;
        }
        let returning = seen.now();
        let result = held.release().await;
        let returned = if result.is_ok() { seen.now() } else { i64::MAX };
        seen.call(client, What::Release(token), returning, returned);
        seen.released.fetch_add(i64::from(result.is_ok()), Ordering::SeqCst);
    }
}

/// A write of a holder that has vanished arrives after somebody else's.
async fn write_late(stage: &Stage, seen: &Seen, held: Held) {
    let token = held.token().get();
    held.lost().await;
    let mut last = token;
    while last <= token && !stage.over.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let place = held.place().clone();
        let status = stage.node().ground.locks().status(&place).await.unwrap();
        let first = status.line.holders().first().map(|holder| holder.token().get());
        last = match first {
            None => break,
            Some(first) => first,
        };
    }
    let batch = write(token).when(held.guard());
    let applied = stage.store.apply(batch).await.unwrap();
    assert!(!applied.succeeded || last == token, "a stale write was taken");
    seen.refused.fetch_add(i64::from(!applied.succeeded), Ordering::SeqCst);
}

async fn contend(store: Arc<dyn Store>, time: ManualClock, tick: impl AsyncFn()) {
    let nodes = Mutex::default();
    let stage = Arc::new(Stage { store, time, nodes, over: AtomicBool::new(false) });
    let seen = Arc::new(Seen::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|client| tokio::spawn(work(Arc::clone(&stage), Arc::clone(&seen), client)))
        .collect();
    let all = async {
        for worker in workers {
            worker.await.unwrap();
        }
        stage.over.store(true, Ordering::SeqCst);
    };
    tokio::join!(stage.turn(tick), all);
    check(&stage, &seen).await;
}

async fn check(stage: &Stage, seen: &Seen) {
    let place = exclusive().place().clone();
    let log = log(&*stage.store, place.queue(), &register()).await;
    let still_there = Revision::new(u64::MAX);
    let grants = seen.grants.lock().clone();
    let holds: Vec<Hold> = grants
        .into_iter()
        .map(|(key, created, token, granted)| {
            let ended = log.ends.get(&(key, created)).copied().unwrap_or(still_there);
            Hold { token, granted, ended }
        })
        .collect();
    let count = |counter: &AtomicI64| counter.load(Ordering::SeqCst);
    let told = format!(
        "{} holds, {} released, {} vanished, {} given up, {} late writes refused",
        holds.len(),
        count(&seen.released),
        count(&seen.vanished),
        count(&seen.given_up),
        count(&seen.refused),
    );
    holds_do_not_overlap(holds).unwrap();
    writes_do_not_go_back(&log.register).unwrap();
    calls_are_linearizable(&seen.calls.lock()).unwrap();
    let counters = [&seen.released, &seen.vanished, &seen.given_up, &seen.refused];
    assert!(counters.into_iter().all(|counter| count(counter) > 0), "a dull history: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_over_the_store_in_memory_are_right() {
    let time = ManualClock::default();
    let memory = Memory::new(time.clone());
    let store = Arc::new(memory.clone());
    contend(store, time, async || memory.tick()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_over_the_embedded_store_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let time = ManualClock::default();
    let options = Options { ticks: Ticks::ByHand, ..Options::new(folder.path()) };
    let store = Arc::new(Embedded::open(options, time.clone()).unwrap());
    let ticking = Arc::clone(&store);
    contend(store, time, async move || ticking.tick().await).await;
}

/// A holder is stopped for longer than its lease, and then writes; with the guard of its lock, or
/// without. Returns the tokens of the writes that were taken, in order.
async fn stop_and_write(fenced: bool) -> Vec<u64> {
    let world = World::new();
    let (near, far) = (world.node(), world.node());
    let (a, b) = (near.session("a", 15).await, far.session("b", 15).await);
    let held = a.acquire(exclusive()).await.unwrap();
    held.apply(write(held.token().get())).await.unwrap();
    // Everything the holder has to do is done but for sending its write: here it is stopped.
    let mut late = write(held.token().get());
    if fenced {
        late = late.when(held.guard());
    }
    near.pause();
    let waiting = tokio::spawn(async move { b.acquire(exclusive()).await });
    world.pass(30_000).await;
    let next = waiting.await.unwrap().unwrap();
    next.apply(write(next.token().get())).await.unwrap();
    near.wake();
    let applied = near.link.apply(late).await.unwrap();
    assert_eq!(applied.succeeded, !fenced);
    log(&world.memory, exclusive().place().queue(), &register()).await.register
}

#[tokio::test]
async fn a_fenced_register_never_goes_back_and_an_unfenced_one_does() {
    writes_do_not_go_back(&stop_and_write(true).await).unwrap();
    writes_do_not_go_back(&stop_and_write(false).await).unwrap_err();
}

/// A lock as it should not be: looks whether the key is free, then takes it.
async fn naive(store: &dyn Store, key: &Key, value: &str) -> Option<Revision> {
    let free = Batch::new().when(Compare::missing(key));
    if !store.apply(free).await.unwrap().succeeded {
        return None;
    }
    tokio::task::yield_now().await;
    let taken = Batch::new().then(Put::new(key.clone(), value.to_owned()));
    Some(store.apply(taken).await.unwrap().revision)
}

#[tokio::test]
async fn the_checker_catches_a_lock_that_looks_before_it_takes() {
    let memory = Memory::new(ManualClock::default());
    let key = Key::try_from("naive").unwrap();
    let (one, two) = tokio::join!(naive(&memory, &key, "1"), naive(&memory, &key, "2"));
    let taken = [one, two].map(|revision| revision.expect("both think they have it"));
    let freed = Batch::new().then(mainstay_store::Op::delete(&key));
    let ended = memory.apply(freed).await.unwrap().revision;
    let holds = taken.map(|granted| Hold { token: granted.get(), granted, ended });
    holds_do_not_overlap(holds.to_vec()).unwrap_err();
    let calls = taken.map(|granted| {
        let (client, what) = (0, What::Acquire(granted.get()));
        Call { client, what, called: 0, returned: 1 }
    });
    calls_are_linearizable(&calls).unwrap_err();
}
