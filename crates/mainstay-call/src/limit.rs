//! A limit shared by threads.
//!
//! Limits that tell time stand behind one short mutex. Limits on calls in flight do too, with the
//! wakers of those who wait beside the machine: the machine says whose turn it is, and this wakes
//! them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::adaptive::{Adaptive, Ended};
use mainstay_resilience::limit::{
    Admission, Claim, Cost, Decision, Denied, Keyed, KeyedUsage, Kind, LimitPolicy, Limiter,
    Permit, Receipt, Semaphore, Ticket, TicketId, TopKey, Usage,
};
use parking_lot::Mutex;

use crate::clock::MonotonicClock;
use crate::error::{Figures, Refusal};

/// One limit that any number of threads ask.
#[derive(Debug)]
pub struct SharedLimit {
    name: Arc<str>,
    gate: Gate,
    hashers: [RandomState; 2],
    policy: Mutex<Arc<LimitPolicy>>,
}

#[derive(Debug)]
enum Gate {
    Lone(Mutex<Limiter>),
    Keyed(Mutex<Keyed>),
    InFlight(Mutex<InFlight>),
}

/// A semaphore, who waits for it, and what moves its maximum.
#[derive(Debug)]
struct InFlight {
    semaphore: Semaphore,
    wakers: BTreeMap<TicketId, Waker>,
    adaptive: Option<Adaptive>,
}

/// The answer of a limit.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The call may go.
    Granted(Taken, Left),
    /// The call may go at this moment.
    GoesAt(Instant, Taken),
    /// The call waits its turn.
    Queued(Place),
    /// The call may not go.
    Denied(Box<Refusal>),
}

/// What is left of a quota.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) remaining: u64,
    pub(crate) reset: Duration,
}

/// What a call took from a limit. Units in flight go back when this is dropped; units of a window
/// stay counted, unless [`Taken::refund`] says that the call was not made.
#[derive(Debug)]
pub(crate) struct Taken {
    limit: Arc<SharedLimit>,
    what: What,
}

#[derive(Debug)]
enum What {
    Receipt(Option<Receipt>),
    KeyedReceipt(u128, Option<Receipt>),
    Permit { permit: Option<Permit>, since: Instant, in_flight: u32 },
}

/// A place in the queue for a permit.
#[derive(Debug)]
pub(crate) struct Place {
    limit: Arc<SharedLimit>,
    ticket: Option<Ticket>,
}

/// How a call that held a permit ended, for limits that adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fared {
    /// Answered.
    Well,
    /// Timed out, was refused, or met congestion: the sign of too many.
    Dropped,
    /// Says nothing.
    Unknown,
}

