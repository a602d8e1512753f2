//! Notices that files of the configuration have another content.
//!
//! The folders are watched, not the files: editors write a new file and rename it, and a mounted
//! Kubernetes `ConfigMap` swaps the symbolic link `..data` through which all its files are reached,
//! so that the files themselves never see an event. Since events say little, the content decides:
//! after each burst everything is hashed, and only a different hash is news.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use notify::{RecursiveMode, Watcher as _};
use xxhash_rust::xxh64::xxh64;

use super::Sources;

/// From the first event of a burst to looking: an editor's write and rename, or the ten files of
/// one `ConfigMap`, are one change.
pub const DEBOUNCE: Duration = Duration::from_millis(500);

/// The content of every file of the configuration, as hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<PathBuf, Option<u64>>);

impl Fingerprint {
    /// Of the files as they are now. A file that cannot be read counts as not there.
    pub fn of(sources: &Sources) -> Self {
        let files = sources.files().unwrap_or_default().into_iter();
        let hash = |path: PathBuf| {
            let hash = fs::read(&path).ok().map(|content| xxh64(&content, 0));
            (path, hash)
        };
        Self(files.map(hash).collect())
    }
}

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    /// Dropped first, which ends the thread's loop.
    watcher: Option<notify::RecommendedWatcher>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    /// Calls `changed` on a thread of its own, [`DEBOUNCE`] after the first event of a burst that
    /// left the files of `sources` with another content.
    ///
    /// # Errors
    ///
    /// When the system has no watch left to give, or the folder of the main file does not exist.
    pub fn start(
        sources: Sources,
        debounce: Duration,
        changed: impl FnMut() + Send + 'static,
    ) -> Result<Self, notify::Error> {
        let (events, burst) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<_>| {
            // Whatever happened, looking at the content decides. The receiver is gone only at the end.
            drop(event.map(|_: notify::Event| events.send(())));
        })?;
        let before = Fingerprint::of(&sources);
        for folder in folders(&sources) {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        let thread = thread::Builder::new()
            .name("settings-watch".to_owned())
            .spawn(move || follow(&sources, before, debounce, &burst, changed))
            .map_err(notify::Error::io)?;
        Ok(Self { watcher: Some(watcher), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.watcher.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn follow(
    sources: &Sources,
    mut before: Fingerprint,
    debounce: Duration,
    burst: &mpsc::Receiver<()>,
    mut changed: impl FnMut(),
) {
    while burst.recv().is_ok() {
        thread::park_timeout(debounce);
        burst.try_iter().for_each(drop);
        let now = Fingerprint::of(sources);
        if now != before {
            before = now;
            changed();
        }
    }
}

/// The folders with files of the configuration: that of the main file, and `conf.d` if it exists.
/// A `conf.d` made later is noticed at the next start or explicit reload.
fn folders(sources: &Sources) -> Vec<PathBuf> {
    let own = |file: &Path| {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or_else(|| Path::new(".")).to_owned()
    };
    let drop_in = sources.drop_in_folder().filter(|folder| folder.is_dir());
    sources.file.as_deref().map(own).into_iter().chain(drop_in).collect()
}
