//! Writers, a lane, and a store that loses batches and answers, in orders that shuttle draws: whoever
//! is told that a record is written finds it there at that moment, whoever is told that it is not
//! never does, everybody is told, and the lane ends when it is told to.
//!
//! ```text
//! cargo test -p mainstay-txn --features modelled --lib modelled
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use mainstay_core::{Effect, ManualClock};
use mainstay_store::{
    Applied, Batch, Error, Get, Got, Granted, LeaseId, LeaseStatus, Memory, Op, Page, Put,
    RangeRequest, Revision, Snapshot, Status, Store, Watch, WatchRequest, store::Pending,
};
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use shuttle::rand::{Rng as _, thread_rng};
use tokio_util::sync::CancellationToken;

use super::{Lane, LaneQueue, LogError, Place};
use crate::figures::Figures;
use crate::log::{self, Change, Keys};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, Shard, Shards};
use crate::port::Surroundings;

/// Orders that are drawn: by chance, and by chance with few changes of turn, which finds what takes
/// one certain change (S. Burckhardt et al.: A Randomized Scheduler with Probabilistic Guarantees of
/// Finding Bugs, ASPLOS 2010).
const ORDERS: usize = 1_000;
const CHANGES: usize = 3;

const WRITERS: usize = 3;
const RECORDS: usize = 2;

/// What is in memory answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

/// A store on whose way batches are lost and late, and answers lost.
#[derive(Clone)]
struct Faulty {
    store: Memory,
    /// One batch in this many.
    faults: u32,
}

impl Faulty {
    async fn applies(&self, batch: Batch) -> Result<Applied, Error> {
        yield_now().await;
        let applied = match thread_rng().gen_range(0..self.faults) {
            0 => return Err(Error::Unavailable { why: "lost on the way".to_owned() }),
            1 => return Err(Error::OutcomeUnknown),
            2 => now(self.store.apply(batch)).and(Err(Error::OutcomeUnknown)),
            3 => {
                let store = self.store.clone();
                drop(spawn(async move {
                    yield_now().await;
                    drop(now(store.apply(batch)));
                }));
                return Err(Error::OutcomeUnknown);
            }
            _ => now(self.store.apply(batch)),
        };
        yield_now().await;
        applied
    }
}

impl Store for Faulty {
    fn apply(&self, batch: Batch) -> Pending<'_, Applied> {
        Box::pin(self.applies(batch))
    }

    fn get(&self, get: Get) -> Pending<'_, Got> {
        self.store.get(get)
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        self.store.range(request)
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        self.store.watch(request)
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        self.store.grant(ttl, id)
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        self.store.keep_alive(id)
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        self.store.revoke(id)
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        self.store.lease(id)
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        self.store.compact(revision)
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        self.store.snapshot()
    }

    fn status(&self) -> Pending<'_, Status> {
        self.store.status()
    }

    fn close(&self) -> Pending<'_, ()> {
        self.store.close()
    }
}

/// A clock that stands.
struct Still;

impl Surroundings for Still {
    fn now(&self) -> Moment {
        Moment::default()
    }

    fn draw(&self) -> u32 {
        0
    }
}

/// A lane, and who writes.
#[derive(Clone)]
struct World {
    store: Memory,
    lane: Lane,
    gids: Vec<Gid>,
    owned: BTreeMap<Shard, Revision>,
}

impl World {
    fn new(faults: u32) -> Self {
        let store = Memory::new(ManualClock::default());
        let lease = now(store.grant(Duration::from_mins(1), None)).unwrap().id;
        let key = log::lane("n1", 0);
        let value = log::Lane { session: lease.get(), batch: 0 }.write();
        let put = Put::new(key.clone(), value).lease(lease);
        let started = now(store.apply(Batch::new().then(put))).unwrap().revision;
        let queue = LaneQueue::new(key, lease, started);
        let surroundings: Arc<dyn Surroundings> = Arc::new(Still);
        let faulty = Faulty { store: store.clone(), faults };
        let told = (Figures::default(), surroundings);
        let lane = Lane::new(Arc::new(faulty), queue, Duration::from_millis(100), told);
        let gids: Vec<Gid> =
            (0..WRITERS).map(|which| Gid::new(&format!("g{which}")).unwrap()).collect();
        let mut owned = BTreeMap::new();
        for gid in &gids {
            let shard = gid.shard(Shards::DEFAULT);
            let created = *owned.entry(shard).or_insert_with(|| claim(&store, shard));
            lane.own(shard, created);
        }
        Self { store, lane, gids, owned }
    }

