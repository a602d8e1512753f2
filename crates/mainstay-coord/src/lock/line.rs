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

use mainstay_store::{Change, Entry, Event, Key, LeaseId, Range, Revision};

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
    /// Of each waiter, what is before it.
    before: Vec<Before>,
    /// How it was last held, and the revision that says so.
    pub(super) past: Option<(Past, Revision)>,
    /// The lock delay that runs, if one does.
    pub(super) delay: Option<Revision>,
}

/// What is before a place.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    /// The permits of all.
    permits: u64,
    /// Where the last stands that does not share.
    exclusive: Option<usize>,
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
    /// It waits for this.
    Behind(Hurdle),
    /// Its place is gone.
    Gone,
}

/// What keeps a place from holding: all that has to be watched until it is worth reading the queue
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hurdle {
    /// This key, until it goes; or, for one who would share, until it changes.
    Key(Key),
    /// Permits that places before it have: it fits once so many are given back, whoever has them.
    Permits {
        /// The queue.
        queue: Range,
        /// When the place that waits came into being.
        created: Revision,
        /// How many are missing.
        missing: u64,
    },
}

impl Hurdle {
    /// What has to be watched.
    pub fn range(&self) -> Range {
        match self {
            Self::Key(key) => Range::key(key),
            Self::Permits { queue, .. } => queue.clone(),
        }
    }

    /// Takes `event` into account, one of those after the queue was read; returns whether it may
    /// now be the turn of whoever waits. An event of a place that came later does not count, nor
    /// does one that changes a place: nobody's permits ever change.
    pub fn falls(&mut self, event: &Event) -> bool {
        let Self::Permits { created, missing, .. } = self else { return true };
        let Change::Delete(_key) = &event.change else { return false };
        // Without what was there before it is not known whose it was.
        let Some(gone) = &event.previous else { return true };
        if *created <= gone.create_revision {
            return false;
        }
        let permits = Waiter::read(gone).map_or(0, |waiter| waiter.permits());
        *missing = missing.saturating_sub(permits);
        *missing == 0
    }
}

impl Line {
    /// Makes a line of everything there is about `place` at `revision`. Keys that do not belong
    /// there are left out.
    pub fn new(place: &Place, entries: &[Entry], revision: Revision) -> Self {
        let (last, delay) = (place.last(), place.delay());
        let mut waiters: Vec<Waiter> = entries.iter().filter_map(Waiter::read).collect();
        waiters.sort_by_key(|waiter| waiter.created);
        let before = before_each(&waiters);
        let find = |key: &Key| entries.iter().find(|entry| entry.key == *key);
        let past = find(&last).and_then(|entry| Some((Past::read(entry)?, entry.mod_revision)));
        let delay = find(&delay).map(|entry| entry.create_revision);
        Self { revision, waiters, before, past, delay }
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
        match self.blocker(self.at(&waiter.key, waiter.created)?)? {
            Blocker::One(other) => Some(other),
            Blocker::Permits { .. } => self.waiters.first(),
        }
    }

    /// The place at `key`.
    pub(super) fn find(&self, key: &Key) -> Option<&Waiter> {
        self.waiters.iter().find(|waiter| waiter.key == *key)
    }

    /// Whether it is the turn of the place at `key` that came into being at `created`.
    pub(super) fn turn(&self, place: &Place, key: &Key, created: Revision) -> Turn {
        let Some(at) = self.at(key, created) else { return Turn::Gone };
        match self.blocker(at) {
            None => Turn::Held,
            Some(Blocker::One(other)) => Turn::Behind(Hurdle::Key(other.key.clone())),
            Some(Blocker::Permits { missing }) => {
                Turn::Behind(Hurdle::Permits { queue: place.queue(), created, missing })
            }
        }
    }

    /// Where the place at `key` stands that came into being at `created`. Places that a restored
    /// backup brought back may have come into being together.
    fn at(&self, key: &Key, created: Revision) -> Option<usize> {
        let first = self.waiters.partition_point(|waiter| waiter.created < created);
        let together = self.waiters.iter().enumerate().skip(first);
        let mut together = together.take_while(|(_, waiter)| waiter.created == created);
        together.find(|(_, waiter)| waiter.key == *key).map(|(at, _)| at)
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
        let (own, before) = (self.waiters.get(at)?, self.before.get(at)?);
        let one = |at: usize| self.waiters.get(at).map(Blocker::One);
        match own.want() {
            Want::Exclusive => at.checked_sub(1).and_then(one),
            Want::Shared => before.exclusive.and_then(one),
            Want::Permits { permits, limit } => {
                let wanted = before.permits + u64::from(permits.get());
                let missing = wanted.saturating_sub(limit.get().into());
                (missing > 0).then_some(Blocker::Permits { missing })
            }
        }
    }
}

/// What is before each of `waiters`, in one pass: a semaphore can have 10,000 holders.
fn before_each(waiters: &[Waiter]) -> Vec<Before> {
    let mut so_far = Before::default();
    let each = waiters.iter().enumerate().map(|(at, waiter)| {
        let before = so_far;
        so_far.permits += waiter.permits();
        if waiter.want() != Want::Shared {
            so_far.exclusive = Some(at);
        }
        before
    });
    each.collect()
}

/// What keeps a place from holding.
enum Blocker<'a> {
    /// One other place: its end, or a change of it.
    One(&'a Waiter),
    /// So many permits, whoever before it gives them back.
    Permits { missing: u64 },
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
