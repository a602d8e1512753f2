//! The file: a tar in one zstd frame.
//!
//! A reader believes nothing: members must be plain files, in the order of the manifest, with the
//! sizes and hashes it names, and nothing else may be there. Whatever the file says of sizes, no
//! more than a buffer of it is in memory, but for the manifest, which has a limit.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};

use mainstay_core::problem::Code;
use mainstay_store::snapshot::file as snapshot;
use sha2::{Digest as _, Sha256};

use super::manifest::{FORMAT, Manifest, NAME, Part};
use crate::output::hex;

/// Why a file is no backup, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It does not begin like one.
    #[error("this is no backup of Mainstay")]
    Foreign,
    /// A newer version wrote it.
    #[error("the backup has format {0}, and this version knows {FORMAT}")]
    FormatNewer(u32),
    /// It cannot be read, is cut short, or is not compressed as it should be.
    #[error("{part}: it cannot be read to its end")]
    Io {
        /// Where in it.
        part: String,
        /// What was met.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{part}: {what}")]
    Damaged {
        /// Where in it.
        part: String,
        /// What is wrong.
        what: String,
    },
    /// The snapshot in it cannot be used.
    #[error("store.msnap")]
    Snapshot(#[source] snapshot::Invalid),
}

impl Invalid {
    /// The code of its problem.
    pub const fn code(&self) -> Code {
        Code::BackupInvalid
    }

    pub(super) fn damaged(part: &str, what: impl Into<String>) -> Self {
        Self::Damaged { part: part.to_owned(), what: what.into() }
    }
}

/// A part to be written.
#[derive(Debug)]
pub struct Piece {
    name: String,
    content: Content,
    bytes: u64,
    sha256: [u8; 32],
}

/// Where its bytes are.
#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    File(File),
}

impl Piece {
    /// A part of few bytes.
    pub fn bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        let (length, sha256) = (bytes.len() as u64, Sha256::digest(&bytes).into());
        Self { name: name.into(), content: Content::Bytes(bytes), bytes: length, sha256 }
    }

    /// A part of everything `file` holds.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn file(name: impl Into<String>, mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let mut hasher = Hashing(Sha256::new());
        let bytes = io::copy(&mut file, &mut hasher)?;
        file.rewind()?;
        let sha256 = hasher.0.finalize().into();
        Ok(Self { name: name.into(), content: Content::File(file), bytes, sha256 })
    }

    /// What the manifest says of it.
    pub fn part(&self) -> Part {
        Part { name: self.name.clone(), bytes: self.bytes, sha256: hex(&self.sha256) }
    }
}

