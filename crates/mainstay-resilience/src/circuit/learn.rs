//! What a circuit makes of results.

use mainstay_core::Instant;

use super::Circuit;
use super::probes::Lease;
use super::report::{Cause, Evidence, Reason, Transition};
use super::state::{Context, Core, Phase};
use crate::Outcome;
use crate::window::Sample;

impl Circuit {
    /// Takes one result of a closed circuit, or of one on its ramp.
    #[inline]
    pub(super) fn learn(&mut self, now: Instant, outcome: Outcome, sample: Sample) {
        self.window.add(now, sample);
        self.run = match outcome {
            Outcome::Success => 0,
            Outcome::Refused => self.run,
            _ => self.run + 1,
        };
        let ramp = matches!(self.core.phase, Phase::Ramp(_));
        if self.core.judges()
            && let Some(cause) = self.judge.verdict(&self.window, self.run, ramp)
        {
            self.trip(now, cause);
        }
    }

    #[cold]
    pub(super) fn trip(&mut self, now: Instant, cause: Cause) {
        let evidence = match cause.reason {
            Reason::Unavailable => {
                let sub = self.window.current();
                Evidence { start: sub.start, tally: sub.tally }
            }
            _ => Evidence { start: self.window_start(), tally: *self.window.total() },
        };
        self.change(now, |core, context| core.open(context, now, cause, evidence));
    }

    #[cold]
    pub(super) fn learn_guarded(
        &mut self,
        now: Instant,
        lease: Lease,
        outcome: Outcome,
        sample: Sample,
    ) {
        match &mut self.core.phase {
            Phase::Closed | Phase::Open { .. } => (),
            Phase::Ramp(step) => {
                if outcome == Outcome::Success {
                    step.succeeded(now);
                }
                self.learn(now, outcome, sample);
                self.settle(now);
            }
            Phase::HalfOpen { .. } => {
                if self.probes.report(now, lease, sample) {
                    self.judge_probes(now);
                }
            }
        }
    }

    pub(super) fn judge_probes(&mut self, now: Instant) {
        let tally = *self.probes.results();
        let evidence = Evidence { start: self.core.since, tally };
        let all_in = self.probes.all_reported();
        match self.judge.probes(&tally, all_in) {
            Some(cause) => {
                self.change(now, |core, context| core.open(context, now, cause, evidence));
            }
            None if all_in => {
                self.change(now, |core, context| core.pass(context.policy, now, evidence));
            }
            None => (),
        }
    }

    /// Makes one change and does what follows from it.
    pub(super) fn change(
        &mut self,
        now: Instant,
        make: impl FnOnce(&mut Core, &Context<'_>) -> Transition,
    ) {
        let fresh = self.core.fresh;
        let mut core = self.core;
        let transition = make(&mut core, &self.context());
        self.core = core;
        self.note(fresh, transition);
        self.settle(now);
    }

    pub(super) fn note(&mut self, fresh_before: u64, transition: Transition) {
        self.changes.push(transition);
        if self.core.fresh != fresh_before {
            self.begin_anew(self.core.fresh_at);
        }
    }
}
