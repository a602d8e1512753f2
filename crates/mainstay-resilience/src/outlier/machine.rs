//! Who is ejected, until when, and who has to stay.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_core::Instant;

use super::judge::{Evidence, Rule, judge};
use super::{OutlierPolicy, Tally};

/// Ejections among the instances of one service.
#[derive(Clone, Debug)]
pub struct Outliers {
    policy: OutlierPolicy,
    /// Start of the interval being counted.
    interval: Instant,
    seen: Instant,
    instances: BTreeMap<u64, Record>,
}

/// One instance, as the set it belongs to describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// A number that is the instance's for as long as it exists, and nobody else's.
    pub id: u64,
    /// Whether it could be used were it not for ejection: up, health not critical, weight above 0.
    pub healthy: bool,
}

/// An instance is taken out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ejection {
    /// Since when.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
    /// The how-manieth in short order; healthy intervals count it down.
    pub times: u32,
    /// Why.
    pub evidence: Evidence,
}

/// Something that the balancer, the metrics and the log want to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// The instance is out.
    Ejected {
        /// Who.
        id: u64,
        /// Until when and why.
        ejection: Ejection,
    },
    /// The instance is back.
    Returned {
        /// Who.
        id: u64,
        /// Since when: slow start counts from here.
        at: Instant,
        /// Before its time, because too few would have remained without it.
        early: bool,
    },
    /// The instance broke a rule, and stays because too few would remain without it.
    Withheld {
        /// Who.
        id: u64,
        /// Which rule.
        evidence: Evidence,
    },
}

#[derive(Clone, Debug, Default)]
struct Record {
    healthy: bool,
    ejection: Option<Ejection>,
    /// Ejections that count for the length of the next.
    times: u32,
    /// End of the last ejection; zero if there was none.
    returned: Instant,
}

impl Outliers {
    /// A machine that knows no instance yet. Intervals count from `now`.
    pub const fn new(policy: OutlierPolicy, now: Instant) -> Self {
        Self { policy, interval: now, seen: now, instances: BTreeMap::new() }
    }

    /// Takes another policy. Ejections under way keep their ends.
    pub fn set_policy(&mut self, now: Instant, policy: OutlierPolicy) -> Vec<Change> {
        let mut changes = self.returns(now);
        self.policy = policy;
        self.restore_floor(&mut changes);
        changes
    }

    /// Takes the set as it is now. Those who left are forgotten, those who stay keep everything;
    /// if too few remain, ejected ones come back early, the one due first going first.
    pub fn set(&mut self, now: Instant, peers: &[Peer]) -> Vec<Change> {
        let mut changes = self.returns(now);
        let mut before = std::mem::take(&mut self.instances);
        for &Peer { id, healthy } in peers {
            let record = before.remove(&id).unwrap_or_default();
            self.instances.insert(id, Record { healthy, ..record });
        }
        self.restore_floor(&mut changes);
        changes
    }

    /// Tells that [`Tally::record`] completed a run of failures of `id`.
    pub fn run_completed(&mut self, now: Instant, id: u64) -> Vec<Change> {
        let mut changes = self.returns(now);
        let run = f64::from(self.policy.consecutive);
        if self.policy.consecutive > 0 {
            let evidence = Evidence { rule: Rule::Consecutive, observed: run, threshold: run };
            self.eject(id, evidence, &mut changes);
        }
        changes
    }

    /// Ends ejections, and at the end of an interval judges it.
    ///
    /// `take` hands over the tally of an instance and leaves an empty one ([`Tally::take`], added
    /// up over threads). It is called for every instance at the end of an interval only. Intervals
    /// that nobody polled in are judged as one.
    pub fn poll(&mut self, now: Instant, mut take: impl FnMut(u64) -> Tally) -> Vec<Change> {
        let mut changes = self.returns(now);
        let length = self.policy.interval;
        let passed = self.seen.since(self.interval).as_nanos() / length.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed == 0 {
            return changes;
        }
        let end = self.interval.plus(length.saturating_mul(passed));
        let tallies: Vec<(u64, Tally)> = self.instances.keys().map(|&id| (id, take(id))).collect();
        // An ejected instance is no measure for the others: what it answered is from before.
        let peers: Vec<(u64, &Tally)> = tallies
            .iter()
            .filter(|(id, _)| self.ejection(*id).is_none())
            .map(|(id, tally)| (*id, tally))
            .collect();
        for (id, evidence) in judge(&self.policy, &peers) {
            let told =
                |change: &Change| matches!(change, Change::Withheld { id: i, .. } if *i == id);
            if !changes.iter().any(told) {
                self.eject(id, evidence, &mut changes);
            }
        }
        for record in self.instances.values_mut() {
            record.rest(end, length, passed);
        }
        self.interval = end;
        changes
    }

