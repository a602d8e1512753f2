//! One time-based limit, whatever its kind.

use std::time::Duration;

use mainstay_core::Instant;

use super::bucket::Rate;
use super::counter::Counter;
use super::decision::{Cost, Decision, Receipt, Usage};
use super::machine::{Clerk, Level, Refusing, Request, Rule, Spent, Verdict};
use super::pacing::Pacing;
use super::policy::{Kind, LimitPolicy, Mode};
use super::sliding::Sliding;
use super::snapshot::QuotaLeft;
use super::warm_up::WarmUp;

/// A counter, sliding window, bucket, pacer or warm-up.
///
/// ```
/// # use mainstay_core::Instant;
/// # use mainstay_resilience::limit::{Cost, Decision, LimitPolicy, Limiter, RawLimit};
/// let policy = LimitPolicy::try_from(RawLimit { max: Some(1), ..RawLimit::default() })?;
/// let now = Instant::ZERO;
/// let mut limiter = Limiter::new(&policy, now).expect("a bucket tells time");
/// assert!(matches!(limiter.ask(now, Cost::ONE), Decision::Granted { .. }));
/// assert!(matches!(limiter.ask(now, Cost::ONE), Decision::Denied(denied)
///     if denied.retry_after.as_secs() == 1));
/// # Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Limiter {
    machine: Machine,
    clerk: Clerk,
    refusing: Refusing,
    /// Counts changes of policy, so that receipts from before one are told apart.
    life: u32,
    last: Instant,
    written: Kind,
    cost: Cost,
    percent: u32,
}

impl Limiter {
    /// A limit nobody has asked yet; `None` for the kinds that count calls in flight, which are a
    /// [`Semaphore`](super::Semaphore).
    pub fn new(policy: &LimitPolicy, now: Instant) -> Option<Self> {
        Some(Self {
            machine: Machine::new(policy.kind, policy.cost, now)?,
            clerk: Clerk::new(policy.mode),
            refusing: Refusing::default(),
            life: 1,
            last: now,
            written: policy.kind,
            cost: policy.cost,
            percent: 100,
        })
    }

    /// Asks for `cost` units at `now`, ready to wait as long as the policy allows.
    pub fn ask(&mut self, now: Instant, cost: Cost) -> Decision {
        self.ask_by(now, cost, Instant::MAX)
    }

    /// Asks for `cost` units at `now`; a wait that would not end by `deadline` is a denial.
    pub fn ask_by(&mut self, now: Instant, cost: Cost, deadline: Instant) -> Decision {
        let request = Request { now: self.see(now), cost: cost.get(), deadline };
        match self.machine.ask(request) {
            Ok(verdict) => self.clerk.decide(request, verdict, self.life, &mut self.refusing),
            Err(capacity) => self.clerk.exceeds(request, capacity),
        }
    }

    /// Gives back what a call took that will not be made: because another limit refused it, or
    /// because it stopped waiting.
    ///
    /// In the same instant, and with no other call in between, nothing remains of it. Later, what
    /// time has already given back is not given twice, and a slot of a paced limit that others
    /// stand behind stays empty.
    pub fn refund(&mut self, now: Instant, receipt: Receipt) {
        let now = self.see(now);
        if receipt.life == self.life {
            let Receipt { cost, at, slot, .. } = receipt;
            self.machine.refund(now, Spent { cost, at, slot });
        }
    }

    /// Takes over a changed policy and keeps what was used: a lower quota grants no extra burst, a
    /// higher one adds nothing at once.
    ///
    /// Returns false, and changes nothing, for a kind that counts calls in flight.
    pub fn set_policy(&mut self, now: Instant, policy: &LimitPolicy) -> bool {
        let now = self.see(now);
        let kind = policy.kind.scaled(self.percent);
        let Some(machine) = Machine::new(kind, policy.cost, now) else { return false };
        self.machine.become_like(machine, now);
        self.clerk.mode = policy.mode;
        self.written = policy.kind;
        self.cost = policy.cost;
        self.life = self.life.wrapping_add(1).max(1);
        true
    }

    /// Scales the quota to `percent` of what is written, rounded down, at least 1; as live as
    /// [`Limiter::set_policy`]. A policy set later is scaled too.
    pub fn set_scale(&mut self, now: Instant, percent: u32) {
        let now = self.see(now);
        if self.percent == percent {
            return;
        }
        self.percent = percent;
        if let Some(machine) = Machine::new(self.written.scaled(percent), self.cost, now) {
            self.machine.become_like(machine, now);
            self.life = self.life.wrapping_add(1).max(1);
        }
    }

    /// What is worth keeping over a restart, if anything.
    pub fn snapshot(&self, now: Instant) -> Option<QuotaLeft> {
        self.machine.snapshot(now.max(self.last))
    }

    /// Begins with what was written down `elapsed` ago. For a limit nobody has asked yet.
    pub fn restore(&mut self, now: Instant, kept: &QuotaLeft, elapsed: Duration) {
        let now = self.see(now);
        self.machine.restore(now, kept, elapsed);
        self.life = self.life.wrapping_add(1).max(1);
    }

    /// How much is in use at `now`, and the answers so far.
    pub fn usage(&self, now: Instant) -> Usage {
        let Level { used, capacity, reset } = self.machine.level(now.max(self.last));
        Usage { used, capacity, reset, tally: self.clerk.tally }
    }

