//! When which check is due, and which results are worth writing down.
//!
//! Checks begin after a random part of their interval, so that a thousand instances registered in
//! one minute are not all checked in the same second of every ten. A check never overlaps itself.
//! Of its results only changes of status are written, and output that changed at most every 30 s:
//! a registry that wrote every result would write more than everything else together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;

use super::Health;
use super::check::{Check, CheckPort};
use super::probe::Outcome;
use super::steady::Steady;
use crate::keys::InstanceRef;
use crate::registry::Instance;

/// Between two writes of output that changes while the status does not.
pub const OUTPUT_EVERY: Duration = Duration::from_secs(30);

/// One check of one instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckRef {
    /// Of which instance.
    pub instance: InstanceRef,
    /// Its name.
    pub check: Arc<str>,
}

/// A check to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Which.
    pub of: CheckRef,
    /// What it does.
    pub check: Arc<Check>,
    /// Where the instance is.
    pub host: Arc<str>,
    /// At which port; 0 when the instance has none of that name.
    pub port: u16,
    /// Tells a result of this definition from one of an older.
    generation: u64,
}

impl Probe {
    /// A check that is sent by itself, outside of any round.
    pub fn alone(instance: InstanceRef, check: Check, host: &str, port: u16) -> Self {
        let of = CheckRef { instance, check: Arc::from(&*check.name) };
        Self { of, check: Arc::new(check), host: Arc::from(host), port, generation: 0 }
    }
}

/// A result worth writing down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Which check.
    pub of: CheckRef,
    /// How it stands now.
    pub health: Health,
    /// What the last result said.
    pub output: String,
}

/// The checks of the instances this node looks after.
#[derive(Debug, Default)]
pub struct Rounds {
    of: BTreeMap<InstanceRef, BTreeMap<Arc<str>, Entry>>,
    due: BTreeSet<(Instant, CheckRef)>,
    generation: u64,
}

#[derive(Debug)]
struct Entry {
    probe: Probe,
    /// Of which registration the status is: one that registers anew with another status begins
    /// anew. Whoever keeps its status goes on where it was, or one that registers again and again
    /// would never have as many results as it takes.
    registration: String,
    steady: Steady,
    /// As the record has it.
    written: Option<(Health, String)>,
    output_at: Option<Instant>,
    /// When it is due; `None` while it runs.
    next: Option<Instant>,
    started: Instant,
}

impl Rounds {
    /// Brings the checks of `instance` into line with its record; `None` when it is not, or no
    /// longer, looked after here. `draw` gives numbers from 0 to 1.
    pub fn follow(
        &mut self,
        now: Instant,
        instance: &InstanceRef,
        found: Option<(&Instance, &[Check])>,
        mut draw: impl FnMut() -> f64,
    ) {
        let mut before = self.of.remove(instance).unwrap_or_default();
        let mut after = BTreeMap::new();
        let (record, checks) = found.map_or((None, [].as_slice()), |(r, c)| (Some(r), c));
        for check in checks.iter().filter(|check| check.kind.is_active()) {
            let Some(record) = record else { break };
            let name: Arc<str> = Arc::from(&*check.name);
            let status = record.checks.get(&check.name);
            let port = port(record, &check.port);
            let host = check.host.as_ref().unwrap_or(&record.address);
            let is_same = |entry: &Entry| {
                *entry.probe.check == *check
                    && *entry.probe.host == **host
                    && entry.probe.port == port
            };
            // One that is not the same is off the plan before its successor is on it: both may be
            // due at the same moment, and then they are one line of the plan.
            let mut planned = None;
            let health = status.map_or(Health::Unknown, |status| status.health);
            let entry = before.remove(&name).and_then(|mut entry| {
                let is_same = is_same(&entry);
                let is_anew = entry.registration != record.registration;
                if is_same && (!is_anew || entry.steady.status() == health) {
                    entry.registration.clone_from(&record.registration);
                    return Some(entry);
                }
                self.unschedule(&entry);
                // One that registers again and again is checked in its turn all the same.
                planned = entry.next.filter(|_| is_same);
                None
            });
            let mut entry = entry.unwrap_or_else(|| {
                self.generation += 1;
                let of = CheckRef { instance: instance.clone(), check: Arc::clone(&name) };
                let drawn = || now.plus(check.interval.mul_f64(draw().clamp(0.0, 1.0)));
                let next = planned.unwrap_or_else(drawn);
                self.due.insert((next, of.clone()));
                let probe = Probe {
                    of,
                    check: Arc::new(check.clone()),
                    host: Arc::from(&**host),
                    port,
                    generation: self.generation,
                };
                let steady = Steady::new(health);
                Entry {
                    probe,
                    registration: record.registration.clone(),
                    steady,
                    written: None,
                    output_at: None,
                    next: Some(next),
                    started: now,
                }
            });
            entry.written = status.map(|status| (status.health, status.output.clone()));
            after.insert(name, entry);
        }
        for entry in before.into_values() {
            self.unschedule(&entry);
        }
        if !after.is_empty() {
            self.of.insert(instance.clone(), after);
        }
    }

