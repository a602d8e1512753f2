//! When to send a second attempt before the first has ended.
//!
//! A hedge trades a little load for the tail of the latency: the calls that would have been the
//! slowest are the ones sent twice (Dean and Barroso, "The Tail at Scale", 2013). It is a retry in
//! every respect but one, that it does not wait for a failure: it needs an idempotent call, a
//! credit of the budget, and another instance. The first good answer wins; the others are
//! cancelled and count nowhere.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_core::Instant;

use super::{Ending, names};
use crate::classify::ResultSet;

/// When to hedge, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgePolicy {
    /// How long without a response head until one more attempt is sent.
    pub after: Duration,
    /// How many more than the first.
    pub extra: NonZeroU32,
    /// Results that do not decide the race but start the next hedge at once.
    pub non_fatal: ResultSet,
}

/// Attempts of one call that run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race {
    /// Whether doing the call twice does what doing it once does.
    pub idempotent: bool,
    /// Whether it is too late: a head has reached the caller, or the request is no longer kept.
    pub committed: bool,
    /// The attempt of somebody above that the call arrived as, see [`super::arriving_attempt`].
    pub arriving: u32,
    /// Hedges sent so far.
    pub sent: u32,
    /// When the last attempt was sent.
    pub last_sent: Instant,
    /// Whether an attempt has ended [non-fatally](HedgePolicy::is_non_fatal) since then.
    pub lost_one: bool,
}

/// When the next hedge is to be sent. It still needs a credit of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At once.
    Now,
    /// At this moment, unless something ends before.
    At(Instant),
    /// Not at all.
    Never,
}

impl HedgePolicy {
    /// When to send the next hedge.
    pub fn next(&self, race: &Race) -> Start {
        let may = race.idempotent && !race.committed && race.arriving <= 1;
        if !may || self.extra.get() <= race.sent {
            Start::Never
        } else if race.lost_one {
            Start::Now
        } else {
            Start::At(race.last_sent.plus(self.after))
        }
    }

    /// Whether an attempt that ended so leaves the race to the others. Any other ending, good or
    /// bad, decides it. `hinted`: the answer came with `Retry-After`.
    pub fn is_non_fatal(&self, ending: Ending, hinted: bool) -> bool {
        names(&self.non_fatal, ending, hinted)
    }
}
