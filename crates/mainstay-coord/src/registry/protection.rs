//! Protection of a service whose instances seem to go all at once.
//!
//! When most of a service turns critical within moments, the likelier cause is on the side of
//! whoever watches: a cut network, an overloaded node, a wrong check. Answering with the few that
//! are left would pour the whole load onto them. So the answer holds everybody, each with its true
//! health, and says that it does. The idea is Nacos' protection threshold; that it is told openly,
//! with a reason and a time, and ends only after five good seconds, is ours.

use std::time::Duration;

use mainstay_core::Instant;

use super::share::Share;

/// How long a service must be well before its protection ends: enough not to flap with one
/// instance, short against any ttl.
pub const CALM: Duration = Duration::from_secs(5);

/// What the decision depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instances that are up, weigh something, and have been passing at least once.
    pub total: u32,
    /// Of those, the ones passing or warning now.
    pub healthy: u32,
}

/// Whether one service is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    since: Option<Instant>,
    /// Since when it would no longer begin.
    well_since: Option<Instant>,
}

/// Protection began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Everybody is answered from now on.
    Began,
    /// Only the healthy are answered again.
    Ended {
        /// How long everybody was.
        lasted: Duration,
    },
}

impl Protection {
    /// Judges the service anew at `now`; returns a turn, if there was one.
    pub fn judge(&mut self, now: Instant, counts: Counts, threshold: Share) -> Option<Turn> {
        let is_low = threshold.exceeds(counts.healthy, counts.total);
        let Some(since) = self.since else {
            self.since = is_low.then_some(now);
            return is_low.then_some(Turn::Began);
        };
        if is_low {
            self.well_since = None;
            return None;
        }
        let well_since = *self.well_since.get_or_insert(now);
        // Without anybody to protect there is nothing to wait for.
        if counts.total > 0 && now.since(well_since) < CALM {
            return None;
        }
        *self = Self::default();
        Some(Turn::Ended { lasted: now.since(since) })
    }

    /// Since when it is protected.
    pub const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When to judge again though nothing has changed.
    pub fn next(&self) -> Option<Instant> {
        self.since.and(self.well_since).map(|well| well.plus(CALM))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn half() -> Share {
        Share::of_ten_thousand(5_000)
    }

    #[test]
    fn the_worked_numbers() {
        let cases = [
            (10, 5, 0.5, false),
            (10, 4, 0.5, true),
            (10, 4, 0.0, false),
            (1, 0, 0.5, true),
            (0, 0, 0.5, false),
        ];
        for (total, healthy, threshold, want) in cases {
            let mut protection = Protection::default();
            let threshold = Share::try_from(threshold).unwrap();
            let turn = protection.judge(at(0), Counts { total, healthy }, threshold);
            assert_eq!(turn, want.then_some(Turn::Began), "{healthy} of {total}");
        }
    }

    #[test]
    fn it_ends_after_five_good_seconds_in_a_row() {
        let mut protection = Protection::default();
        let mut judge =
            |millis, healthy| protection.judge(at(millis), Counts { total: 10, healthy }, half());
        assert_eq!(judge(0, 4), Some(Turn::Began));
        assert_eq!(judge(1_000, 5), None);
        assert_eq!(judge(5_000, 4), None);
        assert_eq!(judge(5_500, 6), None);
        assert_eq!(judge(10_499, 6), None);
        let lasted = Duration::from_millis(10_500);
        assert_eq!(judge(10_500, 6), Some(Turn::Ended { lasted }));
        assert_eq!(protection, Protection::default());
    }

    #[test]
    fn it_ends_at_once_when_nobody_is_left_to_protect() {
        let mut protection = Protection::default();
        assert!(protection.judge(at(0), Counts { total: 1, healthy: 0 }, half()).is_some());
        let turn = protection.judge(at(1), Counts::default(), half());
        assert!(matches!(turn, Some(Turn::Ended { .. })));
    }

    proptest! {
        /// Low is always protected; and whoever comes back when told finds it ended once it was
        /// well for long enough.
        #[test]
        fn low_is_protected_and_calm_is_not(
            steps in prop::collection::vec((0u64..4_000, 0u32..12, 0u32..12), 1..60),
            points in 0u16..=10_000,
        ) {
            let threshold = Share::of_ten_thousand(points);
            let (mut protection, mut now) = (Protection::default(), 0);
            let mut well_since = None;
            for (gap, total, healthy) in steps {
                now += gap;
                let counts = Counts { total, healthy: healthy.min(total) };
                protection.judge(at(now), counts, threshold);
                if threshold.exceeds(counts.healthy, counts.total) {
                    well_since = None;
                    prop_assert!(protection.since().is_some());
                    prop_assert_eq!(protection.next(), None);
                } else {
                    let since = *well_since.get_or_insert(now);
                    if 5_000 <= now - since {
                        prop_assert_eq!(protection.since(), None);
                    }
                }
                if let Some(next) = protection.next() {
                    prop_assert!(at(now) < next);
                }
            }
        }
    }
}
