//! The books of shared machines: circuits, limits and budgets by name.
//!
//! A reload builds everything anew from the new configuration while the old still serves. What has
//! the same name gets the same machine from here, with what it has learnt, and only its policy is
//! replaced; so a reload neither closes an open circuit nor fills a bucket.
//!
//! The books hold machines weakly. A machine lives exactly as long as some configuration in force,
//! or some call under way, uses it: nothing has to be told what is no longer configured, and a
//! flood of instances that come and go cannot make the books grow. What is only a dead entry is
//! swept out when the number of entries has doubled.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use mainstay_resilience::budget::BudgetPolicy;
use mainstay_resilience::circuit::{CircuitPolicy, Snapshot};
use mainstay_resilience::limit::LimitPolicy;
use parking_lot::Mutex;

use crate::budget::SharedBudget;
use crate::circuit::{CircuitKey, SharedCircuit};
use crate::clock::MonotonicClock;
use crate::draw;
use crate::limit::{KeySecret, LimitSnapshot, SharedLimit};
use crate::observe::Observer;

/// Circuits, limits and budgets by name; see the [module](self). One for a process.
#[derive(Debug)]
pub struct Machines {
    observer: Arc<dyn Observer>,
    circuits: Mutex<Book<CircuitKey, SharedCircuit>>,
    limits: Mutex<Book<Arc<str>, SharedLimit>>,
    budgets: Mutex<Book<Arc<str>, SharedBudget>>,
    restored: Mutex<Restored>,
    /// What keys of limits are hashed with.
    secret: Mutex<KeySecret>,
}

/// What of the machines outlives a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// Circuits by key.
    pub circuits: Vec<(CircuitKey, Snapshot)>,
    /// Limits by name.
    pub limits: Vec<(Arc<str>, LimitSnapshot)>,
    /// How much longer an instance, `service@name`, wants to be left alone.
    pub bans: Vec<(Arc<str>, Duration)>,
    /// What keys of limits were hashed with.
    pub secret: Option<KeySecret>,
}

impl Machines {
    /// Empty books. `observer` is told of what their circuits do.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self {
            observer,
            circuits: Mutex::default(),
            limits: Mutex::default(),
            budgets: Mutex::default(),
            restored: Mutex::default(),
            secret: Mutex::default(),
        }
    }

    /// Who is told of what circuits do.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.observer)
    }

    /// The circuit for `key`, under `policy` from now on. A policy of another scope is another
    /// circuit, since a refusal by it means something else.
    pub fn circuit(&self, key: CircuitKey, policy: &Arc<CircuitPolicy>) -> Arc<SharedCircuit> {
        let now = MonotonicClock.now();
        let (circuit, new) = self.circuits.lock().get_or(
            &key,
            |known| known.scope() == policy.scope,
            || {
                let (policy, observer) = (Arc::clone(policy), Arc::clone(&self.observer));
                SharedCircuit::new(key.clone(), policy, draw::next(), observer)
            },
        );
        // With the books closed: both tell the observer, who may want to look something up.
        if !new {
            circuit.set_policy(now, Arc::clone(policy));
        } else if let Some((snapshot, elapsed)) =
            self.restored.lock().take(now, |left| left.circuits.remove(&key))
        {
            circuit.restore(now, &snapshot, elapsed);
        }
        circuit
    }

    /// The limit called `name`, under `policy` from now on. A policy of a kind that cannot go on
    /// from what the old one counted begins anew.
    pub fn limit(&self, name: &Arc<str>, policy: &Arc<LimitPolicy>) -> Arc<SharedLimit> {
        let (limit, new) = self.limits.lock().get_or(
            name,
            |known| *known.policy() == **policy || known.set_policy(policy),
            || {
                let secret = *self.secret.lock();
                SharedLimit::with_secret(Arc::clone(name), Arc::clone(policy), secret)
            },
        );
        if new {
            let now = MonotonicClock.now();
            if let Some((kept, elapsed)) =
                self.restored.lock().take(now, |left| left.limits.remove(name))
            {
                limit.restore(&kept, elapsed);
            }
        }
        limit
    }

    /// How much longer the instance `subject`, `service@name`, wants to be left alone, as a
    /// process before this one was told.
    pub fn ban(&self, subject: &str) -> Option<Duration> {
        let now = MonotonicClock.now();
        let taken = self.restored.lock().take(now, |left| left.bans.remove(subject))?;
        let (left, elapsed) = taken;
        left.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// The retry budget of `upstream`, under `policy` from now on.
    pub fn budget(&self, upstream: &Arc<str>, policy: BudgetPolicy) -> Arc<SharedBudget> {
        let make = || SharedBudget::new(policy);
        let (budget, new) = self.budgets.lock().get_or(upstream, |_known| true, make);
        if !new {
            budget.set_policy(policy);
        }
        budget
    }

    /// Every circuit in use, by key.
    pub fn circuits(&self) -> Vec<Arc<SharedCircuit>> {
        self.circuits.lock().all()
    }

    /// The circuit for `key`, if one is in use.
    pub fn find_circuit(&self, key: &CircuitKey) -> Option<Arc<SharedCircuit>> {
        self.circuits.lock().find(key)
    }

    /// Every limit in use, by name.
    pub fn limits(&self) -> Vec<Arc<SharedLimit>> {
        self.limits.lock().all()
    }

    /// The limit called `name`, if one is in use.
    pub fn find_limit(&self, name: &Arc<str>) -> Option<Arc<SharedLimit>> {
        self.limits.lock().find(name)
    }

    /// Every retry budget in use, by upstream.
    pub fn budgets(&self) -> Vec<(Arc<str>, Arc<SharedBudget>)> {
        self.budgets.lock().entries()
    }

    /// Sweeps out the entries of machines that nobody uses any more. Nothing depends on it; after
    /// a change of configuration it is a good time.
    pub fn retain_used(&self) {
        self.circuits.lock().sweep();
        self.limits.lock().sweep();
        self.budgets.lock().sweep();
    }

    /// What circuits and limits know, to be written down over a restart. Of instances that want to
    /// be left alone nothing is known here.
    pub fn snapshot(&self) -> Saved {
        let now = MonotonicClock.now();
        let circuits = self.circuits().into_iter();
        let limits = self.limits().into_iter();
        Saved {
            circuits: circuits.map(|it| (it.key().clone(), it.snapshot(now))).collect(),
            limits: limits.filter_map(|it| Some((Arc::clone(it.name()), it.snapshot()?))).collect(),
            bans: Vec::new(),
            secret: Some(*self.secret.lock()),
        }
    }

    /// Takes over what a process before this one wrote down `elapsed` ago.
    ///
    /// Circuits in use take their part at once. The rest is kept for machines that are yet to be
    /// made, since instances become known one after the other, until it is 300 s old in all; what
    /// is older than that is not taken at all. Limits take theirs when they are made, so this
    /// comes before them.
    pub fn restore(&self, saved: Saved, elapsed: Duration) {
        if AGE_MAX < elapsed {
            return;
        }
        let now = MonotonicClock.now();
        let Saved { circuits, limits, bans, secret } = saved;
        let mut later = BTreeMap::new();
        for (key, snapshot) in circuits {
            match self.find_circuit(&key) {
                Some(known) => known.restore(now, &snapshot, elapsed),
                None => drop(later.insert(key, snapshot)),
            }
        }
        // What was counted under one secret means nothing under another.
        let limits = match secret {
            Some(secret) => {
                *self.secret.lock() = secret;
                limits.into_iter().collect()
            }
            None => BTreeMap::new(),
        };
        let left = Left { circuits: later, limits, bans: bans.into_iter().collect() };
        *self.restored.lock() = Restored { left, at: now, elapsed };
    }
}

