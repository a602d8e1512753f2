//! Writes the file when there is something new to write.

use std::hash::{Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_call::limit::LimitSnapshot;
use mainstay_resilience::circuit::Snapshot;
use parking_lot::Mutex;
use xxhash_rust::xxh64::Xxh64;

use super::{AGE_MAX, Calls, SnapshotFile};

/// Keeps the file of a running process up to date.
///
/// A look costs a short lock on each circuit, so it is taken by a thread of its own and not by
/// calls; what calls do is at most to set a flag ([`Keeper::note_change`]).
#[derive(Debug)]
pub struct Keeper {
    file: SnapshotFile,
    /// Something changed that must not wait to be found out by comparing.
    changed: AtomicBool,
    written: Mutex<Written>,
}

/// What is in the file.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// `None` before the first write.
    at: Option<SystemTime>,
    /// What it says, apart from ages.
    content: u64,
    /// There is something in it.
    something: bool,
}

impl Keeper {
    /// Keeps `file`, whatever is in it now.
    pub fn new(file: SnapshotFile) -> Self {
        Self { file, changed: AtomicBool::new(false), written: Mutex::default() }
    }

    /// A circuit changed its state or mode. Costs a store; safe on the path of calls.
    pub fn note_change(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Time since the file was written, for `mainstay_calls_snapshot_age_seconds`; `None` while
    /// this process has not written one.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let at = self.written.lock().at?;
        Some(now.duration_since(at).unwrap_or_default())
    }

    /// Whether what is in the file is too old to be believed by the next process, though there is
    /// something to be believed.
    pub fn is_overdue(&self, now: SystemTime) -> bool {
        let something = self.written.lock().something;
        something && self.age(now).is_some_and(|age| AGE_MAX <= age)
    }

    /// Writes `calls` if it is news, or if the file would grow too old to be believed; whether it
    /// did.
    ///
    /// # Errors
    ///
    /// When the disk does not take it. The next look tries again.
    pub fn look(&self, calls: &Calls) -> io::Result<bool> {
        let changed = self.changed.swap(false, Ordering::Relaxed);
        let before = *self.written.lock();
        let content = content(calls);
        let news = changed || before.content != content;
        let empty = calls.is_empty() && !before.something;
        let old = !empty && before.at.is_none_or(|at| is_old(at, calls.at));
        if before.at.is_some() && !news && !old {
            return Ok(false);
        }
        if let Err(error) = self.file.write(calls) {
            self.changed.store(true, Ordering::Relaxed);
            return Err(error);
        }
        let something = !calls.is_empty();
        *self.written.lock() = Written { at: Some(calls.at), content, something };
        Ok(true)
    }

    /// Looks at what `take` gives twice a second, until `stop` says something or is dropped, and
    /// once more then. `failed` hears of writes that failed. Blocks its thread.
    pub fn run(
        &self,
        stop: &Receiver<()>,
        mut take: impl FnMut() -> Calls,
        mut failed: impl FnMut(io::Error),
    ) {
        loop {
            let stopped = stop.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout);
            if let Err(error) = self.look(&take()) {
                failed(error);
            }
            if stopped {
                return;
            }
        }
    }
}

/// Whether a file of `written` should be renewed at `now`; it should after the clock was set back.
fn is_old(written: SystemTime, now: SystemTime) -> bool {
    now.duration_since(written).map_or(true, |age| RENEW <= age)
}

/// A hash of what `calls` says, apart from what time alone changes.
fn content(calls: &Calls) -> u64 {
    let mut hasher = Xxh64::new(0);
    for (key, snapshot) in &calls.saved.circuits {
        let Snapshot { mode, mode_left, open, openings, opened_total, window } = snapshot;
        (key, mode, mode_left.is_some(), openings, opened_total).hash(&mut hasher);
        if let Some(open) = open {
            (open.cooldown, open.cause.reason.as_str()).hash(&mut hasher);
        }
        for aged in window {
            let tally = &aged.tally;
            (tally.calls, tally.failures, tally.slow, tally.latency_nanos).hash(&mut hasher);
        }
    }
    for (name, limit) in &calls.saved.limits {
        name.hash(&mut hasher);
        match limit {
            LimitSnapshot::Lone(quota) => quota.used.hash(&mut hasher),
            LimitSnapshot::Keyed { keys, omitted } => {
                omitted.hash(&mut hasher);
                for (key, quota) in keys {
                    (key, quota.used).hash(&mut hasher);
                }
            }
        }
    }
    for (subject, left) in &calls.saved.bans {
        // The end, to the second: it stays where it is while what is left shrinks.
        let end = calls.at.duration_since(UNIX_EPOCH).unwrap_or_default() + *left;
        (subject, end.as_secs()).hash(&mut hasher);
    }
    hasher.finish()
}

/// Half of the second within which a change must be on the disk.
const INTERVAL: Duration = Duration::from_millis(500);

/// A circuit held open for days changes nothing, and is not to be forgotten for it: the stamp is
/// renewed five times before it would be too old.
const RENEW: Duration = Duration::from_mins(1);
