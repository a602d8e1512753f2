//! The clock a holder judges by.
//!
//! `CLOCK_BOOTTIME` counts the time in which the machine is suspended; `CLOCK_MONOTONIC`, which
//! tokio and `std::time::Instant` use on Linux, does not. A laptop that slept for an hour would
//! wake up and believe for the rest of its ttl.

use std::time::Duration;

use mainstay_core::{Instant, Moment};
use rustix::time::{ClockId, clock_gettime};

/// The present.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Instant::ZERO.plus(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// The time of day, by which a switch holds until a moment that somebody wrote down.
pub(crate) fn wall() -> Moment {
    let time = clock_gettime(ClockId::Realtime);
    let (seconds, millis) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec / 1_000_000));
    Moment::from_unix_millis(seconds.unwrap_or(0).saturating_mul(1_000) + millis.unwrap_or(0))
}

/// Waits until `now()` is at or past `moment`.
pub(crate) async fn sleep_until(moment: Instant) {
    loop {
        let left = moment.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP_MAX)).await;
    }
}

/// Longest sleep by tokio's clock, which stands still while the machine is suspended: after waking
/// up, somebody who waits for a moment that has passed hears of it this late at most.
const NAP_MAX: Duration = Duration::from_millis(500);
