//! Moments, and where waiting code gets them.
//!
//! Deciding code takes an [`Instant`] as an argument and never asks for one. Only code that waits
//! holds a [`Clock`]; tests hold a [`ManualClock`] and turn it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds since some fixed moment of this process, on a clock that never goes back.
///
/// All arithmetic saturates: a suspended laptop may jump ahead by days, and no jump may overflow.
/// The range is 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment the clock was started.
    pub const ZERO: Self = Self(0);

    /// The last moment that can be expressed; stands for "never".
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the clock was started.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock was started.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `span` later, or [`Instant::MAX`] when that cannot be expressed.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// The moment `span` earlier, or [`Instant::ZERO`].
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// Time from `earlier` to this moment; zero when `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The length of `span` in nanoseconds, at most `u64::MAX`.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Where waiting code gets the time from.
pub trait Clock: Send + Sync {
    /// The current moment. Never less than any moment returned before.
    fn now(&self) -> Instant;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }
}

/// A clock that moves only when told to. Clones share the same hands.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves the clock forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(nanos(span), Ordering::SeqCst);
    }

    /// Moves the clock to `moment`, unless it is already past it.
    pub fn set(&self, moment: Instant) {
        self.0.fetch_max(moment.as_nanos(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_any_length_neither_overflows_nor_goes_back() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late.plus(Duration::from_secs(9)), Instant::MAX);
        assert_eq!(Instant::ZERO.since(late), Duration::ZERO);
        assert_eq!(Instant::ZERO.minus(Duration::from_secs(1)), Instant::ZERO);
        assert_eq!(Instant::ZERO.plus(Duration::MAX), Instant::MAX);
    }

    #[test]
    fn a_manual_clock_shared_by_clones_never_goes_back() {
        let clock = ManualClock::default();
        let other = clock.clone();
        clock.advance(Duration::from_secs(2));
        other.set(Instant::from_nanos(1));
        assert_eq!(other.now(), Instant::from_nanos(2_000_000_000));
    }
}
