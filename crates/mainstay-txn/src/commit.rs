//! Group commit: a lane takes all records that wait when its last batch returns.
//!
//! One batch of a lane is in flight at a time, so records of a shard are written in the order in
//! which they came, and the disk's one sync serves everybody who waited for it. There is no timer:
//! alone a record is written at once, under load batches grow by themselves.
//!
//! A batch compares the lane's key (nobody else writes it), and the owner's key of each shard it
//! touches, and rewrites the lane's key with a number of its own. So its outcome can always be
//! found out: **an unknown outcome is no "no"**. The number that stands in the key says which
//! batch was the last to be applied, and whatever is sent after it makes a late copy fail.
//!
//! [`LaneQueue`] is a machine: it makes batches and judges answers. [`Lane`] sends them.

mod lane;
#[cfg(all(test, feature = "modelled"))]
mod modelled;
mod queue;
#[cfg(test)]
mod tests;

use mainstay_core::Effect;

pub use lane::{Lane, Pending};
pub(crate) use queue::RECORDS_MAX;
pub use queue::{LaneQueue, Next, Place};

/// Why a record was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Too many records wait. Nothing happened.
    #[error("transaction log is overloaded: {records} records wait")]
    Overloaded {
        /// How many.
        records: usize,
    },
    /// Another node owns the shard. Nothing happened.
    #[error("another node owns the shard of the transaction")]
    NotOwner,
    /// The store could not be reached, or is full. Nothing happened.
    #[error("transaction log is not available: {why}")]
    Unavailable {
        /// What the store said.
        why: String,
    },
    /// The session of this node was lost, or the store failed: whoever reads the log next will
    /// see whether it was written.
    #[error("whether the transaction log was written is not known: {why}")]
    Lost {
        /// What happened.
        why: String,
    },
}

impl LogError {
    /// What the write may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Lost { .. } => Effect::Unknown,
            Self::Overloaded { .. } | Self::NotOwner | Self::Unavailable { .. } => Effect::None,
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "transaction-log-overloaded",
            Self::NotOwner => "transaction-owner-unknown",
            Self::Unavailable { .. } | Self::Lost { .. } => "transaction-log-unavailable",
        }
    }
}
