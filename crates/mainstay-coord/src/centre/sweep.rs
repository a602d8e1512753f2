//! Removing what nobody needs: releases beyond the history that is kept, contents nobody names.
//!
//! Every node sweeps; two at once do no harm, since each removal compares what it was decided on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Compare, Entry, Get, Key, Op, Revision};
use tokio_util::sync::CancellationToken;

use super::Centre;
use super::contents::STAMP_BYTES;
use super::error::CentreError;
use super::read::each;
use super::record::{self, Draft, Head, Release, Row};
use super::shared::Shared;
use crate::events::centre::{DutyFailed, Swept as SweptEvent};
use crate::keys::{self, CentreKey, GroupRef, parse_centre};
use crate::random;

/// How often a node sweeps.
const SWEEP_EVERY: Duration = Duration::from_hours(1);

/// How long a content is kept that no release names: longer than any publication takes.
const UNNAMED_KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// Removals in one batch.
const REMOVALS_MAX: usize = 100;

/// How much history is kept: the newest `releases_min`, and whatever is younger than `days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days.
    pub days: u32,
    /// Releases.
    pub releases_min: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 365, releases_min: 100 }
    }
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Releases.
    pub releases: usize,
    /// Contents.
    pub contents: usize,
}

/// The releases that may go: neither named by the head, nor among the newest, nor young.
/// `releases` is by number, each with when it was published.
pub(super) fn removable(
    head: &Head,
    releases: &BTreeMap<u64, u64>,
    kept: Retention,
    unix_ms: u64,
) -> Vec<u64> {
    let newest = usize::try_from(kept.releases_min).unwrap_or(usize::MAX);
    let days_ms = u64::from(kept.days) * 24 * 3_600 * 1_000;
    let old = releases.iter().rev().skip(newest);
    let old = old.filter(|(number, published)| {
        !head.names(**number) && days_ms <= unix_ms.saturating_sub(**published)
    });
    old.map(|(number, _)| *number).collect()
}

/// Sweeps until told to stop.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        // Not all nodes at once.
        let until = shared.now().plus(SWEEP_EVERY.mul_f64(0.75 + random::share() / 2.0));
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.timer.sleep_until(until) => {}
        }
        let unix_ms = shared.timer.unix_millis();
        let swept = tokio::select! {
            () = stop.cancelled() => return,
            swept = shared.sweep(unix_ms) => swept,
        };
        match swept {
            Ok(Swept { releases: 0, contents: 0 }) => {}
            Ok(Swept { releases, contents }) => SweptEvent { releases, contents }.emit(),
            Err(error) => DutyFailed { duty: "sweep", error: &error }.emit(),
        }
    }
}

impl Centre {
    /// Removes what is no longer kept at `unix_ms` by the wall clock. Every node does so by itself
    /// once an hour.
    ///
    /// # Errors
    ///
    /// What the store said; what was removed before stays removed.
    ///
    /// # Cancel safety
    ///
    /// As on an error.
    pub async fn sweep(&self, unix_ms: u64) -> Result<Swept, CentreError> {
        self.shared.sweep(unix_ms).await
    }
}

/// A group, as the sweep sees it.
#[derive(Default)]
struct Seen {
    head: Head,
    written: Revision,
    releases: BTreeMap<u64, u64>,
}

impl Shared {
    async fn sweep(&self, unix_ms: u64) -> Result<Swept, CentreError> {
        let releases = self.sweep_releases(unix_ms).await?;
        let contents = self.sweep_contents(unix_ms).await?;
        Ok(Swept { releases, contents })
    }

    async fn sweep_releases(&self, unix_ms: u64) -> Result<usize, CentreError> {
        let mut groups: BTreeMap<GroupRef, Seen> = BTreeMap::new();
        let take = |entry: Entry| match parse_centre(&entry.key) {
            Some(CentreKey::Head(group)) => {
                if let Some(head) = record::read(&entry.value) {
                    let (written, releases) = (entry.mod_revision, BTreeMap::new());
                    groups.insert(group, Seen { head, written, releases });
                }
            }
            // Without a head that can be read nothing of the group is touched.
            Some(CentreKey::Release(group, number)) => {
                if let Some(seen) = groups.get_mut(&group)
                    && let Some(Release { unix_ms, .. }) = record::read(&entry.value)
                {
                    seen.releases.insert(number, unix_ms);
                }
            }
            _ => {}
        };
        each(&*self.store, keys::configuration(), false, None, take).await?;
        let mut removed = 0;
        for (group, seen) in groups {
            let old = removable(&seen.head, &seen.releases, self.options.retention, unix_ms);
            for some in old.chunks(REMOVALS_MAX) {
                let when = vec![Compare::unchanged_since(&group.head(), seen.written)];
                let ops = some.iter().map(|number| Op::delete(&group.release(*number))).collect();
                let batch =
                    mainstay_store::Batch { compares: when, then: ops, otherwise: Vec::new() };
                if !self.store.apply(batch).await?.succeeded {
                    break; // Somebody publishes right now; the next sweep sees to it.
                }
                removed += some.len();
            }
        }
        Ok(removed)
    }

    /// Whatever came to be named after the names were read either was put anew, which the compare
    /// sees, or is named by a release that was there then.
    async fn sweep_contents(&self, unix_ms: u64) -> Result<usize, CentreError> {
        let (mut named, mut unreadable) = (HashSet::new(), None);
        let mut name = |row: &Row| {
            named.insert(row.blob.clone());
            named.extend(row.schema.clone());
        };
        let take = |entry: Entry| {
            let read = match parse_centre(&entry.key) {
                Some(CentreKey::Release(..)) => record::read(&entry.value)
                    .map(|Release { items, .. }| items.values().for_each(&mut name)),
                Some(CentreKey::Draft(..)) => record::read(&entry.value)
                    .map(|Draft { row, .. }| row.iter().for_each(&mut name)),
                _ => Some(()),
            };
            if read.is_none() {
                unreadable = Some(entry.key);
            }
        };
        each(&*self.store, keys::configuration(), false, None, take).await?;
        if let Some(key) = unreadable {
            // It may name what is about to go.
            return Err(CentreError::Unreadable { what: format!("record {key}") });
        }
        let mut unnamed: BTreeSet<(Key, Revision)> = BTreeSet::new();
        let take = |entry: Entry| {
            if let Some(CentreKey::Blob(name)) = parse_centre(&entry.key)
                && !named.contains(&name)
            {
                unnamed.insert((entry.key, entry.mod_revision));
            }
        };
        each(&*self.store, keys::blobs(), true, None, take).await?;
        let mut removed = 0;
        for (key, seen) in unnamed {
            let entry = self.store.get(Get::new(key.clone()).local()).await?.entry;
            let Some(entry) = entry.filter(|entry| entry.mod_revision == seen) else { continue };
            let stamp = entry.value.first_chunk::<STAMP_BYTES>().copied().unwrap_or_default();
            if unix_ms.saturating_sub(u64::from_be_bytes(stamp)) < UNNAMED_KEPT_MS {
                continue;
            }
            let batch = mainstay_store::Batch::new()
                .when(Compare::unchanged_since(&key, seen))
                .then(Op::delete(&key));
            removed += usize::from(self.store.apply(batch).await?.succeeded);
        }
        Ok(removed)
    }
}
