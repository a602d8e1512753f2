//! Warm-up: pacing whose rate rises from a fraction to the whole while a cold peer warms.
//!
//! The peer is pictured as a store of permits that fills while it idles: a full store is a cold
//! peer. Permits come out of the store first, and the fuller it is the longer each takes, from
//! `cold_factor` intervals at `full` down to one at the threshold `W`; between them the price falls
//! on a straight line, and a call pays the area under it. That area from `full` to `W` is exactly
//! `warm_up_seconds`:
//!
//! ```text
//! W     = warm · rate / (cold − 1)            full = W + 2 · warm · rate / (1 + cold)
//! slope = (cold − 1) / rate / (full − W)      price(s) = 1/rate + (s − W) · slope   for s ≥ W
//! ```
//!
//! Idle time stores `full / warm` permits a second. A limit starts cold. The model is that of
//! Guava's `SmoothRateLimiter` (`SmoothWarmingUp`); slots and waiting are those of
//! [`pacing`](super::pacing).

use std::time::Duration;

use mainstay_core::Instant;

use super::bucket::GRAINS_MAX;
use super::decision::Cost;
use super::machine::{Level, Request, Rule, Spent, Verdict};
use super::pacing::Pacing;
use super::policy::{Quota, Waiting};

#[derive(Clone, Copy, Debug)]
pub(super) struct WarmUp {
    /// Slots and waiting at the full rate.
    pacing: Pacing,
    /// Nanoseconds a permit takes when warm.
    interval: f64,
    /// Permits in the store of a cold peer.
    full: f64,
    /// Permits below which the peer counts as warm.
    threshold: f64,
    /// Nanoseconds by which the price rises for each permit above the threshold.
    slope: f64,
    /// Permits stored in a nanosecond of idleness.
    cooling: f64,
    max: u32,
}

/// The next free slot and the permits in store at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Warmth {
    /// Sixty-fourths of a nanosecond.
    next: u64,
    stored: f64,
}

impl WarmUp {
    /// `cold_factor` is above 1.
    pub(super) fn new(
        quota: Quota,
        waiting: Waiting,
        cost: Cost,
        warm_up: Duration,
        cold_factor: f64,
    ) -> Self {
        let nanos = 1e9;
        let rate = f64::from(quota.max.get()) / quota.window.as_secs_f64();
        let warm = warm_up.as_secs_f64();
        let threshold = warm * rate / (cold_factor - 1.0);
        let full = threshold + 2.0 * warm * rate / (1.0 + cold_factor);
        Self {
            pacing: Pacing::new(quota, waiting, cost),
            interval: nanos / rate,
            full,
            threshold,
            slope: nanos * (cold_factor - 1.0) / rate / (full - threshold),
            cooling: full / warm / nanos,
            max: quota.max.get(),
        }
    }

    /// Stores what the time between the next slot and `now` is worth.
    fn cool(&self, state: &mut Warmth, now: Instant) {
        let now = grains(now);
        if state.next < now {
            let idle = float(now - state.next) / GRAINS;
            state.stored = (state.stored + idle * self.cooling).min(self.full);
            state.next = now;
        }
    }

    /// Grains `cost` permits take out of a store of `stored`, rounded up.
    fn price(&self, stored: f64, cost: f64) -> u64 {
        let from = (stored - self.threshold).max(0.0);
        let to = (stored - cost - self.threshold).max(0.0);
        let nanos = cost * self.interval + self.slope * (from * from - to * to) / 2.0;
        whole((nanos * GRAINS).ceil())
    }
}

impl Rule for WarmUp {
    type State = Warmth;

    fn fresh(&self, now: Instant) -> Warmth {
        Warmth { next: grains(now), stored: self.full }
    }

    fn capacity(&self) -> u32 {
        self.max
    }

    fn ask(&self, state: &mut Warmth, request: Request) -> Verdict {
        let Request { now, cost, .. } = request;
        self.cool(state, now);
        let (slot, units) = (state.next, f64::from(cost));
        let wait = span(slot.saturating_sub(grains(now)));
        let until = if wait.is_zero() { Some(now) } else { self.pacing.until(request, wait) };
        let Some(until) = until else {
            let (observed, threshold) = (self.pacing.intervals(wait), self.pacing.threshold());
            return Verdict::Denied { retry_after: wait, observed, threshold };
        };
        state.next = slot.saturating_add(self.price(state.stored, units));
        state.stored = (state.stored - units).max(0.0);
        if wait.is_zero() {
            let reset = span(state.next.saturating_sub(grains(now)));
            Verdict::Granted { remaining: 0, reset, slot }
        } else {
            Verdict::Wait { until, slot }
        }
    }

    /// Gives the slot back if it is the last; what the call took out of the store is put back.
    fn refund(&self, state: &mut Warmth, _now: Instant, spent: Spent) {
        let units = f64::from(spent.cost);
        let before = (state.stored + units).min(self.full);
        let end = spent.slot.saturating_add(self.price(before, units));
        // A later slot would lie a whole interval further; a nanosecond is what rounding can do.
        if state.next.abs_diff(end) <= GRAINS_PER_NANO {
            *state = Warmth { next: spent.slot, stored: before };
        }
    }

    /// Keeps how warm the peer is, as a share, and the slots given away.
    fn adopt(&self, old: &Self, state: &mut Warmth, now: Instant) {
        old.cool(state, now);
        state.stored = (state.stored / old.full * self.full).min(self.full);
        let debt = float(state.next - grains(now));
        let weighed = whole(debt * (self.interval / old.interval).max(1.0));
        state.next = grains(now).saturating_add(weighed);
    }

    fn level(&self, state: &Warmth, now: Instant) -> Level {
        let reset = span(state.next.saturating_sub(grains(now)));
        Level { used: self.pacing.intervals(reset), capacity: self.pacing.threshold(), reset }
    }

    fn age(&self, state: &Warmth) -> u64 {
        state.next
    }
}

/// Grains in a nanosecond: a price is rounded up by less than 1/64 ns.
const GRAINS_PER_NANO: u64 = 64;
const GRAINS: f64 = 64.0;

fn grains(now: Instant) -> u64 {
    now.as_nanos().saturating_mul(GRAINS_PER_NANO).min(GRAINS_MAX)
}

fn span(grains: u64) -> Duration {
    Duration::from_nanos(grains.div_ceil(GRAINS_PER_NANO))
}

#[expect(clippy::cast_precision_loss, reason = "the share lost is below 2^-52")]
fn float(grains: u64) -> f64 {
    grains as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and a float beyond u64 becomes u64::MAX"
)]
fn whole(grains: f64) -> u64 {
    grains as u64
}
