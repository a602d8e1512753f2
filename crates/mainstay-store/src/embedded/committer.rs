//! The one thread that changes the store.
//!
//! It takes all that was queued while the last commit ran, evaluates it in order of arrival, and
//! commits it at once: a sync costs the same for one batch as for a thousand. Only when the commit
//! has returned are its effects published, watches told and *all* members answered, those too whose
//! compare failed: their answer may rest on a neighbour's write.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mainstay_core::Instant;

use super::crash::{Point, point};
use super::disk::Halt;
use super::draft::{Base, Draft, LeaseEffect, Refused};
use super::engine::{Fault, Meta, Reading};
use super::high::High;
use super::queue::{Done, GroupMax, Member, Outcome, Work};
use super::record::{Position, Record};
use super::shared::{Phase, Shared};
use super::view::View;
use crate::entry::{LeaseId, Revision};
use crate::error::Error;
use crate::events;
use crate::key::Key;
use crate::lease::{Granted, granted_ttl};

pub(super) struct Committer {
    shared: Arc<Shared>,
    /// Members of the last group.
    last: usize,
    scrub: Option<Scrub>,
    no_room: Option<NoRoom>,
}

/// Forgotten history that is still in the log.
#[derive(Clone, Debug)]
struct Scrub {
    /// History begins here.
    floor: Revision,
    /// Keys up to this one are done.
    done: Option<Key>,
}

/// A slice of it.
struct Slice {
    removed: Vec<(Key, Position)>,
    /// What is left after it.
    rest: Option<Scrub>,
}

