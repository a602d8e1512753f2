//! A key-value pair: its record, and what callers see of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mainstay_store::{Entry, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ConsulError;
use crate::keys::{PairName, consul_pair_name};

/// Most bytes of a value, as Consul has it. In base64 it fits a value of the store, 1 MiB.
pub const PAIR_VALUE_BYTES_MAX: usize = 524_288;

/// A key-value pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Its name.
    pub name: PairName,
    /// A number of the caller's.
    pub flags: u64,
    /// How often it was acquired.
    pub lock_index: u64,
    /// Who holds it.
    pub session: Option<String>,
    /// Its value.
    pub value: Bytes,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that wrote it last.
    pub modified: Revision,
    rest: Map<String, Value>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    lock_index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default)]
    value: String,
    /// What a later version wrote is kept.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Pair {
    /// An empty pair that is not there yet.
    pub(super) fn new(name: PairName) -> Self {
        Self {
            name,
            flags: 0,
            lock_index: 0,
            session: None,
            value: Bytes::new(),
            created: Revision::NEVER,
            modified: Revision::NEVER,
            rest: Map::new(),
        }
    }

    /// Reads what is stored.
    ///
    /// # Errors
    ///
    /// [`ConsulError::Unreadable`].
    pub fn read(entry: &Entry) -> Result<Self, ConsulError> {
        let unreadable = || ConsulError::Unreadable(entry.key.to_string());
        let name = consul_pair_name(&entry.key).ok_or_else(unreadable)?;
        let record: Record = serde_json::from_slice(&entry.value).ok().ok_or_else(unreadable)?;
        let Record { v, flags, lock_index, session, value, rest } = record;
        if v != 1 {
            return Err(unreadable());
        }
        let value = STANDARD.decode(value).ok().ok_or_else(unreadable)?.into();
        let (created, modified) = (entry.create_revision, entry.mod_revision);
        Ok(Self { name, flags, lock_index, session, value, created, modified, rest })
    }

    /// What to store.
    pub(super) fn record(&self) -> Bytes {
        let record = Record {
            v: 1,
            flags: self.flags,
            lock_index: self.lock_index,
            session: self.session.clone(),
            value: STANDARD.encode(&self.value),
            rest: self.rest.clone(),
        };
        serde_json::to_vec(&record).expect("text and numbers").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_unknown_is_kept() {
        let key = PairName::new("a").unwrap().pair();
        let stored = br#"{"v":1,"flags":18446744073709551615,"value":"AP8=","later":[1]}"#;
        let mut entry = Entry {
            key,
            value: Bytes::from_static(stored),
            create_revision: Revision::new(3),
            mod_revision: Revision::new(4),
            version: 2,
            lease: None,
        };
        let pair = Pair::read(&entry).unwrap();
        assert_eq!((pair.flags, &*pair.value), (u64::MAX, &[0, 255][..]));
        entry.value = pair.record();
        assert!(String::from_utf8_lossy(&entry.value).contains(r#""later":[1]"#));
        assert_eq!(Pair::read(&entry).unwrap(), pair);
        entry.value = Bytes::from_static(br#"{"v":2}"#);
        assert!(Pair::read(&entry).is_err());
    }
}
