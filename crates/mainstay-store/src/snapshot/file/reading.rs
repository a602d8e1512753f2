//! Reads a snapshot, and refuses what is not one.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    About, BLOCK_BYTES_MAX, Contents, FORMAT, Header, KIND_ENTRIES, KIND_LEASES, KIND_TRAILER,
    MAGIC,
};
use crate::entry::{Entry, LeaseId, Revision};
use crate::key::Key;
use crate::limits::{TTL_SECONDS_MAX, VALUE_BYTES_MAX};
use crate::snapshot::SnapshotItem;
use crate::store::StoreId;

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It could not be read, or is cut short, or is not compressed as it should be.
    #[error("the snapshot cannot be read to its end")]
    Io(#[source] io::Error),
    /// It does not begin like one.
    #[error("this is no snapshot")]
    Foreign,
    /// It was written by a newer version.
    #[error("the snapshot has format {0}, and this version knows {FORMAT}")]
    FormatNewer(u32),
    /// A part of it is not what was written.
    #[error("{part}: {what}")]
    Damaged {
        /// Which part.
        part: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Reads a whole file and checks all of it.
///
/// # Errors
///
/// [`Invalid`].
pub fn verify(input: impl Read) -> Result<(Header, Contents), Invalid> {
    let mut reader = Reader::begin(input)?;
    while reader.next()?.is_some() {}
    Ok((reader.header, reader.contents))
}

/// Reads a file part by part. Only when [`Reader::next`] has returned `None` is it known to be
/// whole.
pub struct Reader<R: Read> {
    header: Header,
    input: zstd::Decoder<'static, io::BufReader<R>>,
    hasher: Sha256,
    contents: Contents,
    ready: VecDeque<SnapshotItem>,
    blocks: u64,
    leases: BTreeSet<LeaseId>,
    last_key: Option<Key>,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header of `input`.
    ///
    /// # Errors
    ///
    /// [`Invalid`].
    pub fn begin(input: R) -> Result<Self, Invalid> {
        let input = zstd::Decoder::new(input).map_err(Invalid::Io)?;
        let mut hasher = Sha256::new();
        let mut input = input;
        let mut head = vec![0; HEAD_BYTES];
        input.read_exact(&mut head).map_err(Invalid::Io)?;
        if !head.starts_with(MAGIC) {
            return Err(Invalid::Foreign);
        }
        let length = usize::from(head.last().copied().unwrap_or(0));
        let mut rest = vec![0; length + CRC_BYTES];
        input.read_exact(&mut rest).map_err(Invalid::Io)?;
        head.extend_from_slice(&rest);
        hasher.update(&head);
        let header = header(&head)?;
        Ok(Self {
            header,
            input,
            hasher,
            contents: Contents { leases: 0, entries: 0 },
            ready: VecDeque::new(),
            blocks: 0,
            leases: BTreeSet::new(),
            last_key: None,
            done: false,
        })
    }

    /// What stands at its head.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The next part; `None` once all of it was read and checked.
    ///
    /// # Errors
    ///
    /// [`Invalid`]; what was read before is then of no use.
    #[expect(clippy::should_implement_trait, reason = "an error ends it, which no iterator says")]
    pub fn next(&mut self) -> Result<Option<SnapshotItem>, Invalid> {
        while self.ready.is_empty() && !self.done {
            self.block()?;
        }
        Ok(self.ready.pop_front())
    }

    fn block(&mut self) -> Result<(), Invalid> {
        self.blocks += 1;
        let mut head = [0; 5];
        self.input.read_exact(&mut head).map_err(Invalid::Io)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if BLOCK_BYTES_MAX < length {
            return Err(self.damaged("it is too long"));
        }
        let mut frame = Vec::from(head);
        let want = length + CRC_BYTES;
        // Grows with what is there, not with what the length says.
        let read = (&mut self.input).take(want as u64).read_to_end(&mut frame);
        if read.map_err(Invalid::Io)? < want {
            return Err(self.damaged("it is cut short"));
        }
        let body = checked(&frame).ok_or_else(|| self.damaged("its checksum does not hold"))?;
        let body = Bytes::copy_from_slice(body.get(head.len()..).unwrap_or_default());
        if kind == KIND_TRAILER {
            return self.trailer(&body);
        }
        self.hasher.update(&frame);
        match kind {
            KIND_LEASES if self.contents.entries == 0 => self.leases(&body),
            KIND_ENTRIES => self.entries(body),
            _ => Err(self.damaged("its kind is unknown, or out of order")),
        }
    }

    fn leases(&mut self, body: &[u8]) -> Result<(), Invalid> {
        let (leases, rest) = body.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(self.damaged("its leases cannot be read"));
        }
        for lease in leases {
            let mut numbers = Numbers(lease);
            let id = numbers.take().and_then(LeaseId::new);
            let ttl = numbers.take().filter(|ttl| (1..=TTL_SECONDS_MAX).contains(ttl));
            let (Some(id), Some(ttl)) = (id, ttl) else {
                return Err(self.damaged("a lease cannot be read"));
            };
            if !self.leases.insert(id) {
                return Err(self.damaged("a lease stands twice"));
            }
            self.contents.leases += 1;
            self.ready.push_back(SnapshotItem::Lease { id, ttl: Duration::from_secs(ttl) });
        }
        Ok(())
    }

    fn entries(&mut self, mut body: Bytes) -> Result<(), Invalid> {
        while !body.is_empty() {
            let entry = entry(&mut body).ok_or_else(|| self.damaged("an entry cannot be read"))?;
            let is_after = self.last_key.as_ref().is_none_or(|last| *last < entry.key);
            let is_live = entry.lease.is_none_or(|lease| self.leases.contains(&lease));
            let is_past = entry.create_revision <= entry.mod_revision
                && entry.mod_revision <= self.header.revision
                && Revision::NEVER < entry.create_revision
                && 0 < entry.version;
            if !is_after {
                return Err(self.damaged("its keys are out of order"));
            }
            if !is_live {
                return Err(self.damaged("an entry has a lease that is not there"));
            }
            if !is_past {
                return Err(self.damaged("an entry has impossible revisions"));
            }
            self.last_key = Some(entry.key.clone());
            self.contents.entries += 1;
            self.ready.push_back(SnapshotItem::Entry(entry));
        }
        Ok(())
    }

    fn trailer(&mut self, body: &[u8]) -> Result<(), Invalid> {
        let mut numbers = Numbers(body);
        let counts = (numbers.take(), numbers.take());
        if counts != (Some(self.contents.leases), Some(self.contents.entries)) {
            return Err(self.damaged("it counts other parts than there are"));
        }
        if numbers.0 != self.hasher.clone().finalize().as_slice() {
            return Err(self.damaged("its hash does not hold"));
        }
        let mut more = [0];
        if self.input.read(&mut more).map_err(Invalid::Io)? != 0 {
            return Err(self.damaged("something follows the end"));
        }
        self.done = true;
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> Invalid {
        Invalid::Damaged { part: format!("block {}", self.blocks), what }
    }
}

impl<R: Read> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("header", &self.header).finish_non_exhaustive()
    }
}

