//! A process' way to the store: nothing passes while it stands still, and mistakes can be built in.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{
    Applied, Batch, Error, Get, Got, Granted, LeaseId, LeaseStatus, Op, Page, Pending,
    RangeRequest, Revision, Snapshot, Status, Store, Watch, WatchRequest,
};

use super::mutant::Mutant;
use crate::clock::{SkewedClock, spawn};
use crate::draw::Draw;
use crate::link::Link;

/// The way of one process.
#[derive(Debug)]
pub(super) struct Way {
    link: Arc<Link>,
    clock: SkewedClock,
    draw: Draw,
    mutant: Option<Mutant>,
}

impl Way {
    pub(super) const fn new(
        link: Arc<Link>,
        clock: SkewedClock,
        draw: Draw,
        mutant: Option<Mutant>,
    ) -> Self {
        Self { link, clock, draw, mutant }
    }

    /// Writes how far the lane is, and the records some time later, if the process still runs.
    async fn write_later(&self, mut batch: Batch) -> Result<Applied, Error> {
        let (lane, records) = batch.then.into_iter().partition(is_of_lane);
        batch.then = lane;
        let applied = self.link.apply(batch).await?;
        if applied.succeeded {
            let (link, clock) = (Arc::clone(&self.link), self.clock.clone());
            spawn(async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                clock.running().await;
                drop(link.apply(Batch { then: records, ..Batch::new() }).await);
            });
        }
        Ok(applied)
    }
}

impl Store for Way {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        Box::pin(async move {
            self.clock.running().await;
            self.link.get(get).await
        })
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        Box::pin(async move {
            self.clock.running().await;
            self.link.range(request).await
        })
    }

    fn apply(&self, mut batch: Batch) -> Pending<'_, Applied> {
        Box::pin(async move {
            self.clock.running().await;
            let is_of_log = batch.then.iter().any(is_of_lane) && 1 < batch.then.len();
            match self.mutant.filter(|_| is_of_log) {
                Some(Mutant::NoEpoch) => {
                    batch.compares.clear();
                    self.link.apply(batch).await
                }
                Some(Mutant::EffectBeforeWritten) => self.write_later(batch).await,
                Some(Mutant::SilenceIsWritten) => match self.link.apply(batch).await {
                    Err(Error::OutcomeUnknown) => {
                        let (succeeded, revision) = (true, Revision::NEVER);
                        Ok(Applied { succeeded, revision, answers: Vec::new() })
                    }
                    answer => answer,
                },
                _ => self.link.apply(batch).await,
            }
        })
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        self.link.watch(request)
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        Box::pin(async move {
            self.clock.running().await;
            // What the store would draw is drawn from the seed.
            let id = id.or_else(|| LeaseId::new(self.draw.number() >> 1));
            self.link.grant(ttl, id).await
        })
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        Box::pin(async move {
            self.clock.running().await;
            self.link.keep_alive(id).await
        })
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        Box::pin(async move {
            self.clock.running().await;
            self.link.revoke(id).await
        })
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        self.link.lease(id)
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        self.link.compact(revision)
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        self.link.snapshot()
    }

    fn status(&self) -> Pending<'_, Status> {
        self.link.status()
    }

    fn close(&self) -> Pending<'_, ()> {
        self.link.close()
    }
}

/// Whether an operation says how far a lane is, which every batch of the log does.
fn is_of_lane(op: &Op) -> bool {
    matches!(op, Op::Put(put) if put.key.starts_with(b"txn/lane/"))
}
