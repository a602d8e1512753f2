//! All there is, under the mutex.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem;
use std::task::Waker;
use std::time::Duration;

use mainstay_core::Instant;

use crate::batch::{Answer, Applied, Attach, Batch, Op, Put};
use crate::entry::{Entry, LeaseId, Revision};
use crate::error::Error;
use crate::key::{Key, Range};
use crate::lease::{Granted, granted_ttl};
use crate::leases::{Leases, admit};
use crate::limits::EXPIRIES_MAX;
use crate::read::{Get, Got, Page, PageMaker, RangeRequest, Select};
use crate::snapshot::SnapshotItem;
use crate::store::{self, Status, StoreId};
use crate::watch::{Change, Event};

#[derive(Debug)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// Every version of every key, oldest first.
    keys: BTreeMap<Key, Vec<Version>>,
    /// What each revision changed.
    pub(super) log: BTreeMap<Revision, Vec<Event>>,
    pub(super) leases: Leases,
    /// Who waits for news, by watch.
    pub(super) watches: BTreeMap<u64, Option<Waker>>,
    last_lease: u64,
    closed: bool,
}

/// What a key was from `revision` on; `None` after a delete.
#[derive(Debug)]
struct Version {
    revision: Revision,
    entry: Option<Entry>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: Revision::FIRST,
            compacted: Revision::NEVER,
            keys: BTreeMap::new(),
            log: BTreeMap::new(),
            leases: Leases::default(),
            watches: BTreeMap::new(),
            last_lease: 0,
            closed: false,
        }
    }
}

