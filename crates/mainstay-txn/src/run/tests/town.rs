//! A store, nodes that come and go, and participants, on a clock that moves by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use mainstay_store::{
    Applied, Batch, Error, Get, Got, Granted, LeaseId, LeaseStatus, Memory, Op as StoreOp, Page,
    RangeRequest, Revision, Snapshot, Status, Store, Watch, WatchRequest, store::Pending,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::log;
use crate::machine::{Finding, Outcome};
use crate::moment::Moment;
use crate::name::{Gid, Shard, Shards};
use crate::owner::{ClaimError, Replace};
use crate::port::{Answering, Hooks, Outgoing, Participants, Surroundings};
use crate::retention::Retention;
use crate::run::{Coordinator, Ports, Settings};
use crate::tasks::Tasks;
use crate::word::{Op, State};

/// Draws of a story: xorshift (G. Marsaglia, 2003).
#[derive(Debug)]
pub(super) struct Draw(AtomicU64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub(super) fn below(&self, n: u64) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        (x >> 11) % n
    }
}

/// Tokio's clock, which tests pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paused(tokio::time::Instant);

impl Clock for Paused {
    fn now(&self) -> Instant {
        Instant::ZERO.plus(self.0.elapsed())
    }
}

/// A node's way to the store.
struct Link {
    store: Memory,
    draw: Arc<Draw>,
    /// Nothing gets through.
    cut: Arc<AtomicBool>,
    /// Batches of lanes are on their way while it lasts, and all others are lost.
    jam: Arc<AtomicBool>,
    /// One batch in this many meets a fault; 0 is none.
    faults: u64,
    /// How long a batch takes.
    sync: Duration,
    background: Tasks,
}

impl Link {
    fn check(&self) -> Result<(), Error> {
        if self.cut.load(Ordering::Acquire) {
            return Err(Error::Unavailable { why: "cut".to_owned() });
        }
        Ok(())
    }
}

impl Store for Link {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        Box::pin(async move {
            self.check()?;
            self.store.get(get).await
        })
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        Box::pin(async move {
            self.check()?;
            self.store.range(request).await
        })
    }

    fn apply(&self, batch: Batch) -> Pending<'_, Applied> {
        Box::pin(async move {
            // A sync takes its time, so that records gather.
            tokio::time::sleep(self.sync).await;
            while self.jam.load(Ordering::Acquire) {
                if !is_of_a_lane(&batch) {
                    return Err(Error::Unavailable { why: "lost in a jam".to_owned() });
                }
                tokio::time::sleep(self.sync).await;
            }
            self.check()?;
            let fault = if self.faults == 0 { 9 } else { self.draw.below(self.faults) };
            match fault {
                0 => Err(Error::Unavailable { why: "lost on the way".to_owned() }),
                1 => self.store.apply(batch).await.and(Err(Error::OutcomeUnknown)),
                2 => Err(Error::OutcomeUnknown),
                3 => {
                    // A copy that arrives later than everybody thinks.
                    let (store, span) = (self.store.clone(), self.draw.below(2_000));
                    self.background.spawn("late batch", move |_stop| async move {
                        tokio::time::sleep(Duration::from_millis(span)).await;
                        drop(store.apply(batch).await);
                    });
                    Err(Error::OutcomeUnknown)
                }
                _ => self.store.apply(batch).await,
            }
        })
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        self.store.watch(request)
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        Box::pin(async move {
            self.check()?;
            self.store.grant(ttl, id).await
        })
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        Box::pin(async move {
            self.check()?;
            self.store.keep_alive(id).await
        })
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        Box::pin(async move {
            self.check()?;
            self.store.revoke(id).await
        })
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        self.store.lease(id)
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        self.store.compact(revision)
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        self.store.snapshot()
    }

    fn status(&self) -> Pending<'_, Status> {
        self.store.status()
    }

    fn close(&self) -> Pending<'_, ()> {
        self.store.close()
    }
}

/// Whether it writes records.
fn is_of_a_lane(batch: &Batch) -> bool {
    batch.then.iter().any(|op| matches!(op, StoreOp::Put(put) if put.key.starts_with(b"txn/lane/")))
}

