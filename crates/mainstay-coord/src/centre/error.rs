//! Why the config centre did not do as asked.

use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_store::{Error, Revision};
use serde::Serialize;

use crate::audit::AuditError;
use crate::keyring::KeyringError;
use crate::keys::GroupRef;
use crate::name::NameInvalid;

/// One fault of an item's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Which item.
    pub item: String,
    /// Where in it: a JSON pointer (RFC 6901); empty for the whole, and where there is no tree.
    pub pointer: String,
    /// What is wrong. Of a secret it never quotes the content.
    pub message: String,
}

/// Why the config centre did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CentreError {
    /// A field is wrong. The caller's fault.
    #[error("{field} {problem}")]
    Invalid {
        /// Which field, as the caller wrote it.
        field: String,
        /// What is allowed.
        problem: &'static str,
    },
    /// A name cannot be one. The caller's fault.
    #[error(transparent)]
    Name(#[from] NameInvalid),
    /// Nothing was published there.
    #[error("group {group} not found")]
    GroupNotFound {
        /// The group asked for.
        group: GroupRef,
    },
    /// There is no such draft.
    #[error("group {group} has no draft of item {item}")]
    DraftNotFound {
        /// The group asked for.
        group: GroupRef,
        /// The item asked for.
        item: String,
    },
    /// There is no such release, or it was swept.
    #[error("group {group} has no release {release}")]
    ReleaseNotFound {
        /// The group asked for.
        group: GroupRef,
        /// The release asked for.
        release: u64,
    },
    /// No gradual release is under way.
    #[error("group {group} has no gradual release under way")]
    CanaryNotFound {
        /// The group asked for.
        group: GroupRef,
    },
    /// A gradual release is under way. Promote or abort it first.
    #[error("group {group} has release {release} under way as a canary")]
    CanaryRunning {
        /// The group.
        group: GroupRef,
        /// The release that some clients get.
        release: u64,
        /// Since when, by the wall clock.
        since_unix_ms: u64,
    },
    /// Somebody else published since. Read again, then decide again.
    #[error("group {group} is at release {found}, not {expected}")]
    Moved {
        /// The group.
        group: GroupRef,
        /// The release the caller had read.
        expected: u64,
        /// The one found.
        found: u64,
    },
    /// Somebody else edited the draft since. Read again, then decide again.
    #[error("draft {item} of group {group} is at revision {found}, not {expected}")]
    DraftMoved {
        /// The group.
        group: GroupRef,
        /// Which item.
        item: String,
        /// The revision the caller had read.
        expected: Revision,
        /// The one found.
        found: Revision,
    },
    /// Contents do not have their format. The caller's fault.
    #[error("{}", listed(failures))]
    FormatInvalid {
        /// Every fault found, up to a hundred.
        failures: Vec<Failure>,
    },
    /// Contents violate their schema. The caller's fault.
    #[error("{}", listed(failures))]
    SchemaViolation {
        /// Every fault found, up to a hundred.
        failures: Vec<Failure>,
    },
    /// More than there may be of it.
    #[error("{what} has {found} {unit}, and may have {max}")]
    TooLarge {
        /// What of.
        what: String,
        /// How much.
        found: usize,
        /// Of what.
        unit: &'static str,
        /// The limit.
        max: usize,
    },
    /// This node has not read the configuration yet: it would answer with less than there is.
    #[error("configuration is loading")]
    Loading,
    /// What is written there cannot be read: a newer version wrote it, or a content is missing.
    #[error("{what} cannot be read")]
    Unreadable {
        /// What.
        what: String,
    },
    /// A secret does not open.
    #[error("secret item {item} of group {group} cannot be opened")]
    Secret {
        /// The group.
        group: GroupRef,
        /// The item.
        item: String,
        /// Why.
        #[source]
        source: KeyringError,
    },
    /// The reason is none, or no record can be put; so nothing is changed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store did not do as asked.
    #[error("configuration could not be changed or read")]
    Store(#[from] Error),
}

impl CentreError {
    pub(super) fn invalid(field: impl Into<String>, problem: &'static str) -> Self {
        Self::Invalid { field: field.into(), problem }
    }

    /// Whether the same request may be sent again as it is.
    ///
    /// After an unknown outcome it may when it names the release it was based on: should the first
    /// have got through, the second is refused and does no harm.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Loading => true,
            Self::Audit(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// What the request may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Audit(error) => error.effect(),
            Self::Store(error) => error.effect(),
            _ => Effect::None,
        }
    }

    /// What is wrong with contents, item by item; empty for every other error.
    pub fn failures(&self) -> &[Failure] {
        match self {
            Self::FormatInvalid { failures } | Self::SchemaViolation { failures } => failures,
            _ => &[],
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } | Self::Name(_) => Code::InvalidRequest,
            Self::GroupNotFound { .. } | Self::DraftNotFound { .. } => Code::ConfigNotFound,
            Self::ReleaseNotFound { .. } => Code::ReleaseNotFound,
            Self::CanaryNotFound { .. } => Code::CanaryNotFound,
            Self::CanaryRunning { .. } => Code::CanaryRunning,
            Self::Moved { .. } | Self::DraftMoved { .. } => Code::RevisionMoved,
            Self::FormatInvalid { .. } => Code::FormatInvalid,
            Self::SchemaViolation { .. } => Code::SchemaViolation,
            Self::TooLarge { .. } => Code::ValueTooLarge,
            Self::Loading => Code::ConfigLoading,
            Self::Unreadable { .. } => Code::Internal,
            Self::Secret { source, .. } => source.code(),
            Self::Audit(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}

/// The first fault, and how many more there are.
fn listed(failures: &[Failure]) -> String {
    let Some(Failure { item, pointer, message }) = failures.first() else {
        return "content is not valid".to_owned();
    };
    let at = if pointer.is_empty() { String::new() } else { format!(" at {pointer}") };
    match failures.len() - 1 {
        0 => format!("item {item}{at}: {message}"),
        more => format!("item {item}{at}: {message}, and {more} more"),
    }
}
