//! A limit shared by threads.
//!
//! The plain bucket, which is most limits, is one atomic word. Other limits that tell time stand
//! behind one short mutex. Limits on calls in flight do too, with the wakers of those who wait
//! beside the machine: the machine says whose turn it is, and this wakes them.

mod bucket;
mod in_flight;
mod snapshot;
mod taken;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::limit::{
    Admission, Decision, Denied, KeyText, Keyed, KeyedUsage, Kind, LimitPolicy, Limiter, Permit,
    Receipt, TopKey, Usage,
};
use parking_lot::Mutex;

use self::bucket::{Bucket, Verdict};
use self::in_flight::InFlight;
pub use self::snapshot::{KeySecret, LimitSnapshot};
use self::taken::What;
pub(crate) use self::taken::{Fared, Place, Taken};
use crate::clock::MonotonicClock;
use crate::error::{Figures, Refusal};

/// One limit that any number of threads ask.
#[derive(Debug)]
pub struct SharedLimit {
    name: Arc<str>,
    gate: Gate,
    secret: KeySecret,
    policy: ArcSwap<LimitPolicy>,
    /// What a switch makes of the quota. Held while that or the policy changes: each is made of
    /// both.
    scale_percent: Mutex<u32>,
}

#[derive(Debug)]
enum Gate {
    Bucket(Bucket),
    Lone(Mutex<Limiter>),
    Keyed(Mutex<Keyed>),
    InFlight(Mutex<InFlight>),
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
    /// The call may go only because the limit observes.
    pub(crate) would_reject: bool,
}

impl SharedLimit {
    /// A limit nobody has asked yet.
    pub fn new(name: Arc<str>, policy: Arc<LimitPolicy>) -> Self {
        Self::with_secret(name, policy, KeySecret::new())
    }

    /// The same with keys hashed by `secret`, so that it can take over what another counted.
    pub fn with_secret(name: Arc<str>, policy: Arc<LimitPolicy>, secret: KeySecret) -> Self {
        let gate = Gate::new(&policy, secret, MonotonicClock.now());
        let scale_percent = Mutex::new(100);
        Self { name, gate, secret, policy: ArcSwap::new(policy), scale_percent }
    }

