//! How many instances of a service may be removed for missed beats.
//!
//! Instances that vanish one by one have died; a third that vanish within a minute have more
//! likely lost their way to us. So removals for missed beats have a budget, per service and per
//! zone of it, over any 60 seconds: `max(1, floor(share × N₀))`, with N₀ the ephemeral instances
//! there were when that window began. Whoever is over it stays listed as critical.
//!
//! What counts is what was removed, by whichever node: removals come in from the watch. Right
//! after a start, or after the store was away, nobody knows what happened in the last minute, so
//! the budget is zero until that minute is over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mainstay_core::Instant;

use super::share::Share;

/// How far back removals count.
pub const WINDOW: Duration = Duration::from_mins(1);

/// Removals of one service within the last [`WINDOW`], and in each of its zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Under "" for the service as a whole; a zone without name has no budget of its own.
    spent: BTreeMap<String, VecDeque<Removal>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Removal {
    at: Instant,
    /// Ephemeral instances just before it.
    before: u32,
}

/// Ephemeral instances there are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// In the service.
    pub service: u32,
    /// In the zone of the instance in question.
    pub zone: u32,
}

impl Budget {
    /// Whether one more instance of `zone` may be removed at `now`, of as many as `census` says.
    pub fn allows(&self, now: Instant, zone: &str, census: Census, share: Share) -> bool {
        self.has_room("", now, census.service, share)
            && (zone.is_empty() || self.has_room(zone, now, census.zone, share))
    }

    /// An instance of `zone` was removed at `now`; `census` counts it still.
    pub fn spend(&mut self, now: Instant, zone: &str, census: Census) {
        self.forget(now);
        let mut note = |place: &str, before| {
            let removals = self.spent.entry(place.to_owned()).or_default();
            removals.push_back(Removal { at: now, before });
        };
        note("", census.service);
        if !zone.is_empty() {
            note(zone, census.zone);
        }
    }

    /// Drops what no longer counts. A service has as many entries as were removed in a minute.
    fn forget(&mut self, now: Instant) {
        for removals in self.spent.values_mut() {
            while removals.front().is_some_and(|first| !counts(first, now)) {
                removals.pop_front();
            }
        }
        self.spent.retain(|_zone, removals| !removals.is_empty());
    }

    fn has_room(&self, place: &str, now: Instant, present: u32, share: Share) -> bool {
        let Some(removals) = self.spent.get(place) else { return true };
        let old = removals.partition_point(|removal| !counts(removal, now));
        let at_start = removals.get(old).map_or(present, |first| first.before);
        removals.len() - old < share.of(at_start).max(1) as usize
    }
}

fn counts(removal: &Removal, now: Instant) -> bool {
    now.since(removal.at) < WINDOW
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    /// Removes as many of `present` at once as the budget allows.
    fn removed_at(budget: &mut Budget, now: Instant, mut present: u32, share: Share) -> u32 {
        let mut removed = 0;
        while present > 0 {
            let census = Census { service: present, zone: 0 };
            if !budget.allows(now, "", census, share) {
                break;
            }
            budget.spend(now, "", census);
            (present, removed) = (present - 1, removed + 1);
        }
        removed
    }

    #[test]
    fn the_worked_numbers() {
        for (present, share, want) in
            [(1, 0.3, 1), (3, 0.3, 1), (10, 0.3, 3), (20, 0.3, 6), (20, 0.0, 1), (0, 0.3, 0)]
        {
            let share = Share::try_from(share).unwrap();
            let got = removed_at(&mut Budget::default(), at(0), present, share);
            assert_eq!(got, want, "{present}");
        }
    }

    #[test]
    fn the_budget_comes_back_as_removals_age() {
        let share = Share::of_ten_thousand(3_000);
        let mut budget = Budget::default();
        assert_eq!(removed_at(&mut budget, at(0), 20, share), 6);
        assert_eq!(removed_at(&mut budget, at(59), 14, share), 0);
        assert_eq!(removed_at(&mut budget, at(60), 14, share), 4);
    }

    #[test]
    fn a_zone_has_a_budget_of_its_own() {
        let share = Share::of_ten_thousand(3_000);
        let mut budget = Budget::default();
        let census = Census { service: 20, zone: 4 };
        assert!(budget.allows(at(0), "a", census, share));
        budget.spend(at(0), "a", census);
        let census = Census { service: 19, zone: 3 };
        assert!(!budget.allows(at(0), "a", census, share), "one of four is all");
        assert!(budget.allows(at(0), "b", Census { service: 19, zone: 16 }, share));
    }

    proptest! {
        /// Whatever the pattern, no window of 60 s holds more removals than its start allowed.
        #[test]
        fn no_window_holds_more_than_the_share(
            present in 1u32..40,
            gaps in prop::collection::vec(0u64..30, 1..200),
            points in 0u16..=10_000,
        ) {
            let share = Share::of_ten_thousand(points);
            let (mut budget, mut now, mut left) = (Budget::default(), 0, present);
            let mut log: Vec<(u64, u32)> = Vec::new();
            for gap in gaps {
                now += gap;
                let census = Census { service: left, zone: 0 };
                if left > 0 && budget.allows(at(now), "", census, share) {
                    budget.spend(at(now), "", census);
                    log.push((now, left));
                    left -= 1;
                }
            }
            for (index, &(start, before)) in log.iter().enumerate() {
                let within = log.iter().skip(index).filter(|(t, _)| *t < start + 60).count();
                prop_assert!(within <= share.of(before).max(1) as usize);
            }
        }
    }
}
