//! A circuit: lets calls through while they fare well, and finds out when they do again.
//!
//! ```text
//! closed ──condition──▶ open ──first call after the cooldown──▶ half-open ──▶ ramp ──▶ closed
//!                        ▲                                          │           │
//!                        └───────────────── still bad ──────────────┴───────────┘
//! ```
//!
//! The state machine is Nygard's ("Release It!", 2007) with three additions, each of which answers
//! a way in which real circuits have got stuck or done harm:
//!
//! - **A probe is a lease.** One whose result never comes gives its place back; and half-open ends
//!   by the clock. No lost permit can hold a circuit half-open for ever.
//! - **Recovery is a ramp.** Closing at once sends full load to a peer that has just answered five
//!   calls; here the share grows by steps, and any condition on the way opens again.
//! - **Time moves state, not traffic.** [`Circuit::poll`] plays every change that has become due,
//!   each at the moment it was due, and every other method polls first. Only open → half-open
//!   waits for a call, because there must be one to be the probe.
//!
//! A call that passes several circuits asks each with [`Circuit::admits`] and takes permits only
//! when all say yes, so that one refusal cannot strand a probe of another.
//!
//! Cost: [`Circuit::admit`] on a closed circuit is two comparisons, [`Circuit::record`] about
//! thirty additions and comparisons, and nothing allocates after construction. Size: 64 bytes for
//! each sub-window and about a kilobyte beside.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;

use crate::Outcome;
use crate::window::{CountWindow, Sample, TimeWindow, Window};

mod changes;
mod control;
mod judge;
mod learn;
mod policy;
mod probes;
mod quiet;
mod report;
mod snapshot;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod view;

use self::changes::Changes;
use self::judge::Judge;
pub use self::policy::{
    CircuitPolicy, Compare, Enforcement, ProbeRule, RawCircuit, Scope, Share, SubWindowPolicy,
    WindowKind, WindowShape,
};
use self::probes::{Lease, Probes};
pub use self::quiet::{Aside, Quiet};
pub use self::report::{
    Cause, Evidence, Mode, Reason, Refused, State, SubWindowView, Transition, UnknownMode, View,
    Why,
};
pub use self::snapshot::{AgedTally, OpenLeft, Snapshot};
use self::state::{Context, Core, Phase};

/// One circuit.
///
/// ```
/// use std::time::Duration;
/// use mainstay_core::Instant;
/// use mainstay_resilience::Outcome;
/// use mainstay_resilience::circuit::{Circuit, CircuitPolicy, State};
///
/// let now = Instant::ZERO;
/// let mut circuit = Circuit::new(CircuitPolicy::default(), 7, now);
/// let mut change = None;
/// for _ in 0..5 {
///     let permit = circuit.admit(now).expect("closed");
///     change = circuit.record(now, permit, Outcome::Failure, Duration::from_millis(3));
/// }
/// assert_eq!(change.map(|c| c.to), Some(State::Open));
/// assert!(!circuit.admits(now));
/// assert!(circuit.admits(now.plus(Duration::from_secs(5))));
/// ```
#[derive(Clone, Debug)]
pub struct Circuit {
    /// The last moment seen; nothing here happens before it.
    now: Instant,
    /// The next moment at which time alone does anything. Until then a call need not ask.
    wake: Instant,
    core: Core,
    judge: Judge,
    /// Failures in a row.
    run: u64,
    window: Window,
    /// Since when the window counts.
    counting_from: Instant,
    probes: Probes,
    refused_total: u64,
    would_reject_total: u64,
    changes: Changes,
    seed: u64,
    policy: Arc<CircuitPolicy>,
}

/// Permission to send one call. Hand it back with [`Circuit::record`] or [`Circuit::cancel`].
#[derive(Debug)]
#[must_use = "the circuit learns nothing from a call that is never recorded"]
pub struct Permit {
    epoch: u64,
    lease: Lease,
}

impl Circuit {
    /// A closed circuit. `seed` decides the jitter of its cooldowns; give each its own. A time
    /// window is aligned to `now`.
    pub fn new(policy: impl Into<Arc<CircuitPolicy>>, seed: u64, now: Instant) -> Self {
        let policy = policy.into();
        let mut window = window_of(policy.window, now);
        window.trip_at(u64::from(policy.sub_window_failures));
        Self {
            now,
            wake: window.ends(),
            core: Core::new(now),
            judge: Judge::new(&policy),
            run: 0,
            window,
            counting_from: now,
            probes: Probes::new(policy.probes),
            refused_total: 0,
            would_reject_total: 0,
            changes: Changes::default(),
            seed,
            policy,
        }
    }

