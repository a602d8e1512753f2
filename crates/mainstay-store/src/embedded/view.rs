//! What everybody may see: the state as of the last commit that returned.

use std::collections::BTreeMap;

use super::index::Index;
use crate::entry::Revision;
use crate::error::Error;

/// The published state. Changed only by the committer, after a commit.
#[derive(Debug)]
pub(super) struct View {
    pub(super) index: Index,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// Revisions that snapshots are being read at, and how many of them. What they need stays in
    /// the log, though history begins later for everybody else.
    pub(super) pins: BTreeMap<Revision, usize>,
}

impl View {
    /// The revision to read at, if it can be read.
    pub(super) fn readable(&self, at: Option<Revision>) -> Result<Revision, Error> {
        let at = at.unwrap_or(self.revision);
        if self.revision < at {
            return Err(Error::FutureRevision { revision: self.revision });
        }
        if at < self.compacted || at == Revision::NEVER {
            return Err(Error::Compacted { compacted: self.compacted });
        }
        Ok(at)
    }

    /// Where history begins for the log.
    pub(super) fn floor(&self) -> Revision {
        let pinned = self.pins.first_key_value().map_or(self.compacted, |(pin, _)| *pin);
        pinned.min(self.compacted)
    }
}
