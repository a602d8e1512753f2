//! One transaction, and words to speak to it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::Refused;
use crate::machine::{By, Effect, Event, Finding, Outcome, Step, Submit, VoteOf};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::policy::Policy;
use crate::target::Target;
use crate::transaction::{Begin, NewBranch, Part, Payload, Transaction};
use crate::word::{Mode, Op, Prepare, State, Vote};

/// Begins all stories: any moment will do.
pub(super) const START: Moment = Moment::from_unix_millis(1_700_000_000_000);

/// The default policy without blur.
pub(super) fn policy() -> Policy {
    Policy { backoff: Backoff::default().exact(), ..Policy::default() }
}

pub(super) fn begin(mode: Mode) -> Begin {
    let mut begin = Begin::new(Gid::new("order-1").unwrap(), mode);
    begin.submit = mode == Mode::Saga;
    begin
}

pub(super) fn endpoint(ops: &[Op], prepare: Prepare) -> NewBranch {
    let target = |op: &Op| (*op, Target::Url(format!("http://stock/{op}")));
    let targets: BTreeMap<Op, Target> = ops.iter().map(target).collect();
    let part = Part::Endpoint { targets: targets.into(), prepare };
    NewBranch { branch: None, part, after: Vec::new(), payload: Payload::default() }
}

pub(super) fn step() -> NewBranch {
    endpoint(&[Op::Action, Op::Compensate], Prepare::Own)
}

pub(super) fn tcc() -> NewBranch {
    endpoint(&[Op::Confirm, Op::Cancel], Prepare::Own)
}

pub(super) fn own() -> NewBranch {
    endpoint(&[Op::Commit, Op::Rollback], Prepare::Own)
}

pub(super) fn called() -> NewBranch {
    endpoint(&[Op::Prepare, Op::Commit, Op::Rollback], Prepare::Called)
}

pub(super) fn resource(name: &str) -> NewBranch {
    let part = Part::Resource(ResourceName::new(name).unwrap());
    NewBranch { branch: None, part, after: Vec::new(), payload: Payload::default() }
}

pub(super) fn id(number: usize) -> BranchId {
    BranchId::number(number)
}

pub(super) fn vote(number: usize, vote: Vote) -> VoteOf {
    VoteOf { branch: id(number), resource: None, vote, listed: true, session_id: None }
}

pub(super) fn operator() -> By {
    By::Operator { name: "ada".to_owned(), reason: "the shop is closed".to_owned() }
}

/// A transaction, the time, and what it did last.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) transaction: Transaction,
    pub(super) policy: Policy,
    pub(super) now: Moment,
    pub(super) last: Step,
}

impl Stage {
    pub(super) fn new(begin: Begin) -> Self {
        let policy = policy();
        let (transaction, last) = Transaction::begin(begin, START, &policy).unwrap();
        Self { transaction, policy, now: START, last }
    }

    /// A saga whose steps are serial.
    pub(super) fn saga(steps: usize) -> Self {
        Self::new(Begin { steps: vec![step(); steps], ..begin(Mode::Saga) })
    }

    /// A two-phase commit or TCC that `branches` have joined.
    pub(super) fn joined(mode: Mode, branches: &[NewBranch]) -> Self {
        let mut stage = Self::new(begin(mode));
        for branch in branches {
            stage.does(Event::Register(branch.clone()));
        }
        stage
    }

    pub(super) fn tries(&mut self, event: Event) -> Result<(), Refused> {
        self.last = self.transaction.step(event, self.now, &self.policy)?;
        Ok(())
    }

    #[track_caller]
    pub(super) fn does(&mut self, event: Event) -> &mut Self {
        self.tries(event).unwrap_or_else(|refused| panic!("{refused}"));
        self
    }

    #[track_caller]
    pub(super) fn submits(&mut self, votes: &[VoteOf]) -> &mut Self {
        self.does(Event::Submit(Submit { votes: votes.to_vec() }))
    }

    #[track_caller]
    pub(super) fn answers(&mut self, number: usize, op: Op, outcome: Outcome) -> &mut Self {
        self.does(Event::Answered { branch: id(number), op, outcome, draw: 0 })
    }

    #[track_caller]
    pub(super) fn done(&mut self, number: usize, op: Op) -> &mut Self {
        self.answers(number, op, Outcome::Done)
    }

    #[track_caller]
    pub(super) fn sender_answers(&mut self, outcome: Outcome) -> &mut Self {
        let branch = BranchId::initiator();
        self.does(Event::Answered { branch, op: Op::Check, outcome, draw: 0 })
    }

    /// Time passes in one go.
    #[track_caller]
    pub(super) fn waits(&mut self, span: Duration) -> &mut Self {
        self.now = self.now.plus(span);
        self.does(Event::Time)
    }

    /// What the last step called, as `01 commit`.
    pub(super) fn calls(&self) -> Vec<String> {
        let call = |effect: &Effect| match effect {
            Effect::Call { branch, op, .. } => Some(format!("{branch} {op}")),
            _ => None,
        };
        self.last.effects.iter().filter_map(call).collect()
    }

    pub(super) fn findings(&self) -> Vec<&Finding> {
        let found = |effect: &'_ Effect| matches!(effect, Effect::Found(_));
        let found = self.last.effects.iter().filter(|effect| found(effect));
        found
            .filter_map(|effect| match effect {
                Effect::Found(finding) => Some(finding),
                _ => None,
            })
            .collect()
    }

    /// What the last step led to: state, whether it waits for the log, what it called.
    #[track_caller]
    pub(super) fn is(&self, state: State, durable: bool, calls: &[&str]) -> &Self {
        assert_eq!(self.transaction.state(), state, "{:?}", self.last);
        assert_eq!(self.last.write.durable, durable, "{:?}", self.last);
        assert_eq!(self.calls(), calls);
        assert_eq!(self.last.effects.contains(&Effect::End), state.is_final());
        self
    }
}
