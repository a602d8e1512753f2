//! A transaction as it stands: what was asked for, what was decided, how far each branch is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::{TIMELINE_MAX, cut};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::policy::Policy;
use crate::target::Target;
use crate::word::{Decision, Dialect, Mode, Op, OpState, Prepare, State, Vote, Why};

/// What a transaction is begun with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Begin {
    /// Its name.
    pub gid: Gid,
    /// How its branches hold together.
    pub mode: Mode,
    /// Whose rules hold.
    pub dialect: Dialect,
    /// What kind of transaction it is, for people.
    pub name: Option<String>,
    /// What it can be found by.
    pub labels: BTreeMap<String, String>,
    /// How long the active phase may last; of a saga, the forward phase.
    pub deadline: Option<Duration>,
    /// Steps do not wait for those before them, unless they say so.
    pub concurrent: bool,
    /// The second phase goes branch by branch: commit in order of registration, rollback in
    /// reverse.
    pub ordered: bool,
    /// Who tells whether the local part of a message was committed.
    pub check: Option<Target>,
    /// How long after its creation a message is delivered.
    pub delay: Duration,
    /// How long after its creation a message of one step is given up.
    pub give_up_after: Option<Duration>,
    /// Retries of one step of a saga before it is compensated.
    pub retry_limit: Option<u32>,
    /// The interval between retries of the DTM dialect.
    pub retry_interval: Option<Duration>,
    /// How long a call of a branch may take.
    pub call_timeout: Option<Duration>,
    /// Headers of every call, below those of the branch that is called.
    pub headers: Vec<(String, String)>,
    /// What its initiator said in the words of its dialect, kept to be said again. It decides
    /// nothing.
    pub words: Option<Bytes>,
    /// Steps of a saga or message.
    pub steps: Vec<NewBranch>,
    /// Decides to commit at once.
    pub submit: bool,
}

impl Begin {
    /// A transaction without anything optional.
    pub const fn new(gid: Gid, mode: Mode) -> Self {
        Self {
            gid,
            mode,
            dialect: Dialect::Native,
            name: None,
            labels: BTreeMap::new(),
            deadline: None,
            concurrent: false,
            ordered: false,
            check: None,
            delay: Duration::ZERO,
            give_up_after: None,
            retry_limit: None,
            retry_interval: None,
            call_timeout: None,
            headers: Vec::new(),
            words: None,
            steps: Vec::new(),
            submit: false,
        }
    }
}

/// What is sent to a branch, as it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload {
    /// The body.
    pub bytes: Bytes,
    /// Its content type.
    pub content_type: Option<String>,
    /// Headers besides those of the protocol.
    pub headers: Vec<(String, String)>,
}

impl Payload {
    /// Bytes of all but its body.
    pub(crate) fn head_bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.content_type.as_ref().map_or(0, String::len) + headers.sum::<usize>()
    }
}

/// A branch that is to join, or a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewBranch {
    /// Its name; the next number unless told.
    pub branch: Option<BranchId>,
    /// Who it is.
    pub part: Part,
    /// Steps that have to be done before this one, by their place from 0.
    pub after: Vec<u16>,
    /// What it is sent.
    pub payload: Payload,
}

impl NewBranch {
    /// Bytes of all it says but its body.
    pub(crate) fn head_bytes(&self) -> usize {
        head_bytes(&self.part, &self.after, &self.payload)
    }
}

fn head_bytes(part: &Part, after: &[u16], payload: &Payload) -> usize {
    let targets = match part {
        Part::Resource(_) => 0,
        Part::Endpoint { targets, .. } => targets.values().map(Target::bytes).sum(),
    };
    targets + 2 * after.len() + payload.head_bytes()
}

/// Who a branch is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A database that the coordinator ends branches at by itself.
    Resource(ResourceName),
    /// A service that is called.
    Endpoint {
        /// Where, for each operation. One that is missing counts as done at once. A step and its
        /// branch have it in common, and so have copies of a transaction, of which each event makes
        /// one.
        targets: Arc<BTreeMap<Op, Target>>,
        /// When it prepares.
        prepare: Prepare,
    },
}

/// A branch and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    /// Its name.
    pub id: BranchId,
    /// Who it is.
    pub part: Part,
    /// What has to be done before it.
    pub after: Vec<u16>,
    /// What it is sent.
    pub payload: Payload,
    /// Its word on the first phase.
    pub vote: Option<Vote>,
    /// The database session it was prepared in, which may still hold it.
    pub session_id: Option<String>,
    /// It ended against the decision.
    pub heuristic: bool,
    /// What it was asked to do.
    pub ops: Vec<OpRecord>,
}

impl Branch {
    pub(crate) fn new(id: BranchId, new: NewBranch) -> Self {
        let NewBranch { branch: _, part, after, payload } = new;
        let (vote, session_id) = (None, None);
        Self { id, part, after, payload, vote, session_id, heuristic: false, ops: Vec::new() }
    }

