//! The reference: a store that is obviously right.
//!
//! One mutex, no threads, nothing durable. Time is a clock turned by hand, and what time brings
//! about (leases that end, bookmarks) happens in [`Memory::tick`]. Every other backend is compared
//! with this one, operation by operation. No running node uses it: `mainstay dev --ephemeral` is
//! the embedded store in a temporary directory.

mod state;
#[cfg(test)]
mod tests;
mod watching;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Clock;
use parking_lot::{Mutex, MutexGuard};

use crate::batch::{Applied, Batch};
use crate::entry::{LeaseId, Revision};
use crate::error::Error;
use crate::lease::{Granted, LeaseStatus};
use crate::read::{Get, Got, Page, RangeRequest};
use crate::snapshot::{Snapshot, SnapshotHead};
use crate::store::{Pending, Status, Store, StoreId};
use crate::stream::Iter;
use crate::watch::{Watch, WatchRequest};

use state::State;
use watching::Watching;

/// The store in memory. Clones are handles of the same store.
#[derive(Clone)]
pub struct Memory {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

impl Memory {
    /// An empty store that takes the time from `clock`.
    pub fn new(clock: impl Clock + 'static) -> Self {
        Self { clock: Arc::new(clock), state: Arc::default() }
    }

    /// Does what is due: ends leases, and tells idle watches how far they are. To be called at
    /// least every second of the clock, or it counts as a pause.
    pub fn tick(&self) {
        self.state.lock().tick(self.clock.now());
    }

    /// The state, unless the store is closed.
    fn open(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state.lock();
        if state.is_closed() { Err(Error::Closed) } else { Ok(state) }
    }
}

impl Store for Memory {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        Box::pin(async move { self.open()?.get(&get) })
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        Box::pin(async move { self.open()?.range(&request) })
    }

    fn apply(&self, batch: Batch) -> Pending<'_, Applied> {
        Box::pin(async move { self.open()?.apply(&batch) })
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        Watching::start(self, request).map(Watch::new)
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        Box::pin(async move { self.open()?.grant(self.clock.now(), ttl, id) })
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        Box::pin(async move { self.open()?.leases.keep_alive(self.clock.now(), id) })
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        Box::pin(async move { self.open()?.revoke(id) })
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        Box::pin(async move { self.open()?.leases.status(self.clock.now(), id) })
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        Box::pin(async move { self.open()?.compact(revision) })
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        Box::pin(async move {
            let state = self.open()?;
            let head = SnapshotHead {
                store: STORE_ID,
                revision: state.revision,
                compacted: state.compacted,
            };
            let items = Iter(state.everything().into_iter().map(Ok));
            Ok(Snapshot::new(head, items))
        })
    }

    fn status(&self) -> Pending<'_, Status> {
        Box::pin(async move { Ok(self.state.lock().status(STORE_ID)) })
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.state.lock().close();
            Ok(())
        })
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Memory").field("revision", &state.revision).finish_non_exhaustive()
    }
}

/// Every store in memory has the same history at its start.
const STORE_ID: StoreId = StoreId::new(1);
