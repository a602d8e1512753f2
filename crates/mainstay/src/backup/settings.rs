//! `[backup]`: backups that a node takes by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

/// The `[backup]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBackup {
    /// From one backup to the next, in seconds, 60 to 31,536,000; `86400` is a day. One node of a
    /// store takes it. Restart only. Default: none is taken.
    pub every_seconds: Option<u64>,
    /// How many are kept, the newest, 1 to 1,000. Restart only. Default 7.
    pub keep: Option<u32>,
    /// Where they are put; relative to the data directory. Best a disk of its own. Restart only.
    /// Default `backups`.
    pub folder: Option<PathBuf>,
    /// File with the passphrase for the keys on its first line, 12 bytes or more. Restart only.
    /// Default: keys are left out.
    pub passphrase_file: Option<PathBuf>,
}

/// `[backup]`, resolved.
#[derive(Clone, Debug)]
pub struct BackupConfig {
    /// From one to the next; `None` when none is taken.
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: usize,
    folder: PathBuf,
    /// Where the passphrase stands. It is read for each backup.
    pub passphrase_file: Option<PathBuf>,
}

impl BackupConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawBackup, faults: &mut Vec<Invalid>) -> Self {
        if let Some(every) = raw.every_seconds
            && !(60..=31_536_000).contains(&every)
        {
            let problem = format!("must be 60 to 31536000, found {every}");
            faults.push(Invalid::range("backup.every_seconds", problem));
        }
        let keep = raw.keep.unwrap_or(7);
        if !(1..=1_000).contains(&keep) {
            let problem = format!("must be 1 to 1000, found {keep}");
            faults.push(Invalid::range("backup.keep", problem));
        }
        if let Some(path) = &raw.passphrase_file
            && let Err(problem) = passphrase(path)
        {
            faults.push(Invalid::range("backup.passphrase_file", problem));
        }
        Self {
            every: raw.every_seconds.map(Duration::from_secs),
            keep: keep as usize,
            folder: raw.folder.unwrap_or_else(|| PathBuf::from("backups")),
            passphrase_file: raw.passphrase_file,
        }
    }

    /// Where backups are put, for the data directory `data`.
    pub fn folder(&self, data: &Path) -> PathBuf {
        data.join(&self.folder)
    }
}

/// The passphrase in the file at `path`, or what is wrong with it.
pub(super) fn passphrase(path: &Path) -> Result<zeroize::Zeroizing<String>, String> {
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let text = text.map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.len() < 12 {
        return Err(format!("the first line of `{}` has fewer than 12 bytes", path.display()));
    }
    Ok(zeroize::Zeroizing::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_no_backup_is_found_before_it_is_needed() {
        let check = |text: &str, want: usize| {
            let mut faults = Vec::new();
            BackupConfig::resolve(toml::from_str(text).unwrap(), &mut faults);
            assert_eq!(faults.len(), want, "{text}: {faults:?}");
        };
        check("", 0);
        check("every_seconds = 86400\nkeep = 7", 0);
        check("every_seconds = 59\nkeep = 0", 2);
        check("passphrase_file = '/nowhere'", 1);
        check("passphrase_file = '/dev/null'", 1);
    }
}
