//! Evaluates batches against the published state and the effects of those before them in the same
//! commit.
//!
//! Everything a commit will change is collected here first. Until it has returned nothing of it can
//! be seen, and if it never happens the draft is thrown away.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parking_lot::Mutex;

use super::engine::{Changes, Fault, Meta};
use super::index::Place;
use super::record::{Position, Record};
use super::view::View;
use crate::batch::{Answer, Applied, Attach, Batch, Compare, Op, Put, Target};
use crate::entry::{Entry, LeaseId, Revision};
use crate::error::Error;
use crate::key::{Key, Range};
use crate::lease::Granted;
use crate::leases::{LeaseFacts, Leases, admit};
use crate::limits::{LEASE_KEYS_MAX, OPERATIONS_MAX};
use crate::read::PageMaker;
use crate::watch::{Change, Event};

/// Reads a value from the log.
pub(super) type ReadValue<'a> = &'a dyn Fn(Position) -> Result<Bytes, Fault>;

/// What a commit will change.
#[derive(Debug)]
pub(super) struct Draft {
    /// The revision after it.
    pub(super) revision: Revision,
    /// What each of its revisions changes.
    pub(super) history: Vec<(Revision, Vec<Event>)>,
    /// Where each change will stand, in order of history.
    pub(super) places: Vec<(Key, Place)>,
    pub(super) leases: Vec<LeaseEffect>,
    /// A new start of history.
    pub(super) compacted: Option<Revision>,
    pub(super) changes: Changes,
    pub(super) bytes: u64,
    /// The newest version of each key it changes.
    newest: BTreeMap<Key, Newest>,
    granted: BTreeSet<LeaseId>,
    ended: BTreeSet<LeaseId>,
    /// Keys that change their lease: whether they have this one.
    attached: BTreeMap<LeaseId, BTreeMap<Key, bool>>,
}

#[derive(Clone, Debug)]
struct Newest {
    place: Place,
    value: Bytes,
}

/// What a commit does to leases, in order.
#[derive(Clone, Debug)]
pub(super) enum LeaseEffect {
    Grant(Granted),
    Attach { key: Key, from: Option<LeaseId>, to: Option<LeaseId> },
    Remove(LeaseId),
}

/// Why a batch was not evaluated.
#[derive(Debug)]
pub(super) enum Refused {
    /// It may not be done; the others may.
    Error(Error),
    /// The log could not be read; nothing more can be done.
    Fault(Fault),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The published state a draft builds on.
pub(super) struct Base<'a> {
    pub(super) view: &'a View,
    pub(super) leases: &'a Mutex<Leases>,
    pub(super) read: ReadValue<'a>,
    /// Most bytes of all records; puts beyond are refused.
    pub(super) bytes_max: u64,
    /// Why puts are refused, whatever the quota says.
    pub(super) no_room: Option<&'a str>,
}

impl Draft {
    pub(super) fn new(view: &View) -> Self {
        Self {
            revision: view.revision,
            history: Vec::new(),
            places: Vec::new(),
            leases: Vec::new(),
            compacted: None,
            changes: Changes::default(),
            bytes: 0,
            newest: BTreeMap::new(),
            granted: BTreeSet::new(),
            ended: BTreeSet::new(),
            attached: BTreeMap::new(),
        }
    }

    /// Whether there is nothing to commit.
    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Does what a batch says.
    pub(super) fn apply(&mut self, base: &Base<'_>, batch: &Batch) -> Result<Applied, Refused> {
        let mut succeeded = true;
        for compare in &batch.compares {
            succeeded = succeeded && self.holds(base, compare)?;
        }
        let ops = if succeeded { &batch.then } else { &batch.otherwise };
        admit(&Facts { draft: self, base }, ops)?;
        self.has_room(base, batch, ops)?;
        let mut step = Step { revision: self.revision.next(), events: Vec::new() };
        let mut answers = Vec::with_capacity(ops.len());
        for op in ops {
            answers.push(self.run(base, op, &mut step)?);
        }
        self.finish(step);
        for answer in &mut answers {
            if let Answer::Range(page) = answer {
                page.revision = self.revision;
            }
        }
        Ok(Applied { succeeded, revision: self.revision, answers })
    }

    /// Takes up a lease.
    pub(super) fn grant(&mut self, base: &Base<'_>, granted: Granted) -> Result<(), Error> {
        if self.is_taken(base, granted.id) {
            return Err(Error::LeaseExists { lease: granted.id });
        }
        if let Some(why) = base.no_room {
            return Err(Error::Full { why: why.to_owned() });
        }
        self.granted.insert(granted.id);
        self.leases.push(LeaseEffect::Grant(granted));
        self.changes.leases.push((granted.id, Some(granted.ttl.as_secs())));
        Ok(())
    }

