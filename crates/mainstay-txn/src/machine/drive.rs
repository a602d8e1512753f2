//! What may be called now, what time brings about, when everything has ended.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Effect, Finding, Step};
use crate::limits::cut;
use crate::moment::Moment;
use crate::name::BranchId;
use crate::policy::Policy;
use crate::transaction::{OpRecord, Part, Reason, Transaction};
use crate::word::{Decision, Dialect, Mode, Op, OpState, Prepare, State, Vote, Why};

/// In which order branches are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Together,
    Registered,
    Reversed,
}

impl Transaction {
    /// The operations of the phase it is in, in the order in which they are told; settled ones
    /// included.
    pub(super) fn phase(&self) -> Vec<(usize, Op)> {
        let all = self.branches.iter().enumerate();
        let voted = |vote: Option<Vote>| move |given: &Option<Vote>| *given == vote;
        let places: Vec<usize> = match (self.state(), self.begin.mode) {
            (State::Preparing, _) => {
                all.filter(|(_, branch)| branch.vote.is_none()).map(|(at, _)| at).collect()
            }
            (State::Committing, Mode::Xa) => all
                .filter(|(_, branch)| voted(Some(Vote::Yes))(&branch.vote))
                .map(|(at, _)| at)
                .collect(),
            (State::Aborting, Mode::Xa) => all
                .filter(|(_, branch)| !voted(Some(Vote::ReadOnly))(&branch.vote))
                .map(|(at, _)| at)
                .collect(),
            (State::Aborting, Mode::Saga) => {
                self.register.undo.iter().map(|place| usize::from(*place)).collect()
            }
            (State::Committing, _) | (State::Aborting, Mode::Tcc) => {
                all.map(|(at, _)| at).collect()
            }
            _ => Vec::new(),
        };
        let Some(op) = self.phase_op() else { return Vec::new() };
        let mut asked: Vec<(usize, Op)> = places.into_iter().map(|at| (at, op)).collect();
        if self.order() == Order::Reversed {
            asked.reverse();
        }
        asked
    }

    /// What branches are asked in the phase it is in.
    fn phase_op(&self) -> Option<Op> {
        Some(match (self.register.state, self.begin.mode) {
            (State::Preparing, _) => Op::Prepare,
            (State::Committing, Mode::Xa) => Op::Commit,
            (State::Committing, Mode::Tcc) => Op::Confirm,
            (State::Committing, Mode::Saga | Mode::Message) => Op::Action,
            (State::Aborting, Mode::Xa) => Op::Rollback,
            (State::Aborting, Mode::Tcc) => Op::Cancel,
            (State::Aborting, Mode::Saga) => Op::Compensate,
            _ => return None,
        })
    }

    fn order(&self) -> Order {
        let begin = &self.begin;
        match (begin.mode, begin.dialect, self.state()) {
            (_, _, State::Preparing) | (Mode::Saga | Mode::Message, _, _) => Order::Together,
            (Mode::Tcc, Dialect::Dtm, _) => Order::Reversed,
            (Mode::Xa, Dialect::Dtm, _) => Order::Registered,
            (_, Dialect::Native, State::Committing) if begin.ordered => Order::Registered,
            (_, Dialect::Native, _) if begin.ordered => Order::Reversed,
            _ => Order::Together,
        }
    }

    /// Operations that are neither settled nor behind another.
    fn open(&self) -> Vec<(usize, Op)> {
        let state_of = |at: usize, op| self.branches.get(at).map(|branch| branch.state_of(op));
        let unsettled =
            |(at, op): &(usize, Op)| state_of(*at, *op).is_some_and(|state| !state.is_settled());
        let phase = self.phase();
        if matches!(self.order(), Order::Registered | Order::Reversed) {
            // The first that is not settled is the only one that is free.
            return phase.into_iter().find(unsettled).into_iter().collect();
        }
        let rest: Vec<(usize, Op)> = phase.into_iter().filter(unsettled).collect();
        let after = |at: usize| self.branches.get(at).map_or(&[][..], |branch| &branch.after[..]);
        match self.phase_op() {
            Some(Op::Action) => {
                let done = |at: &u16| state_of(usize::from(*at), Op::Action) == Some(OpState::Done);
                rest.into_iter().filter(|(at, _)| after(*at).iter().all(done)).collect()
            }
            Some(Op::Compensate) => {
                // What a step built upon is undone after the step.
                let blocked: BTreeSet<u16> =
                    rest.iter().flat_map(|(at, _)| after(*at).iter().copied()).collect();
                let is_free = |at: usize| u16::try_from(at).is_ok_and(|at| !blocked.contains(&at));
                rest.into_iter().filter(|(at, _)| is_free(*at)).collect()
            }
            _ => rest,
        }
    }

