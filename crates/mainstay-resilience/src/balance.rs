//! Choosing the instance that a call goes to.
//!
//! The work is split by how often it is done. When the set of instances, their health or their
//! weights change, a [`Picker`] is made from a [`Snapshot`]: it settles levels, panic, cumulative
//! weights and hash tables, and is immutable afterwards. For each call, [`Picker::pick`] looks at
//! two instances (or as many as the policy says) through closures, allocates nothing, and takes
//! its randomness as arguments.
//!
//! What changes with every call stays with the caller, next to the instance: calls in flight, and
//! the [`Estimate`] of peak EWMA, three words that fit atomics. Only smooth weighted round robin
//! has a memory of its own, [`RoundRobin`].
//!
//! Two things are deliberately not the same. *Usable* is what registry, health checks and outlier
//! ejection say, and a level in panic overrides it: if most instances look bad, the looking is
//! probably what is bad. *Admitting* is what the instance's circuit says, and nothing overrides
//! that: it has seen this caller's own calls fail.
//!
//! | module | what |
//! |---|---|
//! | `policy` | `[upstream.N.balance]`, as written and resolved |
//! | `levels` | how much of the load each level of priority and zone gets |
//! | `snapshot` | what a picker is made from, and the levels it is made into |
//! | `pick` | the picker |
//! | `rotation` | smooth weighted round robin |
//! | `ewma` | peak EWMA, failure bias, `Retry-After` |
//! | `slow_start` | the reduced weight of a newcomer |

mod ewma;
mod levels;
mod pick;
mod policy;
mod rotation;
mod slow_start;
mod snapshot;

pub use ewma::{Estimate, RETRY_AFTER_MAX};
pub use levels::{Count, Spread};
pub use pick::{Ask, Load, Picker, Unpicked};
pub use policy::{
    AffinityCookie, BalancePolicy, Kind, PanicMode, RawAffinityCookie, RawBalance, RingKey,
    RingKind,
};
pub use rotation::RoundRobin;
pub use slow_start::SlowStart;
pub use snapshot::{Candidate, LevelState, Order, Panic, PanicReason, Snapshot};

/// `draw` mod `n`, an index below `n`, which must not be zero.
#[expect(clippy::cast_possible_truncation, reason = "a remainder below n, which is a usize")]
pub(crate) const fn below(draw: u64, n: usize) -> usize {
    (draw % n as u64) as usize
}
