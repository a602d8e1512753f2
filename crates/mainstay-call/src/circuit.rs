//! A circuit shared by threads.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{
    Circuit, CircuitPolicy, Mode, Permit, Refused, Scope, Snapshot, Transition, View,
};
use parking_lot::Mutex;

use crate::clock::MonotonicClock;
use crate::error::{Figures, Refusal};
use crate::observe::Observer;

/// What a circuit guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitKey {
    /// Name of the policy.
    pub policy: Arc<str>,
    /// `service`, `service@instance` or `route`, depending on the policy's scope.
    pub subject: Arc<str>,
}

/// One circuit that any number of threads ask.
///
/// The machine stands behind one short mutex; nothing waits while holding it.
#[derive(Debug)]
pub struct SharedCircuit {
    key: CircuitKey,
    scope: Scope,
    machine: Mutex<Circuit>,
    observer: Arc<dyn Observer>,
}

impl SharedCircuit {
    /// A closed circuit for `key`. `seed` decides the jitter of its cooldowns.
    pub fn new(
        key: CircuitKey,
        policy: Arc<CircuitPolicy>,
        seed: u64,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let scope = policy.scope;
        let machine = Mutex::new(Circuit::new(policy, seed, MonotonicClock.now()));
        Self { key, scope, machine, observer }
    }

    /// What it guards.
    pub fn key(&self) -> &CircuitKey {
        &self.key
    }

    /// Whether a refusal is about one instance, or about the whole service or route.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether a call would be let through at `now`.
    pub fn admits(&self, now: Instant) -> bool {
        self.machine.lock().admits(now)
    }

    /// Notes that a call went elsewhere because this circuit would not admit it. A ramp counts
    /// those it turns away, and would stand still without them.
    pub fn pass_over(&self, now: Instant) {
        self.machine.lock().pass_over(now);
    }

    /// Asks to send one call.
    ///
    /// # Errors
    ///
    /// [`Refused`] while the circuit does not let the call through.
    pub fn admit(&self, now: Instant) -> Result<Permit, Refused> {
        self.tell_after(|machine| machine.admit(now))
    }

    /// Records how a call ended.
    pub fn record(&self, now: Instant, permit: Permit, outcome: Outcome, latency: Duration) {
        self.tell_after(|machine| machine.record(now, permit, outcome, latency));
    }

    /// Takes a permit back.
    pub fn cancel(&self, now: Instant, permit: Permit) {
        self.tell_after(|machine| machine.cancel(now, permit));
    }

    /// Sets the mode until `until`; [`Instant::MAX`] stands for "until somebody sets another".
    pub fn set_mode(&self, now: Instant, mode: Mode, until: Instant) -> Option<Transition> {
        self.tell_after(|machine| machine.set_mode_until(now, mode, until))
    }

    /// Forgets every result and closes the circuit.
    pub fn reset(&self, now: Instant) -> Option<Transition> {
        self.tell_after(|machine| machine.reset(now))
    }

    /// Takes another policy and keeps the state.
    pub fn set_policy(&self, now: Instant, policy: Arc<CircuitPolicy>) {
        self.tell_after(|machine| {
            if **machine.policy() != *policy {
                machine.set_policy(now, policy);
            }
        });
    }

    /// Everything there is to see of it.
    pub fn view(&self, now: Instant) -> View {
        self.tell_after(|machine| machine.view(now))
    }

    /// What of it is worth keeping over a restart.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.machine.lock().snapshot(now)
    }

    /// Works on the machine, then tells of the transitions that caused, with the lock released.
    fn tell_after<R>(&self, work: impl FnOnce(&mut Circuit) -> R) -> R {
        let mut machine = self.machine.lock();
        let seen = machine.changes();
        let result = work(&mut machine);
        if machine.changes() == seen {
            return result;
        }
        let changes: Vec<Transition> = machine.changes_since(seen).collect();
        drop(machine);
        for change in &changes {
            self.observer.circuit_changed(self, change);
        }
        result
    }
}

/// Most circuits one call may pass: instance, service and route, and one to spare.
pub const CIRCUITS_MAX: usize = 4;

/// Permits of every circuit a call passes. What is not recorded goes back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Permits([Option<(Arc<SharedCircuit>, Permit)>; CIRCUITS_MAX]);

impl Permits {
    /// Asks every circuit of `all`, and takes permits only when each of them says yes, so that a
    /// refusal by one strands no probe of another.
    pub(crate) fn take<'a>(
        now: Instant,
        all: impl Iterator<Item = &'a Arc<SharedCircuit>> + Clone,
    ) -> Result<Self, Refusal> {
        let mut permits = Self::default();
        let several = all.clone().nth(1).is_some();
        if several && let Some(refuser) = all.clone().find(|circuit| !circuit.admits(now)) {
            // Asking the one that refuses gives the evidence, and counts the refusal.
            let permit = refuser.admit(now).map_err(|refused| refusal(refuser, refused))?;
            refuser.cancel(now, permit);
        }
        for (slot, circuit) in permits.0.iter_mut().zip(all) {
            let permit = circuit.admit(now).map_err(|refused| refusal(circuit, refused))?;
            *slot = Some((Arc::clone(circuit), permit));
        }
        Ok(permits)
    }

    /// Records how the call ended with every circuit.
    pub(crate) fn record(mut self, now: Instant, outcome: Outcome, latency: Duration) {
        for (circuit, permit) in self.0.iter_mut().filter_map(Option::take) {
            circuit.record(now, permit, outcome, latency);
        }
    }

    /// Whether no circuit is passed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        let now = MonotonicClock.now();
        for (circuit, permit) in self.0.iter_mut().filter_map(Option::take) {
            circuit.cancel(now, permit);
        }
    }
}

fn refusal(circuit: &SharedCircuit, refused: Refused) -> Refusal {
    Refusal {
        code: Code::CircuitOpen,
        stage: "circuit",
        scope: Some(circuit.scope),
        rule: Arc::clone(&circuit.key.policy),
        figures: Figures {
            observed: refused.observed,
            threshold: refused.threshold,
            unit: refused.why.state().as_str(),
        },
        since: refused.since,
        retry_after: Some(refused.retry_after),
        status: None,
        effect: Effect::None,
    }
}
