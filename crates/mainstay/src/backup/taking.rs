//! Taking a backup.
//!
//! The snapshot is written to a file of its own first. So the manifest can say its size and hash
//! before it comes, and the store is read as fast as the disk writes, however slowly whoever asked
//! for the backup reads it.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use mainstay_coord::{BootClock, Coordination, Keyring, KeyringError, Timer as _};
use mainstay_core::problem::Code;
use mainstay_store::snapshot::file::{self as snapshot, About, WriteError};
use mainstay_store::{Error, Store};

use super::archive::{self, Piece};
use super::manifest::{FORMAT, Manifest, StoreAsOf, is_safe};
use super::whole::nameless;
use super::{CONFIG, KEYRING, STORE};
use crate::settings::Sources;

/// Largest file of the configuration that is taken; the loader refuses larger ones.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// What goes into a backup besides the store.
#[derive(Debug, Default)]
pub struct Beside<'a> {
    /// Where the configuration comes from.
    pub sources: Option<&'a Sources>,
    /// The keyring, and the passphrase that seals it.
    pub keys: Option<(&'a Keyring, &'a str)>,
}

/// A backup that was taken, in a file without a name.
#[derive(Debug)]
pub struct Taken {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The whole of it, from its beginning.
    pub file: File,
    /// Its size.
    pub bytes: u64,
}

/// Why no backup was taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The store could not be read.
    #[error("the store cannot be read")]
    Store(#[source] Error),
    /// The disk did not take it.
    #[error("the backup cannot be written")]
    Io(#[source] io::Error),
    /// A file of the configuration could not be read.
    #[error("file `{file}` of the configuration cannot be read")]
    Config {
        /// Which.
        file: String,
        /// What was met.
        #[source]
        source: io::Error,
    },
    /// The keyring could not be sealed.
    #[error("the keyring cannot be sealed")]
    Keys(#[source] KeyringError),
}

impl TakeError {
    /// The code of its problem.
    pub const fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Io(_) | Self::Config { .. } => Code::Internal,
            Self::Keys(error) => error.code(),
        }
    }
}

/// Takes a backup of `store` and what is `beside` it; files without a name are made in `folder`.
/// Writes to disk in the thread that polls it.
///
/// # Errors
///
/// [`TakeError`].
///
/// # Cancel safety
///
/// Safe: nothing of it is left.
pub async fn take(
    store: Arc<dyn Store>,
    beside: Beside<'_>,
    folder: &Path,
) -> Result<Taken, TakeError> {
    let status = store.status().await.map_err(TakeError::Store)?;
    let ground = Coordination::new(Arc::clone(&store), Arc::new(BootClock));
    let fence_base = ground.fence_base().await.map_err(TakeError::Store)?;
    let unix_seconds = BootClock.unix_millis() / 1_000;
    let product = env!("CARGO_PKG_VERSION").to_owned();
    let about = About { fence_base, unix_seconds, product: product.clone() };
    let taken = store.snapshot().await.map_err(TakeError::Store)?;
    let head = taken.head();
    let mut spool = BufWriter::new(nameless(folder).map_err(TakeError::Io)?);
    snapshot::write(taken, &about, &mut spool).await.map_err(|error| match error {
        WriteError::Store(error) => TakeError::Store(error),
        WriteError::Io(error) => TakeError::Io(error),
    })?;
    let spool = spool.into_inner().map_err(|error| TakeError::Io(error.into_error()))?;
    let mut left_out = Vec::new();
    let mut pieces = configuration(beside.sources, &mut left_out)?;
    match beside.keys {
        Some((keyring, passphrase)) => {
            let sealed = keyring.export(passphrase).map_err(TakeError::Keys)?;
            pieces.push(Piece::bytes(KEYRING, sealed.into_bytes()));
        }
        None => left_out.push("keys: no passphrase was given".to_owned()),
    }
    pieces.push(Piece::file(STORE, spool).map_err(TakeError::Io)?);
    let manifest = Manifest {
        mainstay_backup: FORMAT,
        product,
        created_unix_seconds: unix_seconds,
        store: StoreAsOf {
            id: head.store.to_string(),
            backend: status.backend.to_owned(),
            revision: head.revision.get(),
            fence_base,
        },
        parts: pieces.iter().map(Piece::part).collect(),
        left_out,
    };
    let out = BufWriter::new(nameless(folder).map_err(TakeError::Io)?);
    let write = || {
        let mut file = archive::write(&manifest, pieces, out)?;
        file.flush()?;
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let bytes = file.stream_position()?;
        file.rewind()?;
        Ok((file, bytes))
    };
    let (file, bytes) = write().map_err(TakeError::Io)?;
    Ok(Taken { manifest, file, bytes })
}

/// The files of the configuration, by the names they have beside each other.
fn configuration(
    sources: Option<&Sources>,
    left_out: &mut Vec<String>,
) -> Result<Vec<Piece>, TakeError> {
    let Some(sources) = sources else {
        left_out.push("config: no configuration was named".to_owned());
        return Ok(Vec::new());
    };
    let failed =
        |path: &Path, source| TakeError::Config { file: path.display().to_string(), source };
    let folder = sources.drop_in_folder().unwrap_or_default();
    let files = sources.files().map_err(|source| failed(&folder, source))?;
    let mut pieces = Vec::new();
    for path in files.iter().filter(|path| path.exists()) {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let inside = if path.starts_with(&folder) { "conf.d/" } else { "" };
        let name = format!("{CONFIG}{inside}{file_name}");
        if !is_safe(&name) {
            left_out.push(format!("{}: its name cannot stand in a backup", path.display()));
            continue;
        }
        let read = || {
            if CONFIG_BYTES_MAX < path.metadata()?.len() {
                return Err(io::Error::other("it is larger than 8 MiB"));
            }
            std::fs::read(path)
        };
        pieces.push(Piece::bytes(name, read().map_err(|source| failed(path, source))?));
    }
    if pieces.is_empty() {
        left_out.push("config: there is no file".to_owned());
    }
    Ok(pieces)
}
