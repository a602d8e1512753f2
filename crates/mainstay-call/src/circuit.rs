//! A circuit shared by threads.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{
    self as machine, Circuit, CircuitPolicy, Mode, Quiet, Refused, Scope, Snapshot, Transition,
    View,
};

use crate::clock::MonotonicClock;
use crate::error::{Figures, Refusal};
use crate::observe::Observer;
use crate::sync::Mutex;

mod beside;

use self::beside::Beside;

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
/// The machine stands behind one short mutex; nothing waits while holding it. While the circuit is
/// closed by its own judgement, counts in a time window and can only fare better by successes,
/// neither `admit` nor a success that was not slow takes that mutex: the first is one load, the
/// second a count in a shard of its thread, which the machine takes in before it hears of anything
/// else. Decisions and views are those of a [`Circuit`] that heard of every call in turn.
///
/// One thing is coarser: an `admit` without the mutex does not leave its moment behind, so a later
/// event with an earlier `now` counts as at the last event that did, which lies at most one
/// sub-window back. No count and no verdict depends on it.
#[derive(Debug)]
pub struct SharedCircuit {
    key: CircuitKey,
    scope: Scope,
    beside: Beside,
    guarded: Mutex<Guarded>,
    observer: Arc<dyn Observer>,
}

/// The machine, and what it has let others count.
#[derive(Debug)]
struct Guarded {
    machine: Circuit,
    /// The last quiet state.
    quiet: Quiet,
    /// Whether the shards are open.
    open: bool,
}

/// Permission to send one call. Hand it back with [`SharedCircuit::record`] or
/// [`SharedCircuit::cancel`], to the circuit that gave it.
#[derive(Debug)]
#[must_use = "the circuit learns nothing from a call that is never recorded"]
pub struct Permit(Given);

#[derive(Debug)]
enum Given {
    /// While the circuit was quiet, in the state of this number.
    Quiet(u64),
    /// By the machine.
    Machine(machine::Permit),
}

impl SharedCircuit {
    /// A closed circuit for `key`. `seed` decides the jitter of its cooldowns.
    pub fn new(
        key: CircuitKey,
        policy: Arc<CircuitPolicy>,
        seed: u64,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self::new_at(MonotonicClock.now(), key, policy, seed, observer)
    }

    /// The same, with a time window aligned to `now`.
    pub fn new_at(
        now: Instant,
        key: CircuitKey,
        policy: Arc<CircuitPolicy>,
        seed: u64,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let scope = policy.scope;
        let mut guarded = Guarded {
            machine: Circuit::new(policy, seed, now),
            quiet: Quiet::default(),
            open: false,
        };
        let beside = Beside::new();
        guarded.let_go(&beside);
        Self { key, scope, beside, guarded: Mutex::new(guarded), observer }
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
    #[inline]
    pub fn admits(&self, now: Instant) -> bool {
        // Counts beside the machine do not change its answer, or they would not be there.
        self.beside.quiet().is_some() || self.guarded.lock().machine.admits(now)
    }

    /// Whether it waits for a call at `now` to find out how its peer is.
    #[inline]
    pub fn is_curious(&self, now: Instant) -> bool {
        // A quiet circuit is a closed one.
        self.beside.quiet().is_none() && self.guarded.lock().machine.is_curious(now)
    }

    /// Notes that a call went elsewhere because this circuit would not admit it. A ramp counts
    /// those it turns away, and would stand still without them.
    pub fn pass_over(&self, now: Instant) {
        if self.beside.quiet().is_none() {
            self.work(|Guarded { machine, .. }| machine.pass_over(now));
        }
    }

    /// Asks to send one call.
    ///
    /// # Errors
    ///
    /// [`Refused`] while the circuit does not let the call through.
    #[inline]
    pub fn admit(&self, now: Instant) -> Result<Permit, Refused> {
        match self.beside.quiet() {
            Some(number) => Ok(Permit(Given::Quiet(number))),
            None => {
                let permit = self.work(|Guarded { machine, .. }| machine.admit(now))?;
                Ok(Permit(Given::Machine(permit)))
            }
        }
    }

    /// Records how a call ended.
    #[inline]
    pub fn record(&self, now: Instant, permit: Permit, outcome: Outcome, latency: Duration) {
        if let Permit(Given::Quiet(number)) = permit
            && outcome == Outcome::Success
            && self.beside.count(now, number, latency)
        {
            return;
        }
        self.spend(now, permit, |machine, permit| {
            machine.record(now, permit, outcome, latency);
        });
    }

    /// Takes a permit back.
    pub fn cancel(&self, now: Instant, permit: Permit) {
        // A closed circuit has nothing to take back.
        if let Permit(Given::Quiet(number)) = permit
            && self.beside.quiet() == Some(number)
        {
            return;
        }
        self.spend(now, permit, |machine, permit| machine.cancel(now, permit));
    }

    /// Sets the mode until `until`; [`Instant::MAX`] stands for "until somebody sets another".
    pub fn set_mode(&self, now: Instant, mode: Mode, until: Instant) -> Option<Transition> {
        self.work(|Guarded { machine, .. }| machine.set_mode_until(now, mode, until))
    }

    /// Forgets every result and closes the circuit.
    pub fn reset(&self, now: Instant) -> Option<Transition> {
        self.work(|Guarded { machine, .. }| machine.reset(now))
    }

    /// Takes another policy and keeps the state.
    pub fn set_policy(&self, now: Instant, policy: Arc<CircuitPolicy>) {
        self.work(|Guarded { machine, .. }| {
            if **machine.policy() != *policy {
                machine.set_policy(now, policy);
            }
        });
    }

    /// Everything there is to see of it.
    pub fn view(&self, now: Instant) -> View {
        self.work(|Guarded { machine, .. }| machine.view(now))
    }

    /// What of it is worth keeping over a restart.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.work(|Guarded { machine, .. }| machine.snapshot(now))
    }

