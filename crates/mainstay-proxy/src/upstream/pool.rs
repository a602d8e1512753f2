//! The connections of one thread to one endpoint.
//!
//! The most recently used idle connection is taken first, so that a quiet endpoint keeps few of
//! them; a connection that closed or spoke meanwhile is discarded unseen, which costs nobody
//! anything since nothing was sent on it. At the limit calls wait in the order they came, at most
//! `pending_max` of them. What becomes free is put into the hands of the first in line, never back
//! on the shelf for whoever comes by, so the order holds; a caller that gave up hands it on.
//!
//! While the first connection of an endpoint that may speak HTTP/2 is being made, others wait for
//! it instead of each opening their own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::census::Census;
use super::http1::Live;
use super::http2::{Shared, Stream};
use super::{Protocol, RequestBody, Target};
use crate::server::tasks;

/// How often idle connections are looked at; the unit of their age.
const SWEEP: Duration = Duration::from_secs(1);

/// The pool of this thread for `target`, made when first asked for.
pub(super) fn of<B: RequestBody>(target: &Arc<Target>) -> Rc<Pool<B>> {
    REGISTRY.with(|registry| {
        if let Some(entry) = registry.pools.borrow().get(&target.id) {
            let pool: Rc<dyn Any> = Rc::clone(&entry.pool) as _;
            return pool.downcast().expect("a handle has one body type");
        }
        let pool = Rc::new(Pool::<B>::new(Arc::clone(target)));
        let entry = Entry { pool: Rc::clone(&pool) as _, handle: Arc::downgrade(target) };
        registry.pools.borrow_mut().insert(target.id, entry);
        if !registry.sweeping.replace(true) {
            tasks::spawn(sweep());
        }
        pool
    })
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pool<B: RequestBody> {
    target: Target,
    inner: RefCell<Inner<B>>,
}

#[derive(Debug)]
struct Inner<B: RequestBody> {
    /// Idle HTTP/1 connections, the longest unused first, with the tick of their last use.
    idle: VecDeque<(u64, Box<Live<B>>)>,
    /// HTTP/2 connections.
    shared: Vec<Rc<Shared<B>>>,
    /// Slots given out: connections, and attempts to make one.
    open: usize,
    /// Of these, attempts.
    dialing: usize,
    /// Whether the endpoint speaks HTTP/2, once known.
    multiplexed: Option<bool>,
    /// The last attempt failed: nobody waits for another's, or they would fail one by one.
    failing: bool,
    waiting: VecDeque<Rc<Ticket<B>>>,
    /// Sweeps so far.
    tick: u64,
    /// The last handle is gone: nothing is kept any more.
    closed: bool,
}

/// What a call gets when it asks for a connection.
#[derive(Debug)]
pub(super) enum Checkout<B: RequestBody> {
    Granted(Grant<B>),
    Wait(Waiting<B>),
    Exhausted,
}

/// Something to send on, or the right to make it.
#[derive(Debug)]
pub(super) enum Grant<B: RequestBody> {
    Live(Box<Live<B>>),
    Stream(Stream<B>),
    Slot(Slot<B>),
}

impl<B: RequestBody> Pool<B> {
    fn new(target: Arc<Target>) -> Self {
        let multiplexed = match (target.settings.protocol, &target.settings.tls) {
            (Protocol::Http1, _) | (Protocol::Auto, None) => Some(false),
            (Protocol::Http2, _) => Some(true),
            (Protocol::Auto, Some(_)) => None,
        };
        let inner = Inner {
            idle: VecDeque::new(),
            shared: Vec::new(),
            open: 0,
            dialing: 0,
            multiplexed,
            failing: false,
            waiting: VecDeque::new(),
            tick: 0,
            closed: false,
        };
        // Not the handle's own: the pool must not keep it alive.
        let target = Target {
            id: target.id,
            address: Arc::clone(&target.address),
            settings: Arc::clone(&target.settings),
        };
        Self { target, inner: RefCell::new(inner) }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn open(&self) -> usize {
        self.inner.borrow().open
    }

    pub(super) fn idle(&self) -> usize {
        self.inner.borrow().idle.len()
    }

    /// A connection, a place in the line, or neither.
    pub(super) fn checkout(self: &Rc<Self>) -> Checkout<B> {
        if self.inner.borrow().waiting.is_empty()
            && let Some(grant) = self.available()
        {
            return Checkout::Granted(grant);
        }
        let mut inner = self.inner.borrow_mut();
        if self.target.settings.pending_max <= inner.waiting.len() {
            return Checkout::Exhausted;
        }
        let ticket = Rc::new(Ticket { state: RefCell::new(State::Waiting(None)) });
        inner.waiting.push_back(Rc::clone(&ticket));
        Checkout::Wait(Waiting { pool: Rc::clone(self), ticket })
    }

    /// Takes back a connection that is ready for the next request.
    pub(super) fn put(self: &Rc<Self>, live: Box<Live<B>>) {
        let mut inner = self.inner.borrow_mut();
        if inner.closed {
            drop(inner);
            return drop(live); // Gives back its slot, and so needs the pool unborrowed.
        }
        let tick = inner.tick;
        inner.idle.push_back((tick, live));
        let awaited = !inner.waiting.is_empty();
        drop(inner);
        if awaited {
            self.serve_waiting();
        }
    }

    /// Adds an HTTP/2 connection for everybody.
    pub(super) fn share(self: &Rc<Self>, shared: Rc<Shared<B>>) {
        self.inner.borrow_mut().shared.push(shared);
        self.serve_waiting();
    }

    /// Forgets an HTTP/2 connection.
    pub(super) fn unshare(&self, shared: &Rc<Shared<B>>) {
        self.inner.borrow_mut().shared.retain(|known| !Rc::ptr_eq(known, shared));
    }

    /// Hands out what is free, to the first in line first.
    pub(super) fn serve_waiting(self: &Rc<Self>) {
        while !self.inner.borrow().waiting.is_empty() {
            let Some(grant) = self.available() else { return };
            let first = self.inner.borrow_mut().waiting.pop_front();
            if let Some(ticket) = first {
                ticket.grant(grant);
            }
        }
    }

    /// Takes what is free. What is dead is let go on the way, without a look at those in line: they
    /// are served by whoever asks here, and would be granted twice otherwise.
    fn available(self: &Rc<Self>) -> Option<Grant<B>> {
        loop {
            let idle = self.inner.borrow_mut().idle.pop_back();
            let Some((_, mut live)) = idle else { break };
            if live.is_reusable() {
                return Some(Grant::Live(live));
            }
            live.retire();
        }
        let mut inner = self.inner.borrow_mut();
        if let Some(shared) = inner.shared.iter().find(|shared| shared.has_room()) {
            return Some(Grant::Stream(Stream::open(shared)));
        }
        let one_is_coming =
            inner.dialing != 0 && inner.multiplexed != Some(false) && !inner.failing;
        if one_is_coming || self.target.settings.connections_max.max(1) <= inner.open {
            return None;
        }
        inner.open += 1;
        inner.dialing += 1;
        Some(Grant::Slot(Slot { pool: Rc::clone(self), dialing: true, retired: false }))
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot<B: RequestBody> {
    pool: Rc<Pool<B>>,
    dialing: bool,
    /// Given back already.
    retired: bool,
}

impl<B: RequestBody> Slot<B> {
    pub(super) fn pool(&self) -> &Rc<Pool<B>> {
        &self.pool
    }

    /// The connection is up and speaks HTTP/2, or does not.
    pub(super) fn connected(&mut self, http2: bool) {
        if std::mem::replace(&mut self.dialing, false) {
            let mut inner = self.pool.inner.borrow_mut();
            inner.dialing -= 1;
            inner.multiplexed = Some(http2);
            inner.failing = false;
        }
        if !http2 {
            self.pool.serve_waiting(); // Those who hoped to share it must make their own.
        }
    }

    /// Gives back the place of a connection, and serves nobody with it.
    pub(super) fn retire(&mut self) {
        if !std::mem::replace(&mut self.retired, true) {
            self.pool.inner.borrow_mut().open -= 1;
        }
    }
}

impl<B: RequestBody> Drop for Slot<B> {
    fn drop(&mut self) {
        if self.retired {
            return;
        }
        let mut inner = self.pool.inner.borrow_mut();
        inner.open -= 1;
        if self.dialing {
            inner.dialing -= 1;
            inner.failing = true;
        }
        let awaited = !inner.waiting.is_empty();
        drop(inner);
        if awaited {
            self.pool.serve_waiting();
        }
    }
}

/// A place in the line. Dropped, it gives up the place, or hands on what it was granted.
#[derive(Debug)]
pub(super) struct Waiting<B: RequestBody> {
    pool: Rc<Pool<B>>,
    ticket: Rc<Ticket<B>>,
}

#[derive(Debug)]
struct Ticket<B: RequestBody> {
    state: RefCell<State<B>>,
}

#[derive(Debug)]
enum State<B: RequestBody> {
    Waiting(Option<Waker>),
    Granted(Grant<B>),
    Spent,
}

impl<B: RequestBody> Ticket<B> {
    fn grant(&self, grant: Grant<B>) {
        if let State::Waiting(Some(waker)) = self.state.replace(State::Granted(grant)) {
            waker.wake();
        }
    }
}

impl<B: RequestBody> Waiting<B> {
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Grant<B>> {
        let mut state = self.ticket.state.borrow_mut();
        match std::mem::replace(&mut *state, State::Spent) {
            State::Granted(grant) => Poll::Ready(grant),
            State::Waiting(_) | State::Spent => {
                *state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<B: RequestBody> Drop for Waiting<B> {
    fn drop(&mut self) {
        match self.ticket.state.replace(State::Spent) {
            State::Waiting(_) => {
                let mut inner = self.pool.inner.borrow_mut();
                inner.waiting.retain(|known| !Rc::ptr_eq(known, &self.ticket));
            }
            State::Granted(Grant::Live(live)) => self.pool.put(live),
            State::Granted(unused) => drop(unused), // Both kinds serve the next in line.
            State::Spent => (),
        }
    }
}

thread_local! {
    static REGISTRY: Registry = const {
        Registry {
            pools: RefCell::new(HashMap::with_hasher(BuildHasherDefault::new())),
            sweeping: Cell::new(false),
        }
    };
}

/// All pools of this thread.
struct Registry {
    pools: RefCell<HashMap<u64, Entry, BuildHasherDefault<IdHasher>>>,
    /// The task that ages idle connections runs.
    sweeping: Cell<bool>,
}

struct Entry {
    pool: Rc<dyn Sweep>,
    handle: Weak<Target>,
}

/// What the sweep needs of a pool of any body type.
trait Sweep: Any {
    /// Closes what was idle too long, and with `closing` everything that is idle; counts the rest.
    fn sweep(&self, closing: bool) -> Census;
}

impl<B: RequestBody> Sweep for Pool<B> {
    fn sweep(&self, closing: bool) -> Census {
        let mut inner = self.inner.borrow_mut();
        inner.tick += 1;
        inner.closed |= closing;
        let kept = self.target.settings.idle.as_secs().max(1);
        let tick = inner.tick;
        let aged = |(used, _): &(u64, Box<Live<B>>)| closing || kept < tick - *used;
        let count = inner.idle.iter().take_while(|idle| aged(idle)).count();
        let mut old: Vec<_> = inner.idle.drain(..count).collect();
        let shared = inner.shared.clone();
        let rest = std::mem::take(&mut inner.idle);
        drop(inner);
        // A connection the peer has closed is let go now, not when somebody asks for it.
        let (alive, dead): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .map(|(used, mut live)| (live.is_reusable(), used, live))
            .partition(|(reusable, ..)| *reusable);
        let alive = alive.into_iter().map(|(_, used, live)| (used, live));
        self.inner.borrow_mut().idle.extend(alive);
        old.clear();
        drop(dead);
        for shared in shared {
            shared.sweep(if closing { 0 } else { kept });
        }
        let inner = self.inner.borrow();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (idle, connecting) = (count(inner.idle.len()), count(inner.dialing));
        let busy = count(inner.open) - idle - connecting;
        Census { busy, idle, connecting, awaited: count(inner.waiting.len()) }
    }
}

/// Ages the idle connections of this thread for as long as there are pools.
async fn sweep() {
    struct Sweeping;
    impl Drop for Sweeping {
        fn drop(&mut self) {
            REGISTRY.with(|registry| registry.sweeping.set(false));
            Census::default().tell();
        }
    }
    let _sweeping = Sweeping;
    loop {
        tokio::time::sleep(SWEEP).await;
        let pools: Vec<_> = REGISTRY.with(|registry| {
            let mut pools = registry.pools.borrow_mut();
            let all = pools
                .values()
                .map(|entry| (Rc::clone(&entry.pool), entry.handle.strong_count() == 0))
                .collect();
            pools.retain(|_, entry| entry.handle.strong_count() != 0);
            all
        });
        if pools.is_empty() {
            return;
        }
        let mut census = Census::default();
        for (pool, closing) in pools {
            census += pool.sweep(closing);
        }
        census.tell();
    }
}

/// Ids are numbers of our own in sequence: they are their own hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table takes its tag from the top bits and its bucket from the low ones.
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

#[cfg(test)]
mod tests;
