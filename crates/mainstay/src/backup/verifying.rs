//! Checking a backup: everything is read, and the store restored into memory.

use std::io::Read;

use mainstay_coord::transfer::outlives;
use mainstay_coord::{Keyring, KeyringError};
use mainstay_store::embedded::{self, OfflineError, Restored};
use serde_json::{Value, json};

use super::archive::{self, Invalid};
use super::manifest::Manifest;
use super::{KEYRING, STORE};
use crate::report::causes;

/// Largest sealed keyring: what a keyring file may have, in hexadecimal.
const KEYRING_BYTES_MAX: u64 = 4 << 20;

/// A backup that can be restored.
#[derive(Debug)]
pub struct Verified {
    /// What it says of itself.
    pub manifest: Manifest,
    /// What would be restored.
    pub restored: Restored,
    /// Its keys.
    pub keys: Keys,
}

/// Keys of a backup.
#[derive(Debug)]
pub enum Keys {
    /// There are none.
    LeftOut,
    /// There are, and nobody opened them.
    Sealed,
    /// There are, and the passphrase opened them.
    Opened,
}

impl Keys {
    /// The word used in documents.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::LeftOut => "left_out",
            Self::Sealed => "sealed",
            Self::Opened => "opened",
        }
    }
}

impl Verified {
    /// As a document.
    pub fn document(&self) -> Value {
        let Self { manifest, restored, keys } = self;
        json!({
            "valid": true,
            "manifest": manifest,
            "entries": restored.entries,
            "entries_left_out": restored.left_out,
            "leases": restored.leases,
            "keys": keys.as_str(),
        })
    }
}

/// Reads all of a backup, restores its store into memory, and opens its keys if there is a
/// passphrase. Blocks, for as long as a restore takes.
///
/// # Errors
///
/// [`Invalid`].
pub fn verify(input: impl Read, passphrase: Option<&str>) -> Result<Verified, Invalid> {
    let (mut restored, mut keys) = (None, Keys::LeftOut);
    let manifest = archive::read(input, |manifest, part, bytes| {
        match part.name.as_str() {
            STORE => restored = Some(rehearsed(manifest, bytes)?),
            KEYRING => keys = keyring(bytes, passphrase)?,
            _ => {}
        }
        Ok(())
    })?;
    let missing = || Invalid::damaged(STORE, "it is missing");
    Ok(Verified { manifest, restored: restored.ok_or_else(missing)?, keys })
}

fn rehearsed(manifest: &Manifest, bytes: &mut dyn Read) -> Result<Restored, Invalid> {
    let restored = embedded::rehearse(bytes, outlives).map_err(offline)?;
    if restored.from.get() != manifest.store.revision {
        let what = format!(
            "it is of revision {}, and the manifest says {}",
            restored.from, manifest.store.revision
        );
        return Err(Invalid::damaged(STORE, what));
    }
    Ok(restored)
}

/// What kept a snapshot from being restored into memory is a fault of the snapshot.
fn offline(error: OfflineError) -> Invalid {
    match error {
        OfflineError::Snapshot(invalid) => Invalid::Snapshot(invalid),
        other => Invalid::damaged(STORE, causes(&other)),
    }
}

/// The keys in `bytes`; sealed without a passphrase.
fn keyring(bytes: &mut dyn Read, passphrase: Option<&str>) -> Result<Keys, Invalid> {
    let Some(passphrase) = passphrase else { return Ok(Keys::Sealed) };
    let opened = opened(bytes, passphrase, None)?;
    opened.map(|_keyring| Keys::Opened).map_err(|e| Invalid::damaged(KEYRING, causes(&e)))
}

/// The keys in `bytes`, sealed by [`Keyring::export`], beside those of `own`.
pub(super) fn opened(
    bytes: &mut dyn Read,
    passphrase: &str,
    own: Option<Keyring>,
) -> Result<Result<Keyring, KeyringError>, Invalid> {
    let mut text = String::new();
    let read = bytes.take(KEYRING_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|source| Invalid::Io { part: KEYRING.to_owned(), source })?;
    let merged = || {
        if let Some(mut own) = own {
            own.import(&text, passphrase)?;
            return Ok(own);
        }
        Keyring::unpack(&text, passphrase)
    };
    Ok(merged())
}
