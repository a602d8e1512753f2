//! State, and how time alone moves it.
//!
//! This part is a small `Copy` value. [`Core::run`] plays every change that has become due up to
//! `now`, each at the moment it was due, so it does not matter how often anybody looks. The same
//! function answers [`Circuit::admits`](super::Circuit::admits), on a copy.

use std::time::Duration;

use mainstay_core::Instant;

use super::judge::Judge;
use super::policy::{CircuitPolicy, Enforcement};
use super::report::{Cause, Evidence, Mode, Reason, State, Transition};
use super::step::Step;
use crate::window::Tally;

#[derive(Clone, Copy, Debug)]
pub(super) struct Core {
    pub(super) mode: Mode,
    pub(super) mode_until: Instant,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    pub(super) cause: Cause,
    /// Openings since the circuit was last closed: the exponent of the cooldown.
    pub(super) openings: u32,
    pub(super) opened_total: u64,
    pub(super) would_trip_total: u64,
    /// Changes that make older permits worthless. Never [`Core::NO_EPOCH`].
    pub(super) epoch: u64,
    /// Changes after which counting begins anew.
    pub(super) fresh: u64,
    /// When the last of them was; a later change that keeps the counts may have followed.
    pub(super) fresh_at: Instant,
}

/// A state with what it needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Closed,
    Open { until: Instant, cooldown: Duration },
    HalfOpen { ends: Instant, cooldown: Duration },
    Ramp(Step),
}

/// What time-driven changes depend on beside the state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) policy: &'a CircuitPolicy,
    pub(super) judge: &'a Judge,
    pub(super) seed: u64,
    /// The current sub-window, if it will have been one of timeouts only, and when it ends.
    pub(super) pending: Option<(Instant, Cause, Evidence)>,
    /// Results of probes so far.
    pub(super) probes: Tally,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    ModeEnds,
    Unavailable(Cause, Evidence),
    HalfOpenEnds,
    StepEnds,
}

impl Core {
    /// The epoch of a permit that must never count.
    pub(super) const NO_EPOCH: u64 = u64::MAX;

    pub(super) const fn new(now: Instant) -> Self {
        Self {
            mode: Mode::Auto,
            mode_until: Instant::MAX,
            phase: Phase::Closed,
            since: now,
            cause: Cause::bare(Reason::Reset),
            openings: 0,
            opened_total: 0,
            would_trip_total: 0,
            epoch: 0,
            fresh: 0,
            fresh_at: now,
        }
    }

