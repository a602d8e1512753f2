//! A file that is whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that gets its name when it is whole, synced, and not before. Dropped unfinished, it is
/// removed. Only its owner may read it.
#[derive(Debug)]
pub struct Whole {
    /// To be written to.
    pub file: File,
    beside: PathBuf,
    path: PathBuf,
    is_named: bool,
}

impl Whole {
    /// Begins the file that will be at `path`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut beside = name.to_owned();
        beside.push(format!(".{}-{:08x}.partial", std::process::id(), draw()));
        let beside = path.with_file_name(beside);
        let file = private().create_new(true).open(&beside)?;
        Ok(Self { file, beside, path: path.to_owned(), is_named: false })
    }

    /// Syncs it and gives it its name.
    ///
    /// # Errors
    ///
    /// What the system says; then it is not there.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        self.is_named = true;
        sync_folder(&self.path)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.is_named {
            drop(fs::remove_file(&self.beside));
        }
    }
}

/// A file in `folder` without a name, gone when it is closed.
///
/// # Errors
///
/// What the system says.
pub fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".spool-{}-{:08x}", std::process::id(), draw()));
    let file = private().create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Makes the name at `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn draw() -> u32 {
    // The lower half is as good as the whole to keep two names apart.
    u32::try_from(mainstay_call::draw::next() & u64::from(u32::MAX)).unwrap_or(0)
}
