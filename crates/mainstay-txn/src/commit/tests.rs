//! Batches that are lost, late or unanswered; shards and sessions that end under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mainstay_core::{Effect, ManualClock};
use mainstay_store::{Applied, Batch, Error, Get, Key, LeaseId, Memory, Op, Put, Revision, Store};
use proptest::prelude::*;

use super::*;
use crate::figures::Figures;
use crate::log::{self, Change, Keys};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, Shard, Shards};
use crate::port::Surroundings;
use crate::tasks::Tasks;

/// What is in memory answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

struct World {
    store: Memory,
    queue: LaneQueue<u32>,
    lease: LeaseId,
    shards: Vec<Shard>,
    /// Since when this node owns each of them, or believes so.
    owned: BTreeMap<Shard, Revision>,
    gids: Vec<Gid>,
    /// Copies that may still arrive.
    late: Vec<Batch>,
    /// Tickets of each transaction, in order, and whether they were urgent.
    pushed: BTreeMap<u32, usize>,
    told: BTreeMap<u32, Result<(), LogError>>,
    /// The highest ticket of each transaction that was seen in the store.
    seen: BTreeMap<usize, u32>,
    next: u32,
}

impl World {
    fn new() -> Self {
        let store = Memory::new(ManualClock::default());
        let lease = now(store.grant(Duration::from_mins(1), None)).unwrap().id;
        let lane = log::lane("n1", 0);
        let value = log::Lane { session: lease.get(), batch: 0 }.write();
        let put = Put::new(lane.clone(), value).lease(lease);
        let started = now(store.apply(Batch::new().then(put))).unwrap().revision;
        let mut queue = LaneQueue::new(lane, lease, started).records_max(6);
        let gids: Vec<Gid> =
            ["a", "b", "c", "d"].iter().map(|gid| Gid::new(gid).unwrap()).collect();
        let mut shards: Vec<Shard> = gids.iter().map(|gid| gid.shard(Shards::DEFAULT)).collect();
        shards.sort_unstable();
        shards.dedup();
        let owned: BTreeMap<Shard, Revision> =
            shards.iter().map(|shard| (*shard, claim(&store, *shard))).collect();
        for (shard, created) in &owned {
            queue.own(*shard, *created);
        }
        Self {
            store,
            queue,
            lease,
            shards,
            owned,
            gids,
            late: Vec::new(),
            pushed: BTreeMap::new(),
            told: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: 1,
        }
    }

    fn push(&mut self, which: usize, urgent: bool) {
        let gid = self.gids[which].clone();
        let keys = Keys::new(&gid, Shards::DEFAULT);
        let ticket = self.next;
        self.next += 1;
        let mark = keys.branch(&BranchId::new(&format!("t{ticket}")).unwrap());
        let change = Change::default()
            .with(keys.register(), ticket.to_string())
            .with(mark, ticket.to_string());
        let place = self.place(&gid);
        let taken = if urgent {
            self.queue.push(place, change, ticket)
        } else {
            self.queue.push_lazily(place, change, Some(ticket))
        };
        match taken {
            Ok(()) => drop(self.pushed.insert(ticket, which)),
            Err(refused) => assert_eq!(
                refused.effect() == Effect::Unknown,
                matches!(refused, LogError::Lost { .. })
            ),
        }
    }

