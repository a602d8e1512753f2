//! A store, some nodes, and a clock turned by hand.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use mainstay_core::name::ServiceName;
use mainstay_store::store::Pending;
use mainstay_store::{
    Batch, Embedded, Error, Get, Got, Granted, LeaseId, LeaseStatus, Memory, Page, RangeRequest,
    Revision, Snapshot, Status, Store, Watch, WatchRequest,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::tally::Limits;
use crate::audit::{Mask, Outbox};
use crate::clock::HandClock;
use crate::health::targets::Addresses;
use crate::keys::{InstanceRef, ServiceRef};
use crate::name::{InstanceId, Namespace, NodeName};
use crate::registry::{Options, RawRegistration, Registration, Registry, View};

/// A store with a clock that is turned by hand.
pub(crate) struct Stage {
    pub(crate) clock: HandClock,
    pub(crate) store: Arc<dyn Store>,
    backend: Backend,
}

enum Backend {
    Memory(Arc<Memory>),
    Embedded(Arc<Embedded>, tempfile::TempDir),
}

impl Stage {
    pub(crate) fn memory() -> Self {
        let clock = HandClock::default();
        let memory = Arc::new(Memory::new(clock.hands()));
        Self { clock, store: memory.clone(), backend: Backend::Memory(memory) }
    }

    pub(crate) fn embedded() -> Self {
        let (clock, folder) = (HandClock::default(), tempfile::tempdir().unwrap());
        let mut options = mainstay_store::embedded::Options::new(folder.path().join("store"));
        options.ticks = mainstay_store::embedded::Ticks::ByHand;
        let store = Arc::new(Embedded::open(options, clock.hands()).unwrap());
        Self { clock, store: store.clone(), backend: Backend::Embedded(store, folder) }
    }

    /// A node on this store, ready.
    pub(crate) async fn node(&self, name: &str) -> Registry {
        self.node_on(Arc::clone(&self.store), name, |_options| {}).await
    }

    pub(crate) async fn node_on(
        &self,
        store: Arc<dyn Store>,
        name: &str,
        adjust: impl FnOnce(&mut Options),
    ) -> Registry {
        let mut options = Options::new(NodeName::new(name).unwrap());
        options.check_targets = near();
        adjust(&mut options);
        let outbox = self.outbox(Arc::clone(&store));
        let registry = Registry::start(store, Arc::new(self.clock.clone()), outbox, options);
        let known = || {
            let nodes = registry.nodes().unwrap_or_default();
            nodes.iter().any(|node| node.as_str() == name)
        };
        eventually("the node is ready", known).await;
        registry
    }

    /// An outbox of `store`.
    pub(crate) fn outbox(&self, store: Arc<dyn Store>) -> Outbox {
        Outbox::start(store, Arc::new(self.clock.clone()), Mask::new(b"key"), Limits::default())
    }

    /// Lets time pass, in steps that no clock takes for a pause.
    pub(crate) async fn pass(&self, span: Duration) {
        let step = Duration::from_millis(250);
        let mut left = span;
        while !left.is_zero() {
            let now = step.min(left);
            self.clock.advance(now);
            left -= now;
            self.settle().await;
        }
    }

    pub(crate) async fn pass_seconds(&self, seconds: u64) {
        self.pass(Duration::from_secs(seconds)).await;
    }

    /// Lets everything that can go on go on.
    pub(crate) async fn settle(&self) {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.tick();
                for _ in 0..40 {
                    tokio::task::yield_now().await;
                }
            }
            Backend::Embedded(store, _folder) => {
                store.tick().await;
                // Its thread commits in real time.
                for _ in 0..10 {
                    drop(store.status().await);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
    }

    /// Lets time pass until `is_so`.
    pub(crate) async fn within(&self, seconds: u64, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..seconds * 4 {
            if is_so() {
                return;
            }
            self.pass(Duration::from_millis(250)).await;
        }
        assert!(is_so(), "not within {seconds} s: {what}");
    }
}

/// Waits in real time until `is_so`.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

pub(crate) fn near() -> Addresses {
    Addresses { loopback: true, allowed: Vec::new() }
}

pub(crate) fn service(name: &str) -> ServiceRef {
    let namespace = Namespace::new("default").unwrap();
    ServiceRef { namespace, name: ServiceName::new(name).unwrap() }
}

pub(crate) fn instance(name: &str, id: &str) -> InstanceRef {
    service(name).instance(&InstanceId::new(id).unwrap())
}

/// A registration written as JSON; address and port may be left out.
pub(crate) fn registration(json: &str) -> Registration {
    let mut raw: RawRegistration = serde_json::from_str(json).unwrap();
    raw.address.get_or_insert_with(|| "10.0.0.7".to_owned());
    raw.port.get_or_insert(80);
    Registration::new(raw, 15, &near()).unwrap()
}

/// A registration that says nothing but its id.
pub(crate) fn plain(id: &str) -> Registration {
    registration(&format!("{{\"id\": \"{id}\"}}"))
}

/// What a view says, a line an instance: `id health state`.
pub(crate) fn lines(view: &View) -> Vec<String> {
    let line = |listed: &crate::registry::Listed| {
        format!("{} {} {}", listed.id, listed.health, listed.instance.state.as_str())
    };
    view.instances.iter().map(line).collect()
}

/// What a faulty store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It cannot be reached; watches end.
    Away,
    /// The next batch is applied, and its outcome is unknown.
    Applied,
    /// The next batch is lost, and its outcome is unknown.
    Lost,
    /// The next batch is held up, and its outcome is unknown; [`Faulty::arrive`] applies it.
    Late,
    /// It takes no batch.
    Refuses,
}

/// A store that fails when told to.
pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
    state: Mutex<(Fault, CancellationToken)>,
    /// Batches that go through before the one that fails.
    skip: Mutex<usize>,
    late: Mutex<Option<Batch>>,
    /// Whether watches hold back what they have to say.
    deaf: watch::Sender<bool>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        let state = Mutex::new((Fault::None, CancellationToken::new()));
        let (skip, late, deaf) = (Mutex::new(0), Mutex::new(None), watch::Sender::new(false));
        Arc::new(Self { inner, state, skip, late, deaf })
    }

    pub(crate) fn set(&self, fault: Fault) {
        let mut state = self.state.lock();
        state.0 = fault;
        if fault == Fault::Away {
            state.1.cancel();
        } else {
            state.1 = CancellationToken::new();
        }
    }

    /// As [`set`](Faulty::set), for the batch after the next `skip` batches.
    pub(crate) fn set_after(&self, skip: usize, fault: Fault) {
        self.set(fault);
        *self.skip.lock() = skip;
    }

    /// Lets the batch through that was held up.
    pub(crate) async fn arrive(&self) {
        let late = self.late.lock().take();
        drop(self.inner.apply(late.expect("one was held up")).await);
    }

    /// Whether watches hold back what they have to say: whoever follows them is behind.
    pub(crate) fn deafen(&self, is_deaf: bool) {
        self.deaf.send_replace(is_deaf);
    }

    pub(crate) fn fault(&self) -> Fault {
        self.state.lock().0
    }

    fn unless_away<'a, T: Send + 'a>(&self, answer: Pending<'a, T>) -> Pending<'a, T> {
        if self.fault() != Fault::Away {
            return answer;
        }
        Box::pin(async { Err(Error::Unavailable { why: "the test says so".to_owned() }) })
    }
}

