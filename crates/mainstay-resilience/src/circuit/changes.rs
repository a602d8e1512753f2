//! The transitions of late, for whoever reports them after the call that caused them.

use std::fmt;

use super::Transition;

/// The last few transitions.
#[derive(Clone, Copy, Default)]
pub(super) struct Changes {
    pub(super) total: u64,
    last: [Option<Transition>; CHANGES_KEPT],
}

/// One call causes at most three transitions: two by time (ramp → closed → open, say) and one of
/// its own.
const CHANGES_KEPT: usize = 4;

impl Changes {
    pub(super) fn push(&mut self, transition: Transition) {
        self.last[Self::place(self.total)] = Some(transition);
        self.total += 1;
    }

    pub(super) fn last(&self) -> Option<Transition> {
        self.last[Self::place(self.total.checked_sub(1)?)]
    }

    pub(super) fn since(&self, seen: u64) -> impl Iterator<Item = Transition> {
        let first = seen.max(self.total.saturating_sub(CHANGES_KEPT as u64));
        (first..self.total).filter_map(|i| self.last[Self::place(i)])
    }

    fn place(i: u64) -> usize {
        usize::try_from(i % CHANGES_KEPT as u64).unwrap_or(0)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes, last {:?}", self.total, self.last().map(|t| (t.to, t.cause)))
    }
}
