//! The coordinator of one transaction, as a machine.
//!
//! ```text
//! absent ── begin ──▶ active ── submit, all votes yes ──▶ committing ── all acknowledged ──▶ committed
//!              │         │  ▲                                 │ a step of a saga fails
//!              │         ▼  │ failover                        ▼
//!              │   preparing, querying ── no, deadline ──▶ aborting ── all acknowledged ──▶ aborted
//!              └── saga, message: submitted at once ──▶ committing
//! ```
//!
//! [`Transaction::step`] takes an event and the moment it happened, and returns a [`Step`]: what
//! has to be written and, as data, what follows from it. **Effects are released only when a
//! durable write has been acknowledged**: that one rule, kept by whoever drives the machine, is
//! what makes an outcome known before anybody is told of it. If the write fails the caller puts
//! the transaction back as it was before the step, and nothing has happened.
//!
//! Events of one transaction are taken one at a time, whatever they are: requests, answers,
//! timers, what a sweep has seen.

mod amend;
mod answer;
mod begin;
mod drive;
mod joining;
mod operate;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

pub use amend::Amendment;
pub use joining::{Submit, VoteOf};
pub use operate::{By, Resolution};

use crate::error::Refused;
use crate::moment::Moment;
use crate::name::BranchId;
use crate::policy::Policy;
use crate::transaction::{NewBranch, Reason, Transaction};
use crate::word::{Decision, Mode, Op, State, Why};

/// Something that happened to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A branch wants to join.
    Register(NewBranch),
    /// The initiator says again how it is to be driven.
    Amend(Box<Amendment>),
    /// The initiator wants it committed.
    Submit(Submit),
    /// Somebody wants it aborted.
    Abort(By),
    /// A call that an effect asked for has come back.
    Answered {
        /// Of which branch.
        branch: BranchId,
        /// What it was asked.
        op: Op,
        /// What came back.
        outcome: Outcome,
        /// Picks the blur of the wait before the next attempt.
        draw: u32,
    },
    /// Time has gone by: what is due may happen.
    Time,
    /// An operator wants everything tried now.
    Retry(By),
    /// An operator wants nobody called.
    Pause(By),
    /// An operator wants calls again.
    Resume(By),
    /// An operator says how it ended.
    Resolve(Resolution),
}

/// What came back from a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or yes.
    Done,
    /// No, for good.
    Refused(String),
    /// Still at it.
    Ongoing,
    /// Nobody knows.
    Unknown(String),
    /// Provably not sent.
    Unsent {
        /// Why.
        why: String,
        /// When it makes sense again, where that is known (an open circuit); then no attempt is
        /// counted.
        retry_after: Option<Duration>,
    },
    /// The branch is prepared, and a live session of the database holds it.
    Held(String),
    /// The database does not let us: credentials, privileges.
    Denied(String),
    /// Evidence that the branch ended against the decision.
    Contradicted(String),
}

/// What has to be written. Everything named is written as it is after the step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Effects wait for it; if not, it may wait for others.
    pub durable: bool,
    /// What the transaction was begun with.
    pub body: bool,
    /// What changes in it as a whole.
    pub register: bool,
    /// Branches, by their place.
    pub branches: BTreeSet<usize>,
}

impl Write {
    /// Nothing is to be written.
    pub fn is_empty(&self) -> bool {
        !self.body && !self.register && self.branches.is_empty()
    }
}

/// Something that is to be done, in the order given, once the write is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Call a branch; what comes back is an [`Event::Answered`].
    Call {
        /// Which.
        branch: BranchId,
        /// What it is asked.
        op: Op,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Tell the operator.
    Found(Finding),
    /// It is over: run the hooks until they succeed, then write the end and forget it.
    End,
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It does not get on.
    Stuck {
        /// Because of which branch; `None` is time.
        branch: Option<BranchId>,
        /// What was wrong last.
        why: String,
    },
    /// A branch ended against the decision.
    Contradiction {
        /// Which.
        branch: BranchId,
        /// The evidence.
        evidence: String,
    },
    /// Everything has ended, and not alike.
    Mixed,
}

