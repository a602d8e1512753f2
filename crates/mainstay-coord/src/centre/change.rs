//! The one place where the batch of a change is made.

use mainstay_store::{Batch, Compare, Op};

use crate::events::centre::Changed;
use crate::keys::GroupRef;

/// Who changes something, and what they had read.
#[derive(Clone, Debug, Default)]
pub struct Editor {
    /// Who, as shown in the history.
    pub who: String,
    /// The release the change is based on: if another is in force, nothing happens.
    pub base: Option<u64>,
}

/// A change of a group: what it is, who makes it, and why.
///
/// Every batch that changes configuration is made by [`Change::batch`], so that whatever must be
/// written in the same batch as the change has one place to be added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    /// What somebody needs the permission for.
    pub(super) action: Action,
    pub(super) group: &'a GroupRef,
    pub(super) who: &'a str,
    pub(super) why: &'a str,
    /// Releases in force before and after.
    pub(super) before: u64,
    pub(super) after: u64,
}

/// What is done to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    EditDraft,
    RemoveDraft,
    Publish,
    Rollback,
    StartCanary,
    Promote,
    Abort,
    Rewrap,
}

impl Action {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::EditDraft => "edit draft",
            Self::RemoveDraft => "remove draft",
            Self::Publish => "publish",
            Self::Rollback => "roll back",
            Self::StartCanary => "set canary",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rewrap => "rewrap",
        }
    }
}

impl Change<'_> {
    /// The batch that makes the change when every compare holds.
    pub(super) fn batch(&self, when: Vec<Compare>, then: Vec<Op>) -> Batch {
        Batch { compares: when, then, otherwise: Vec::new() }
    }

    /// Tells that it was made.
    pub(super) fn made(&self) {
        let Self { action, group, who, why, before, after } = *self;
        Changed { action: action.as_str(), group, who, why, before, after }.emit();
    }
}