impl State {
    pub(super) fn get(&self, get: &Get) -> Result<Got, Error> {
        let at = self.readable(get.at)?;
        Ok(Got { entry: self.entry(&get.key, at).cloned(), revision: self.revision })
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<Page, Error> {
        let at = self.readable(request.at)?;
        Ok(self.page(&request.select, at, self.revision))
    }

    pub(super) fn apply(&mut self, batch: &Batch) -> Result<Applied, Error> {
        batch.check()?;
        let succeeded = batch.compares.iter().all(|compare| {
            let mut found = self.entries(&compare.range, self.revision).peekable();
            match found.peek() {
                None => compare.holds_for(None),
                Some(_) => found.all(|entry| compare.holds_for(Some(entry))),
            }
        });
        let ops = if succeeded { &batch.then } else { &batch.otherwise };
        admit(&self.leases, ops)?;
        let mut events = Vec::new();
        let mut answers: Vec<Answer> = ops.iter().map(|op| self.run(op, &mut events)).collect();
        self.commit(events);
        for answer in &mut answers {
            if let Answer::Range(page) = answer {
                page.revision = self.revision;
            }
        }
        Ok(Applied { succeeded, revision: self.revision, answers })
    }

    pub(super) fn grant(
        &mut self,
        now: Instant,
        ttl: Duration,
        id: Option<LeaseId>,
    ) -> Result<Granted, Error> {
        let ttl = granted_ttl(ttl)?;
        if let Some(lease) = id.filter(|id| self.leases.is_taken(*id)) {
            return Err(Error::LeaseExists { lease });
        }
        let mut chosen = || {
            self.last_lease += 1;
            LeaseId::new(self.last_lease).filter(|id| !self.leases.is_taken(*id))
        };
        let id = id.unwrap_or_else(|| {
            loop {
                if let Some(id) = chosen() {
                    break id;
                }
            }
        });
        let granted = Granted { id, ttl };
        self.leases.insert(now, granted);
        Ok(granted)
    }

    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<Revision, Error> {
        if !self.leases.end(lease) {
            return Err(Error::LeaseNotFound { lease });
        }
        self.bury(lease);
        Ok(self.revision)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        for lease in self.leases.tick(now, EXPIRIES_MAX).ended {
            self.bury(lease);
        }
        self.wake();
    }

    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted { compacted: self.compacted });
        }
        if self.revision < revision {
            return Err(Error::FutureRevision { revision: self.revision });
        }
        self.compacted = revision;
        self.log.retain(|logged, _| revision < *logged);
        self.keys.retain(|_, versions| {
            // The newest version at or before `revision` is what the key is there.
            let current = versions.iter().rposition(|version| version.revision <= revision);
            versions.drain(..current.unwrap_or(0));
            let gone = |version: &Version| version.revision <= revision && version.entry.is_none();
            if versions.first().is_some_and(gone) {
                versions.remove(0);
            }
            !versions.is_empty()
        });
        self.wake();
        Ok(())
    }

    pub(super) fn everything(&self) -> Vec<SnapshotItem> {
        let leases = self.leases.live().map(|Granted { id, ttl }| SnapshotItem::Lease { id, ttl });
        let all = Range::all();
        let entries = self.entries(&all, self.revision).cloned().map(SnapshotItem::Entry);
        leases.chain(entries).collect()
    }

    pub(super) fn status(&self, store: StoreId) -> Status {
        let versions = self.keys.values().flatten();
        let bytes: usize =
            versions.filter_map(|version| version.entry.as_ref()).map(Entry::bytes).sum();
        Status {
            backend: "memory",
            store,
            revision: self.revision,
            compacted: self.compacted,
            bytes: bytes as u64,
            leases: self.leases.live_count() as u64,
            watchers: self.watches.len() as u64,
            state: if self.closed { store::State::Closed } else { store::State::Ready },
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The revision to read at, if it can be read.
    fn readable(&self, at: Option<Revision>) -> Result<Revision, Error> {
        let at = at.unwrap_or(self.revision);
        if self.revision < at {
            return Err(Error::FutureRevision { revision: self.revision });
        }
        if at < self.compacted || at == Revision::NEVER {
            return Err(Error::Compacted { compacted: self.compacted });
        }
        Ok(at)
    }

    /// What `key` was at revision `at`.
    fn entry(&self, key: &Key, at: Revision) -> Option<&Entry> {
        self.keys.get(key).and_then(|versions| current(versions, at))
    }

    /// What was in `range` at revision `at`, in order.
    fn entries(&self, range: &Range, at: Revision) -> impl Iterator<Item = &Entry> {
        let keys = self.keys.range::<[u8], _>(range.bounds());
        keys.filter_map(move |(_, versions)| current(versions, at))
    }

    fn page(&self, select: &Select, at: Revision, revision: Revision) -> Page {
        let mut page = PageMaker::new(select, revision);
        for entry in self.entries(&select.range, at) {
            let Ok(()) = page.push(|| Ok::<_, Infallible>(entry.clone()));
        }
        page.finish()
    }

    /// Does one operation as part of the next revision.
    fn run(&mut self, op: &Op, events: &mut Vec<Event>) -> Answer {
        match op {
            Op::Put(put) => self.put(put, events),
            Op::Delete { range, previous } => {
                let next = self.revision.next();
                let found: Vec<Entry> = self.entries(range, next).cloned().collect();
                events.extend(found.iter().map(|entry| self.delete(entry.clone())));
                let deleted = found.len() as u64;
                Answer::Delete { deleted, previous: if *previous { found } else { Vec::new() } }
            }
            Op::Range(select) => {
                Answer::Range(self.page(select, self.revision.next(), self.revision))
            }
        }
    }

    fn put(&mut self, put: &Put, events: &mut Vec<Event>) -> Answer {
        let revision = self.revision.next();
        let previous = self.entry(&put.key, revision).cloned();
        let old_lease = previous.as_ref().and_then(|entry| entry.lease);
        let lease = match put.lease {
            Attach::Detach => None,
            Attach::To(lease) => Some(lease),
            Attach::Keep => old_lease,
        };
        let entry = Entry {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: previous.as_ref().map_or(revision, |entry| entry.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(0, |entry| entry.version) + 1,
            lease,
        };
        self.leases.attach(&put.key, old_lease, lease);
        let versions = self.keys.entry(put.key.clone()).or_default();
        versions.push(Version { revision, entry: Some(entry.clone()) });
        events.push(Event { change: Change::Put(entry), previous: previous.clone() });
        Answer::Put { previous: previous.filter(|_| put.previous) }
    }

    fn delete(&mut self, entry: Entry) -> Event {
        let revision = self.revision.next();
        self.leases.attach(&entry.key, entry.lease, None);
        let versions = self.keys.entry(entry.key.clone()).or_default();
        versions.push(Version { revision, entry: None });
        Event { change: Change::Delete(entry.key.clone()), previous: Some(entry) }
    }

    /// Deletes the keys of a lease whose end is decided, and forgets it.
    fn bury(&mut self, lease: LeaseId) {
        let keys: Vec<Key> = self.leases.keys(lease).cloned().collect();
        let entries = keys.iter().filter_map(|key| self.entry(key, self.revision).cloned());
        let entries: Vec<Entry> = entries.collect();
        let events = entries.into_iter().map(|entry| self.delete(entry)).collect();
        self.leases.remove(lease);
        self.commit(events);
    }

    /// Makes `events` the next revision, if there are any.
    fn commit(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision = self.revision.next();
            self.log.insert(self.revision, events);
            self.wake();
        }
    }

    fn wake(&mut self) {
        for waker in self.watches.values_mut().filter_map(mem::take) {
            waker.wake();
        }
    }
}

/// What a key with these versions was at revision `at`.
fn current(versions: &[Version], at: Revision) -> Option<&Entry> {
    let version = versions.iter().rev().find(|version| version.revision <= at)?;
    version.entry.as_ref()
}