/// What follows from an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What has to be written.
    pub write: Write,
    /// What is to be done then.
    pub effects: Vec<Effect>,
}

impl Transaction {
    /// Takes one event in.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the transaction is as it was.
    pub fn step(&mut self, event: Event, now: Moment, policy: &Policy) -> Result<Step, Refused> {
        let mut step = Step::default();
        match event {
            Event::Register(branch) => self.register_branch(branch, now, policy, &mut step)?,
            Event::Amend(amendment) => self.amend(*amendment, &mut step)?,
            Event::Submit(submit) => self.submit(submit, now, &mut step)?,
            Event::Abort(by) => self.abort(&by, now, &mut step)?,
            Event::Answered { branch, op, outcome, draw } => {
                self.answered((&branch, op), outcome, (now, draw, policy), &mut step);
            }
            Event::Time => {}
            Event::Retry(by) => self.retry(&by, now, &mut step)?,
            Event::Pause(by) => self.pause(&by, true, now, &mut step)?,
            Event::Resume(by) => self.pause(&by, false, now, &mut step)?,
            Event::Resolve(resolution) => self.resolve(&resolution, now, &mut step)?,
        }
        self.pass_time(now, policy, &mut step);
        self.drive(now, &mut step);
        Ok(step)
    }

    /// The decision. It is made once; only a saga that goes forward may turn round.
    fn decide(&mut self, decision: Decision, reason: Option<Reason>, now: Moment, step: &mut Step) {
        let turns = self.register.decision == Some(Decision::Commit)
            && self.begin.mode == Mode::Saga
            && self.state() == State::Committing;
        debug_assert!(
            self.register.decision.is_none() || (turns && decision == Decision::Abort),
            "{}: decided twice",
            self.gid()
        );
        let why = reason.as_ref().map_or(Why::Asked, |reason| reason.why);
        if decision == Decision::Abort && self.begin.mode == Mode::Saga {
            self.register.undo = self.may_have_started();
        }
        self.register.decision = Some(decision);
        self.register.reason = reason;
        self.register.decided_at = Some(now);
        self.register.stuck = false;
        self.register.state = match decision {
            Decision::Commit => State::Committing,
            Decision::Abort => State::Aborting,
        };
        self.note(now, format!("decided {decision}: {why}"), "coordinator");
        step.write.durable = true;
        step.write.register = true;
    }

    fn decide_abort(&mut self, why: Why, detail: &str, now: Moment, step: &mut Step) {
        let reason = Reason { why, detail: crate::limits::cut(detail) };
        self.decide(Decision::Abort, Some(reason), now, step);
    }

    /// Steps that have been called, as far as can be known: what a failover forgot counts as
    /// called. To compensate one that was not is harmless, its barrier sees to that; not to
    /// compensate one that was is not.
    fn may_have_started(&self) -> BTreeSet<u16> {
        let started = |(_, branch): &(usize, &crate::transaction::Branch)| {
            self.restored
                || branch.state_of(Op::Action) != crate::word::OpState::Waiting
                || branch.op(Op::Action).is_some_and(|record| record.in_flight)
        };
        let places = self.branches.iter().enumerate().filter(started);
        places.filter_map(|(at, _)| u16::try_from(at).ok()).collect()
    }

    /// Whether the call that an effect asked for is still wanted, to be asked just before it is
    /// sent: it may have waited for its turn.
    pub fn wants(&self, branch: &BranchId, op: Op) -> bool {
        !self.register.paused
            && match self.places(branch) {
                Some(Place::Check) => self.state() == State::Querying,
                Some(Place::Branch(at)) => self.phase().contains(&(at, op)),
                None => false,
            }
    }

    fn places(&self, id: &BranchId) -> Option<Place> {
        if *id == BranchId::initiator() {
            return Some(Place::Check);
        }
        self.branches.iter().position(|branch| branch.id == *id).map(Place::Branch)
    }
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The initiator, about the local part of its message.
    Check,
    /// A branch.
    Branch(usize),
}
