//! How long to wait before the next try: 100 ms, doubling to 5 s, with full jitter.
//!
//! A try comes at a random moment of its span, so that the nodes a restarted etcd has lost do not
//! all come back in the same one. Source: Marc Brooker, "Exponential Backoff and Jitter" (2015),
//! "full jitter".

use std::time::Duration;

/// Tries that failed in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more has failed: how long to wait, given a draw uniform over all values.
    pub(crate) fn failed(&mut self, draw: u64) -> Duration {
        let span = FIRST.saturating_mul(1 << self.failures.min(DOUBLINGS)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        // The high half of the product is uniform below `nanos`.
        let share = (u128::from(draw) * u128::from(nanos)) >> 64;
        Duration::from_nanos(u64::try_from(share).unwrap_or(nanos))
    }

    /// One has succeeded.
    pub(crate) const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

const FIRST: Duration = Duration::from_millis(100);

const LONGEST: Duration = Duration::from_secs(5);

/// 100 ms doubled six times is above 5 s.
const DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_double_up_to_five_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        for want in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let longest = backoff.failed(u64::MAX).as_millis();
            assert_eq!(longest + 1, want, "the longest draw lies just below its span");
        }
        for _ in 0..1_000 {
            assert_eq!(backoff.failed(0), Duration::ZERO, "the shortest draw is no wait");
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(u64::MAX / 2).as_millis(), 49);
    }
}
