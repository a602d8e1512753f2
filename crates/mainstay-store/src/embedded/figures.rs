//! What the store counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one store since it was opened.
#[derive(Debug, Default)]
pub(super) struct Figures {
    commits: AtomicU64,
    batches: AtomicU64,
    commit_nanos: AtomicU64,
    leases_expired: AtomicU64,
    lease_extension_nanos: AtomicU64,
    refused: AtomicU64,
}

/// The counters as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Commits that returned.
    pub commits: u64,
    /// Batches and other writes answered by them.
    pub batches: u64,
    /// Time spent in commits.
    pub commit_time: Duration,
    /// Leases that ended because their time was up.
    pub leases_expired: u64,
    /// Time given back to leases because the process had stood still.
    pub lease_extension: Duration,
    /// Batches refused or failed.
    pub refused: u64,
    /// Batches that wait for the committer.
    pub queued: u64,
    /// How often a watch fell so far behind that it read history.
    pub watch_resyncs: u64,
}

impl Figures {
    pub(super) fn committed(&self, batches: usize, took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.batches.fetch_add(batches as u64, Ordering::Relaxed);
        self.commit_nanos.fetch_add(nanos(took), Ordering::Relaxed);
    }

    pub(super) fn refused(&self, batches: usize) {
        self.refused.fetch_add(batches as u64, Ordering::Relaxed);
    }

    pub(super) fn expired(&self, leases: usize) {
        self.leases_expired.fetch_add(leases as u64, Ordering::Relaxed);
    }

    pub(super) fn lease_extended(&self, by: Duration) {
        self.lease_extension_nanos.fetch_add(nanos(by), Ordering::Relaxed);
    }

    pub(super) fn read(&self, queued: usize, watch_resyncs: u64) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            commits: read(&self.commits),
            batches: read(&self.batches),
            commit_time: Duration::from_nanos(read(&self.commit_nanos)),
            leases_expired: read(&self.leases_expired),
            lease_extension: Duration::from_nanos(read(&self.lease_extension_nanos)),
            refused: read(&self.refused),
            queued: queued as u64,
            watch_resyncs,
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
