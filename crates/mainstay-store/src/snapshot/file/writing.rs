//! Writes a snapshot.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::{About, BLOCK_BYTES, Contents, FORMAT, KIND_ENTRIES, KIND_LEASES, KIND_TRAILER, MAGIC};
use crate::entry::{Entry, LeaseId};
use crate::error::Error;
use crate::snapshot::{Snapshot, SnapshotItem};

/// Why a snapshot was not written; what was written of it is of no use.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store could not be read to the end.
    #[error("the store could not be read")]
    Store(#[source] Error),
    /// The file could not be written.
    #[error("the snapshot could not be written")]
    Io(#[source] io::Error),
}

/// Writes all of `snapshot` to `out`, and flushes it. Syncing is the caller's.
///
/// # Errors
///
/// [`WriteError`].
///
/// # Cancel safety
///
/// Not safe: what was written is then cut short, and readers refuse it.
pub async fn write(
    mut snapshot: Snapshot,
    about: &About,
    out: impl Write,
) -> Result<Contents, WriteError> {
    let head = snapshot.head();
    let mut writer = Writer::begin(out).map_err(WriteError::Io)?;
    let mut header = Vec::from(MAGIC);
    header.extend_from_slice(&FORMAT.to_be_bytes());
    for number in [
        head.store.get(),
        head.revision.get(),
        head.compacted.get(),
        about.fence_base,
        about.unix_seconds,
    ] {
        header.extend_from_slice(&number.to_be_bytes());
    }
    let product = about.product.as_bytes();
    let length = u8::try_from(product.len()).unwrap_or(u8::MAX);
    header.push(length);
    header.extend(product.iter().take(usize::from(length)));
    writer.checked(header).map_err(WriteError::Io)?;
    while let Some(item) = snapshot.next().await {
        writer.push(&item.map_err(WriteError::Store)?).map_err(WriteError::Io)?;
    }
    writer.finish().map_err(WriteError::Io)
}

struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
    hasher: Sha256,
    contents: Contents,
    kind: u8,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    fn begin(out: W) -> io::Result<Self> {
        Ok(Self {
            out: zstd::Encoder::new(out, LEVEL)?,
            hasher: Sha256::new(),
            contents: Contents { leases: 0, entries: 0 },
            kind: KIND_LEASES,
            block: Vec::new(),
        })
    }

    fn push(&mut self, item: &SnapshotItem) -> io::Result<()> {
        let kind = match item {
            SnapshotItem::Lease { .. } => KIND_LEASES,
            SnapshotItem::Entry(_) => KIND_ENTRIES,
        };
        if kind != self.kind || BLOCK_BYTES <= self.block.len() {
            self.close_block()?;
            self.kind = kind;
        }
        match item {
            SnapshotItem::Lease { id, ttl } => {
                self.contents.leases += 1;
                self.block.extend_from_slice(&id.get().to_be_bytes());
                self.block.extend_from_slice(&ttl.as_secs().to_be_bytes());
            }
            SnapshotItem::Entry(entry) => {
                self.contents.entries += 1;
                put_entry(&mut self.block, entry);
            }
        }
        Ok(())
    }

    fn close_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.frame(self.kind, &block)
    }

    fn frame(&mut self, kind: u8, block: &[u8]) -> io::Result<()> {
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(block.len() + 9);
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(block);
        self.checked(frame)
    }

    /// Writes `bytes` and their checksum.
    fn checked(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        self.hasher.update(&bytes);
        self.out.write_all(&bytes)
    }

    fn finish(mut self) -> io::Result<Contents> {
        self.close_block()?;
        let mut trailer = Vec::new();
        trailer.extend_from_slice(&self.contents.leases.to_be_bytes());
        trailer.extend_from_slice(&self.contents.entries.to_be_bytes());
        trailer.extend_from_slice(&self.hasher.clone().finalize());
        self.frame(KIND_TRAILER, &trailer)?;
        self.out.finish()?.flush()?;
        Ok(self.contents)
    }
}

fn put_entry(block: &mut Vec<u8>, entry: &Entry) {
    // Keys and values are checked to be far shorter than what the fields can say.
    let key = u16::try_from(entry.key.len()).unwrap_or(u16::MAX);
    let value = u32::try_from(entry.value.len()).unwrap_or(u32::MAX);
    block.extend_from_slice(&key.to_be_bytes());
    block.extend_from_slice(&value.to_be_bytes());
    let lease = entry.lease.map_or(0, LeaseId::get);
    for number in [entry.create_revision.get(), entry.mod_revision.get(), entry.version, lease] {
        block.extend_from_slice(&number.to_be_bytes());
    }
    block.extend_from_slice(&entry.key);
    block.extend_from_slice(&entry.value);
}

/// zstd's own default: a third of the time of level 9 for a few per cent of size.
const LEVEL: i32 = 3;
