//! The directory in which a role keeps what outlives it, for one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_core::problem::Code;
use rustix::fs::{FlockOperation, flock};

use super::system;
use crate::exit::Exit;
use crate::report::Report;
use crate::settings::Errors;

/// A data directory that this process holds.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// Locked for as long as it is open; holds the pid.
    lock: File,
    ephemeral: bool,
}

impl DataDir {
    /// Opens `path`, made with mode 0700 when it is not there.
    ///
    /// # Errors
    ///
    /// `data-dir-in-use` when another process holds it.
    pub(super) fn open(path: PathBuf, ephemeral: bool) -> Result<Self, Errors> {
        let unusable = |error: &std::io::Error| {
            system(
                Code::Internal,
                format!("data directory `{}` cannot be used", path.display()),
                error,
            )
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| unusable(&e))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.join("lock")).map_err(|e| unusable(&e))?;
        Ok(Self { path, lock, ephemeral })
    }

    /// Holds the directory for this process alone, waiting up to `patience` for the one before.
    ///
    /// # Errors
    ///
    /// `data-dir-in-use`, with the pid of the process that holds it.
    pub(super) fn hold(&mut self, patience: Duration) -> Result<(), Errors> {
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if waited >= patience {
                return Err(self.in_use());
            }
            #[expect(clippy::disallowed_methods, reason = "no runtime waits on this thread")]
            std::thread::sleep(step);
            waited += step;
        }
        let pid = std::process::id().to_string();
        let written = self
            .lock
            .set_len(0)
            .and_then(|()| self.lock.rewind())
            .and_then(|()| self.lock.write_all(pid.as_bytes()));
        let unwritten = |error| system(Code::Internal, "the lock cannot be written".into(), &error);
        Ok(written.map_err(unwritten)?)
    }

    fn in_use(&mut self) -> Errors {
        let mut pid = String::new();
        let read = self.lock.rewind().and_then(|()| self.lock.read_to_string(&mut pid));
        let holder = match read {
            Ok(_) if !pid.is_empty() => format!("process {pid}"),
            _ => "another process".to_owned(),
        };
        let path = self.path.display();
        Report::error(Code::DataDirInUse, format!("`{path}` is in use by {holder}"))
            .next("give each process its own `--data-dir`, or use `--ephemeral`")
            .into()
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A data directory that a verb of the command line holds, so that no role starts on it meanwhile.
#[derive(Debug)]
pub struct HeldFolder(#[expect(dead_code, reason = "held as long as it lives")] DataDir);

impl HeldFolder {
    /// Holds `path`, made with mode 0700 when it is not there.
    ///
    /// # Errors
    ///
    /// `data-dir-in-use` when a process holds it.
    pub fn new(path: &Path) -> Result<Self, Errors> {
        let mut folder = DataDir::open(path.to_owned(), false)?;
        folder.hold(Duration::ZERO)?;
        Ok(Self(folder))
    }

    /// Holds `path`, which has to be there.
    ///
    /// # Errors
    ///
    /// Also when it is not.
    pub fn existing(path: &Path) -> Result<Self, Errors> {
        if path.is_dir() {
            return Self::new(path);
        }
        let missing = format!("there is no data directory `{}`", path.display());
        Err(Report { exit: Exit::NotFound, ..Report::error(Code::Usage, missing) }.into())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.ephemeral {
            // The process ends; what cannot be removed is in the system's temporary folder.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}
