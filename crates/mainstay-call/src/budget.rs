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
    /// Credits of attempts under way or about to be.
    held: Vec<Credit>,
    /// The last credit is for an attempt that has not been sent yet.
    unsent: bool,
}

impl Spending {
    /// A call begins at `now`.
    pub(crate) fn begin(budget: Arc<SharedBudget>, now: Instant) -> Self {
        budget.0.lock().first_attempt(now);
        Self { budget, held: Vec::new(), unsent: false }
    }

    /// Takes a credit for one more attempt; whether there was one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let credit = self.budget.0.lock().try_take(now);
        let granted = credit.is_some();
        self.held.extend(credit);
        self.unsent = granted;
        granted
    }

    /// The attempt that the last credit was for has been sent.
    pub(crate) fn sent(&mut self) {
        self.unsent = false;
    }

    /// An attempt ended; the credit that paid for it, if one did, is spent.
    pub(crate) fn ended(&mut self, ended: Ended) {
        let credit = self.held.pop();
        self.budget.0.lock().done(ended, credit);
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        let mut budget = self.budget.0.lock();
        if self.unsent
            && let Some(credit) = self.held.pop()
        {
            budget.give_back(MonotonicClock.now(), credit);
        }
        for credit in self.held.drain(..) {
            budget.done(Ended::Otherwise, Some(credit));
        }
        budget.call_ended();
    }
}
