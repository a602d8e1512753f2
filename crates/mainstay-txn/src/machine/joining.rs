//! How branches join, and how the initiator ends the active phase.

use super::begin::{check_branch, check_size};
use super::{By, Step};
use crate::error::Refused;
use crate::limits::SESSION_ID_BYTES_MAX;
use crate::moment::Moment;
use crate::name::{BranchId, ResourceName};
use crate::policy::Policy;
use crate::transaction::{Branch, NewBranch, Part, Payload, Transaction};
use crate::word::{Decision, Dialect, Mode, Op, OpState, State, Vote, Why};

/// The initiator's wish to commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submit {
    /// What branches of a two-phase commit voted.
    pub votes: Vec<VoteOf>,
}

/// The vote of one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteOf {
    /// Which.
    pub branch: BranchId,
    /// The database, if the branch lies in one; then it need not have joined before.
    pub resource: Option<ResourceName>,
    /// What it said.
    pub vote: Vote,
    /// The database listed it as prepared when it voted.
    pub listed: bool,
    /// The session that prepared it, which may still hold it.
    pub session_id: Option<String>,
}

impl Transaction {
    pub(super) fn register_branch(
        &mut self,
        new: NewBranch,
        now: Moment,
        policy: &Policy,
        step: &mut Step,
    ) -> Result<(), Refused> {
        if let Some(id) = &new.branch
            && let Some(known) = self.branch(id)
        {
            let same = known.part == new.part && known.payload == new.payload;
            return if same { Ok(()) } else { Err(Refused::BranchTaken { branch: id.clone() }) };
        }
        if !matches!(self.begin.mode, Mode::Xa | Mode::Tcc) {
            return Err(self.not_allowed("register"));
        }
        if self.state() != State::Active {
            return Err(Refused::NotActive { state: self.state() });
        }
        if self.deadline_at.is_some_and(|deadline| deadline <= now) {
            return Err(Refused::DeadlinePassed);
        }
        check_branch(self.begin.mode, self.begin.dialect, &new, policy)?;
        self.check_room(1, (new.payload.bytes.len(), new.head_bytes()))?;
        let is_durable = matches!(new.part, Part::Endpoint { .. });
        let id = new.branch.clone().unwrap_or_else(|| self.next_branch());
        self.note(now, format!("branch {id} joined"), "initiator");
        step.write.branches.insert(self.branches.len());
        step.write.durable |= is_durable;
        self.branches.push(Branch::new(id, new));
        Ok(())
    }

    /// The next number that is free.
    fn next_branch(&self) -> BranchId {
        let mut number = self.branches.len() + 1;
        while self.branch(&BranchId::number(number)).is_some() {
            number += 1;
        }
        BranchId::number(number)
    }

    fn check_room(&self, branches: usize, (body, head): (usize, usize)) -> Result<(), Refused> {
        let (bodies, heads) = self.bytes();
        let count = self.branches.len() + branches;
        check_size("branches", count, (bodies + body, heads + head))
    }