    /// Whether refusals are turned into grants.
    pub const fn mode(&self) -> Mode {
        self.clerk.mode
    }

    /// Moves time on. What a limit holds follows from the moment it is asked, so nothing else does.
    pub fn poll(&mut self, now: Instant) {
        self.see(now);
    }

    /// When the limit will be as if nobody had ever asked, or `None` if it is so now. Nothing needs
    /// to be done then; a gauge may want to be read once more.
    pub fn next_wake(&self) -> Option<Instant> {
        let reset = self.machine.level(self.last).reset;
        (!reset.is_zero()).then(|| self.last.plus(reset))
    }

    fn see(&mut self, now: Instant) -> Instant {
        self.last = self.last.max(now);
        self.last
    }
}

/// A rule and the one state it is applied to.
#[derive(Clone, Copy, Debug)]
struct Lone<R: Rule> {
    rule: R,
    state: R::State,
}

impl<R: Rule> Lone<R> {
    fn new(rule: R, now: Instant) -> Self {
        Self { rule, state: rule.fresh(now) }
    }

    fn adopt(&mut self, rule: R, now: Instant) {
        rule.adopt(&self.rule, &mut self.state, now);
        self.rule = rule;
    }
}

#[derive(Clone, Copy, Debug)]
enum Machine {
    Counter(Lone<Counter>),
    Sliding(Lone<Sliding>),
    Bucket(Lone<Rate>),
    Pacing(Lone<Pacing>),
    WarmUp(Lone<WarmUp>),
}

/// The same expression for whichever machine it is.
macro_rules! each {
    ($machine:expr, $one:ident => $body:expr) => {
        match $machine {
            Machine::Counter($one) => $body,
            Machine::Sliding($one) => $body,
            Machine::Bucket($one) => $body,
            Machine::Pacing($one) => $body,
            Machine::WarmUp($one) => $body,
        }
    };
}

impl Machine {
    fn new(kind: Kind, cost: Cost, now: Instant) -> Option<Self> {
        Some(match kind {
            Kind::Counter { quota, wait_max } => {
                Self::Counter(Lone::new(Counter::new(quota, wait_max), now))
            }
            Kind::Sliding { quota, sub_windows, edge } => {
                Self::Sliding(Lone::new(Sliding::new(quota, sub_windows, edge), now))
            }
            Kind::Bucket { quota, burst } => {
                Self::Bucket(Lone::new(Rate::new(quota, burst.get()), now))
            }
            Kind::Pacing { quota, waiting } => {
                Self::Pacing(Lone::new(Pacing::new(quota, waiting, cost), now))
            }
            Kind::WarmUp { quota, waiting, warm_up, cold_factor } => {
                let rule = WarmUp::new(quota, waiting, cost, warm_up, cold_factor);
                Self::WarmUp(Lone::new(rule, now))
            }
            Kind::Concurrency { .. } | Kind::Adaptive { .. } => return None,
        })
    }

    /// The verdict, or the capacity when the cost exceeds it.
    fn ask(&mut self, request: Request) -> Result<Verdict, u32> {
        each!(self, lone => {
            let capacity = lone.rule.capacity();
            if capacity < request.cost {
                return Err(capacity);
            }
            Ok(lone.rule.ask(&mut lone.state, request))
        })
    }

    fn refund(&mut self, now: Instant, spent: Spent) {
        each!(self, lone => lone.rule.refund(&mut lone.state, now, spent));
    }

    fn restore(&mut self, now: Instant, kept: &QuotaLeft, elapsed: Duration) {
        each!(self, lone => lone.state = kept.state(&lone.rule, now, elapsed));
    }

    fn snapshot(&self, now: Instant) -> Option<QuotaLeft> {
        each!(self, lone => QuotaLeft::of(&lone.rule, &lone.state, now))
    }

    fn level(&self, now: Instant) -> Level {
        each!(self, lone => lone.rule.level(&lone.state, now))
    }

    /// Takes over the rule of `new`, which is fresh, and keeps what was used.
    fn become_like(&mut self, new: Self, now: Instant) {
        match (&mut *self, new) {
            (Self::Counter(old), Self::Counter(new)) => old.adopt(new.rule, now),
            (Self::Sliding(old), Self::Sliding(new)) => old.adopt(new.rule, now),
            (Self::Bucket(old), Self::Bucket(new)) => old.adopt(new.rule, now),
            (Self::Pacing(old), Self::Pacing(new)) => old.adopt(new.rule, now),
            (Self::WarmUp(old), Self::WarmUp(new)) => old.adopt(new.rule, now),
            (old, mut new) => {
                each!(&mut new, lone => spend_all_but(&lone.rule, &mut lone.state, now, old.level(now)));
                *old = new;
            }
        }
    }
}

/// Uses up a fresh state of another kind until no more is left in it than `before` had.
pub(super) fn spend_all_but<R: Rule>(rule: &R, state: &mut R::State, now: Instant, before: Level) {
    let left = before.capacity.saturating_sub(before.used);
    let capacity = rule.capacity();
    let cost = capacity.saturating_sub(u32::try_from(left).unwrap_or(u32::MAX));
    if cost > 0 {
        // A fresh state grants its whole capacity at once.
        let _: Verdict = rule.ask(state, Request { now, cost, deadline: now });
    }
}
