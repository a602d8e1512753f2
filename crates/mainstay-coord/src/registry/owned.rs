//! What the owner of an instance owes it: to notice that it fell silent, that it has drained,
//! that it is to be removed.
//!
//! Heartbeats touch nothing but a moment in memory. The plan holds for each instance one moment at
//! which to look again, and is not moved by beats: when that moment comes, the machine sees how
//! long the next beat may still take and plans anew. Forty thousand beats a second thus cost forty
//! thousand look-ups, and the plan moves once a ttl.
//!
//! A duty that was told is told again a second later, until the record shows that it is done: the
//! write may have failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;

use super::instance::{Instance, Kind, State};
use crate::health::Health;
use crate::health::check::{Check, CheckKind};
use crate::health::rounds::OUTPUT_EVERY;
use crate::keys::InstanceRef;

/// Between two tellings of one duty.
pub const AGAIN: Duration = Duration::from_secs(1);

/// Between two tellings that one whose removal is held is to be removed. Its budget grows with the
/// minutes, and a service that lost 10,000 instances has as many of them.
pub const HELD_AGAIN: Duration = Duration::from_secs(5);

/// Between two tellings that checks are to be dropped. It is in vain as long as a newer node has
/// written settings that this one cannot read.
pub const DROP_AGAIN: Duration = Duration::from_secs(30);

/// Something the owner has to do about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// No heartbeat came for its ttl: mark it critical.
    MarkLate,
    /// No report came for the ttl of this check: mark it critical.
    MarkCheckLate(String),
    /// Nothing was heard of it for long enough: remove it, if there is budget.
    Expire,
    /// It has drained: remove it, or take it down if it is persistent.
    Drained,
    /// It was marked late, but a heartbeat came while that was written: mark it as back.
    BringBack,
    /// Its record holds results of checks that nobody sends any more: drop them.
    DropChecks,
}

/// What a heartbeat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// All is as it was; nothing is to be written.
    Fresh,
    /// It was marked late, and no longer is.
    Back,
}

/// What a report of a ttl check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Whether it is to be written: the status is another than the record's, or the output is, and
    /// none was written for 30 s.
    pub is_news: bool,
}

/// How a ttl check stands at a moment, as the node that hears its reports knows it: the record
/// follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stands {
    /// Its status.
    pub health: Health,
    /// What the last report said.
    pub output: String,
}

/// The instances this node looks after.
#[derive(Debug, Default)]
pub struct Owned {
    wards: BTreeMap<InstanceRef, Ward>,
    plan: BTreeSet<(Instant, InstanceRef)>,
}

#[derive(Debug)]
struct Ward {
    record: Arc<Instance>,
    /// The last heartbeat, or when it came here.
    beat: Instant,
    /// Its ttl checks.
    reports: BTreeMap<String, Report>,
    draining: Option<Instant>,
    critical: Option<Instant>,
    /// Since when those of its own checks are critical that may not be so for ever, and how long
    /// they may.
    criticals: BTreeMap<String, (Instant, Duration)>,
    /// Its record became late though it had beaten.
    is_back: bool,
    /// Its record holds checks that are no longer made; when that is to be told.
    strays: Option<Instant>,
    /// Where it stands in the plan.
    planned: Instant,
}

#[derive(Clone, Debug)]
struct Report {
    ttl: Duration,
    last: Instant,
    said: Option<Stands>,
    /// When it was last said that output is to be written.
    output_at: Option<Instant>,
}

