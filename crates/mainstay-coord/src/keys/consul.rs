//! Keys of the Consul door.
//!
//! Names of Consul's key-value store are appended raw, so that the order of its prefixes is the
//! order of bytes. Everything else is a segment.

use mainstay_store::{Key, Range};

use super::{made, segment, unescape};
use crate::random;

/// Longest name of a key-value pair, in bytes. The longest key made of one is that of a hold:
/// 6 + 36 + 1 + 2,000 is below 2,048.
const CONSUL_NAME_BYTES_MAX: usize = 2_000;

/// The name of a key-value pair: 1 to 2,000 bytes without NUL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairName(String);

impl PairName {
    /// `text` as a name, if it can be one.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = !text.is_empty() && text.len() <= CONSUL_NAME_BYTES_MAX && !text.contains('\0');
        fits.then_some(Self(text))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pair.
    pub fn pair(&self) -> Key {
        made(format!("ckv/{}", self.0))
    }

    /// While this is there, nobody acquires the pair.
    pub fn delay(&self) -> Key {
        made(format!("cdelay/{}", self.0))
    }
}

/// The pairs whose names begin with `prefix`.
pub fn consul_pairs(prefix: &str) -> Range {
    Range::prefix(format!("ckv/{prefix}"))
}

/// The name of the pair `key` holds.
pub fn consul_pair_name(key: &[u8]) -> Option<PairName> {
    PairName::new(std::str::from_utf8(key.strip_prefix(b"ckv/")?).ok()?)
}

/// Names a session of the Consul door: a UUID in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsulSessionId(String);

impl ConsulSessionId {
    /// `text` as an id, if it can be one.
    pub fn new(text: &str) -> Option<Self> {
        let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        let fits = |(at, byte): (usize, u8)| {
            if is_dash(at) { byte == b'-' } else { matches!(byte, b'0'..=b'9' | b'a'..=b'f') }
        };
        let is_uuid = text.len() == 36 && text.bytes().enumerate().all(fits);
        is_uuid.then(|| Self(text.to_owned()))
    }

    /// A new one: a random UUID (RFC 9562, version 4).
    pub fn random() -> Self {
        let mut bytes = random::bytes::<16>();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let parts = [0..4, 4..6, 6..8, 8..10, 10..16];
        Self(parts.map(|part| random::to_hex(&bytes[part])).join("-"))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The record of the session.
    pub fn record(&self) -> Key {
        made(format!("cses/{}", self.0))
    }

    /// While this is there, a session with a ttl lives.
    pub fn life(&self) -> Key {
        made(format!("clife/{}", self.0))
    }

    /// Every pair the session has acquired.
    pub fn holds(&self) -> Range {
        Range::prefix(format!("chold/{}/", self.0))
    }

    /// That the session has acquired `name`.
    pub fn hold(&self, name: &PairName) -> Key {
        made(format!("chold/{}/{}", self.0, name.0))
    }

    /// The name of the pair that a key of [`holds`](Self::holds) stands for.
    pub fn held(&self, key: &[u8]) -> Option<PairName> {
        let name = key.strip_prefix(b"chold/")?.get(self.0.len() + 1..)?;
        PairName::new(std::str::from_utf8(name).ok()?)
    }
}

/// The record of a node, in Consul's sense; `None` when `name` cannot be the name of one.
pub fn consul_node(name: &str) -> Option<Key> {
    let fits = (1..=255).contains(&name.len()) && !name.contains(char::is_control);
    fits.then(|| made(format!("cat/{}", segment(name))))
}

/// The records of all nodes.
pub fn consul_nodes() -> Range {
    Range::prefix("cat/")
}

/// The name of the node `key` is the record of.
pub fn consul_node_name(key: &[u8]) -> Option<String> {
    unescape(std::str::from_utf8(key.strip_prefix(b"cat/")?).ok()?)
}

/// The records of all sessions.
pub fn consul_sessions() -> Range {
    Range::prefix("cses/")
}

/// The lives of all sessions with a ttl.
pub fn consul_lives() -> Range {
    Range::prefix("clife/")
}

/// The session whose record or life `key` is.
pub fn consul_session(key: &[u8]) -> Option<ConsulSessionId> {
    let text = std::str::from_utf8(key).ok()?;
    ConsulSessionId::new(text.strip_prefix("cses/").or_else(|| text.strip_prefix("clife/"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0c7c2b1e-9f6c-4c8e-8a57-0123456789ab";

    #[test]
    fn names_are_raw_and_come_back() {
        let name = PairName::new("a/b c/ä").unwrap();
        assert_eq!(&*name.pair(), "ckv/a/b c/ä".as_bytes());
        assert_eq!(consul_pair_name(&name.pair()), Some(name.clone()));
        let id = ConsulSessionId::new(ID).unwrap();
        assert_eq!(id.held(&id.hold(&name)), Some(name));
        assert_eq!(consul_session(&id.life()), Some(id));
    }

    #[test]
    fn a_random_id_is_one() {
        let id = ConsulSessionId::random();
        assert_eq!(ConsulSessionId::new(id.as_str()), Some(id));
    }

    #[test]
    fn limits_hold_at_n_and_break_at_one_more() {
        assert!(PairName::new("x".repeat(2_000)).is_some());
        for bad in [String::new(), "x".repeat(2_001), "a\0b".to_owned()] {
            assert!(PairName::new(bad).is_none());
        }
        let id = ConsulSessionId::new(ID).unwrap();
        let longest = PairName::new("x".repeat(2_000)).unwrap();
        assert!(id.hold(&longest).len() < 2_048);
        for bad in ["", "x", &ID.to_uppercase(), "0c7c2b1e-9f6c-4c8e-8a57/0123456789ab"] {
            assert!(ConsulSessionId::new(bad).is_none(), "{bad}");
        }
    }
}