    /// Whether the id is taken.
    pub(super) fn is_taken(&self, base: &Base<'_>, id: LeaseId) -> bool {
        let before = || base.leases.lock().is_taken(id) && !self.ended.contains(&id);
        self.granted.contains(&id) || before()
    }

    /// Ends a lease if it is live.
    pub(super) fn revoke(&mut self, base: &Base<'_>, lease: LeaseId) -> Result<(), Error> {
        if !(Facts { draft: self, base }).is_live(lease) {
            return Err(Error::LeaseNotFound { lease });
        }
        self.bury(base, lease);
        Ok(())
    }

    /// Deletes the keys of a lease, in order and in one revision, and the lease.
    pub(super) fn bury(&mut self, base: &Base<'_>, lease: LeaseId) {
        let mut keys: BTreeSet<Key> = base.leases.lock().keys(lease).cloned().collect();
        let drafted = self.attached.get(&lease).into_iter().flatten();
        keys.extend(drafted.filter(|(_, is_attached)| **is_attached).map(|(key, _)| key.clone()));
        let mut step = Step { revision: self.revision.next(), events: Vec::new() };
        for key in keys {
            let current = self.current(base, &key).map(|(place, _)| place);
            let is_ours = |place: &Place| place.life.is_some_and(|life| life.lease == Some(lease));
            if let Some(place) = current.filter(is_ours) {
                self.delete(&key, place, &mut step);
            }
        }
        self.finish(step);
        self.granted.remove(&lease);
        self.ended.insert(lease);
        self.leases.push(LeaseEffect::Remove(lease));
        self.changes.leases.push((lease, None));
    }

    /// Forgets history before `revision`.
    pub(super) fn compact(&mut self, view: &View, revision: Revision) -> Result<(), Error> {
        let compacted = self.compacted.unwrap_or(view.compacted);
        if revision <= compacted {
            return Err(Error::Compacted { compacted });
        }
        if self.revision < revision {
            return Err(Error::FutureRevision { revision: self.revision });
        }
        self.compacted = Some(revision);
        self.changes.meta.push((Meta::Compacted, revision.get()));
        Ok(())
    }

    fn has_room(&self, base: &Base<'_>, batch: &Batch, ops: &[Op]) -> Result<(), Error> {
        if !ops.iter().any(|op| matches!(op, Op::Put(_))) {
            return Ok(());
        }
        if let Some(why) = base.no_room {
            return Err(Error::Full { why: why.to_owned() });
        }
        let bytes = base.view.index.bytes() + self.bytes + batch.bytes() as u64;
        if base.bytes_max < bytes {
            let why = format!("{bytes} bytes would be above the quota of {}", base.bytes_max);
            return Err(Error::Full { why });
        }
        Ok(())
    }

    /// The newest version of a key that is there, and its value if it is in this draft.
    fn current(&self, base: &Base<'_>, key: &Key) -> Option<(Place, Option<Bytes>)> {
        match self.newest.get(key) {
            Some(newest) => newest.place.life.map(|_| (newest.place, Some(newest.value.clone()))),
            None => base.view.index.at(key, base.view.revision).map(|place| (place, None)),
        }
    }

    /// The keys of `range` that are there, in order.
    fn current_in(&self, base: &Base<'_>, range: &Range) -> Vec<(Key, Place, Option<Bytes>)> {
        if let Some(key) = range.as_key() {
            let found = self.current(base, &key);
            return found.into_iter().map(|(place, value)| (key.clone(), place, value)).collect();
        }
        let before = base.view.index.range(range, base.view.revision);
        let before = before.filter(|(key, _)| !self.newest.contains_key(*key));
        let mut found: Vec<_> = before.map(|(key, place)| (key.clone(), place, None)).collect();
        let drafted = self.newest.range::<[u8], _>(range.bounds());
        let drafted = drafted.filter(|(_, newest)| newest.place.life.is_some());
        let settled = found.len();
        found.extend(
            drafted.map(|(key, newest)| (key.clone(), newest.place, Some(newest.value.clone()))),
        );
        if settled < found.len() {
            found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        }
        found
    }

