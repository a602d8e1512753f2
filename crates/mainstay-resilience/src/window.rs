//! What happened lately, in sub-windows.
//!
//! A [`Window`] answers two questions: how did calls fare over its whole length, and which part of
//! it was bad. The first takes running totals, so that a record costs the same whatever the
//! length; the second keeps the parts, which a console draws and the sub-window verdict counts.
//!
//! | kind | covers | drops |
//! |---|---|---|
//! | [`TimeWindow`] | the current sub-window and the n − 1 before it, aligned to its start | whole sub-windows, at their end + (n − 1) widths |
//! | [`CountWindow`] | the last N results | one result for each new one |
//!
//! A time window divides only when the clock leaves the current sub-window, whose end is kept; all
//! other records are a comparison and a few additions. Nothing is allocated after construction.

use std::num::NonZeroUsize;
use std::time::Duration;

use mainstay_core::Instant;
use serde::{Deserialize, Serialize};

use crate::Outcome;

mod count;
#[cfg(test)]
mod tests;
mod time;

pub use count::CountWindow;
pub use time::TimeWindow;

/// A time window or a count window.
#[derive(Clone, Debug)]
pub enum Window {
    /// Sub-windows of equal length.
    Time(TimeWindow),
    /// Sub-windows of equally many results.
    Count(CountWindow),
}

impl Window {
    /// Moves a time window to `now`; a count window stands still. `now` must not go back.
    #[inline]
    pub fn advance(&mut self, now: Instant) {
        if let Self::Time(window) = self {
            window.advance(now);
        }
    }

    /// Adds one result. A time window must have been advanced to `now`.
    #[inline]
    pub fn add(&mut self, now: Instant, sample: Sample) {
        match self {
            Self::Time(window) => window.add(sample),
            Self::Count(window) => window.add(now, sample),
        }
    }

    /// Everything the window covers.
    #[inline]
    pub fn total(&self) -> &Tally {
        match self {
            Self::Time(window) => window.total(),
            Self::Count(window) => window.total(),
        }
    }

    /// How many sub-windows have at least the failures set by [`Window::trip_at`].
    #[inline]
    pub fn tripped(&self) -> u32 {
        match self {
            Self::Time(window) => window.tripped(),
            Self::Count(window) => window.tripped(),
        }
    }

    /// Sets from how many failures on a sub-window counts as tripped; zero: never.
    pub fn trip_at(&mut self, failures: u64) {
        match self {
            Self::Time(window) => window.trip_at(failures),
            Self::Count(window) => window.trip_at(failures),
        }
    }

    /// When the current sub-window ends by the clock; never for a count window.
    #[inline]
    pub fn ends(&self) -> Instant {
        match self {
            Self::Time(window) => window.ends(),
            Self::Count(_) => Instant::MAX,
        }
    }

    /// The sub-window results go to now. Of a count window it may be a full one: its end is known
    /// as soon as the last result is in, while that of a time window takes the clock.
    #[inline]
    pub fn current(&self) -> SubWindow {
        match self {
            Self::Time(window) => window.current(),
            Self::Count(window) => window.current(),
        }
    }

    /// The sub-window that the last result has filled, for a count window only.
    #[inline]
    pub fn filled(&self) -> Option<SubWindow> {
        match self {
            Self::Time(_) => None,
            Self::Count(window) => window.filled(),
        }
    }

    /// The sub-windows, oldest first. Those of a time window are as many as it has, empty ones
    /// included; a count window leaves out what was never filled.
    pub fn sub_windows(&self) -> Vec<SubWindow> {
        match self {
            Self::Time(window) => window.sub_windows().collect(),
            Self::Count(window) => window.sub_windows().collect(),
        }
    }

    /// Forgets every result; the alignment stays.
    pub fn clear(&mut self) {
        match self {
            Self::Time(window) => window.clear(),
            Self::Count(window) => window.clear(),
        }
    }
}

/// A part of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubWindow {
    /// When it began; for a count window, when its first result came.
    pub start: Instant,
    /// What happened in it.
    pub tally: Tally,
}

/// Counts of some calls, and the sum of their latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Results recorded.
    pub calls: u64,
    /// Those that failed: timeouts and refusals included.
    pub failures: u64,
    /// Those at or above the slow-call threshold, whatever their outcome.
    pub slow: u64,
    /// Those that ended in a connect or request timeout.
    pub timeouts: u64,
    /// Those the peer refused.
    pub refusals: u64,
    /// Sum of latencies in nanoseconds. Wide enough that no load and no length overflows it.
    pub latency_nanos: u128,
}