    /// When the next check is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes a check that is due at `now`. It is not due again before its result is in.
    pub fn take(&mut self, now: Instant) -> Option<Probe> {
        if now < self.next()? {
            return None;
        }
        let (_, of) = self.due.pop_first()?;
        let entry = self.of.get_mut(&of.instance)?.get_mut(&of.check)?;
        (entry.next, entry.started) = (None, now);
        Some(entry.probe.clone())
    }

    /// Takes the result of `probe`; says what of it is worth writing down.
    ///
    /// A status that could not be written is offered again with the next result.
    pub fn finished(&mut self, now: Instant, probe: &Probe, outcome: Outcome) -> Option<News> {
        let entry = self.of.get_mut(&probe.of.instance)?.get_mut(&probe.of.check)?;
        if entry.probe.generation != probe.generation {
            return None;
        }
        let check = &entry.probe.check;
        let next = entry.started.plus(check.interval).max(now);
        entry.next = Some(next);
        self.due.insert((next, probe.of.clone()));
        entry.steady.record(outcome.health, check.patience);
        let health = entry.steady.status();
        let known = entry.written.as_ref();
        let is_new = known.is_none_or(|(written, _)| *written != health);
        let is_old = entry.output_at.is_none_or(|at| OUTPUT_EVERY <= now.since(at));
        let says_more = known.is_none_or(|(_, output)| *output != outcome.output) && is_old;
        if !is_new && !says_more {
            return None;
        }
        entry.output_at = Some(now);
        Some(News { of: probe.of.clone(), health, output: outcome.output })
    }

