//! Hearing of deletions.
//!
//! It watches everything, not only the keys of this door: a watch of a part says nothing of
//! revisions that changed other parts, and a read could not tell whether this node has heard of
//! all that lies before it.

use std::time::Duration;

use mainstay_store::{Error, Event, Key, Range, Revision, WatchItem, WatchRequest};
use tokio_util::sync::CancellationToken;

use super::{Consul, Shared};
use crate::events::consul::FollowingStore;

/// Wait before following the store again.
const PAUSE: Duration = Duration::from_secs(1);

/// First segments of keys whose deletions are remembered.
const AREAS: [&[u8]; 5] = [b"cat/", b"ckv/", b"cses/", b"ins/", b"node/"];

/// Follows the store until told to stop.
pub(super) async fn run(consul: Consul, stop: CancellationToken) {
    let shared = &*consul.shared;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(shared) => ended,
        };
        FollowingStore { what: "deletions", why: &ended.to_string() }.emit();
        let until = shared.timer.now().plus(PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.timer.sleep_until(until) => {}
        }
    }
}

async fn follow(shared: &Shared) -> Error {
    match try_follow(shared).await {
        Ok(()) => Error::Closed,
        Err(error) => error,
    }
}

async fn try_follow(shared: &Shared) -> Result<(), Error> {
    let seen = *shared.seen.borrow();
    let mut request = WatchRequest::new(Range::all());
    let is_first = seen == Revision::NEVER;
    if !is_first {
        request = request.from(seen.next());
    }
    let mut watch = shared.store.watch(request)?;
    while let Some(item) = watch.next().await {
        match item {
            WatchItem::Created { revision } if is_first => {
                shared.deletions.lock().begin(revision);
                shared.heard(revision);
            }
            WatchItem::Created { .. } => {}
            WatchItem::Bookmark { revision } => shared.take(revision, Vec::new()),
            WatchItem::Changes { revision, events } => {
                let gone = events.iter().filter(|event| event.entry().is_none());
                let ours = gone.map(Event::key);
                let ours = ours.filter(|key| AREAS.iter().any(|area| key.starts_with(area)));
                shared.take(revision, ours.cloned().collect());
            }
            WatchItem::Compacted { .. } => {
                // What went meanwhile is not known: everything counts as changed until now.
                let revision = shared.store.status().await?.revision;
                shared.deletions.lock().begin(revision);
                shared.heard(revision);
                return Ok(());
            }
            WatchItem::Denied | WatchItem::Closed => break,
        }
    }
    Ok(())
}

impl Shared {
    fn take(&self, revision: Revision, keys: Vec<Key>) {
        self.deletions.lock().take(revision, keys);
        self.heard(revision);
    }

    fn heard(&self, revision: Revision) {
        self.seen.send_if_modified(|seen| {
            let is_newer = *seen < revision;
            *seen = (*seen).max(revision);
            is_newer
        });
    }
}
