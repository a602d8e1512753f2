//! What people do to a transaction. Every verb has a reason and is durable before its answer.

use super::Step;
use crate::error::Refused;
use crate::limits::REASON_CHARS;
use crate::moment::Moment;
use crate::name::{BranchId, Gid};
use crate::transaction::{Begin, Reason, Transaction};
use crate::word::{Decision, Dialect, Mode, Op, OpState, State, Why};

/// Who asks, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Whoever began the transaction; it need not say why.
    Initiator(String),
    /// A person.
    Operator {
        /// Who.
        name: String,
        /// 3 to 500 characters.
        reason: String,
    },
}

impl By {
    pub(crate) fn check(&self) -> Result<(), Refused> {
        match self {
            Self::Initiator(_) => Ok(()),
            Self::Operator { reason, .. } if REASON_CHARS.contains(&reason.chars().count()) => {
                Ok(())
            }
            Self::Operator { .. } => Err(Refused::Invalid {
                field: "reason",
                problem: "must have 3 to 500 characters: others will ask why".to_owned(),
            }),
        }
    }

    pub(super) const fn why(&self) -> Why {
        match self {
            Self::Initiator(_) => Why::Asked,
            Self::Operator { .. } => Why::Operator,
        }
    }

    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Initiator(reason) | Self::Operator { reason, .. } => reason,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Initiator(_) => "initiator",
            Self::Operator { name, .. } => name,
        }
    }
}

/// How a person says that something ended. No branch is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Who says so, and why.
    pub by: By,
    /// How it ended.
    pub decision: Decision,
    /// Which branch; `None` is all that have not ended.
    pub branch: Option<BranchId>,
}

impl Transaction {
    pub(super) fn retry(&mut self, by: &By, now: Moment, step: &mut Step) -> Result<(), Refused> {
        by.check()?;
        if self.state().is_final() {
            return Err(self.not_allowed("retry"));
        }
        for (at, op) in self.phase() {
            let Some(branch) = self.branches.get_mut(at) else { continue };
            let record = branch.op_mut(op);
            if !record.state.is_settled() {
                record.next_at = now;
            }
        }
        if let Some(check) = &mut self.check {
            check.next_at = now;
        }
        self.was_operated("retry", by, now, step);
        Ok(())
    }

    pub(super) fn pause(
        &mut self,
        by: &By,
        paused: bool,
        now: Moment,
        step: &mut Step,
    ) -> Result<(), Refused> {
        let verb = if paused { "pause" } else { "resume" };
        by.check()?;
        if self.state().is_final() {
            return Err(self.not_allowed(verb));
        }
        if self.register.paused != paused {
            self.register.paused = paused;
            self.was_operated(verb, by, now, step);
        }
        Ok(())
    }

    pub(super) fn resolve(
        &mut self,
        resolution: &Resolution,
        now: Moment,
        step: &mut Step,
    ) -> Result<(), Refused> {
        let Resolution { by, decision, branch } = resolution;
        by.check()?;
        let state = match decision {
            Decision::Commit => State::Committed,
            Decision::Abort => State::Aborted,
        };
        if self.state() == state && self.register.heuristic {
            return Ok(()); // Said before.
        }
        // The stop of the DTM protocol also ends what nobody has decided.
        let stops = self.begin.dialect == Dialect::Dtm && self.state().is_undecided();
        let told = matches!(self.state(), State::Committing | State::Aborting | State::Mixed);
        let possible = told || (stops && branch.is_none() && *decision == Decision::Abort);
        if !possible {
            return Err(self.not_allowed("resolve"));
        }
        let against = self.register.decision.is_some_and(|decided| decided != *decision);
        let open = self.phase();
        if let Some(id) = branch {
            let at = self.branches.iter().position(|known| known.id == *id);
            let asked = open.iter().find(|(place, _)| Some(*place) == at);
            let Some((at, op)) = asked else {
                return Err(Refused::BranchUnknown { branch: id.clone() });
            };
            self.settle(*at, *op, against);
            step.write.branches.insert(*at);
        } else {
            // A thousand branches do not fit one batch: the register says that all of it ended.
            for (at, op) in open {
                self.settle(at, op, against);
            }
            if self.register.decision.is_none() {
                let reason = Reason { why: by.why(), detail: crate::limits::cut(by.reason()) };
                self.register.decision = Some(*decision);
                self.register.decided_at = Some(now);
                self.register.reason = Some(reason);
            }
            self.register.heuristic = true;
        }
        self.was_operated(&format!("resolve as {state}"), by, now, step);
        if branch.is_none() {
            self.end(state, now, step);
        }
        Ok(())
    }

    /// Ends one operation by hand.
    fn settle(&mut self, at: usize, op: Op, against: bool) {
        let Some(branch) = self.branches.get_mut(at) else { return };
        if branch.state_of(op).is_settled() {
            return;
        }
        let record = branch.op_mut(op);
        record.by_hand = true;
        record.advance(if against { OpState::Failed } else { OpState::Done });
        branch.heuristic |= against;
    }

    fn was_operated(&mut self, what: &str, by: &By, now: Moment, step: &mut Step) {
        self.note(now, format!("{what}: {}", by.reason()), by.name());
        (step.write.durable, step.write.register) = (true, true);
    }

    /// The message that delivers again what was given up, as number `n`.
    ///
    /// # Errors
    ///
    /// [`Refused::NotAllowed`] for everything that was not given up.
    pub fn redelivery(&self, n: u32) -> Result<Begin, Refused> {
        let given_up =
            self.register.reason.as_ref().is_some_and(|reason| reason.why == Why::GaveUp);
        if self.begin.mode != Mode::Message || !given_up {
            return Err(self.not_allowed("redeliver"));
        }
        let gid: Gid = self.gid().again(n)?;
        let begin = Begin::clone(&self.begin);
        Ok(Begin { gid, delay: std::time::Duration::ZERO, submit: true, check: None, ..begin })
    }
}