impl SharedLimit {
    /// A limit nobody has asked yet.
    pub fn new(name: Arc<str>, policy: Arc<LimitPolicy>) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        let now = MonotonicClock.now();
        let gate = gate(&policy, &hashers, now);
        Self { name, gate, hashers, policy: Mutex::new(policy) }
    }

    /// Name, as configured.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<LimitPolicy> {
        Arc::clone(&self.policy.lock())
    }

    /// Takes another policy and keeps what was used. Returns false when the new policy is of a
    /// kind that needs another gate (time against calls in flight, keyed against not): make a new
    /// limit then.
    pub fn set_policy(&self, policy: &Arc<LimitPolicy>) -> bool {
        let now = MonotonicClock.now();
        let keyed = !policy.key.is_empty();
        let kept = match &self.gate {
            Gate::Lone(machine) => !keyed && machine.lock().set_policy(now, policy),
            Gate::Keyed(machine) => {
                keyed && machine.lock().set_policy(now, policy, |key| self.hash(key))
            }
            Gate::InFlight(gate) => {
                let mut gate = gate.lock();
                let same = matches!(policy.kind, Kind::Concurrency { .. } | Kind::Adaptive { .. });
                if same {
                    let woken = gate.semaphore.set_policy(now, policy);
                    gate.adaptive = adaptive(policy, now);
                    gate.wake(&woken);
                }
                same
            }
        };
        if kept {
            *self.policy.lock() = Arc::clone(policy);
        }
        kept
    }

    /// The hash of a key's values, one for each part; two keyed hashes with secrets of this
    /// process, so that nobody outside can make two keys meet.
    pub(crate) fn hash<T: AsRef<str>>(&self, values: &[T]) -> u128 {
        let [a, b] = [0, 1].map(|n: usize| {
            let mut hasher = self.hashers[n].build_hasher();
            for value in values {
                value.as_ref().hash(&mut hasher);
            }
            hasher.finish()
        });
        u128::from(a) << 64 | u128::from(b)
    }

    /// Asks for one call's units. `key` is the values of the key's parts, joined for people and
    /// hashed by [`SharedLimit::hash`]; it is ignored by a limit without keys.
    pub(crate) fn ask(self: &Arc<Self>, now: Instant, key: Key<'_>, deadline: Instant) -> Answer {
        let cost = self.cost();
        match &self.gate {
            Gate::Lone(machine) => {
                let decision = machine.lock().ask_by(now, cost, deadline);
                self.answer(now, decision, |receipt| What::Receipt(Some(receipt)))
            }
            Gate::Keyed(machine) => {
                let text = |text: &mut mainstay_resilience::limit::KeyText| {
                    use std::fmt::Write;
                    for (n, value) in key.values.iter().enumerate() {
                        let separator = if n == 0 { "" } else { " " };
                        let _full = write!(text, "{separator}{value}");
                    }
                };
                let decision = machine.lock().ask(now, key.hash, cost, deadline, text);
                self.answer(now, decision, |receipt| What::KeyedReceipt(key.hash, Some(receipt)))
            }
            Gate::InFlight(gate) => {
                let mut gate = gate.lock();
                match gate.semaphore.ask(now, deadline) {
                    Admission::Granted(permit) => {
                        let usage = gate.semaphore.usage();
                        let left = Left { remaining: usage.remaining(), reset: usage.reset };
                        let in_flight = gate.semaphore.in_flight();
                        drop(gate);
                        Answer::Granted(self.permit(permit, now, in_flight), left)
                    }
                    Admission::Queued(ticket) => {
                        Answer::Queued(Place { limit: Arc::clone(self), ticket: Some(ticket) })
                    }
                    Admission::Denied(denied) => {
                        drop(gate);
                        Answer::Denied(Box::new(self.refusal(now, denied)))
                    }
                }
            }
        }
    }

    /// How much is in use; for a keyed limit of all keys together.
    pub fn usage(&self) -> LimitUsage {
        let now = MonotonicClock.now();
        match &self.gate {
            Gate::Lone(machine) => LimitUsage::Lone(machine.lock().usage(now)),
            Gate::Keyed(machine) => LimitUsage::Keyed(machine.lock().usage()),
            Gate::InFlight(gate) => {
                let gate = gate.lock();
                let waiting = gate.semaphore.queued();
                LimitUsage::InFlight { usage: gate.semaphore.usage(), waiting }
            }
        }
    }

    /// The keys that asked most; empty for a limit without keys.
    pub fn top(&self, n: usize) -> Vec<TopKey> {
        match &self.gate {
            Gate::Keyed(machine) => machine.lock().top(n),
            Gate::Lone(_) | Gate::InFlight(_) => Vec::new(),
        }
    }

    /// The refusal of a call that would have had to wait and may not.
    pub(crate) fn refuse_now(&self) -> Refusal {
        let now = MonotonicClock.now();
        let (observed, threshold) = match self.usage() {
            LimitUsage::InFlight { usage, .. } | LimitUsage::Lone(usage) => {
                (usage.used, usage.capacity)
            }
            LimitUsage::Keyed(_) => (0, 0),
        };
        self.refusal(now, Denied { retry_after: Duration::ZERO, observed, threshold, since: now })
    }

    fn cost(&self) -> Cost {
        self.policy.lock().cost
    }

    fn answer(
        self: &Arc<Self>,
        now: Instant,
        decision: Decision,
        what: impl FnOnce(Receipt) -> What,
    ) -> Answer {
        let taken = |receipt| Taken { limit: Arc::clone(self), what: what(receipt) };
        match decision {
            Decision::Granted { remaining, reset, receipt } => {
                Answer::Granted(taken(receipt), Left { remaining, reset })
            }
            Decision::Wait { until, receipt } => Answer::GoesAt(until, taken(receipt)),
            Decision::Denied(denied) => Answer::Denied(Box::new(self.refusal(now, denied))),
            Decision::CostExceedsQuota { capacity } => Answer::Denied(Box::new(Refusal {
                code: Code::CostExceedsQuota,
                stage: "limit",
                scope: None,
                rule: Arc::clone(&self.name),
                figures: Figures {
                    observed: f64::from(self.cost().get()),
                    threshold: f64::from(capacity),
                    unit: "units",
                },
                since: Duration::ZERO,
                retry_after: None,
                status: None,
                effect: Effect::None,
            })),
        }
    }

    fn permit(self: &Arc<Self>, permit: Permit, since: Instant, in_flight: u32) -> Taken {
        let what = What::Permit { permit: Some(permit), since, in_flight };
        Taken { limit: Arc::clone(self), what }
    }

    fn refusal(&self, now: Instant, denied: Denied) -> Refusal {
        let in_flight = matches!(self.gate, Gate::InFlight(_));
        #[expect(clippy::cast_precision_loss, reason = "shown to people, far below 2^52")]
        let (observed, threshold) = (denied.observed as f64, denied.threshold as f64);
        Refusal {
            code: if in_flight { Code::Shed } else { Code::Limited },
            stage: "limit",
            scope: None,
            rule: Arc::clone(&self.name),
            figures: Figures {
                observed,
                threshold,
                unit: if in_flight { "calls in flight" } else { "units" },
            },
            since: now.since(denied.since),
            // Nobody knows when a call in flight will end; a second is a polite guess.
            retry_after: Some(if in_flight { Duration::from_secs(1) } else { denied.retry_after }),
            status: None,
            effect: Effect::None,
        }
    }
}