    pub(super) fn submit(
        &mut self,
        submit: Submit,
        now: Moment,
        step: &mut Step,
    ) -> Result<(), Refused> {
        match self.state() {
            State::Committing | State::Committed | State::Preparing => return Ok(()),
            State::Aborting | State::Aborted => {
                return Err(Refused::Aborted(self.register.reason.clone()));
            }
            State::Mixed => return Err(Refused::Mixed),
            State::Active | State::Querying => {}
        }
        if self.begin.mode != Mode::Xa {
            self.decide(Decision::Commit, None, now, step);
            return Ok(());
        }
        let known = self.branches.len();
        self.take_votes(submit)?;
        let pending = |branch: &Branch| match &branch.part {
            Part::Resource(_) => branch.state_of(Op::Prepare) == OpState::Unknown,
            part @ Part::Endpoint { .. } => Self::is_called(part),
        };
        let unvoted = |branch: &&Branch| branch.vote.is_none();
        if self.branches.iter().any(|branch| branch.vote == Some(Vote::No)) {
            self.count_votes(now, step);
        } else if let Some(missing) =
            self.branches.iter().filter(unvoted).find(|branch| !pending(branch))
        {
            let detail = format!("branch {}", missing.id);
            self.decide_abort(Why::VoteMissing, &detail, now, step);
        } else if self.branches.iter().any(|branch| branch.vote.is_none()) {
            self.register.state = State::Preparing;
        } else {
            self.decide(Decision::Commit, None, now, step);
        }
        // The vote list that a decision writes names those that voted, and nobody else.
        let is_listed = self.register.decision.is_some();
        let stands_alone = |(_, branch): &(usize, &Branch)| !is_listed || branch.vote.is_none();
        let joined = self.branches.iter().enumerate().skip(known).filter(stands_alone);
        step.write.branches.extend(joined.map(|(at, _)| at));
        Ok(())
    }

    /// Enters a vote list. All or nothing: it is checked before anything changes.
    fn take_votes(&mut self, submit: Submit) -> Result<(), Refused> {
        let mut new = 0;
        for vote in &submit.votes {
            if vote.session_id.as_ref().is_some_and(|id| SESSION_ID_BYTES_MAX < id.len()) {
                let problem = "must be at most 64 bytes".to_owned();
                return Err(Refused::Invalid { field: "session_id", problem });
            }
            match (self.branch(&vote.branch), &vote.resource) {
                (Some(known), Some(resource)) if known.part != Part::Resource(resource.clone()) => {
                    return Err(Refused::BranchTaken { branch: vote.branch.clone() });
                }
                (None, None) => {
                    return Err(Refused::BranchUnknown { branch: vote.branch.clone() });
                }
                (None, Some(_)) => new += 1,
                (Some(_), _) => {}
            }
        }
        self.check_room(new, (0, 0))?;
        if self.begin.dialect == Dialect::Dtm {
            // There a submit says that every branch that joined has prepared.
            self.branches.iter_mut().for_each(|branch| branch.vote = Some(Vote::Yes));
        }
        for VoteOf { branch, resource, vote, listed, session_id } in submit.votes {
            let at = self.branches.iter().position(|known| known.id == branch);
            if let (None, Some(resource)) = (at, resource) {
                let (part, after) = (Part::Resource(resource), Vec::new());
                let new = NewBranch { branch: None, part, after, payload: Payload::default() };
                self.branches.push(Branch::new(branch, new));
            }
            let at = at.unwrap_or(self.branches.len() - 1);
            let Some(branch) = self.branches.get_mut(at) else { continue };
            branch.session_id = session_id;
            let is_resource = matches!(branch.part, Part::Resource(_));
            if vote == Vote::Yes && is_resource && !listed {
                // Its word is not enough: the database is asked whether it is prepared.
                branch.op_mut(Op::Prepare).advance(OpState::Unknown);
            } else {
                branch.vote = Some(vote);
            }
        }
        Ok(())
    }

    pub(super) fn abort(&mut self, by: &By, now: Moment, step: &mut Step) -> Result<(), Refused> {
        by.check()?;
        let turns = self.begin.mode == Mode::Saga;
        match self.state() {
            State::Aborting | State::Aborted => Ok(()),
            State::Mixed if self.register.decision == Some(Decision::Abort) => Ok(()),
            State::Active | State::Preparing | State::Querying => {
                self.decide_abort(by.why(), by.reason(), now, step);
                Ok(())
            }
            State::Committing if turns => {
                self.decide_abort(by.why(), by.reason(), now, step);
                Ok(())
            }
            State::Committing | State::Committed | State::Mixed => Err(Refused::Committed),
        }
    }

    pub(super) fn not_allowed(&self, verb: &'static str) -> Refused {
        Refused::NotAllowed { verb, mode: self.begin.mode, state: self.state() }
    }
}
