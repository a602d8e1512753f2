//! Which results change a status.
//!
//! One lost packet is no outage and one lucky answer no recovery, so a status moves only after
//! several results in a row say so: `passing_after` to become better, `critical_after` to become
//! worse. The results of a run need not be equal. An instance that answers 500, 429, 500 is surely
//! no longer passing; it moves to the mildest of them, and likewise recovers to the worst of the
//! better ones. The very first result counts at once: until then nothing was known.

use std::num::NonZeroU32;

use super::Health;

/// How many results in a row change a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To a better one.
    pub passing_after: NonZeroU32,
    /// To a worse one.
    pub critical_after: NonZeroU32,
}

/// The status of one check, and the run of results that may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steady {
    status: Health,
    run: Option<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    is_better: bool,
    length: u32,
    /// The one of the run that lies nearest to the status.
    nearest: Health,
}

impl Steady {
    /// A check whose status is known to be `status`; [`Health::Unknown`] when it has no result.
    pub const fn new(status: Health) -> Self {
        Self { status, run: None }
    }

    /// The status.
    pub const fn status(&self) -> Health {
        self.status
    }

    /// Takes a result; returns the new status if it changed.
    pub fn record(&mut self, result: Health, patience: Patience) -> Option<Health> {
        if self.status == Health::Unknown {
            return self.become_(result);
        }
        if result == self.status {
            self.run = None;
            return None;
        }
        let is_better = result.worse(self.status) == self.status;
        let run = match self.run.filter(|run| run.is_better == is_better) {
            None => Run { is_better, length: 1, nearest: result },
            Some(run) => {
                let worse = run.nearest.worse(result);
                let milder = if worse == result { run.nearest } else { result };
                let nearest = if is_better { worse } else { milder };
                Run { is_better, length: run.length.saturating_add(1), nearest }
            }
        };
        self.run = Some(run);
        let needed = if is_better { patience.passing_after } else { patience.critical_after };
        if run.length < needed.get() { None } else { self.become_(run.nearest) }
    }

    fn become_(&mut self, status: Health) -> Option<Health> {
        self.run = None;
        let is_new = self.status != status;
        self.status = status;
        is_new.then_some(status)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patience(passing: u32, critical: u32) -> Patience {
        let number = |n| NonZeroU32::new(n).unwrap();
        Patience { passing_after: number(passing), critical_after: number(critical) }
    }

    /// Plays results, `.` passing, `!` warning, `x` critical; expects the status after each, `?`
    /// for unknown.
    #[track_caller]
    fn check(results: &str, want: &str) {
        let mut steady = Steady::new(Health::Unknown);
        let got: String = results
            .chars()
            .map(|result| {
                let result = match result {
                    '.' => Health::Passing,
                    '!' => Health::Warning,
                    _ => Health::Critical,
                };
                steady.record(result, patience(2, 3));
                match steady.status() {
                    Health::Passing => '.',
                    Health::Warning => '!',
                    Health::Critical => 'x',
                    Health::Unknown => '?',
                }
            })
            .collect();
        assert_eq!(got, want, "{results}");
    }

    #[test]
    fn the_first_result_counts_at_once() {
        check("x", "x");
        check(".", ".");
    }

    #[test]
    fn three_bad_results_in_a_row_and_two_good_ones_change_the_status() {
        check(".xxx..", "...xx.");
        check(".xx.xx.xxx", ".........x");
        check("x.x.x..", "xxxxxx.");
    }

    #[test]
    fn a_mixed_run_moves_to_what_all_of_it_allows() {
        check(".x!x", "...!");
        check("x!.", "xx!");
        check(".x!xxxx", "...!!!x");
    }

    fn result() -> impl Strategy<Value = Health> {
        prop::sample::select(vec![Health::Passing, Health::Warning, Health::Critical])
    }

    proptest! {
        /// A change needs that many results in a row on its side, and then comes at once.
        #[test]
        fn a_status_changes_after_enough_results_and_not_before(
            results in prop::collection::vec(result(), 1..100),
            passing_after in 1u32..5,
            critical_after in 1u32..5,
        ) {
            let patience = patience(passing_after, critical_after);
            let mut steady = Steady::new(Health::Unknown);
            let mut since_change: Vec<Health> = Vec::new();
            for result in results {
                let before = steady.status();
                since_change.push(result);
                let changed = steady.record(result, patience);
                if before != Health::Unknown {
                    let worse = |h: &&Health| **h != before && h.worse(before) == **h;
                    let better = |h: &&Health| **h != before && h.worse(before) == before;
                    let bad = since_change.iter().rev().take_while(worse).count();
                    let good = since_change.iter().rev().take_while(better).count();
                    let is_due =
                        bad >= critical_after as usize || good >= passing_after as usize;
                    prop_assert_eq!(changed.is_some(), is_due);
                }
                if changed.is_some() || before == Health::Unknown {
                    since_change.clear();
                }
            }
        }
    }
}
