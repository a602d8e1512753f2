//! The file by which the command line finds a running process of its user.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use mainstay_core::problem::Code;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::report::Report;
use crate::settings::Errors;

/// What a running `dev` or `server` leaves for the command line of the same user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextFile {
    /// Control port, `http://127.0.0.1:7400`.
    pub url: String,
    /// Bearer token.
    pub token: String,
    /// Process that wrote it.
    pub pid: Option<u32>,
    /// Start time of that process in clock ticks since boot (`/proc/PID/stat`, field 22): a pid
    /// alone may have been given to another process since.
    pub started_ticks: Option<u64>,
}

impl ContextFile {
    /// Writes it for its owner alone (0600), by way of a rename, so nobody reads half of it.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("toml.new");
        drop(fs::remove_file(&fresh)); // Left by a crash, perhaps with another mode.
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        fs::rename(fresh, path)
    }

    /// Reads it. None when it is not there, or its process is gone.
    ///
    /// # Errors
    ///
    /// `context-file-open` when others than its owner may read it, `config-syntax` when it is
    /// none of ours.
    pub fn read(path: &Path) -> Result<Option<Self>, Errors> {
        let name = path.display();
        let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let message =
                format!("file `{name}` holds a token and others may read it: mode {mode:04o}");
            let report = Report::named("context-file-open", Exit::NotAllowed, message);
            return Err(report.next(format!("chmod 600 {name}")).into());
        }
        let text = fs::read_to_string(path).map_err(|error| {
            let message = format!("file `{name}` cannot be read: {error}");
            Report::named("context-file-open", Exit::NotAllowed, message)
        })?;
        let file: Self = toml::from_str(&text).map_err(|error| {
            Report::error(Code::ConfigSyntax, format!("file `{name}`: {}", error.message()))
        })?;
        Ok(Some(file).filter(Self::is_alive))
    }

    fn is_alive(&self) -> bool {
        match (self.pid, self.started_ticks) {
            (Some(pid), Some(ticks)) => started_ticks(pid) == Some(ticks),
            _ => true,
        }
    }
}

/// Start time of process `pid` in clock ticks since boot; none when it is gone or has no `/proc`.
pub fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold blanks; field 22 is the 20th
    // behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Where a running Mainstay of this user may have left its file, likeliest first.
pub fn context_files(variable: fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let runtime =
        variable("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("mainstay/dev.toml"));
    let state = variable("STATE_DIRECTORY").map(|dir| PathBuf::from(dir).join("control.toml"));
    let data = default_data_dir(variable).map(|dir| dir.join("control.toml"));
    [runtime, state, data].into_iter().flatten().collect()
}

/// The data directory of `mainstay dev`.
pub fn default_data_dir(variable: fn(&str) -> Option<String>) -> Option<PathBuf> {
    let data = variable("XDG_DATA_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    Some(data.or_else(home)?.join("mainstay/dev"))
}
