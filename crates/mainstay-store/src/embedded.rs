//! The store of one node: durable, and nothing else to run.
//!
//! An append-only log on an embedded engine, an index of it in memory, and one thread that commits.
//! A sync costs about the same for one batch as for a thousand, so the thread takes all that is
//! queued at once; throughput grows with the number of callers while a commit takes what it takes.
//!
//! | part | module |
//! |---|---|
//! | files | `media`, `ram`, `disk` (knows what came of every write), `engine` (the tables) |
//! | what is in them | `record`, `index`, `view` (what everybody may see) |
//! | how it changes | `queue`, `draft` (evaluates), `committer` |
//! | how it is read | `reads`, `hub` and `watching` |
//! | how it is opened and kept | `opening`, `high`, [`retention`](crate::retention), `offline` (restore, shrink, check) |
//!
//! # Threads
//!
//! `store-commit` changes the store; `store-tick` looks at the clock. Reads run in the caller's.

mod committer;
mod crash;
mod disk;
mod draft;
mod engine;
mod figures;
mod high;
mod hub;
mod index;
mod media;
mod offline;
mod opening;
mod options;
mod queue;
mod ram;
mod reads;
mod record;
mod shared;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
#[cfg(test)]
mod tests;
mod view;
mod watching;

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_core::Clock;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch as signal;

use crate::batch::{Applied, Batch};
use crate::entry::{LeaseId, Revision};
use crate::error::Error;
use crate::lease::{Granted, LeaseStatus};
use crate::limits::TICK_EVERY;
use crate::read::{Get, Got, Page, RangeRequest};
use crate::snapshot::Snapshot;
use crate::store::{Pending, Status, Store};
use crate::watch::{Watch, WatchRequest};

use committer::Committer;
use media::{Directory, Media};
use queue::{Done, Outcome, Work};
use shared::Shared;
use watching::Watching;

pub use engine::Check;
pub use figures::Counted;
pub use offline::{Checked, Existing, OfflineError, Restored, check, rehearse, restore, shrink};
pub use opening::OpenError;
pub use options::{Options, Ticks};

/// The embedded store. Dropping it closes it, and waits until that is done.
pub struct Embedded {
    shared: Arc<Shared>,
    /// What the committer ended with, once it has.
    ended: signal::Receiver<Option<Result<(), Error>>>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

/// Tells the ticking thread to end.
#[derive(Debug, Default)]
struct Stop {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Embedded {
    /// Opens the store in the folder of `options`, or creates it. Blocks: a large store is read
    /// once, a million revisions in a few seconds.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; whatever it is, the store was left as it is.
    pub fn open(options: Options, clock: impl Clock + 'static) -> Result<Self, OpenError> {
        let lock = opening::lock(&options.path)?;
        let media = Arc::new(Directory(options.path.clone()));
        Self::start(media, options, Arc::new(clock), Some(lock))
    }

    /// Opens the store that lies on `media`.
    fn start(
        media: Arc<dyn Media>,
        options: Options,
        clock: Arc<dyn Clock>,
        lock: Option<File>,
    ) -> Result<Self, OpenError> {
        let ticks = options.ticks;
        let (mut store, committer) = Self::assemble(media, options, clock)?;
        let (tell, ended) = signal::channel(None);
        store.ended = ended;
        store.threads.push(thread("store-commit", move || {
            let result = committer.run();
            // Only when the file is closed may another process have it.
            drop(lock);
            tell.send_replace(Some(result));
        })?);
        if ticks == Ticks::Own {
            let (shared, stop) = (Arc::clone(&store.shared), Arc::clone(&store.stop));
            store.threads.push(thread("store-tick", move || tick_until(&stop, &shared))?);
        }
        Ok(store)
    }

    /// The store that lies on `media`, and what commits for it.
    fn assemble(
        media: Arc<dyn Media>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Committer), OpenError> {
        let (shared, scrubbed) = opening::open(media, options, clock)?;
        let shared = Arc::new(shared);
        let committer = Committer::new(Arc::clone(&shared), scrubbed);
        let (_, ended) = signal::channel(None);
        let store = Self { shared, ended, stop: Arc::default(), threads: Vec::new() };
        Ok((store, committer))
    }