/// The key of one call, for limits that have keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key<'a> {
    pub(crate) hash: u128,
    pub(crate) values: &'a [std::borrow::Cow<'a, str>],
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug)]
pub enum LimitUsage {
    /// One quota.
    Lone(Usage),
    /// A quota for each key.
    Keyed(KeyedUsage),
    /// Calls in flight.
    InFlight {
        /// Permits out of the maximum.
        usage: Usage,
        /// Calls waiting for one.
        waiting: usize,
    },
}

fn gate(policy: &LimitPolicy, hashers: &[RandomState; 2], now: Instant) -> Gate {
    let hash = |values: &[String]| {
        let [a, b] = [0, 1].map(|n: usize| {
            let mut hasher = hashers[n].build_hasher();
            values.iter().for_each(|value| value.as_str().hash(&mut hasher));
            hasher.finish()
        });
        u128::from(a) << 64 | u128::from(b)
    };
    if let Some(semaphore) = Semaphore::new(policy) {
        let adaptive = adaptive(policy, now);
        return Gate::InFlight(Mutex::new(InFlight {
            semaphore,
            wakers: BTreeMap::new(),
            adaptive,
        }));
    }
    if !policy.key.is_empty()
        && let Some(keyed) = Keyed::new(policy, now, hash)
    {
        return Gate::Keyed(Mutex::new(keyed));
    }
    let limiter = Limiter::new(policy, now);
    Gate::Lone(Mutex::new(limiter.expect("a limit that is no semaphore tells time")))
}