/// Writes a backup of `pieces`, which `manifest` lists, to `out`. Flushing and syncing are the
/// caller's.
///
/// # Errors
///
/// What the medium says; what was written is then cut short, and readers refuse it.
pub fn write<W: Write>(manifest: &Manifest, pieces: Vec<Piece>, out: W) -> io::Result<W> {
    let mut encoder = zstd::Encoder::new(out, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut tar = tar::Builder::new(encoder);
    let text = serde_json::to_vec_pretty(manifest).map_err(io::Error::other)?;
    let at = manifest.created_unix_seconds;
    tar.append(&header(NAME, text.len() as u64, at)?, text.as_slice())?;
    for piece in pieces {
        let header = header(&piece.name, piece.bytes, at)?;
        match piece.content {
            Content::Bytes(bytes) => tar.append(&header, bytes.as_slice())?,
            // A file that grew meanwhile would shift all that follows.
            Content::File(file) => tar.append(&header, file.take(piece.bytes))?,
        }
    }
    tar.into_inner()?.finish()
}

fn header(name: &str, bytes: u64, unix_seconds: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(unix_seconds);
    header.set_cksum();
    Ok(header)
}

/// Reads a backup to its end: calls `each` for every part, in order, with a reader of its bytes. What
/// `each` leaves unread is read and checked after it. Only when this has returned `Ok` is it known
/// to be whole.
///
/// # Errors
///
/// [`Invalid`], and what `each` met; what was read before is then of no use.
pub fn read<E: From<Invalid>>(
    input: impl Read,
    mut each: impl FnMut(&Manifest, &Part, &mut dyn Read) -> Result<(), E>,
) -> Result<Manifest, E> {
    let begin = |source| Invalid::Io { part: "beginning".to_owned(), source };
    let mut tar = tar::Archive::new(zstd::Decoder::new(input).map_err(begin)?);
    // Raw: names and sizes that an extension gives would be read into memory, however long.
    let mut members = tar.entries().map_err(begin)?.raw(true);
    let manifest = {
        let first = members.next().ok_or(Invalid::Foreign)?;
        let first = first.map_err(|_no_tar| Invalid::Foreign)?;
        read_manifest(first)?
    };
    for part in &manifest.parts {
        let missing = || Invalid::damaged(&part.name, "it is missing");
        let broken = |source| Invalid::Io { part: part.name.clone(), source };
        let member = members.next().ok_or_else(missing)?.map_err(broken)?;
        is_expected(&member, &part.name)?;
        if member.size() != part.bytes {
            let found = member.size();
            let what = format!("it has {found} bytes, and the manifest says {}", part.bytes);
            return Err(Invalid::damaged(&part.name, what).into());
        }
        let mut counted = Counted { inner: member, hasher: Sha256::new(), bytes: 0 };
        each(&manifest, part, &mut counted)?;
        io::copy(&mut counted, &mut io::sink()).map_err(broken)?;
        if counted.bytes != part.bytes {
            return Err(Invalid::damaged(&part.name, "it is cut short").into());
        }
        if hex(&counted.hasher.finalize()) != part.sha256 {
            let what = "its SHA-256 is not that of the manifest";
            return Err(Invalid::damaged(&part.name, what).into());
        }
    }
    if members.next().is_some() {
        return Err(Invalid::damaged("end", "something follows the last part").into());
    }
    end(tar.into_inner())?;
    Ok(manifest)
}

fn read_manifest<R: Read>(mut member: tar::Entry<'_, R>) -> Result<Manifest, Invalid> {
    is_expected(&member, NAME).map_err(|_other| Invalid::Foreign)?;
    if MANIFEST_BYTES_MAX < member.size() {
        return Err(Invalid::damaged(
            NAME,
            format!("it is larger than {MANIFEST_BYTES_MAX} bytes"),
        ));
    }
    let mut text = Vec::new();
    let read = member.read_to_end(&mut text);
    read.map_err(|source| Invalid::Io { part: NAME.to_owned(), source })?;
    Manifest::parse(&text)
}

fn is_expected<R: Read>(member: &tar::Entry<'_, R>, name: &str) -> Result<(), Invalid> {
    let found = member.path_bytes();
    if *found != *name.as_bytes() {
        let found = String::from_utf8_lossy(&found).escape_debug().to_string();
        return Err(Invalid::damaged(name, format!("`{found}` stands in its place")));
    }
    if member.header().entry_type() != tar::EntryType::Regular {
        return Err(Invalid::damaged(name, "it is no plain file"));
    }
    Ok(())
}

/// Nothing but the padding of a tar may be left.
fn end(mut rest: impl Read) -> Result<(), Invalid> {
    let mut buffer = [0; 8_192];
    loop {
        let read = match rest.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(Invalid::Io { part: "end".to_owned(), source }),
        };
        if buffer.iter().take(read).any(|&byte| byte != 0) {
            return Err(Invalid::damaged("end", "something follows the last part"));
        }
    }
}

/// Hashes what is written to it.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes and counts what is read through it.
struct Counted<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}

/// The largest part is compressed already; configuration is small.
const LEVEL: i32 = 1;

const MANIFEST_BYTES_MAX: u64 = 1 << 20;
