//! The clock holders judge by.
//!
//! A holder must stop believing in its lease no later than the store does, also when its machine
//! slept meanwhile. `CLOCK_BOOTTIME` counts suspension, `CLOCK_MONOTONIC` (which tokio and
//! `std::time::Instant` use on Linux) does not: a laptop that slept for an hour would wake up and
//! believe for the rest of its ttl. So [`BootClock`] reads the former, and whoever waits for a
//! moment of it asks the clock to wait: [`Timer`].

mod hand;

use std::pin::Pin;
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use rustix::time::{ClockId, Timespec, clock_gettime};

pub use hand::HandClock;

/// A wait on its way.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A clock that can be waited for.
pub trait Timer: Clock {
    /// Waits until `now()` is at or past `moment`.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is kept.
    fn sleep_until(&self, moment: Instant) -> Sleep<'_>;

    /// Milliseconds since 1970 by the wall clock: to be shown to people, never to decide by.
    fn unix_millis(&self) -> u64;
}

/// `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Instant {
        let since_boot = span(clock_gettime(ClockId::Boottime));
        Instant::ZERO.plus(since_boot)
    }
}

impl Timer for BootClock {
    fn sleep_until(&self, moment: Instant) -> Sleep<'_> {
        Box::pin(async move {
            loop {
                let left = moment.since(self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(NAP_MAX)).await;
            }
        })
    }

    fn unix_millis(&self) -> u64 {
        u64::try_from(span(clock_gettime(ClockId::Realtime)).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Longest sleep by tokio's clock, which stands still while the machine is suspended: after waking
/// up, somebody who waits for a moment that has passed hears of it this late at most. Two wake-ups
/// a second for each session are not measurable.
const NAP_MAX: Duration = Duration::from_millis(500);

fn span(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_boot_clock_advances_while_it_is_waited_for() {
        let start = BootClock.now();
        let until = start.plus(Duration::from_millis(5));
        BootClock.sleep_until(until).await;
        assert!(until <= BootClock.now());
        assert!(1_600_000_000_000 < BootClock.unix_millis());
    }
}