impl Owned {
    /// Brings an instance into line with its record and the checks of its service; `None` when it
    /// is not, or no longer, looked after here. One that is new here gets a full ttl.
    pub fn follow(
        &mut self,
        now: Instant,
        instance: &InstanceRef,
        found: Option<(&Arc<Instance>, &[Check])>,
    ) {
        let before = self.wards.remove(instance);
        if let Some(ward) = &before {
            self.plan.remove(&(ward.planned, instance.clone()));
        }
        let Some((record, checks)) = found else { return };
        let before = before.filter(|ward| ward.record.registration == record.registration);
        let kept = |name: &str, ttl| {
            let known = before.as_ref().and_then(|ward| ward.reports.get(name));
            let said = known.and_then(|report| report.said.clone());
            let output_at = known.and_then(|report| report.output_at);
            Report { ttl, last: known.map_or(now, |report| report.last), said, output_at }
        };
        let reports = checks.iter().filter_map(|check| match check.kind {
            CheckKind::Ttl { ttl } => Some((check.name.clone(), kept(&check.name, ttl))),
            _ => None,
        });
        let since = |is: bool, before: Option<Instant>| is.then(|| before.unwrap_or(now));
        let is_draining = record.state == State::Draining;
        let is_critical = record.kind == Kind::Persistent && record.health == Health::Critical;
        let criticals = record.own_checks.iter().filter_map(|check| {
            let after = Duration::from_secs(check.remove_after_seconds?.into());
            let is_critical = record.checks.get(&check.id)?.health == Health::Critical;
            let known = before.as_ref().and_then(|ward| ward.criticals.get(&check.id));
            let since = known.map_or(now, |(since, _)| *since);
            is_critical.then(|| (check.id.clone(), (since, after)))
        });
        let has_beaten = |ward: &Ward| {
            let silent_at = ward.beat.plus(Duration::from_secs(record.ttl_seconds.into()));
            ward.is_back || (!ward.record.is_late && now < silent_at)
        };
        let mut ward = Ward {
            criticals: criticals.collect(),
            record: Arc::clone(record),
            is_back: record.is_late && before.as_ref().is_some_and(has_beaten),
            strays: since(record.has_strays(checks), before.as_ref().and_then(|ward| ward.strays)),
            beat: before.as_ref().map_or(now, |ward| ward.beat),
            reports: reports.collect(),
            draining: since(is_draining, before.as_ref().and_then(|ward| ward.draining)),
            critical: since(is_critical, before.as_ref().and_then(|ward| ward.critical)),
            planned: Instant::MAX,
        };
        ward.planned = ward.next();
        self.plan.insert((ward.planned, instance.clone()));
        self.wards.insert(instance.clone(), ward);
    }

    /// Takes a heartbeat; `None` when the instance is not looked after here.
    pub fn beat(&mut self, now: Instant, instance: &InstanceRef) -> Option<Beat> {
        let ward = self.wards.get_mut(instance)?;
        ward.beat = ward.beat.max(now);
        Some(if ward.record.is_late { Beat::Back } else { Beat::Fresh })
    }

    /// Takes a report of a ttl check; `None` when the instance is not looked after here or has no
    /// such check.
    pub fn report(
        &mut self,
        now: Instant,
        instance: &InstanceRef,
        (check, said): (&str, Stands),
    ) -> Option<Reported> {
        let ward = self.wards.get_mut(instance)?;
        let report = ward.reports.get_mut(check)?;
        report.last = report.last.max(now);
        let written = ward.record.checks.get(check);
        let is_new = written.is_none_or(|status| status.health != said.health);
        let is_old = report.output_at.is_none_or(|at| OUTPUT_EVERY <= now.since(at));
        let says_more = is_old && written.is_some_and(|status| status.output != said.output);
        if is_new || says_more {
            report.output_at = Some(now);
        }
        report.said = Some(said);
        Some(Reported { is_news: is_new || says_more })
    }

    /// How a ttl check stands at `now`; `None` when it is not one that is reported here.
    pub fn stands(&self, now: Instant, instance: &InstanceRef, check: &str) -> Option<Stands> {
        let ward = self.wards.get(instance)?;
        let report = ward.reports.get(check)?;
        let written = ward.record.checks.get(check);
        let written =
            written.map(|status| Stands { health: status.health, output: status.output.clone() });
        let said = report.said.clone().or(written)?;
        if said.health == Health::Critical || now < report.last.plus(report.ttl) {
            return Some(said);
        }
        let output = format!("TTL expired (last output before timeout follows): {}", said.output);
        Some(Stands { health: Health::Critical, output })
    }