    /// How many checks there are.
    pub fn len(&self) -> usize {
        self.of.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    fn unschedule(&mut self, entry: &Entry) {
        if let Some(next) = entry.next {
            self.due.remove(&(next, entry.probe.of.clone()));
        }
    }
}

fn port(record: &Instance, port: &CheckPort) -> u16 {
    match port {
        CheckPort::Own => record.port,
        CheckPort::Named(name) => record.ports.get(name).copied().unwrap_or(0),
        CheckPort::Number(number) => *number,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use mainstay_core::name::ServiceName;
    use proptest::prelude::*;

    use super::*;
    use crate::health::check::RawCheck;
    use crate::keys::ServiceRef;
    use crate::name::{InstanceId, Namespace};
    use crate::registry::CheckStatus;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn instance(id: &str) -> InstanceRef {
        let namespace = Namespace::new("shop").unwrap();
        let service = ServiceRef { namespace, name: ServiceName::new("order").unwrap() };
        service.instance(&InstanceId::new(id).unwrap())
    }

    fn tcp() -> Check {
        let raw = RawCheck { name: "up".into(), kind: "tcp".into(), ..RawCheck::default() };
        Check::try_from(&raw).unwrap()
    }

    fn record(status: Option<(Health, &str)>) -> Instance {
        let mut record = Instance::read(
            br#"{"v": 1, "address": "10.0.0.7", "port": 80, "kind": "ephemeral", "weight": 1,
            "state": "up", "health": "unknown", "own": "passing", "ttl_seconds": 15, "owner": "n",
            "registration": "r", "registered_unix_ms": 0, "changed_unix_ms": 0}"#,
        )
        .unwrap();
        record.checks = status
            .map(|(health, output)| {
                let status = CheckStatus { health, output: output.into(), changed_unix_ms: 0 };
                ("up".to_owned(), status)
            })
            .into_iter()
            .collect::<Map<_, _>>();
        record
    }

    #[test]
    fn a_check_begins_within_its_interval_and_goes_on_from_its_starts() {
        let mut rounds = Rounds::default();
        let (one, check) = (instance("1"), [tcp()]);
        rounds.follow(at(0), &one, Some((&record(None), &check)), || 0.25);
        assert_eq!(rounds.take(at(2_499)), None);
        let probe = rounds.take(at(2_500)).unwrap();
        assert_eq!((&*probe.host, probe.port), ("10.0.0.7", 80));
        assert_eq!(rounds.next(), None, "it does not overlap itself");
        let news = rounds.finished(at(2_600), &probe, Outcome::new(Health::Passing, "ok"));
        assert_eq!(news.unwrap().health, Health::Passing);
        assert_eq!(rounds.next(), Some(at(12_500)));
    }

    #[test]
    fn only_changes_are_written_and_output_alone_every_half_minute() {
        let mut rounds = Rounds::default();
        let (one, check) = (instance("1"), [tcp()]);
        rounds.follow(at(0), &one, Some((&record(None), &check)), || 0.0);
        let run = |rounds: &mut Rounds, millis, output: &str| {
            let probe = rounds.take(at(millis)).unwrap();
            rounds.finished(at(millis), &probe, Outcome::new(Health::Passing, output)).is_some()
        };
        assert!(run(&mut rounds, 0, "a"));
        assert!(run(&mut rounds, 10_000, "a"), "the write has not been seen: offered again");
        rounds.follow(
            at(10_000),
            &one,
            Some((&record(Some((Health::Passing, "a"))), &check)),
            || 0.0,
        );
        assert!(!run(&mut rounds, 20_000, "b"));
        assert!(!run(&mut rounds, 30_000, "a"), "nothing new");
        assert!(run(&mut rounds, 40_000, "b"));
    }

    #[test]
    fn the_first_result_after_a_restart_counts_at_once_and_comes_in_its_turn() {
        let mut rounds = Rounds::default();
        let (one, check) = (instance("1"), [tcp()]);
        let critical = record(Some((Health::Critical, "x")));
        rounds.follow(at(0), &one, Some((&critical, &check)), || 0.5);
        let mut anew = record(Some((Health::Unknown, "")));
        anew.registration = "r2".to_owned();
        rounds.follow(at(4_000), &one, Some((&anew, &check)), || 0.9);
        assert_eq!(rounds.next(), Some(at(5_000)), "as it was planned");
        let probe = rounds.take(at(5_000)).unwrap();
        let news = rounds.finished(at(5_001), &probe, Outcome::new(Health::Passing, "ok"));
        assert_eq!(news.unwrap().health, Health::Passing);
    }

    #[test]
    fn whoever_registers_again_and_again_is_judged_all_the_same() {
        let mut rounds = Rounds::default();
        let (one, check) = (instance("1"), [tcp()]);
        let mut registered = record(Some((Health::Passing, "ok")));
        let mut register = |rounds: &mut Rounds, millis: u64| {
            registered.registration = format!("r{millis}");
            rounds.follow(at(millis), &one, Some((&registered, &check)), || 0.0);
        };
        register(&mut rounds, 0);
        let news = [0, 10_000, 20_000].map(|millis| {
            let probe = rounds.take(at(millis)).expect("it is due");
            register(&mut rounds, millis + 1);
            let news = rounds.finished(at(millis + 2), &probe, Outcome::failed("refused"));
            register(&mut rounds, millis + 5_000);
            news.map(|news| news.health)
        });
        let passing = Some(Health::Passing);
        assert_eq!(news, [passing, None, Some(Health::Critical)], "first what it said is new");
    }

    #[test]
    fn a_check_whose_successor_is_due_at_the_same_moment_is_still_planned() {
        let mut rounds = Rounds::default();
        let (one, check, mut other) = (instance("1"), tcp(), tcp());
        other.port = CheckPort::Number(9);
        rounds.follow(at(0), &one, Some((&record(None), &[check])), || 0.5);
        rounds.follow(at(4_000), &one, Some((&record(None), &[other])), || 0.1);
        assert_eq!(rounds.next(), Some(at(5_000)));
        assert_eq!(rounds.take(at(5_000)).map(|probe| probe.port), Some(9));
    }

    #[test]
    fn what_is_no_longer_looked_after_is_not_checked_and_late_results_say_nothing() {
        let mut rounds = Rounds::default();
        let (one, check) = (instance("1"), [tcp()]);
        rounds.follow(at(0), &one, Some((&record(None), &check)), || 0.0);
        let probe = rounds.take(at(0)).unwrap();
        rounds.follow(at(1), &one, None, || 0.0);
        assert!(rounds.is_empty());
        assert_eq!(rounds.finished(at(2), &probe, Outcome::failed("x")), None);
        rounds.follow(at(3), &one, Some((&record(None), &check)), || 0.0);
        assert_eq!(rounds.finished(at(4), &probe, Outcome::failed("x")), None);
        assert_eq!(rounds.take(at(4)).map(|probe| probe.of.instance), Some(one));
    }

    proptest! {
        /// Whatever is followed and finished, each check is planned once or running.
        #[test]
        fn every_check_is_planned_once_or_runs(
            steps in prop::collection::vec((0u8..4, 0u8..3, 0u64..3_000), 1..80),
        ) {
            let mut rounds = Rounds::default();
            let (mut now, mut running) = (0, Vec::<Probe>::new());
            let mut other = tcp();
            other.port = CheckPort::Number(9);
            for (what, which, gap) in steps {
                now += gap;
                let one = instance(&which.to_string());
                match what {
                    0 => rounds.follow(at(now), &one, Some((&record(None), &[tcp()])), || 0.5),
                    1 => rounds.follow(at(now), &one, Some((&record(None), &[other.clone()])), || 0.1),
                    2 => rounds.follow(at(now), &one, None, || 0.5),
                    _ => while let Some(probe) = rounds.take(at(now)) { running.push(probe) },
                }
                if which == 0 {
                    for probe in running.drain(..) {
                        rounds.finished(at(now), &probe, Outcome::failed("x"));
                    }
                }
                for (one, checks) in &rounds.of {
                    for entry in checks.values() {
                        let planned = rounds.due.iter().filter(|(_, of)| of.instance == *one);
                        let planned: Vec<_> = planned.map(|(at, _)| Some(*at)).collect();
                        let want: Vec<_> = entry.next.map(Some).into_iter().collect();
                        prop_assert_eq!(planned, want);
                    }
                }
                prop_assert!(rounds.due.len() <= rounds.len());
            }
        }
    }
}
