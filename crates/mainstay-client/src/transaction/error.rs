//! Why a transaction did not come out as asked, and what is known of its effect.

use std::convert::Infallible;
use std::time::Duration;

use mainstay_core::Effect;

use crate::error::ClientError;

/// Why a transaction did not come out as asked. `E` is what the program's own statements return.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TxError<E = Infallible> {
    /// It was decided to abort: nothing has taken effect, or is being undone. To begin it anew,
    /// under another gid, is safe.
    #[error("transaction {gid} was aborted: {why}")]
    Aborted {
        /// Which.
        gid: String,
        /// Why, as its coordinator says it: `step-failed: …`, `deadline: …`.
        why: String,
    },
    /// Whether it took effect is open. Ask for it by its gid, or make the same request again with
    /// that gid: it counts once. A `run` is not done again under a gid that was begun before, and
    /// ends so unless that was aborted, also if it was committed: `why` says its state.
    #[error("what became of transaction {gid} is not known: {why}")]
    Unknown {
        /// Which.
        gid: String,
        /// What was heard last.
        why: String,
    },
    /// The control plane cannot take it now.
    #[error("transactions are not available: {source}")]
    Unavailable {
        /// When asking again may help, where that is known.
        retry_after: Option<Duration>,
        /// [`Effect::None`]: nothing has happened, and nothing will.
        effect: Effect,
        /// What was heard last.
        source: ClientError,
    },
    /// Some of it took effect and some did not; an operator is needed.
    #[error("transaction {gid} ended mixed: some of it took effect, some did not")]
    Mixed {
        /// Which.
        gid: String,
    },
    /// The request can never work as it is. Nothing has happened.
    #[error("transaction was refused")]
    Refused(#[source] ClientError),
    /// What the program's own statements returned; the transaction is aborted.
    #[error("the program's own part failed")]
    Business(#[source] E),
}

impl<E> TxError<E> {
    /// What is known of its effect. Of a mixed one nothing can be said as a whole.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Aborted { .. } | Self::Refused(_) | Self::Business(_) => Effect::None,
            Self::Unavailable { effect, .. } => *effect,
            Self::Unknown { .. } | Self::Mixed { .. } => Effect::Unknown,
        }
    }

    /// Which transaction, where there is one that can be asked for.
    pub fn gid(&self) -> Option<&str> {
        match self {
            Self::Aborted { gid, .. } | Self::Unknown { gid, .. } | Self::Mixed { gid } => {
                Some(gid)
            }
            Self::Unavailable { .. } | Self::Refused(_) | Self::Business(_) => None,
        }
    }
}

impl TxError {
    /// The same beside statements that can fail.
    pub fn with_business<E>(self) -> TxError<E> {
        match self {
            Self::Aborted { gid, why } => TxError::Aborted { gid, why },
            Self::Unknown { gid, why } => TxError::Unknown { gid, why },
            Self::Unavailable { retry_after, effect, source } => {
                TxError::Unavailable { retry_after, effect, source }
            }
            Self::Mixed { gid } => TxError::Mixed { gid },
            Self::Refused(source) => TxError::Refused(source),
            Self::Business(never) => match never {},
        }
    }
}

/// Of a request that has done nothing.
impl<E> From<ClientError> for TxError<E> {
    fn from(error: ClientError) -> Self {
        if error.is_retryable() {
            let retry_after = error.retry_after();
            Self::Unavailable { retry_after, effect: Effect::None, source: error }
        } else {
            Self::Refused(error)
        }
    }
}
