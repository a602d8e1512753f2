//! The files of one log.
//!
//! ```text
//! tile/entries/000            256 records, one a line
//! tile/entries/001.p/tail     those after them, synced before anybody is told
//! tile/0/000, tile/1/000, …   256 hashes each
//! tile/0/001.p/7              hashes of the newest head where a tile is not full yet
//! checkpoint                  the newest signed head
//! heads                       those before it
//! keys                        the keys that sign, oldest first
//! index                       from which to which id and time a bundle has records
//! ```
//!
//! A record as canonical JSON has no line break, so a bundle can be read with what reads lines. All
//! but the tail and the lists are written whole under another name first.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mainstay_security::audit::Hash;
use mainstay_security::audit::tile::{self, Level, Tile};

use crate::backup::whole::{Whole, sync_folder};

/// The newest head.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// Heads, oldest first.
pub(super) const HEADS: &str = "heads";
/// Keys, oldest first.
pub(super) const KEYS: &str = "keys";
/// Spans of bundles.
pub(super) const INDEX: &str = "index";

/// Most bytes of heads that are kept: some ten thousand. Then the older half goes; copies elsewhere
/// are as old as whoever keeps them likes.
const HEADS_BYTES_MAX: u64 = 4 << 20;

/// The folder of one log.
#[derive(Clone, Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What is in `name`; `None` when it is not there.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn has(&self, tile: Tile) -> io::Result<bool> {
        self.path(&tile.to_string()).try_exists()
    }

    /// The hashes of a tile that has to be there.
    pub(super) fn hashes(&self, tile: Tile) -> io::Result<Vec<Hash>> {
        let damaged =
            |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{tile} {why}"));
        let bytes = self.read(&tile.to_string())?.ok_or_else(|| damaged("is missing"))?;
        let hashes = tile::read(&bytes).filter(|hashes| hashes.len() == tile.len());
        hashes.ok_or_else(|| damaged("has another number of hashes"))
    }

    /// Writes `name` whole, durably.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        create(path.parent().unwrap_or(&self.folder))?;
        let mut whole = Whole::begin(&path)?;
        whole.file.write_all(bytes)?;
        whole.finish()
    }

    /// Writes hashes; of a tile that is full, what was kept of it while it was not goes.
    pub(super) fn write_hashes(&self, tile: Tile, hashes: &[Hash]) -> io::Result<()> {
        self.write(&tile.to_string(), &tile::write(hashes))?;
        let partial = match tile.width {
            None => self.path(&format!("{tile}.p")),
            Some(_) => {
                let path = self.path(&tile.to_string());
                path.parent().unwrap_or(&self.folder).to_owned()
            }
        };
        let own = tile.width.map(|width| width.to_string());
        for name in names(&partial)? {
            if Some(&name) != own.as_ref() {
                fs::remove_file(partial.join(name))?;
            }
        }
        if own.is_none() {
            remove_folder(&partial)?;
        }
        Ok(())
    }

    /// Where the records of the bundle `index` lie until it is full.
    pub(super) fn tail(&self, index: u64) -> PathBuf {
        self.path(&format!("{}.p/tail", Tile::whole(Level::Entries, index)))
    }

    /// Opens the tail of the bundle `index` to be added to.
    pub(super) fn open_tail(&self, index: u64) -> io::Result<File> {
        let path = self.tail(index);
        let is_new = !path.try_exists()?;
        create(path.parent().unwrap_or(&self.folder))?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        if is_new {
            sync_folder(&path)?;
        }
        Ok(file)
    }

    /// The tail of the bundle `index` is full, and gets its name for good.
    pub(super) fn finish_tail(&self, index: u64) -> io::Result<()> {
        let (tail, whole) = (self.tail(index), Tile::whole(Level::Entries, index));
        let path = self.path(&whole.to_string());
        match fs::rename(&tail, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.try_exists()? => {}
            done => done?,
        }
        sync_folder(&path)?;
        remove_folder(&self.path(&format!("{whole}.p")))
    }

    /// Adds `bytes` to a list, durably.
    pub(super) fn add(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    /// Keeps a head; the older half of them goes when there are too many.
    pub(super) fn add_head(&self, head: &str) -> io::Result<()> {
        let is_long =
            fs::metadata(self.path(HEADS)).is_ok_and(|found| HEADS_BYTES_MAX < found.len());
        if is_long {
            let text = fs::read_to_string(self.path(HEADS))?;
            let heads: Vec<&str> = text.split_inclusive("\n\n\n").collect();
            let newer = heads.get(heads.len() / 2..).unwrap_or_default();
            self.write(HEADS, newer.concat().as_bytes())?;
        }
        self.add(HEADS, format!("{head}\n\n").as_bytes())
    }
}

/// The lines of a bundle; one that was cut is none.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.split_inclusive(|byte| *byte == b'\n');
    whole.filter_map(|line| line.strip_suffix(b"\n"))
}

/// Makes `folder` and what it lies in, for its owner alone.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The names in `folder`, which need not be there.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
