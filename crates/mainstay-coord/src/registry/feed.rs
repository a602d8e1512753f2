//! Keeps the copy in step with the store.
//!
//! A feed lists an area at one revision, watches from the next, and begins anew when history was
//! compacted or the store was away. Four of them run, one an area; each is in order, and what must
//! be seen together (an instance that goes, and why) lies in one area.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::limits::BOOKMARK_EVERY;
use mainstay_store::{Error, Revision, WatchItem, WatchRequest};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::listing::list_all;
use crate::events::registry::{Resynced, StoreReach};
use crate::keys::RegistryArea;
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

/// Keeps `area` of the copy in step until told to stop.
pub(super) async fn run(shared: Arc<Shared>, area: RegistryArea, stop: CancellationToken) {
    let mut pause = PAUSE_MIN;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(&shared, area) => ended,
        };
        match ended {
            Ended::Compacted(compacted) => {
                Resynced { area, compacted }.emit(&shared.figures);
                pause = PAUSE_MIN;
                continue;
            }
            Ended::Away(why) => {
                if shared.away(area) {
                    StoreReach { area, why: Some(&why) }.emit();
                    pause = PAUSE_MIN;
                }
            }
        }
        let jittered = pause.mul_f64(0.5 + random::share() / 2.0);
        let until = shared.now().plus(jittered);
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.timer.sleep_until(until) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn follow(shared: &Shared, area: RegistryArea) -> Ended {
    let (revision, entries) = match list_all(&*shared.store, area.range()).await {
        Ok(listed) => listed,
        Err(Error::Compacted { compacted }) => return Ended::Compacted(compacted),
        Err(error) => return Ended::Away(error.to_string()),
    };
    let request = WatchRequest::new(area.range()).from(revision.next());
    let mut watch = match shared.store.watch(request) {
        Ok(watch) => watch,
        Err(error) => return Ended::Away(error.to_string()),
    };
    if shared.replace(area, revision, &entries) {
        StoreReach { area, why: None }.emit();
    }
    drop(entries);
    loop {
        let silence = shared.timer.sleep_until(shared.now().plus(SILENCE_MAX));
        let item = tokio::select! {
            biased;
            item = watch.next() => item,
            () = silence => return Ended::Away("nothing was heard of it".to_owned()),
        };
        match item {
            Some(WatchItem::Created { .. }) => {}
            Some(WatchItem::Bookmark { revision }) => shared.apply(area, revision, &[]),
            Some(WatchItem::Changes { revision, events }) => shared.apply(area, revision, &events),
            Some(WatchItem::Compacted { compacted }) => return Ended::Compacted(compacted),
            Some(WatchItem::Denied) => return Ended::Away("it may not be read".to_owned()),
            Some(WatchItem::Closed) | None => return Ended::Away("it is closed".to_owned()),
        }
    }
}
