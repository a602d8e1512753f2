//! Why the store did not do as asked.

use std::time::Duration;

use mainstay_core::Effect;
use mainstay_core::problem::Code;

use crate::entry::{LeaseId, Revision};
use crate::key::Key;

/// Why the store did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It could not be reached, or is not ready. Nothing happened.
    #[error("coordination store is not available: {why}")]
    Unavailable {
        /// What was in the way, for the operator.
        why: String,
    },
    /// This handle is closed. Nothing happened.
    #[error("coordination store is closed")]
    Closed,
    /// Too much is queued. Nothing happened.
    #[error("coordination store is busy; retry after {} ms", retry_after.as_millis())]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// The batch may or may not have been applied. Only reading a marker that the batch itself
    /// wrote tells which; guessing never does.
    #[error("outcome of the batch is unknown")]
    OutcomeUnknown,
    /// History before `compacted` is gone: list again, and go on from there.
    #[error("history is compacted up to revision {compacted}")]
    Compacted {
        /// The oldest revision that can still be read.
        compacted: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision asked for is above the current revision {revision}")]
    FutureRevision {
        /// The current one.
        revision: Revision,
    },
    /// No such lease, or it has ended.
    #[error("lease {lease} not found")]
    LeaseNotFound {
        /// The lease asked for.
        lease: LeaseId,
    },
    /// The id asked for is taken.
    #[error("lease {lease} exists already")]
    LeaseExists {
        /// The lease asked for.
        lease: LeaseId,
    },
    /// The lease has as many keys as one may have.
    #[error("lease {lease} has 10,000 keys")]
    LeaseFull {
        /// The lease asked for.
        lease: LeaseId,
    },
    /// A ttl longer than a day.
    #[error("ttl of {} s is above 86,400 s", asked.as_secs())]
    TtlInvalid {
        /// The ttl asked for.
        asked: Duration,
    },
    /// No key can be written like this.
    #[error("key is invalid: {why}")]
    KeyInvalid {
        /// What is wrong with it.
        why: &'static str,
    },
    /// One branch would write `key` twice, or write and delete it.
    #[error("key {key} is changed twice in one branch")]
    DuplicateKey {
        /// The key.
        key: Key,
    },
    /// A value above the limit.
    #[error("value has {bytes} bytes, more than 1,048,576")]
    ValueTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A batch above a limit.
    #[error("batch has {found} {what}, more than {max}")]
    BatchTooLarge {
        /// What there is too much of: compares, operations, bytes.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// The quota or the disk is used up. Nothing happened; deletes, compaction and the end of
    /// leases still work.
    #[error("coordination store is full: {why}")]
    Full {
        /// Which limit was met, for the operator.
        why: String,
    },
    /// A write to the disk failed, and only a restart can tell what is on it. Nothing happened.
    #[error("coordination store has failed and takes no writes until it is restarted")]
    Failed,
    /// The store is older than one this node has already seen.
    #[error("coordination store went back from revision {seen} to {found}")]
    Regressed {
        /// The highest revision seen.
        seen: Revision,
        /// The revision found.
        found: Revision,
    },
}

/// Whether sending the same request again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// As it is.
    Yes,
    /// Once the outcome of the first try has been read from what it wrote.
    AfterResolving,
    /// Once the keys have been listed again.
    AfterListing,
    /// It would only fail again.
    No,
}

impl Error {
    /// Whether sending the same request again can help, and after what.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } | Self::Closed | Self::Busy { .. } => Retry::Yes,
            Self::OutcomeUnknown => Retry::AfterResolving,
            Self::Compacted { .. } => Retry::AfterListing,
            Self::FutureRevision { .. }
            | Self::LeaseNotFound { .. }
            | Self::LeaseExists { .. }
            | Self::LeaseFull { .. }
            | Self::TtlInvalid { .. }
            | Self::KeyInvalid { .. }
            | Self::DuplicateKey { .. }
            | Self::ValueTooLarge { .. }
            | Self::BatchTooLarge { .. }
            | Self::Full { .. }
            | Self::Failed
            | Self::Regressed { .. } => Retry::No,
        }
    }

    /// Whether the same request may be sent again as it is.
    ///
    /// Not so after [`Error::OutcomeUnknown`]: the batch may have been applied, and a put always
    /// changes something.
    pub const fn is_retryable(&self) -> bool {
        matches!(self.retry(), Retry::Yes)
    }

    /// What the request may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::OutcomeUnknown => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Unavailable { .. } => Code::StoreUnavailable,
            Self::Closed => Code::StoreClosed,
            Self::Busy { .. } => Code::StoreBusy,
            Self::OutcomeUnknown => Code::OutcomeUnknown,
            Self::Compacted { .. } => Code::Compacted,
            Self::FutureRevision { .. } => Code::FutureRevision,
            Self::LeaseNotFound { .. } => Code::LeaseNotFound,
            Self::LeaseExists { .. } => Code::LeaseExists,
            Self::LeaseFull { .. } => Code::LeaseFull,
            Self::TtlInvalid { .. } => Code::TtlInvalid,
            Self::KeyInvalid { .. } => Code::KeyInvalid,
            Self::DuplicateKey { .. } => Code::DuplicateKey,
            Self::ValueTooLarge { .. } => Code::ValueTooLarge,
            Self::BatchTooLarge { .. } => Code::BatchTooLarge,
            Self::Full { .. } => Code::StoreFull,
            Self::Failed => Code::StoreFailed,
            Self::Regressed { .. } => Code::StoreRegressed,
        }
    }

    /// When to come back, where that is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}