/// What participants did, and how they answer.
#[derive(Debug)]
pub(super) struct Village {
    draw: Arc<Draw>,
    /// One call in this many meets a fault; 0 is none.
    pub(super) faults: AtomicU64,
    /// `gid branch op` of calls that are refused.
    pub(super) refusing: Mutex<BTreeSet<String>>,
    /// Peers that never answer.
    pub(super) hanging: Mutex<BTreeSet<String>>,
    /// What each branch did, behind its barrier.
    pub(super) did: Mutex<BTreeMap<String, Vec<Op>>>,
    pub(super) calls: AtomicU64,
    /// Ends that were told, and how often.
    pub(super) ended: Mutex<BTreeMap<Gid, (State, u32)>>,
    pub(super) hooks_fail: AtomicBool,
    pub(super) findings: Mutex<Vec<Finding>>,
}

impl Village {
    fn perform(&self, call: &Outgoing) -> Outcome {
        let place = format!("{} {}", call.gid, call.branch);
        if self.refusing.lock().contains(&format!("{place} {}", call.op)) {
            return Outcome::Refused("no".to_owned());
        }
        let mut did = self.did.lock();
        let did = did.entry(place).or_default();
        let undone = did.contains(&Op::Compensate) || did.contains(&Op::Rollback);
        if matches!(call.op, Op::Action | Op::Prepare) && undone {
            return Outcome::Refused("already ended".to_owned());
        }
        if !did.contains(&call.op) {
            did.push(call.op);
        }
        Outcome::Done
    }
}

impl Participants for Village {
    fn call(&self, call: Outgoing) -> Answering<'_, Outcome> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let peer = match &call.to {
                crate::port::To::Endpoint(target) => target.peer(),
                crate::port::To::Resource { resource, .. } => resource.to_string(),
            };
            if self.hanging.lock().contains(&peer) {
                tokio::time::sleep(call.timeout).await;
                return Outcome::Unknown("timeout".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(1 + self.draw.below(5))).await;
            let faults = self.faults.load(Ordering::Relaxed);
            match if faults == 0 { 9 } else { self.draw.below(faults) } {
                0 => Outcome::Unknown("lost".to_owned()),
                1 => {
                    drop(self.perform(&call));
                    Outcome::Unknown("answer lost".to_owned())
                }
                2 => Outcome::Ongoing,
                3 => Outcome::Unsent { why: "not connected".to_owned(), retry_after: None },
                _ => self.perform(&call),
            }
        })
    }
}

impl Hooks for Village {
    fn ended(&self, gid: &Gid, state: State) -> Answering<'_, Result<(), String>> {
        let gid = gid.clone();
        Box::pin(async move {
            if self.hooks_fail.load(Ordering::Relaxed) {
                return Err("locks are away".to_owned());
            }
            let mut ended = self.ended.lock();
            let (known, times) = ended.entry(gid).or_insert((state, 0));
            assert_eq!(*known, state, "it ended both ways");
            *times += 1;
            Ok(())
        })
    }

    fn found(&self, _gid: &Gid, finding: &Finding) {
        self.findings.lock().push(finding.clone());
    }
}

struct Weather {
    start: Paused,
    draw: Arc<Draw>,
}

impl Surroundings for Weather {
    fn now(&self) -> Moment {
        let since = Duration::from_nanos(self.start.now().as_nanos());
        Moment::from_unix_millis(1_700_000_000_000).plus(since)
    }

    fn draw(&self) -> u32 {
        u32::try_from(self.draw.below(1 << 32)).unwrap_or(0)
    }
}

/// Everything there is.
pub(super) struct Town {
    pub(super) store: Memory,
    pub(super) village: Arc<Village>,
    pub(super) draw: Arc<Draw>,
    start: Paused,
    background: Tasks,
    /// Faults of the ways to the store.
    pub(super) faults: u64,
    /// How long history is kept.
    pub(super) remembered: Duration,
    /// How long a batch takes.
    pub(super) sync: Duration,
}

