//! The token bucket, kept as one word: the generic cell rate algorithm.
//!
//! Instead of counting tokens, GCRA (ITU-T I.371, "virtual scheduling") remembers the moment at
//! which the bucket will be full again, the theoretical arrival time. A call of cost `c` moves it
//! by `c` emission intervals, and may do so while it stays within `burst` intervals of now. There
//! is nothing to refill, so no idle time, however long, can overfill it: the capacity is `burst`
//! after a second and after a week.
//!
//! Time is counted in *grains*, a whole fraction of a nanosecond chosen for the rate: 7 per second
//! is an interval of 1,000,000,000 grains of 1/7 ns, and exact. Rates that would need grains finer
//! than 1/64 ns get an interval rounded up by less than 1/64 ns (0.0016 % at 1,000,000/s), so the
//! bound holds strictly. One word of grains lasts at least 6.8 years; after that the bucket stops
//! refilling rather than let anything through.

use std::time::Duration;

use mainstay_core::Instant;

use super::decision::Cost;
use super::machine::{Level, Request, Rule, Spent, Verdict, nanos};
use super::policy::Quota;
use super::snapshot::{Left, QuotaLeft};

/// An emission interval and a burst, worked out so that asking needs no division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Grains between two units.
    interval: Divisor,
    /// Grains in a nanosecond.
    grain: Divisor,
    /// Grains by which the theoretical arrival time may lie ahead: `burst` intervals.
    tolerance: u64,
    burst: u32,
}

impl Rate {
    /// `quota` refilling evenly into a bucket of `burst` units, at least one.
    pub fn new(quota: Quota, burst: u32) -> Self {
        let (window, max) = (nanos(quota.window).max(1), u64::from(quota.max.get()));
        let common = gcd(window, max);
        let (grain, interval) = if max / common <= GRAINS_PER_NANO_MAX {
            (max / common, window / common)
        } else {
            let fine = u128::from(window) * u128::from(GRAINS_PER_NANO_MAX);
            let interval = fine.div_ceil(u128::from(max));
            (GRAINS_PER_NANO_MAX, u64::try_from(interval).unwrap_or(u64::MAX))
        };
        let burst = burst.max(1);
        Self {
            interval: Divisor::new(interval),
            grain: Divisor::new(grain),
            tolerance: interval.saturating_mul(u64::from(burst)).min(TOLERANCE_MAX),
            burst,
        }
    }

    /// The largest cost that can ever be granted.
    pub const fn capacity(&self) -> u32 {
        self.burst
    }

    /// Units left in a bucket whose theoretical arrival time is `tat`.
    pub fn remaining(&self, tat: u64, now: Instant) -> u64 {
        let debt = tat.saturating_sub(self.grains(now));
        self.interval.divide(self.tolerance.saturating_sub(debt))
    }

    /// How long until a bucket whose theoretical arrival time is `tat` is full.
    pub fn reset(&self, tat: u64, now: Instant) -> Duration {
        self.span(tat.saturating_sub(self.grains(now)))
    }

    /// What is worth keeping of a bucket whose theoretical arrival time is `tat`.
    pub fn snapshot(&self, tat: u64, now: Instant) -> Option<QuotaLeft> {
        QuotaLeft::of(self, &tat, now)
    }

    /// The theoretical arrival time of a bucket that was written down `elapsed` ago.
    pub fn restored(&self, kept: &QuotaLeft, now: Instant, elapsed: Duration) -> u64 {
        kept.state(self, now, elapsed)
    }

    /// The theoretical arrival time after giving back a cost that was granted at `at`.
    ///
    /// What has drained since counts as drained out of this very grant. So a call undone in the
    /// same instant leaves no trace, one undone later returns at most what it still held, and no
    /// order of grants and returns ever gives out more than one without the returned calls.
    pub fn give_back(&self, tat: u64, now: Instant, at: Instant, cost: Cost) -> u64 {
        let drained = self.grains(now).saturating_sub(self.grains(at));
        tat.saturating_sub(self.cost(cost.get()).saturating_sub(drained))
    }

    /// The theoretical arrival time, under this rate, of a bucket kept under `old`: the same tokens
    /// as far as they fit.
    pub fn carry_over(&self, old: &Self, tat: u64, now: Instant) -> u64 {
        let debt = tat.saturating_sub(old.grains(now));
        let kept = u128::from(old.tolerance.saturating_sub(debt)) * u128::from(self.interval.by)
            / u128::from(old.interval.by);
        let kept = u64::try_from(kept).unwrap_or(u64::MAX).min(self.tolerance);
        self.grains(now).saturating_add(self.tolerance - kept)
    }

    /// `now` in grains.
    pub(super) fn grains(&self, now: Instant) -> u64 {
        now.as_nanos().saturating_mul(self.grain.by).min(GRAINS_MAX)
    }

    /// The grains `cost` units take.
    pub(super) fn cost(&self, cost: u32) -> u64 {
        self.interval.by.saturating_mul(u64::from(cost))
    }

    /// The grains `calls` of `cost` units each take, and what is less than a nanosecond: slots are
    /// told in whole nanoseconds, rounded up.
    pub(super) fn queue(&self, cost: u32, calls: u32) -> u64 {
        match calls {
            0 => 0,
            _ => self.cost(cost).saturating_mul(u64::from(calls)).saturating_add(self.grain.by - 1),
        }
    }

    /// How many intervals `grains` are, rounded up.
    pub(super) fn intervals(&self, grains: u64) -> u64 {
        self.interval.divide_up(grains)
    }

