//! The machines that calls share, by name.
//!
//! A new configuration asks for its circuits, limits and budgets here, and is given those there
//! are: what a machine has learnt belongs to its name, not to the configuration that made it. What
//! no configuration names any more is dropped by [`Machines::retain`].

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::Clock;
use mainstay_resilience::budget::BudgetPolicy;
use mainstay_resilience::circuit::CircuitPolicy;
use mainstay_resilience::limit::LimitPolicy;
use parking_lot::Mutex;

use crate::budget::SharedBudget;
use crate::circuit::{CircuitKey, SharedCircuit};
use crate::clock::MonotonicClock;
use crate::draw;
use crate::limit::SharedLimit;
use crate::observe::Observer;

/// Circuits, limits and budgets of this process.
#[derive(Debug)]
pub struct Machines {
    observer: Arc<dyn Observer>,
    circuits: Mutex<BTreeMap<CircuitKey, Arc<SharedCircuit>>>,
    limits: Mutex<BTreeMap<Arc<str>, Arc<SharedLimit>>>,
    budgets: Mutex<BTreeMap<Arc<str>, Arc<SharedBudget>>>,
}

impl Machines {
    /// None yet; what they do is told to `observer`.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self {
            observer,
            circuits: Mutex::default(),
            limits: Mutex::default(),
            budgets: Mutex::default(),
        }
    }

    /// Who is told of what the machines do.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.observer)
    }

    /// The circuit `key`, by `policy` from now on.
    pub fn circuit(&self, key: CircuitKey, policy: &Arc<CircuitPolicy>) -> Arc<SharedCircuit> {
        let mut all = self.circuits.lock();
        if let Some(known) = all.get(&key).filter(|known| known.scope() == policy.scope) {
            known.set_policy(MonotonicClock.now(), Arc::clone(policy));
            return Arc::clone(known);
        }
        let observer = Arc::clone(&self.observer);
        let fresh = SharedCircuit::new(key.clone(), Arc::clone(policy), draw::next(), observer);
        let fresh = Arc::new(fresh);
        all.insert(key, Arc::clone(&fresh));
        fresh
    }

    /// The limit `name`, by `policy` from now on.
    pub fn limit(&self, name: &Arc<str>, policy: &Arc<LimitPolicy>) -> Arc<SharedLimit> {
        let mut all = self.limits.lock();
        if let Some(known) = all.get(name)
            && (*known.policy() == **policy || known.set_policy(policy))
        {
            return Arc::clone(known);
        }
        let fresh = Arc::new(SharedLimit::new(Arc::clone(name), Arc::clone(policy)));
        all.insert(Arc::clone(name), Arc::clone(&fresh));
        fresh
    }

    /// The retry budget of `upstream`, by `policy` from now on.
    pub fn budget(&self, upstream: &Arc<str>, policy: BudgetPolicy) -> Arc<SharedBudget> {
        let mut all = self.budgets.lock();
        if let Some(known) = all.get(upstream) {
            known.set_policy(policy);
            return Arc::clone(known);
        }
        let fresh = Arc::new(SharedBudget::new(policy));
        all.insert(Arc::clone(upstream), Arc::clone(&fresh));
        fresh
    }

    /// All circuits, by key.
    pub fn circuits(&self) -> Vec<Arc<SharedCircuit>> {
        self.circuits.lock().values().cloned().collect()
    }

    /// All limits, by name.
    pub fn limits(&self) -> Vec<Arc<SharedLimit>> {
        self.limits.lock().values().cloned().collect()
    }

    /// Drops what nobody holds any more: after a change of configuration, everything that the new
    /// one does not name.
    pub fn retain_used(&self) {
        self.circuits.lock().retain(|_, circuit| Arc::strong_count(circuit) > 1);
        self.limits.lock().retain(|_, limit| Arc::strong_count(limit) > 1);
        self.budgets.lock().retain(|_, budget| Arc::strong_count(budget) > 1);
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::Instant;
    use mainstay_resilience::circuit::{Mode, RawCircuit};
    use mainstay_resilience::limit::RawLimit;

    use crate::observe::Silent;

    use super::*;

    fn key() -> CircuitKey {
        CircuitKey { policy: "default".into(), subject: "order@a:1".into() }
    }

    #[test]
    fn what_was_learnt_belongs_to_the_name() {
        let machines = Machines::new(Arc::new(Silent));
        let first = machines.circuit(key(), &Arc::default());
        first.set_mode(MonotonicClock.now(), Mode::ForcedOpen, Instant::MAX);
        let raw = RawCircuit { probes: Some(9), ..RawCircuit::default() };
        let again = machines.circuit(key(), &Arc::new(raw.try_into().expect("legal")));
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!again.admits(MonotonicClock.now()), "still forced open");
    }

    #[test]
    fn what_nobody_names_any_more_is_dropped() {
        let machines = Machines::new(Arc::new(Silent));
        let kept = machines.circuit(key(), &Arc::default());
        let raw = RawLimit { max: Some(3), ..RawLimit::default() };
        let limit = Arc::new(LimitPolicy::try_from(raw).expect("legal"));
        drop(machines.limit(&"api".into(), &limit));
        machines.retain_used();
        assert_eq!((machines.circuits().len(), machines.limits().len()), (1, 0));
        drop(kept);
        machines.retain_used();
        assert!(machines.circuits().is_empty());
    }
}
