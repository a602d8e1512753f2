//! Why the outbox did not do as asked.

use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_store::Error;

use super::record::ReasonInvalid;
use super::tally::Tally;

/// Why the outbox did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Records pile up: the log does not take them over. Nothing is changed without a record, so
    /// nothing is changed.
    #[error(
        "audit outbox holds {} records of {} bytes, which the audit log does not take over; it may \
         hold 100,000 of 64 MiB",
        found.records, found.bytes
    )]
    Unavailable {
        /// What there is.
        found: Tally,
    },
    /// The reason is none.
    #[error(transparent)]
    Reason(#[from] ReasonInvalid),
    /// A cursor that no page of records gave.
    #[error("cursor is none that a page of audit records gave")]
    CursorInvalid,
    /// The store did not do as asked.
    #[error("audit outbox could not be used")]
    Store(#[from] Error),
}

impl AuditError {
    /// Whether the same request may be sent again as it is.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Reason(_) | Self::CursorInvalid => false,
            Self::Store(error) => error.is_retryable(),
        }
    }

    /// What the request may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Store(error) => error.effect(),
            _ => Effect::None,
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Unavailable { .. } => Code::AuditUnavailable,
            Self::Reason(_) => Code::ReasonRequired,
            Self::CursorInvalid => Code::InvalidRequest,
            Self::Store(error) => error.code(),
        }
    }
}
