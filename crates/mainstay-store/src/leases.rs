//! Which leases live, until when, and with which keys.
//!
//! A machine without a clock: backends tell it the moment, and write down what it says has ended.
//! Deadlines are kept in *lease time*, which is the clock less all pauses, so that standing still
//! for a minute moves every deadline in one addition.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_core::Instant;

use crate::batch::{Attach, Op};
use crate::entry::LeaseId;
use crate::error::Error;
use crate::key::Key;
use crate::lease::{Granted, LeaseStatus};
use crate::limits::{LEASE_KEYS_MAX, PAUSE_MIN};

/// The leases of a store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: BTreeMap<LeaseId, Held>,
    /// Deadlines in lease time, soonest first; those that are ending have none.
    deadlines: BTreeSet<(Instant, LeaseId)>,
    /// All the time the process stood still.
    paused: Duration,
    ticked: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    ttl: Duration,
    /// `None` once its end is decided.
    deadline: Option<Instant>,
    keys: BTreeSet<Key>,
}

/// What a look at the clock found.
#[derive(Debug, PartialEq)]
pub(crate) struct Tick {
    /// How long the process stood still before it; zero when it did not.
    pub(crate) paused: Duration,
    /// Leases whose end is now decided, soonest deadline first.
    pub(crate) ended: Vec<LeaseId>,
}

impl Leases {
    /// Takes a lease up at `now`: a new one, or after a restart one that was live.
    pub(crate) fn insert(&mut self, now: Instant, Granted { id, ttl }: Granted) {
        let deadline = self.lease_time(now).plus(ttl);
        let held = Held { ttl, deadline: Some(deadline), keys: BTreeSet::new() };
        if self.held.insert(id, held).is_none() {
            self.deadlines.insert((deadline, id));
        }
    }

    /// Whether the id is taken, be its lease ending or not.
    pub(crate) fn is_taken(&self, id: LeaseId) -> bool {
        self.held.contains_key(&id)
    }

    /// Gives a lease its whole ttl again.
    pub(crate) fn keep_alive(&mut self, now: Instant, id: LeaseId) -> Result<Duration, Error> {
        let deadline = self.lease_time(now);
        let held = self.held.get_mut(&id).ok_or(Error::LeaseNotFound { lease: id })?;
        let old = held.deadline.ok_or(Error::LeaseNotFound { lease: id })?;
        let deadline = deadline.plus(held.ttl).max(old);
        held.deadline = Some(deadline);
        self.deadlines.remove(&(old, id));
        self.deadlines.insert((deadline, id));
        Ok(held.ttl)
    }

    /// How a live lease stands.
    pub(crate) fn status(&self, now: Instant, id: LeaseId) -> Result<LeaseStatus, Error> {
        let live = self.held.get(&id).and_then(|held| Some((held, held.deadline?)));
        let (held, deadline) = live.ok_or(Error::LeaseNotFound { lease: id })?;
        Ok(LeaseStatus {
            granted: held.ttl,
            remaining: deadline.since(self.lease_time(now)),
            keys: held.keys.iter().cloned().collect(),
        })
    }

    /// Looks at the clock: what stood still is given back to everybody, then at most `max` leases
    /// whose time is up are ended.
    pub(crate) fn tick(&mut self, now: Instant, max: usize) -> Tick {
        let gap = self.ticked.map_or(Duration::ZERO, |last| now.since(last));
        let paused = if PAUSE_MIN < gap { gap } else { Duration::ZERO };
        self.ticked = Some(now);
        self.paused = self.paused.saturating_add(paused);
        let now = self.lease_time(now);
        let mut ended = Vec::new();
        while ended.len() < max
            && let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.end(id);
            ended.push(id);
        }
        Tick { paused, ended }
    }

    /// Decides the end of a lease: from here on nobody finds it, though its keys are still there.
    /// Returns whether it was live.
    pub(crate) fn end(&mut self, id: LeaseId) -> bool {
        let Some(held) = self.held.get_mut(&id) else { return false };
        let Some(deadline) = held.deadline.take() else { return false };
        self.deadlines.remove(&(deadline, id));
        true
    }

    /// The keys of a lease, in order.
    pub(crate) fn keys(&self, id: LeaseId) -> impl Iterator<Item = &Key> {
        self.held.get(&id).into_iter().flat_map(|held| &held.keys)
    }

    /// Forgets a lease.
    pub(crate) fn remove(&mut self, id: LeaseId) {
        self.end(id);
        self.held.remove(&id);
    }

    /// Moves `key` from the lease it had to the one it has.
    pub(crate) fn attach(&mut self, key: &Key, from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        if let Some(held) = from.and_then(|id| self.held.get_mut(&id)) {
            held.keys.remove(key);
        }
        if let Some(held) = to.and_then(|id| self.held.get_mut(&id)) {
            held.keys.insert(key.clone());
        }
    }

    /// Live leases and their ttl, by id.
    pub(crate) fn live(&self) -> impl Iterator<Item = Granted> {
        let live = self.held.iter().filter(|(_, held)| held.deadline.is_some());
        live.map(|(&id, held)| Granted { id, ttl: held.ttl })
    }

    /// How many live.
    pub(crate) fn live_count(&self) -> usize {
        self.deadlines.len()
    }

    fn lease_time(&self, now: Instant) -> Instant {
        now.minus(self.paused)
    }
}

/// What a put has to know of the lease it names.
pub(crate) trait LeaseFacts {
    /// Whether it is live: neither unknown nor ending.
    fn is_live(&self, id: LeaseId) -> bool;

    /// Whether `key` is one of its keys.
    fn has(&self, id: LeaseId, key: &Key) -> bool;

    /// How many keys it has.
    fn key_count(&self, id: LeaseId) -> usize;
}

impl LeaseFacts for Leases {
    fn is_live(&self, id: LeaseId) -> bool {
        self.held.get(&id).is_some_and(|held| held.deadline.is_some())
    }

    fn has(&self, id: LeaseId, key: &Key) -> bool {
        self.held.get(&id).is_some_and(|held| held.keys.contains(key))
    }

    fn key_count(&self, id: LeaseId) -> usize {
        self.held.get(&id).map_or(0, |held| held.keys.len())
    }
}

/// Whether the puts of a branch may attach to the leases they name.
pub(crate) fn admit(facts: &impl LeaseFacts, ops: &[Op]) -> Result<(), Error> {
    let mut fresh: BTreeMap<LeaseId, usize> = BTreeMap::new();
    for op in ops {
        let Op::Put(put) = op else { continue };
        let Attach::To(lease) = put.lease else { continue };
        if !facts.is_live(lease) {
            return Err(Error::LeaseNotFound { lease });
        }
        if !facts.has(lease, &put.key) {
            let fresh = fresh.entry(lease).or_default();
            *fresh += 1;
            if LEASE_KEYS_MAX < facts.key_count(lease) + *fresh {
                return Err(Error::LeaseFull { lease });
            }
        }
    }
    Ok(())
}
