//! Documents on disk that are whole or not there.
//!
//! A file is written beside and renamed; a checksum tells one that the disk has spoiled.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A file: the document, and what tells whether it is whole.
#[derive(Serialize, Deserialize)]
struct Sheet {
    v: u32,
    /// When it was saved, by the wall clock: for people.
    saved_unix_ms: u64,
    /// CRC-32C of the document as compact JSON with sorted members, in hexadecimal.
    crc32c: String,
    document: Value,
}

/// Keeps `document` at `path`, in folders that are made. Blocks. When it fails, what was there
/// before still is.
pub(crate) fn save(path: &Path, document: &impl Serialize) -> io::Result<()> {
    let document = serde_json::to_value(document)?;
    let sheet = Sheet { v: 1, saved_unix_ms: unix_ms(), crc32c: checksum(&document), document };
    let bytes = serde_json::to_vec(&sheet)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("json.{}.new", std::process::id()));
    // Rules may hold what others are not shown.
    let create = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let written = create.and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
        // What was kept before is untouched; the half-written one is of no use.
        drop(fs::remove_file(&beside));
        return Err(error);
    }
    Ok(())
}

/// The document at `path`, if there is one of at most `bytes_max`. Blocks. A damaged one is
/// [`io::ErrorKind::InvalidData`].
pub(crate) fn load<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> io::Result<Option<T>> {
    let bytes = match fs::metadata(path) {
        Ok(found) if found.len() <= bytes_max => fs::read(path)?,
        Ok(_too_long) => return Err(damaged("it is too long")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let sheet: Sheet =
        serde_json::from_slice(&bytes).map_err(|_syntax| damaged("it is no saved document"))?;
    if sheet.crc32c != checksum(&sheet.document) {
        return Err(damaged("its checksum is wrong"));
    }
    let document = serde_json::from_value(sheet.document);
    document.map(Some).map_err(|_shape| damaged("it is no saved document"))
}

/// A file that is not what was written.
pub(crate) fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn checksum(document: &Value) -> String {
    format!("{:08x}", crc32c::crc32c(document.to_string().as_bytes()))
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "shown to whoever looks into a file, never judged")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
