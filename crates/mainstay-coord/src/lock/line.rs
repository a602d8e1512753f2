//! Who holds, and who waits for whom.
//!
//! A queue is read at one revision, in the order of create revisions; what follows from it is
//! decided here, without a store or a clock.
//!
//! | wanted | granted when |
//! |---|---|
//! | exclusively | nobody is before it |
//! | shared | nobody before it wants it exclusively |
//! | permits of a semaphore | the permits of all up to and with it are within the limit |
//!
//! A place whose record cannot be read was written by a newer version; it is taken as exclusive,
//! which can make others wait but never lets two hold what one should.

#[cfg(test)]
mod tests;

use mainstay_store::{Entry, Key, LeaseId, Range, Revision};

use super::record::{Past, Reason, Record, Token};
use super::request::Want;
use crate::keys::{self, Place, Slot};
use crate::session::Owner;

/// A queue as of one revision.
#[derive(Clone, Debug)]
pub struct Line {
    pub(super) revision: Revision,
    /// Soonest first.
    waiters: Vec<Waiter>,
    /// How it was last held, and the revision that says so.
    pub(super) past: Option<(Past, Revision)>,
    /// The lock delay that runs, if one does.
    pub(super) delay: Option<Revision>,
}

/// One place in a queue.
#[derive(Clone, Debug)]
pub struct Waiter {
    pub(super) key: Key,
    slot: Slot,
    pub(super) created: Revision,
    pub(super) modified: Revision,
    pub(super) lease: Option<LeaseId>,
    pub(super) record: Option<Record>,
}

/// Whether it is somebody's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It holds.
    Held,
    /// It waits until something of this range changes.
    Behind(Range),
    /// Its place is gone.
    Gone,
}

impl Line {
    /// Makes a line of everything there is about `place` at `revision`. Keys that do not belong
    /// there are left out.
    pub fn new(place: &Place, entries: &[Entry], revision: Revision) -> Self {
        let (last, delay) = (place.last(), place.delay());
        let mut waiters: Vec<Waiter> = entries.iter().filter_map(Waiter::read).collect();
        waiters.sort_unstable_by_key(|waiter| waiter.created);
        let find = |key: &Key| entries.iter().find(|entry| entry.key == *key);
        let past = find(&last).and_then(|entry| Some((Past::read(entry)?, entry.mod_revision)));
        let delay = find(&delay).map(|entry| entry.create_revision);
        Self { revision, waiters, past, delay }
    }

    /// The revision it is as of.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Everybody, soonest first.
    pub fn waiters(&self) -> &[Waiter] {
        &self.waiters
    }

    /// Those who hold; always the first ones.
    pub fn holders(&self) -> &[Waiter] {
        let holds = |at: &usize| self.blocker(*at).is_none();
        let count = (0..self.waiters.len()).take_while(holds).count();
        self.waiters.get(..count).unwrap_or_default()
    }

    /// The first whom `waiter` waits for; `None` when it holds.
    pub fn waits_for(&self, waiter: &Waiter) -> Option<&Waiter> {
        let at = self.waiters.iter().position(|other| other.created == waiter.created)?;
        match self.blocker(at)? {
            Blocker::One(other) => Some(other),
            Blocker::Any => self.waiters.first(),
        }
    }

    /// The place at `key`.
    pub(super) fn find(&self, key: &Key) -> Option<&Waiter> {
        self.waiters.iter().find(|waiter| waiter.key == *key)
    }

    /// Whether it is the turn of the place at `key` that came into being at `created`.
    pub(super) fn turn(&self, place: &Place, key: &Key, created: Revision) -> Turn {
        let is_it = |waiter: &Waiter| waiter.key == *key && waiter.created == created;
        let Some(at) = self.waiters.iter().position(is_it) else { return Turn::Gone };
        match self.blocker(at) {
            None => Turn::Held,
            Some(Blocker::One(other)) => Turn::Behind(Range::key(&other.key)),
            Some(Blocker::Any) => Turn::Behind(place.queue()),
        }
    }