    /// What is due by the clock alone.
    pub(super) fn pass_time(&mut self, now: Moment, policy: &Policy, step: &mut Step) {
        // What the answer just taken in has ended is not late any more.
        let is_over = |at: Moment| at <= now && !self.has_ended();
        let is_late = self.deadline_at.is_some_and(is_over);
        let is_given_up = self.gives_up_at().is_some_and(is_over);
        match (self.state(), self.begin.mode) {
            (State::Active, Mode::Message) if is_late => {
                self.register.state = State::Querying;
                self.check = Some(OpRecord::new(Op::Check));
                self.note(now, "deadline passed: asking its sender", "coordinator");
            }
            (State::Active | State::Preparing, _) | (State::Committing, Mode::Saga) if is_late => {
                self.decide_abort(Why::Deadline, "", now, step);
            }
            _ => {}
        }
        if is_given_up {
            let detail = self.branches.first().and_then(|branch| branch.op(Op::Action));
            let detail = detail.and_then(|record| record.last_error.clone()).unwrap_or_default();
            self.register.reason = Some(Reason { why: Why::GaveUp, detail: cut(&detail) });
            self.register.decision = Some(Decision::Abort);
            self.note(now, "given up", "coordinator");
            self.end(State::Aborted, now, step);
            (step.write.durable, step.write.register) = (true, true);
        }
        let is_slow = self.slow_at(policy).is_some_and(|at| at <= now);
        if is_slow {
            self.get_stuck(None, "it has taken too long since its decision", step);
        }
    }

    /// When a message is given up.
    fn gives_up_at(&self) -> Option<Moment> {
        let after = self.begin.give_up_after.filter(|_| self.state() == State::Committing)?;
        (self.begin.mode == Mode::Message).then(|| self.created_at.plus(after))
    }

    /// When it has taken too long since it was decided.
    fn slow_at(&self, policy: &Policy) -> Option<Moment> {
        let told = matches!(self.state(), State::Committing | State::Aborting);
        let decided_at = self.register.decided_at.filter(|_| told && !self.register.stuck)?;
        // A message that is to wait is not slow.
        let due = decided_at.max(self.created_at.plus(self.begin.delay));
        Some(due.plus(policy.stuck_after))
    }

    pub(super) fn get_stuck(&mut self, branch: Option<BranchId>, why: &str, step: &mut Step) {
        if !self.register.stuck {
            self.register.stuck = true;
            step.write.register = true;
            step.effects.push(Effect::Found(Finding::Stuck { branch, why: cut(why) }));
        }
    }

    /// When time will bring something about, if nothing else happens before. `None`: never.
    pub fn next_at(&self, policy: &Policy) -> Option<Moment> {
        let guarded = matches!(
            (self.state(), self.begin.mode),
            (State::Active | State::Preparing, _) | (State::Committing, Mode::Saga)
        );
        let deadline = self.deadline_at.filter(|_| guarded);
        let mut moments = vec![deadline, self.gives_up_at(), self.slow_at(policy)];
        if !self.register.paused {
            if self.state() == State::Querying {
                let check = self.check.as_ref().filter(|record| !record.in_flight);
                moments.push(check.map(|record| record.next_at));
            }
            moments.extend(self.open().into_iter().map(|(at, op)| self.due_at(at, op)));
        }
        moments.into_iter().flatten().min()
    }

    /// When `op` of the branch at `at` is due; `None` while a call is under way.
    fn due_at(&self, at: usize, op: Op) -> Option<Moment> {
        let record = self.branches.get(at)?.op(op);
        if record.is_some_and(|record| record.in_flight) {
            return None;
        }
        let due = record.map_or_else(Moment::default, |record| record.next_at);
        let delay = if op == Op::Action { self.begin.delay } else { Duration::ZERO };
        Some(due.max(self.created_at.plus(delay)))
    }

