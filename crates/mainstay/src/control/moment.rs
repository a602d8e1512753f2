//! Moments of this process as times of day.

use std::time::{Duration, SystemTime};

use mainstay_call::clock::MonotonicClock;
use mainstay_core::{Clock as _, Instant};
use mainstay_proxy::time::rfc3339;

/// The present, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// On the clock of the machines.
    pub(super) now: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Now.
    #[expect(clippy::disallowed_methods, reason = "answers bear the time of day")]
    pub(super) fn now() -> Self {
        Self { now: MonotonicClock.now(), wall: SystemTime::now() }
    }

    /// `at` as RFC 3339 has it; `None` for "never".
    pub(super) fn text(&self, at: Instant) -> Option<String> {
        let wall = if at <= self.now {
            self.wall.checked_sub(self.now.since(at))
        } else {
            self.wall.checked_add(at.since(self.now))
        };
        wall.filter(|_| at != Instant::MAX).map(rfc3339)
    }
}

/// Milliseconds since 1970 as RFC 3339 has them.
pub(super) fn unix_time(unix_ms: u64) -> String {
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms))
}
