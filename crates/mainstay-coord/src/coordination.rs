//! What every recipe needs: the store, a clock, tasks, counters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::{Batch, Compare, Get, Put, Revision, Store};
use parking_lot::Mutex;

use crate::clock::Timer;
use crate::figures::Figures;
use crate::keys;
use crate::lock::{Locks, Losses};
use crate::patience::Patience;
use crate::session::Sessions;
use crate::tasks::Tasks;

/// Coordination over one store. Clones share everything.
#[derive(Clone)]
pub struct Coordination {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    timer: Arc<dyn Timer>,
    tasks: Tasks,
    figures: Figures,
    fence: Mutex<Fence>,
    losses: Arc<Losses>,
}

/// What is added to create revisions, as this node last read it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fence {
    pub(crate) base: u64,
    /// When it was written; a batch that relies on it compares this.
    pub(crate) revision: Revision,
}

impl Coordination {
    /// Coordination over `store`, with holders in this process judged by `timer`
    /// ([`BootClock`](crate::clock::BootClock), but in tests).
    pub fn new(store: Arc<dyn Store>, timer: Arc<dyn Timer>) -> Self {
        let shared = Shared {
            store,
            timer,
            tasks: Tasks::default(),
            figures: Figures::default(),
            fence: Mutex::default(),
            losses: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sessions.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// Locks, semaphores and elections.
    pub fn locks(&self) -> Locks {
        Locks::new(self.clone())
    }

    /// What has been counted.
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Ends every session of this process, stops every wait, and waits up to `grace` for it;
    /// returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }

    /// Raises what is added to every fencing token to at least `base`; returns what is now added.
    /// For a store whose revisions began anew: tokens go on above all that were ever given.
    ///
    /// # Errors
    ///
    /// What the store said; [`Error::OutcomeUnknown`](mainstay_store::Error::OutcomeUnknown) is
    /// resolved by reading, so it is never among it.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; calling again does no harm.
    pub async fn raise_fence_base(&self, base: u64) -> Result<u64, mainstay_store::Error> {
        let key = keys::fence_base();
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        loop {
            let known = self.read_fence().await?;
            if base <= known.base {
                return Ok(known.base);
            }
            let batch = Batch::new()
                .when(Compare::unchanged_since(&key, known.revision))
                .then(Put::new(key.clone(), base.to_string()));
            if let Err(error) = self.store().apply(batch).await {
                patience.bear(&*self.shared.timer, error).await?;
            }
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.shared.store
    }

    pub(crate) fn timer(&self) -> &dyn Timer {
        &*self.shared.timer
    }

    pub(crate) fn now(&self) -> Instant {
        self.shared.timer.now()
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    pub(crate) fn losses(&self) -> &Arc<Losses> {
        &self.shared.losses
    }

    /// The base of tokens as last read.
    pub(crate) fn fence(&self) -> Fence {
        *self.shared.fence.lock()
    }

    /// Reads the base of tokens.
    pub(crate) async fn read_fence(&self) -> Result<Fence, mainstay_store::Error> {
        let entry = self.store().get(Get::new(keys::fence_base())).await?.entry;
        let fence = match entry {
            None => Fence::default(),
            Some(entry) => {
                let text = std::str::from_utf8(&entry.value).ok();
                let base = text.and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
                    let why = format!("`{}` holds no number", entry.key);
                    mainstay_store::Error::Unavailable { why }
                })?;
                Fence { base, revision: entry.mod_revision }
            }
        };
        let mut known = self.shared.fence.lock();
        if known.revision < fence.revision {
            *known = fence;
        }
        Ok(*known)
    }
}

impl fmt::Debug for Coordination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordination").field("fence", &self.fence()).finish_non_exhaustive()
    }
}
