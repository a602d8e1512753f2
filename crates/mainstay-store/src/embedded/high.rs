//! The highest revision ever seen, kept beside the engine's file.
//!
//! An engine that comes up empty after a repair, a file put back from a copy: both look like a store
//! in order. This file remembers better, so that neither ever starts a fresh world in which tokens
//! of locks grow from the beginning again.

use std::io;

use super::media::Media;
use crate::entry::Revision;
use crate::store::StoreId;

/// Which store, and how far it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct High {
    pub(super) store: StoreId,
    pub(super) revision: Revision,
}

impl High {
    /// What was remembered, if anything.
    pub(super) fn read(media: &dyn Media) -> io::Result<Option<Self>> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "`high` cannot be read");
        let bytes = media.read(NAME)?;
        bytes.map(|bytes| Self::parse(&bytes).ok_or_else(malformed)).transpose()
    }

    /// Remembers this, durably.
    pub(super) fn write(self, media: &dyn Media) -> io::Result<()> {
        media
            .replace(NAME, format!("store {}\nrevision {}\n", self.store, self.revision).as_bytes())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let store = u64::from_str_radix(lines.next()?.strip_prefix("store ")?, 16).ok()?;
        let revision = lines.next()?.strip_prefix("revision ")?.parse().ok()?;
        Some(Self { store: StoreId::new(store), revision: Revision::new(revision) })
    }
}

const NAME: &str = "high";
