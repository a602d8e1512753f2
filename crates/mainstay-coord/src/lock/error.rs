//! Why a lock was not granted, or not given back.

use std::time::Duration;

use mainstay_core::Effect;
use mainstay_core::belief::Loss;
use mainstay_core::problem::Code;
use mainstay_store::{Error, Key};

use super::line::{Line, Waiter};
use super::record::Token;
use crate::audit::AuditError;
use crate::session::{Owner, SessionError};

/// Who holds what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Whose session it is; `None` when the record was written by a newer version.
    pub owner: Option<Owner>,
    /// Its token.
    pub token: Token,
    /// When it asked, in milliseconds since 1970 by the wall clock of the node it asked.
    pub asked_unix_ms: Option<u64>,
    /// The transaction it is held for, instead of a session.
    pub bound_gid: Option<String>,
}

impl Holder {
    pub(super) fn of(waiter: &Waiter) -> Self {
        Self {
            owner: waiter.owner().cloned(),
            token: waiter.token(),
            asked_unix_ms: waiter.asked_unix_ms(),
            bound_gid: waiter.bound_gid().map(str::to_owned),
        }
    }
}

/// Why a lock was not granted, or not given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it, or waits already. Ask again, or wait.
    #[error("lock is busy: {queued} hold it or wait{}", by(.holder.as_deref()))]
    Busy {
        /// The first who holds it; `None` while a lock delay runs.
        holder: Option<Box<Holder>>,
        /// Holders and waiters.
        queued: usize,
        /// By when it is free if the holder is dead; unknown for a transaction.
        retry_after: Option<Duration>,
    },
    /// It was not granted in the time the caller gave.
    #[error("lock was not granted in time: {queued} hold it or wait{}", by(.holder.as_deref()))]
    WaitTimeout {
        /// The first who holds it; `None` while a lock delay runs.
        holder: Option<Box<Holder>>,
        /// Holders and waiters before the caller.
        queued: usize,
    },
    /// It was held, and is no longer. What is done from here on is not covered by it.
    #[error("lock is lost: {0}")]
    Lost(Loss),
    /// The session does not hold it with that token. The caller's fault, or it was lost.
    #[error("lock is not held with token {token}")]
    NotHeld {
        /// The token shown.
        token: Token,
    },
    /// The session holds it already, and asked for it not to be counted once more; or holds it as
    /// often as one can; or it holds it more than once, and what was asked for is for one.
    #[error("lock is held already, {count} times")]
    AlreadyHeld {
        /// How often.
        count: u32,
    },
    /// The session holds it for a transaction; nobody holds it again before that is over.
    #[error("lock is bound to transaction {gid}")]
    Bound {
        /// The transaction.
        gid: String,
    },
    /// A reader cannot become a writer: two who tried would wait for each other for ever.
    #[error("lock is held shared by the session, and cannot become exclusive")]
    UpgradeRefused,
    /// Others agreed on another number of permits.
    #[error("semaphore has a limit of {limit}")]
    LimitDiffers {
        /// Theirs.
        limit: u32,
    },
    /// What was asked for makes no sense. The caller's fault.
    #[error("lock request is invalid: {why}")]
    RequestInvalid {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A newer version wrote what stands there.
    #[error("record `{key}` cannot be read")]
    Unreadable {
        /// Where.
        key: Key,
    },
    /// This process is shutting down.
    #[error("lock request was given up: this process is shutting down")]
    Stopped,
    /// The session did not do as asked.
    #[error("session of the lock failed")]
    Session(#[source] SessionError),
    /// The reason is none, or no record can be put; so nothing is changed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store did not do as asked.
    #[error("lock could not be looked after")]
    Store(#[from] Error),
}

/// The words that name a holder.
fn by(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { bound_gid: Some(gid), .. }) => format!(", first transaction {gid}"),
        Some(Holder { owner: Some(owner), .. }) => {
            format!(", first {} (process {} on {})", owner.name, owner.pid, owner.host)
        }
        Some(_) | None => String::new(),
    }
}

impl From<SessionError> for LockError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Store(error) => Self::Store(error),
            error => Self::Session(error),
        }
    }
}

impl LockError {
    /// Why whoever asked could not have it at once. `retry_after` is what is left of the holder's
    /// lease.
    pub(super) fn busy(line: &Line, retry_after: Option<Duration>) -> Self {
        let queued = line.waiters().len();
        Self::Busy { holder: first(line), queued, retry_after }
    }

    /// Why whoever waited did not get it. Its own place is in `line`, if it was not lost.
    pub(super) fn timeout(line: &Line) -> Self {
        let queued = line.waiters().len().saturating_sub(1);
        Self::WaitTimeout { holder: first(line), queued }
    }

    /// Whether the same request may be sent again as it is.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::WaitTimeout { .. } => true,
            Self::Session(error) => error.is_retryable(),
            Self::Audit(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// When trying again may help.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    /// What the request may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Session(error) => error.effect(),
            Self::Audit(error) => error.effect(),
            Self::Store(error) => error.effect(),
            _ => Effect::None,
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Busy { .. } => Code::LockBusy,
            Self::WaitTimeout { .. } => Code::LockWaitTimeout,
            Self::Lost(_) => Code::LockLost,
            Self::NotHeld { .. } => Code::LockNotHeld,
            Self::AlreadyHeld { .. } | Self::Bound { .. } => Code::LockAlreadyHeld,
            Self::UpgradeRefused => Code::LockUpgradeRefused,
            Self::LimitDiffers { .. } => Code::SemaphoreLimitDiffers,
            Self::RequestInvalid { .. } => Code::InvalidRequest,
            Self::Unreadable { .. } => Code::Internal,
            Self::Stopped => Code::StoreClosed,
            Self::Session(error) => error.code(),
            Self::Audit(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    /// The outcome counted for a request that ended so.
    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::WaitTimeout { .. } => "timeout",
            Self::Lost(_) => "lost",
            Self::Stopped => "stopped",
            Self::Session(_) | Self::Audit(_) | Self::Store(_) | Self::Unreadable { .. } => {
                "failed"
            }
            Self::NotHeld { .. }
            | Self::AlreadyHeld { .. }
            | Self::Bound { .. }
            | Self::UpgradeRefused
            | Self::LimitDiffers { .. }
            | Self::RequestInvalid { .. } => "refused",
        }
    }
}

/// The first who holds; nobody does while a lock delay runs.
fn first(line: &Line) -> Option<Box<Holder>> {
    let holder = line.holders().first().filter(|_| line.delay.is_none());
    holder.map(|waiter| Box::new(Holder::of(waiter)))
}
