//! Pacing: calls leave one by one, evenly spaced, like drops from a leaky bucket.
//!
//! The next slot is one interval for every unit the last call took after that call's slot, or now,
//! whichever is later. A call whose slot lies ahead waits for it, at most `wait_max_seconds` and
//! behind at most `queue_max` others; idle time saves up nothing. The state is the next free slot,
//! in the grains of [`Rate`], so spacing is right at a million calls a second as well as at one.
//!
//! How many wait follows from how far ahead the next slot lies: a call counts as one waiter for
//! every `cost` of the policy it takes. A waiter that gives up returns its slot if no later one has
//! been given away; an earlier slot stays empty, since those behind it have been told their time.
//! For the same reason an interval begun at a lower rate ends before a higher one holds.

use std::time::Duration;

use mainstay_core::Instant;

use super::bucket::Rate;
use super::decision::Cost;
use super::machine::{Level, Request, Rule, Spent, Verdict};
use super::policy::{Quota, Waiting};

#[derive(Clone, Copy, Debug)]
pub(super) struct Pacing {
    rate: Rate,
    max: u32,
    wait_max: Duration,
    /// Grains the next slot may lie ahead when `queue_max` calls wait.
    queue: u64,
}

impl Pacing {
    pub(super) fn new(quota: Quota, waiting: Waiting, cost: Cost) -> Self {
        let rate = Rate::new(quota, 1);
        let queue = rate.queue(cost.get(), waiting.queue_max);
        Self { rate, max: quota.max.get(), wait_max: waiting.wait_max, queue }
    }

    /// When a call whose slot is `wait` away may go, if it may wait for it.
    pub(super) fn until(&self, request: Request, wait: Duration) -> Option<Instant> {
        let until = request.now.plus(wait);
        let ahead = self.rate.grains(Instant::ZERO.plus(wait));
        let may = wait <= self.wait_max && ahead <= self.queue && until <= request.deadline;
        may.then_some(until)
    }

    /// `wait` as a number of intervals, rounded up.
    pub(super) fn intervals(&self, wait: Duration) -> u64 {
        self.rate.intervals(self.rate.grains(Instant::ZERO.plus(wait)))
    }

    /// Intervals by which the next slot may lie ahead for a call that is still granted, and one.
    pub(super) fn threshold(&self) -> u64 {
        let wait = self.rate.grains(Instant::ZERO.plus(self.wait_max));
        self.rate.intervals(wait.min(self.queue)).saturating_add(1)
    }
}

impl Rule for Pacing {
    /// The next free slot, in grains.
    type State = u64;

    fn fresh(&self, _now: Instant) -> u64 {
        0
    }

    fn capacity(&self) -> u32 {
        self.max
    }

    fn ask(&self, next: &mut u64, request: Request) -> Verdict {
        let now = self.rate.grains(request.now);
        let slot = (*next).max(now);
        let after = slot.saturating_add(self.rate.cost(request.cost));
        if slot == now {
            *next = after;
            return Verdict::Granted { remaining: 0, reset: self.rate.span(after - now), slot };
        }
        let wait = self.rate.span(slot - now);
        if let Some(until) = self.until(request, wait) {
            *next = after;
            return Verdict::Wait { until, slot };
        }
        let observed = self.rate.intervals(slot - now);
        Verdict::Denied { retry_after: wait, observed, threshold: self.threshold() }
    }

    fn refund(&self, next: &mut u64, _now: Instant, spent: Spent) {
        if *next == spent.slot.saturating_add(self.rate.cost(spent.cost)) {
            *next = spent.slot;
        }
    }

    fn adopt(&self, old: &Self, next: &mut u64, now: Instant) {
        let debt = next.saturating_sub(old.rate.grains(now));
        // At a lower rate, the calls that have slots weigh more.
        let kept = self.rate.grains(old.rate.moment(*next));
        let weighed =
            u128::from(debt) * u128::from(self.rate.cost(1)) / u128::from(old.rate.cost(1));
        let weighed = u64::try_from(weighed).unwrap_or(u64::MAX);
        *next = kept.max(self.rate.grains(now).saturating_add(weighed));
    }

    fn level(&self, next: &u64, now: Instant) -> Level {
        let debt = next.saturating_sub(self.rate.grains(now));
        let (used, capacity) = (self.rate.intervals(debt), self.threshold());
        Level { used, capacity, reset: self.rate.span(debt) }
    }

    fn age(&self, next: &u64) -> u64 {
        *next
    }
}
