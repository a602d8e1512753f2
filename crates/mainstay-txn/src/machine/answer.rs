//! What an answer means.

use super::{Effect, Finding, Outcome, Place, Step};
use crate::backoff::held;
use crate::limits::cut;
use crate::moment::Moment;
use crate::name::BranchId;
use crate::policy::Policy;
use crate::transaction::{Goal, OpRecord, STILL_AT_IT, Transaction};
use crate::word::{Decision, Dialect, Mode, Op, OpState, State, Vote, Why};

/// When an answer came, what blurs the next wait, and by what it is judged.
type Circumstance<'a> = (Moment, u32, &'a Policy);

impl Transaction {
    /// Takes in what came back from a call. An answer nobody waits for changes nothing; nor does one
    /// after the end, which is written in place of all that was live.
    pub(super) fn answered(
        &mut self,
        (branch, op): (&BranchId, Op),
        outcome: Outcome,
        circumstance: Circumstance<'_>,
        step: &mut Step,
    ) {
        if self.state().is_final() {
            return;
        }
        match self.places(branch) {
            Some(Place::Check) => self.sender_answered(outcome, circumstance, step),
            Some(Place::Branch(at)) => {
                let asked = self.branches.get_mut(at).map(|branch| branch.op_mut(op));
                let Some(record) = asked.filter(|record| record.in_flight) else { return };
                record.in_flight = false;
                if record.state.is_settled() {
                    return; // An operator was faster.
                }
                step.write.branches.insert(at);
                self.take(at, op, outcome, circumstance, step);
            }
            None => {}
        }
    }

    /// An answer could not be written down, so it counts as never received: the call is made again
    /// after a wait. To be called once the transaction is as it was before the answer.
    pub fn ask_again(&mut self, branch: &BranchId, op: Op, now: Moment, policy: &Policy) {
        let wait = policy.backoff_of(&self.begin, op).wait(0, 0);
        let record = match self.places(branch) {
            Some(Place::Check) => self.check.as_mut(),
            Some(Place::Branch(at)) => self.branches.get_mut(at).map(|branch| branch.op_mut(op)),
            None => None,
        };
        if let Some(record) = record.filter(|record| record.in_flight) {
            record.in_flight = false;
            record.next_at = now.plus(wait);
            record.advance(OpState::Unknown);
        }
    }

    fn take(
        &mut self,
        at: usize,
        op: Op,
        outcome: Outcome,
        circumstance: Circumstance<'_>,
        step: &mut Step,
    ) {
        let (now, _, policy) = circumstance;
        let wanted = self.phase().contains(&(at, op));
        let is_first_phase = matches!(op, Op::Prepare) || (op == Op::Action && self.is_saga());
        let denied = matches!(outcome, Outcome::Denied(_));
        let refused = matches!(outcome, Outcome::Refused(_));
        let Some(branch) = self.branches.get_mut(at) else { return };
        let id = branch.id.clone();
        match outcome {
            Outcome::Done => {
                branch.op_mut(op).advance(OpState::Done);
                if op == Op::Prepare && wanted {
                    branch.vote = Some(Vote::Yes);
                }
            }
            Outcome::Refused(why) if is_first_phase => {
                let record = branch.op_mut(op);
                record.advance(OpState::Failed);
                record.last_error = Some(cut(&why));
                if op == Op::Prepare && wanted {
                    branch.vote = Some(Vote::No);
                } else if wanted {
                    let detail = self.step_failed(&id, &why);
                    self.decide_abort(Why::StepFailed, &detail, now, step);
                }
            }
            Outcome::Contradicted(evidence) => {
                branch.heuristic = true;
                let record = branch.op_mut(op);
                record.advance(OpState::Failed);
                record.last_error = Some(cut(&evidence));
                self.register.heuristic = true;
                self.note(now, format!("{id} ended against the decision"), "coordinator");
                (step.write.durable, step.write.register) = (true, true);
                step.effects.push(Effect::Found(Finding::Contradiction {
                    branch: id,
                    evidence: cut(&evidence),
                }));
            }
            outcome => {
                let backoff = policy.backoff_of(&self.begin, op);
                // Few tries are few tries, whatever comes of them.
                let counts = op == Op::Action
                    && self.begin.dialect == Dialect::Dtm
                    && self.begin.retry_limit.is_some()
                    && outcome == Outcome::Ongoing;
                let record = branch.op_mut(op);
                record.attempts = record.attempts.saturating_add(u32::from(counts));
                put_off(record, outcome, circumstance, &backoff);
                if wanted {
                    self.judge((at, op), denied || refused, circumstance, step);
                }
            }
        }
    }

