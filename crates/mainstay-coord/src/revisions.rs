//! Objects with a history: who changed them, when, and why.
//!
//! Rules, switches and plans are kept alike. Each change of an object is an *edition*, numbered 1,
//! 2, 3 …, immutable, and kept under its number; the newest also lies at the object's own key, its
//! *head*, which a change compares. Going back appends what was, so nothing that happened is ever
//! rewritten. Removing an object is an edition too, so that numbers go on if it comes back.
//!
//! A change, its edition and its audit record are one batch. When nobody knows what became of that
//! batch, the number it would have written is read: the edition there names the change that wrote
//! it. Until somebody else has that number the batch may still arrive; it is sent again, and only
//! one copy can win its compare.
//!
//! Every node follows the kinds it acts by, and reads its own copy: [`Followed`].
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | an edition, and the one that follows it | [`edition`] | decides |
//! | kinds, and terms of a change; differences | [`terms`], [`diff`] | decides |
//! | writing; reading the past; sweeping it | `write`, [`history`], [`sweep`] | act |
//! | a node's copy | [`follow`] | acts |

pub mod diff;
pub mod edition;
pub mod error;
pub mod follow;
pub mod history;
pub mod sweep;
pub mod terms;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Entry, Get, Revision, Store};

use crate::audit::Outbox;
use crate::clock::Timer;
use crate::keys::RuleRef;
use crate::moment::Moment;
use crate::tasks::Tasks;

pub use diff::{Diff, FieldChange};
pub use edition::{Edition, Object};
pub use error::{RuleError, What};
pub use follow::{Followed, Kept, Snapshot};
pub use history::{HistoryItem, HistoryPage, ObjectPage};
pub use terms::{Fault, Kind, Terms};
pub use write::Written;
pub(crate) use write::puts;

/// Objects with a history, of every kind. Clones share everything.
#[derive(Clone)]
pub struct Revisions {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    timer: Arc<dyn Timer>,
    outbox: Outbox,
    tasks: Tasks,
}

impl Revisions {
    /// The objects in `store`; each change puts its record into `outbox`, of the same store.
    pub fn new(store: Arc<dyn Store>, timer: Arc<dyn Timer>, outbox: Outbox) -> Self {
        Self { shared: Arc::new(Shared { store, timer, outbox, tasks: Tasks::default() }) }
    }

    /// Where the records of changes go.
    pub fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

    /// Stops following. Waits up to `grace`; returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.shared.store
    }

    pub(crate) fn timer(&self) -> &dyn Timer {
        &*self.shared.timer
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment::from_unix_millis(self.shared.timer.unix_millis())
    }

    /// The newest edition of an object, and the store's revision when it was read.
    pub(crate) async fn head(&self, rule: &RuleRef) -> Result<Head, RuleError> {
        let got = self.store().get(Get::new(rule.head())).await?;
        Head::read(rule, got.entry.as_ref(), got.revision)
    }

    /// The edition numbered `number`, if it is kept.
    pub(crate) async fn edition(
        &self,
        rule: &RuleRef,
        number: u64,
    ) -> Result<Option<Edition>, RuleError> {
        let Some(entry) = self.store().get(Get::new(rule.revision(number))).await?.entry else {
            return Ok(None);
        };
        let edition = Edition::read(&entry.value);
        edition.map(Some).ok_or_else(|| RuleError::Unreadable { rule: rule.clone() })
    }
}

/// The newest edition of an object.
#[derive(Debug)]
pub(crate) struct Head {
    /// `None` where it never was.
    pub(crate) edition: Option<Edition>,
    /// The store's revision that wrote it.
    pub(crate) written: Revision,
    /// The store's revision at which it was read.
    pub(crate) read_at: Revision,
}

impl Head {
    pub(crate) fn read(
        rule: &RuleRef,
        entry: Option<&Entry>,
        read_at: Revision,
    ) -> Result<Self, RuleError> {
        let Some(entry) = entry else {
            return Ok(Self { edition: None, written: Revision::NEVER, read_at });
        };
        let edition = Edition::read(&entry.value);
        let edition = edition.ok_or_else(|| RuleError::Unreadable { rule: rule.clone() })?;
        Ok(Self { edition: Some(edition), written: entry.mod_revision, read_at })
    }

    /// What is there now.
    pub(crate) fn there(&self) -> Option<&Edition> {
        self.edition.as_ref().filter(|edition| !edition.removed)
    }
}

impl fmt::Debug for Revisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revisions").field("outbox", &self.shared.outbox).finish_non_exhaustive()
    }
}
