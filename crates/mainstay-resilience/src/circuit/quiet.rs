//! Stretches in which a plain success can change nothing but counts.
//!
//! Most circuits are closed and fare well, and then a record asks for no decision: it could be
//! counted anywhere and added later. [`Circuit::quiet`] says when that is so, an [`Aside`] counts
//! meanwhile, and [`Circuit::absorb`] takes the counts in. Whoever shares a circuit between
//! threads keeps one aside for each, so that they do not wait for one another; the answers are
//! those the circuit alone would have given.

use std::time::Duration;

use mainstay_core::Instant;

use super::probes::Lease;
use super::state::Phase;
use super::{Circuit, Mode, Permit};
use crate::window::{Window, latency_nanos};

/// What holds until the circuit is told of anything but plain successes before [`Quiet::ends`]:
/// every call is admitted, and time alone does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quiet {
    epoch: u64,
    ends: Instant,
    slow_from: u64,
}

impl Quiet {
    /// Which closed state this is. Permits of one state are alike, so its number stands for them.
    #[inline]
    pub const fn number(&self) -> u64 {
        self.epoch
    }

    /// End of the current sub-window, until which successes may be counted beside.
    #[inline]
    pub const fn ends(&self) -> Instant {
        self.ends
    }

    /// A permit as the circuit gives them now.
    #[inline]
    pub const fn permit(&self) -> Permit {
        Permit { epoch: self.epoch, lease: Lease::NONE }
    }
}

/// Successes counted beside the circuit. The default is shut and counts nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    quiet: Quiet,
    calls: u64,
    latency_nanos: u128,
    last: Instant,
}

impl Aside {
    /// An empty one, good for as long as `quiet` holds.
    #[inline]
    pub const fn new(quiet: Quiet) -> Self {
        Self { quiet, calls: 0, latency_nanos: 0, last: Instant::ZERO }
    }

    /// Counts a success under a permit of the closed state `number`. False, and nothing counted,
    /// if the circuit itself must hear of it: it was slow, the permit is old, the sub-window is
    /// over, or this is shut.
    #[inline]
    pub fn count(&mut self, now: Instant, number: u64, latency: Duration) -> bool {
        let nanos = latency_nanos(latency);
        let Quiet { epoch, ends, slow_from } = self.quiet;
        if now >= ends || number != epoch || nanos >= slow_from {
            return false;
        }
        self.calls += 1;
        self.latency_nanos += u128::from(nanos);
        self.last = self.last.max(now);
        true
    }
}

impl Circuit {
    /// What may be left to an [`Aside`], if anything: the circuit is closed by its own judgement,
    /// counts in a time window, has no verdict in waiting, and further successes only better the
    /// figures it is judged by. Below `min_calls` they need not: a success may be the call with
    /// which the rate is judged, so there must have been no bad call at all.
    #[inline]
    pub fn quiet(&self) -> Option<Quiet> {
        let Window::Time(window) = &self.window else { return None };
        let plain = matches!(self.core.phase, Phase::Closed) && self.core.mode == Mode::Auto;
        if !plain || !self.judge.only_improves(&self.window) {
            return None;
        }
        let slow_from = self.judge.slow_from;
        Some(Quiet { epoch: self.core.epoch, ends: window.ends(), slow_from })
    }

    /// Takes in what was counted beside the circuit since [`Circuit::quiet`]. Must come before
    /// anything else this circuit is told of; what belongs to an earlier state is left out, as its
    /// permits are.
    pub fn absorb(&mut self, aside: &Aside) {
        let Window::Time(window) = &mut self.window else { return };
        if aside.calls == 0 || aside.quiet.epoch != self.core.epoch {
            return;
        }
        // Earlier than the end of the sub-window, so nothing is due.
        self.now = self.now.max(aside.last);
        self.run = 0;
        window.add_successes(aside.calls, aside.latency_nanos);
    }
}