    /// Whether what has just failed means more than another attempt.
    fn judge(
        &mut self,
        (at, op): (usize, Op),
        at_once: bool,
        (now, _, policy): Circumstance<'_>,
        step: &mut Step,
    ) {
        let Some(branch) = self.branches.get(at) else { return };
        let Some(record) = branch.op(op) else { return };
        let (id, attempts) = (branch.id.clone(), record.attempts);
        let why = record.last_error.clone().unwrap_or_default();
        if let Some(limit) = self.begin.retry_limit.filter(|_| self.is_saga() && op == Op::Action)
            && limit < attempts
        {
            let detail = format!("{id}: more than {limit} retries; {why}");
            self.decide_abort(Why::RetryLimit, &detail, now, step);
            return;
        }
        let told = matches!(self.state(), State::Committing | State::Aborting);
        if told && (at_once || policy.stuck_attempts <= attempts) {
            self.get_stuck(Some(id), &why, step);
        }
    }

    fn sender_answered(
        &mut self,
        outcome: Outcome,
        circumstance: Circumstance<'_>,
        step: &mut Step,
    ) {
        let (now, _, policy) = circumstance;
        let backoff = policy.backoff_of(&self.begin, Op::Check);
        let is_asked = self.state() == State::Querying;
        let Some(record) = self.check.as_mut().filter(|record| record.in_flight) else { return };
        record.in_flight = false;
        if !is_asked {
            return;
        }
        match outcome {
            Outcome::Done => self.decide(Decision::Commit, None, now, step),
            Outcome::Refused(why) => self.decide_abort(Why::CheckRefused, &why, now, step),
            outcome => put_off(record, outcome, circumstance, &backoff),
        }
    }

    /// Why a saga turned round, in the words of its dialect.
    fn step_failed(&self, id: &BranchId, why: &str) -> String {
        let url = self.branch(id).and_then(|branch| branch.goes_to(Op::Action));
        match (self.begin.dialect, url) {
            (Dialect::Dtm, Some(Goal::Endpoint(url))) => format!("url:{url} return failed: {why}"),
            _ => format!("{id}: {why}"),
        }
    }

    fn is_saga(&self) -> bool {
        self.begin.mode == Mode::Saga
    }
}

/// Settles when an operation is asked for again, and what is known of it until then.
fn put_off(
    record: &mut OpRecord,
    outcome: Outcome,
    (now, draw, _): Circumstance<'_>,
    backoff: &crate::backoff::Backoff,
) {
    let (why, counts, wait) = match outcome {
        Outcome::Ongoing => {
            record.advance(OpState::Unknown);
            (STILL_AT_IT.to_owned(), false, None)
        }
        Outcome::Unsent { why, retry_after } => (why, retry_after.is_none(), retry_after),
        Outcome::Held(by) => {
            record.advance(OpState::Unknown);
            let wait = held(record.held);
            record.held = record.held.saturating_add(1);
            (by, wait.is_none(), wait)
        }
        Outcome::Unknown(why)
        | Outcome::Denied(why)
        | Outcome::Refused(why)
        | Outcome::Contradicted(why) => {
            record.advance(OpState::Unknown);
            (why, true, None)
        }
        Outcome::Done => return,
    };
    if counts {
        record.attempts = record.attempts.saturating_add(1);
    }
    record.last_error = Some(cut(&why));
    record.next_at = now.plus(wait.unwrap_or_else(|| backoff.wait(record.attempts, draw)));
}
