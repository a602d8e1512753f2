//! What waits for the log, as batches; and what answers of the store mean.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mainstay_store::{
    Answer, Applied, Batch, Compare, Entry, Error, Key, LeaseId, Op as StoreOp, Put, Revision,
};

use super::LogError;
use crate::log::{self, Change};
use crate::name::{Gid, Shard};

/// Operations of a batch: the port takes 128, the lane's own key is one of them.
const OPERATIONS_MAX: usize = 120;

/// Bytes of a batch: the port takes 1,400,000. One record may exceed it by itself.
const BYTES_MAX: usize = 1_048_576;

/// Records that may wait: at 2,000 a second the log is then four seconds behind, and whoever waits
/// longer should rather be refused.
pub(crate) const RECORDS_MAX: usize = 8_192;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this batch, and hand its answer to [`LaneQueue::answered`].
    Send(Batch),
    /// The outcome of the last one is not known: send this batch, which only reads, and hand its
    /// answer to [`LaneQueue::resolved`].
    Ask(Batch),
    /// Nothing waits that wants to be written by itself.
    Idle,
    /// The session was lost: nothing is written by this lane any more.
    Lost,
}

/// What waits of one transaction.
#[derive(Debug)]
struct Waiting<T> {
    gid: Gid,
    shard: Shard,
    /// Written with others, or when it has waited long enough.
    lazy: Change,
    /// Somebody waits for it.
    durable: Change,
    /// Who.
    tickets: Vec<T>,
    /// Who is told when what is lazy is written.
    patient: Vec<T>,
}

impl<T> Waiting<T> {
    const fn new(gid: Gid, shard: Shard, lazy: Change, patient: Vec<T>) -> Self {
        Self { gid, shard, lazy, durable: Change::new(), tickets: Vec::new(), patient }
    }

    const fn is_urgent(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Everybody who waits for it.
    fn everybody(self) -> Vec<T> {
        let mut all = self.tickets;
        all.extend(self.patient);
        all
    }
}

/// A batch that was sent.
#[derive(Debug)]
struct Flight<T> {
    records: Vec<Waiting<T>>,
    /// Its number, and those of the copies of it that may still arrive.
    numbers: Vec<u64>,
    stage: Stage,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its answer is on the way.
    Sent,
    /// Its outcome is not known.
    Doubtful,
    /// It was not applied, and is to be sent again.
    Again,
}

/// The queue of a lane. `T` is whoever waits for a record.
#[derive(Debug)]
pub struct LaneQueue<T> {
    key: Key,
    session: u64,
    lease: LeaseId,
    /// Number of the last batch that is known to be applied, and the revision it had.
    applied: (u64, Revision),
    /// Number of the last batch that was sent.
    sent: u64,
    owned: BTreeMap<Shard, Revision>,
    waiting: VecDeque<Waiting<T>>,
    places: BTreeSet<Gid>,
    flight: Option<Flight<T>>,
    lost: bool,
    records_max: usize,
}

/// Who waited, and what they are told.
pub(super) type Told<T> = Vec<(T, Result<(), LogError>)>;

impl<T> LaneQueue<T> {
    /// The queue of the lane at `key`, which `session` has just written with number 0 at
    /// `revision`.
    pub const fn new(key: Key, session: LeaseId, revision: Revision) -> Self {
        Self {
            key,
            session: session.get(),
            lease: session,
            applied: (0, revision),
            sent: 0,
            owned: BTreeMap::new(),
            waiting: VecDeque::new(),
            places: BTreeSet::new(),
            flight: None,
            lost: false,
            records_max: RECORDS_MAX,
        }
    }

    /// At most `records` wait.
    #[must_use]
    pub const fn records_max(mut self, records: usize) -> Self {
        self.records_max = records;
        self
    }

    /// The node owns `shard`, whose key was created at `created`.
    pub fn own(&mut self, shard: Shard, created: Revision) {
        self.owned.insert(shard, created);
    }

    /// The node owns `shard` no longer. What waits for it is told so; what is in flight is told
    /// when its answer comes.
    pub fn disown(&mut self, shard: Shard) -> Told<T> {
        self.owned.remove(&shard);
        let mut told = Vec::new();
        let mut kept = VecDeque::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.shard == shard {
                self.places.remove(&waiting.gid);
                tell(waiting.everybody(), &Err(LogError::NotOwner), &mut told);
            } else {
                kept.push_back(waiting);
            }
        }
        self.waiting = kept;
        told
    }

