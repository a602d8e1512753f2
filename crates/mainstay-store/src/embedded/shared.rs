//! What the handles, the committer and the watches of one store have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use mainstay_core::{Clock, Instant};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::engine::{Engine, Fault};
use super::figures::Figures;
use super::high::High;
use super::hub::Hub;
use super::media::Media;
use super::options::Options;
use super::queue::{Outcome, Queue, Work};
use super::record::Record;
use super::view::View;
use crate::entry::{Entry, LeaseId, Revision};
use crate::error::Error;
use crate::events;
use crate::key::Key;
use crate::leases::Leases;
use crate::limits::EXPIRIES_MAX;
use crate::retention::Retention;
use crate::store::{State, StoreId};

pub(super) struct Shared {
    pub(super) store: StoreId,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) media: Arc<dyn Media>,
    pub(super) engine: Engine,
    pub(super) view: RwLock<View>,
    pub(super) leases: Mutex<Leases>,
    pub(super) hub: Hub,
    pub(super) queue: Queue,
    pub(super) figures: Figures,
    /// Ready, failed or closed; whether there is room stands beside it.
    phase: AtomicU8,
    /// The disk has no room.
    pub(super) no_room: AtomicBool,
    pub(super) chores: Mutex<Chores>,
}

/// What is done now and then.
pub(super) struct Chores {
    pub(super) retention: Retention,
    /// Leases whose end is decided and not yet committed.
    pub(super) owed: Vec<LeaseId>,
    /// An end of leases is on its way to the committer.
    pub(super) expiring: bool,
    pub(super) remembered: High,
    pub(super) remembered_at: Instant,
    pub(super) reminded_at: Instant,
}

impl Chores {
    /// Whether the highest revision has grown enough, or is old enough, to be written down. Says so
    /// once a while, whether it works or not.
    fn is_to_remember(&mut self, now: Instant, revision: Revision) -> bool {
        let grown = revision.get() - self.remembered.revision.get();
        let is_old = REMEMBER_EVERY <= now.since(self.remembered_at) && 0 < grown;
        let is_to = is_old || REMEMBER_REVISIONS <= grown;
        if is_to {
            self.remembered_at = now;
        }
        is_to
    }
}

/// Everything a store begins with.
pub(super) struct Parts {
    pub(super) store: StoreId,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) media: Arc<dyn Media>,
    pub(super) engine: Engine,
    pub(super) view: View,
    pub(super) leases: Leases,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { store, options, clock, media, engine, view, leases } = parts;
        let hub = Hub::default();
        hub.start_at(view.revision);
        let now = clock.now();
        let chores = Chores {
            retention: Retention::new(options.compact_after, options.revisions_max),
            owed: Vec::new(),
            expiring: false,
            remembered: High { store, revision: view.revision },
            remembered_at: now,
            reminded_at: now,
        };
        Self {
            store,
            options,
            clock,
            media,
            engine,
            view: RwLock::new(view),
            leases: Mutex::new(leases),
            hub,
            queue: Queue::default(),
            figures: Figures::default(),
            phase: AtomicU8::new(Phase::Ready as u8),
            no_room: AtomicBool::new(false),
            chores: Mutex::new(chores),
        }
    }

    /// Fails once the store is closed.
    pub(super) fn open(&self) -> Result<(), Error> {
        if self.is(Phase::Closed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Hands `work` to the committer.
    pub(super) fn submit(&self, work: Work) -> Result<oneshot::Receiver<Outcome>, Error> {
        self.open()?;
        if self.is(Phase::Failed) {
            return Err(Error::Failed);
        }
        self.queue.submit(work)
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) == phase as u8
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    pub(super) fn state(&self) -> State {
        let is_full = self.no_room.load(Ordering::SeqCst)
            || self.options.bytes_max <= self.view.read().index.bytes();
        match () {
            () if self.is(Phase::Closed) => State::Closed,
            () if self.is(Phase::Failed) => State::Failed,
            () if is_full => State::Full,
            () => State::Ready,
        }
    }

    /// What `key` was just before `revision`, unless that is compacted.
    pub(super) fn entry_before(
        &self,
        key: &Key,
        revision: Revision,
    ) -> Result<Option<Entry>, Fault> {
        let (place, reading) = {
            let view = self.view.read();
            let at = revision.before();
            if at < view.compacted {
                return Ok(None);
            }
            let Some(place) = view.index.at(key, at) else { return Ok(None) };
            (place, self.engine.read()?)
        };
        match reading.record(place.position)? {
            Record::Put(entry) => Ok(Some(entry)),
            Record::Delete(_) => Err(Fault::Malformed),
        }
    }

    /// Does what is due now. Returns the answer to the end of leases, if any are ending.
    pub(super) fn tick(&self) -> Option<oneshot::Receiver<Outcome>> {
        if !self.is(Phase::Ready) {
            return None;
        }
        let now = self.clock.now();
        let mut chores = self.chores.lock();
        let room = EXPIRIES_MAX.saturating_sub(chores.owed.len());
        let tick = self.leases.lock().tick(now, room);
        if !tick.paused.is_zero() {
            self.figures.lease_extended(tick.paused);
            events::PauseSeen { paused: tick.paused }.emit();
        }
        chores.owed.extend(tick.ended);
        if REMIND_EVERY <= now.since(chores.reminded_at) {
            chores.reminded_at = now;
            self.hub.remind(now);
        }
        let (revision, compacted) = {
            let view = self.view.read();
            (view.revision, view.compacted)
        };
        if let Some(target) = chores.retention.due(now, revision, compacted) {
            // Whether it worked shows in the next look; a full queue just has to wait for it.
            drop(self.submit(Work::Compact(target)));
        }
        let answer = self.expire(&mut chores);
        let is_to_remember = chores.is_to_remember(now, revision);
        // The committer takes these too when it has ended leases; it does not wait for a file.
        drop(chores);
        if is_to_remember {
            self.remember(revision);
        }
        answer
    }

    /// Hands the leases that are ending to the committer, unless some are on their way.
    fn expire(&self, chores: &mut Chores) -> Option<oneshot::Receiver<Outcome>> {
        if chores.owed.is_empty() || chores.expiring {
            return None;
        }
        let ending = std::mem::take(&mut chores.owed);
        match self.submit(Work::Expire(ending.clone())) {
            Ok(answer) => {
                chores.expiring = true;
                Some(answer)
            }
            Err(_busy) => {
                chores.owed = ending;
                None
            }
        }
    }

    /// Writes the highest revision down beside the store.
    fn remember(&self, revision: Revision) {
        let high = High { store: self.store, revision };
        match high.write(&*self.media) {
            Ok(()) => self.chores.lock().remembered = high,
            Err(error) => events::NotRemembered { error: &error }.emit(),
        }
    }
}

/// How far a store is in its life; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Ready = 0,
    Failed = 1,
    Closed = 2,
}

/// How often idle watches are looked at.
const REMIND_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// How old the remembered revision may be.
const REMEMBER_EVERY: std::time::Duration = std::time::Duration::from_mins(1);

/// How many revisions may be forgotten by the file that remembers the highest one.
const REMEMBER_REVISIONS: u64 = 10_000;
