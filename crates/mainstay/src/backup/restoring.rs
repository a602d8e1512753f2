//! Restoring a backup.
//!
//! The keyring comes first, beside the keys that are there already, so it opens what the old store
//! holds and what the new one will. The store comes last, and takes its place in one step.

use std::fs::{DirBuilder, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use mainstay_coord::transfer::{Filled, Filling, TransferError, outlives};
use mainstay_coord::{KeyringError, KeyringFile};
use mainstay_core::problem::Code;
use mainstay_store::Store;
use mainstay_store::embedded::{self, Existing, OfflineError, Restored};
use mainstay_store::snapshot::file::Reader;

use super::archive::{self, Invalid};
use super::verifying::{Keys, Verified, opened, verify};
use super::whole::Whole;
use super::{CONFIG, KEYRING, STORE};

/// Where files of the configuration are put, below the data directory: never in place of those in
/// force.
pub const CONFIG_FOLDER: &str = "config.restored";

/// Where a backup is restored to.
pub enum Target<'a> {
    /// The folder of an embedded store, and whether a store that is there is set aside.
    Folder(&'a Path, Existing),
    /// Another store, which has to be empty.
    Store(&'a dyn Store, &'a tokio::runtime::Runtime),
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder, existing) => {
                f.debug_tuple("Folder").field(folder).field(existing).finish()
            }
            Self::Store(..) => f.write_str("Store"),
        }
    }
}

/// How a backup is restored.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// The data directory; nobody else has it.
    pub data: &'a Path,
    /// Where its keyring lies, and what wraps it there.
    pub keyring: &'a KeyringFile,
    /// Opens the keys.
    pub passphrase: Option<&'a str>,
    /// Leaves sealed keys out, rather than to refuse.
    pub without_keys: bool,
}

/// What was restored.
#[derive(Debug)]
pub struct Done {
    /// The backup.
    pub verified: Verified,
    /// The store.
    pub store: Became,
    /// Files of the configuration that were written.
    pub config: Vec<PathBuf>,
}

/// What became of the store.
#[derive(Clone, Debug)]
pub enum Became {
    /// A file in its folder.
    Restored(Restored),
    /// Keys of another store.
    Filled(Filled),
}

/// Why nothing was restored. The store that was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be used.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The file cannot be read, or something cannot be written.
    #[error("{}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was met.
        #[source]
        source: io::Error,
    },
    /// There is something already.
    #[error("there is something already: {}", path.display())]
    Occupied {
        /// What.
        path: PathBuf,
    },
    /// The backup has keys, and nothing was given to open them.
    #[error("the backup has a sealed keyring, and no passphrase was given")]
    Sealed,
    /// The keyring cannot be opened or written.
    #[error("the keyring")]
    Keys(#[source] KeyringError),
    /// The store cannot be written.
    #[error("the store")]
    Store(#[source] OfflineError),
    /// The store cannot be filled.
    #[error("the store")]
    Transfer(#[source] TransferError),
}

impl RestoreError {
    /// The code of its problem.
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid(invalid) => invalid.code(),
            Self::Sealed | Self::Occupied { .. } => Code::Usage,
            Self::Keys(error) => error.code(),
            Self::Store(OfflineError::Open(error)) => error.code(),
            Self::Store(OfflineError::Snapshot(_)) => Code::BackupInvalid,
            Self::Transfer(TransferError::Store(error)) => error.code(),
            Self::Transfer(TransferError::NotEmpty { .. }) | Self::Store(OfflineError::Exists) => {
                Code::Usage
            }
            Self::Io { .. } | Self::Store(OfflineError::Write(_)) | Self::Transfer(_) => {
                Code::Internal
            }
        }
    }
}

/// Restores the backup at `path`. Blocks.
///
/// # Errors
///
/// [`RestoreError`]. A keyring that was restored already only holds keys more than before.
pub fn restore(path: &Path, target: &Target<'_>, how: How<'_>) -> Result<Done, RestoreError> {
    let open = || {
        let file = File::open(path);
        file.map(BufReader::new).map_err(|source| RestoreError::Io { path: path.into(), source })
    };
    if let Target::Folder(folder, Existing::Refuse) = target {
        let there = [folder.join("mainstay.redb"), folder.join("high"), how.data.join("keyring")];
        if let Some(path) = there.into_iter().find(|path| path.exists()) {
            return Err(RestoreError::Occupied { path });
        }
    }
    let verified = verify(open()?, how.passphrase)?;
    if matches!(verified.keys, Keys::Sealed) && !how.without_keys {
        return Err(RestoreError::Sealed);
    }
    let (mut store, mut config) = (None, Vec::new());
    archive::read(open()?, |_manifest, part, bytes| {
        match (part.name.as_str(), how.passphrase) {
            (STORE, _) => store = Some(restore_store(bytes, target)?),
            (KEYRING, Some(passphrase)) => restore_keyring(bytes, passphrase, how.keyring)?,
            (name, _) if name.starts_with(CONFIG) => {
                config.push(restore_config(bytes, name, how.data)?);
            }
            _ => {}
        }
        Ok::<(), RestoreError>(())
    })?;
    let missing = || RestoreError::Invalid(Invalid::damaged(STORE, "it is missing"));
    Ok(Done { verified, store: store.ok_or_else(missing)?, config })
}

fn restore_store(bytes: &mut dyn Read, target: &Target<'_>) -> Result<Became, RestoreError> {
    match target {
        Target::Folder(folder, existing) => {
            let restored = embedded::restore(folder, bytes, *existing, outlives);
            restored.map(Became::Restored).map_err(RestoreError::Store)
        }
        Target::Store(store, runtime) => runtime.block_on(async {
            let invalid = |invalid| RestoreError::Invalid(Invalid::Snapshot(invalid));
            let mut reader = Reader::begin(bytes).map_err(invalid)?;
            let mut filling = Filling::begin(*store).await.map_err(RestoreError::Transfer)?;
            while let Some(item) = reader.next().map_err(invalid)? {
                filling.push(item).await.map_err(RestoreError::Transfer)?;
            }
            let revision = reader.header().revision;
            let filled = filling.finish(revision).await.map_err(RestoreError::Transfer)?;
            Ok(Became::Filled(filled))
        }),
    }
}

fn restore_keyring(
    bytes: &mut dyn Read,
    passphrase: &str,
    file: &KeyringFile,
) -> Result<(), RestoreError> {
    let own = file.open().map_err(RestoreError::Keys)?;
    let keyring = opened(bytes, passphrase, own)?.map_err(RestoreError::Keys)?;
    file.save(&keyring).map_err(RestoreError::Keys)
}

fn restore_config(bytes: &mut dyn Read, name: &str, data: &Path) -> Result<PathBuf, RestoreError> {
    let inside = name.strip_prefix(CONFIG).unwrap_or(name);
    let path = data.join(CONFIG_FOLDER).join(inside);
    let mut write = || {
        let folder = path.parent().unwrap_or(data);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut whole = Whole::begin(&path)?;
        io::copy(bytes, &mut whole.file)?;
        whole.finish()
    };
    write().map_err(|source| RestoreError::Io { path: path.clone(), source })?;
    Ok(path)
}