    /// Calls whoever can be called, and ends what has ended.
    pub(super) fn drive(&mut self, now: Moment, step: &mut Step) {
        if self.state() == State::Querying {
            self.ask_sender(now, step);
            return;
        }
        while !self.state().is_final() {
            if self.state() == State::Preparing {
                self.count_votes(now, step);
            }
            if self.has_ended() {
                self.finish(now, step);
                return;
            }
            if self.register.paused {
                return;
            }
            let mut skipped = false;
            for (at, op) in self.open() {
                let is_due = self.due_at(at, op).is_some_and(|due| due <= now);
                let Some(branch) = self.branches.get_mut(at).filter(|_| is_due) else { continue };
                if branch.goes_to(op).is_none() {
                    branch.op_mut(op).advance(OpState::Done);
                    skipped = true;
                    continue;
                }
                let (branch_id, record) = (branch.id.clone(), branch.op_mut(op));
                record.in_flight = true;
                let attempt = record.attempts.saturating_add(1);
                step.effects.push(Effect::Call { branch: branch_id, op, attempt });
            }
            if !skipped {
                return;
            }
        }
    }

    fn ask_sender(&mut self, now: Moment, step: &mut Step) {
        let paused = self.register.paused;
        let due = |record: &&mut OpRecord| !paused && !record.in_flight && record.next_at <= now;
        let Some(record) = self.check.as_mut().filter(due) else { return };
        record.in_flight = true;
        let attempt = record.attempts.saturating_add(1);
        let branch = BranchId::initiator();
        step.effects.push(Effect::Call { branch, op: Op::Check, attempt });
    }

    /// Whether every branch has heard of the decision.
    fn has_ended(&self) -> bool {
        let told = matches!(self.state(), State::Committing | State::Aborting);
        let settled = |(at, op): &(usize, Op)| {
            self.branches.get(*at).is_none_or(|branch| branch.state_of(*op).is_settled())
        };
        told && self.phase().iter().all(settled)
    }

    fn finish(&mut self, now: Moment, step: &mut Step) {
        if self.branches.iter().any(|branch| branch.heuristic) {
            self.register.state = State::Mixed;
            self.register.heuristic = true;
            self.register.stuck = true;
            self.note(now, "ended mixed", "coordinator");
            (step.write.durable, step.write.register) = (true, true);
            step.effects.push(Effect::Found(Finding::Mixed));
            return;
        }
        let state = match self.register.decision {
            Some(Decision::Commit) => State::Committed,
            _ => State::Aborted,
        };
        if state == State::Committed && self.may_turn_round() {
            // Until the log says so, whoever goes on after a crash may decide otherwise.
            (step.write.durable, step.write.register) = (true, true);
        }
        self.end(state, now, step);
    }

    /// Whether a decision to commit may become one to abort before it has ended.
    fn may_turn_round(&self) -> bool {
        match self.begin.mode {
            Mode::Saga => true,
            Mode::Message => self.begin.give_up_after.is_some(),
            Mode::Tcc | Mode::Xa => false,
        }
    }

    pub(super) fn end(&mut self, state: State, now: Moment, step: &mut Step) {
        self.register.state = state;
        self.register.finished_at = Some(now);
        self.register.stuck = false;
        self.note(now, state.as_str(), "coordinator");
        step.effects.push(Effect::End);
    }

    /// Decides, once every branch has voted.
    pub(super) fn count_votes(&mut self, now: Moment, step: &mut Step) {
        let no = self.branches.iter().find(|branch| branch.vote == Some(Vote::No));
        if let Some(branch) = no {
            let detail = format!("branch {}", branch.id);
            self.decide_abort(Why::VoteNo, &detail, now, step);
        } else if self.branches.iter().all(|branch| branch.vote.is_some()) {
            self.decide(Decision::Commit, None, now, step);
        }
    }

    /// Whether the branch has to be asked for its vote.
    pub(super) const fn is_called(part: &Part) -> bool {
        matches!(part, Part::Endpoint { prepare: Prepare::Called, .. })
    }
}