    fn has(&self, which: usize, record: usize) -> bool {
        now(self.store.get(Get::new(mark(&self.gids[which], record)))).unwrap().entry.is_some()
    }

    /// Writes records of one transaction, one after the other, and looks at what it is told.
    async fn writes(self, which: usize) -> Vec<(usize, Result<(), LogError>)> {
        let mut told = Vec::new();
        for record in 0..RECORDS {
            let gid = &self.gids[which];
            let shard = gid.shard(Shards::DEFAULT);
            let place = Place { gid, shard, created: self.owned[&shard] };
            let change = Change::default().with(mark(gid, record), "x");
            let pending = if thread_rng().gen_range(0..3) == 0 {
                self.lane.write_lazily(place, change)
            } else {
                self.lane.write(place, change)
            };
            let outcome = match pending {
                Ok(pending) => pending.written().await,
                Err(error) => Err(error),
            };
            if outcome.is_ok() {
                assert!(self.has(which, record), "{gid} was told of {record}, which is not there");
            }
            told.push((record, outcome));
        }
        told
    }
}

/// The key of one record.
fn mark(gid: &Gid, record: usize) -> mainstay_store::Key {
    Keys::new(gid, Shards::DEFAULT).branch(&BranchId::number(record + 1))
}

/// Makes the key of `shard` anew: whoever owned it does so no longer.
fn claim(store: &Memory, shard: Shard) -> Revision {
    let key = log::shard(shard);
    now(store.apply(Batch::new().then(Op::delete(&key)))).unwrap();
    now(store.apply(Batch::new().then(Put::new(key, "owner")))).unwrap().revision
}

/// Plays one order; `is_taken` takes a shard away meanwhile, by another node or by this one.
fn play(faults: u32, is_taken: bool) {
    let world = World::new(faults);
    let stop = CancellationToken::new();
    let lane = world.lane.clone();
    let ends = stop.clone();
    let running = spawn(async move { lane.run(ends).await });
    let writing: Vec<JoinHandle<_>> =
        (0..WRITERS).map(|which| spawn(world.clone().writes(which))).collect();
    let taking = is_taken.then(|| {
        let (world, is_known) = (world.clone(), thread_rng().gen_range(0..2) == 0);
        spawn(async move {
            yield_now().await;
            let shard = world.gids[0].shard(Shards::DEFAULT);
            claim(&world.store, shard);
            if is_known {
                world.lane.disown(shard);
            }
        })
    });
    block_on(async {
        let mut all = Vec::new();
        for one in writing {
            all.push(one.await.unwrap());
        }
        if let Some(taking) = taking {
            taking.await.unwrap();
        }
        stop.cancel();
        running.await.unwrap();
        for (which, told) in all.into_iter().enumerate() {
            for (record, outcome) in told {
                match outcome {
                    Ok(()) => assert!(world.has(which, record)),
                    Err(error) if error.effect() == Effect::None => {
                        assert!(!world.has(which, record), "{which} has {record}: {error}");
                    }
                    Err(_open) => {}
                }
            }
        }
    });
}

#[test]
fn what_writers_are_told_is_true_in_every_order() {
    shuttle::check_random(|| play(100, false), ORDERS);
    shuttle::check_pct(|| play(100, false), ORDERS, CHANGES);
}

#[test]
fn what_writers_are_told_is_true_while_batches_and_answers_are_lost() {
    shuttle::check_random(|| play(8, false), ORDERS);
    shuttle::check_pct(|| play(8, false), ORDERS, CHANGES);
}

#[test]
fn what_writers_are_told_is_true_while_a_shard_is_taken_away() {
    shuttle::check_random(|| play(8, true), ORDERS);
    shuttle::check_pct(|| play(8, true), ORDERS, CHANGES);
}
