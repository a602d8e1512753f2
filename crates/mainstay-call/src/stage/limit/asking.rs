//! The way of one call through its limits.

use std::borrow::Cow;
use std::sync::Arc;

use mainstay_core::{Clock, Instant};
use mainstay_resilience::limit::OnDeny;
use tower_service::Service;

use super::key::ReadKey;
use super::quota::Quota;
use super::{LIMITS_MAX, LimitLayer};
use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::error::{CallError, Refusal};
use crate::limit::{Answer, Key, Left, Place, SharedLimit, Taken};
use crate::observe::Observer;

/// Most parts a limit's key may have.
const PARTS_MAX: usize = 8;

/// The way through the limits.
#[derive(Debug)]
pub(super) struct Asking {
    asked: Asked,
    held: Held,
    /// The limit to ask next.
    next: usize,
    /// Since when the call waits for the one before it.
    waits_since: Option<Instant>,
    /// What is left of the quota that is nearest to its end.
    least: Option<(Arc<SharedLimit>, Left)>,
    context: Arc<Context>,
    observer: Arc<dyn Observer>,
    /// A limit has refused the call, and leaves the answer to the fallback.
    marked: bool,
    /// That refusal, until the call is marked with it.
    refusal: Option<Box<Refusal>>,
    /// The call was made, and what it took stays taken.
    made: bool,
}

/// Where the way has led.
pub(super) enum Step {
    /// Through.
    Through,
    /// To a wait until this moment.
    WaitUntil(Instant),
    /// Into a queue.
    Queue(Place),
    /// To a refusal.
    Refused(Box<Refusal>),
}