struct NoRoom {
    why: String,
    since: Instant,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, scrubbed: Revision) -> Self {
        let floor = shared.view.read().floor();
        let scrub = (scrubbed < floor).then_some(Scrub { floor, done: None });
        Self { shared, last: 0, scrub, no_room: None }
    }

    /// Works until the queue is closed and empty, then closes the file.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let max = self.group_max();
        while let Some(members) = self.shared.queue.take(max, self.last, self.may_scrub()) {
            self.last = members.len();
            point(Point::Taken);
            self.commit(members);
        }
        self.close()
    }

    /// Commits what is queued, without waiting for any of it; returns how many members it had.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn turn(&mut self) -> usize {
        let members = self.shared.queue.take(self.group_max(), 0, true).unwrap_or_default();
        let count = members.len();
        if 0 < count || self.may_scrub() {
            self.commit(members);
        }
        count
    }

    fn group_max(&self) -> GroupMax {
        let options = &self.shared.options;
        GroupMax {
            operations: options.commit_operations_max,
            bytes: options.commit_bytes_max,
            linger: options.commit_linger,
        }
    }

    const fn may_scrub(&self) -> bool {
        self.scrub.is_some() && self.no_room.is_none()
    }

    fn commit(&mut self, members: Vec<Member>) {
        if self.shared.is(Phase::Failed) {
            let refused = members.iter().map(|_| Err(Error::Failed)).collect();
            return self.answer(members, refused);
        }
        self.look_for_room();
        let mut no_room = None;
        for _attempt in 0..2 {
            match self.attempt(&members) {
                Ok(outcomes) => return self.answer(members, outcomes),
                Err(Halt::Failed(why)) => return self.fail(members, &why),
                Err(Halt::Full(why)) => {
                    // Nothing happened. Once more, without what needs room.
                    if let Err(fault) = self.shared.engine.reopen() {
                        return self.fail(members, &fault.chain());
                    }
                    self.has_no_room(&why);
                    no_room = Some(why);
                }
            }
        }
        let full = || Err(Error::Full { why: no_room.clone().unwrap_or_default() });
        let refused = members.iter().map(|_| full()).collect();
        self.answer(members, refused);
    }

    /// Evaluates, commits and publishes a group.
    fn attempt(&mut self, members: &[Member]) -> Result<Vec<Outcome>, Halt> {
        let shared = Arc::clone(&self.shared);
        let (mut draft, outcomes, slice) = {
            let view = shared.view.read();
            let mut draft = Draft::new(&view);
            let fault = |fault: Fault| Halt::Failed(fault.chain());
            let outcomes = self.evaluate(&view, &mut draft, members).map_err(fault)?;
            let slice = self.slice(&view, &mut draft);
            (draft, outcomes, slice)
        };
        if draft.is_empty() {
            return Ok(outcomes);
        }
        draft.changes.meta.push((Meta::Revision, draft.revision.get()));
        point(Point::Evaluated);
        let began = shared.clock.now();
        shared.engine.commit(&draft.changes)?;
        let took = shared.clock.now().since(began);
        point(Point::Committed);
        shared.figures.committed(members.len(), took);
        self.publish(draft, slice);
        point(Point::Published);
        Ok(outcomes)
    }

    fn evaluate(
        &self,
        view: &View,
        draft: &mut Draft,
        members: &[Member],
    ) -> Result<Vec<Outcome>, Fault> {
        let reading = std::cell::OnceCell::new();
        let read = |position| value(&self.shared, &reading, position);
        let base = Base {
            view,
            leases: &self.shared.leases,
            read: &read,
            bytes_max: self.shared.options.bytes_max,
            no_room: self.no_room.as_ref().map(|no_room| &*no_room.why),
        };
        let mut outcomes = Vec::with_capacity(members.len());
        for member in members {
            outcomes.push(match one(&base, draft, &member.work) {
                Ok(done) => Ok(done),
                Err(Refused::Error(error)) => Err(error),
                Err(Refused::Fault(fault)) => return Err(fault),
            });
        }
        Ok(outcomes)
    }

    /// Adds the removal of some forgotten history, if there is any.
    fn slice(&self, view: &View, draft: &mut Draft) -> Option<Slice> {
        let scrub = self.scrub.as_ref().filter(|_| self.no_room.is_none())?;
        // A snapshot that began since may need what was to go; it goes with the next compaction.
        let floor = scrub.floor.min(view.floor());
        let (removed, done) = view.index.forgettable(scrub.done.as_ref(), floor, SLICE_RECORDS);
        draft.changes.removals.extend(removed.iter().map(|(_, position)| *position));
        let rest = done.map(|done| Scrub { floor, done: Some(done) });
        if rest.is_none() {
            draft.changes.meta.push((Meta::Scrubbed, floor.get()));
        }
        Some(Slice { removed, rest })
    }

    fn publish(&mut self, draft: Draft, slice: Option<Slice>) {
        let shared = &self.shared;
        {
            let mut view = shared.view.write();
            for (key, place) in draft.places {
                view.index.push(key, place);
            }
            if let Some(Slice { removed, rest }) = slice {
                view.index.forget(&removed);
                self.scrub = rest;
            }
            view.revision = draft.revision;
            if let Some(compacted) = draft.compacted {
                view.compacted = compacted;
                self.scrub = Some(Scrub { floor: view.floor(), done: None });
            }
        }
        if !draft.leases.is_empty() {
            let now = shared.clock.now();
            let mut leases = shared.leases.lock();
            for effect in draft.leases {
                match effect {
                    LeaseEffect::Grant(granted) => leases.insert(now, granted),
                    LeaseEffect::Attach { key, from, to } => leases.attach(&key, from, to),
                    LeaseEffect::Remove(lease) => leases.remove(lease),
                }
            }
        }
        shared.hub.tell(draft.history);
    }

    fn answer(&self, members: Vec<Member>, outcomes: Vec<Outcome>) {
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        self.shared.figures.refused(refused);
        for (member, outcome) in members.into_iter().zip(outcomes) {
            if let Work::Expire(leases) = member.work {
                let mut chores = self.shared.chores.lock();
                chores.expiring = false;
                match outcome {
                    Ok(_) => self.shared.figures.expired(leases.len()),
                    Err(_) => chores.owed.extend(leases),
                }
            }
            // Whoever asked may have gone; the batch stands all the same.
            drop(member.reply.send(outcome));
        }
        point(Point::Answered);
    }

    /// A write failed, and nobody knows what is on the disk.
    fn fail(&self, members: Vec<Member>, why: &str) {
        self.shared.enter(Phase::Failed);
        let revision = self.shared.view.read().revision;
        events::Failed { revision, why }.emit();
        let unknown = members.iter().map(|_| Err(Error::OutcomeUnknown)).collect();
        self.answer(members, unknown);
    }

    fn has_no_room(&mut self, why: &str) {
        if self.no_room.is_none() {
            events::RoomChanged { no_room: Some(why) }.emit();
        }
        self.shared.no_room.store(true, Ordering::SeqCst);
        self.no_room = Some(NoRoom { why: why.to_owned(), since: self.shared.clock.now() });
    }

    /// After a while without room, looks whether there is some.
    fn look_for_room(&mut self) {
        let Some(no_room) = &self.no_room else { return };
        if self.shared.clock.now().since(no_room.since) < ROOM_LOOKED_FOR_EVERY {
            return;
        }
        if self.shared.media.free_bytes().is_none_or(|free| ROOM_MIN <= free) {
            self.no_room = None;
            self.shared.no_room.store(false, Ordering::SeqCst);
            events::RoomChanged { no_room: None }.emit();
        }
    }

    fn close(&self) -> Result<(), Error> {
        let failed = self.shared.is(Phase::Failed);
        self.shared.enter(Phase::Closed);
        self.shared.hub.close();
        let closed = self.shared.engine.close();
        if failed {
            return Err(Error::Failed);
        }
        let revision = self.shared.view.read().revision;
        let remembered = High { store: self.shared.store, revision }.write(&*self.shared.media);
        if let Err(error) = &remembered {
            events::NotRemembered { error }.emit();
        }
        closed.map_err(|fault| Error::Unavailable { why: fault.chain() })
    }
}