/// What was written down of machines that have not been made yet.
#[derive(Debug, Default)]
struct Left {
    circuits: BTreeMap<CircuitKey, Snapshot>,
    limits: BTreeMap<Arc<str>, LimitSnapshot>,
    bans: BTreeMap<Arc<str>, Duration>,
}

#[derive(Debug, Default)]
struct Restored {
    left: Left,
    /// When they were read.
    at: Instant,
    /// How old they were then.
    elapsed: Duration,
}

impl Restored {
    /// What `of` finds, and how old it is now.
    fn take<T>(
        &mut self,
        now: Instant,
        of: impl FnOnce(&mut Left) -> Option<T>,
    ) -> Option<(T, Duration)> {
        let elapsed = self.elapsed.saturating_add(now.since(self.at));
        if AGE_MAX < elapsed {
            self.left = Left::default();
        }
        of(&mut self.left).map(|found| (found, elapsed))
    }
}

/// What is older says little of how a peer is now (calls.md, section 1).
const AGE_MAX: Duration = Duration::from_mins(5);

/// One kind of machine by name.
#[derive(Debug)]
struct Book<K, M> {
    entries: BTreeMap<K, Weak<M>>,
    /// Number of entries at which dead ones are swept out.
    sweep_at: usize,
}

impl<K: Ord + Clone, M> Book<K, M> {
    /// The machine for `key` if there is one that `fits`, else a new one; and whether it is new.
    fn get_or(
        &mut self,
        key: &K,
        fits: impl FnOnce(&M) -> bool,
        make: impl FnOnce() -> M,
    ) -> (Arc<M>, bool) {
        if let Some(known) = self.find(key).filter(|known| fits(known)) {
            return (known, false);
        }
        if self.sweep_at <= self.entries.len() {
            self.sweep();
        }
        let machine = Arc::new(make());
        self.entries.insert(key.clone(), Arc::downgrade(&machine));
        (machine, true)
    }

    fn sweep(&mut self) {
        self.entries.retain(|_key, machine| 0 < machine.strong_count());
        self.sweep_at = SWEEP_MIN.max(2 * self.entries.len());
    }

    fn find(&self, key: &K) -> Option<Arc<M>> {
        self.entries.get(key)?.upgrade()
    }

    fn entries(&self) -> Vec<(K, Arc<M>)> {
        let alive = |(key, machine): (&K, &Weak<M>)| Some((key.clone(), machine.upgrade()?));
        self.entries.iter().filter_map(alive).collect()
    }

    fn all(&self) -> Vec<Arc<M>> {
        self.entries.values().filter_map(Weak::upgrade).collect()
    }
}

impl<K, M> Default for Book<K, M> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), sweep_at: SWEEP_MIN }
    }
}

/// Fewer entries than this are not worth a sweep: a few kilobytes.
const SWEEP_MIN: usize = 64;

#[cfg(test)]
mod tests;
