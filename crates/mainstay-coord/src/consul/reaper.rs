//! Ending sessions.
//!
//! Every node watches the lives of sessions and ends those that went; the batch that does it
//! compares, so it happens once however many try.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{
    Batch, Compare, Error, Get, LeaseId, Op, Put, RangeRequest, Select, WatchItem, WatchRequest,
};
use tokio_util::sync::CancellationToken;

use super::kv::nothing_newer;
use super::pair::Pair;
use super::session::{Behavior, ConsulSession};
use super::{Consul, ConsulError};
use crate::events::consul::FollowingStore;
use crate::keys::{self, ConsulSessionId};
use crate::patience::Patience;

/// Pairs freed by one batch: each costs one compare and three operations, of 128 each.
const FREED_MAX: u32 = 40;

/// Bytes of pairs in one batch; the store takes 1,400,000, keys and marks included.
const FREED_BYTES_MAX: usize = 1_000_000;

/// Wait before following the store again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Somebody asked for it.
    Destroyed,
    /// Its life has gone.
    Expired,
}

impl Consul {
    pub(super) async fn end_session(
        &self,
        id: &ConsulSessionId,
        cause: Cause,
    ) -> Result<(), ConsulError> {
        let timer = &*self.shared.timer;
        let mut patience = Patience::new(timer.now(), Patience::FOR_CALLERS);
        loop {
            match self.try_end(id, cause).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Whatever came of a try, the next one reads what is left to do.
                Err(ConsulError::Store(error)) => patience.bear(timer, error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// One batch; `true` when nothing is left to do.
    async fn try_end(&self, id: &ConsulSessionId, cause: Cause) -> Result<bool, ConsulError> {
        let store = &*self.shared.store;
        let Some(entry) = store.get(Get::new(id.record())).await?.entry else { return Ok(true) };
        let session = ConsulSession::read(&entry)?;
        let mut batch = Batch::new().when(Compare::unchanged_since(&entry.key, entry.mod_revision));
        if cause == Cause::Expired {
            if store.get(Get::new(id.life())).await?.entry.is_some() {
                return Ok(true);
            }
            batch = batch.when(Compare::missing(&id.life()));
        }
        let limit = NonZeroU32::new(FREED_MAX).expect("40");
        let request = RangeRequest::new(Select::new(id.holds()).limit(limit));
        let page = store.range(request).await?;
        let mut delay = None;
        let (mut bytes, mut is_whole) = (0, !page.more);
        for mark in &page.entries {
            let Some(name) = id.held(&mark.key) else { continue };
            let at = Get::new(name.pair()).at(page.revision);
            let Some(found) = store.get(at).await?.entry else {
                batch = batch.then(Op::delete(&mark.key));
                continue;
            };
            if FREED_BYTES_MAX < bytes + found.bytes() && 0 < bytes {
                is_whole = false;
                break;
            }
            bytes += found.bytes();
            batch = batch
                .when(Compare::unchanged_since(&found.key, found.mod_revision))
                .then(Op::delete(&mark.key));
            let mut pair = Pair::read(&found)?;
            if pair.session.as_deref() != Some(id.as_str()) {
                continue;
            }
            batch = match session.record.behavior {
                Behavior::Delete => batch.then(Op::delete(&found.key)),
                Behavior::Release => {
                    pair.session = None;
                    batch.then(Put::new(found.key.clone(), pair.record()))
                }
            };
            if let Some(lease) = self.delay(&session, &mut delay).await? {
                batch = batch.then(Put::new(name.delay(), "{\"v\":1}").lease(lease));
            }
        }
        // Whoever acquires meanwhile leaves a mark that this would miss.
        batch = batch.when(nothing_newer(id.holds(), page.revision));
        if is_whole {
            batch = batch.then(Op::delete(&id.record())).then(Op::delete(&id.life()));
        }
        Ok(store.apply(batch).await?.succeeded && is_whole)
    }

    /// The lease of this batch's delays, granted when it is first needed; none without a delay. A
    /// lease that goes unused ends by itself.
    async fn delay(
        &self,
        session: &ConsulSession,
        granted: &mut Option<LeaseId>,
    ) -> Result<Option<LeaseId>, Error> {
        let span = Duration::from_nanos(session.record.lock_delay_nanoseconds);
        if span.is_zero() || granted.is_some() {
            return Ok(*granted);
        }
        *granted = Some(self.shared.store.grant(span, None).await?.id);
        Ok(*granted)
    }
}

/// Ends sessions whose life has gone, until told to stop.
pub(super) async fn run(consul: Consul, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(&consul) => ended,
        };
        FollowingStore { what: "sessions", why: &ended.to_string() }.emit();
        let until = consul.shared.timer.now().plus(PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = consul.shared.timer.sleep_until(until) => {}
        }
    }
}

async fn follow(consul: &Consul) -> ConsulError {
    match try_follow(consul).await {
        Ok(()) => Error::Closed.into(),
        Err(error) => error,
    }
}

async fn try_follow(consul: &Consul) -> Result<(), ConsulError> {
    let store = Arc::clone(&consul.shared.store);
    // Those that went while nobody watched.
    let (revision, sessions) = {
        let found = consul.find(&[keys::consul_sessions()]).await?;
        (found.read, found.entries)
    };
    let request = WatchRequest::new(keys::consul_lives()).from(revision.next()).deletes_only();
    let mut watch = store.watch(request)?;
    for entry in sessions.iter().flatten() {
        let session = ConsulSession::read(entry)?;
        if session.record.lease.is_some() {
            consul.end_session(&session.id, Cause::Expired).await?;
        }
    }
    while let Some(item) = watch.next().await {
        match item {
            WatchItem::Created { .. } | WatchItem::Bookmark { .. } => {}
            WatchItem::Changes { events, .. } => {
                for id in events.iter().filter_map(|event| keys::consul_session(event.key())) {
                    consul.end_session(&id, Cause::Expired).await?;
                }
            }
            WatchItem::Compacted { compacted } => return Err(Error::Compacted { compacted }.into()),
            WatchItem::Denied | WatchItem::Closed => break,
        }
    }
    Ok(())
}