    pub(super) const fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Ramp(_) => State::Ramp,
        }
    }

    /// Whether the circuit computes everything and refuses nothing.
    pub(super) fn observes(&self, policy: &CircuitPolicy) -> bool {
        match self.mode {
            Mode::Auto => policy.enforcement == Enforcement::Observe,
            Mode::Observe => true,
            Mode::ForcedOpen | Mode::ForcedClosed | Mode::Disabled => false,
        }
    }

    /// Whether results can open the circuit.
    #[inline]
    pub(super) const fn judges(&self) -> bool {
        matches!(self.mode, Mode::Auto | Mode::Observe)
    }

    /// Plays everything due up to `now`.
    pub(super) fn run(
        &mut self,
        mut context: Context<'_>,
        now: Instant,
        mut tell: impl FnMut(Transition),
    ) {
        while let Some((at, due)) = self.due(&context).filter(|(at, _)| *at <= now) {
            // What the sub-window of that time held has been judged, or could not be.
            context.pending = context.pending.filter(|(end, ..)| at < *end);
            if let Some(transition) = self.apply(&context, at, due) {
                tell(transition);
            }
        }
    }

    /// When the next change by time alone is due.
    pub(super) fn next(&self, context: &Context<'_>) -> Instant {
        self.due(context).map_or(Instant::MAX, |(at, _)| at)
    }

    /// When the state changes by itself or can be left.
    pub(super) fn until(&self, policy: &CircuitPolicy) -> Option<Instant> {
        let at = match self.phase {
            Phase::Closed => Instant::MAX,
            Phase::Open { until, .. } => until,
            Phase::HalfOpen { ends, .. } => ends,
            Phase::Ramp(step) => step.ends(policy),
        };
        Some(at.min(self.mode_until)).filter(|&at| at < Instant::MAX)
    }

    /// Opens the circuit at `at`.
    pub(super) fn open(
        &mut self,
        context: &Context<'_>,
        at: Instant,
        cause: Cause,
        evidence: Evidence,
    ) -> Transition {
        self.openings = self.openings.saturating_add(1);
        let cooldown = cooldown(context.policy, context.seed, self.openings, self.opened_total);
        self.reopen(context.policy, at, cooldown, cause, evidence)
    }

    /// The probes were good enough: up the ramp, or straight to closed.
    pub(super) fn pass(
        &mut self,
        policy: &CircuitPolicy,
        at: Instant,
        evidence: Evidence,
    ) -> Transition {
        let cause = Cause::counts(
            Reason::ProbesPassed,
            evidence.tally.calls - evidence.tally.failures,
            u64::from(policy.probes),
        );
        self.count_anew(at);
        if policy.ramp.is_empty() {
            self.openings = 0;
            self.enter(policy, Phase::Closed, at, cause, evidence)
        } else {
            self.enter(policy, Phase::Ramp(Step::new(0, at)), at, cause, evidence)
        }
    }

    /// The cooldown is over and a call came.
    pub(super) fn half_open(
        &mut self,
        policy: &CircuitPolicy,
        at: Instant,
        cooldown: Duration,
    ) -> Transition {
        self.count_anew(at);
        let phase = Phase::HalfOpen { ends: at.plus(policy.half_open_max), cooldown };
        let cause = Cause::counts(Reason::CooldownOver, 0, u64::from(policy.probes));
        self.enter(policy, phase, at, cause, nothing(at))
    }

    /// Closes the circuit, whatever it was.
    pub(super) fn close(
        &mut self,
        policy: &CircuitPolicy,
        at: Instant,
        reason: Reason,
    ) -> Transition {
        self.openings = 0;
        self.enter(policy, Phase::Closed, at, Cause::bare(reason), nothing(at))
    }

    /// Sets the mode until `until`, and the state that follows from it.
    ///
    /// Nobody has measured the peer while the circuit was forced open, so it is let go into an
    /// open state whose cooldown is over: the next call is a probe.
    pub(super) fn set_mode(
        &mut self,
        policy: &CircuitPolicy,
        at: Instant,
        mode: Mode,
        until: Instant,
    ) -> Transition {
        let before = self.mode;
        (self.mode, self.mode_until) = (mode, until);
        let cause = Cause::bare(Reason::Mode);
        let phase = match mode {
            Mode::ForcedOpen => Phase::Open { until: Instant::MAX, cooldown: policy.cooldown },
            Mode::ForcedClosed | Mode::Disabled => {
                self.openings = 0;
                if self.state() != State::Closed {
                    self.count_anew(at);
                }
                Phase::Closed
            }
            Mode::Auto | Mode::Observe if before == Mode::ForcedOpen => {
                Phase::Open { until: at, cooldown: policy.cooldown }
            }
            Mode::Auto | Mode::Observe => return self.stay(policy, at, cause),
        };
        self.enter(policy, phase, at, cause, nothing(at))
    }

    /// Takes over a state from before a restart; it rests on no call of this process.
    pub(super) fn resume(
        &mut self,
        policy: &CircuitPolicy,
        phase: Phase,
        at: Instant,
        cause: Cause,
    ) -> Transition {
        self.enter(policy, phase, at, cause, nothing(at))
    }

    /// Opens the circuit again without counting a new opening.
    fn reopen(
        &mut self,
        policy: &CircuitPolicy,
        at: Instant,
        cooldown: Duration,
        cause: Cause,
        evidence: Evidence,
    ) -> Transition {
        self.opened_total += 1;
        self.would_trip_total += u64::from(self.observes(policy));
        let phase = Phase::Open { until: at.plus(cooldown), cooldown };
        self.enter(policy, phase, at, cause, evidence)
    }

    fn due(&self, context: &Context<'_>) -> Option<(Instant, Due)> {
        let mode = (self.mode_until < Instant::MAX).then_some((self.mode_until, Due::ModeEnds));
        let phase = match self.phase {
            Phase::HalfOpen { ends, .. } => Some((ends, Due::HalfOpenEnds)),
            Phase::Ramp(step) => Some((step.ends(context.policy), Due::StepEnds)),
            Phase::Closed | Phase::Open { .. } => None,
        };
        let pending = context
            .pending
            .filter(|_| self.judges() && matches!(self.phase, Phase::Closed | Phase::Ramp(_)))
            .map(|(at, cause, evidence)| (at, Due::Unavailable(cause, evidence)));
        // The first of those due at the same moment: somebody's word, then evidence, then time.
        [mode, pending, phase].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn apply(&mut self, context: &Context<'_>, at: Instant, due: Due) -> Option<Transition> {
        let policy = context.policy;
        match (due, self.phase) {
            (Due::ModeEnds, _) => Some(self.set_mode(policy, at, Mode::Auto, Instant::MAX)),
            (Due::Unavailable(cause, evidence), _) => Some(self.open(context, at, cause, evidence)),
            (Due::HalfOpenEnds, Phase::HalfOpen { cooldown, .. }) => {
                let evidence = Evidence { start: self.since, tally: context.probes };
                if context.probes.calls == 0 {
                    let cause = Cause::counts(Reason::ProbesSilent, 0, u64::from(policy.probes));
                    return Some(self.reopen(policy, at, cooldown, cause, evidence));
                }
                Some(match context.judge.probes(&context.probes, true) {
                    Some(cause) => self.open(context, at, cause, evidence),
                    None => self.pass(policy, at, evidence),
                })
            }
            (Due::StepEnds, Phase::Ramp(step)) if step.index + 1 < policy.ramp.len() => {
                self.phase = Phase::Ramp(Step::new(step.index + 1, at));
                None
            }
            (Due::StepEnds | Due::HalfOpenEnds, _) => {
                Some(self.close(policy, at, Reason::RampDone))
            }
        }
    }

    fn enter(
        &mut self,
        policy: &CircuitPolicy,
        to: Phase,
        at: Instant,
        cause: Cause,
        evidence: Evidence,
    ) -> Transition {
        let from = self.state();
        self.phase = to;
        self.epoch += 1;
        (self.since, self.cause) = (at, cause);
        Transition { from, evidence, ..self.stay(policy, at, cause) }
    }

    fn count_anew(&mut self, at: Instant) {
        self.fresh += 1;
        self.fresh_at = at;
    }

    fn stay(&self, policy: &CircuitPolicy, at: Instant, cause: Cause) -> Transition {
        Transition {
            from: self.state(),
            to: self.state(),
            mode: self.mode,
            cause,
            at,
            evidence: nothing(at),
            until: self.until(policy),
            enforced: !self.observes(policy),
        }
    }
}

/// Evidence of a change that rests on no call.
pub(super) fn nothing(at: Instant) -> Evidence {
    Evidence { start: at, tally: Tally::default() }
}

/// The cooldown of the `opening`-th opening in a row: first · multiplier^(opening − 1), capped,
/// then moved up or down by the jitter. The draw depends on the seed and the number of openings
/// ever, so circuits of one policy with different seeds do not come back together.
fn cooldown(policy: &CircuitPolicy, seed: u64, opening: u32, opened_total: u64) -> Duration {
    let exponent = i32::try_from(opening.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = policy.cooldown.as_secs_f64() * policy.cooldown_multiplier.powi(exponent);
    // `grown` may be infinite; `min` makes it the cap.
    let capped = grown.min(policy.cooldown_max.as_secs_f64());
    let jitter = policy.cooldown_jitter.percent() / 100.0;
    let moved = capped * (1.0 - jitter + 2.0 * jitter * unit(mix(seed ^ mix(opened_total))));
    Duration::from_secs_f64(moved)
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014).
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A draw as a number in [0, 1).
#[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1_u64 << 53) as f64
}