    /// Whether this lane writes nothing any more.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the node may still write records of `shard`.
    pub fn owns(&self, shard: Shard) -> bool {
        !self.lost && self.owned.contains_key(&shard)
    }

    /// Records that wait, those in flight included.
    pub fn records(&self) -> usize {
        self.waiting.len() + self.flight.as_ref().map_or(0, |flight| flight.records.len())
    }

    /// Records of the batch that is in flight.
    pub fn in_flight(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.records.len())
    }

    /// Queues a change of `gid`, which lies in `shard`, to be written as soon as may be; who holds
    /// the ticket is told. If it cannot be written it is dropped.
    ///
    /// # Errors
    ///
    /// [`LogError::Overloaded`], [`LogError::NotOwner`], [`LogError::Lost`].
    pub fn push(
        &mut self,
        place: (&Gid, Shard),
        change: Change,
        ticket: T,
    ) -> Result<(), LogError> {
        self.admit(place)?;
        let records = self.records();
        if self.records_max <= records && !self.places.contains(place.0) {
            return Err(LogError::Overloaded { records });
        }
        let waiting = self.waiting_of(place);
        waiting.durable.merge(change);
        waiting.tickets.push(ticket);
        Ok(())
    }

    /// Queues a change that waits for company. If it cannot be written it waits on. It is taken
    /// also when there is too much: there is at most one of a live transaction.
    ///
    /// # Errors
    ///
    /// [`LogError::NotOwner`], [`LogError::Lost`].
    pub fn push_lazily(
        &mut self,
        place: (&Gid, Shard),
        change: Change,
        ticket: Option<T>,
    ) -> Result<(), LogError> {
        self.admit(place)?;
        let waiting = self.waiting_of(place);
        waiting.lazy.merge(change);
        waiting.patient.extend(ticket);
        Ok(())
    }

    fn admit(&self, (_, shard): (&Gid, Shard)) -> Result<(), LogError> {
        if self.lost {
            let why = "the session of this node has ended".to_owned();
            return Err(LogError::Lost { why });
        }
        if self.owned.contains_key(&shard) { Ok(()) } else { Err(LogError::NotOwner) }
    }

    /// Whether something waits for company.
    pub fn has_lazy(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn waiting_of(&mut self, (gid, shard): (&Gid, Shard)) -> &mut Waiting<T> {
        let at = if self.places.contains(gid) {
            self.waiting.iter().position(|waiting| waiting.gid == *gid)
        } else {
            None
        };
        let at = at.unwrap_or_else(|| {
            self.places.insert(gid.clone());
            let waiting = Waiting::new(gid.clone(), shard, Change::new(), Vec::new());
            self.waiting.push_back(waiting);
            self.waiting.len() - 1
        });
        self.waiting.get_mut(at).expect("found or just pushed")
    }

    /// What to do now. `flush` also writes what nobody waits for.
    pub fn next(&mut self, flush: bool) -> Next {
        if self.lost {
            return Next::Lost;
        }
        match self.flight.as_ref().map(|flight| flight.stage) {
            Some(Stage::Doubtful) => return Next::Ask(self.question()),
            Some(Stage::Again) => {}
            None if flush && !self.waiting.is_empty() => {}
            None if self.waiting.iter().any(Waiting::is_urgent) => {}
            Some(Stage::Sent) | None => return Next::Idle,
        }
        let flight = self.flight.take().unwrap_or_else(|| {
            let records = self.take();
            Flight { records, numbers: Vec::new(), stage: Stage::Again }
        });
        self.send(flight)
    }

    /// Takes records for one batch, those that somebody waits for first.
    fn take(&mut self) -> Vec<Waiting<T>> {
        let (mut operations, mut bytes) = (1, 0);
        let (mut taken, mut left) = (Vec::new(), VecDeque::new());
        let (wanted, lazy): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(Waiting::is_urgent);
        for mut waiting in wanted.into_iter().chain(lazy) {
            let mut whole = waiting.lazy.clone();
            whole.merge(waiting.durable.clone());
            let room = OPERATIONS_MAX.saturating_sub(operations);
            // What is too much for one batch are branches that nobody waits for.
            let rest =
                if taken.is_empty() { whole.split_branches(room) } else { Change::default() };
            let fits = whole.operations() <= room && bytes + whole.bytes() <= BYTES_MAX;
            if !fits && !taken.is_empty() {
                left.push_back(waiting);
                continue;
            }
            operations += whole.operations();
            bytes += whole.bytes();
            self.places.remove(&waiting.gid);
            if !rest.is_empty() {
                self.places.insert(waiting.gid.clone());
                waiting.lazy.without(&rest);
                // Whoever waits for what is lazy waits for all of it.
                let patient = std::mem::take(&mut waiting.patient);
                let (gid, shard) = (waiting.gid.clone(), waiting.shard);
                left.push_back(Waiting::new(gid, shard, rest, patient));
            }
            taken.push(waiting);
        }
        self.waiting = left;
        taken
    }

    /// Sends `flight`, under a new number.
    fn send(&mut self, mut flight: Flight<T>) -> Next {
        self.sent += 1;
        flight.numbers.push(self.sent);
        flight.stage = Stage::Sent;
        let shards: BTreeSet<Shard> = flight.records.iter().map(|record| record.shard).collect();
        let mut batch = Batch::new().when(Compare::unchanged_since(&self.key, self.applied.1));
        for shard in &shards {
            let created = self.owned.get(shard).copied().unwrap_or(Revision::NEVER);
            batch = batch.when(owner(*shard, created));
        }
        let value = log::Lane { session: self.session, batch: self.sent }.write();
        batch = batch.then(Put::new(self.key.clone(), value).lease(self.lease));
        for record in &flight.records {
            let mut whole = record.lazy.clone();
            whole.merge(record.durable.clone());
            batch.then.extend(whole.ops());
        }
        batch.otherwise = self.reads(&shards);
        self.flight = Some(flight);
        Next::Send(batch)
    }

    /// Reads what tells how a batch ended.
    fn question(&self) -> Batch {
        let records = self.flight.iter().flat_map(|flight| &flight.records);
        let shards: BTreeSet<Shard> = records.map(|record| record.shard).collect();
        Batch { then: self.reads(&shards), ..Batch::new() }
    }

    fn reads(&self, shards: &BTreeSet<Shard>) -> Vec<StoreOp> {
        let owners = shards.iter().map(|shard| StoreOp::get(&log::shard(*shard)));
        std::iter::once(StoreOp::get(&self.key)).chain(owners).collect()
    }

    /// Takes the answer to [`Next::Send`]; returns who is told what.
    pub fn answered(&mut self, answer: Result<Applied, Error>) -> Told<T> {
        match answer {
            Ok(applied) if applied.succeeded => {
                self.applied = (self.sent, applied.revision);
                self.finish(&Ok(()))
            }
            Ok(applied) => self.resolved(Ok(applied)),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &Error) -> Told<T> {
        let Some(flight) = &mut self.flight else { return Vec::new() };
        let has_copies = flight.numbers.len() > 1;
        match error {
            // Only a restart can tell what lies on the disk.
            Error::Failed | Error::Regressed { .. } => self.lose(&error.to_string()),
            Error::LeaseNotFound { .. } => self.lose("the session of this node has ended"),
            // Nothing came of this copy, but an earlier one may be under way.
            _ if error.effect() != mainstay_core::Effect::None || has_copies => {
                flight.stage = Stage::Doubtful;
                Vec::new()
            }
            error => {
                let why = error.to_string();
                self.give_up(&why)
            }
        }
    }

    /// Nothing was written: whoever waited hears it, and what nobody waited for waits again.
    fn give_up(&mut self, why: &str) -> Told<T> {
        let mut told = Vec::new();
        let Some(flight) = self.flight.take() else { return told };
        let unavailable = Err(LogError::Unavailable { why: why.to_owned() });
        for record in flight.records.into_iter().rev() {
            let Waiting { gid, shard, lazy, tickets, patient, .. } = record;
            tell(tickets, &unavailable, &mut told);
            if lazy.is_empty() {
                continue;
            }
            // It comes before what has come since.
            let waiting = self.waiting_of((&gid, shard));
            let later = std::mem::replace(&mut waiting.lazy, lazy);
            waiting.lazy.merge(later);
            waiting.patient.extend(patient);
        }
        told
    }

    /// Takes what was read about a batch whose outcome was not known; returns who is told what.
    pub fn resolved(&mut self, answer: Result<Applied, Error>) -> Told<T> {
        let Some(flight) = &mut self.flight else { return Vec::new() };
        let applied = match answer {
            Ok(applied) => applied,
            Err(error @ (Error::Failed | Error::Regressed { .. })) => {
                return self.lose(&error.to_string());
            }
            Err(_) => {
                flight.stage = Stage::Doubtful; // Ask again.
                return Vec::new();
            }
        };
        let entries: BTreeMap<Key, Entry> = entries(&applied);
        let lane = entries.get(&self.key);
        let read = lane.and_then(|entry| log::Lane::read(&entry.value).ok());
        let Some((entry, read)) = lane.zip(read).filter(|(_, read)| read.session == self.session)
        else {
            return self.lose("the session of this node has ended");
        };
        if flight.numbers.contains(&read.batch) {
            self.applied = (read.batch, entry.mod_revision);
            return self.finish(&Ok(()));
        }
        let owns = |shard: &Shard, created: &Revision| {
            entries.get(&log::shard(*shard)).is_some_and(|owner| owner.create_revision == *created)
        };
        let touched: BTreeSet<Shard> = flight.records.iter().map(|record| record.shard).collect();
        let gone: Vec<Shard> = touched
            .into_iter()
            .filter(|shard| !self.owned.get(shard).is_some_and(|created| owns(shard, created)))
            .collect();
        let mut told = Vec::new();
        for shard in gone {
            told.extend(self.drop_in_flight(shard));
            told.extend(self.disown(shard));
        }
        // The rest is sent again, under another number, so that it shows which copy was applied.
        match &mut self.flight {
            Some(flight) if flight.records.is_empty() && flight.numbers.len() == 1 => {
                self.flight = None;
            }
            Some(flight) => flight.stage = Stage::Again,
            None => {}
        }
        told
    }

    /// Another node owns `shard`: the compare of no copy can hold any more.
    fn drop_in_flight(&mut self, shard: Shard) -> Told<T> {
        let mut told = Vec::new();
        let Some(flight) = &mut self.flight else { return told };
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut flight.records).into_iter().partition(|r| r.shard == shard);
        flight.records = kept;
        for record in gone {
            tell(record.everybody(), &Err(LogError::NotOwner), &mut told);
        }
        told
    }

    fn finish(&mut self, outcome: &Result<(), LogError>) -> Told<T> {
        let mut told = Vec::new();
        for record in self.flight.take().into_iter().flat_map(|flight| flight.records) {
            tell(record.everybody(), outcome, &mut told);
        }
        told
    }

    /// The session has ended: nothing more is written, and nobody knows of the last batch.
    pub fn lose(&mut self, why: &str) -> Told<T> {
        self.lost = true;
        let lost = Err(LogError::Lost { why: why.to_owned() });
        let mut told = self.finish(&lost);
        for waiting in std::mem::take(&mut self.waiting) {
            tell(waiting.everybody(), &Err(LogError::NotOwner), &mut told);
        }
        self.places.clear();
        told
    }
}

fn tell<T>(tickets: Vec<T>, outcome: &Result<(), LogError>, told: &mut Told<T>) {
    told.extend(tickets.into_iter().map(|ticket| (ticket, outcome.clone())));
}

/// Holds as long as the node that created the key at `created` owns the shard.
fn owner(shard: Shard, created: Revision) -> Compare {
    Compare::created_at(&log::shard(shard), created)
}

/// What the reads of a batch found.
fn entries(applied: &Applied) -> BTreeMap<Key, Entry> {
    let pages = applied.answers.iter().filter_map(|answer| match answer {
        Answer::Range(page) => Some(&page.entries),
        Answer::Put { .. } | Answer::Delete { .. } => None,
    });
    pages.flatten().map(|entry| (entry.key.clone(), entry.clone())).collect()
}