    /// Whether a call would be let through at `now`. Changes nothing, so a balancer may ask it of
    /// every candidate: a circuit whose cooldown has ended says yes, whether or not anybody has
    /// looked at it since.
    #[inline]
    pub fn admits(&self, now: Instant) -> bool {
        let now = now.max(self.now);
        if now < self.wake {
            return self.lets(&self.core, now);
        }
        let mut core = self.core;
        core.run(self.context(), now, drop);
        self.lets(&core, now)
    }

    /// Whether the circuit waits for a call at `now` to find out how its peer is: a probe, or the
    /// success without which a step of its ramp does not end. A balancer that goes by what an
    /// instance once did to a call would leave such an instance alone, and never learn that it is
    /// well again. Changes nothing.
    pub fn is_curious(&self, now: Instant) -> bool {
        let now = now.max(self.now);
        let mut core = self.core;
        if self.wake <= now {
            core.run(self.context(), now, drop);
        }
        match core.phase {
            _ if core.observes(&self.policy) => false,
            Phase::Closed => false,
            Phase::Open { until, .. } => until <= now,
            Phase::HalfOpen { .. } => self.probes.has_free(now),
            Phase::Ramp(step) => step.lacks_success() && step.lets_next(&self.policy),
        }
    }

    /// Asks to send one call.
    ///
    /// An open circuit whose cooldown has ended becomes half-open by this; see
    /// [`Circuit::changes_since`] for how to hear of it.
    ///
    /// # Errors
    ///
    /// [`Refused`], counted, unless the circuit only observes.
    #[inline]
    pub fn admit(&mut self, now: Instant) -> Result<Permit, Refused> {
        let now = self.catch_up(now);
        if matches!(self.core.phase, Phase::Closed) && self.core.mode != Mode::Disabled {
            return Ok(Permit { epoch: self.core.epoch, lease: Lease::NONE });
        }
        self.admit_guarded(now)
    }

    /// Counts a call that was not asked for because [`Circuit::admits`] said no.
    ///
    /// A ramp lets through one call in so many, and counts them when they ask. Whoever asks
    /// `admits` first and then sends the call elsewhere must say so here, or the ramp would wait
    /// for calls that it never hears of.
    pub fn pass_over(&mut self, now: Instant) {
        let now = self.catch_up(now);
        if self.lets(&self.core, now) {
            return;
        }
        if let Phase::Ramp(step) = &mut self.core.phase {
            step.ask(&self.policy);
        }
        self.refused_total += 1;
    }

    /// Records how a call ended and how long it took; returns the last transition this caused.
    ///
    /// A permit from before the last transition says nothing new, and neither does a probe whose
    /// lease has ended.
    #[inline]
    pub fn record(
        &mut self,
        now: Instant,
        permit: Permit,
        outcome: Outcome,
        latency: Duration,
    ) -> Option<Transition> {
        let seen = self.changes.total;
        let now = self.catch_up(now);
        let Permit { epoch, lease } = permit;
        if epoch == self.core.epoch {
            let sample = Sample::new(outcome, latency, self.judge.slow_from);
            if matches!(self.core.phase, Phase::Closed) {
                self.learn(now, outcome, sample);
            } else {
                self.learn_guarded(now, lease, outcome, sample);
            }
        }
        self.last_since(seen)
    }

    /// Takes back the permit of a call that was never sent, or whose result says nothing about
    /// the peer. A probe's place is free again.
    pub fn cancel(&mut self, now: Instant, permit: Permit) {
        let now = self.catch_up(now);
        let Permit { epoch, lease } = permit;
        if epoch == self.core.epoch {
            match &mut self.core.phase {
                Phase::HalfOpen { .. } => self.probes.cancel(now, lease),
                Phase::Ramp(step) => step.give_back(),
                Phase::Closed | Phase::Open { .. } => (),
            }
        }
    }

    /// Does what time alone does; returns the last transition this caused.
    pub fn poll(&mut self, now: Instant) -> Option<Transition> {
        let seen = self.changes.total;
        self.catch_up(now);
        self.last_since(seen)
    }

    /// When [`Circuit::poll`] will have something to tell, as things stand; none when only a call
    /// can change anything.
    pub fn next_wake(&self) -> Option<Instant> {
        Some(self.core.next(&self.context())).filter(|&at| at < Instant::MAX)
    }

    /// The policy in force.
    pub fn policy(&self) -> &Arc<CircuitPolicy> {
        &self.policy
    }

    /// The state as of the last moment seen. To decide about a call ask [`Circuit::admits`].
    pub fn state(&self) -> State {
        self.core.state()
    }

