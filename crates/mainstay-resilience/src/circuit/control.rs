//! What is done to a circuit from outside: mode, reset, another policy.

use std::sync::Arc;

use mainstay_core::Instant;

use super::{
    Circuit, CircuitPolicy, Judge, Mode, Reason, State, Transition, Window, WindowShape, window_of,
};

impl Circuit {
    /// Sets the mode until somebody sets another. Setting the present mode says nothing and
    /// changes nothing, but takes away its end.
    pub fn set_mode(&mut self, now: Instant, mode: Mode) -> Option<Transition> {
        self.set_mode_until(now, mode, Instant::MAX)
    }

    /// Sets the mode; at `until` it is [`Mode::Auto`] again. Setting the present mode only moves
    /// its end.
    pub fn set_mode_until(
        &mut self,
        now: Instant,
        mode: Mode,
        until: Instant,
    ) -> Option<Transition> {
        let seen = self.changes.total;
        let now = self.catch_up(now);
        let until = if mode == Mode::Auto { Instant::MAX } else { until };
        if mode == self.core.mode {
            self.core.mode_until = until;
        } else {
            let fresh = self.core.fresh;
            let transition = self.core.set_mode(&self.policy, now, mode, until);
            self.note(fresh, transition);
        }
        self.settle(now);
        self.last_since(seen)
    }

    /// Forgets every result and closes the circuit; a mode set from outside stays, and with it
    /// the state it forces.
    pub fn reset(&mut self, now: Instant) -> Option<Transition> {
        let seen = self.changes.total;
        let now = self.catch_up(now);
        self.begin_anew(now);
        if self.core.mode != Mode::ForcedOpen && self.core.state() != State::Closed {
            let fresh = self.core.fresh;
            let transition = self.core.close(&self.policy, now, Reason::Reset);
            self.note(fresh, transition);
        }
        self.settle(now);
        self.last_since(seen)
    }

    /// Takes another policy and keeps the state.
    ///
    /// Results are kept too: those of a time window by the age of their sub-window, those of a
    /// count window one by one; only between the two kinds nothing can be carried over. A cooldown
    /// that has begun keeps its end, and a circuit that is half-open its number of probes.
    pub fn set_policy(&mut self, now: Instant, policy: impl Into<Arc<CircuitPolicy>>) {
        let now = self.catch_up(now);
        let policy = policy.into();
        if policy.window != self.policy.window {
            self.window = carried(&self.window, policy.window, now);
        }
        self.window.trip_at(u64::from(policy.sub_window_failures));
        self.probes.reserve(policy.probes);
        self.judge = Judge::new(&policy);
        self.policy = policy;
        self.settle(now);
    }
}

/// A window of another shape with as much of the old one in it as it can take.
fn carried(old: &Window, shape: WindowShape, now: Instant) -> Window {
    let mut window = window_of(shape, now);
    match (&mut window, old) {
        (Window::Time(new), Window::Time(old)) => {
            for sub in old.sub_windows().filter(|sub| sub.tally.calls > 0) {
                new.add_aged(now, now.since(sub.start), &sub.tally);
            }
        }
        (Window::Count(new), Window::Count(old)) => {
            for sample in old.samples() {
                new.add(now, sample);
            }
        }
        _ => (),
    }
    window
}
