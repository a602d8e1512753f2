//! What the stages of one call tell each other.
//!
//! One allocation a call, made by whoever starts the call (the gateway, [`Calls`](crate::Calls),
//! or the first layer that finds none) and shared by reference in the request's extensions. Stages
//! read what stands above them decided (deadline, key for hashing, whether it may be repeated) and
//! write what they found out (attempts, instance), which access logs and outcome headers show.
//! What few calls have to say (a refusal, a quota) is boxed: the context of every call is made and
//! moved as a whole.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mainstay_core::{Clock, Instant};
use mainstay_resilience::deadline::{Covers, Deadline};
use parking_lot::Mutex;

use crate::circuit::SharedCircuit;
use crate::clock::MonotonicClock;
use crate::endpoint::Endpoint;
use crate::error::Refusal;
use crate::stage::limit::{Asked, Held, Quota};

/// Most attempts a call may take, and so most instances it can have tried.
pub const ATTEMPTS_MAX: usize = 8;

/// What the stages of one call share.
#[derive(Debug)]
pub struct Context {
    /// When the call began.
    pub started: Instant,
    /// Nanoseconds of the deadline; `u64::MAX` while there is none.
    deadline: AtomicU64,
    /// Whether the deadline covers the whole exchange, because the caller asked for it; if not it
    /// is our own and covers the way to the answer's head.
    whole: AtomicU32,
    /// Attempts begun.
    attempts: AtomicU32,
    /// Endpoints tried, by id plus one; zero is free.
    tried: [AtomicU32; ATTEMPTS_MAX],
    /// The last instance asked.
    instance: Mutex<Option<Arc<Endpoint>>>,
    /// Nanoseconds of the moment at which a stage last read the clock on the way down.
    moment: AtomicU64,
    /// A limit refused, and left it to the fallback to answer.
    limited: Mutex<Option<Box<(Refusal, Asked)>>>,
    /// What a delayed call took from its limits after all; goes back with the call.
    held: Mutex<Option<Box<Held>>>,
    /// The quota nearest to its end.
    quota: OnceLock<Box<Quota>>,
    /// Facts set once, before the call enters the stages.
    pub facts: Facts,
    /// Who the caller proved to be to a stage; set at most once.
    caller: OnceLock<Arc<Caller>>,
    /// What made the answer other than plain; set at most once.
    degraded: OnceLock<Degraded>,
    /// Why no further attempt was made, when one might have been.
    retry_stopped: OnceLock<&'static str>,
    /// Kind of the first fault done to an attempt on purpose.
    fault: OnceLock<&'static str>,
    /// Nanoseconds that the call waited in the queues of limits.
    queued: AtomicU64,
    /// Nanoseconds of the last attempt, to its end or the answer's head.
    upstream: AtomicU64,
}

/// What is known of a call before it enters the stages.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// A random number for the choices of this call.
    pub draw: u64,
    /// Hash of the key for consistent hashing.
    pub hash: Option<u64>,
    /// What the caller said of its own attempts; 2 or more means that it repeats already.
    pub arriving_attempt: u32,
    /// The caller or the route vouches that repeating does no harm.
    pub idempotent: bool,
    /// Who the caller has proved to be.
    pub principal: Option<Arc<str>>,
    /// Route the call came by; `None` outside a gateway.
    pub route: Option<Arc<str>>,
    /// By what switches that are on for a share of callers tell this one from others.
    pub switch_key: Option<Arc<str>>,
    /// Circuits of the service and the route; each attempt passes them beside its instance's own.
    pub circuits: Arc<[Arc<SharedCircuit>]>,
}

/// Who a caller has proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What kind of principal: `external`, `anonymous`.
    pub kind: &'static str,
    /// Who vouches for it; empty where nobody does.
    pub issuer: Arc<str>,
    /// What it goes by; `None` where nobody told.
    pub principal: Option<Arc<str>>,
}

/// How an answer came about when it is not simply the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// Kind of fallback: `silent`, `value`, `stale`, …
    pub kind: &'static str,
    /// What called for it: `circuit`, `timeout`, …
    pub cause: &'static str,
}

impl Context {
    /// A call that begins at `started`.
    pub fn new(started: Instant, facts: Facts) -> Arc<Self> {
        Arc::new(Self {
            started,
            deadline: AtomicU64::new(u64::MAX),
            whole: AtomicU32::new(0),
            attempts: AtomicU32::new(0),
            tried: Default::default(),
            instance: Mutex::new(None),
            moment: AtomicU64::new(started.as_nanos()),
            limited: Mutex::default(),
            held: Mutex::default(),
            quota: OnceLock::new(),
            facts,
            caller: OnceLock::new(),
            degraded: OnceLock::new(),
            retry_stopped: OnceLock::new(),
            fault: OnceLock::new(),
            queued: AtomicU64::new(0),
            upstream: AtomicU64::new(0),
        })
    }

    /// The context of `request`; made and attached when there is none yet.
    pub fn of<B>(request: &mut http::Request<B>) -> Arc<Self> {
        match request.extensions().get::<Arc<Self>>() {
            Some(context) => Arc::clone(context),
            None => Arc::clone(Self::within(request)),
        }
    }

    /// The same, for a look while the request is at hand.
    pub(crate) fn within<B>(request: &mut http::Request<B>) -> &Arc<Self> {
        request.extensions_mut().get_or_insert_with(|| {
            let now = MonotonicClock.now();
            Self::new(now, Facts { draw: crate::draw::next(), ..Facts::default() })
        })
    }