impl InFlight {
    fn wake(&mut self, woken: &[TicketId]) {
        for id in woken {
            if let Some(waker) = self.wakers.remove(id) {
                waker.wake();
            }
        }
    }
}

impl Taken {
    /// Gives everything back: the call was not made.
    pub(crate) fn refund(mut self) {
        let now = MonotonicClock.now();
        match (&self.limit.gate, &mut self.what) {
            (Gate::Lone(machine), What::Receipt(receipt)) => {
                if let Some(receipt) = receipt.take() {
                    machine.lock().refund(now, receipt);
                }
            }
            (Gate::Keyed(machine), What::KeyedReceipt(key, receipt)) => {
                if let Some(receipt) = receipt.take() {
                    machine.lock().refund(now, *key, receipt);
                }
            }
            // A permit goes back when it is dropped.
            _ => (),
        }
    }

    /// Whether it is a permit, which must be held until the answer's body has ended.
    pub(crate) fn is_permit(&self) -> bool {
        matches!(self.what, What::Permit { .. })
    }

    /// Tells a limit that adapts how the call went; gives back a permit.
    pub(crate) fn ended(mut self, fared: Fared) {
        self.give_back(fared);
    }

    fn give_back(&mut self, fared: Fared) {
        let (Gate::InFlight(gate), What::Permit { permit, since, in_flight }) =
            (&self.limit.gate, &mut self.what)
        else {
            return;
        };
        let Some(permit) = permit.take() else { return };
        let now = MonotonicClock.now();
        let mut gate = gate.lock();
        let next = gate.semaphore.release(now, permit);
        gate.wake(next.as_slice());
        let ended = match fared {
            Fared::Well => Some(Ended::Success),
            Fared::Dropped => Some(Ended::Dropped),
            Fared::Unknown => None,
        };
        if let (Some(ended), Some(adaptive)) = (ended, &mut gate.adaptive)
            && let Some(max) = adaptive.record(now, *since, *in_flight, ended, now.since(*since))
        {
            let woken = gate.semaphore.set_max(now, max);
            gate.wake(&woken);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back(Fared::Unknown);
    }
}

impl Place {
    /// When the wait is over.
    pub(crate) fn until(&self) -> Instant {
        self.ticket.as_ref().map_or(Instant::ZERO, Ticket::until)
    }

    /// Ready with a permit, or with the refusal once the wait took too long.
    pub(crate) fn poll_permit(&mut self, cx: &mut Task<'_>) -> Poll<Result<Taken, Box<Refusal>>> {
        let now = MonotonicClock.now();
        let Gate::InFlight(gate) = &self.limit.gate else { return Poll::Pending };
        let Some(ticket) = self.ticket.take() else { return Poll::Pending };
        let mut gate = gate.lock();
        let id = ticket.id();
        match gate.semaphore.claim(now, ticket) {
            Claim::Granted(permit) => {
                let in_flight = gate.semaphore.in_flight();
                gate.wakers.remove(&id);
                drop(gate);
                Poll::Ready(Ok(self.limit.permit(permit, now, in_flight)))
            }
            Claim::Waiting(ticket) => {
                gate.wakers.insert(id, cx.waker().clone());
                self.ticket = Some(ticket);
                Poll::Pending
            }
            Claim::Expired(denied) => {
                gate.wakers.remove(&id);
                drop(gate);
                Poll::Ready(Err(Box::new(self.limit.refusal(now, denied))))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let Gate::InFlight(gate) = &self.limit.gate else { return };
        let mut gate = gate.lock();
        gate.wakers.remove(&ticket.id());
        let next = gate.semaphore.cancel(MonotonicClock.now(), ticket);
        gate.wake(next.as_slice());
    }
}

fn adaptive(policy: &LimitPolicy, now: Instant) -> Option<Adaptive> {
    let _ = (policy, now);
    None
}