impl Store for Faulty {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        self.unless_away(self.inner.get(get))
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        self.unless_away(self.inner.range(request))
    }

    fn apply(&self, batch: Batch) -> Pending<'_, mainstay_store::Applied> {
        let fault = {
            let mut state = self.state.lock();
            let fault = state.0;
            let mut skip = self.skip.lock();
            if !matches!(fault, Fault::Applied | Fault::Lost | Fault::Late) {
                fault
            } else if *skip > 0 {
                *skip -= 1;
                Fault::None
            } else {
                state.0 = Fault::None;
                fault
            }
        };
        match fault {
            Fault::None | Fault::Away => self.unless_away(self.inner.apply(batch)),
            Fault::Applied => Box::pin(async {
                self.inner.apply(batch).await?;
                Err(Error::OutcomeUnknown)
            }),
            Fault::Lost => Box::pin(async { Err(Error::OutcomeUnknown) }),
            Fault::Late => {
                *self.late.lock() = Some(batch);
                Box::pin(async { Err(Error::OutcomeUnknown) })
            }
            Fault::Refuses => {
                let why = "the test says so".to_owned();
                Box::pin(async { Err(Error::Unavailable { why }) })
            }
        }
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        let (fault, cut) = self.state.lock().clone();
        if fault == Fault::Away {
            return Err(Error::Unavailable { why: "the test says so".to_owned() });
        }
        let watch = self.inner.watch(request)?;
        let deaf = self.deaf.subscribe();
        let heard = watch.take_until(cut.cancelled_owned()).then(move |item| {
            let mut deaf = deaf.clone();
            async move {
                drop(deaf.wait_for(|is_deaf| !is_deaf).await);
                item
            }
        });
        Ok(Watch::new(heard.boxed()))
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        self.unless_away(self.inner.grant(ttl, id))
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        self.unless_away(self.inner.keep_alive(id))
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        self.unless_away(self.inner.revoke(id))
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        self.unless_away(self.inner.lease(id))
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        self.unless_away(self.inner.compact(revision))
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        self.unless_away(self.inner.snapshot())
    }

    fn status(&self) -> Pending<'_, Status> {
        self.unless_away(self.inner.status())
    }

    fn close(&self) -> Pending<'_, ()> {
        self.inner.close()
    }
}
