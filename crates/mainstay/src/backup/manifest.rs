//! What a backup says of itself.

use serde::{Deserialize, Serialize};

use super::STORE;
use super::archive::Invalid;

/// The format this version writes.
pub const FORMAT: u32 = 1;

/// Most parts. A configuration has a file for each team, and a few more.
const PARTS_MAX: usize = 1_024;

/// Longest name of a part: what a tar has room for without extensions.
const NAME_BYTES_MAX: usize = 100;

/// `manifest.json`, the first member of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the backup.
    pub mainstay_backup: u32,
    /// Version that wrote it.
    pub product: String,
    /// When, in seconds since 1970 by the wall clock. For people; nothing is decided by it.
    pub created_unix_seconds: u64,
    /// The store it is of.
    pub store: StoreAsOf,
    /// The parts, in their order.
    pub parts: Vec<Part>,
    /// What is not in it, and why.
    pub left_out: Vec<String>,
}

/// A store as of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAsOf {
    /// Which history, sixteen hexadecimal digits.
    pub id: String,
    /// `embedded` or `etcd`.
    pub backend: String,
    /// The revision.
    pub revision: u64,
    /// What was added to every fencing token.
    pub fence_base: u64,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the tar.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Reads what a backup says of itself, and believes none of it that could do harm.
    ///
    /// # Errors
    ///
    /// [`Invalid`].
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        /// The member that is read before all else.
        #[derive(Deserialize)]
        struct Format {
            mainstay_backup: u32,
        }
        let wrong = |what: String| Invalid::Damaged { part: NAME.to_owned(), what };
        let format: Format = serde_json::from_slice(text).map_err(|_other| Invalid::Foreign)?;
        if FORMAT < format.mainstay_backup {
            return Err(Invalid::FormatNewer(format.mainstay_backup));
        }
        let manifest: Self =
            serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if PARTS_MAX < manifest.parts.len() {
            return Err(wrong(format!("it lists more than {PARTS_MAX} parts")));
        }
        let mut names: Vec<&str> = manifest.parts.iter().map(|part| &*part.name).collect();
        if let Some(name) = names.iter().find(|name| !is_safe(name)) {
            return Err(wrong(format!("`{}` is no name of a part", name.escape_debug())));
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(wrong("a part stands twice".to_owned()));
        }
        // What the store needs is in place when its file gets its name.
        if manifest.parts.last().is_none_or(|part| part.name != STORE) {
            return Err(wrong(format!("its last part is not `{STORE}`")));
        }
        Ok(manifest)
    }

    /// Whether there is a part `name`.
    pub fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.name == name)
    }
}

/// Whether a part may be called so: a relative path that leads nowhere else.
pub(super) fn is_safe(name: &str) -> bool {
    let is_plain = |segment: &str| {
        !segment.is_empty()
            && !matches!(segment, "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@ ".contains(&b))
    };
    name.len() <= NAME_BYTES_MAX && name != NAME && name.split('/').all(is_plain)
}

/// What the manifest is called.
pub(super) const NAME: &str = "manifest.json";
