//! The retry budget of one upstream, shared by all its calls.

use std::sync::Arc;

use mainstay_core::{Clock, Instant};
use mainstay_resilience::budget::{Budget, BudgetPolicy, Credit, Ended, View};
use parking_lot::Mutex;

use crate::clock::MonotonicClock;

/// A budget that any number of calls draw on. The machine stands behind one short mutex.
#[derive(Debug)]
pub struct SharedBudget(Mutex<Budget>);

impl SharedBudget {
    /// A budget nobody has drawn on yet.
    pub fn new(policy: BudgetPolicy) -> Self {
        Self(Mutex::new(Budget::new(policy, MonotonicClock.now())))
    }

    /// Takes another policy and keeps what was spent.
    pub fn set_policy(&self, policy: BudgetPolicy) {
        self.0.lock().set_policy(MonotonicClock.now(), policy);
    }

    /// How it stands.
    pub fn view(&self) -> View {
        self.0.lock().view(MonotonicClock.now())
    }
}

/// One call that draws on a budget. However the call ends, what it held goes back with this.
#[derive(Debug)]
pub(crate) struct Spending {
    budget: Arc<SharedBudget>,
    /// Credits of attempts under way.
    held: Vec<Credit>,
}

impl Spending {
    /// A call begins at `now`.
    pub(crate) fn begin(budget: Arc<SharedBudget>, now: Instant) -> Self {
        budget.0.lock().first_attempt(now);
        Self { budget, held: Vec::new() }
    }

    /// Takes a credit for one more attempt; whether there was one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let credit = self.budget.0.lock().try_take(now);
        let granted = credit.is_some();
        self.held.extend(credit);
        granted
    }

    /// An attempt ended; the credit that paid for it, if one did, is spent.
    pub(crate) fn ended(&mut self, ended: Ended) {
        let credit = self.held.pop();
        self.budget.0.lock().done(ended, credit);
    }

    /// The attempt that the last credit was for will not be made.
    pub(crate) fn give_back(&mut self, now: Instant) {
        if let Some(credit) = self.held.pop() {
            self.budget.0.lock().give_back(now, credit);
        }
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        let mut budget = self.budget.0.lock();
        for credit in self.held.drain(..) {
            budget.done(Ended::Otherwise, Some(credit));
        }
        budget.call_ended();
    }
}