impl Tally {
    /// Mean latency; zero when there was no call.
    pub fn mean_latency(&self) -> Duration {
        let mean = self.latency_nanos / u128::from(self.calls.max(1));
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// Failed calls in percent, or `None` below `min_calls`.
    pub fn failure_percent(&self, min_calls: u64) -> Option<f64> {
        percent(self.failures, self.calls, min_calls)
    }

    /// Slow calls in percent, or `None` below `min_calls`.
    pub fn slow_percent(&self, min_calls: u64) -> Option<f64> {
        percent(self.slow, self.calls, min_calls)
    }

    /// Whether there was a call and every call timed out.
    pub fn is_all_timeouts(&self) -> bool {
        self.calls > 0 && self.timeouts == self.calls
    }

    /// Counts one more call.
    #[inline]
    pub fn add(&mut self, sample: Sample) {
        self.calls += 1;
        self.failures += u64::from(sample.failure);
        self.slow += u64::from(sample.slow);
        self.timeouts += u64::from(sample.timeout);
        self.refusals += u64::from(sample.refusal);
        self.latency_nanos += u128::from(sample.latency_nanos);
    }

    fn take_away_one(&mut self, sample: Sample) {
        self.calls -= 1;
        self.failures -= u64::from(sample.failure);
        self.slow -= u64::from(sample.slow);
        self.timeouts -= u64::from(sample.timeout);
        self.refusals -= u64::from(sample.refusal);
        self.latency_nanos -= u128::from(sample.latency_nanos);
    }

    fn put_together(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
        self.timeouts += other.timeouts;
        self.refusals += other.refusals;
        self.latency_nanos += other.latency_nanos;
    }

    fn take_away(&mut self, other: &Self) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
        self.timeouts -= other.timeouts;
        self.refusals -= other.refusals;
        self.latency_nanos -= other.latency_nanos;
    }
}

/// `part` of `whole` in percent, or `None` when `whole` is below `min` or empty.
#[expect(clippy::cast_precision_loss, reason = "call counts stay far below 2^52")]
fn percent(part: u64, whole: u64, min: u64) -> Option<f64> {
    (whole >= min.max(1)).then(|| part as f64 * 100.0 / whole as f64)
}

/// One result, as a window counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    failure: bool,
    slow: bool,
    timeout: bool,
    refusal: bool,
    latency_nanos: u64,
}

impl Sample {
    /// A call that took `latency` and ended in `outcome`; it is slow from `slow_from` nanoseconds
    /// on.
    #[inline]
    pub fn new(outcome: Outcome, latency: Duration, slow_from: u64) -> Self {
        let nanos = latency_nanos(latency);
        Self {
            failure: outcome.is_failure(),
            slow: nanos >= slow_from,
            timeout: outcome.is_timeout(),
            refusal: outcome == Outcome::Refused,
            latency_nanos: nanos,
        }
    }

    /// Whether it counts as a failure.
    pub const fn is_failure(self) -> bool {
        self.failure
    }

    /// Whether it was slow.
    pub const fn is_slow(self) -> bool {
        self.slow
    }

    /// The same in one word: four flags above 60 bits of latency.
    fn pack(self) -> u64 {
        let flags = u64::from(self.failure)
            | u64::from(self.slow) << 1
            | u64::from(self.timeout) << 2
            | u64::from(self.refusal) << 3;
        flags << LATENCY_BITS | self.latency_nanos
    }

    fn unpack(word: u64) -> Self {
        let flag = |bit: u32| word >> (LATENCY_BITS + bit) & 1 == 1;
        Self {
            failure: flag(0),
            slow: flag(1),
            timeout: flag(2),
            refusal: flag(3),
            latency_nanos: word & LATENCY_MAX,
        }
    }
}

/// A latency as it is counted.
#[inline]
pub(crate) fn latency_nanos(latency: Duration) -> u64 {
    u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).min(LATENCY_MAX)
}

/// 60 bits of nanoseconds are 36 years; a latency beyond that is counted as that.
const LATENCY_BITS: u32 = 60;
const LATENCY_MAX: u64 = (1 << LATENCY_BITS) - 1;

/// The next place in a ring of `len`.
#[inline]
const fn next(place: usize, len: usize) -> usize {
    if place + 1 == len { 0 } else { place + 1 }
}

/// `n` as a length that cannot be zero.
fn at_least_one(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}