/// A node, and the way to stop it without a word.
pub(super) struct Node {
    pub(super) coordinator: Coordinator,
    cut: Arc<AtomicBool>,
    jam: Arc<AtomicBool>,
}

impl Node {
    /// Nothing it sends arrives any more.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    pub(super) fn heal(&self) {
        self.cut.store(false, Ordering::Release);
    }

    /// Records are on their way to the log while `lasts`, and everything else it writes is lost. It
    /// reads, and keeps its session.
    pub(super) fn jam(&self, lasts: bool) {
        self.jam.store(lasts, Ordering::Release);
    }

    /// How many transactions are live.
    pub(super) fn live(&self) -> usize {
        self.coordinator.shared.slots.lock().len()
    }

    /// How many shards it owns.
    pub(super) fn shards(&self) -> usize {
        self.coordinator.shared.owned.lock().len()
    }

    pub(super) fn owns(&self, shard: Shard) -> bool {
        self.coordinator.shared.owned.lock().contains_key(&shard)
    }

    /// Its metrics, as Prometheus reads them.
    pub(super) fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("mainstay");
        self.coordinator.figures().register(&mut registry);
        self.coordinator.look();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

impl Town {
    #[expect(clippy::disallowed_methods, reason = "the paused clock of a test begins here")]
    pub(super) fn new(seed: u64) -> Self {
        let start = Paused(tokio::time::Instant::now());
        let draw = Arc::new(Draw::new(seed));
        let store = Memory::new(start);
        let ticking = store.clone();
        let background = Tasks::default();
        background.spawn("ticks", move |_stop| async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                ticking.tick();
            }
        });
        let village = Village {
            draw: Arc::clone(&draw),
            faults: AtomicU64::new(0),
            refusing: Mutex::default(),
            hanging: Mutex::default(),
            did: Mutex::default(),
            calls: AtomicU64::new(0),
            ended: Mutex::default(),
            hooks_fail: AtomicBool::new(false),
            findings: Mutex::default(),
        };
        Self {
            store,
            village: Arc::new(village),
            draw,
            start,
            background,
            faults: 0,
            remembered: Duration::from_hours(7 * 24),
            sync: Duration::from_millis(3),
        }
    }

    pub(super) async fn node(&self, name: &str, replace: Replace) -> Node {
        loop {
            match self.start(name, replace).await {
                Ok(node) => return node,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(super) async fn start(&self, name: &str, replace: Replace) -> Result<Node, ClaimError> {
        let (cut, jam) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let link = Link {
            store: self.store.clone(),
            draw: Arc::clone(&self.draw),
            cut: Arc::clone(&cut),
            jam: Arc::clone(&jam),
            faults: self.faults,
            sync: self.sync,
            background: self.background.clone(),
        };
        let ports = Ports {
            store: Arc::new(link),
            participants: Arc::clone(&self.village) as Arc<dyn Participants>,
            hooks: Arc::clone(&self.village) as Arc<dyn Hooks>,
            surroundings: Arc::new(Weather { start: self.start, draw: Arc::clone(&self.draw) }),
        };
        let shards = Shards::new(8).unwrap();
        let retention = Retention { span: self.remembered, ..Retention::default() };
        let settings = Settings { shards, lanes: 2, replace, retention, ..Settings::new(name) };
        let coordinator = Coordinator::start(settings, ports).await?;
        Ok(Node { coordinator, cut, jam })
    }

    /// Keys of the log that begin with `prefix`.
    pub(super) async fn keys(&self, prefix: &'static str) -> Vec<String> {
        let request = RangeRequest::from(mainstay_store::Range::prefix(prefix));
        let page = self.store.range(request).await.unwrap();
        page.entries.iter().map(|entry| entry.key.to_string()).collect()
    }

    /// What the log says of how `gid` ended.
    pub(super) async fn ended(&self, gid: &Gid) -> Option<State> {
        let keys = log::Keys::new(gid, Shards::new(8).unwrap());
        let history = self.store.get(Get::new(keys.history())).await.unwrap().entry?;
        let body = self.store.get(Get::new(keys.body())).await.unwrap().entry?;
        Some(log::read_history(&body.value, &history.value).unwrap().state())
    }
}
