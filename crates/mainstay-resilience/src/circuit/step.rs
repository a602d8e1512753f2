//! A step of the ramp: which calls pass, and when it is over.

use mainstay_core::Instant;

use super::policy::CircuitPolicy;

/// A step of the ramp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) index: usize,
    pub(super) began: Instant,
    /// When the first call of this step succeeded.
    pub(super) success: Option<Instant>,
    /// Calls asked for in this step, modulo 100.
    pub(super) asked: u8,
    /// Calls let through that gave their permit back unused.
    pub(super) returned: u32,
}

impl Step {
    pub(super) const fn new(index: usize, began: Instant) -> Self {
        Self { index, began, success: None, asked: 0, returned: 0 }
    }

    /// Share of calls that pass.
    pub(super) fn percent(&self, policy: &CircuitPolicy) -> u8 {
        policy.ramp.get(self.index).copied().unwrap_or(100)
    }

    /// When this step is over: not before its time and a success, and without one only after so
    /// long that nobody can be waiting for one.
    pub(super) fn ends(&self, policy: &CircuitPolicy) -> Instant {
        let latest = self.began.plus(policy.half_open_max.max(policy.ramp_step));
        match self.success {
            Some(at) => self.began.plus(policy.ramp_step).max(at).min(latest),
            None => latest,
        }
    }

    /// Notes that a call of this step succeeded.
    pub(super) fn succeeded(&mut self, at: Instant) {
        self.success.get_or_insert(at);
    }

    /// Whether no call of this step has succeeded yet.
    pub(super) const fn lacks_success(&self) -> bool {
        self.success.is_none()
    }

    /// Whether the next call passes: call k does when k · p mod 100 < p, which spreads p of 100
    /// evenly; so does one more for each that came back unused.
    pub(super) fn lets_next(&self, policy: &CircuitPolicy) -> bool {
        self.returned > 0 || self.is_turn(policy)
    }

    /// Counts one call asked for; whether it passes.
    pub(super) fn ask(&mut self, policy: &CircuitPolicy) -> bool {
        let turn = self.is_turn(policy);
        self.asked = (self.asked + 1) % 100;
        if !turn && self.returned > 0 {
            self.returned -= 1;
            return true;
        }
        turn
    }

    /// Takes a permit back.
    pub(super) fn give_back(&mut self) {
        self.returned = self.returned.saturating_add(1);
    }

    fn is_turn(&self, policy: &CircuitPolicy) -> bool {
        let percent = u32::from(self.percent(policy));
        u32::from(self.asked) * percent % 100 < percent
    }
}
