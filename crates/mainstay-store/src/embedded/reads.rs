//! Reads of the published state.
//!
//! They run where they are asked for, without a thread of their own: index and engine answer from
//! memory, or from pages the kernel has. What is read is found and held under the view's lock, so
//! neither a commit nor a compaction can come between.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::engine::{Fault, Reading};
use super::index::Place;
use super::record::Record;
use super::shared::Shared;
use crate::entry::{Entry, Revision};
use crate::error::Error;
use crate::key::{Key, Range};
use crate::read::{Get, Got, Page, PageMaker, RangeRequest};
use crate::snapshot::{Snapshot, SnapshotHead, SnapshotItem};

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Unavailable { why: fault.chain() }
    }
}

pub(super) fn get(shared: &Shared, get: &Get) -> Result<Got, Error> {
    shared.open()?;
    let (place, reading, revision) = {
        let view = shared.view.read();
        let at = view.readable(get.at)?;
        let Some(place) = view.index.at(&get.key, at) else {
            return Ok(Got { entry: None, revision: view.revision });
        };
        (place, shared.engine.read()?, view.revision)
    };
    Ok(Got { entry: Some(entry(&reading, place)?), revision })
}

pub(super) fn range(shared: &Shared, request: &RangeRequest) -> Result<Page, Error> {
    shared.open()?;
    let select = &request.select;
    let view = shared.view.read();
    let at = view.readable(request.at)?;
    let revision = view.revision;
    let mut page = PageMaker::new(select, revision);
    if select.keys_only || select.count_only {
        for (key, place) in view.index.range(&select.range, at) {
            page.push(|| place.entry(key).ok_or(Fault::Malformed))?;
        }
        return Ok(page.finish());
    }
    // One more than the page holds, so that it knows whether there are more.
    let mut found = view.index.range(&select.range, at);
    let places: Vec<Place> =
        found.by_ref().take(select.entries_max() + 1).map(|(_, place)| place).collect();
    let beyond = found.count() as u64;
    let reading = shared.engine.read()?;
    drop(view);
    for place in places {
        page.push(|| entry(&reading, place))?;
    }
    let mut page = page.finish();
    page.count += beyond;
    Ok(page)
}

fn entry(reading: &Reading<'_>, place: Place) -> Result<Entry, Fault> {
    match reading.record(place.position)? {
        Record::Put(entry) => Ok(entry),
        Record::Delete(_) => Err(Fault::Malformed),
    }
}

/// Everything as of now. What it needs stays in the log until it is dropped.
pub(super) fn snapshot(shared: &Arc<Shared>) -> Result<Snapshot, Error> {
    shared.open()?;
    let mut view = shared.view.write();
    let (revision, compacted) = (view.revision, view.compacted);
    *view.pins.entry(revision).or_default() += 1;
    let pin = Pinned { shared: Arc::clone(shared), revision };
    // Under the view's lock, so the leases are those of this revision.
    let leases = shared.leases.lock();
    let items = leases.live().map(|lease| SnapshotItem::Lease { id: lease.id, ttl: lease.ttl });
    let ready = items.collect();
    drop(leases);
    drop(view);
    let head = SnapshotHead { store: shared.store, revision, compacted };
    Ok(Snapshot::new(head, Everything { pin, ready, rest: Some(Range::all()) }))
}

/// Keeps what a revision needs in the log.
struct Pinned {
    shared: Arc<Shared>,
    revision: Revision,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut view = self.shared.view.write();
        if let Some(count) = view.pins.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                view.pins.remove(&self.revision);
            }
        }
    }
}

struct Everything {
    pin: Pinned,
    ready: VecDeque<SnapshotItem>,
    /// Keys not yet read.
    rest: Option<Range>,
}

impl Everything {
    /// Reads the next keys.
    fn fill(&mut self, rest: &Range) -> Result<(), Error> {
        let shared = &self.pin.shared;
        shared.open()?;
        let (places, reading) = {
            let view = shared.view.read();
            let found = view.index.range(rest, self.pin.revision).take(SNAPSHOT_KEYS);
            let places: Vec<(Key, Place)> =
                found.map(|(key, place)| (key.clone(), place)).collect();
            (places, shared.engine.read()?)
        };
        self.rest = match places.last() {
            Some((last, _)) if places.len() == SNAPSHOT_KEYS => Some(rest.after(last)),
            _ => None,
        };
        for (_, place) in places {
            self.ready.push_back(SnapshotItem::Entry(entry(&reading, place)?));
        }
        Ok(())
    }
}

impl Stream for Everything {
    type Item = Result<SnapshotItem, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ready.is_empty()
            && let Some(rest) = self.rest.take()
            && let Err(error) = self.fill(&rest)
        {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(self.ready.pop_front().map(Ok))
    }
}

/// Keys read at once: at most 16 MiB of values of 1 MiB.
const SNAPSHOT_KEYS: usize = 16;
