//! What objects with a history tell their operator.

use mainstay_store::{Key, Revision};

use crate::duty::Duty;
use crate::keys::{RuleKind, RuleRef};

/// History was lost before it was read; the whole list was read instead.
#[derive(Debug)]
pub(crate) struct Resynced {
    pub(crate) kind: RuleKind,
    pub(crate) compacted: Revision,
}

impl Resynced {
    pub(crate) fn emit(self) {
        let (kind, compacted) = (self.kind.as_str(), self.compacted.get());
        tracing::warn!(kind, compacted, "history lost: listing anew");
    }
}

/// The store does not answer, or answers again.
#[derive(Debug)]
pub(crate) struct Reach<'a> {
    pub(crate) kind: RuleKind,
    /// `None` when it answers again.
    pub(crate) why: Option<&'a str>,
}

impl Reach<'_> {
    pub(crate) fn emit(self) {
        let kind = self.kind.as_str();
        match self.why {
            Some(why) => tracing::warn!(kind, why, "the last copy is used"),
            None => tracing::info!(kind, "the store is followed again"),
        }
    }
}

/// An object cannot be read: a newer version wrote it. It stays as it was.
#[derive(Debug)]
pub(crate) struct Unreadable<'a> {
    pub(crate) key: &'a Key,
}

impl Unreadable<'_> {
    pub(crate) fn emit(self) {
        let key = self.key;
        tracing::error!(%key, "object cannot be read and stays as it was");
    }
}

/// This node has a duty, or no longer.
#[derive(Debug)]
pub(crate) struct DutyHeld {
    pub(crate) duty: Duty,
    pub(crate) is_held: bool,
}

impl DutyHeld {
    pub(crate) fn emit(self) {
        let duty = self.duty.as_str();
        if self.is_held {
            tracing::info!(duty, "this node has the duty");
        } else {
            tracing::info!(duty, "this node has the duty no longer");
        }
    }
}

/// Time brought something about.
#[derive(Debug)]
pub(crate) struct TimeUp<'a> {
    pub(crate) rule: &'a RuleRef,
}

impl TimeUp<'_> {
    pub(crate) fn emit(self) {
        let (kind, rule) = (self.rule.kind.as_str(), self.rule);
        tracing::info!(kind, %rule, "its time is over");
    }
}

/// What time brings about could not be written; it is tried again.
#[derive(Debug)]
pub(crate) struct TimeUpFailed<'a> {
    pub(crate) rule: &'a RuleRef,
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl TimeUpFailed<'_> {
    pub(crate) fn emit(self) {
        let Self { rule, error } = self;
        let kind = rule.kind.as_str();
        tracing::warn!(kind, %rule, error, "its time is over, but that could not be written");
    }
}

/// Revisions that were too old are gone.
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) kind: RuleKind,
    pub(crate) revisions: u64,
}

impl Swept {
    pub(crate) fn emit(self) {
        let (kind, revisions) = (self.kind.as_str(), self.revisions);
        tracing::info!(kind, revisions, "revisions that were too old swept");
    }
}

/// Revisions that are too old could not be swept; it is tried again.
#[derive(Debug)]
pub(crate) struct SweepFailed<'a> {
    pub(crate) kind: RuleKind,
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl SweepFailed<'_> {
    pub(crate) fn emit(self) {
        let (kind, error) = (self.kind.as_str(), self.error);
        tracing::warn!(kind, error, "revisions that are too old could not be swept");
    }
}