fn header(bytes: &[u8]) -> Result<Header, Invalid> {
    let damaged = |what| Invalid::Damaged { part: "header".to_owned(), what };
    let body = checked(bytes).ok_or_else(|| damaged("its checksum does not hold"))?;
    let rest = body.get(MAGIC.len()..).unwrap_or_default();
    let unreadable = || damaged("it cannot be read");
    let (format, rest) = rest.split_first_chunk().ok_or_else(unreadable)?;
    let format = u32::from_be_bytes(*format);
    if format != FORMAT {
        return Err(Invalid::FormatNewer(format));
    }
    let mut numbers = Numbers(rest);
    let mut number = || numbers.take().ok_or_else(unreadable);
    let (store, revision, compacted) = (number()?, number()?, number()?);
    let (fence_base, unix_seconds) = (number()?, number()?);
    let product = numbers.0.get(1..).map(<[u8]>::to_vec).unwrap_or_default();
    let product = String::from_utf8(product).map_err(|_not_text| unreadable())?;
    Ok(Header {
        store: StoreId::new(store),
        revision: Revision::new(revision),
        compacted: Revision::new(compacted),
        about: About { fence_base, unix_seconds, product },
    })
}

/// `bytes` without the checksum at their end, if that holds.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk()?;
    (u32::from_be_bytes(*crc) == crc32c::crc32c(body)).then_some(body)
}

fn entry(body: &mut Bytes) -> Option<Entry> {
    let (key_length, rest) = body.split_first_chunk()?;
    let (value_length, rest) = rest.split_first_chunk()?;
    let mut numbers = Numbers(rest);
    let create_revision = Revision::new(numbers.take()?);
    let mod_revision = Revision::new(numbers.take()?);
    let version = numbers.take()?;
    let lease = match numbers.take()? {
        0 => None,
        number => Some(LeaseId::new(number)?),
    };
    let key_length = usize::from(u16::from_be_bytes(*key_length));
    let value_length = u32::from_be_bytes(*value_length) as usize;
    if VALUE_BYTES_MAX < value_length || numbers.0.len() < key_length + value_length {
        return None;
    }
    let head = body.len() - numbers.0.len();
    drop(body.split_to(head));
    let key = Key::new(body.split_to(key_length)).ok()?;
    let value = body.split_to(value_length);
    Some(Entry { key, value, create_revision, mod_revision, version, lease })
}

/// Numbers of eight bytes, one after the other.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }
}

/// The header up to, and with, the length of the version.
const HEAD_BYTES: usize = 8 + 4 + 5 * 8 + 1;

const CRC_BYTES: usize = 4;
