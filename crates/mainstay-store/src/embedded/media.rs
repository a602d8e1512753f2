//! Where the store's files lie.
//!
//! A node keeps them in a directory. Tests keep them in memory, where unsynced writes can be lost,
//! torn and reordered, and where the disk can be full or broken.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;

/// A handful of files, by name.
pub(super) trait Media: Send + Sync + 'static {
    /// Opens `name` for the engine; creates it, empty, when told to.
    ///
    /// # Errors
    ///
    /// What the medium says.
    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn StorageBackend>>;

    /// Whether there is a file `name`.
    ///
    /// # Errors
    ///
    /// What the medium says.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Gives `from`, whose content is durable, the name `to`, in place of what had it: durably,
    /// and all or nothing.
    ///
    /// # Errors
    ///
    /// What the medium says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives the content of `from` the name `to` as well, in place of what had it, durably.
    ///
    /// # Errors
    ///
    /// What the medium says.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes `name`, if it is there.
    ///
    /// # Errors
    ///
    /// What the medium says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All of `name`, or `None` when there is none. For small files.
    ///
    /// # Errors
    ///
    /// What the medium says.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Makes `bytes` the content of `name`: durably, and all or nothing.
    ///
    /// # Errors
    ///
    /// What the medium says.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Bytes that can still be written, as far as that is known.
    fn free_bytes(&self) -> Option<u64>;
}

/// A directory.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the names in the directory durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl Media for Directory {
    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(create);
        let file = options.open(self.path(name))?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path(name).try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        self.sync()
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.remove(to)?;
        fs::hard_link(self.path(from), self.path(to))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.path(name))).map(|_| ())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        absent_is_fine(fs::read(self.path(name)))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let next = format!("{name}.new");
        let mut file = File::create(self.path(&next))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.rename(&next, name)
    }

    fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.0)
    }
}

fn absent_is_fine<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes the file system of `path` gives to those without privileges.
fn free_bytes(path: &Path) -> Option<u64> {
    let stats = rustix::fs::statvfs(path).ok()?;
    Some(stats.f_bavail.saturating_mul(stats.f_frsize))
}
