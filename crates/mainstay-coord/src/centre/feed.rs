//! Keeps the copy in step with the store: a list at one revision, a watch from the next, and all
//! of it anew when history was compacted or the store was away.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::limits::BOOKMARK_EVERY;
use mainstay_store::{Error, Revision, WatchItem, WatchRequest};
use tokio_util::sync::CancellationToken;

use super::copy::{Copy, Touched};
use super::read::each;
use super::shared::Shared;
use crate::events::centre::{Resynced, StoreReach};
use crate::events::registry::RecordUnreadable;
use crate::keys;
use crate::random;

/// First pause after a failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Without a sign for this long, the store is taken to be away: two bookmarks missed.
const SILENCE_MAX: Duration = Duration::from_secs(BOOKMARK_EVERY.as_secs() * 5 / 2);

/// Why a feed begins anew.
enum Ended {
    Compacted(Revision),
    Away(String),
}

/// Keeps the copy in step until told to stop.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut pause = PAUSE_MIN;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(&shared) => ended,
        };
        match ended {
            Ended::Compacted(compacted) => {
                Resynced { compacted }.emit(&shared.figures);
                pause = PAUSE_MIN;
                continue;
            }
            Ended::Away(why) => {
                if shared.away() {
                    StoreReach { why: Some(&why) }.emit();
                    pause = PAUSE_MIN;
                }
            }
        }
        let until = shared.now().plus(pause.mul_f64(0.5 + random::share() / 2.0));
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.timer.sleep_until(until) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn follow(shared: &Shared) -> Ended {
    let (mut fresh, mut unreadable) = (Copy::default(), Vec::new());
    let add = |entry| {
        if let Some(Touched::Unreadable(key)) = fresh.add(&entry) {
            RecordUnreadable { key: &key }.emit();
            unreadable.push(key);
        }
    };
    let revision = match each(&*shared.store, keys::configuration(), false, None, add).await {
        Ok(revision) => revision,
        Err(Error::Compacted { compacted }) => return Ended::Compacted(compacted),
        Err(error) => return Ended::Away(error.to_string()),
    };
    let request = WatchRequest::new(keys::configuration()).from(revision.next());
    let mut watch = match shared.store.watch(request) {
        Ok(watch) => watch,
        Err(error) => return Ended::Away(error.to_string()),
    };
    if shared.replace(revision, fresh, &unreadable) {
        StoreReach { why: None }.emit();
    }
    loop {
        let silence = shared.timer.sleep_until(shared.now().plus(SILENCE_MAX));
        let item = tokio::select! {
            biased;
            item = watch.next() => item,
            () = silence => return Ended::Away("nothing was heard of it".to_owned()),
        };
        match item {
            Some(WatchItem::Created { .. }) => {}
            Some(WatchItem::Bookmark { revision }) => shared.apply(revision, &[]),
            Some(WatchItem::Changes { revision, events }) => shared.apply(revision, &events),
            Some(WatchItem::Compacted { compacted }) => return Ended::Compacted(compacted),
            Some(WatchItem::Denied) => return Ended::Away("it may not be read".to_owned()),
            Some(WatchItem::Closed) | None => return Ended::Away("it is closed".to_owned()),
        }
    }
}
