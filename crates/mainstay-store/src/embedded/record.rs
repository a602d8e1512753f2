//! One change as it stands in the log.
//!
//! The log's key is the revision (8 bytes, big endian) and the place within it (4 bytes), so that
//! the log is in order of history. The value is the change, closed by a CRC-32C over the log's key
//! and all before it: a record that was moved is as wrong as one that was changed.

use std::fmt;

use bytes::Bytes;

use crate::entry::{Entry, LeaseId, Revision};
use crate::key::Key;

/// Where a record stands: its revision, and which change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) revision: Revision,
    pub(crate) sub: u32,
}

impl Position {
    /// Before every record of `revision`.
    pub(super) const fn start_of(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }

    /// The log's key.
    pub(super) fn to_bytes(self) -> [u8; POSITION_BYTES] {
        let mut bytes = [0; POSITION_BYTES];
        let (revision, sub) = bytes.split_at_mut(8);
        revision.copy_from_slice(&self.revision.get().to_be_bytes());
        sub.copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (revision, sub) = bytes.split_first_chunk()?;
        let revision = Revision::new(u64::from_be_bytes(*revision));
        Some(Self { revision, sub: u32::from_be_bytes(sub.try_into().ok()?) })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision, self.sub)
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The key was written.
    Put(Entry),
    /// The key was deleted.
    Delete(Key),
}

impl Record {
    /// Writes it for `position`.
    pub(crate) fn encode(&self, position: Position) -> Vec<u8> {
        let mut out = Vec::with_capacity(OVERHEAD_BYTES + self.payload_bytes());
        let key = |out: &mut Vec<u8>, key: &Key| {
            // Keys are checked to be far shorter than 65,536 bytes.
            let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(key);
        };
        match self {
            Self::Put(entry) => {
                out.push(KIND_PUT);
                key(&mut out, &entry.key);
                let lease = entry.lease.map_or(0, LeaseId::get);
                for number in [entry.create_revision.get(), entry.version, lease] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                out.extend_from_slice(&entry.value);
            }
            Self::Delete(deleted) => {
                out.push(KIND_DELETE);
                key(&mut out, deleted);
            }
        }
        let crc = checksum(&position.to_bytes(), &out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads what stands at `position`.
    pub(crate) fn decode(position: Position, bytes: &[u8]) -> Result<Self, Damage> {
        let damage = |what| Damage { position, what };
        let (body, crc) = bytes.split_last_chunk().ok_or_else(|| damage("it is cut short"))?;
        if u32::from_be_bytes(*crc) != checksum(&position.to_bytes(), body) {
            return Err(damage("its checksum does not hold"));
        }
        parse(position, body).ok_or_else(|| damage("it cannot be read"))
    }

    /// Bytes it takes in the log, key and all.
    pub(crate) fn log_bytes(&self) -> u64 {
        (OVERHEAD_BYTES + self.payload_bytes()) as u64
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Put(entry) => entry.bytes(),
            Self::Delete(key) => key.len(),
        }
    }
}

/// The parts of a record whose checksum holds.
fn parse(position: Position, body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let key = Key::new(key.to_vec()).ok()?;
    match *kind {
        KIND_PUT => {
            let (create, rest) = rest.split_first_chunk()?;
            let (version, rest) = rest.split_first_chunk()?;
            let (lease, value) = rest.split_first_chunk()?;
            let lease = match u64::from_be_bytes(*lease) {
                0 => None,
                number => Some(LeaseId::new(number)?),
            };
            Some(Record::Put(Entry {
                key,
                value: Bytes::copy_from_slice(value),
                create_revision: Revision::new(u64::from_be_bytes(*create)),
                mod_revision: position.revision,
                version: u64::from_be_bytes(*version),
                lease,
            }))
        }
        KIND_DELETE if rest.is_empty() => Some(Record::Delete(key)),
        _ => None,
    }
}

fn checksum(position: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(position), body)
}

/// A record that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {position}: {what}")]
pub(crate) struct Damage {
    pub(crate) position: Position,
    pub(crate) what: &'static str,
}

const POSITION_BYTES: usize = 12;

/// Position, kind, length of the key, three numbers, checksum.
const OVERHEAD_BYTES: usize = POSITION_BYTES + 1 + 2 + 24 + 4;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POSITION: Position = Position { revision: Revision::new(7), sub: 3 };

    fn put() -> Record {
        Record::Put(Entry {
            key: "svc/a".try_into().unwrap(),
            value: Bytes::from_static(b"value"),
            create_revision: Revision::new(5),
            mod_revision: Revision::new(7),
            version: 2,
            lease: LeaseId::new(9),
        })
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        for record in [put(), Record::Delete("svc/a".try_into().unwrap())] {
            let bytes = record.encode(POSITION);
            assert_eq!(Record::decode(POSITION, &bytes), Ok(record));
        }
        assert_eq!(Position::from_bytes(&POSITION.to_bytes()), Some(POSITION));
    }

    #[test]
    fn a_record_at_another_place_is_refused() {
        let bytes = put().encode(POSITION);
        let elsewhere = Position { sub: 4, ..POSITION };
        assert!(Record::decode(elsewhere, &bytes).is_err());
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unseen(at in 0usize..1_000, mask in 1u8..=255) {
            let mut bytes = put().encode(POSITION);
            let at = at % bytes.len();
            bytes[at] ^= mask;
            prop_assert!(Record::decode(POSITION, &bytes).is_err());
        }

        #[test]
        fn whatever_is_there_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Record::decode(POSITION, &bytes).is_err());
        }
    }
}
