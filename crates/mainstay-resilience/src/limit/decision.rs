//! What a limit answers.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_core::Instant;

/// How many units of a quota a call takes; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(NonZeroU32);

impl Cost {
    /// One unit: the cost of a call that says nothing else.
    pub const ONE: Self = Self(NonZeroU32::MIN);

    /// A cost of `units`, or `None` for zero: a free call need not ask.
    pub const fn new(units: u32) -> Option<Self> {
        match NonZeroU32::new(units) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The number of units.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl From<NonZeroU32> for Cost {
    fn from(units: NonZeroU32) -> Self {
        Self(units)
    }
}

/// The answer of a time-based limit to one call.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call that was not granted must not be made"]
pub enum Decision {
    /// The call is counted and may go.
    Granted {
        /// Units left right now.
        remaining: u64,
        /// How long until the quota is whole again, if nobody else asks.
        reset: Duration,
        /// Gives the units back, should another limit refuse the same call.
        receipt: Receipt,
    },
    /// The call is counted and may go at `until`.
    Wait {
        /// When it may go.
        until: Instant,
        /// Gives the units back, should the waiter give up.
        receipt: Receipt,
    },
    /// The call is not counted.
    Denied(Denied),
    /// The call costs more than this limit can ever hold; waiting does not help.
    CostExceedsQuota {
        /// The largest cost that can be granted.
        capacity: u32,
    },
}

/// A refusal by a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// After this long, with nobody else asking, the same call is granted without a wait. Zero
    /// from a [`Semaphore`](super::Semaphore): nobody knows when a call in flight will end.
    pub retry_after: Duration,
    /// Units in use, this call not included.
    pub observed: u64,
    /// Units there are.
    pub threshold: u64,
    /// Since when this limit has been refusing without a grant in between.
    pub since: Instant,
}

/// Proof of what a call took from a limit; spent by giving it back.
///
/// It cannot be cloned, so nothing is returned twice. Dropping it keeps the call counted, which is
/// right for every call that was made. A receipt from before a change of policy returns nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which life of the state it was taken from; 0 when nothing was taken.
    pub(super) life: u32,
    /// Units taken.
    pub(super) cost: u32,
    /// When they were taken.
    pub(super) at: Instant,
    /// The machine's own mark of where.
    pub(super) slot: u64,
}

impl Receipt {
    /// Whether nothing was taken: the call is let through by a limit that only observes, and would
    /// have been refused.
    pub const fn is_empty(&self) -> bool {
        self.life == 0
    }
}

/// What a limit has answered since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that went at once.
    pub granted: u64,
    /// Calls that were told to wait.
    pub waited: u64,
    /// Calls that were refused.
    pub denied: u64,
    /// Calls granted only because the limit observes and does not enforce.
    pub would_reject: u64,
}

/// A limit at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Units in use.
    pub used: u64,
    /// Units there are.
    pub capacity: u64,
    /// How long until none is in use, if nobody else asks.
    pub reset: Duration,
    /// Answers so far.
    pub tally: Tally,
}

impl Usage {
    /// Units that could be taken at this moment.
    pub const fn remaining(&self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }
}
