//! The audit log of this node: records the outbox holds become leaves of a signed tree.
//!
//! One node of a store takes records over, in the order in which they were put, into files of its
//! own; a record is deleted from the outbox once it is synced. What is asked for is looked for in
//! both, so nobody has to know where a record is by now.
//!
//! ```text
//! change ──▶ outbox (store) ──▶ log (files): tail ──▶ bundle, tiles ──▶ signed head ──▶ copies
//! ```
//!
//! | what | module |
//! |---|---|
//! | `[audit]`, `[security.audit]` | [`settings`] |
//! | the files of a log; which bundle may have what | `files`, `index` |
//! | adding, signing, proving, removing | `log` |
//! | what is looked at on a start; a new log where one is not what it was | `opening` |
//! | taking records over | [`taking`] |
//! | searching log and outbox as one | [`search`] |
//! | looking through a whole log, here or elsewhere | [`offline`] |
//! | what is counted; what is told | [`figures`], `events` |
//!
//! The tree, heads and the verifier themselves are [`mainstay_security::audit`], which is pure.

mod events;
pub mod figures;
mod files;
mod index;
mod log;
pub mod offline;
mod opening;
pub mod search;
pub mod settings;
pub mod taking;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_coord::keyring::{Ring, Secret};
use mainstay_coord::{BootClock, Moment, Outbox, Timer as _};
use mainstay_core::problem::Code;
use mainstay_security::audit::tile::Tile;
use mainstay_security::audit::{Hash, Note, Signer};
use mainstay_store::{Store, StoreId};
use parking_lot::Mutex;

use figures::Figures;
use log::Log;
use settings::AuditConfig;

pub(crate) use log::KEY;
pub(crate) use opening::BROKEN;

/// The audit log of this node. Clones share everything.
#[derive(Clone)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where logs of this node lie.
    folder: PathBuf,
    /// Copies of heads are relative to it.
    data: PathBuf,
    config: AuditConfig,
    store: Arc<dyn Store>,
    outbox: Outbox,
    ring: Ring,
    /// This node, and where its control port is.
    node: (String, String),
    /// The store is of this node alone, so nobody else takes records over.
    is_alone: bool,
    figures: Figures,
    log: Mutex<Option<Log>>,
    /// Held by whoever moves records, so that no reader misses one or meets it twice.
    moving: tokio::sync::RwLock<()>,
}

/// Why the log did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is not open: the store does not answer, or files cannot be read.
    #[error("the audit log is not open yet")]
    Closed,
    /// Its files could not be read or written.
    #[error("the audit log's files")]
    Io(#[from] io::Error),
    /// The outbox did not do as asked.
    #[error(transparent)]
    Outbox(#[from] mainstay_coord::audit::AuditError),
    /// There are fewer records.
    #[error("the audit log has {size} records: {asked}")]
    Range {
        /// How many there are.
        size: u64,
        /// What was asked for.
        asked: String,
    },
}

impl LogError {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Closed | Self::Io(_) => Code::AuditUnavailable,
            Self::Outbox(error) => error.code(),
            Self::Range { .. } => Code::AuditProofRange,
        }
    }
}

/// What the log of a node is made with.
pub struct Around {
    /// The data directory.
    pub data: PathBuf,
    /// How it is kept.
    pub config: AuditConfig,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where records wait.
    pub outbox: Outbox,
    /// Keys.
    pub ring: Ring,
    /// This node, and where its control port is.
    pub node: (String, String),
    /// Whether no other node has this store.
    pub is_alone: bool,
}

impl AuditLog {
    /// The log of a node; it is opened when records are taken over.
    pub fn new(around: Around) -> Self {
        let Around { data, config, store, outbox, ring, node, is_alone } = around;
        let (figures, log) = (Figures::default(), Mutex::default());
        let moving = tokio::sync::RwLock::default();
        let folder = data.join("audit");
        let shared = Shared {
            folder,
            data,
            config,
            store,
            outbox,
            ring,
            node,
            is_alone,
            figures,
            log,
            moving,
        };
        Self { shared: Arc::new(shared) }
    }

