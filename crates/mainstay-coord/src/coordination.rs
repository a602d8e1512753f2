//! What every recipe needs: the store, a clock, tasks, counters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_core::Instant;
use mainstay_store::{Batch, Compare, Get, Put, Store};
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence {
    pub(crate) base: u64,
    /// As it is written; nothing is as good as 0.
    written: Option<Bytes>,
}

impl Fence {
    /// Holds as long as this is added. It compares what is written, and not when that was: the
    /// revisions of a store can begin anew, and then the same one means something else.
    pub(crate) fn guard(&self) -> Compare {
        let key = keys::fence_base();
        match &self.written {
            None => Compare::missing(&key),
            Some(written) => Compare::value(&key, written.clone()),
        }
    }
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

    /// What is added to every fencing token.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn fence_base(&self) -> Result<u64, mainstay_store::Error> {
        self.read_fence().await.map(|fence| fence.base)
    }

    /// Raises what is added to every fencing token to at least `base`; returns what is now added.
    /// For a store whose revisions began anew: tokens go on above all that were ever given.
    ///
    /// # Errors
    ///
    /// What the store said for 5 s; [`Error::Busy`](mainstay_store::Error::Busy) when others wrote
    /// it all the while.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; calling again does no harm.
    pub async fn raise_fence_base(&self, base: u64) -> Result<u64, mainstay_store::Error> {
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        loop {
            let known = match self.read_fence().await {
                Ok(known) if base <= known.base => return Ok(known.base),
                Ok(known) => known,
                Err(error) => {
                    self.bear(&mut patience, error).await?;
                    continue;
                }
            };
            let put = Put::new(keys::fence_base(), base.to_string());
            let batch = Batch::new().when(known.guard()).then(put);
            let error = match self.store().apply(batch).await {
                Ok(applied) if applied.succeeded => continue,
                Ok(_beaten) => mainstay_store::Error::Busy { retry_after: Duration::ZERO },
                Err(error) => error,
            };
            self.bear(&mut patience, error).await?;
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

    /// Bears `error` as `patience` does, but not once this process shuts down: what it would have
    /// put away then ends with its session.
    pub(crate) async fn bear(
        &self,
        patience: &mut Patience,
        error: mainstay_store::Error,
    ) -> Result<(), mainstay_store::Error> {
        patience.bear_unless(self.tasks().stop(), self.timer(), error).await
    }

    /// The base of tokens as last read.
    pub(crate) fn fence(&self) -> Fence {
        self.shared.fence.lock().clone()
    }

    /// Reads the base of tokens. What was read last is what is known: should answers cross, the
    /// next batch that relies on the older one fails, and it is read again.
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
                Fence { base, written: Some(entry.value) }
            }
        };
        self.shared.fence.lock().clone_from(&fence);
        Ok(fence)
    }
}

impl fmt::Debug for Coordination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordination").field("fence", &self.fence()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::ManualClock;
    use mainstay_store::Memory;

    use super::*;
    use crate::clock::HandClock;
    use crate::lock::{Request, Wait};
    use crate::name::{LockName, Namespace, OwnerName};
    use crate::session::Owner;

    #[tokio::test]
    async fn a_store_whose_revisions_began_anew_is_taken_as_it_is() {
        let store = Arc::new(Memory::new(ManualClock::default()));
        let ground = Coordination::new(store, Arc::new(HandClock::default()));
        // What was known of the store before: another base, written at a revision far ahead.
        let before = Fence { base: 7_000, written: Some(Bytes::from_static(b"7000")) };
        *ground.shared.fence.lock() = before.clone();
        let name = OwnerName::new("o").unwrap();
        let owner = Owner::new(name.clone(), 1, name);
        let session = ground.sessions().start(owner, Duration::from_secs(15)).await.unwrap();
        let request = || {
            let (namespace, name) = (Namespace::new("shop").unwrap(), LockName::new("a").unwrap());
            Request::exclusive(namespace, name).wait(Wait::Try)
        };
        let held = session.acquire(request()).await.unwrap();
        assert!(held.token().get() < 7_000, "this store adds nothing");
        held.release().await.unwrap();

        *ground.shared.fence.lock() = before;
        assert_eq!(ground.raise_fence_base(9_000).await.unwrap(), 9_000);
        assert_eq!(ground.raise_fence_base(8_000).await.unwrap(), 9_000);
        let held = session.acquire(request()).await.unwrap();
        assert!(9_000 < held.token().get());
        held.release().await.unwrap();
    }
}
