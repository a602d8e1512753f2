//! What waits for the log, as batches.

mod answers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mainstay_store::{Batch, Compare, Key, LeaseId, Op as StoreOp, Put, Revision};

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

/// Where a record belongs, and by which ownership it was decided.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Of which transaction it is.
    pub gid: &'a Gid,
    /// Where that lies.
    pub shard: Shard,
    /// When the owner's key was created: a record of an earlier ownership is never written, also
    /// when the node has come to own the shard again.
    pub created: Revision,
}

/// What waits of one transaction.
#[derive(Debug)]
struct Waiting<T> {
    gid: Gid,
    shard: Shard,
    created: Revision,
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
    fn new(Place { gid, shard, created }: Place<'_>, lazy: Change, patient: Vec<T>) -> Self {
        let (gid, durable, tickets) = (gid.clone(), Change::new(), Vec::new());
        Self { gid, shard, created, lazy, durable, tickets, patient }
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

    /// Whether a record of `shard` waits, or is in flight.
    pub fn has_of(&self, shard: Shard) -> bool {
        let in_flight = self.flight.iter().flat_map(|flight| &flight.records);
        self.waiting.iter().chain(in_flight).any(|record| record.shard == shard)
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
    pub fn push(&mut self, place: Place<'_>, change: Change, ticket: T) -> Result<(), LogError> {
        self.admit(place)?;
        let records = self.records();
        if self.records_max <= records && !self.places.contains(place.gid) {
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
        place: Place<'_>,
        change: Change,
        ticket: Option<T>,
    ) -> Result<(), LogError> {
        self.admit(place)?;
        let waiting = self.waiting_of(place);
        waiting.lazy.merge(change);
        waiting.patient.extend(ticket);
        Ok(())
    }

    fn admit(&self, place: Place<'_>) -> Result<(), LogError> {
        if self.lost {
            let why = "the session of this node has ended".to_owned();
            return Err(LogError::Lost { why });
        }
        if self.is_of(place.shard, place.created) { Ok(()) } else { Err(LogError::NotOwner) }
    }

    /// Whether the node still owns `shard` as it did since `created`.
    fn is_of(&self, shard: Shard, created: Revision) -> bool {
        self.owned.get(&shard) == Some(&created)
    }

    /// Whether something waits for company.
    pub fn has_lazy(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn waiting_of(&mut self, place: Place<'_>) -> &mut Waiting<T> {
        let at = if self.places.contains(place.gid) {
            self.waiting.iter().position(|waiting| waiting.gid == *place.gid)
        } else {
            None
        };
        let at = at.unwrap_or_else(|| {
            self.places.insert(place.gid.clone());
            self.waiting.push_back(Waiting::new(place, Change::new(), Vec::new()));
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

    /// Takes records for one batch, in the order in which they came: were those that somebody waits
    /// for taken first, the others would wait for ever under a load that fills batches.
    fn take(&mut self) -> Vec<Waiting<T>> {
        let (mut operations, mut bytes, mut taken) = (1, 0, Vec::new());
        while let Some(mut waiting) = self.waiting.pop_front() {
            let mut whole = waiting.lazy.clone();
            whole.merge(waiting.durable.clone());
            let room = OPERATIONS_MAX.saturating_sub(operations);
            // What is too much for one batch are branches that nobody waits for.
            let rest =
                if taken.is_empty() { whole.split_branches(room) } else { Change::default() };
            let fits = whole.operations() <= room && bytes + whole.bytes() <= BYTES_MAX;
            if !fits && !taken.is_empty() {
                self.waiting.push_front(waiting);
                break;
            }
            operations += whole.operations();
            bytes += whole.bytes();
            if rest.is_empty() {
                self.places.remove(&waiting.gid);
            } else {
                waiting.lazy.without(&rest);
                // Whoever waits for what is lazy waits for all of it.
                let patient = std::mem::take(&mut waiting.patient);
                let (shard, created) = (waiting.shard, waiting.created);
                let place = Place { gid: &waiting.gid, shard, created };
                self.waiting.push_front(Waiting::new(place, rest, patient));
                operations = OPERATIONS_MAX; // The rest is for another batch.
            }
            taken.push(waiting);
        }
        taken
    }

    /// Sends `flight`, under a new number.
    fn send(&mut self, mut flight: Flight<T>) -> Next {
        self.sent += 1;
        flight.numbers.push(self.sent);
        flight.stage = Stage::Sent;
        let owners: BTreeSet<(Shard, Revision)> =
            flight.records.iter().map(|record| (record.shard, record.created)).collect();
        let mut batch = Batch::new().when(Compare::unchanged_since(&self.key, self.applied.1));
        for (shard, created) in &owners {
            batch = batch.when(Compare::created_at(&log::shard(*shard), *created));
        }
        let value = log::Lane { session: self.session, batch: self.sent }.write();
        batch = batch.then(Put::new(self.key.clone(), value).lease(self.lease));
        for record in &flight.records {
            let mut whole = record.lazy.clone();
            whole.merge(record.durable.clone());
            batch.then.extend(whole.ops());
        }
        batch.otherwise = self.reads(&flight.records);
        self.flight = Some(flight);
        Next::Send(batch)
    }

    /// Reads what tells how a batch ended.
    fn question(&self) -> Batch {
        let records = self.flight.as_ref().map_or(&[][..], |flight| &flight.records);
        Batch { then: self.reads(records), ..Batch::new() }
    }

    fn reads(&self, records: &[Waiting<T>]) -> Vec<StoreOp> {
        let shards: BTreeSet<Shard> = records.iter().map(|record| record.shard).collect();
        let owners = shards.iter().map(|shard| StoreOp::get(&log::shard(*shard)));
        std::iter::once(StoreOp::get(&self.key)).chain(owners).collect()
    }
}

fn tell<T>(tickets: Vec<T>, outcome: &Result<(), LogError>, told: &mut Told<T>) {
    told.extend(tickets.into_iter().map(|ticket| (ticket, outcome.clone())));
}
