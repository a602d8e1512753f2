//! Backups that are taken by themselves, by one node of a store.
//!
//! What is there decides what is due: the newest file by the moment in its name. So a restart, or
//! another node that takes the duty over in the same folder, takes none too early and none too late.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::duty::{self, Duty};
use mainstay_coord::{BootClock, Timer as _};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::settings::{BackupConfig, passphrase};
use super::taking::{Beside, take};
use super::whole::Whole;
use crate::cluster::Cluster;
use crate::report::causes;
use crate::role::Shared;
use crate::settings::Sources;

/// Pause after a backup that failed, unless they are taken more often anyway.
pub(crate) const RETRY_AFTER: Duration = Duration::from_mins(5);

/// Longest wait between two looks at the wall clock, which may be set.
pub(crate) const LOOK_EVERY: Duration = Duration::from_mins(1);

/// What files begin and end with.
const NAME: (&str, &str) = ("mainstay-", ".backup");

/// Takes backups whenever this node has the duty, until told to stop.
///
/// # Cancel safety
///
/// Safe: of a backup half way nothing is left.
pub async fn run(
    cluster: &Arc<Cluster>,
    shared: &Arc<Shared>,
    config: &BackupConfig,
    stop: CancellationToken,
) {
    let Some(every) = config.every else { return };
    let work = || async move {
        loop {
            let folder = config.folder(&shared.ready.data_dir);
            let now = BootClock.unix_millis() / 1_000;
            let wait = due_in(newest(&folder), now, every);
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(LOOK_EVERY)).await;
                continue;
            }
            let taking = (Arc::clone(cluster), Arc::clone(shared), config.clone());
            let taken = tokio::task::spawn_blocking(move || {
                let (cluster, shared, config) = taking;
                once(&cluster, &shared, &config)
            });
            match taken.await {
                Ok(Ok((path, bytes))) => {
                    tracing::info!(path = %path.display(), bytes, "backup taken");
                }
                failed => {
                    let why = failed
                        .map_or_else(|e| e.to_string(), |done| done.err().unwrap_or_default());
                    shared.backups.failed();
                    tracing::error!(finding = "backup-failed", why, "no backup was taken");
                    tokio::time::sleep(RETRY_AFTER.min(every)).await;
                }
            }
        }
    };
    duty::run(&cluster.coordination, Duty::Backup, cluster.owner(), stop, work).await;
}

/// How long until the next backup is due, when the newest is of `newest` and it is `now`, both in
/// seconds since 1970. One of the future, by a clock that was set back, is as none.
pub(crate) fn due_in(newest: Option<u64>, now: u64, every: Duration) -> Duration {
    match newest.and_then(|newest| now.checked_sub(newest)) {
        Some(age) => every.saturating_sub(Duration::from_secs(age)),
        None => Duration::ZERO,
    }
}

fn once(
    cluster: &Cluster,
    shared: &Shared,
    config: &BackupConfig,
) -> Result<(PathBuf, u64), String> {
    let data = &shared.ready.data_dir;
    let folder = config.folder(data);
    let sources = shared.live.lock().sources().clone();
    write(cluster, config, &sources, &folder).map_err(|error| causes(&*error)).and_then(|done| {
        prune(&folder, config.keep).map_err(|error| error.to_string())?;
        Ok(done)
    })
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn write(
    cluster: &Cluster,
    config: &BackupConfig,
    sources: &Sources,
    folder: &Path,
) -> Result<(PathBuf, u64), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let passphrase = config.passphrase_file.as_deref().map(passphrase).transpose()?;
    let opened = |_: &_| Handle::current().block_on(cluster.ring.keyring());
    let keyring = passphrase.as_ref().map(opened);
    let keys = keyring.as_ref().zip(passphrase.as_ref().map(|text| text.as_str()));
    let beside = Beside { sources: Some(sources), keys };
    let taken = Handle::current().block_on(take(Arc::clone(&cluster.store), beside, folder))?;
    let (at, revision) = (taken.manifest.created_unix_seconds, taken.manifest.store.revision);
    let path = file(folder, (at, revision));
    let mut whole = Whole::begin(&path)?;
    let (mut from, bytes) = (taken.file, taken.bytes);
    io::copy(&mut from, &mut whole.file)?;
    whole.finish()?;
    Ok((path, bytes))
}

/// Where the backup of a moment, in seconds since 1970, and a revision lies.
pub(crate) fn file(folder: &Path, (at, revision): (u64, u64)) -> PathBuf {
    folder.join(format!("{}{at}-{revision}{}", NAME.0, NAME.1))
}

/// When the newest backup in `folder` was taken, in seconds since 1970.
pub(crate) fn newest(folder: &Path) -> Option<u64> {
    backups(folder).ok()?.last().map(|(at, _)| *at)
}

/// Removes all but the newest `keep`, and what a crash left of others.
pub(crate) fn prune(folder: &Path, keep: usize) -> io::Result<()> {
    let all = backups(folder)?;
    let old = all.len().saturating_sub(keep);
    for (_, path) in all.into_iter().take(old) {
        fs::remove_file(path)?;
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(NAME.0) && name.ends_with(".partial") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What is in `folder`, oldest first.
fn backups(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let inner = name.strip_prefix(NAME.0).and_then(|name| name.strip_suffix(NAME.1));
        let at = inner.and_then(|inner| inner.split_once('-')?.0.parse().ok());
        if let Some(at) = at {
            all.push((at, path));
        }
    }
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_says_what_is_due() {
        let day = Duration::from_hours(24);
        for (newest, now, want) in [
            (None, 1_000_000, 0),
            (Some(1_000_000), 1_000_000, 86_400),
            (Some(1_000_000), 1_086_399, 1),
            (Some(1_000_000), 1_086_400, 0),
            (Some(1_000_000), 9_000_000, 0),
            (Some(2_000_000), 1_000_000, 0),
        ] {
            assert_eq!(due_in(newest, now, day), Duration::from_secs(want), "{newest:?} {now}");
        }
    }

    #[test]
    fn the_oldest_go_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["mainstay-9-1.backup", "mainstay-10-2.backup", "mainstay-11-3.backup"];
        let others = ["mine.backup", "mainstay-x-1.backup", "mainstay-1.txt"];
        let half = "mainstay-12-4.backup.77-00000001.partial";
        for name in names.iter().chain(&others).chain([&half]) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(newest(folder.path()), Some(11));
        prune(folder.path(), 2).unwrap();
        let is_there = |name: &str| folder.path().join(name).exists();
        assert_eq!(names.map(is_there), [false, true, true]);
        assert_eq!(others.map(is_there), [true, true, true]);
        assert!(!is_there(half));
    }
}