    /// What has been counted.
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// How it is kept.
    pub fn config(&self) -> &AuditConfig {
        &self.shared.config
    }

    /// Which node takes records over, where it is not this one, and where its control port is.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn elsewhere(&self) -> Result<Option<String>, LogError> {
        if self.shared.is_alone {
            return Ok(None);
        }
        let holder = self.shared.outbox.holder().await?;
        let other = holder.filter(|holder| holder.node != self.shared.node.0);
        Ok(other.map(|holder| holder.address))
    }

    /// The newest signed head.
    ///
    /// # Errors
    ///
    /// [`LogError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn head(&self) -> Result<Note, LogError> {
        self.blocking(|log| Ok(log.head.clone())).await
    }

    /// A list the log keeps: `heads` or `keys`.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn list_file(&self, name: &'static str) -> Result<String, LogError> {
        let read = move |log: &mut Log| Ok(log.files.read(name)?.unwrap_or_default());
        Ok(String::from_utf8_lossy(&self.blocking(read).await?).into_owned())
    }

    /// The bytes of a tile; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, LogError> {
        self.blocking(move |log| log.tile(tile)).await
    }

    /// Proves that the record `seq` is one of the first `size`: its hash, the proof, the root.
    ///
    /// # Errors
    ///
    /// [`LogError::Range`] when there are not so many.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn inclusion(
        &self,
        seq: u64,
        size: Option<u64>,
    ) -> Result<(u64, Hash, Vec<Hash>, Hash), LogError> {
        let proved = move |log: &mut Log| {
            let size = size.unwrap_or_else(|| log.head.unproven().size);
            let Some(proof) = log.inclusion(seq, size)? else { return Ok(Err(log.size())) };
            Ok(Ok((size, log.leaf(seq)?, proof, log.root(size)?)))
        };
        let asked = || format!("seq {seq} is not below a size that it has");
        let range = |size| LogError::Range { size, asked: asked() };
        self.blocking(proved).await?.map_err(range)
    }

    /// Proves that the first `to` records begin with the first `from`: the proof and both roots.
    ///
    /// # Errors
    ///
    /// [`LogError::Range`] when there are not so many, or `from` is 0 or beyond `to`.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn consistency(
        &self,
        from: u64,
        to: Option<u64>,
    ) -> Result<(u64, Vec<Hash>, Hash, Hash), LogError> {
        let proved = move |log: &mut Log| {
            let to = to.unwrap_or_else(|| log.head.unproven().size);
            let Some(proof) = log.consistency(from, to)? else { return Ok(Err(log.size())) };
            Ok(Ok((to, proof, log.root(from)?, log.root(to)?)))
        };
        let range = |size| LogError::Range {
            size,
            asked: format!("from {from} must be 1 or more, and not beyond a size that it has"),
        };
        self.blocking(proved).await?.map_err(range)
    }

    /// Does `work` with the log where waiting is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || match &mut *shared.log.lock() {
            Some(log) => work(log).map_err(LogError::Io),
            None => Err(LogError::Closed),
        });
        done.await.unwrap_or_else(|panicked| Err(LogError::Io(io::Error::other(panicked))))
    }
}

/// What keys of the log of a store are called, and what its logs' names begin with.
fn name_of(store: StoreId) -> String {
    format!("mainstay/{store}/audit")
}

/// The keys called `name` that are made of `seeds`, the current one last.
fn signers(seeds: &[Secret], name: &str) -> Vec<Signer> {
    seeds.iter().map(|seed| Signer::new(name, seed)).collect()
}

fn now() -> Moment {
    Moment::from_unix_millis(BootClock.unix_millis())
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Around").field("data", &self.data).finish_non_exhaustive()
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}