impl Asking {
    /// The way of the call `context` is of.
    pub(super) fn new<K>(layer: &LimitLayer<K>, context: Arc<Context>) -> Self {
        Self {
            asked: Asked { limits: Arc::clone(&layer.limits), keys: [0; LIMITS_MAX] },
            held: Held::default(),
            next: 0,
            waits_since: None,
            least: None,
            context,
            observer: Arc::clone(&layer.observer),
            marked: false,
            refusal: None,
            made: false,
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// How many limits there are to ask.
    fn count(&self) -> usize {
        self.asked.limits.len().min(LIMITS_MAX)
    }

    /// Reads the keys and asks as far as it goes without waiting.
    pub(super) fn begin<B, K: ReadKey<B>>(&mut self, keys: &K, request: &http::Request<B>) -> Step {
        let now = self.context.moment();
        for n in 0..self.count() {
            let step = if self.asked.limits[n].settings().key.is_empty() {
                self.ask(n, Key::default(), now)
            } else {
                self.ask_by_key(n, keys, request, now)
            };
            if !matches!(step, Step::Through) || self.marked {
                // The keys of the limits behind it are needed when the wait is over.
                for later in n + 1..self.count() {
                    self.read_key(later, keys, request);
                }
                return step;
            }
        }
        Step::Through
    }

    fn ask_by_key<B, K: ReadKey<B>>(
        &mut self,
        n: usize,
        keys: &K,
        request: &http::Request<B>,
        now: Instant,
    ) -> Step {
        let limit = Arc::clone(&self.asked.limits[n]);
        let policy = limit.settings();
        let mut room: [Cow<'_, str>; PARTS_MAX] = Default::default();
        for (value, part) in room.iter_mut().zip(&policy.key) {
            *value = keys.read(request, part).unwrap_or_default();
        }
        let values = room.get(..policy.key.len().min(PARTS_MAX)).unwrap_or_default();
        let hash = limit.hash(values);
        self.asked.keys[n] = hash;
        self.ask(n, Key { hash, values }, now)
    }

    fn read_key<B, K: ReadKey<B>>(&mut self, n: usize, keys: &K, request: &http::Request<B>) {
        let limit = Arc::clone(&self.asked.limits[n]);
        let policy = limit.settings();
        let read = |part| keys.read(request, part).unwrap_or_default();
        let values: Vec<_> = policy.key.iter().take(PARTS_MAX).map(read).collect();
        if !values.is_empty() {
            self.asked.keys[n] = limit.hash(&values);
        }
    }

    /// Goes on after a wait in a queue.
    pub(super) fn placed(&mut self, answer: Result<Taken, Box<Refusal>>) -> Step {
        let n = self.next - 1;
        self.context.note(MonotonicClock.now());
        match answer {
            Ok(taken) => {
                self.held[n] = Some(taken);
                self.go_on()
            }
            Err(refusal) => {
                let limit = Arc::clone(&self.asked.limits[n]);
                self.denied(&limit, refusal)
            }
        }
    }

    /// Goes on after a wait.
    pub(super) fn go_on(&mut self) -> Step {
        let now = MonotonicClock.now();
        self.context.note(now);
        if let Some(since) = self.waits_since.take() {
            let limit = &self.asked.limits[self.next - 1];
            self.observer.limit_waited(limit.name(), now.since(since));
            self.context.note_queued(now.since(since));
        }
        while self.next < self.count() {
            let key = Key { hash: self.asked.keys[self.next], values: &[] };
            let step = self.ask(self.next, key, now);
            if !matches!(step, Step::Through) || self.marked {
                return step;
            }
        }
        Step::Through
    }

    fn ask(&mut self, n: usize, key: Key<'_>, now: Instant) -> Step {
        let limit = Arc::clone(&self.asked.limits[n]);
        self.next = n + 1;
        let deadline = self.context.deadline().map_or(Instant::MAX, |deadline| deadline.at);
        match limit.ask(now, key, deadline) {
            Answer::Granted(taken, left) => {
                self.held[n] = Some(taken);
                self.note(&limit, left);
                let decision = if left.would_reject { "would-reject" } else { "granted" };
                self.observer.limit_decided(limit.name(), decision);
                Step::Through
            }
            Answer::GoesAt(until, taken) => {
                self.held[n] = Some(taken);
                self.observer.limit_decided(limit.name(), "waited");
                self.waits_since = Some(now);
                Step::WaitUntil(until)
            }
            Answer::Queued(place) => {
                self.observer.limit_decided(limit.name(), "waited");
                self.waits_since = Some(now);
                Step::Queue(place)
            }
            Answer::Denied(refusal) => self.denied(&limit, refusal),
        }
    }

    fn denied(&mut self, limit: &Arc<SharedLimit>, refusal: Box<Refusal>) -> Step {
        refund(&mut self.held);
        self.observer.limit_decided(limit.name(), "denied");
        let reset = refusal.retry_after.unwrap_or_default();
        self.least = None;
        self.note(limit, Left { remaining: 0, reset, would_reject: false });
        self.tell();
        if limit.settings().on_deny == OnDeny::Fallback {
            self.marked = true;
            self.refusal = Some(refusal);
            return Step::Through;
        }
        Step::Refused(refusal)
    }

    /// Makes the call, unless a refusal that was left to the fallback is taken up by nobody.
    pub(super) fn send<S, B>(
        &mut self,
        service: &mut S,
        request: http::Request<B>,
    ) -> Result<S::Future, Box<Refusal>>
    where
        S: Service<http::Request<B>, Error = CallError>,
    {
        self.tell();
        if let Some(refusal) = self.refusal.take() {
            self.context.mark_limited(*refusal, self.asked.clone());
        }
        let call = service.call(request);
        if self.marked
            && let Some((refusal, _)) = self.context.take_limited()
        {
            return Err(Box::new(refusal));
        }
        self.made = true;
        Ok(call)
    }

    /// What the call holds until its end, if any of that is a permit.
    pub(super) fn take_permits(&mut self) -> Option<Held> {
        if self.marked {
            // One that a limit refused holds what it took after a delay, if anything.
            self.held = self.context.take_held();
        }
        let holds = self.held.iter().flatten().any(Taken::is_permit);
        holds.then(|| std::mem::take(&mut self.held))
    }

    fn note(&mut self, limit: &Arc<SharedLimit>, left: Left) {
        if limit.settings().headers
            && self.least.as_ref().is_none_or(|(_, least)| left.remaining < least.remaining)
        {
            self.least = Some((Arc::clone(limit), left));
        }
    }

    /// Leaves the quota nearest to its end in the context, for the answer's headers.
    fn tell(&mut self) {
        if let Some((limit, left)) = self.least.take()
            && let Some(quota) = Quota::of(&limit, left)
        {
            self.context.note_quota(quota);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.made {
            // The caller gave up while waiting.
            refund(&mut self.held);
        }
    }
}

/// The limits of one call, to be asked together.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    limits: Arc<[Arc<SharedLimit>]>,
    /// Hash of each limit's key; nothing for one without a key.
    keys: [u128; LIMITS_MAX],
}

/// What a call took from its limits.
pub(crate) type Held = [Option<Taken>; LIMITS_MAX];

impl Asked {
    /// Asks every limit once more, for a call that was delayed. Whatever does not let it through
    /// at once refuses.
    pub(crate) fn once_more(&self, now: Instant) -> Result<Held, Refusal> {
        let mut held = Held::default();
        for (n, limit) in self.limits.iter().enumerate().take(LIMITS_MAX) {
            let key = Key { hash: self.keys[n], values: &[] };
            match limit.ask(now, key, now) {
                Answer::Granted(taken, _) | Answer::GoesAt(_, taken) => held[n] = Some(taken),
                Answer::Denied(refusal) => {
                    refund(&mut held);
                    return Err(*refusal);
                }
                // A place in the queue is given up by dropping it.
                Answer::Queued(_) => {
                    refund(&mut held);
                    return Err(limit.refuse_now());
                }
            }
        }
        Ok(held)
    }
}

fn refund(held: &mut Held) {
    for taken in held.iter_mut().filter_map(Option::take) {
        taken.refund();
    }
}
