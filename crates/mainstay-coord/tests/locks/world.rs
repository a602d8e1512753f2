//! A store, time turned by hand, and nodes that can be paused and cut off.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::unfold;
use mainstay_coord::audit::tally::Limits;
use mainstay_coord::audit::{Author, Mask};
use mainstay_coord::name::{LockName, Namespace, OwnerName};
use mainstay_coord::{
    Coordination, HandClock, LockError, Outbox, Owner, Place, Request, Session, Token,
};
use mainstay_core::ManualClock;
use mainstay_store::{
    Applied, Batch, Error, Get, Got, Granted, LeaseId, LeaseStatus, Memory, Page, Pending,
    RangeRequest, Revision, Snapshot, Status, Store, Watch, WatchRequest,
};
use parking_lot::Mutex;
use tokio::sync::watch as signal;

/// One store and the time it runs by.
pub(crate) struct World {
    pub(crate) time: ManualClock,
    pub(crate) memory: Memory,
    nodes: Mutex<Vec<Node>>,
}

/// One process: its clock, its way to the store, its coordination.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) clock: HandClock,
    pub(crate) link: Arc<Link>,
    pub(crate) ground: Coordination,
    paused: Arc<AtomicBool>,
    behind: Arc<Mutex<Duration>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let time = ManualClock::default();
        let memory = Memory::new(time.clone());
        Self { time, memory, nodes: Mutex::default() }
    }

    pub(crate) fn node(&self) -> Node {
        let node = Node::over(Arc::new(self.memory.clone()));
        self.nodes.lock().push(node.clone());
        node
    }

    /// Lets time pass, for the store and for every node that is not paused.
    pub(crate) async fn pass(&self, millis: u64) {
        settle().await;
        let mut left = millis;
        while left > 0 {
            let span = Duration::from_millis(left.min(100));
            left -= left.min(100);
            step(self, span);
            settle().await;
        }
    }

    /// Every live key under `prefix`.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let range = mainstay_store::Range::prefix(prefix.to_owned());
        let page = self.memory.range(RangeRequest::from(range)).await.expect("it is open");
        page.entries.iter().map(|entry| entry.key.to_string()).collect()
    }

    pub(crate) async fn revision(&self) -> Revision {
        self.memory.status().await.expect("it always tells").revision
    }
}

fn step(world: &World, span: Duration) {
    world.time.advance(span);
    world.memory.tick();
    for node in world.nodes.lock().iter() {
        if node.paused.load(Ordering::SeqCst) {
            *node.behind.lock() += span;
        } else {
            node.clock.advance(span);
        }
    }
}

impl Node {
    pub(crate) fn over(store: Arc<dyn Store>) -> Self {
        let clock = HandClock::default();
        let link = Arc::new(Link::new(store));
        let ground = Coordination::new(Arc::clone(&link) as _, Arc::new(clock.clone()));
        Self { clock, link, ground, paused: Arc::default(), behind: Arc::default() }
    }

    /// The process stands still: none of its timers fires. Its clock goes on, as one that counts
    /// suspension does, which shows when it wakes up.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.link.cut(true);
    }

    /// The process goes on. Its clock shows all the time that has passed; nothing else of it has
    /// run yet when this returns.
    pub(crate) fn wake(&self) {
        self.paused.store(false, Ordering::SeqCst);
        let behind = std::mem::take(&mut *self.behind.lock());
        self.clock.advance(behind);
        self.link.cut(false);
    }

    /// Where it records what it does.
    pub(crate) fn outbox(&self) -> Outbox {
        let (store, timer) = (Arc::clone(&self.link) as _, Arc::new(self.clock.clone()));
        Outbox::start(store, timer, Mask::new(b"key"), Limits::default())
    }

    /// Takes a lock from whoever holds it with `token`.
    pub(crate) async fn force_release(&self, place: &Place, token: Token) -> Result<(), LockError> {
        let (outbox, author) = (self.outbox(), Author::default().because("its host is gone"));
        self.ground.locks().force_release(place, token, &outbox, &author).await
    }

    pub(crate) async fn session(&self, name: &str, ttl_seconds: u64) -> Session {
        let ttl = Duration::from_secs(ttl_seconds);
        self.ground.sessions().start(owner(name), ttl).await.expect("the store is there")
    }
}

pub(crate) fn owner(name: &str) -> Owner {
    Owner::new(OwnerName::new("host").unwrap(), 7, OwnerName::new(name).unwrap())
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new("shop").unwrap()
}

pub(crate) fn lock_name() -> LockName {
    LockName::new("stock").unwrap()
}

