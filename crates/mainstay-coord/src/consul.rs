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
//! | nodes and their checks | [`node`], `own` | act |
//! | what the catalog shows; reading it with an index | [`catalog`]; [`browse`] | decides; acts |
//! | which sessions end with their checks | [`dependence`] | acts |
//! | events | `event` | acts |
//! | hearing of deletions | `feed` | acts |

pub mod browse;
pub mod catalog;
pub mod dependence;
pub mod error;
mod event;
mod feed;
pub mod filter;
pub mod index;
mod kv;
pub mod node;
mod own;
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
use crate::health::targets::Addresses;
use crate::name::NodeName;
use crate::tasks::Tasks;
use event::Events;
use index::Deletions;
use own::Own;

pub use browse::{Browsed, Part};
pub use catalog::{Catalog, CatalogCheck, CatalogNode, CatalogService};
pub use error::ConsulError;
pub use event::{Event, index_of};
pub use kv::Outcome;
pub use node::NodeRecord;
pub use pair::Pair;
pub use plan::{Done, Failed, PairOp, Written};
pub use read::Found;
pub use session::{Behavior, ConsulSession, NewSession};

/// The check every process has: that it is there.
pub const NODE_CHECK: &str = "serfHealth";

/// Which node of the catalog a process is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub node: NodeName,
    /// Where others reach it; shown.
    pub address: String,
    /// Where checks may go.
    pub check_targets: Addresses,
}

/// The recipes behind the Consul door, as one node does them. Clones share everything.
#[derive(Clone)]
pub struct Consul {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    timer: Arc<dyn Timer>,
    options: Options,
    tasks: Tasks,
    own: Mutex<Own>,
    events: Events,
    deletions: Mutex<Deletions>,
    /// Up to where [`deletions`](Shared::deletions) has heard of everything.
    seen: watch::Sender<Revision>,
}

impl Consul {
    /// Follows `store`, makes this process known as a node, looks after its checks, and ends
    /// sessions whose time is over or whose checks fail, until
    /// [`shutdown`](Consul::shutdown). Must be called within a tokio runtime.
    pub fn start(store: Arc<dyn Store>, timer: Arc<dyn Timer>, options: Options) -> Self {
        let shared = Arc::new(Shared {
            store,
            timer,
            own: Mutex::new(Own::new(&options.node)),
            events: Events::default(),
            options,
            tasks: Tasks::default(),
            deletions: Mutex::default(),
            seen: watch::Sender::new(Revision::NEVER),
        });
        let consul = Self { shared };
        let (feed, reaper) = (consul.clone(), consul.clone());
        let tasks = &consul.shared.tasks;
        tasks.spawn("consul feed", move |stop| feed::run(feed, stop));
        tasks.spawn("consul reaper", move |stop| reaper::run(reaper, stop));
        let (own, dependence) = (consul.clone(), consul.clone());
        tasks.spawn("consul node", move |stop| own::run(own, stop));
        tasks.spawn("consul sessions", move |stop| dependence::run(dependence, stop));
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