    /// Does what is due at this moment of the clock: for [`Ticks::ByHand`]. Ends at most 1,000
    /// leases.
    ///
    /// # Cancel safety
    ///
    /// Safe: what has begun goes on, and what has not is done by the next call.
    pub async fn tick(&self) {
        if let Some(answer) = self.shared.tick() {
            // An end that was not committed is owed, and comes with a later tick.
            drop(answer.await);
        }
    }

    /// Most bytes it may have before it takes no more puts.
    pub fn bytes_max(&self) -> u64 {
        self.shared.options.bytes_max
    }

    /// Most revisions of history it keeps; compaction sees to that every five minutes.
    pub fn revisions_max(&self) -> u64 {
        self.shared.options.revisions_max
    }

    /// What the store has counted since it was opened.
    pub fn counted(&self) -> Counted {
        let shared = &self.shared;
        shared.figures.read(shared.queue.len(), shared.hub.resyncs())
    }

    async fn commit(&self, work: Work) -> Outcome {
        let answer = self.shared.submit(work)?;
        // A committer that is gone without an answer has left the outcome open.
        answer.await.unwrap_or(Err(Error::OutcomeUnknown))
    }

    fn stop(&self) {
        *self.stop.wanted.lock() = true;
        self.stop.changed.notify_all();
        self.shared.queue.close();
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Io)
}

fn tick_until(stop: &Stop, shared: &Shared) {
    let mut wanted = stop.wanted.lock();
    while !*wanted {
        stop.changed.wait_for(&mut wanted, TICK_EVERY);
        if !*wanted {
            // Whoever waits for leases to end watches; nobody waits for this answer.
            drop(shared.tick());
        }
    }
}

impl Store for Embedded {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        Box::pin(async move { reads::get(&self.shared, &get) })
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        Box::pin(async move { reads::range(&self.shared, &request) })
    }

    fn apply(&self, batch: Batch) -> Pending<'_, Applied> {
        Box::pin(async move {
            self.shared.open()?;
            batch.check()?;
            match self.commit(Work::Apply(batch)).await? {
                Done::Applied(applied) => Ok(applied),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        Watching::start(&self.shared, request).map(Watch::new)
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        Box::pin(async move {
            match self.commit(Work::Grant { ttl, id }).await? {
                Done::Granted(granted) => Ok(granted),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        Box::pin(async move {
            self.shared.open()?;
            self.shared.leases.lock().keep_alive(self.shared.clock.now(), id)
        })
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        Box::pin(async move {
            match self.commit(Work::Revoke(id)).await? {
                Done::Revision(revision) => Ok(revision),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        Box::pin(async move {
            self.shared.open()?;
            self.shared.leases.lock().status(self.shared.clock.now(), id)
        })
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        Box::pin(async move { self.commit(Work::Compact(revision)).await.map(|_| ()) })
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        Box::pin(async move { reads::snapshot(&self.shared) })
    }

    fn status(&self) -> Pending<'_, Status> {
        Box::pin(async move {
            let state = self.shared.state();
            let (revision, compacted) = {
                let view = self.shared.view.read();
                (view.revision, view.compacted)
            };
            Ok(Status {
                backend: "embedded",
                store: self.shared.store,
                revision,
                compacted,
                bytes: self.shared.engine.bytes(),
                leases: self.shared.leases.lock().live_count() as u64,
                watchers: self.shared.hub.count() as u64,
                state,
            })
        })
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.stop();
            let mut ended = self.ended.clone();
            let result = ended.wait_for(Option::is_some).await;
            // The sender is gone only when the thread has ended without a word.
            result.map_or(Err(Error::OutcomeUnknown), |result| result.clone().unwrap_or(Ok(())))
        })
    }
}

fn unexpected(done: &Done) -> Error {
    Error::Unavailable { why: format!("the committer answered {done:?}") }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            // One that panicked has told so itself.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.shared.view.read().revision;
        f.debug_struct("Embedded").field("revision", &revision).finish_non_exhaustive()
    }
}
