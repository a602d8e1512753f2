//! Reading a set of results with its index, and waiting for its next change.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::select_all;
use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{
    Entry, Error, Key, Range, RangeRequest, Revision, Select, WatchItem, WatchRequest,
};

use super::{Consul, ConsulError, Shared};
use crate::random;

/// How long a read waits for this node to have seen what the store had already.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// Whether values are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Read,
    Skip,
}

/// What ranges held at one revision.
#[derive(Debug)]
pub struct Found {
    /// Entries of each range, by key.
    pub entries: Vec<Vec<Entry>>,
    /// The revision of the last change of this set, deletions included.
    pub index: Revision,
    /// The revision at which it was read.
    pub read: Revision,
}

impl Consul {
    /// Reads `ranges` at one revision, with the index of what they hold.
    ///
    /// # Errors
    ///
    /// What the store said; [`ConsulError::Behind`] when this node has not heard from it for 5 s.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn find(&self, ranges: &[Range]) -> Result<Found, ConsulError> {
        self.find_parts(ranges, Values::Read).await
    }

    async fn find_parts(&self, ranges: &[Range], values: Values) -> Result<Found, ConsulError> {
        let shared = &self.shared;
        let until = shared.timer.now().plus(BEHIND_MAX);
        while shared.timer.now() < until {
            let (read, entries) = list(shared, ranges, values).await?;
            let mut seen = shared.seen.subscribe();
            tokio::select! {
                there = seen.wait_for(|seen| read <= *seen) => drop(there),
                () = shared.timer.sleep_until(until) => break,
            }
            let newest = entries.iter().flatten().map(|entry| entry.mod_revision).max();
            let newest = newest.unwrap_or(Revision::NEVER);
            if let Some(index) = shared.deletions.lock().index(ranges, newest, read) {
                return Ok(Found { entries, index, read });
            }
        }
        Err(ConsulError::Behind)
    }

    /// Reads `ranges` once their index is past `after`, or the time is over: a blocking query. One
    /// that names no index, or one this store never reached, is answered at once. `wait` is made
    /// longer by up to a sixteenth, so that queries that began together do not end together.
    ///
    /// # Errors
    ///
    /// As [`find`](Consul::find).
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn find_after(
        &self,
        ranges: &[Range],
        after: Revision,
        wait: Duration,
    ) -> Result<Found, ConsulError> {
        self.parts_after(ranges, Values::Read, after, wait).await
    }

    /// As [`find_after`](Consul::find_after), for the keys of one range: no value is read.
    ///
    /// # Errors
    ///
    /// As [`find`](Consul::find).
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn keys_after(
        &self,
        range: Range,
        after: Revision,
        wait: Duration,
    ) -> Result<(Revision, Vec<Key>), ConsulError> {
        let found = self.parts_after(&[range], Values::Skip, after, wait).await?;
        let keys = found.entries.into_iter().flatten().map(|entry| entry.key).collect();
        Ok((found.index, keys))
    }

    async fn parts_after(
        &self,
        ranges: &[Range],
        values: Values,
        after: Revision,
        wait: Duration,
    ) -> Result<Found, ConsulError> {
        let timer = &self.shared.timer;
        let until = timer.now().plus(wait + wait.mul_f64(random::share() / 16.0));
        loop {
            let found = self.find_parts(ranges, values).await?;
            let left = until.since(timer.now());
            let is_new = after < found.index || found.read < after;
            if after == Revision::NEVER || is_new || left.is_zero() {
                return Ok(found);
            }
            self.changed(ranges, found.read, left).await?;
        }
    }

    /// Waits until something in `ranges` has changed after `read`, or for `wait`. Nothing else
    /// wakes it.
    ///
    /// # Errors
    ///
    /// What the store says to a watch.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn changed(
        &self,
        ranges: &[Range],
        read: Revision,
        wait: Duration,
    ) -> Result<(), ConsulError> {
        let shared = &self.shared;
        let until = shared.timer.now().plus(wait);
        let mut changes = Vec::with_capacity(ranges.len());
        for range in ranges {
            let request = WatchRequest::new(range.clone()).from(read.next()).quiet();
            let mut watch = shared.store.watch(request)?;
            changes.push(Box::pin(async move {
                loop {
                    match watch.next().await {
                        Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => {}
                        // History went while it waited: whoever reads again finds out.
                        Some(WatchItem::Changes { .. } | WatchItem::Compacted { .. }) => {
                            return Ok(());
                        }
                        Some(WatchItem::Denied | WatchItem::Closed) | None => {
                            return Err(Error::Closed);
                        }
                    }
                }
            }));
        }
        if changes.is_empty() {
            shared.timer.sleep_until(until).await;
            return Ok(());
        }
        tokio::select! {
            (changed, _, _) = select_all(changes) => Ok(changed?),
            () = shared.timer.sleep_until(until) => Ok(()),
        }
    }
}

/// Every entry of each range at one revision, page by page.
async fn list(
    shared: &Shared,
    ranges: &[Range],
    values: Values,
) -> Result<(Revision, Vec<Vec<Entry>>), ConsulError> {
    let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
    let (mut at, mut found) = (None, Vec::with_capacity(ranges.len()));
    for range in ranges {
        let (mut range, mut entries) = (range.clone(), Vec::new());
        loop {
            let select = Select::new(range.clone()).limit(limit);
            let mut request = RangeRequest::new(match values {
                Values::Read => select,
                Values::Skip => select.keys_only(),
            });
            request.at = at;
            let page = shared.store.range(request).await?;
            at.get_or_insert(page.revision);
            entries.extend(page.entries);
            match entries.last() {
                Some(last) if page.more => range = range.after(&last.key),
                _ => break,
            }
        }
        found.push(entries);
    }
    Ok((at.unwrap_or(Revision::FIRST), found))
}
