//! A snapshot as a file: `.msnap`.
//!
//! One zstd stream. In it, all numbers big endian:
//!
//! | part | content |
//! |---|---|
//! | header | `MNSTSNAP`, format (4), store, revision, compacted, base of fencing tokens, time (8 each), length (1) and text of the product's version, CRC-32C (4) |
//! | blocks | kind (1: leases, 2: entries), length (4), content up to a mebibyte and one entry, CRC-32C over kind, length and content (4) |
//! | trailer | a block of kind 3: number of leases and of entries (8 each), SHA-256 of everything before it |
//!
//! A lease is id and ttl in seconds (8 each); an entry is the lengths of key (2) and value (4),
//! create revision, mod revision, version and lease (8 each), key, value. Leases come before
//! entries, entries in byte order of their keys.
//!
//! A reader believes nothing it has not checked: a file that was cut, changed or put together is
//! refused, and no more than one block of it is ever in memory.

mod reading;
#[cfg(test)]
mod tests;
mod writing;

use crate::entry::Revision;
use crate::store::StoreId;

pub use reading::{Invalid, Reader, verify};
pub use writing::{WriteError, write};

/// What stands at the head of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store.
    pub store: StoreId,
    /// The revision all of it is as of.
    pub revision: Revision,
    /// The store's compacted revision then.
    pub compacted: Revision,
    /// What the rest of the product knows.
    pub about: About,
}

/// What a file says beside what the store knows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What is added to revisions to make fencing tokens.
    pub fence_base: u64,
    /// When it was taken, in seconds since 1970 by the wall clock. For people; nothing is decided
    /// by it.
    pub unix_seconds: u64,
    /// The version of the product that took it, up to 255 bytes.
    pub product: String,
}

/// What was in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Leases.
    pub leases: u64,
    /// Entries.
    pub entries: u64,
}

const MAGIC: &[u8; 8] = b"MNSTSNAP";

const FORMAT: u32 = 1;

/// A block is closed once it has so many bytes.
const BLOCK_BYTES: usize = 1_048_576;

/// The largest block: one that was a byte short of being closed, and the largest entry.
const BLOCK_BYTES_MAX: usize =
    BLOCK_BYTES + ENTRY_BYTES + crate::limits::KEY_BYTES_MAX + crate::limits::VALUE_BYTES_MAX;

/// Bytes of an entry without key and value.
const ENTRY_BYTES: usize = 2 + 4 + 4 * 8;

const KIND_LEASES: u8 = 1;
const KIND_ENTRIES: u8 = 2;
const KIND_TRAILER: u8 = 3;