    fn place<'a>(&self, gid: &'a Gid) -> Place<'a> {
        let shard = gid.shard(Shards::DEFAULT);
        Place { gid, shard, created: self.owned[&shard] }
    }

    /// The node gives a shard up, and claims it anew.
    fn give_up(&mut self, shard: Shard, is_claimed: bool) {
        let told = self.queue.disown(shard);
        self.hear(told);
        if is_claimed {
            let created = claim(&self.store, shard);
            self.owned.insert(shard, created);
            self.queue.own(shard, created);
        }
    }

    /// Sends what is due; `fate` says what becomes of it.
    fn turn(&mut self, fate: u8, flush: bool) {
        match self.queue.next(flush) {
            Next::Send(batch) => {
                batch.check().unwrap();
                let answer = match fate % 6 {
                    0 => Err(Error::Unavailable { why: "cut".to_owned() }),
                    1 => {
                        self.late.push(batch);
                        Err(Error::OutcomeUnknown)
                    }
                    2 => now(self.store.apply(batch)).and(Err(Error::OutcomeUnknown)),
                    3 => Err(Error::OutcomeUnknown),
                    _ => now(self.store.apply(batch)),
                };
                let told = self.queue.answered(answer);
                self.hear(told);
            }
            Next::Ask(batch) => {
                let answer: Result<Applied, Error> = match fate % 3 {
                    0 => Err(Error::Unavailable { why: "cut".to_owned() }),
                    _ => now(self.store.apply(batch)),
                };
                let told = self.queue.resolved(answer);
                self.hear(told);
            }
            Next::Idle | Next::Lost => {}
        }
        self.look();
    }

    fn hear(&mut self, told: Vec<(u32, Result<(), LogError>)>) {
        for (ticket, outcome) in told {
            assert_eq!(self.told.insert(ticket, outcome), None, "{ticket} was told twice");
        }
    }

    fn has(&self, key: Key) -> Option<String> {
        let entry = now(self.store.get(Get::new(key))).unwrap().entry?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }

    /// What was told is true, and nothing goes back.
    fn look(&mut self) {
        for (which, gid) in self.gids.iter().enumerate() {
            let register = self.has(Keys::new(gid, Shards::DEFAULT).register());
            let found: u32 = register.map_or(0, |value| value.parse().unwrap());
            let seen = self.seen.entry(which).or_default();
            assert!(*seen <= found, "{gid} went back from {seen} to {found}");
            *seen = found;
        }
        for (ticket, outcome) in &self.told {
            let keys = Keys::new(&self.gids[self.pushed[ticket]], Shards::DEFAULT);
            let mark = self.has(keys.branch(&BranchId::new(&format!("t{ticket}")).unwrap()));
            match outcome {
                Ok(()) => assert!(mark.is_some(), "{ticket} was told and is not there"),
                Err(error) if error.effect() == Effect::None => {
                    assert!(mark.is_none(), "{ticket} is there: {error}");
                }
                Err(_) => {}
            }
        }
    }

    fn arrive(&mut self, which: usize) {
        if !self.late.is_empty() {
            let batch = self.late.swap_remove(which % self.late.len());
            let _applied = now(self.store.apply(batch)).unwrap();
            self.look();
        }
    }
}

/// Makes the key of `shard` anew: whoever owned it does so no longer.
fn claim(store: &Memory, shard: Shard) -> Revision {
    let key = log::shard(shard);
    now(store.apply(Batch::new().then(Op::delete(&key)))).unwrap();
    now(store.apply(Batch::new().then(Put::new(key, "owner")))).unwrap().revision
}

