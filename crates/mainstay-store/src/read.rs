//! Reads: one key, or a page of a range.

use std::num::NonZeroU32;

use bytes::Bytes;

use crate::entry::{Entry, Revision};
use crate::key::{Key, Range};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES, PAGE_ENTRIES_MAX};

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every batch that was answered before the read was sent.
    #[default]
    Linearizable,
    /// May be older where several nodes keep the store, and never goes back on one handle.
    Local,
}

/// Asks for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// Which.
    pub key: Key,
    /// As of which revision; `None` is the newest.
    pub at: Option<Revision>,
    /// How fresh.
    pub read: Consistency,
}

impl Get {
    /// The newest entry of `key`.
    pub const fn new(key: Key) -> Self {
        Self { key, at: None, read: Consistency::Linearizable }
    }

    /// As of `revision`.
    #[must_use]
    pub const fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// Content with what this node knows.
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.read = Consistency::Local;
        self
    }
}

/// The answer to [`Get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The entry, if the key was there.
    pub entry: Option<Entry>,
    /// The store's revision when it was read.
    pub revision: Revision,
}

/// Which entries of a range, and what of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// Which keys.
    pub range: Range,
    /// Most entries of the answer; 1,000 unless told, never more than 10,000 or 16 MiB.
    pub limit: Option<NonZeroU32>,
    /// Leaves values empty.
    pub keys_only: bool,
    /// Leaves all entries out, and counts.
    pub count_only: bool,
}

impl Select {
    /// A first page of `range`.
    pub const fn new(range: Range) -> Self {
        Self { range, limit: None, keys_only: false, count_only: false }
    }

    /// At most `limit` entries.
    #[must_use]
    pub const fn limit(mut self, limit: NonZeroU32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Without values.
    #[must_use]
    pub const fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Without entries.
    #[must_use]
    pub const fn count_only(mut self) -> Self {
        self.count_only = true;
        self
    }

    /// Most entries of the answer, in force.
    pub fn entries_max(&self) -> usize {
        let limit = self.limit.map_or(PAGE_ENTRIES, NonZeroU32::get).min(PAGE_ENTRIES_MAX);
        if self.count_only { 0 } else { limit as usize }
    }
}

/// Asks for a page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which entries.
    pub select: Select,
    /// As of which revision; `None` is the newest.
    pub at: Option<Revision>,
    /// How fresh.
    pub read: Consistency,
}

impl RangeRequest {
    /// What `select` says, as of now.
    pub const fn new(select: Select) -> Self {
        Self { select, at: None, read: Consistency::Linearizable }
    }

    /// As of `revision`: later pages of one list name the revision of the first.
    #[must_use]
    pub const fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// Content with what this node knows.
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.read = Consistency::Local;
        self
    }
}

impl From<Range> for RangeRequest {
    fn from(range: Range) -> Self {
        Self::new(Select::new(range))
    }
}

/// A page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries, in byte order of their keys.
    pub entries: Vec<Entry>,
    /// Whether the range holds entries past these; ask for [`Range::after`] the last one, at this
    /// page's revision.
    pub more: bool,
    /// Entries of the whole range.
    pub count: u64,
    /// The store's revision when it was read; inside a batch, that of the batch.
    pub revision: Revision,
}

/// Makes a page of entries that come in order.
#[derive(Debug)]
pub(crate) struct PageMaker<'a> {
    select: &'a Select,
    page: Page,
    bytes: usize,
}

impl<'a> PageMaker<'a> {
    pub(crate) fn new(select: &'a Select, revision: Revision) -> Self {
        let page = Page { entries: Vec::new(), more: false, count: 0, revision };
        Self { select, page, bytes: 0 }
    }

    /// Takes the next entry of the range, which `read` makes if it is wanted.
    pub(crate) fn push<E>(&mut self, read: impl FnOnce() -> Result<Entry, E>) -> Result<(), E> {
        self.page.count += 1;
        let full = self.select.entries_max() <= self.page.entries.len();
        if full || self.page.more || PAGE_BYTES_MAX <= self.bytes {
            self.page.more = true;
            return Ok(());
        }
        let mut entry = read()?;
        if self.select.keys_only {
            entry.value = Bytes::new();
        }
        if !self.page.entries.is_empty() && PAGE_BYTES_MAX < self.bytes + entry.bytes() {
            self.page.more = true;
            return Ok(());
        }
        self.bytes += entry.bytes();
        self.page.entries.push(entry);
        Ok(())
    }

    pub(crate) fn finish(self) -> Page {
        let more = self.page.more && !self.select.count_only;
        Page { more, ..self.page }
    }
}
