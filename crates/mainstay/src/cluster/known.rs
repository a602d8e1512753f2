//! Which etcd this node knew last, and how far it was: `etcd.known` in the data directory.
//!
//! A node that was restarted must not take another history for the one it knew: one restored from
//! a snapshot of etcd, or begun anew, would give out fencing tokens a second time. So what was seen
//! is written down, and handed to the session layer at the next start, which refuses what is older or
//! another. `mainstay store accept` writes down the new one, after it has raised what is added to
//! fencing tokens.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_store::{Revision, StoreId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::opening::Opened;
use crate::backup::whole::Whole;
use crate::report::Report;
use crate::settings::Errors;

/// How often it is written down, if it changed. What is lost of it by a crash is far below what
/// tokens leap by.
const WRITE_EVERY: Duration = Duration::from_mins(1);

/// How soon after the start.
const FIRST_AFTER: Duration = Duration::from_secs(2);

/// What was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    cluster: u64,
    revision: u64,
    /// What was added to every fencing token.
    pub fence_base: u64,
}

impl Known {
    /// The history `cluster`, at `revision`.
    pub const fn new(cluster: StoreId, revision: Revision, fence_base: u64) -> Self {
        Self { cluster: cluster.get(), revision: revision.get(), fence_base }
    }

    /// Which history.
    pub const fn cluster(self) -> StoreId {
        StoreId::new(self.cluster)
    }

    /// The highest revision seen of it.
    pub const fn revision(self) -> Revision {
        Revision::new(self.revision)
    }

    /// What was written down in the data directory `data`, if anything.
    ///
    /// # Errors
    ///
    /// When it cannot be read: to go on without it would be to trust whatever answers.
    pub fn read(data: &Path) -> Result<Option<Self>, Errors> {
        let path = path(data);
        let unreadable = |why: String| {
            let message = format!("`{}` cannot be read: {why}", path.display());
            Report::error(Code::StoreRegressed, message)
                .help("remove it only if you know that this etcd is the one of before")
        };
        match std::fs::read(&path) {
            Ok(text) => {
                let known = serde_json::from_slice(&text);
                known.map(Some).map_err(|error| unreadable(error.to_string()).into())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error.to_string()).into()),
        }
    }

    /// Writes it down in the data directory `data`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write(self, data: &Path) -> io::Result<()> {
        let mut whole = Whole::begin(&path(data))?;
        serde_json::to_writer(&whole.file, &self).map_err(io::Error::other)?;
        io::Write::flush(&mut whole.file)?;
        whole.finish()
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("etcd.known")
}

/// Writes down what `cluster` sees of its etcd, until told to stop, and a last time then.
///
/// # Cancel safety
///
/// Safe: what is on disk is whole.
pub async fn keep(cluster: &Cluster, data: &Path, stop: CancellationToken) {
    let Opened::Etcd(etcd) = &cluster.opened else { return };
    let (mut written, mut wait) = (None, FIRST_AFTER);
    loop {
        let is_over = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(wait) => false,
        };
        wait = WRITE_EVERY;
        if let Some((id, revision)) = etcd.known().filter(|(_, seen)| Revision::NEVER < *seen) {
            // The newest that is known; what a node that is cut off does not know, it cannot ask.
            let base = tokio::time::timeout(FIRST_AFTER, cluster.coordination.fence_base()).await;
            let base = match base {
                Ok(Ok(base)) => base,
                _ => written.map_or(0, |known: Known| known.fence_base),
            };
            let known = Known::new(id, revision, base);
            if written != Some(known) {
                match known.write(data) {
                    Ok(()) => written = Some(known),
                    Err(error) => tracing::warn!(%error, "what is known of etcd is not written"),
                }
            }
        }
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_and_what_cannot_be_read_is_no_leave() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Known::read(folder.path()).unwrap(), None);
        let known = Known::new(StoreId::new(u64::MAX), Revision::new(7), 5);
        known.write(folder.path()).unwrap();
        assert_eq!(Known::read(folder.path()).unwrap(), Some(known));
        std::fs::write(path(folder.path()), "{").unwrap();
        assert!(Known::read(folder.path()).is_err());
    }
}
