//! The keyring: keys that other keys are wrapped with.
//!
//! One file holds a few *key-encryption keys*, one of them current. Nothing is sealed with such a
//! key itself: each use derives its own by HKDF-SHA-256 (RFC 5869) under a [`Label`], so a key
//! derived for configuration opens no token. What is sealed (AES-256-GCM, a random nonce of 96
//! bits) carries the id of the key it was sealed with, and is bound to the place it is stored at:
//! moved to another key of the store it does not open.
//!
//! [`rotate`](Keyring::rotate) makes a new current key; older ones go on opening what they sealed.
//! Once everything is wrapped anew an older key can be [forgotten](Keyring::forget). Two hundred
//! million seals under one key leave the chance of a repeated nonce below 2⁻⁴⁰ (NIST SP 800-38D,
//! 8.3); releases of configuration take one each.
//!
//! Every node of a store needs the same keyring: [`export`](Keyring::export) and
//! [`import`](Keyring::import) carry it, under a passphrase. The store lists which keys there are
//! ([`agree`]), and a [`Ring`] keeps a node in step with that list.

mod agreed;
mod error;
mod export;
mod file;
mod ring;
#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit::Mask;
use crate::random;

pub use error::KeyringError;
pub use file::KeyringFile;
pub use ring::{Ring, RingError, Rotated, accept, agree};

/// What a key is derived for. A new use gets a new label, never one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Data keys of configuration releases.
    Config,
    /// Names of sealed contents.
    ConfigName,
    /// What is shown of secrets in audit records.
    Audit,
    /// The keyring itself, where another key wraps it.
    Keyring,
    /// What shows that two nodes mean the same key.
    Check,
    /// What signs heads of the audit log.
    AuditLog,
}

impl Label {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "mainstay config",
            Self::ConfigName => "mainstay config name",
            Self::Audit => "mainstay audit",
            Self::Keyring => "mainstay keyring",
            Self::Check => "mainstay keyring check",
            Self::AuditLog => "mainstay audit log",
        }
    }
}

/// Whether a key still seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It seals and opens. One key is current.
    Current,
    /// It opens what it sealed.
    Retired,
}

/// 256 random bits, zeroed when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// Keys that wrap other keys, one of them current.
#[derive(Clone)]
pub struct Keyring {
    /// The last is current.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    created_unix_ms: u64,
    secret: Secret,
}

/// Something sealed, with the id of the key that opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key.
    pub key: String,
    /// Nonce, ciphertext and tag, in hexadecimal.
    pub text: String,
}

impl Keyring {
    /// A keyring with one fresh key.
    pub fn fresh(unix_ms: u64) -> Self {
        Self { keys: vec![Key::fresh(unix_ms)] }
    }

    /// The id of the key that seals.
    pub fn current(&self) -> &str {
        &self.newest().id
    }

    /// The ids of its keys, and whether each seals; the current one last.
    pub fn keys(&self) -> impl Iterator<Item = (&str, KeyState)> {
        let current = self.current();
        self.keys.iter().map(move |key| {
            let is_current = key.id == current;
            (&*key.id, if is_current { KeyState::Current } else { KeyState::Retired })
        })
    }

    /// When the key `id` was made, in milliseconds since 1970.
    pub fn created_unix_ms(&self, id: &str) -> Option<u64> {
        self.keys.iter().find(|key| key.id == id).map(|key| key.created_unix_ms)
    }

    /// Makes a new current key. Write the file before sealing with it.
    pub fn rotate(&mut self, unix_ms: u64) {
        self.keys.push(Key::fresh(unix_ms));
    }

    /// Forgets a retired key. What it sealed never opens again.
    ///
    /// # Errors
    ///
    /// [`KeyringError::KeyMissing`] when there is no such retired key.
    pub fn forget(&mut self, id: &str) -> Result<(), KeyringError> {
        let missing = || KeyringError::KeyMissing { id: id.to_owned() };
        let older = self.keys.len() - 1;
        let at = self.keys.iter().take(older).position(|key| key.id == id).ok_or_else(missing)?;
        self.keys.remove(at);
        Ok(())
    }

    /// Seals `plain` for `label`, bound to `place`: the key of the store it will lie at.
    pub fn seal(&self, label: Label, place: &str, plain: &[u8]) -> Sealed {
        let key = self.newest();
        let text = seal(&key.derive(label), &bound(&key.id, place), plain);
        Sealed { key: key.id.clone(), text: random::to_hex(&text) }
    }

