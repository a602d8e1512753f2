//! Keeps count of the outbox, and trims it.
//!
//! Every node counts by a watch. The first that finds too much trims: its batch compares
//! `aud/trimmed` as its own watch has shown it, so a node that has not yet seen what another one
//! trimmed cannot trim the same again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{
    Batch, Compare, Entry, Error, Event, Op, Put, Range, RangeRequest, Revision, Select, WatchItem,
    WatchRequest,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::tally::Tally;
use crate::events::audit::{OutboxTrimmed, TrimFailed};
use crate::keys;
use crate::moment::Moment;

/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What `aud/trimmed` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Trimmed {
    v: u32,
    /// How many records were trimmed so far.
    pub records: u64,
    /// When some last were.
    pub last: Moment,
}

impl Trimmed {
    pub(super) fn read(entry: Option<&Entry>) -> Self {
        entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default()
    }
}

/// What one node knows of the outbox.
#[derive(Debug, Default)]
struct Count {
    tally: Tally,
    trimmed: Trimmed,
    /// When `trimmed` was written.
    written: Revision,
}

impl Count {
    fn take(&mut self, event: &Event) {
        if *event.key() == keys::audit_trimmed() {
            self.trimmed = Trimmed::read(event.entry());
            self.written = event.entry().map_or(Revision::NEVER, |entry| entry.mod_revision);
        } else if keys::audit_records().contains(event.key()) {
            if let Some(before) = &event.previous {
                self.tally.remove(before.bytes() as u64);
            }
            if let Some(entry) = event.entry() {
                self.tally.add(entry.bytes() as u64);
            }
        }
    }
}

/// Counts and trims until told to stop.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(&shared) => ended,
        };
        if matches!(ended, Error::Compacted { .. }) {
            continue;
        }
        let until = shared.timer.now().plus(PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.timer.sleep_until(until) => {}
        }
    }
}

async fn follow(shared: &Shared) -> Error {
    let (mut count, revision) = match counted(shared).await {
        Ok(counted) => counted,
        Err(error) => return error,
    };
    let request = WatchRequest::new(keys::audit_area()).from(revision.next()).previous();
    let mut watch = match shared.store.watch(request) {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        shared.counted(count.tally);
        if let Some(excess) = count.tally.excess(shared.limits)
            && let Err(error) = trim(shared, &count, excess).await
        {
            // Tried again with the next record, or bookmark.
            TrimFailed { error: &error }.emit();
        }
        match watch.next().await {
            Some(WatchItem::Changes { events, .. }) => {
                for event in &events {
                    count.take(event);
                }
            }
            Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => {}
            Some(WatchItem::Compacted { compacted }) => return Error::Compacted { compacted },
            Some(WatchItem::Denied | WatchItem::Closed) | None => return Error::Closed,
        }
    }
}

/// Counts everything, page by page.
async fn counted(shared: &Shared) -> Result<(Count, Revision), Error> {
    let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
    let (mut count, mut at, mut range) = (Count::default(), None, keys::audit_area());
    loop {
        let mut request = RangeRequest::new(Select::new(range.clone()).limit(limit));
        request.at = at;
        let page = shared.store.range(request).await?;
        let revision = *at.get_or_insert(page.revision);
        for entry in &page.entries {
            if entry.key == keys::audit_trimmed() {
                count.trimmed = Trimmed::read(Some(entry));
                count.written = entry.mod_revision;
            } else if keys::audit_records().contains(&entry.key) {
                count.tally.add(entry.bytes() as u64);
            }
        }
        match page.entries.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => return Ok((count, revision)),
        }
    }
}

/// Deletes the oldest records, `excess` of them, and counts them where everybody sees it.
async fn trim(shared: &Shared, count: &Count, excess: Tally) -> Result<(), Error> {
    let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
    let select = Select::new(keys::audit_records()).limit(limit);
    let page = shared.store.range(RangeRequest::new(select)).await?;
    let mut gone = Tally::default();
    let mut last = None;
    for entry in &page.entries {
        if excess.records <= gone.records && excess.bytes <= gone.bytes {
            break;
        }
        gone.add(entry.bytes() as u64);
        last = Some(&entry.key);
    }
    let Some(last) = last else { return Ok(()) };
    let end = Range::key(last).to().cloned();
    let trimmed =
        Trimmed { v: 1, records: count.trimmed.records + gone.records, last: shared.moment() };
    let value = serde_json::to_vec(&trimmed).expect("numbers and text are JSON");
    let key = keys::audit_trimmed();
    let batch = Batch::new()
        .when(Compare::unchanged_since(&key, count.written))
        .then(Op::delete_range(Range::between(keys::audit_records().from().clone(), end)))
        .then(Put::new(key, value));
    if shared.store.apply(batch).await?.succeeded {
        shared.figures.trimmed(gone.records);
        OutboxTrimmed { records: gone.records, total: trimmed.records }.emit();
    }
    Ok(())
}
