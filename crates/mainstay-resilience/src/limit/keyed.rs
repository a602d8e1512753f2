//! One limit for each key, in bounded memory.
//!
//! Keys arrive as 128-bit hashes made with a secret, so nobody can aim at a slot, and no two keys
//! share one by chance in any practical time. Each holds the few words of its machine's state, at
//! most 96 bytes with its share of the index. When the table is full, a new key takes the slot of
//! the one nearest to untouched out of 8 drawn slots: forgetting a full bucket changes nothing at
//! all, while a key at its limit would be freed by it. If all 8 are at their limit, 8 more are
//! drawn, up to [`DRAWS_MAX`] in all; while an eighth of the table is not at its limit they all
//! miss it once in 10^14 times. So a flood of new keys cannot be used to free a limited one, and
//! memory stays bounded, which a map that is cleaned now and then does not give.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_core::Instant;

use self::table::{Rules, Table};
use super::bucket::Rate;
use super::counter::Counter;
use super::decision::{Cost, Decision, Receipt, Tally, Usage};
use super::machine::{Clerk, Level, Request, Spent};
use super::pacing::Pacing;
use super::policy::{Kind, LimitPolicy, Mode};
use super::sliding::Sliding;
use super::snapshot::QuotaLeft;
use super::top::{KeyText, TopKey};
use super::warm_up::WarmUp;

pub use self::table::DRAWS_MAX;

/// A time-based limit with a quota for each key.
#[derive(Clone, Debug)]
pub struct Keyed {
    tables: Tables,
    clerk: Clerk,
    last: Instant,
    quotas: Quotas,
    percent: u32,
}

/// A keyed limit at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedUsage {
    /// Keys remembered.
    pub keys: usize,
    /// Most that are.
    pub keys_max: usize,
    /// Keys forgotten to make room for others.
    pub evictions: u64,
    /// Answers so far, all keys together.
    pub tally: Tally,
}

impl Keyed {
    /// A limit no key has asked yet; `None` for the kinds that count calls in flight.
    ///
    /// `hash` is how the caller hashes the values of a key, one for each part; it is used for the
    /// keys of the overrides.
    pub fn new(
        policy: &LimitPolicy,
        now: Instant,
        hash: impl Fn(&[String]) -> u128,
    ) -> Option<Self> {
        let quotas = Quotas::new(policy, hash);
        let tables = Tables::new(&quotas, 100)?;
        Some(Self { tables, clerk: Clerk::new(policy.mode), last: now, quotas, percent: 100 })
    }

    /// Asks for `cost` units of the quota of `key`, ready to wait as long as the policy allows and
    /// not beyond `deadline`. `text` writes the key for people; it is called only when the key
    /// comes to be among those that asked most.
    pub fn ask(
        &mut self,
        now: Instant,
        key: u128,
        cost: Cost,
        deadline: Instant,
        text: impl FnOnce(&mut KeyText),
    ) -> Decision {
        let request = Request { now: self.see(now), cost: cost.get(), deadline };
        each!(&mut self.tables, table => table.ask(key, request, &mut self.clerk, text))
    }

    /// Gives back what a call of `key` took that will not be made; see
    /// [`Limiter::refund`](super::Limiter::refund). A key forgotten since gets nothing back.
    pub fn refund(&mut self, now: Instant, key: u128, receipt: Receipt) {
        let now = self.see(now);
        let Receipt { life, cost, at, slot } = receipt;
        each!(&mut self.tables, table => table.refund(key, now, life, Spent { cost, at, slot }));
    }

    /// Takes over a changed policy; every key keeps what it used, as in
    /// [`Limiter::set_policy`](super::Limiter::set_policy). Where the table shrinks, the keys
    /// nearest to untouched go.
    ///
    /// Returns false, and changes nothing, for a kind that counts calls in flight.
    pub fn set_policy(
        &mut self,
        now: Instant,
        policy: &LimitPolicy,
        hash: impl Fn(&[String]) -> u128,
    ) -> bool {
        let now = self.see(now);
        let quotas = Quotas::new(policy, hash);
        let Some(tables) = Tables::new(&quotas, self.percent) else { return false };
        self.tables.become_like(tables, now);
        self.clerk.mode = policy.mode;
        self.quotas = quotas;
        true
    }

    /// Scales every quota to `percent` of what is written, rounded down, at least 1.
    pub fn set_scale(&mut self, now: Instant, percent: u32) {
        let now = self.see(now);
        if self.percent != percent
            && let Some(tables) = Tables::new(&self.quotas, percent)
        {
            self.percent = percent;
            self.tables.become_like(tables, now);
        }
    }

    /// What is worth keeping of the keys in slots from `from` on, at most `most` slots, and the
    /// slot to go on from. Whoever shares the table lets others at it in between.
    pub fn snapshot(
        &self,
        now: Instant,
        from: usize,
        most: usize,
    ) -> (Vec<(u128, QuotaLeft)>, Option<usize>) {
        let now = now.max(self.last);
        each!(&self.tables, table => table.snapshot(now, from, most))
    }

    /// Begins with what was written down of keys `elapsed` ago. For a limit no key has asked yet.
    pub fn restore(&mut self, now: Instant, kept: &[(u128, QuotaLeft)], elapsed: Duration) {
        let now = self.see(now);
        each!(&mut self.tables, table => table.restore(now, kept, elapsed));
    }

