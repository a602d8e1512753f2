//! Why an object was not read or changed.

use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_store::Error;

use super::edition::Object;
use super::terms::Fault;
use crate::audit::AuditError;
use crate::keys::{RuleKind, RuleRef};

/// Most objects of one kind: every node keeps a copy of them.
pub const OBJECTS_MAX: u64 = 10_000;

/// What is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The object.
    Object,
    /// That revision of it: it was never written, was swept, or removed the object.
    Revision(u64),
}

/// Why an object was not read or changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// No such object, or no such revision of it.
    #[error("{} {rule}{} not found", rule.kind, revision(*what))]
    NotFound {
        /// The object asked for.
        rule: RuleRef,
        /// What of it.
        what: What,
    },
    /// Somebody else changed it since. Look at what is there, then decide again.
    #[error("{} {rule} is at revision {found}, not {expected}", rule.kind)]
    Moved {
        /// The object.
        rule: RuleRef,
        /// The revision the change was based on.
        expected: u64,
        /// The one found; 0 where it is not there.
        found: u64,
        /// What is there.
        current: Option<Box<Object>>,
    },
    /// It is kept somewhere else, and would be as before when it is read from there again.
    #[error("{} {rule} is managed by {managed_by}; change it there", rule.kind)]
    ManagedElsewhere {
        /// The object.
        rule: RuleRef,
        /// Where.
        managed_by: String,
    },
    /// Its kind does not allow the content.
    #[error("{kind} is not valid: {}", faults.first().map_or("", |fault| &*fault.detail))]
    Invalid {
        /// The kind.
        kind: RuleKind,
        /// What is wrong; at least one thing.
        faults: Vec<Fault>,
    },
    /// As many objects as there may be. Remove some first.
    #[error("there are {OBJECTS_MAX} of kind {kind}, as many as there may be")]
    Full {
        /// The kind.
        kind: RuleKind,
    },
    /// The reason is none, or no record can be put; so nothing is changed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// What is written there cannot be read: a newer version wrote it.
    #[error("{} {rule} cannot be read", rule.kind)]
    Unreadable {
        /// The object.
        rule: RuleRef,
    },
    /// The store did not do as asked.
    #[error("rules could not be read or changed")]
    Store(#[from] Error),
}

fn revision(what: What) -> String {
    match what {
        What::Object => String::new(),
        What::Revision(number) => format!(" at revision {number}"),
    }
}

impl RuleError {
    pub(crate) fn not_found(rule: &RuleRef, what: What) -> Self {
        Self::NotFound { rule: rule.clone(), what }
    }

    /// Whether the same request may be sent again as it is.
    ///
    /// Not so after an unknown outcome: what was resolved by reading did not get there in time.
    pub const fn is_retryable(&self) -> bool {
        match self {
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

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Moved { .. } => Code::RevisionMoved,
            Self::ManagedElsewhere { .. } => Code::ManagedElsewhere,
            Self::Invalid { .. } => Code::InvalidRule,
            Self::Full { .. } => Code::RulesFull,
            Self::Audit(error) => error.code(),
            Self::Unreadable { .. } => Code::Internal,
            Self::Store(error) => error.code(),
        }
    }
}