    /// How far `op` is.
    pub fn op(&self, op: Op) -> Option<&OpRecord> {
        self.ops.iter().find(|record| record.op == op)
    }

    /// The state of `op`.
    pub fn state_of(&self, op: Op) -> OpState {
        self.op(op).map_or(OpState::Waiting, |record| record.state)
    }

    pub(crate) fn op_mut(&mut self, op: Op) -> &mut OpRecord {
        let at = self.ops.iter().position(|record| record.op == op).unwrap_or_else(|| {
            self.ops.push(OpRecord::new(op));
            self.ops.len() - 1
        });
        self.ops.get_mut(at).expect("found or just pushed")
    }

    /// Where `op` goes; `None` when there is nobody to ask, so it is done.
    pub fn goes_to(&self, op: Op) -> Option<Goal<'_>> {
        match &self.part {
            Part::Resource(resource) => {
                Some(Goal::Resource { resource, session_id: self.session_id.as_deref() })
            }
            Part::Endpoint { targets, .. } => targets.get(&op).map(Goal::Endpoint),
        }
    }
}

/// Where an operation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal<'a> {
    /// To a database.
    Resource {
        /// Which.
        resource: &'a ResourceName,
        /// The session that prepared the branch, if its vote said so.
        session_id: Option<&'a str>,
    },
    /// To a service.
    Endpoint(&'a Target),
}

/// One operation on one branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpRecord {
    /// Which.
    pub op: Op,
    /// How far it is.
    pub state: OpState,
    /// Attempts that failed.
    pub attempts: u32,
    /// Not before this moment is it asked for again.
    pub next_at: Moment,
    /// What was wrong last, for people.
    pub last_error: Option<String>,
    /// Ended by an operator, not by the branch.
    pub by_hand: bool,
    /// Times a live session was found to hold the branch. Not in the log.
    pub(crate) held: u32,
    /// A call is under way in this process. Not in the log.
    pub(crate) in_flight: bool,
}

impl OpRecord {
    pub(crate) const fn new(op: Op) -> Self {
        Self {
            op,
            state: OpState::Waiting,
            attempts: 0,
            next_at: Moment::from_unix_millis(0),
            last_error: None,
            by_hand: false,
            held: 0,
            in_flight: false,
        }
    }

    /// The state as it is shown: what is under way for the first time is running.
    pub const fn shown(&self) -> OpState {
        match self.state {
            OpState::Waiting if self.in_flight => OpState::Running,
            state => state,
        }
    }

    /// Whether its branch said last that it is still at it.
    pub fn is_ongoing(&self) -> bool {
        self.last_error.as_deref() == Some(STILL_AT_IT)
    }

    /// Moves on to `state`, unless that lies behind.
    pub(crate) fn advance(&mut self, state: OpState) {
        if !self.state.is_settled() {
            self.state = self.state.max(state);
        }
    }
}

/// What is noted of a branch that is still at it.
pub(crate) const STILL_AT_IT: &str = "still at it";

/// Why something was decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// In one word.
    pub why: Why,
    /// For people.
    pub detail: String,
}

/// What changes in a transaction as a whole: one record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// Where it stands.
    pub state: State,
    /// What was decided.
    pub decision: Option<Decision>,
    /// Why it was decided so.
    pub reason: Option<Reason>,
    /// When it was decided.
    pub decided_at: Option<Moment>,
    /// When it ended.
    pub finished_at: Option<Moment>,
    /// It does not get on, and an operator should look.
    pub stuck: bool,
    /// An operator stopped it from calling anybody.
    pub paused: bool,
    /// An operator, or a database by itself, ended some of it.
    pub heuristic: bool,
    /// Steps of a saga that are to be compensated, settled when it was decided.
    pub undo: BTreeSet<u16>,
}

/// Something that happened, for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// When.
    pub at: Moment,
    /// What.
    pub what: String,
    /// Who did it.
    pub by: String,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// What it was begun with; steps know what comes before them.
    pub begin: Arc<Begin>,
    /// When.
    pub created_at: Moment,
    /// When the active phase, or a saga's forward phase, is over.
    pub deadline_at: Option<Moment>,
    /// What changes in it as a whole.
    pub register: Register,
    /// Its branches, in order of registration.
    pub branches: Vec<Branch>,
    /// What is known of the local part of a message. Not in the log.
    pub(crate) check: Option<OpRecord>,
    /// Steps may have been called that the log does not know of: it was read from there.
    pub(crate) restored: bool,
    /// What happened, the last 64.
    pub timeline: VecDeque<Note>,
    /// How many notes were dropped.
    pub timeline_dropped: u32,
}

