//! A snapshot: every live entry and lease as of one revision.

pub mod file;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;

use crate::entry::{Entry, LeaseId, Revision};
use crate::error::Error;
use crate::store::StoreId;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The store.
    pub store: StoreId,
    /// The revision all of it is as of.
    pub revision: Revision,
    /// The store's compacted revision then.
    pub compacted: Revision,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A lease that was live; all of them come before the first entry.
    Lease {
        /// Its id.
        id: LeaseId,
        /// The ttl it was granted.
        ttl: Duration,
    },
    /// An entry; they come in byte order of their keys.
    Entry(Entry),
}

/// A stream of everything there was at one revision. Writes go on while it is read.
pub struct Snapshot {
    head: SnapshotHead,
    items: Pin<Box<dyn Stream<Item = Result<SnapshotItem, Error>> + Send>>,
}

impl Snapshot {
    /// A snapshot of `items`, for backends.
    pub fn new(
        head: SnapshotHead,
        items: impl Stream<Item = Result<SnapshotItem, Error>> + Send + 'static,
    ) -> Self {
        Self { head, items: Box::pin(items) }
    }

    /// What it is of.
    pub const fn head(&self) -> SnapshotHead {
        self.head
    }

    /// The next part; `None` when it is complete.
    ///
    /// # Errors
    ///
    /// What kept the store from reading it; [`Error::Compacted`] when a backend that cannot hold
    /// the revision has lost it. The snapshot is then of no use.
    ///
    /// # Cancel safety
    ///
    /// Safe: a part leaves the stream only when it is returned.
    pub async fn next(&mut self) -> Option<Result<SnapshotItem, Error>> {
        poll_fn(|context| self.items.as_mut().poll_next(context)).await
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("head", &self.head).finish_non_exhaustive()
    }
}
