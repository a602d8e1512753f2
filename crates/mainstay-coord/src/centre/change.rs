//! The one place where the batch of a change is made.

use mainstay_store::{Batch, Compare, Op, Revision};
use serde_json::Value;

use super::shared::Shared;
use crate::audit::{Author, Target};
use crate::events::centre::Changed;
use crate::keys::GroupRef;

/// Who changes something, and what they had read.
#[derive(Clone, Debug, Default)]
pub struct Editor {
    /// Who, as shown in the history, and why.
    pub author: Author,
    /// The release the change is based on: if another is in force, nothing happens.
    pub base: Option<u64>,
    /// Say what would be done or refused, and change nothing.
    pub dry_run: bool,
}

/// A change of a group: what it is, who makes it, and why.
///
/// Every batch that changes configuration is made by [`Change::batch`], which records the change in
/// the same batch.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    /// What somebody needs the permission for.
    pub(super) action: Action,
    pub(super) group: &'a GroupRef,
    pub(super) author: &'a Author,
    /// What the history says of it; the reason where none was given.
    pub(super) note: &'a str,
    /// Releases in force before and after; 0 is none.
    pub(super) before: u64,
    pub(super) after: u64,
    /// What was and is, for the record: names, never contents.
    pub(super) shown: (Value, Value),
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
    /// As records name it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::EditDraft => "config:draft",
            Self::RemoveDraft => "config:remove-draft",
            Self::Publish => "config:publish",
            Self::Rollback => "config:rollback",
            Self::StartCanary => "config:canary",
            Self::Promote => "config:promote",
            Self::Abort => "config:abort",
            Self::Rewrap => "config:rewrap",
        }
    }
}

impl Change<'_> {
    /// The batch that makes the change when every compare holds, with its record. `decided` is the
    /// revision of the store it was decided at.
    pub(super) fn batch(
        &self,
        shared: &Shared,
        decided: Revision,
        when: Vec<Compare>,
        mut then: Vec<Op>,
    ) -> Batch {
        let number = |release: u64| Some(release).filter(|release| 0 < *release);
        let target = Target {
            kind: "config".to_owned(),
            id: self.group.to_string(),
            revision_before: number(self.before),
            revision_after: number(self.after),
        };
        let mut record = shared.outbox.record(self.action.as_str(), target, self.author);
        record.reason = self.why().map(str::to_owned);
        let (was, is) = self.shown.clone();
        then.push(shared.outbox.put(decided, &record.changed(was, is)).into());
        Batch { compares: when, then, otherwise: Vec::new() }
    }

    /// Tells that it was made.
    pub(super) fn made(&self) {
        let Self { action, group, before, after, .. } = *self;
        let (who, why) = (&*self.author.actor.principal, self.why().unwrap_or_default());
        Changed { action: action.as_str(), group, who, why, before, after }.emit();
    }

    fn why(&self) -> Option<&str> {
        self.author.reason.as_deref().or_else(|| Some(self.note).filter(|note| !note.is_empty()))
    }
}