impl Transaction {
    pub(crate) fn new(begin: Begin, now: Moment, deadline: Option<Duration>) -> Self {
        let number = |(at, step): (usize, &NewBranch)| {
            let id = step.branch.clone().unwrap_or_else(|| BranchId::number(at + 1));
            Branch::new(id, step.clone())
        };
        Self {
            created_at: now,
            deadline_at: deadline.map(|deadline| now.plus(deadline)),
            register: Register {
                state: State::Active,
                decision: None,
                reason: None,
                decided_at: None,
                finished_at: None,
                stuck: false,
                paused: false,
                heuristic: false,
                undo: BTreeSet::new(),
            },
            branches: begin.steps.iter().enumerate().map(number).collect(),
            check: None,
            restored: false,
            timeline: VecDeque::new(),
            timeline_dropped: 0,
            begin: Arc::new(begin),
        }
    }

    /// A transaction as the log has it. What the log does not hold (calls under way, states that
    /// are not durable) begins anew.
    pub fn restore(parts: Parts) -> Self {
        let Parts { begin, created_at, deadline_at, mut register, branches, timeline } = parts;
        if register.state.is_undecided() {
            register.state = State::Active;
        }
        Self {
            begin: Arc::new(begin),
            created_at,
            deadline_at,
            register,
            branches,
            check: None,
            restored: true,
            timeline: timeline.into(),
            timeline_dropped: 0,
        }
    }

    /// Takes up what an owner before has left, whose clock may have been ahead of this one: what it put
    /// off waits for no longer from now on than a wait lasts. (Its deadline stays: a clock that is set
    /// makes a transaction end earlier or later, and keeps none that is decided from ending.)
    pub(crate) fn taken_up(&mut self, now: Moment, policy: &Policy) {
        self.created_at = self.created_at.min(now);
        for record in self.branches.iter_mut().flat_map(|branch| &mut branch.ops) {
            let longest = policy.backoff_of(&self.begin, record.op).wait(u32::MAX, u32::MAX);
            record.next_at = record.next_at.min(now.plus(longest));
        }
    }

    /// Its name.
    pub fn gid(&self) -> &Gid {
        &self.begin.gid
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        self.register.state
    }

    /// Whether a call is under way, or waits for its turn.
    pub fn is_calling(&self) -> bool {
        let mut ops = self.branches.iter().flat_map(|branch| &branch.ops).chain(&self.check);
        ops.any(|record| record.in_flight)
    }

    /// The branch called `id`.
    pub fn branch(&self, id: &BranchId) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.id == *id)
    }

    /// Bytes of the bodies of all payloads, and of all else that its branches say: headers,
    /// targets, order.
    pub fn bytes(&self) -> (usize, usize) {
        let said = |branch: &Branch| {
            let Branch { part, after, payload, .. } = branch;
            (payload.bytes.len(), head_bytes(part, after, payload))
        };
        let all = self.branches.iter().map(said);
        all.fold((0, 0), |(bodies, heads), (body, head)| (bodies + body, heads + head))
    }

    pub(crate) fn note(&mut self, at: Moment, what: impl Into<String>, by: impl Into<String>) {
        if self.timeline.len() == TIMELINE_MAX {
            self.timeline.pop_front();
            self.timeline_dropped = self.timeline_dropped.saturating_add(1);
        }
        self.timeline.push_back(Note { at, what: cut(&what.into()), by: cut(&by.into()) });
    }
}

/// What the log holds of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What it was begun with.
    pub begin: Begin,
    /// When.
    pub created_at: Moment,
    /// When its active phase is over.
    pub deadline_at: Option<Moment>,
    /// What changes in it as a whole.
    pub register: Register,
    /// Its branches, in order of registration.
    pub branches: Vec<Branch>,
    /// What happened.
    pub timeline: Vec<Note>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_owner_with_a_fast_clock_put_off_is_due_when_a_wait_is_over() {
        let policy = Policy::default();
        let hours = |hours: u64| Moment::default().plus(Duration::from_hours(hours));
        let begin = Begin::new(Gid::new("order-1").unwrap(), Mode::Xa);
        let mut transaction = Transaction::new(begin, hours(3), None);
        let new = NewBranch {
            branch: None,
            part: Part::Resource(ResourceName::new("orders").unwrap()),
            after: Vec::new(),
            payload: Payload::default(),
        };
        let mut branch = Branch::new(BranchId::number(1), new);
        let mut record = OpRecord::new(Op::Commit);
        record.next_at = hours(3);
        branch.ops.push(record);
        transaction.branches.push(branch);
        // By a clock that is two hours behind that one.
        transaction.taken_up(hours(1), &policy);
        assert_eq!(transaction.created_at, hours(1));
        let due = transaction.branches[0].ops[0].next_at;
        assert_eq!(due, hours(1).plus(Duration::from_secs(72)), "a minute, and a fifth");
        // By a clock that is ahead nothing is put off.
        transaction.taken_up(hours(5), &policy);
        assert_eq!(transaction.branches[0].ops[0].next_at, due);
    }
}
