//! The last release of each group, on disk.
//!
//! A client that starts while the config centre is away begins with these, whatever their age. A
//! file is written beside and renamed, so it is whole or not there; a checksum tells one that the
//! disk has spoiled. Secrets are sealed with a key of the client's own keyring; a client without
//! one keeps none, and gets them when the config centre is back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::item::Format;
use super::subscription::{Delivered, Fetched};
use crate::keyring::{Keyring, KeyringError, Label, Sealed};
use crate::keys::GroupRef;

/// Largest file that is read: 512 items of 512 KiB, sealed in hexadecimal.
const BYTES_MAX: u64 = 640 << 20;

/// The folder of the releases.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    keyring: Option<Arc<Keyring>>,
}

/// A release as it was saved. A secret that could not be kept has no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The release.
    pub fetched: Fetched,
    /// When it was saved, by the wall clock.
    pub saved_unix_ms: u64,
}

/// Why a saved release is not used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It could not be read or written.
    #[error("release of group {group} could not be kept on disk")]
    Io {
        /// Of which group.
        group: GroupRef,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("saved release of group {group} is damaged: {why}")]
    Damaged {
        /// Of which group.
        group: GroupRef,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A secret does not open with the client's keyring.
    #[error("saved secret item {item} of group {group} cannot be opened")]
    Secret {
        /// Of which group.
        group: GroupRef,
        /// Which item.
        item: String,
        /// Why.
        #[source]
        source: KeyringError,
    },
}

/// A file: the release, and what tells whether it is whole.
#[derive(Serialize, Deserialize)]
struct Sheet {
    v: u32,
    saved_unix_ms: u64,
    /// CRC-32C of the release as compact JSON with sorted members, in hexadecimal.
    crc32c: String,
    release: Value,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    group: String,
    release: u64,
    canary: bool,
    items: BTreeMap<String, SavedItem>,
}

#[derive(Serialize, Deserialize)]
struct SavedItem {
    format: Format,
    secret: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<Sealed>,
}

impl Cache {
    /// The cache below `folder`; `keyring` seals the secrets.
    pub fn new(folder: impl Into<PathBuf>, keyring: Option<Arc<Keyring>>) -> Self {
        Self { folder: folder.into(), keyring }
    }

    /// Where the release of `group` is kept.
    pub fn path(&self, group: &GroupRef) -> PathBuf {
        // Neither part can hold a separator, and what follows keeps `..` from being a folder.
        let folder = self.folder.join("config").join(group.namespace.as_str());
        folder.join(format!("{}.json", group.name))
    }

    /// Keeps a release. Blocks.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`]; what was kept before is still there.
    pub fn save(
        &self,
        group: &GroupRef,
        fetched: &Fetched,
        unix_ms: u64,
    ) -> Result<(), CacheError> {
        let items = fetched.items.iter().map(|(name, item)| {
            let Delivered { format, secret, content } = item;
            let (format, secret) = (*format, *secret);
            let sealed = self.keyring.as_ref().filter(|_| secret).and_then(|keyring| {
                let plain = content.as_deref()?;
                let place = place(group, name);
                Some(keyring.seal(Label::ConfigCache, &place, plain.as_bytes()))
            });
            let content = content.as_deref().filter(|_| !secret).map(str::to_owned);
            (name.clone(), SavedItem { format, secret, content, sealed })
        });
        let saved = Saved {
            group: group.to_string(),
            release: fetched.release,
            canary: fetched.canary,
            items: items.collect(),
        };
        write_whole(&self.path(group), &sheet(saved, unix_ms))
            .map_err(|source| CacheError::Io { group: group.clone(), source })
    }

    /// The release kept of `group`, if one is. Blocks.
    ///
    /// # Errors
    ///
    /// [`CacheError`].
    pub fn load(&self, group: &GroupRef) -> Result<Option<Cached>, CacheError> {
        let path = self.path(group);
        let read = || match fs::metadata(&path) {
            Ok(found) if found.len() <= BYTES_MAX => fs::read(&path).map(Some),
            Ok(_) => Ok(Some(Vec::new())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let bytes = read().map_err(|source| CacheError::Io { group: group.clone(), source })?;
        bytes.map(|bytes| self.cached(group, &bytes)).transpose()
    }

    fn cached(&self, group: &GroupRef, bytes: &[u8]) -> Result<Cached, CacheError> {
        let damaged = |why| CacheError::Damaged { group: group.clone(), why };
        let sheet: Sheet =
            serde_json::from_slice(bytes).map_err(|_syntax| damaged("it is no release"))?;
        if sheet.crc32c != checksum(&sheet.release) {
            return Err(damaged("its checksum is wrong"));
        }
        let saved: Saved =
            serde_json::from_value(sheet.release).map_err(|_shape| damaged("it is no release"))?;
        if saved.group != group.to_string() {
            return Err(damaged("it is of another group"));
        }
        let mut items = BTreeMap::new();
        for (name, SavedItem { format, secret, content, sealed }) in saved.items {
            let content = match (content, sealed) {
                (Some(content), _) => Some(Arc::from(content)),
                (None, Some(sealed)) => self.opened(group, &name, &sealed)?,
                (None, None) => None,
            };
            items.insert(name, Delivered { format, secret, content });
        }
        let Saved { group, release, canary, .. } = saved;
        let fetched = Fetched { group, release, canary, items };
        Ok(Cached { fetched, saved_unix_ms: sheet.saved_unix_ms })
    }

    fn opened(
        &self,
        group: &GroupRef,
        name: &str,
        sealed: &Sealed,
    ) -> Result<Option<Arc<str>>, CacheError> {
        let Some(keyring) = &self.keyring else { return Ok(None) };
        let opened = keyring.open(Label::ConfigCache, &place(group, name), sealed);
        let text = opened.and_then(|plain| {
            let text = std::str::from_utf8(&plain).map_err(|_utf8| KeyringError::Forged)?;
            Ok(Arc::from(text))
        });
        let told =
            |source| CacheError::Secret { group: group.clone(), item: name.to_owned(), source };
        text.map(Some).map_err(told)
    }
}

fn sheet(saved: Saved, unix_ms: u64) -> Vec<u8> {
    let release = serde_json::to_value(saved).expect("text keys and finite numbers are JSON");
    let crc32c = checksum(&release);
    let sheet = Sheet { v: 1, saved_unix_ms: unix_ms, crc32c, release };
    serde_json::to_vec(&sheet).expect("text keys and finite numbers are JSON")
}

fn place(group: &GroupRef, item: &str) -> String {
    format!("cache/{group}/{item}")
}

fn checksum(release: &Value) -> String {
    let bytes = serde_json::to_vec(release).expect("a value is JSON");
    format!("{:08x}", crc32c::crc32c(&bytes))
}

/// Writes beside, then renames: after a crash the file is the old or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("json.{}.new", std::process::id()));
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
        // What was kept before is untouched; the half-written one is of no use.
        drop(fs::remove_file(&beside));
        return Err(error);
    }
    Ok(())
}
