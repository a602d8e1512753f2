//! Hearing of the end of a key.

use std::future::pending;
use std::time::Duration;

use mainstay_store::{Error, Get, Key, Range, Revision, WatchItem, WatchRequest};

use crate::coordination::Coordination;

/// Waits until the life of `key` that began at `created` has ended.
///
/// It reads, then watches from there, and begins anew when history was compacted or the store was
/// away. When the store is closed it waits for ever: whoever relies on the key has a clock.
///
/// # Cancel safety
///
/// Safe: nothing is kept.
pub(crate) async fn gone(ground: &Coordination, key: &Key, created: Revision) {
    loop {
        match gone_once(ground, key, created).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(Error::Closed) => pending().await,
            Err(error) => {
                let pause = error.retry_after().unwrap_or_default().max(PAUSE);
                ground.timer().sleep_until(ground.now().plus(pause)).await;
            }
        }
    }
}

/// Waits likewise; `false` when the watch ended before the key did.
async fn gone_once(ground: &Coordination, key: &Key, created: Revision) -> Result<bool, Error> {
    let got = ground.store().get(Get::new(key.clone())).await?;
    if got.entry.is_none_or(|entry| entry.create_revision != created) {
        return Ok(true);
    }
    let request = WatchRequest::new(Range::key(key)).from(got.revision.next());
    let mut watch = ground.store().watch(request.deletes_only().quiet())?;
    loop {
        match watch.next().await {
            Some(WatchItem::Changes { .. }) => return Ok(true),
            Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => {}
            Some(WatchItem::Compacted { .. }) => return Ok(false),
            Some(WatchItem::Closed | WatchItem::Denied) | None => return Err(Error::Closed),
        }
    }
}

/// Between two tries to watch.
const PAUSE: Duration = Duration::from_millis(500);
