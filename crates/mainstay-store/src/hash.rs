//! One number for everything a store holds, so that two stores can be compared.

use sha2::{Digest as _, Sha256};

use crate::entry::{Entry, Revision};
use crate::error::Error;
use crate::key::Range;
use crate::read::{RangeRequest, Select};
use crate::store::Store;

/// What of an entry is taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Key, value, revisions and version: equal for copies of one history.
    Everything,
    /// Key and value: equal for two stores, on whatever backend, that say the same.
    Content,
}

/// SHA-256 over the entries of a range, in byte order of their keys, as of one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The revision.
    pub revision: Revision,
    /// How many entries.
    pub entries: u64,
    /// The hash.
    pub sha256: [u8; 32],
}

/// Hashes entries as they come by, in byte order of their keys.
#[derive(Clone, Debug)]
pub struct Hasher {
    take: Take,
    entries: u64,
    sha256: Sha256,
}

impl Hasher {
    /// Of no entries yet.
    pub fn new(take: Take) -> Self {
        Self { take, entries: 0, sha256: Sha256::new() }
    }

    /// Takes the next entry into account.
    pub fn feed(&mut self, entry: &Entry) {
        self.entries += 1;
        feed(&mut self.sha256, entry, self.take);
    }

    /// The hash of all that came by, as of `revision`.
    pub fn finish(self, revision: Revision) -> Hashed {
        let Self { entries, sha256, .. } = self;
        Hashed { revision, entries, sha256: sha256.finalize().into() }
    }
}

/// Hashes the entries of `range` at revision `at`; `None` is the newest.
///
/// # Errors
///
/// Those of [`Store::range`]; [`Error::Compacted`] when history is forgotten faster than it is
/// read.
///
/// # Cancel safety
///
/// Safe: it only reads.
pub async fn hash(
    store: &dyn Store,
    range: Range,
    at: Option<Revision>,
    take: Take,
) -> Result<Hashed, Error> {
    let mut hasher = Hasher::new(take);
    let (mut rest, mut at) = (range, at);
    loop {
        let request = RangeRequest { at, ..RangeRequest::new(Select::new(rest.clone())) };
        let page = store.range(request).await?;
        let revision = *at.get_or_insert(page.revision);
        for entry in &page.entries {
            hasher.feed(entry);
        }
        match page.entries.last() {
            Some(last) if page.more => rest = rest.after(&last.key),
            _ => return Ok(hasher.finish(revision)),
        }
    }
}

/// Lengths go in too, so that no two lists of entries are the same bytes.
fn feed(hasher: &mut Sha256, entry: &Entry, take: Take) {
    for part in [&*entry.key, &*entry.value] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    if take == Take::Everything {
        let Entry { create_revision, mod_revision, version, .. } = entry;
        for number in [create_revision.get(), mod_revision.get(), *version] {
            hasher.update(number.to_be_bytes());
        }
    }
}