    /// A holder that vanished though a lock delay was agreed: its grant stands written, and its
    /// place is gone.
    pub(super) fn vanished(&self) -> Option<&Past> {
        let (past, _) = self.past.as_ref()?;
        let is_there = |waiter: &Waiter| waiter.token() == past.token;
        let vanished = past.reason == Reason::Granted && !self.waiters.iter().any(is_there);
        vanished.then_some(past)
    }

    /// Another limit than `limit`, agreed on by somebody before the place that came into being at
    /// `created`.
    pub(super) fn other_limit(&self, want: Want, created: Revision) -> Option<u32> {
        let Want::Permits { limit, .. } = want else { return None };
        let before = self.waiters.iter().take_while(|waiter| waiter.created < created);
        let limits = before.filter_map(|waiter| match waiter.want() {
            Want::Permits { limit, .. } => Some(limit),
            Want::Exclusive | Want::Shared => None,
        });
        limits.into_iter().find(|other| *other != limit).map(std::num::NonZeroU32::get)
    }

    /// What keeps the place numbered `at` from holding.
    fn blocker(&self, at: usize) -> Option<Blocker<'_>> {
        let before = self.waiters.get(..at).unwrap_or_default();
        let own = self.waiters.get(at)?;
        match own.want() {
            Want::Exclusive => before.last().map(Blocker::One),
            Want::Shared => {
                let exclusive = |waiter: &&Waiter| waiter.want() != Want::Shared;
                before.iter().rev().find(exclusive).map(Blocker::One)
            }
            Want::Permits { permits, limit } => {
                let taken: u64 = before.iter().map(Waiter::permits).sum();
                let fits = taken + u64::from(permits.get()) <= u64::from(limit.get());
                (!fits).then_some(Blocker::Any)
            }
        }
    }
}

/// What keeps a place from holding.
enum Blocker<'a> {
    /// One other place: its end, or a change of it.
    One(&'a Waiter),
    /// Anybody before it may make room.
    Any,
}

impl Waiter {
    /// The place `entry` stands for, if its key is one of a queue.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let (_, slot) = keys::parse_slot(&entry.key)?;
        Some(Self {
            key: entry.key.clone(),
            slot,
            created: entry.create_revision,
            modified: entry.mod_revision,
            lease: entry.lease,
            record: Record::read(entry),
        })
    }

    /// The session it belongs to.
    pub const fn session(&self) -> LeaseId {
        self.slot.session
    }

    /// Whose it is; `None` when its record cannot be read.
    pub fn owner(&self) -> Option<&Owner> {
        self.record.as_ref().map(|record| &record.owner)
    }

    /// The token it has, once it holds.
    pub fn token(&self) -> Token {
        let plain = Token::new(self.created.get());
        self.record.as_ref().map_or(plain, |record| record.token(self.created))
    }

    /// How often its session holds it, or will.
    pub fn count(&self) -> u32 {
        self.record.as_ref().map_or(1, |record| record.count)
    }

    /// How it is wanted.
    pub fn want(&self) -> Want {
        self.record.as_ref().map_or(Want::Exclusive, Record::want)
    }

    /// When it was asked for, in milliseconds since 1970 by the wall clock of the node that was
    /// asked.
    pub fn asked_unix_ms(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.asked_unix_ms)
    }

    /// What it proclaims, in an election.
    pub fn value(&self) -> Option<&str> {
        self.record.as_ref().and_then(|record| record.value.as_deref())
    }

    /// The transaction it is held for, instead of a session.
    pub fn bound_gid(&self) -> Option<&str> {
        self.record.as_ref().and_then(|record| record.bound_gid.as_deref())
    }

    /// The permits it takes. One that wants all of something takes more than any limit.
    fn permits(&self) -> u64 {
        match self.want() {
            Want::Permits { permits, .. } => permits.get().into(),
            Want::Exclusive | Want::Shared => u64::from(u32::MAX),
        }
    }
}