    /// `grains` as a span of time, rounded up to a nanosecond.
    pub(super) fn span(&self, grains: u64) -> Duration {
        Duration::from_nanos(self.grain.divide_up(grains))
    }

    /// The first moment not before `grains`.
    pub(super) fn moment(&self, grains: u64) -> Instant {
        Instant::from_nanos(self.grain.divide_up(grains))
    }
}

/// Asks a bucket whose theoretical arrival time is `tat` for `cost` units; returns the new
/// theoretical arrival time, to be stored in its place. A bucket that is new, or full, has 0.
///
/// It is a pure function of one word, so a bucket shared by threads is an atomic and a loop of
/// compare-and-swap. A `now` that went back costs at most the tokens of the time it went back by.
///
/// # Errors
///
/// How long to wait before the same call is granted, with nobody else asking; the stored word
/// stays. A cost above [`Rate::capacity`] is never granted: refuse it before asking.
pub fn gcra(tat: u64, now: Instant, rate: &Rate, cost: Cost) -> Result<u64, Duration> {
    let now = rate.grains(now);
    let next = tat.max(now).saturating_add(rate.cost(cost.get()));
    let ahead = next - now;
    if ahead <= rate.tolerance { Ok(next) } else { Err(rate.span(ahead - rate.tolerance)) }
}

impl Rule for Rate {
    /// The theoretical arrival time, in grains.
    type State = u64;

    fn fresh(&self, _now: Instant) -> u64 {
        0
    }

    fn capacity(&self) -> u32 {
        self.burst
    }

    fn ask(&self, tat: &mut u64, request: Request) -> Verdict {
        let Request { now, cost, .. } = request;
        match gcra(*tat, now, self, Cost::new(cost).unwrap_or(Cost::ONE)) {
            Ok(next) => {
                *tat = next;
                let (remaining, reset) = (self.remaining(next, now), self.reset(next, now));
                Verdict::Granted { remaining, reset, slot: 0 }
            }
            Err(retry_after) => {
                let threshold = u64::from(self.burst);
                let observed = threshold - self.remaining(*tat, now);
                Verdict::Denied { retry_after, observed, threshold }
            }
        }
    }

    fn refund(&self, tat: &mut u64, now: Instant, spent: Spent) {
        let cost = Cost::new(spent.cost).unwrap_or(Cost::ONE);
        *tat = self.give_back(*tat, now, spent.at, cost);
    }

    fn adopt(&self, old: &Self, tat: &mut u64, now: Instant) {
        *tat = self.carry_over(old, *tat, now);
    }

    fn level(&self, tat: &u64, now: Instant) -> Level {
        let capacity = u64::from(self.burst);
        let used = capacity - self.remaining(*tat, now).min(capacity);
        Level { used, capacity, reset: self.reset(*tat, now) }
    }

    fn measure(&self) -> [u64; 3] {
        [self.interval.by, self.grain.by, u64::from(self.burst)]
    }

    fn save(&self, tat: &u64, now: Instant) -> Option<Left> {
        Some(Left::Full { in_nanoseconds: nanos(self.reset(*tat, now)) })
    }

    fn load(&self, left: &Left, now: Instant, elapsed: Duration) -> Option<u64> {
        let Left::Full { in_nanoseconds } = left else { return None };
        let full_in = Duration::from_nanos(*in_nanoseconds).saturating_sub(elapsed);
        Some(self.grains(now.plus(full_in)).min(self.grains(now).saturating_add(self.tolerance)))
    }

    fn age(&self, tat: &u64) -> u64 {
        *tat
    }
}

/// A divisor with its reciprocal, because a 64-bit division takes as long as all the rest of a
/// grant (Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Divisor {
    by: u64,
    reciprocal: u64,
}

impl Divisor {
    fn new(by: u64) -> Self {
        let by = by.max(1);
        Self { by, reciprocal: u64::MAX / by }
    }

    /// `value / by`. The product with the truncated reciprocal falls short by at most two.
    fn divide(self, value: u64) -> u64 {
        let mut quotient = ((u128::from(value) * u128::from(self.reciprocal)) >> 64) as u64;
        let mut rest = value - quotient * self.by;
        while self.by <= rest {
            rest -= self.by;
            quotient += 1;
        }
        quotient
    }

    /// `value / by`, rounded up.
    fn divide_up(self, value: u64) -> u64 {
        let quotient = self.divide(value);
        quotient + u64::from(quotient * self.by < value)
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Finer grains would shorten the time one word can express below 6.8 years.
const GRAINS_PER_NANO_MAX: u64 = 64;

/// The last moment in grains. What lies above it, 2^62 grains, has room for a whole tolerance, so
/// that nothing saturates into a grant.
pub(super) const GRAINS_MAX: u64 = u64::MAX - (1 << 62);

/// A year of refilling in the finest grains is 2.02 · 10^18; policies allow no more.
const TOLERANCE_MAX: u64 = 1 << 61;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Divisor;

    proptest! {
        #[test]
        fn a_reciprocal_divides_like_a_division(value: u64, by in 1u64.., shift in 0u32..64) {
            let (value, by) = (value >> shift, (by >> (63 - shift)).max(1));
            prop_assert_eq!(Divisor::new(by).divide(value), value / by);
            prop_assert_eq!(Divisor::new(by).divide_up(value), value.div_ceil(by));
        }
    }

    #[test]
    fn a_reciprocal_divides_at_the_edges() {
        for by in [1, 2, 3, 63, 64, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            for value in [0, 1, by - 1, by, by.saturating_add(1), u64::MAX - 1, u64::MAX] {
                assert_eq!(Divisor::new(by).divide(value), value / by, "{value} / {by}");
            }
        }
    }
}
