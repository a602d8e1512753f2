//! How long to wait before a branch is called again.

use std::time::Duration;

use crate::word::Dialect;

/// The first wait, unless told.
const INITIAL: Duration = Duration::from_millis(500);

/// The longest, unless told.
const MAX: Duration = Duration::from_mins(1);

/// Waits between attempts at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    dialect: Dialect,
    /// Our dialect: the wait after the first failure. DTM: the interval it doubles.
    initial: Duration,
    max: Duration,
    blurred: bool,
}

impl Backoff {
    /// Our own: `initial · 2^(n−1)` after failure number `n`, at most `max`, give or take a fifth,
    /// so that what failed together does not come back together.
    pub const fn native(initial: Duration, max: Duration) -> Self {
        Self { dialect: Dialect::Native, initial, max, blurred: true }
    }

    /// That of the DTM protocol: a failure doubles the interval and then waits it, at most `max`.
    pub const fn dtm(interval: Duration, max: Duration) -> Self {
        Self { dialect: Dialect::Dtm, initial: interval, max, blurred: false }
    }

    /// The same without the blur.
    #[must_use]
    pub const fn exact(mut self) -> Self {
        self.blurred = false;
        self
    }

    /// The wait after `failures` failures, of which the last may be long ago. `draw` picks the
    /// blur: 0 is the shortest, `u32::MAX` the longest.
    pub fn wait(&self, failures: u32, draw: u32) -> Duration {
        let doublings = match self.dialect {
            Dialect::Native => failures.saturating_sub(1),
            Dialect::Dtm => failures,
        };
        let factor = 1_u32.checked_shl(doublings.min(31)).unwrap_or(u32::MAX);
        let wait = self.initial.saturating_mul(factor).min(self.max);
        if !self.blurred {
            return wait;
        }
        // Four fifths, and up to two fifths more.
        let share = wait * 2 / 5;
        let part = share.as_nanos() * u128::from(draw) / u128::from(u32::MAX);
        wait * 4 / 5 + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::native(INITIAL, MAX)
    }
}

/// The wait before a prepared branch is asked for once more that a live session still holds:
/// 20 ms, 40 ms, … 1 s. `None` once that has been tried; then the back-off counts.
pub fn held(times: u32) -> Option<Duration> {
    const FIRST: Duration = Duration::from_millis(20);
    /// 20, 40, 80, 160, 320, 640, 1,000.
    const TIMES: u32 = 7;
    (times < TIMES).then(|| FIRST.saturating_mul(1 << times).min(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blur_stays_within_a_fifth() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(1, 0), Duration::from_millis(400));
        assert_eq!(backoff.wait(1, u32::MAX), Duration::from_millis(600));
        assert_eq!(backoff.wait(40, u32::MAX), Duration::from_secs(72));
        assert_eq!(backoff.exact().wait(0, 7), INITIAL, "an attempt that does not count");
    }

    #[test]
    fn a_held_branch_is_asked_for_seven_times_before_the_back_off() {
        let waits: Vec<_> = (0..8).map_while(held).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1_000]);
    }
}
