//! Why a verb was refused.

use crate::name::{BranchId, NameInvalid};
use crate::target::TargetInvalid;
use crate::transaction::Reason;
use crate::word::{Mode, State};

/// Why a verb was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameInvalid),
    /// A target that is none.
    #[error(transparent)]
    Target(#[from] TargetInvalid),
    /// A field says what it may not.
    #[error("{field} {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what to do instead.
        problem: String,
    },
    /// One payload is too large.
    #[error("payload of branch {branch} has {bytes} bytes, more than {max}")]
    PayloadTooLarge {
        /// Whose.
        branch: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The transaction as a whole is.
    #[error("transaction has {found} {what}, more than {max}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A transaction of this name with other content exists.
    #[error("gid is taken by a {mode} transaction with other content, which is {state}")]
    GidTaken {
        /// Its mode.
        mode: Mode,
        /// Where it stands.
        state: State,
    },
    /// A branch of this name with other content exists.
    #[error("branch {branch} is registered with other content")]
    BranchTaken {
        /// Which.
        branch: BranchId,
    },
    /// No such branch.
    #[error("branch {branch} is not registered")]
    BranchUnknown {
        /// Which.
        branch: BranchId,
    },
    /// Branches join only while nothing is decided.
    #[error("transaction is {state}, and branches join only while it is active")]
    NotActive {
        /// Where it stands.
        state: State,
    },
    /// Its deadline has passed.
    #[error("deadline of the transaction has passed")]
    DeadlinePassed,
    /// It began so long ago that nobody remembers whether it ended.
    #[error("transaction began longer ago than one may live")]
    TooOld,
    /// It was decided to abort.
    #[error("transaction was aborted: {}", .0.as_ref().map_or("asked", |reason| reason.why.as_str()))]
    Aborted(Option<Reason>),
    /// It was decided to commit.
    #[error("transaction was committed")]
    Committed,
    /// Some of it committed, some rolled back.
    #[error("transaction ended mixed, and an operator has to resolve it")]
    Mixed,
    /// This verb does nothing there.
    #[error("`{verb}` is not possible: the {mode} transaction is {state}")]
    NotAllowed {
        /// The verb.
        verb: &'static str,
        /// The mode.
        mode: Mode,
        /// Where it stands.
        state: State,
    },
}

impl Refused {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Name(invalid) => invalid.code(),
            Self::Target(_) | Self::Invalid { .. } => "transaction-invalid",
            Self::PayloadTooLarge { .. } => "payload-too-large",
            Self::TooLarge { .. } => "transaction-too-large",
            Self::GidTaken { .. } => "transaction-gid-taken",
            Self::BranchTaken { .. } => "transaction-branch-taken",
            Self::BranchUnknown { .. } => "transaction-branch-unknown",
            Self::NotActive { .. } => "transaction-not-active",
            Self::DeadlinePassed => "transaction-deadline-passed",
            Self::TooOld => "transaction-too-old",
            Self::Aborted(_) => "transaction-aborted",
            Self::Committed => "transaction-committed",
            Self::Mixed => "transaction-mixed",
            Self::NotAllowed { .. } => "transaction-verb-not-allowed",
        }
    }

    /// Status of an HTTP answer.
    pub const fn http(&self) -> u16 {
        match self {
            Self::Name(_) | Self::Target(_) | Self::Invalid { .. } => 400,
            Self::PayloadTooLarge { .. } => 413,
            Self::Mixed => 500,
            _ => 409,
        }
    }
}
