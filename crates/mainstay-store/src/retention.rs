//! How much history is kept: what is older than half an hour goes, every five minutes; what is more
//! than half a million revisions goes at once; the newest thousand never do. Every backend that
//! compacts by itself follows it.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_core::Instant;

use crate::entry::Revision;

/// The rule, and the memory it needs to say what was current when.
#[derive(Debug)]
pub struct Retention {
    /// How old history has to be.
    after: Duration,
    /// How many revisions are kept at most.
    revisions_max: u64,
    /// What was current when, one sample an interval: at most a day's worth.
    samples: VecDeque<(Instant, Revision)>,
}

impl Retention {
    /// Forgets what is older than `after`, and what is more than `revisions_max` revisions.
    pub const fn new(after: Duration, revisions_max: u64) -> Self {
        Self { after, revisions_max, samples: VecDeque::new() }
    }

    /// Where history should begin from now on, if that is later than `compacted`.
    pub fn due(
        &mut self,
        now: Instant,
        revision: Revision,
        compacted: Revision,
    ) -> Option<Revision> {
        let is_time = self.samples.back().is_none_or(|(at, _)| EVERY <= now.since(*at));
        let mut wanted = Revision::NEVER;
        if is_time {
            if SAMPLES_MAX <= self.samples.len() {
                self.samples.pop_front();
            }
            self.samples.push_back((now, revision));
            let old = |(at, _): &mut (Instant, Revision)| self.after <= now.since(*at);
            while let Some((_, then)) = self.samples.pop_front_if(old) {
                wanted = then;
            }
        }
        let held = revision.get() - compacted.get();
        if self.revisions_max < held {
            wanted = wanted.max(Revision::new(revision.get() - self.revisions_max));
        }
        let newest = Revision::new(revision.get().saturating_sub(REVISIONS_MIN));
        let target = wanted.min(newest);
        (compacted < target).then_some(target)
    }
}

const EVERY: Duration = Duration::from_mins(5);

/// A day of samples.
const SAMPLES_MAX: usize = 288;

/// Revisions that are always kept, so that a watch on a quiet store can resume after any while.
const REVISIONS_MIN: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_mins(minutes))
    }

    fn rev(number: u64) -> Revision {
        Revision::new(number)
    }

    #[test]
    fn history_begins_where_the_store_was_half_an_hour_ago() {
        let mut retention = Retention::new(Duration::from_mins(30), 500_000);
        for minutes in (0..30).step_by(5) {
            let revision = rev(10_000 + minutes * 100);
            assert_eq!(retention.due(at(minutes), revision, rev(0)), None, "{minutes} min");
        }
        assert_eq!(retention.due(at(30), rev(20_000), rev(0)), Some(rev(10_000)));
        assert_eq!(retention.due(at(31), rev(20_000), rev(10_000)), None, "not yet time");
        assert_eq!(retention.due(at(35), rev(20_000), rev(10_000)), Some(rev(10_500)));
    }

    #[test]
    fn too_much_history_goes_at_once_and_the_newest_never() {
        let mut retention = Retention::new(Duration::from_mins(30), 5_000);
        assert_eq!(retention.due(at(0), rev(6_000), rev(0)), Some(rev(1_000)));
        assert_eq!(retention.due(at(0), rev(6_000), rev(1_000)), None);
        let mut retention = Retention::new(Duration::ZERO, 10);
        assert_eq!(retention.due(at(0), rev(900), rev(0)), None);
        assert_eq!(retention.due(at(5), rev(1_900), rev(0)), Some(rev(900)));
    }
}
