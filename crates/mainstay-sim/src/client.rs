//! What clients do, and what they see of it.
//!
//! | client | does |
//! |---|---|
//! | [`pairs`] | reads, puts, swaps and deletes keys; two keys at once |
//! | [`holder`] | holds a lock in its own process, writes under it, gives it back or vanishes |
//! | [`remote`] | holds a lock whose session somebody else keeps, and judges by what it is told |
//! | [`watcher`] | lists and watches, and begins anew when history is gone |

pub mod holder;
pub mod pairs;
pub mod remote;
pub mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_store::{Key, Revision, WatchItem, WatchRequest};
use parking_lot::Mutex;

use crate::check::{OPEN, locks};
use crate::mutant::Mutant;
use crate::node::Node;
use crate::server::Server;

/// What all clients saw. Clones are the same.
#[derive(Clone, Debug)]
pub struct Seen {
    server: Server,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pairs: Vec<pairs::Seen>,
    lock_calls: Vec<locks::Call>,
    grants: Vec<Granted>,
    believers: Vec<Believer>,
    resource: Resource,
    streams: Vec<Arc<Mutex<Stream>>>,
    counts: BTreeMap<&'static str, u64>,
    progress: BTreeSet<String>,
    clients: u32,
}

/// A grant of the exclusive lock.
#[derive(Clone, Debug)]
pub struct Granted {
    /// Its place in the queue.
    pub key: Key,
    /// The fencing token, which is also the revision at which the place began.
    pub token: u64,
    /// The revision in which it was granted.
    pub revision: Revision,
}

/// Somebody who may believe that it holds something.
#[derive(Clone)]
pub(crate) struct Believer {
    pub(crate) node: Node,
    pub(crate) lock: &'static str,
    pub(crate) exclusive: bool,
    pub(crate) token: u64,
    pub(crate) believes: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Believer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with token {} of {}", self.node.name, self.token, self.lock)
    }
}

/// Something outside the store that is written under the lock.
#[derive(Debug, Default)]
struct Resource {
    highest: u64,
    taken: Vec<u64>,
    refused: u64,
}

/// What one watch yielded.
#[derive(Debug)]
pub struct Stream {
    /// What was asked for; `from` is set.
    pub request: WatchRequest,
    /// Everything it yielded.
    pub items: Vec<WatchItem>,
}

impl Seen {
    /// Nothing yet.
    pub fn new(server: Server) -> Self {
        Self { server, inner: Arc::default() }
    }

    /// A number for a client.
    pub(crate) fn client(&self) -> u32 {
        let mut inner = self.inner.lock();
        inner.clients += 1;
        inner.clients
    }

    /// Counts something, so that a run in which nothing happens shows.
    pub fn count(&self, what: &'static str) {
        *self.inner.lock().counts.entry(what).or_default() += 1;
    }

    /// What was counted.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.inner.lock().counts.clone()
    }

    /// A client did what it wanted to.
    pub(crate) fn progress(&self, node: &Node, what: &'static str) {
        self.count(what);
        self.inner.lock().progress.insert(format!("{} {what}", node.name));
    }

    /// Forgets who did what it wanted to.
    pub fn forget_progress(&self) {
        self.inner.lock().progress.clear();
    }

    /// Who of `nodes` has not done what it wanted since then.
    pub fn without_progress(&self, nodes: &[Node]) -> Vec<String> {
        let inner = self.inner.lock();
        let all = nodes.iter().flat_map(|node| {
            ["pair calls", "locks held", "locks held from elsewhere"]
                .map(|what| format!("{} {what}", node.name))
        });
        all.filter(|who| !inner.progress.contains(who)).collect()
    }

    pub(crate) fn granted(&self, granted: Granted, believer: Believer) {
        let (node, token) = (believer.node.name.clone(), granted.token);
        self.server.note(|| format!("{node}: {} granted with token {token}", believer.lock));
        {
            let mut inner = self.inner.lock();
            if believer.exclusive && believer.lock == EXCLUSIVE {
                inner.grants.push(granted);
            }
            inner.believers.push(believer);
        }
        self.look();
    }

    pub(crate) fn lock_call(&self, client: u32, what: locks::What, called: i64, returned: i64) {
        self.inner.lock().lock_calls.push(locks::Call { client, what, called, returned });
    }

    /// No two believe that they hold what cannot be held by both.
    pub fn look(&self) {
        let believers = {
            let mut inner = self.inner.lock();
            // A process that stands still believes nothing: it asks its clock first when it wakes.
            let runs = |believer: &Believer| !believer.node.clock.is_paused();
            inner.believers.retain(|believer| !runs(believer) || (believer.believes)());
            inner.believers.iter().filter(|believer| runs(believer)).cloned().collect::<Vec<_>>()
        };
        for (at, one) in believers.iter().enumerate() {
            for other in believers.iter().skip(at + 1) {
                if one.lock == other.lock && (one.exclusive || other.exclusive) {
                    self.server.wrong(format!("{one:?} and {other:?} believe at once"));
                }
            }
        }
    }

    /// A write with `token` arrives at the resource.
    pub(crate) fn write_resource(&self, token: u64) {
        let fenced = self.server.mutant() != Some(Mutant::Unfenced);
        let resource = &mut self.inner.lock().resource;
        if fenced && token < resource.highest {
            resource.refused += 1;
            return;
        }
        resource.highest = resource.highest.max(token);
        resource.taken.push(token);
    }

    /// Begins to record a stream.
    pub(crate) fn stream(&self, request: WatchRequest) -> Arc<Mutex<Stream>> {
        let stream = Arc::new(Mutex::new(Stream { request, items: Vec::new() }));
        self.inner.lock().streams.push(Arc::clone(&stream));
        stream
    }

    pub(crate) fn pair_begins(&self, seen: pairs::Seen) -> usize {
        let mut inner = self.inner.lock();
        inner.pairs.push(seen);
        inner.pairs.len() - 1
    }

    pub(crate) fn pair_ends(&self, at: usize, fill: impl FnOnce(&mut pairs::Seen)) {
        if let Some(seen) = self.inner.lock().pairs.get_mut(at) {
            fill(seen);
        }
    }

    /// What was done to keys.
    pub fn pairs(&self) -> Vec<pairs::Seen> {
        self.inner.lock().pairs.clone()
    }

    /// Every grant of the exclusive lock.
    pub fn grants(&self) -> Vec<Granted> {
        self.inner.lock().grants.clone()
    }

    /// Every call of the exclusive lock.
    pub fn lock_calls(&self) -> Vec<locks::Call> {
        self.inner.lock().lock_calls.clone()
    }

    /// The tokens of what the resource took, in order, and how often it refused.
    pub fn resource(&self) -> (Vec<u64>, u64) {
        let inner = self.inner.lock();
        (inner.resource.taken.clone(), inner.resource.refused)
    }

    /// Every stream.
    pub fn streams(&self) -> Vec<Arc<Mutex<Stream>>> {
        self.inner.lock().streams.clone()
    }
}

/// A release whose end nobody saw.
pub(crate) const UNSEEN: i64 = OPEN;

/// The lock that everybody wants alone.
pub const EXCLUSIVE: &str = "x";

/// The lock that some want together with others.
pub const SHARED: &str = "rw";

/// Where holders write, guarded by their place in the queue.
pub const REGISTER: &str = "register";
