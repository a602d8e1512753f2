//! Watches: every change of a range from a revision on, once and in order.
//!
//! A watch promises nine things, each with a validator in the conformance suite. It is *ordered*
//! (revisions strictly increase), *unique* (no event twice), *atomic* (one [`WatchItem::Changes`]
//! holds all matching events of its revision, in the order of operations), *reliable* (what lies
//! between two delivered revisions was delivered), *resumable* (a new watch from the next revision
//! goes on exactly there, as long as it is not compacted), *bookmarkable* (after a bookmark
//! nothing at or before it follows), and right about the *previous* entry, about *creation*, and
//! about its *filter*.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::entry::{Entry, Revision};
use crate::key::{Key, Range};

/// Asks for the changes of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Of which keys.
    pub range: Range,
    /// From which revision on, itself included; `None` is after now. One above the current
    /// revision waits for it.
    pub from: Option<Revision>,
    /// Whether events carry the entry as it was just before.
    pub previous: bool,
    /// Whether puts are wanted.
    pub puts: bool,
    /// Whether deletes are wanted.
    pub deletes: bool,
    /// Whether a stream that has been idle for 10 s says how far it is.
    pub bookmarks: bool,
}

impl WatchRequest {
    /// Every change of `range` after now, with bookmarks.
    pub const fn new(range: Range) -> Self {
        Self { range, from: None, previous: false, puts: true, deletes: true, bookmarks: true }
    }

    /// From `revision` on, itself included.
    #[must_use]
    pub const fn from(mut self, revision: Revision) -> Self {
        self.from = Some(revision);
        self
    }

    /// With the entry as it was just before.
    #[must_use]
    pub const fn previous(mut self) -> Self {
        self.previous = true;
        self
    }

    /// Deletes only.
    #[must_use]
    pub const fn deletes_only(mut self) -> Self {
        self.puts = false;
        self
    }

    /// Puts only.
    #[must_use]
    pub const fn puts_only(mut self) -> Self {
        self.deletes = false;
        self
    }

    /// Without bookmarks.
    #[must_use]
    pub const fn quiet(mut self) -> Self {
        self.bookmarks = false;
        self
    }

    /// Whether `event` is one that was asked for.
    pub fn wants(&self, event: &Event) -> bool {
        let kind = match event.change {
            Change::Put(_) => self.puts,
            Change::Delete(_) => self.deletes,
        };
        kind && self.range.contains(event.key())
    }

    /// `event` as it was asked for, if it was.
    pub fn select(&self, event: &Event) -> Option<Event> {
        let previous = if self.previous { event.previous.clone() } else { None };
        self.wants(event).then(|| Event { change: event.change.clone(), previous })
    }
}

/// What a watch yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// The watch stands. It yields what happens after `revision`, or from the revision asked for.
    /// Comes first, unless the watch ends at once.
    Created {
        /// The store's revision.
        revision: Revision,
    },
    /// All matching changes of one revision, in the order of operations.
    Changes {
        /// The revision.
        revision: Revision,
        /// At least one.
        events: Vec<Event>,
    },
    /// Nothing at or before `revision` follows.
    Bookmark {
        /// The revision.
        revision: Revision,
    },
    /// The last item: history that was not yet delivered is gone. List again, and watch from
    /// there.
    Compacted {
        /// The oldest revision that can still be read; watches begin after it.
        compacted: Revision,
    },
    /// The last item: the store is closed.
    Closed,
    /// The last item: the watcher may no longer see all of the range.
    Denied,
}

impl WatchItem {
    /// Whether nothing follows.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Compacted { .. } | Self::Closed | Self::Denied)
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// The entry as it was just before; absent if there was none, or was not asked for.
    pub previous: Option<Entry>,
}

impl Event {
    /// The key that changed.
    pub const fn key(&self) -> &Key {
        match &self.change {
            Change::Put(entry) => &entry.key,
            Change::Delete(key) => key,
        }
    }

    /// The entry, if the key is there now.
    pub const fn entry(&self) -> Option<&Entry> {
        match &self.change {
            Change::Put(entry) => Some(entry),
            Change::Delete(_) => None,
        }
    }

    /// Whether the key came into being.
    pub fn is_create(&self) -> bool {
        self.entry().is_some_and(|entry| entry.create_revision == entry.mod_revision)
    }

    /// Bytes it takes in a queue: those of its entries, and what surrounds them.
    pub fn bytes(&self) -> usize {
        let own = self.entry().map_or_else(|| self.key().len(), Entry::bytes);
        own + self.previous.as_ref().map_or(0, Entry::bytes) + size_of::<Self>()
    }
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written; this is what it is now.
    Put(Entry),
    /// It was deleted, or its lease ended.
    Delete(Key),
}

/// A stream of [`WatchItem`]s. Dropping it ends the watch.
pub struct Watch {
    /// `None` after the last item.
    items: Option<Pin<Box<dyn Stream<Item = WatchItem> + Send>>>,
}

impl Watch {
    /// A watch of `items`, for backends. Whatever comes after a last item is never seen, and a
    /// stream that ends without one is taken as closed.
    pub fn new(items: impl Stream<Item = WatchItem> + Send + 'static) -> Self {
        Self { items: Some(Box::pin(items)) }
    }

    /// Waits for the next item; `None` once the last one was returned.
    ///
    /// # Cancel safety
    ///
    /// Safe: an item leaves the watch only when it is returned.
    pub async fn next(&mut self) -> Option<WatchItem> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        let Some(items) = &mut self.items else { return Poll::Ready(None) };
        match items.as_mut().poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(item) => {
                let item = item.unwrap_or(WatchItem::Closed);
                if item.is_last() {
                    self.items = None;
                }
                Poll::Ready(Some(item))
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("ended", &self.items.is_none()).finish()
    }
}