    /// Hands a permit to the machine, in its own words.
    #[inline(never)]
    fn spend(
        &self,
        now: Instant,
        permit: Permit,
        work: impl FnOnce(&mut Circuit, machine::Permit),
    ) {
        self.work(|guarded| match permit.0 {
            Given::Machine(permit) => work(&mut guarded.machine, permit),
            Given::Quiet(number) if number == guarded.quiet.number() => {
                work(&mut guarded.machine, guarded.quiet.permit());
            }
            // From a state before the last quiet one: the machine would look at the clock, and at
            // nothing else.
            Given::Quiet(_) => drop(guarded.machine.poll(now)),
        });
    }

    /// Takes over what a process before this one wrote down `elapsed` ago.
    pub fn restore(&self, now: Instant, snapshot: &Snapshot, elapsed: Duration) {
        self.work(|guarded| guarded.machine.restore(now, snapshot, elapsed));
    }

    /// Works on the machine, then tells of the transitions that caused, with the lock released.
    fn work<R>(&self, work: impl FnOnce(&mut Guarded) -> R) -> R {
        let mut guarded = self.guarded.lock();
        guarded.take_in(&self.beside);
        let seen = guarded.machine.changes();
        let result = work(&mut guarded);
        guarded.let_go(&self.beside);
        if guarded.machine.changes() == seen {
            return result;
        }
        let changes: Vec<Transition> = guarded.machine.changes_since(seen).collect();
        drop(guarded);
        for change in &changes {
            self.observer.circuit_changed(self, change);
        }
        result
    }
}

impl Guarded {
    /// Tells the machine what was counted beside it.
    #[inline]
    fn take_in(&mut self, beside: &Beside) {
        if self.open {
            beside.close(|aside| self.machine.absorb(aside));
        }
    }

    /// Lets others count while the machine allows it.
    #[inline]
    fn let_go(&mut self, beside: &Beside) {
        let quiet = self.machine.quiet();
        if let Some(quiet) = quiet {
            beside.open(quiet);
            self.quiet = quiet;
        } else if self.open {
            beside.shut();
        }
        self.open = quiet.is_some();
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

#[cfg(all(test, mainstay_loom))]
mod modelled {
    use std::time::Duration;

    use mainstay_resilience::circuit::{RawCircuit, State};

    use super::*;
    use crate::observe::Silent;

    #[test]
    fn a_call_dropped_while_another_is_admitted_gives_its_probe_back() {
        loom::model(|| {
            let start = MonotonicClock.now(); // A dropped call gives its probe back at that clock's time.
            let raw = RawCircuit { probes: Some(1), ..RawCircuit::default() };
            let policy = Arc::new(CircuitPolicy::try_from(raw).unwrap());
            let key = CircuitKey { policy: "p".into(), subject: "s".into() };
            let circuit = Arc::new(SharedCircuit::new_at(start, key, policy, 7, Arc::new(Silent)));
            circuit.set_mode(start, Mode::ForcedOpen, Instant::MAX);
            circuit.set_mode(start, Mode::Auto, Instant::MAX);
            let after = start.plus(Duration::from_secs(5));
            let ask = move |circuit: &Arc<SharedCircuit>| {
                Permits::take(after, std::iter::once(circuit)).map(drop).is_ok()
            };
            let theirs = Arc::clone(&circuit);
            let other = loom::thread::spawn(move || ask(&theirs));
            let (mine, other) = (ask(&circuit), other.join().unwrap());
            assert!(mine || other);
            let view = circuit.view(after);
            assert_eq!((view.state, view.probes_free), (State::HalfOpen, 1));
        });
    }
}
