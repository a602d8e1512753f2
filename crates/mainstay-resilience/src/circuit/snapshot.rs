//! What of a circuit outlives a restart.

use std::time::Duration;

use mainstay_core::Instant;
use serde::{Deserialize, Serialize};

use super::state::Phase;
use super::{Cause, Circuit, Mode, Reason, Transition, WindowShape};
use crate::window::{Tally, Window};

/// A circuit as it can be written down: spans instead of moments, since the next process counts
/// its own time. Whoever stores it adds the wall clock and says how long ago it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Who decides.
    pub mode: Mode,
    /// Rest of a mode that has an end.
    pub mode_left: Option<Duration>,
    /// The open state, unless the circuit was closed. A half-open one and one on its ramp count
    /// as open with the cooldown over: their permits are lost, so they begin with probes again.
    pub open: Option<OpenLeft>,
    /// Openings since it was last closed: the exponent of the cooldown.
    pub openings: u32,
    /// Openings ever.
    pub opened_total: u64,
    /// Sub-windows of a time window of ten seconds or more; shorter ones are over before a
    /// process is back, and results of a count window have no age to be judged by.
    pub window: Vec<AgedTally>,
}

/// An open state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenLeft {
    /// Rest of the cooldown.
    pub left: Duration,
    /// The whole of it.
    pub cooldown: Duration,
    /// Why it opened.
    pub cause: Cause,
}

/// A sub-window and how long ago it began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgedTally {
    /// Time since its start.
    pub age: Duration,
    /// What happened in it.
    pub tally: Tally,
}

impl Circuit {
    /// What is worth keeping over a restart.
    pub fn snapshot(&mut self, now: Instant) -> Snapshot {
        let now = self.catch_up(now);
        let core = &self.core;
        let cause = core.cause;
        let open = match core.phase {
            // The mode holds it open, not a cooldown.
            Phase::Closed | Phase::Open { until: Instant::MAX, .. } => None,
            Phase::Open { until, cooldown } => {
                Some(OpenLeft { left: until.since(now), cooldown, cause })
            }
            Phase::HalfOpen { cooldown, .. } => {
                Some(OpenLeft { left: Duration::ZERO, cooldown, cause })
            }
            Phase::Ramp(_) => {
                Some(OpenLeft { left: Duration::ZERO, cooldown: self.policy.cooldown, cause })
            }
        };
        Snapshot {
            mode: core.mode,
            mode_left: (core.mode_until < Instant::MAX).then(|| core.mode_until.since(now)),
            open,
            openings: core.openings,
            opened_total: core.opened_total,
            window: self.aged(now),
        }
    }

    /// Takes over what was written down `elapsed` ago. Meant for a circuit just made: what it has
    /// recorded so far is kept beside.
    pub fn restore(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        elapsed: Duration,
    ) -> Option<Transition> {
        let seen = self.changes();
        let now = self.catch_up(now);
        self.core.openings = snapshot.openings;
        self.core.opened_total = self.core.opened_total.max(snapshot.opened_total);
        if let Some(OpenLeft { left, cooldown, cause }) = snapshot.open {
            let until = now.plus(left.saturating_sub(elapsed));
            let phase = Phase::Open { until, cooldown };
            let restored = Cause { reason: Reason::Restored, ..cause };
            let transition = self.core.resume(&self.policy, phase, now, cause);
            self.changes.push(Transition { cause: restored, ..transition });
        }
        if let Window::Time(window) = &mut self.window {
            for AgedTally { age, tally } in &snapshot.window {
                window.add_aged(now, age.saturating_add(elapsed), tally);
            }
        }
        // A mode whose time ran out while nobody was there has done its work.
        let left = snapshot.mode_left.map(|left| left.checked_sub(elapsed));
        match left {
            _ if snapshot.mode == Mode::Auto => (),
            None => drop(self.set_mode(now, snapshot.mode)),
            Some(Some(left)) => drop(self.set_mode_until(now, snapshot.mode, now.plus(left))),
            Some(None) => (),
        }
        self.settle(now);
        (self.changes() > seen).then(|| self.last_transition()).flatten()
    }

    fn aged(&self, now: Instant) -> Vec<AgedTally> {
        let Window::Time(window) = &self.window else { return Vec::new() };
        let length = match self.policy.window {
            WindowShape::Time { length, .. } => length,
            WindowShape::Count { .. } => Duration::ZERO,
        };
        if length < KEPT_FROM {
            return Vec::new();
        }
        let subs = window.sub_windows().filter(|sub| sub.tally.calls > 0);
        subs.map(|sub| AgedTally { age: now.since(sub.start), tally: sub.tally }).collect()
    }
}

/// Windows from this length on are worth writing down.
const KEPT_FROM: Duration = Duration::from_secs(10);