    /// Opens what was sealed for `label` and `place`.
    ///
    /// # Errors
    ///
    /// [`KeyringError::KeyMissing`], [`KeyringError::Forged`].
    pub fn open(
        &self,
        label: Label,
        place: &str,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let missing = || KeyringError::KeyMissing { id: sealed.key.clone() };
        let key = self.keys.iter().find(|key| key.id == sealed.key).ok_or_else(missing)?;
        let text = from_hex(&sealed.text).ok_or(KeyringError::Forged)?;
        open(&key.derive(label), &bound(&key.id, place), text).ok_or(KeyringError::Forged)
    }

    /// A keyed hash of `parts`, in hexadecimal: tells nothing of them to whoever lacks the key.
    pub fn mac(&self, label: Label, parts: &[&[u8]]) -> String {
        let derived = self.newest().derive(label);
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*derived));
        for part in parts {
            // The length before each part, or `ab, c` would be `a, bc`.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        random::to_hex(context.sign().as_ref())
    }

    /// What shows secrets as marks in audit records. After a rotation the same secret has another
    /// mark.
    pub fn mask(&self) -> Mask {
        Mask::new(&*self.newest().derive(Label::Audit))
    }

    /// What keys that sign heads of the audit log are made of, the current one last. Every node has
    /// the same.
    pub fn log_seeds(&self) -> Vec<Secret> {
        self.keys.iter().map(|key| key.derive(Label::AuditLog)).collect()
    }

    fn newest(&self) -> &Key {
        self.keys.last().expect("a keyring is made with a key, and the last is never forgotten")
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| &key.id);
        f.debug_list().entries(ids).finish()
    }
}

impl Key {
    fn fresh(unix_ms: u64) -> Self {
        Self { id: random::hex::<8>(), created_unix_ms: unix_ms, secret: secret() }
    }

    fn derive(&self, label: Label) -> Secret {
        derive(&*self.secret, label)
    }

    /// Tells nothing of the key, and is the same wherever it is.
    fn check(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.derive(Label::Check));
        let tag = hmac::sign(&key, self.id.as_bytes());
        random::to_hex(tag.as_ref().get(..16).unwrap_or_default())
    }
}

/// A random key.
pub fn secret() -> Secret {
    Zeroizing::new(random::bytes::<32>())
}

/// The key for `label` that comes of `secret`.
fn derive(secret: &[u8], label: Label) -> Secret {
    let mut derived = Secret::default();
    let extracted = Salt::new(HKDF_SHA256, &[]).extract(secret);
    extracted
        .expand(&[label.as_str().as_bytes()], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *derived))
        .expect("HKDF-SHA-256 gives 32 bytes");
    derived
}

/// Seals `plain` with `key`: nonce, ciphertext, tag.
pub(crate) fn seal(key: &Secret, bound: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce = random::bytes::<NONCE_LEN>();
    let mut text = plain.to_vec();
    let tag = sealing(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound),
            &mut text,
        )
        .expect("far less than the 64 GiB one nonce is good for");
    let mut sealed = Vec::with_capacity(NONCE_LEN + text.len() + tag.as_ref().len());
    sealed.extend(nonce);
    sealed.extend(text);
    sealed.extend(tag.as_ref());
    sealed
}

/// Opens what [`seal`] made; `None` when it is not that.
pub(crate) fn open(key: &Secret, bound: &[u8], sealed: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
    let mut sealed = Zeroizing::new(sealed);
    let nonce: [u8; NONCE_LEN] = sealed.get(..NONCE_LEN)?.try_into().ok()?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let text = sealed.get_mut(NONCE_LEN..)?;
    let opened = sealing(key).open_in_place(nonce, Aad::from(bound), text);
    opened.ok().map(|plain| Zeroizing::new(plain.to_vec()))
}

fn sealing(key: &Secret) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &**key).expect("a key of 32 bytes"))
}

/// What a seal is bound to: the key's id and the place.
fn bound(id: &str, place: &str) -> Vec<u8> {
    [id.as_bytes(), b"\0", place.as_bytes()].concat()
}

/// The bytes `text` stands for in hexadecimal.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble =
        |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    });
    pairs.collect()
}
