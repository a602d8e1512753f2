//! How often a barrier kept an operation from its business statements.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Passed;

/// Operations whose business statements a barrier of this process did not run, since it began.
/// For whoever exports figures: `mainstay_barrier_skips_total`, with what is counted as `kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarrierSkips {
    /// [`Passed::Duplicate`]: calls that came again.
    pub duplicate: u64,
    /// [`Passed::EmptyRollback`]: undoing calls that overtook what they undo, or undo nothing.
    pub empty_rollback: u64,
    /// [`Passed::Hanging`]: calls that came after their undo.
    pub hanging: u64,
}

/// What barriers of this process have skipped so far. Barriers live for one call each, so they
/// count together.
pub fn skips() -> BarrierSkips {
    ALL.read()
}

/// Counts what became of an operation, once that is committed.
pub(super) fn count<T>(passed: &Passed<T>) {
    ALL.count(passed);
}

static ALL: Counters = Counters {
    duplicate: AtomicU64::new(0),
    empty_rollback: AtomicU64::new(0),
    hanging: AtomicU64::new(0),
};

#[derive(Debug, Default)]
struct Counters {
    duplicate: AtomicU64,
    empty_rollback: AtomicU64,
    hanging: AtomicU64,
}

impl Counters {
    fn count<T>(&self, passed: &Passed<T>) {
        let counter = match passed {
            Passed::Ran(_) => return,
            Passed::Duplicate => &self.duplicate,
            Passed::EmptyRollback => &self.empty_rollback,
            Passed::Hanging => &self.hanging,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> BarrierSkips {
        let [duplicate, empty_rollback, hanging] =
            [&self.duplicate, &self.empty_rollback, &self.hanging]
                .map(|counter| counter.load(Ordering::Relaxed));
        BarrierSkips { duplicate, empty_rollback, hanging }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_was_not_skipped() {
        let counters = Counters::default();
        let passed = [
            Passed::Ran(()),
            Passed::Duplicate,
            Passed::Hanging,
            Passed::Duplicate,
            Passed::EmptyRollback,
            Passed::Duplicate,
            Passed::Hanging,
        ];
        for passed in &passed {
            counters.count(passed);
        }
        assert_eq!(counters.read(), BarrierSkips { duplicate: 3, empty_rollback: 1, hanging: 2 });
    }
}