    /// When the call came to the stage that asks: the last moment that was [noted](Self::note).
    ///
    /// From stage to stage a call takes less time than reading the clock does, so a stage reads it
    /// only where the call has waited, and the stages below go by what it read.
    pub fn moment(&self) -> Instant {
        Instant::from_nanos(self.moment.load(Ordering::Relaxed))
    }

    /// Notes that the call goes on at `now`. Whatever holds a call back on its way down has to:
    /// the stages below it would else count the wait as theirs.
    pub fn note(&self, now: Instant) {
        self.moment.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Notes who the caller has proved to be. The first note stands.
    pub fn identify(&self, caller: Arc<Caller>) {
        let _first_stands = self.caller.set(caller);
    }

    /// Who the caller has proved to be; `None` where no stage asked.
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.get().map(|caller| &**caller)
    }

    /// What the caller goes by, known before the call or proved on its way.
    pub fn principal(&self) -> Option<&Arc<str>> {
        let proved = || self.caller.get().and_then(|caller| caller.principal.as_ref());
        self.facts.principal.as_ref().or_else(proved)
    }

    /// Until when the call may run.
    pub fn deadline(&self) -> Option<Deadline> {
        let nanos = self.deadline.load(Ordering::Relaxed);
        let whole = self.whole.load(Ordering::Relaxed) != 0;
        let covers = if whole { Covers::Exchange } else { Covers::Head };
        (nanos != u64::MAX).then(|| Deadline { at: Instant::from_nanos(nanos), covers })
    }

    /// Time left at `now`; `None` while there is no deadline.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.remaining(now))
    }

    /// Takes `deadline`, unless the one there is ends earlier.
    pub fn shorten(&self, deadline: Deadline) {
        if deadline.at.as_nanos() < self.deadline.load(Ordering::Relaxed) {
            self.deadline.store(deadline.at.as_nanos(), Ordering::Relaxed);
            let whole = deadline.covers == Covers::Exchange;
            self.whole.store(u32::from(whole), Ordering::Relaxed);
        }
    }

    /// Attempts begun so far.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Counts an attempt at `endpoint`.
    pub(crate) fn attempt(&self, endpoint: &Arc<Endpoint>) {
        let before = self.attempts.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.tried.get(before as usize) {
            slot.store(endpoint.id().wrapping_add(1), Ordering::Relaxed);
        }
        *self.instance.lock() = Some(Arc::clone(endpoint));
    }

    /// Whether the endpoint with this id was asked before.
    pub(crate) fn has_tried(&self, id: u32) -> bool {
        let begun = (self.attempts() as usize).min(ATTEMPTS_MAX);
        self.tried.iter().take(begun).any(|t| t.load(Ordering::Relaxed) == id.wrapping_add(1))
    }

    /// The last instance asked.
    pub fn instance(&self) -> Option<Arc<Endpoint>> {
        self.instance.lock().clone()
    }

    /// Notes that the answer is not simply the upstream's. The first note stands.
    pub fn degrade(&self, degraded: Degraded) {
        let _first_stands = self.degraded.set(degraded);
    }

    /// How the answer came about, when it is not simply the upstream's.
    pub fn degraded(&self) -> Option<Degraded> {
        self.degraded.get().copied()
    }

    /// Notes why no further attempt was made. The first note stands.
    pub(crate) fn stop_retry(&self, why: &'static str) {
        let _first_stands = self.retry_stopped.set(why);
    }

    /// Why no further attempt was made, when one might have been.
    pub fn retry_stopped(&self) -> Option<&'static str> {
        self.retry_stopped.get().copied()
    }

    /// Notes that a fault was done to an attempt on purpose. The first note stands.
    pub fn note_fault(&self, kind: &'static str) {
        let _first_stands = self.fault.set(kind);
    }

    /// Kind of the first fault done on purpose. The answer is marked with it, whoever gives it.
    pub fn fault(&self) -> Option<&'static str> {
        self.fault.get().copied()
    }

    /// Notes that the call waited for a limit.
    pub(crate) fn note_queued(&self, wait: Duration) {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.queued.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How long the call waited in the queues of limits, all of them together.
    pub fn queued(&self) -> Duration {
        Duration::from_nanos(self.queued.load(Ordering::Relaxed))
    }

    /// Notes how long an attempt took.
    pub(crate) fn note_upstream(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.upstream.store(nanos, Ordering::Relaxed);
    }

    /// How long the last attempt took, to its end or the answer's head.
    pub fn upstream(&self) -> Duration {
        Duration::from_nanos(self.upstream.load(Ordering::Relaxed))
    }

    /// Notes that a limit refused and the fallback is to answer.
    pub(crate) fn mark_limited(&self, refusal: Refusal, asked: Asked) {
        *self.limited.lock() = Some(Box::new((refusal, asked)));
    }

    /// The refusal of the limit that left it to the fallback to answer, once.
    pub(crate) fn take_limited(&self) -> Option<(Refusal, Asked)> {
        self.limited.lock().take().map(|limited| *limited)
    }

    /// Keeps what a delayed call took from its limits until the call is over.
    pub(crate) fn hold(&self, held: Held) {
        *self.held.lock() = Some(Box::new(held));
    }

    /// What a delayed call took from its limits, once.
    pub(crate) fn take_held(&self) -> Held {
        self.held.lock().take().map(|held| *held).unwrap_or_default()
    }

    /// Notes the quota nearest to its end. The first note stands.
    pub(crate) fn note_quota(&self, quota: Quota) {
        self.quota.get_or_init(|| Box::new(quota));
    }

    /// The quota nearest to its end, when a limit shows its headers.
    pub fn quota(&self) -> Option<&Quota> {
        self.quota.get().map(Box::as_ref)
    }
}