/// Evaluates one member.
fn one(base: &Base<'_>, draft: &mut Draft, work: &Work) -> Result<Done, Refused> {
    match work {
        Work::Apply(batch) => Ok(Done::Applied(draft.apply(base, batch)?)),
        Work::Grant { ttl, id } => {
            let ttl = granted_ttl(*ttl)?;
            let id = id.unwrap_or_else(|| fresh_lease(|id| draft.is_taken(base, id)));
            let granted = Granted { id, ttl };
            draft.grant(base, granted)?;
            Ok(Done::Granted(granted))
        }
        Work::Revoke(lease) => {
            draft.revoke(base, *lease)?;
            Ok(Done::Revision(draft.revision))
        }
        Work::Expire(leases) => {
            for lease in leases {
                // One that ended on a full disk may have been buried by then.
                if draft.is_taken(base, *lease) {
                    draft.bury(base, *lease);
                }
            }
            Ok(Done::Nothing)
        }
        Work::Compact(revision) => {
            draft.compact(base.view, *revision)?;
            Ok(Done::Nothing)
        }
    }
}

/// A value from the log; all values of one group are read from one state of it.
fn value<'a>(
    shared: &'a Shared,
    reading: &std::cell::OnceCell<Reading<'a>>,
    position: Position,
) -> Result<Bytes, Fault> {
    let reading = match reading.get() {
        Some(reading) => reading,
        None => {
            let fresh = shared.engine.read()?;
            reading.get_or_init(|| fresh)
        }
    };
    match reading.record(position)? {
        Record::Put(entry) => Ok(entry.value),
        Record::Delete(_) => Err(Fault::Malformed),
    }
}

/// An id nobody has. Random, so that it does not come again after a restart, when whoever held the
/// old lease may still be about.
fn fresh_lease(is_taken: impl Fn(LeaseId) -> bool) -> LeaseId {
    loop {
        let number = RandomState::new().build_hasher().finish() >> 1;
        if let Some(id) = LeaseId::new(number).filter(|id| !is_taken(*id)) {
            return id;
        }
    }
}

/// Records removed by one commit: as many as a commit may write.
const SLICE_RECORDS: usize = 1_000;

/// How often a full disk is tried again.
const ROOM_LOOKED_FOR_EVERY: Duration = Duration::from_secs(1);

/// What has to be free before a full disk is tried again: two commits of the largest size.
const ROOM_MIN: u64 = 8_388_608;
