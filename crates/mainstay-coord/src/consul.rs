//! The recipes behind the Consul door: key-value pairs, sessions, and the index of a set of
//! results.
//!
//! Clients of Consul poll with the index of what they saw last and expect to be woken by a change
//! of just that, so each set of results has an index of its own ([`index`]). Pairs and sessions
//! are records of this door alone: what Consul calls a lock is a pair with a session's name on it,
//! and neither the queue nor the tokens of [`lock`](crate::lock) have a place there.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | when what is gone went | [`index`] | decides |
//! | what operations on pairs come to | [`plan`] | decides |
//! | reading with an index, waiting for a change | `read` | acts |
//! | writing pairs; making, renewing and ending sessions | `kv`, [`session`], `reaper` | act |
//! | hearing of deletions | `feed` | acts |

pub mod error;
mod feed;
pub mod index;
mod kv;
pub mod pair;
pub mod plan;
mod read;
mod reaper;
pub mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Revision, Store};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Timer;
use crate::tasks::Tasks;
use index::Deletions;

pub use error::ConsulError;
pub use kv::Outcome;
pub use pair::Pair;
pub use plan::{Done, Failed, PairOp, Written};
pub use read::Found;
pub use session::{Behavior, ConsulSession, NewSession};

/// The recipes behind the Consul door, as one node does them. Clones share everything.
#[derive(Clone)]
pub struct Consul {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    timer: Arc<dyn Timer>,
    tasks: Tasks,
    deletions: Mutex<Deletions>,
    /// Up to where [`deletions`](Shared::deletions) has heard of everything.
    seen: watch::Sender<Revision>,
}

impl Consul {
    /// Follows `store`, and ends sessions whose time is over, until
    /// [`shutdown`](Consul::shutdown). Must be called within a tokio runtime.
    pub fn start(store: Arc<dyn Store>, timer: Arc<dyn Timer>) -> Self {
        let shared = Arc::new(Shared {
            store,
            timer,
            tasks: Tasks::default(),
            deletions: Mutex::default(),
            seen: watch::Sender::new(Revision::NEVER),
        });
        let consul = Self { shared };
        let (feed, reaper) = (consul.clone(), consul.clone());
        let tasks = &consul.shared.tasks;
        tasks.spawn("consul feed", move |stop| feed::run(feed, stop));
        tasks.spawn("consul reaper", move |stop| reaper::run(reaper, stop));
        consul
    }

    /// Stops following. Waits up to `grace` for its tasks; returns how many are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consul").field("seen", &*self.shared.seen.borrow()).finish_non_exhaustive()
    }
}
