//! What every part of a node's registry shares.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::{Entry, Event, Revision, Store};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use super::Options;
use super::error::RegistryError;
use super::figures::Figures;
use super::local::Local;
use crate::audit::Outbox;
use crate::clock::Timer;
use crate::keys::{InstanceRef, RegistryArea};
use crate::tasks::Tasks;

/// The store, the clock, and what the node knows.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) timer: Arc<dyn Timer>,
    pub(super) outbox: Outbox,
    pub(super) options: Options,
    pub(super) tasks: Tasks,
    pub(super) figures: Figures,
    pub(super) local: Mutex<Local>,
    /// Counts what the copy has taken in, for those who wait for it.
    pub(super) taken: watch::Sender<u64>,
    /// There is something to publish.
    pub(super) news: Notify,
    /// A node came or went.
    pub(super) nodes: Notify,
}

/// How long a write, or whoever named a revision, waits for the copy.
pub(super) const APPLIED_WITHIN: Duration = Duration::from_secs(5);

impl Shared {
    pub(super) fn now(&self) -> Instant {
        self.timer.now()
    }

    pub(super) fn loaded(&self) -> Result<MutexGuard<'_, Local>, RegistryError> {
        let local = self.local.lock();
        if local.copy.is_loaded() { Ok(local) } else { Err(RegistryError::Loading) }
    }

    /// Whether `at` is registered, as far as can be said: while the store is away, an instance
    /// that is not known here may have been registered elsewhere.
    pub(super) fn known(&self, local: &Local, at: &InstanceRef) -> Result<bool, RegistryError> {
        if local.copy.instance(at).is_some() {
            return Ok(true);
        }
        if local.is_whole() { Ok(false) } else { Err(RegistryError::Loading) }
    }

    /// Takes in the changes of one revision, or that there were none up to it.
    pub(super) fn apply(&self, area: RegistryArea, revision: Revision, events: &[Event]) {
        let now = self.now();
        {
            let mut local = self.local.lock();
            let touched = local.copy.apply(now, area, revision, events);
            local.take(now, touched);
        }
        self.took(area);
    }

    /// Takes in the whole of `area`; `true` when the store had been away.
    pub(super) fn replace(
        &self,
        area: RegistryArea,
        revision: Revision,
        entries: &[Entry],
    ) -> bool {
        let now = self.now();
        let was_away = {
            let mut local = self.local.lock();
            let touched = local.copy.replace(now, area, revision, entries);
            local.take(now, touched);
            let was_away = local.away_since_unix_ms().is_some();
            local.is_back(now, area);
            was_away
        };
        self.took(area);
        was_away
    }

    /// Marks the copy of `area` as stale; `true` when it was not before.
    pub(super) fn away(&self, area: RegistryArea) -> bool {
        let is_new = self.local.lock().is_away(self.timer.unix_millis(), area);
        self.news.notify_one();
        is_new
    }

    pub(super) fn took(&self, area: RegistryArea) {
        self.taken.send_modify(|count| *count += 1);
        self.news.notify_one();
        if area == RegistryArea::Nodes {
            self.nodes.notify_one();
        }
    }

    /// Waits until `ask` has an answer.
    pub(super) async fn when<T>(&self, mut ask: impl FnMut(&Local) -> Option<T>) -> T {
        let mut taken = self.taken.subscribe();
        loop {
            if let Some(answer) = ask(&self.local.lock()) {
                return answer;
            }
            if taken.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until the copy of `area` is at `revision`; `false` when it is not in time.
    pub(super) async fn applied(&self, area: RegistryArea, revision: Revision) -> bool {
        let until = self.now().plus(APPLIED_WITHIN);
        let is_there = |local: &Local| (revision <= local.copy.revision(area)).then_some(());
        tokio::select! {
            biased;
            () = self.when(is_there) => true,
            () = self.timer.sleep_until(until) => false,
        }
    }
}