    /// Who decides, as of the last moment seen.
    pub fn mode(&self) -> Mode {
        self.core.mode
    }

    /// How many transitions there have been, counting those of an observing circuit.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.changes.total
    }

    /// The transitions after the first `seen`, oldest first, as far as they are remembered: the
    /// last four. One call causes at most three, so whoever compares [`Circuit::changes`] before
    /// and after it misses none.
    pub fn changes_since(&self, seen: u64) -> impl Iterator<Item = Transition> {
        self.changes.since(seen)
    }

    /// The last transition.
    pub fn last_transition(&self) -> Option<Transition> {
        self.last_since(self.changes.total.saturating_sub(1))
    }

    /// The moment to act at; first does what time alone has done since the last one.
    #[inline]
    fn catch_up(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        if self.now >= self.wake {
            self.settle(self.now);
        }
        self.now
    }

    /// Plays what is due, moves the window, and finds the next moment to do so.
    #[cold]
    fn settle(&mut self, now: Instant) {
        let fresh = self.core.fresh;
        let mut core = self.core;
        let mut changes = self.changes;
        core.run(self.context(), now, |transition| changes.push(transition));
        (self.core, self.changes) = (core, changes);
        if self.core.fresh != fresh {
            self.begin_anew(self.core.fresh_at);
        }
        self.window.advance(now);
        self.wake = self.core.next(&self.context()).min(self.window.ends());
    }

    #[cold]
    #[inline(never)]
    fn admit_guarded(&mut self, now: Instant) -> Result<Permit, Refused> {
        if let Phase::Open { until, cooldown } = self.core.phase
            && until <= now
        {
            let fresh = self.core.fresh;
            let transition = self.core.half_open(&self.policy, now, cooldown);
            self.note(fresh, transition);
            self.probes.begin(self.policy.probes);
            self.settle(now);
        }
        let epoch = self.core.epoch;
        let lease = match &mut self.core.phase {
            // Disabled: nothing is recorded, so the permit belongs to no epoch.
            Phase::Closed => return Ok(Permit { epoch: Core::NO_EPOCH, lease: Lease::NONE }),
            Phase::Open { .. } => None,
            Phase::HalfOpen { .. } => self.probes.take(now, self.policy.probe_lease),
            Phase::Ramp(step) => step.ask(&self.policy).then_some(Lease::NONE),
        };
        if let Some(lease) = lease {
            return Ok(Permit { epoch, lease });
        }
        if self.core.observes(&self.policy) {
            self.would_reject_total += 1;
            return Ok(Permit { epoch: Core::NO_EPOCH, lease: Lease::NONE });
        }
        self.refused_total += 1;
        Err(self.refusal(now))
    }

    fn begin_anew(&mut self, at: Instant) {
        self.window.clear();
        (self.run, self.counting_from) = (0, at);
    }

    fn lets(&self, core: &Core, now: Instant) -> bool {
        match core.phase {
            Phase::Closed => true,
            Phase::Open { until, .. } if until <= now => true,
            _ if core.observes(&self.policy) => true,
            Phase::Open { .. } => false,
            Phase::HalfOpen { .. } => self.probes.has_free(now),
            Phase::Ramp(step) => step.lets_next(&self.policy),
        }
    }

    fn context(&self) -> Context<'_> {
        let sub = self.window.current();
        let ends = self.window.ends();
        let pending = (ends < Instant::MAX)
            .then(|| self.judge.unavailable(&sub.tally))
            .flatten()
            .map(|cause| (ends, cause, Evidence { start: sub.start, tally: sub.tally }));
        Context {
            policy: &self.policy,
            judge: &self.judge,
            seed: self.seed,
            pending,
            probes: *self.probes.results(),
        }
    }

    /// Since when the window counts: never before it was last cleared.
    fn window_start(&self) -> Instant {
        let oldest = match &self.window {
            Window::Time(window) => window.sub_windows().next(),
            Window::Count(window) => window.sub_windows().next(),
        };
        oldest.map_or(self.counting_from, |sub| sub.start.max(self.counting_from))
    }

    fn last_since(&self, seen: u64) -> Option<Transition> {
        (self.changes.total > seen).then(|| self.changes.last()).flatten()
    }
}

fn window_of(shape: WindowShape, now: Instant) -> Window {
    match shape {
        WindowShape::Time { length, sub_windows } => {
            Window::Time(TimeWindow::new(length, sub_windows, now))
        }
        WindowShape::Count { calls, sub_windows } => {
            Window::Count(CountWindow::new(calls, sub_windows))
        }
    }
}