    /// When [`Outliers::poll`] next has something to do.
    pub fn next_wake(&self) -> Instant {
        let returns = self.instances.values().filter_map(|record| record.ejection);
        let end = self.interval.plus(self.policy.interval);
        returns.map(|ejection| ejection.until).fold(end, Instant::min)
    }

    /// The ejection that `id` is under, as of the last call.
    pub fn ejection(&self, id: u64) -> Option<&Ejection> {
        self.instances.get(&id)?.ejection.as_ref()
    }

    /// When `id` last came back; [`Instant::ZERO`] if it never was out.
    pub fn returned(&self, id: u64) -> Instant {
        self.instances.get(&id).map_or(Instant::ZERO, |record| record.returned)
    }

    fn returns(&mut self, now: Instant) -> Vec<Change> {
        self.seen = self.seen.max(now);
        let due = |record: &Record| record.ejection.is_some_and(|e| e.until <= self.seen);
        let due: Vec<u64> =
            self.instances.iter().filter(|(_, r)| due(r)).map(|(&id, _)| id).collect();
        due.into_iter().filter_map(|id| self.bring_back(id, false)).collect()
    }

    fn bring_back(&mut self, id: u64, early: bool) -> Option<Change> {
        let record = self.instances.get_mut(&id)?;
        let ejection = record.ejection.take()?;
        record.returned = if early { self.seen } else { ejection.until };
        Some(Change::Returned { id, at: record.returned, early })
    }

    fn eject(&mut self, id: u64, evidence: Evidence, changes: &mut Vec<Change>) {
        let (now, policy) = (self.seen, self.policy);
        let Some(record) = self.instances.get(&id).filter(|r| r.ejection.is_none()) else { return };
        // One that is out for other reasons does not make fewer remain.
        let remaining = self.remaining() - usize::from(record.healthy);
        if !self.holds(self.ejected() + 1, remaining) {
            changes.push(Change::Withheld { id, evidence });
            return;
        }
        let Some(record) = self.instances.get_mut(&id) else { return };
        record.times = record.times.saturating_add(1);
        let length = policy.base.saturating_mul(record.times).min(policy.max.max(policy.base));
        let ejection =
            Ejection { since: now, until: now.plus(length), times: record.times, evidence };
        record.ejection = Some(ejection);
        changes.push(Change::Ejected { id, ejection });
    }

    /// Brings instances back until the floor holds or nobody is left to bring back.
    fn restore_floor(&mut self, changes: &mut Vec<Change>) {
        while !self.holds(self.ejected(), self.remaining()) {
            let too_many = !self.share_holds(self.ejected());
            let out = self.instances.iter().filter_map(|(&id, r)| Some((r, id, r.ejection?)));
            // Too few healthy ones are not made more by one that is unhealthy.
            let next = out
                .filter(|(record, ..)| too_many || record.healthy)
                .min_by_key(|(_, id, ejection)| (ejection.until, *id))
                .map(|(_, id, _)| id);
            let Some(change) = next.and_then(|id| self.bring_back(id, true)) else { return };
            changes.push(change);
        }
    }

    /// Whether `ejected` may be out while `remaining` healthy ones are not.
    fn holds(&self, ejected: usize, remaining: usize) -> bool {
        ejected == 0 || (self.share_holds(ejected) && remaining >= self.policy.min_healthy as usize)
    }

    fn share_holds(&self, ejected: usize) -> bool {
        100 * ejected <= self.policy.max_ejected_percent as usize * self.instances.len()
    }

    fn ejected(&self) -> usize {
        self.instances.values().filter(|record| record.ejection.is_some()).count()
    }

    fn remaining(&self) -> usize {
        self.instances.values().filter(|r| r.healthy && r.ejection.is_none()).count()
    }
}

impl Record {
    /// Counts down for each of the last `passed` intervals, the last of which ended at `end`, in
    /// which the instance was never out.
    fn rest(&mut self, end: Instant, length: Duration, passed: u32) {
        if self.ejection.is_none() {
            let whole = end.since(self.returned).as_nanos() / length.as_nanos();
            let whole = u32::try_from(whole).unwrap_or(u32::MAX).min(passed);
            self.times = self.times.saturating_sub(whole);
        }
    }
}
