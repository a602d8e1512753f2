//! Carrying a keyring to another node.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use serde::{Deserialize, Serialize};

use super::{Keyring, KeyringError, Secret, file, from_hex, open, seal};
use crate::random;

/// Rounds of PBKDF2-HMAC-SHA-256: OWASP's figure of 2023, a fifth of a second here.
const ROUNDS: u32 = 600_000;

/// Most rounds an import takes: a minute of work, not a year of it.
const ROUNDS_MAX: u32 = 100_000_000;

/// Shortest passphrase. The file may lie about for years.
const PASSPHRASE_BYTES_MIN: usize = 12;

/// Bound to an exported keyring.
const PLACE: &[u8] = b"keyring export";

#[derive(Serialize, Deserialize)]
struct Parcel {
    mainstay_keyring: u32,
    salt: String,
    rounds: u32,
    sealed: String,
}

impl Keyring {
    /// All keys as one line of text that only `passphrase` (12 bytes or more) opens. Blocks for a
    /// fraction of a second.
    ///
    /// # Errors
    ///
    /// [`KeyringError::PassphraseShort`].
    pub fn export(&self, passphrase: &str) -> Result<String, KeyringError> {
        if passphrase.len() < PASSPHRASE_BYTES_MIN {
            return Err(KeyringError::PassphraseShort);
        }
        let salt = random::bytes::<16>();
        let key = stretched(passphrase, &salt, ROUNDS)?;
        let sealed = seal(&key, PLACE, &file::write_keys(self));
        Ok(written(&Parcel {
            mainstay_keyring: 1,
            salt: random::to_hex(&salt),
            rounds: ROUNDS,
            sealed: random::to_hex(&sealed),
        }))
    }

    /// Adds the keys of an exported keyring; its current key becomes the current one, so that two
    /// nodes that import from a third agree. Returns how many keys are new. Blocks for a fraction
    /// of a second.
    ///
    /// # Errors
    ///
    /// [`KeyringError::WrongKey`], [`KeyringError::Damaged`].
    pub fn import(&mut self, text: &str, passphrase: &str) -> Result<usize, KeyringError> {
        let other = Self::unpack(text, passphrase)?;
        let before = self.keys.len();
        let current = other.current().to_owned();
        for key in other.keys {
            if !self.keys.iter().any(|own| own.id == key.id) {
                self.keys.push(key);
            }
        }
        self.keys.sort_by_key(|key| key.id == current);
        Ok(self.keys.len() - before)
    }

    /// The keyring that was exported as `text`. Blocks for a fraction of a second.
    ///
    /// # Errors
    ///
    /// As [`import`](Keyring::import).
    pub fn unpack(text: &str, passphrase: &str) -> Result<Self, KeyringError> {
        let damaged = || KeyringError::Damaged { why: "it is no exported keyring" };
        let parcel: Parcel = serde_json::from_str(text).map_err(|_syntax| damaged())?;
        if parcel.mainstay_keyring != 1 || ROUNDS_MAX < parcel.rounds {
            return Err(damaged());
        }
        let salt = from_hex(&parcel.salt).ok_or_else(damaged)?;
        let sealed = from_hex(&parcel.sealed).ok_or_else(damaged)?;
        let key = stretched(passphrase, &salt, parcel.rounds)?;
        let plain = open(&key, PLACE, sealed).ok_or(KeyringError::WrongKey)?;
        file::read_keys(&plain)
    }
}

fn written(parcel: &Parcel) -> String {
    serde_json::to_string(parcel).expect("text and numbers are JSON")
}

fn stretched(passphrase: &str, salt: &[u8], rounds: u32) -> Result<Secret, KeyringError> {
    let rounds =
        NonZeroU32::new(rounds).ok_or(KeyringError::Damaged { why: "it has no rounds" })?;
    let mut key = Secret::default();
    pbkdf2::derive(PBKDF2_HMAC_SHA256, rounds, salt, passphrase.as_bytes(), &mut *key);
    Ok(key)
}
