//! Moments that outlive a process.
//!
//! A deadline is kept in the log and judged by whichever node owns the transaction then, so it is
//! a moment of the wall clock. The owner reads that clock once and goes on by a monotonic one: a
//! clock that is set makes a transaction end earlier or later, and does no other harm.

use std::time::Duration;

/// Milliseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Later than every other; stands for "never".
    pub const MAX: Self = Self(u64::MAX);

    /// `millis` milliseconds after the beginning of 1970.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the beginning of 1970.
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// The moment `span` later, or [`Moment::MAX`].
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Time from `earlier` to this moment; zero when `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