pub(crate) fn exclusive() -> Request {
    Request::exclusive(namespace(), lock_name())
}

pub(crate) fn shared() -> Request {
    Request::shared(namespace(), lock_name())
}

/// Lets every task run until it waits for something.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// What becomes of one batch on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives, and so does its answer.
    Arrives,
    /// It arrives; its answer does not.
    AnswerLost,
    /// It never arrives; nobody knows.
    Lost,
    /// It arrives when [`Link::deliver`] is called; its answer does not.
    Late,
}

/// The way from a node to the store.
pub(crate) struct Link {
    store: Arc<dyn Store>,
    cut: AtomicBool,
    deaf: signal::Sender<bool>,
    fates: Mutex<VecDeque<Fate>>,
    late: Mutex<Vec<Batch>>,
    applies: AtomicUsize,
    ranges: AtomicUsize,
}

impl Link {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            cut: AtomicBool::new(false),
            deaf: signal::Sender::new(false),
            fates: Mutex::default(),
            late: Mutex::default(),
            applies: AtomicUsize::new(0),
            ranges: AtomicUsize::new(0),
        }
    }

    /// Nothing gets through any more, in either direction, until `cut(false)`.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        self.deaf(cut);
    }

    /// Watches yield nothing until `deaf(false)`; all else gets through.
    pub(crate) fn deaf(&self, deaf: bool) {
        self.deaf.send_replace(deaf);
    }

    /// What becomes of the next batches; those after them arrive.
    pub(crate) fn script(&self, fates: impl IntoIterator<Item = Fate>) {
        self.fates.lock().extend(fates);
    }

    /// From here on everything arrives.
    pub(crate) fn heal(&self) {
        self.fates.lock().clear();
    }

    /// How many batches were sent.
    pub(crate) fn applies(&self) -> usize {
        self.applies.load(Ordering::SeqCst)
    }

    /// How many times a range was read.
    pub(crate) fn ranges(&self) -> usize {
        self.ranges.load(Ordering::SeqCst)
    }

    /// Brings what is late.
    pub(crate) async fn deliver(&self) {
        let late = std::mem::take(&mut *self.late.lock());
        for batch in late {
            drop(self.store.apply(batch).await);
        }
    }

    fn through<T>(&self) -> Result<(), Pending<'static, T>>
    where
        T: Send + 'static,
    {
        if self.cut.load(Ordering::SeqCst) {
            let why = "cut off".to_owned();
            return Err(Box::pin(ready(Err(Error::Unavailable { why }))));
        }
        Ok(())
    }
}

macro_rules! pass {
    ($self:ident.$method:ident($($arg:expr),*)) => {
        match $self.through() {
            Ok(()) => $self.store.$method($($arg),*),
            Err(cut) => cut,
        }
    };
}

impl Store for Link {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        pass!(self.get(get))
    }
    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        self.ranges.fetch_add(1, Ordering::SeqCst);
        pass!(self.range(request))
    }
    fn apply(&self, batch: Batch) -> Pending<'_, Applied> {
        if let Err(cut) = self.through() {
            return cut;
        }
        self.applies.fetch_add(1, Ordering::SeqCst);
        let fate = self.fates.lock().pop_front().unwrap_or(Fate::Arrives);
        Box::pin(async move {
            match fate {
                Fate::Arrives => {
                    // A round trip: whoever waits can be dropped here.
                    tokio::task::yield_now().await;
                    let applied = self.store.apply(batch).await;
                    tokio::task::yield_now().await;
                    return applied;
                }
                Fate::AnswerLost => drop(self.store.apply(batch).await),
                Fate::Lost => {}
                Fate::Late => self.late.lock().push(batch),
            }
            Err(Error::OutcomeUnknown)
        })
    }
    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        let from = (self.store.watch(request)?, self.deaf.subscribe());
        Ok(Watch::new(unfold(from, |(mut watch, mut deaf)| async move {
            let item = watch.next().await?;
            deaf.wait_for(|deaf| !deaf).await.ok()?;
            Some((item, (watch, deaf)))
        })))
    }
    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        pass!(self.grant(ttl, id))
    }
    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        pass!(self.keep_alive(id))
    }
    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        pass!(self.revoke(id))
    }
    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        pass!(self.lease(id))
    }
    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        pass!(self.compact(revision))
    }
    fn snapshot(&self) -> Pending<'_, Snapshot> {
        pass!(self.snapshot())
    }
    fn status(&self) -> Pending<'_, Status> {
        pass!(self.status())
    }
    fn close(&self) -> Pending<'_, ()> {
        self.store.close()
    }
}