fn happen(world: &mut World, (what, how): (u8, u8)) {
    match what % 12 {
        0..=4 => {
            let urgent = world.next.is_multiple_of(2);
            world.push(usize::from(how) % world.gids.len(), urgent);
        }
        5..=8 => world.turn(how, how > 127),
        9 | 10 => world.arrive(usize::from(how)),
        _ if how < 10 => {
            let shard = world.shards[usize::from(how) % world.shards.len()];
            claim(&world.store, shard);
        }
        _ if how < 14 => {
            now(world.store.revoke(world.lease)).ok();
        }
        _ if how < 60 => {
            let shard = world.shards[usize::from(how) % world.shards.len()];
            world.give_up(shard, how % 3 > 0);
        }
        _ => world.turn(5, true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whoever is told that a record is written finds it; whoever is told that it is not, never
    /// does; and no late batch brings back an old state.
    #[test]
    fn what_is_told_of_a_record_is_true(happens in prop::collection::vec(any::<(u8, u8)>(), 0..120)) {
        let mut world = World::new();
        for one in happens {
            happen(&mut world, one);
        }
        while !world.late.is_empty() {
            world.arrive(0);
        }
        for _turn in 0..40 {
            world.turn(5, true);
        }
        let untold: Vec<_> = world.pushed.keys().filter(|t| !world.told.contains_key(t)).collect();
        prop_assert!(untold.is_empty(), "{untold:?} wait for ever");
        prop_assert_eq!(world.queue.records(), 0);
    }
}

#[test]
fn all_that_waits_goes_into_one_batch() {
    let mut world = World::new();
    for which in 0..4 {
        world.push(which, true);
    }
    let Next::Send(batch) = world.queue.next(false) else { panic!("something waits") };
    assert_eq!(batch.then.len(), 1 + 4 * 2);
    world.push(0, true);
    assert_eq!(world.queue.next(true), Next::Idle, "one batch at a time");
    let answer = now(world.store.apply(batch));
    let told = world.queue.answered(answer);
    assert_eq!(told.len(), 4);
}

#[test]
fn what_nobody_waits_for_waits_for_company() {
    let mut world = World::new();
    world.push(0, false);
    assert_eq!(world.queue.next(false), Next::Idle);
    assert!(world.queue.has_lazy());
    world.push(1, true);
    let Next::Send(batch) = world.queue.next(false) else { panic!("something waits") };
    assert_eq!(batch.then.len(), 1 + 2 * 2);
}

#[test]
fn too_many_records_are_refused_and_say_that_nothing_happened() {
    let mut world = World::new();
    let refused = (0..20).find_map(|n| {
        let gid = Gid::new(&format!("g{n}")).unwrap();
        let shard = world.shards[0];
        let place = Place { gid: &gid, shard, created: world.owned[&shard] };
        let change = Change::default().with(Keys::new(&gid, Shards::DEFAULT).register(), "x");
        world.queue.push(place, change, n).err()
    });
    assert_eq!(refused, Some(LogError::Overloaded { records: 6 }));
    assert_eq!(
        refused.map(|error| (error.effect(), error.code())),
        Some((Effect::None, "transaction-log-overloaded"))
    );
}

#[test]
fn a_thousand_branches_are_written_in_parts_and_their_register_in_the_first() {
    let mut world = World::new();
    let gid = world.gids[0].clone();
    let keys = Keys::new(&gid, Shards::DEFAULT);
    let branch = |change: Change, number| change.with(keys.branch(&BranchId::number(number)), "x");
    let all = (1..=1_000).fold(Change::default(), branch);
    let place = world.place(&gid);
    world.queue.push_lazily(place, all, None).unwrap();
    world.queue.push(place, Change::default().with(keys.register(), "1"), 2).unwrap();
    world.pushed.insert(2, 0);
    let mut batches = 0;
    while let Next::Send(batch) = world.queue.next(true) {
        batch.check().unwrap();
        batches += 1;
        let answer = now(world.store.apply(batch));
        let told = world.queue.answered(answer);
        assert_eq!(told.len(), usize::from(batches == 1));
    }
    assert_eq!(batches, 9);
    let page = now(world.store.range(mainstay_store::RangeRequest::from(keys.branches()))).unwrap();
    assert_eq!(page.count, 1_000);
}

#[test]
fn a_failed_store_leaves_open_what_was_written() {
    let mut world = World::new();
    world.push(0, true);
    let Next::Send(_) = world.queue.next(false) else { panic!("something waits") };
    let told = world.queue.answered(Err(Error::Failed));
    assert!(matches!(&told[..], [(1, Err(error))] if error.effect() == Effect::Unknown));
    assert_eq!(world.queue.next(true), Next::Lost);
}

/// The batch that is due.
fn send(world: &mut World) -> Batch {
    match world.queue.next(true) {
        Next::Send(batch) => batch,
        next => panic!("{next:?}"),
    }
}

#[test]
fn what_was_decided_as_an_earlier_owner_is_not_written_as_a_later_one() {
    let mut world = World::new();
    world.push(0, false);
    send(&mut world);
    let shard = world.gids[0].shard(Shards::DEFAULT);
    world.give_up(shard, true);
    let told = world.queue.answered(Err(Error::Unavailable { why: "cut".to_owned() }));
    assert!(matches!(&told[..], [(1, Err(error))] if error.effect() == Effect::None), "{told:?}");
    assert_eq!(world.queue.next(true), Next::Idle);
    let keys = Keys::new(&world.gids[0], Shards::DEFAULT);
    let before = Place { gid: &world.gids[0], shard, created: Revision::NEVER };
    let change = Change::default().with(keys.register(), "1");
    assert_eq!(world.queue.push(before, change, 2), Err(LogError::NotOwner));
}

#[test]
fn a_shard_that_is_given_up_says_nothing_of_a_batch_that_may_still_be_applied() {
    let mut world = World::new();
    world.push(0, true);
    let late = send(&mut world);
    assert!(world.queue.answered(Err(Error::OutcomeUnknown)).is_empty());
    world.give_up(world.gids[0].shard(Shards::DEFAULT), false);
    world.turn(5, true);
    assert!(world.told.is_empty(), "its key still stands: {:?}", world.told);
    now(world.store.apply(late)).unwrap();
    world.turn(5, true);
    assert_eq!(world.told, BTreeMap::from([(1, Ok(()))]));
}

#[test]
fn a_record_that_no_store_takes_takes_nobody_with_it() {
    let mut world = World::new();
    let gid = world.gids[1].clone();
    let large = vec![b'x'; 1_048_577];
    let change = Change::default().with(Keys::new(&gid, Shards::DEFAULT).history(), large);
    world.push(0, false);
    let place = world.place(&gid);
    world.queue.push_lazily(place, change, Some(9)).unwrap();
    world.pushed.insert(9, 1);
    world.push(2, false);
    for _turn in 0..4 {
        let Next::Send(batch) = world.queue.next(true) else { continue };
        let answer = batch.check().and_then(|()| now(world.store.apply(batch)));
        let told = world.queue.answered(answer);
        world.hear(told);
    }
    let unavailable =
        |outcome: &Result<(), LogError>| matches!(outcome, Err(LogError::Unavailable { .. }));
    assert!(unavailable(&world.told[&9]), "{:?}", world.told);
    assert_eq!((&world.told[&1], &world.told[&2]), (&Ok(()), &Ok(())));
    assert_eq!(world.queue.next(true), Next::Idle);
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

#[tokio::test(start_paused = true)]
async fn those_that_come_do_not_put_off_what_waits_for_company() {
    let World { store, queue: _, lease, shards, gids, .. } = World::new();
    let key = log::lane("n1", 0);
    let revision = store.get(Get::new(key.clone())).await.unwrap().entry.unwrap().mod_revision;
    let (tasks, flush) = (Tasks::default(), Duration::from_millis(100));
    let queue = LaneQueue::new(key, lease, revision);
    let told: (_, Arc<dyn Surroundings>) = (Figures::default(), Arc::new(Still));
    let lane = Lane::start(Arc::new(store.clone()), queue, flush, told, &tasks);
    for shard in &shards {
        lane.own(*shard, claim(&store, *shard));
    }
    for n in 0..5 {
        let gid = &gids[n % gids.len()];
        let shard = gid.shard(Shards::DEFAULT);
        let owner = store.get(Get::new(log::shard(shard))).await.unwrap().entry.unwrap();
        let place = Place { gid, shard, created: owner.create_revision };
        let change = Change::default().with(Keys::new(gid, Shards::DEFAULT).register(), "x");
        drop(lane.write_lazily(place, change).unwrap());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let first = Keys::new(&gids[0], Shards::DEFAULT).register();
    assert!(store.get(Get::new(first)).await.unwrap().entry.is_some(), "after 150 ms");
    assert_eq!(tasks.shutdown(flush).await, 0);
}
