//! The keys of an issuer (JWK set, RFC 7517 section 5).

use super::json::Invalid;
use super::{Key, KeyId, Object, Origin, Value};

/// Largest key set: 64 keys of 8,192 bits, with certificates that nobody reads, fit in.
pub const SET_BYTES_MAX: usize = 256 << 10;

/// Most keys of an issuer; those that there are have two to six.
pub const KEYS_MAX: usize = 64;

/// Keys of an issuer, and those that it should not have sent.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    dropped: Vec<Dropped>,
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Which one, counted from 0.
    pub place: usize,
    /// Its name, if it has one.
    pub kid: Option<Box<str>>,
    /// Why.
    pub why: Unusable,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No object.
    #[error("it is not an object")]
    NoObject,
    /// A member that is missing or cannot be read.
    #[error("`{0}` is missing, or not what it must be")]
    Malformed(&'static str),
    /// Of a kind or curve that is not supported.
    #[error("its kind or curve is not supported")]
    Kind,
    /// For an algorithm that is not supported, or not possible for it.
    #[error("its `alg` is not supported, or not possible for it")]
    Algorithm,
    /// For something else.
    #[error("`use` or `key_ops` say that it is not for verifying signatures")]
    Purpose,
    /// Private.
    #[error("it is a private key, and whoever reads this address can sign with it")]
    Private,
    /// Shared, and fetched.
    #[error("it is a shared key, which is taken from a file only")]
    SharedRemote,
    /// Too weak.
    #[error("{0}")]
    Weak(&'static str),
    /// No key has these numbers.
    #[error("its numbers are no key: the point is not on its curve, or the like")]
    Numbers,
}

/// Why bytes are no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetInvalid {
    /// Too long.
    #[error("it is longer than 256 KiB")]
    TooLong,
    /// Not JSON as it is read here.
    #[error("it is not a JSON object with different names for members, at most 8 levels deep")]
    Json,
    /// Without `keys`.
    #[error("it has no list `keys`")]
    NoKeys,
    /// Too many.
    #[error("it has more than 64 keys")]
    TooMany,
}

impl KeySet {
    /// Reads a key set. A key that cannot be used is dropped, and its neighbours stay.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(bytes: &[u8], origin: Origin) -> Result<Self, SetInvalid> {
        if SET_BYTES_MAX < bytes.len() {
            return Err(SetInvalid::TooLong);
        }
        let object = Object::parse(bytes).map_err(|invalid| match invalid {
            Invalid::Malformed | Invalid::NoObject => SetInvalid::Json,
        })?;
        let keys = object.get("keys").and_then(Value::as_list).ok_or(SetInvalid::NoKeys)?;
        if KEYS_MAX < keys.len() {
            return Err(SetInvalid::TooMany);
        }
        let mut set = Self::default();
        for (place, key) in keys.iter().enumerate() {
            let Value::Object(jwk) = key else {
                set.dropped.push(Dropped { place, kid: None, why: Unusable::NoObject });
                continue;
            };
            match Key::parse(jwk, origin) {
                Ok(key) => set.keys.push(key),
                Err(why) => {
                    let kid = jwk.get("kid").and_then(Value::as_text).map(Into::into);
                    set.dropped.push(Dropped { place, kid, why });
                }
            }
        }
        Ok(set)
    }

    /// The keys that can be used.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that cannot be used.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// Whether there is still this key, for the same algorithms.
    pub fn has(&self, id: KeyId) -> bool {
        self.keys.iter().any(|key| key.id() == id)
    }

    /// Whether some key bears this name.
    pub fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }
}
