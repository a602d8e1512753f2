//! Why a session did not do as asked.

use std::time::Duration;

use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_store::{Error, LeaseId};

use super::{TTL_MAX, TTL_MIN};

/// Why a session did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No such session, or it has ended. Open a new one; what hung on the old one is gone.
    #[error("session {session} not found")]
    NotFound {
        /// The session asked for.
        session: LeaseId,
    },
    /// The secret is not the one given when the session was opened. The caller's fault.
    #[error("secret is not the one of session {session}")]
    SecretWrong {
        /// The session asked for.
        session: LeaseId,
    },
    /// A ttl no session can have.
    #[error(
        "ttl of {} s must be {} to {} s",
        asked.as_secs_f64(),
        TTL_MIN.as_secs(),
        TTL_MAX.as_secs()
    )]
    TtlInvalid {
        /// The ttl asked for.
        asked: Duration,
    },
    /// The record of the session cannot be read: another, newer version wrote it.
    #[error("record of session {session} cannot be read")]
    Unreadable {
        /// The session.
        session: LeaseId,
    },
    /// The store did not do as asked.
    #[error("session could not be looked after")]
    Store(#[from] Error),
}

impl SessionError {
    /// What `error` means to whoever acts for `session`.
    pub(crate) fn of(session: LeaseId, error: Error) -> Self {
        match error {
            Error::LeaseNotFound { .. } => Self::NotFound { session },
            error => Self::Store(error),
        }
    }

    /// Whether the same request may be sent again as it is.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
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
            Self::NotFound { .. } => Code::SessionNotFound,
            Self::SecretWrong { .. } => Code::PermissionMissing,
            Self::TtlInvalid { .. } => Code::TtlInvalid,
            Self::Unreadable { .. } => Code::Internal,
            Self::Store(error) => error.code(),
        }
    }
}