    /// The table and the answers so far.
    pub fn usage(&self) -> KeyedUsage {
        let (keys, keys_max, evictions) = each!(&self.tables, table => table.size());
        KeyedUsage { keys, keys_max, evictions, tally: self.clerk.tally }
    }

    /// How much of its quota `key` is using, or `None` when it is not remembered. The tally is
    /// that of all keys.
    pub fn usage_of(&self, now: Instant, key: u128) -> Option<Usage> {
        let level = each!(&self.tables, table => table.level(key, now.max(self.last)));
        let Level { used, capacity, reset } = level?;
        Some(Usage { used, capacity, reset, tally: self.clerk.tally })
    }

    /// The `n` keys that asked most, at most [`TOP`](super::top::TOP), most frequent first.
    pub fn top(&self, n: usize) -> Vec<TopKey> {
        each!(&self.tables, table => table.top.list(n))
    }

    /// Whether refusals are turned into grants.
    pub const fn mode(&self) -> Mode {
        self.clerk.mode
    }

    /// Moves time on. What a key holds follows from the moment it is asked, so nothing else does,
    /// and there is never a moment to wake at.
    pub fn poll(&mut self, now: Instant) {
        self.see(now);
    }

    fn see(&mut self, now: Instant) -> Instant {
        self.last = self.last.max(now);
        self.last
    }
}

/// What is written: the quota of most keys, and those of the others.
#[derive(Clone, Debug)]
struct Quotas {
    kind: Kind,
    overrides: BTreeMap<u128, Kind>,
    cost: Cost,
    keys_max: usize,
}

impl Quotas {
    fn new(policy: &LimitPolicy, hash: impl Fn(&[String]) -> u128) -> Self {
        let overrides = policy.overrides.iter();
        let overrides = overrides.map(|other| (hash(&other.key), policy.kind.overridden(other)));
        Self {
            kind: policy.kind,
            overrides: overrides.collect(),
            cost: policy.cost,
            keys_max: usize::try_from(policy.keys_max.get()).unwrap_or(usize::MAX),
        }
    }

    /// An empty table of `rule`s, which is given each kind as scaled.
    fn table<R: super::machine::Rule>(
        &self,
        percent: u32,
        rule: impl Fn(Kind) -> Option<R>,
    ) -> Option<Table<R>> {
        let usual = rule(self.kind.scaled(percent))?;
        let others = self.overrides.iter();
        let others = others.map(|(&key, kind)| Some((key, rule(kind.scaled(percent))?)));
        Some(Table::new(Rules::new(usual, others.collect::<Option<_>>()?), self.keys_max))
    }
}

#[derive(Clone, Debug)]
enum Tables {
    Counter(Table<Counter>),
    Sliding(Table<Sliding>),
    Bucket(Table<Rate>),
    Pacing(Table<Pacing>),
    WarmUp(Table<WarmUp>),
}

/// The same expression for whichever table it is.
macro_rules! each {
    ($tables:expr, $table:ident => $body:expr) => {
        match $tables {
            Tables::Counter($table) => $body,
            Tables::Sliding($table) => $body,
            Tables::Bucket($table) => $body,
            Tables::Pacing($table) => $body,
            Tables::WarmUp($table) => $body,
        }
    };
}
use each;

impl Tables {
    fn new(quotas: &Quotas, percent: u32) -> Option<Self> {
        let cost = quotas.cost;
        Some(match quotas.kind {
            Kind::Counter { .. } => Self::Counter(quotas.table(percent, |kind| match kind {
                Kind::Counter { quota, wait_max } => Some(Counter::new(quota, wait_max)),
                _ => None,
            })?),
            Kind::Sliding { .. } => Self::Sliding(quotas.table(percent, |kind| match kind {
                Kind::Sliding { quota, sub_windows, edge } => {
                    Some(Sliding::new(quota, sub_windows, edge))
                }
                _ => None,
            })?),
            Kind::Bucket { .. } => Self::Bucket(quotas.table(percent, |kind| match kind {
                Kind::Bucket { quota, burst } => Some(Rate::new(quota, burst.get())),
                _ => None,
            })?),
            Kind::Pacing { .. } => Self::Pacing(quotas.table(percent, |kind| match kind {
                Kind::Pacing { quota, waiting } => Some(Pacing::new(quota, waiting, cost)),
                _ => None,
            })?),
            Kind::WarmUp { .. } => Self::WarmUp(quotas.table(percent, |kind| match kind {
                Kind::WarmUp { quota, waiting, warm_up, cold_factor } => {
                    Some(WarmUp::new(quota, waiting, cost, warm_up, cold_factor))
                }
                _ => None,
            })?),
            Kind::Concurrency { .. } | Kind::Adaptive { .. } => return None,
        })
    }

    /// Takes over the rules and size of `new`, which is empty, and keeps what was used.
    fn become_like(&mut self, new: Self, now: Instant) {
        match (&mut *self, new) {
            (Self::Counter(old), Self::Counter(new)) => old.adopt(new, now),
            (Self::Sliding(old), Self::Sliding(new)) => old.adopt(new, now),
            (Self::Bucket(old), Self::Bucket(new)) => old.adopt(new, now),
            (Self::Pacing(old), Self::Pacing(new)) => old.adopt(new, now),
            (Self::WarmUp(old), Self::WarmUp(new)) => old.adopt(new, now),
            (old, mut new) => {
                each!(&mut new, new => each!(&mut *old, old => new.convert(old, now)));
                *old = new;
            }
        }
    }
}