    fn holds(&self, base: &Base<'_>, compare: &Compare) -> Result<bool, Fault> {
        let found = self.current_in(base, &compare.range);
        if found.is_empty() {
            return Ok(compare.holds_for(None));
        }
        for (key, place, value) in found {
            let needs_value = matches!(compare.target, Target::Value(_));
            let value = if needs_value { Some(value_of(base, place, value)?) } else { value };
            if !compare.holds_for(entry(&key, place, value.unwrap_or_default()).as_ref()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run(&mut self, base: &Base<'_>, op: &Op, step: &mut Step) -> Result<Answer, Fault> {
        match op {
            Op::Put(put) => self.put(base, put, step),
            Op::Delete { range, previous } => {
                let found = self.current_in(base, range);
                let deleted = found.len() as u64;
                let mut before = Vec::new();
                for (key, place, value) in found {
                    if *previous {
                        before.extend(entry(&key, place, value_of(base, place, value)?));
                    }
                    self.delete(&key, place, step);
                }
                Ok(Answer::Delete { deleted, previous: before })
            }
            Op::Range(select) => {
                let mut page = PageMaker::new(select, self.revision);
                for (key, place, value) in self.current_in(base, &select.range) {
                    page.push(|| {
                        let value = match (select.keys_only, value) {
                            (true, _) => Bytes::new(),
                            (false, value) => value_of(base, place, value)?,
                        };
                        entry(&key, place, value).ok_or(Fault::Malformed)
                    })?;
                }
                Ok(Answer::Range(page.finish()))
            }
        }
    }

    fn put(&mut self, base: &Base<'_>, put: &Put, step: &mut Step) -> Result<Answer, Fault> {
        let before = self.current(base, &put.key);
        let previous = match &before {
            Some((place, value)) if put.previous => {
                entry(&put.key, *place, value_of(base, *place, value.clone())?)
            }
            _ => None,
        };
        let life = before.and_then(|(place, _)| place.life);
        let old_lease = life.and_then(|life| life.lease);
        let lease = match put.lease {
            Attach::Detach => None,
            Attach::To(lease) => Some(lease),
            Attach::Keep => old_lease,
        };
        let entry = Entry {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: life.map_or(step.revision, |life| life.create),
            mod_revision: step.revision,
            version: life.map_or(0, |life| life.version) + 1,
            lease,
        };
        self.attach(&put.key, old_lease, lease);
        let event = Event { change: Change::Put(entry.clone()), previous: None };
        self.write(&put.key, put.value.clone(), Record::Put(entry), event, step);
        Ok(Answer::Put { previous })
    }

    fn delete(&mut self, key: &Key, place: Place, step: &mut Step) {
        self.attach(key, place.life.and_then(|life| life.lease), None);
        let event = Event { change: Change::Delete(key.clone()), previous: None };
        self.write(key, Bytes::new(), Record::Delete(key.clone()), event, step);
    }

    fn write(&mut self, key: &Key, value: Bytes, record: Record, event: Event, step: &mut Step) {
        // A branch has at most 128 operations, but a delete can meet any number of keys.
        let sub = u32::try_from(step.events.len()).unwrap_or(u32::MAX);
        let position = Position { revision: step.revision, sub };
        let place = Place::of(position, &record);
        self.bytes += u64::from(place.bytes);
        self.newest.insert(key.clone(), Newest { place, value });
        self.places.push((key.clone(), place));
        self.changes.records.push((position, record));
        step.events.push(event);
    }

    fn attach(&mut self, key: &Key, from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        for (lease, is_attached) in [(from, false), (to, true)] {
            if let Some(lease) = lease {
                self.attached.entry(lease).or_default().insert(key.clone(), is_attached);
            }
        }
        self.leases.push(LeaseEffect::Attach { key: key.clone(), from, to });
    }

    /// Makes what a step changed its revision, if it changed anything.
    fn finish(&mut self, step: Step) {
        if !step.events.is_empty() {
            self.revision = step.revision;
            self.history.push((step.revision, step.events));
        }
    }
}

/// A batch under way.
struct Step {
    revision: Revision,
    events: Vec<Event>,
}

/// What is true of leases at this point of the draft.
struct Facts<'a> {
    draft: &'a Draft,
    base: &'a Base<'a>,
}

impl LeaseFacts for Facts<'_> {
    fn is_live(&self, id: LeaseId) -> bool {
        let before = || self.base.leases.lock().is_live(id) && !self.draft.ended.contains(&id);
        self.draft.granted.contains(&id) || before()
    }

    fn has(&self, id: LeaseId, key: &Key) -> bool {
        let drafted = self.draft.attached.get(&id).and_then(|keys| keys.get(key)).copied();
        drafted.unwrap_or_else(|| self.base.leases.lock().has(id, key))
    }

    fn key_count(&self, id: LeaseId) -> usize {
        let leases = self.base.leases.lock();
        let before = leases.key_count(id);
        let Some(drafted) = self.draft.attached.get(&id) else { return before };
        let at_most = before + drafted.len();
        if at_most <= LEASE_KEYS_MAX - OPERATIONS_MAX {
            return at_most; // One branch cannot reach the limit from here, whatever the count.
        }
        drafted.iter().fold(before, |count, (key, is_attached)| {
            match (is_attached, leases.has(id, key)) {
                (true, false) => count + 1,
                (false, true) => count.saturating_sub(1),
                (true, true) | (false, false) => count,
            }
        })
    }
}

fn entry(key: &Key, place: Place, value: Bytes) -> Option<Entry> {
    let mut entry = place.entry(key)?;
    entry.value = value;
    Some(entry)
}

fn value_of(base: &Base<'_>, place: Place, value: Option<Bytes>) -> Result<Bytes, Fault> {
    value.map_or_else(|| (base.read)(place.position), Ok)
}
