//! Secrets that lie in files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use mainstay_core::problem::Code;

use crate::exit::Exit;
use crate::report::Report;
use crate::settings::Errors;

/// Shortest token: 16 characters of the 64 that base64 has are 96 bits.
const CHARACTERS_MIN: usize = 16;

/// The token in the first line of `file`, which the key `key` names and nobody but its owner may
/// read.
///
/// # Errors
///
/// A file that cannot be read, or that others can read; a token that is too short, or is none.
pub fn token(file: &Path, key: &str) -> Result<String, Errors> {
    let name = file.display();
    let unreadable = |error: io::Error| {
        let what = format!("`{key}`: `{name}` cannot be read: {error}");
        Errors::from(Report::error(Code::ConfigFileMissing, what))
    };
    let mode = fs::metadata(file).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let what = format!("`{name}` holds a token and others may read it: mode {mode:04o}");
        let report = Report::named("context-file-open", Exit::NotAllowed, what);
        return Err(report.next(format!("chmod 600 {name}")).into());
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < CHARACTERS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!(
            "`{key}`: the first line of `{name}` must be a token of at least {CHARACTERS_MIN} \
             visible ASCII characters"
        );
        let report = Report::error(Code::ConfigOutOfRange, what);
        return Err(report.next(format!("openssl rand -hex 32 > {name}")).into());
    }
    Ok(token.to_owned())
}

/// Writes `token` to `file` for its owner alone, by way of a rename, so that it is there as a whole
/// or not at all.
///
/// # Errors
///
/// The system's.
pub fn keep(file: &Path, token: &str) -> io::Result<()> {
    let fresh = file.with_extension("new");
    drop(fs::remove_file(&fresh)); // Left by a crash, perhaps with another mode.
    let mut options = fs::OpenOptions::new();
    let mut written = options.write(true).create_new(true).mode(0o600).open(&fresh)?;
    writeln!(written, "{token}")?;
    written.sync_all()?;
    fs::rename(fresh, file)
}