    /// When to look again.
    pub fn next(&self) -> Option<Instant> {
        self.plan.first().map(|(at, _)| *at)
    }

    /// What is to be done at `now`.
    pub fn due(&mut self, now: Instant) -> Vec<(InstanceRef, Duty)> {
        let mut duties = Vec::new();
        while let Some((at, instance)) = self.plan.pop_first() {
            if now < at {
                self.plan.insert((at, instance));
                break;
            }
            let Some(ward) = self.wards.get_mut(&instance) else { continue };
            let before = duties.len();
            duties.extend(ward.duties(now).into_iter().map(|duty| (instance.clone(), duty)));
            let is_told = before < duties.len();
            ward.strays = ward.strays.map(|at| if at <= now { now.plus(DROP_AGAIN) } else { at });
            let again = if ward.record.removal_held { HELD_AGAIN } else { AGAIN };
            ward.planned = if is_told { now.plus(again) } else { ward.next() };
            self.plan.insert((ward.planned, instance));
        }
        duties
    }

    /// Gives every instance `span` more: the process stood still that long and could hear nobody.
    pub fn extend(&mut self, span: Duration) {
        let mut plan = BTreeSet::new();
        for (instance, ward) in &mut self.wards {
            ward.beat = ward.beat.plus(span);
            for report in ward.reports.values_mut() {
                report.last = report.last.plus(span);
            }
            ward.planned = ward.next();
            plan.insert((ward.planned, instance.clone()));
        }
        self.plan = plan;
    }

    /// How many are looked after here.
    pub fn len(&self) -> usize {
        self.wards.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.wards.is_empty()
    }
}

impl Ward {
    /// Every duty with the moment it is due.
    fn moments(&self) -> Vec<(Instant, Duty)> {
        let record = &self.record;
        let seconds = |n: u32| Duration::from_secs(u64::from(n));
        let mut moments = Vec::new();
        let remove_after = record.remove_after_seconds.map(seconds);
        match (record.kind, record.is_late) {
            (Kind::Ephemeral, false) => {
                moments.push((self.beat.plus(seconds(record.ttl_seconds)), Duty::MarkLate));
            }
            (Kind::Ephemeral, true) => {
                moments.extend(remove_after.map(|after| (self.beat.plus(after), Duty::Expire)));
            }
            (Kind::Persistent, _) => {
                let expiry = self.critical.zip(remove_after);
                moments.extend(expiry.map(|(since, after)| (since.plus(after), Duty::Expire)));
            }
        }
        let own = self.criticals.values();
        moments.extend(own.map(|(since, after)| (since.plus(*after), Duty::Expire)));
        if let Some(since) = self.draining {
            moments.push((since.plus(seconds(record.drain_seconds.unwrap_or(0))), Duty::Drained));
        }
        if self.is_back {
            moments.push((Instant::ZERO, Duty::BringBack));
        }
        moments.extend(self.strays.map(|at| (at, Duty::DropChecks)));
        for (name, report) in &self.reports {
            // One never reported is unknown, not late; one marked already needs no mark.
            let status = record.checks.get(name).map(|status| status.health);
            if status.is_some_and(|health| health != Health::Critical) {
                let due = report.last.plus(report.ttl);
                moments.push((due, Duty::MarkCheckLate(name.clone())));
            }
        }
        moments
    }

    fn next(&self) -> Instant {
        self.moments().into_iter().map(|(at, _)| at).min().unwrap_or(Instant::MAX)
    }

    fn duties(&self, now: Instant) -> Vec<Duty> {
        let due = self.moments().into_iter().filter(|(at, _)| *at <= now);
        due.map(|(_, duty)| duty).collect()
    }
}