    /// Name, as configured.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<LimitPolicy> {
        self.policy.load_full()
    }

    /// The policy in force, for a short look.
    pub(crate) fn settings(&self) -> Guard<Arc<LimitPolicy>> {
        self.policy.load()
    }

    /// Takes another policy and keeps what was used and learned. Returns false, and changes
    /// nothing, when the new policy is of a kind that needs another gate (a bucket against other
    /// kinds that tell time, time against calls in flight, keyed against not): make a new limit
    /// then.
    pub fn set_policy(&self, policy: &Arc<LimitPolicy>) -> bool {
        let percent = self.scale_percent.lock();
        let now = MonotonicClock.now();
        let keyed = !policy.key.is_empty();
        let bucket = !keyed && matches!(policy.kind, Kind::Bucket { .. });
        let kept = match &self.gate {
            Gate::Bucket(machine) => bucket && machine.set_policy(now, &scaled(policy, *percent)),
            Gate::Lone(machine) => !keyed && !bucket && machine.lock().set_policy(now, policy),
            Gate::Keyed(machine) => {
                keyed && machine.lock().set_policy(now, policy, |key| self.secret.hash(key))
            }
            Gate::InFlight(gate) => {
                let same = matches!(policy.kind, Kind::Concurrency { .. } | Kind::Adaptive { .. });
                if same {
                    let woken = gate.lock().set_policy(now, policy);
                    woken.wake();
                }
                same
            }
        };
        if kept {
            self.policy.store(Arc::clone(policy));
        }
        kept
    }

    /// Scales the quota to `percent` of what is written, rounded down, at least 1: what was used
    /// stays used, and a higher quota adds nothing at once. A policy taken later is scaled too.
    pub fn set_scale(&self, percent: u32) {
        let mut before = self.scale_percent.lock();
        if std::mem::replace(&mut *before, percent) == percent {
            return;
        }
        let (now, policy) = (MonotonicClock.now(), self.policy());
        match &self.gate {
            Gate::Bucket(machine) => {
                machine.set_policy(now, &scaled(&policy, percent));
            }
            Gate::Lone(machine) => machine.lock().set_scale(now, percent),
            Gate::Keyed(machine) => machine.lock().set_scale(now, percent),
            Gate::InFlight(gate) => {
                let woken = gate.lock().set_scale(now, percent, &policy);
                woken.wake();
            }
        }
    }

    /// The hash of a key's values, one for each part.
    pub(crate) fn hash<T: AsRef<str>>(&self, values: &[T]) -> u128 {
        self.secret.hash(values)
    }

    /// Asks for one call's units. `key` is ignored by a limit without keys.
    pub(crate) fn ask(self: &Arc<Self>, now: Instant, key: Key<'_>, deadline: Instant) -> Answer {
        match &self.gate {
            Gate::Bucket(bucket) => self.ask_bucket(bucket, now),
            Gate::Lone(machine) => {
                let cost = self.settings().cost;
                let decision = machine.lock().ask_by(now, cost, deadline);
                self.answer(now, decision, |receipt| What::Receipt(Some(receipt)))
            }
            Gate::Keyed(machine) => {
                let cost = self.settings().cost;
                let text = |text: &mut KeyText| {
                    for (n, value) in key.values.iter().enumerate() {
                        let separator = if n == 0 { "" } else { " " };
                        let _full = write!(text, "{separator}{value}");
                    }
                };
                let decision = machine.lock().ask(now, key.hash, cost, deadline, text);
                self.answer(now, decision, |receipt| What::KeyedReceipt(key.hash, Some(receipt)))
            }
            Gate::InFlight(gate) => self.ask_in_flight(gate, now, deadline),
        }
    }

    fn ask_bucket(self: &Arc<Self>, bucket: &Bucket, now: Instant) -> Answer {
        match bucket.ask(now) {
            Verdict::Granted { remaining, reset, spent } => {
                let left = Left { remaining, reset, would_reject: spent.is_none() };
                Answer::Granted(self.taken(What::Spent(spent)), left)
            }
            Verdict::Denied(denied) => Answer::Denied(Box::new(self.refusal(now, denied))),
            Verdict::CostExceedsQuota { capacity } => self.cost_exceeds(capacity),
        }
    }

    fn ask_in_flight(
        self: &Arc<Self>,
        gate: &Mutex<InFlight>,
        now: Instant,
        deadline: Instant,
    ) -> Answer {
        let mut gate = gate.lock();
        match gate.semaphore.ask(now, deadline) {
            Admission::Granted(permit) => {
                let (in_flight, max) = (gate.semaphore.in_flight(), gate.semaphore.max());
                drop(gate);
                let remaining = u64::from(max.saturating_sub(in_flight));
                let would_reject = max < in_flight;
                let left = Left { remaining, reset: Duration::ZERO, would_reject };
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

    /// How much is in use; for a keyed limit of all keys together.
    pub fn usage(&self) -> LimitUsage {
        let now = MonotonicClock.now();
        match &self.gate {
            Gate::Bucket(bucket) => LimitUsage::Lone(bucket.usage(now)),
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
            Gate::Bucket(_) | Gate::Lone(_) | Gate::InFlight(_) => Vec::new(),
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

    fn answer(
        self: &Arc<Self>,
        now: Instant,
        decision: Decision,
        what: impl FnOnce(Receipt) -> What,
    ) -> Answer {
        match decision {
            Decision::Granted { remaining, reset, receipt } => {
                let left = Left { remaining, reset, would_reject: receipt.is_empty() };
                Answer::Granted(self.taken(what(receipt)), left)
            }
            Decision::Wait { until, receipt } => Answer::GoesAt(until, self.taken(what(receipt))),
            Decision::Denied(denied) => Answer::Denied(Box::new(self.refusal(now, denied))),
            Decision::CostExceedsQuota { capacity } => self.cost_exceeds(capacity),
        }
    }

    fn taken(self: &Arc<Self>, what: What) -> Taken {
        Taken { limit: Arc::clone(self), what }
    }

    fn permit(self: &Arc<Self>, permit: Permit, since: Instant, in_flight: u32) -> Taken {
        self.taken(What::Permit { permit: Some(permit), since, in_flight, head: None })
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

    #[cold]
    fn cost_exceeds(&self, capacity: u32) -> Answer {
        Answer::Denied(Box::new(Refusal {
            code: Code::CostExceedsQuota,
            stage: "limit",
            scope: None,
            rule: Arc::clone(&self.name),
            figures: Figures {
                observed: f64::from(self.settings().cost.get()),
                threshold: f64::from(capacity),
                unit: "units",
            },
            since: Duration::ZERO,
            retry_after: None,
            status: None,
            effect: Effect::None,
        }))
    }
}

impl Gate {
    fn new(policy: &LimitPolicy, secret: KeySecret, now: Instant) -> Self {
        if let Some(in_flight) = InFlight::new(policy, now) {
            return Self::InFlight(Mutex::new(in_flight));
        }
        if !policy.key.is_empty()
            && let Some(keyed) = Keyed::new(policy, now, |values| secret.hash(values))
        {
            return Self::Keyed(Mutex::new(keyed));
        }
        if let Some(bucket) = Bucket::new(policy) {
            return Self::Bucket(bucket);
        }
        let limiter = Limiter::new(policy, now);
        Self::Lone(Mutex::new(limiter.expect("a limit that is no semaphore tells time")))
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

/// `policy` with its quota scaled.
fn scaled(policy: &LimitPolicy, percent: u32) -> LimitPolicy {
    LimitPolicy { kind: policy.kind.scaled(percent), ..policy.clone() }
}
