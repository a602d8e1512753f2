use std::time::Duration;

use mainstay_core::Instant;
use proptest::prelude::*;

use super::*;
use crate::Outcome;

fn policy(text: &str) -> OutlierPolicy {
    toml::from_str::<RawOutlier>(text).unwrap().try_into().unwrap()
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO.plus(Duration::from_secs_f64(seconds))
}

fn peers(n: u64) -> Vec<Peer> {
    (0..n).map(|id| Peer { id, healthy: true }).collect()
}

/// A tally of `calls`, of which `good` percent succeed, taking `millis` each.
fn tally(calls: u32, good: u32, millis: u64) -> Tally {
    let mut tally = Tally::default();
    for call in 0..calls {
        let outcome = if call * 100 < calls * good { Outcome::Success } else { Outcome::Failure };
        assert!(!tally.record(outcome, Duration::from_millis(millis), 0));
    }
    tally
}

/// Changes as text: `4 out success_rate 30s`, `4 back`, `4 back early`, `4 stays success_rate`.
fn told(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| match change {
        Change::Ejected { id, ejection } => {
            let (rule, span) = (ejection.evidence.rule, ejection.until.since(ejection.since));
            format!("{id} out {} {}s", rule.as_str(), span.as_secs_f64())
        }
        Change::Returned { id, early, .. } => {
            format!("{id} back{}", if *early { " early" } else { "" })
        }
        Change::Withheld { id, evidence } => format!("{id} stays {}", evidence.rule.as_str()),
    };
    changes.iter().map(line).collect()
}

/// One interval in which instance i had `tallies[i]`: what happens at its end.
#[track_caller]
fn check(settings: &str, tallies: &[Tally], want: &[&str]) {
    let mut outliers = Outliers::new(policy(settings), at(0.0));
    assert_eq!(outliers.set(at(0.0), &peers(tallies.len() as u64)), []);
    let early = outliers.poll(at(9.9), |_| panic!("before the interval is over"));
    assert_eq!(early, []);
    assert_eq!(outliers.next_wake(), at(10.0));
    let changes = outliers.poll(at(10.0), |id| tallies[usize::try_from(id).unwrap()].clone());
    assert_eq!(told(&changes), want, "{settings}");
}

#[test]
fn success_rates_are_compared() {
    let rates =
        |rates: &[u32], calls| rates.iter().map(|&r| tally(calls, r, 1)).collect::<Vec<_>>();
    check("", &rates(&[99, 98, 99, 97, 60], 100), &["4 out success_rate 30s"]);
    check("success_rate = false", &rates(&[99, 98, 99, 97, 60], 100), &[]);
    // Too few instances, too few calls, too little spread.
    check("", &rates(&[99, 98, 99, 60], 100), &[]);
    check("", &rates(&[99, 98, 99, 97, 60], 99), &[]);
    check("", &rates(&[90, 90, 90, 90, 90], 100), &[]);
}

#[test]
fn a_worked_ejection_carries_its_evidence() {
    let mut outliers = Outliers::new(OutlierPolicy::default(), at(0.0));
    drop(outliers.set(at(0.0), &peers(5)));
    let rates = [99, 98, 99, 97, 60];
    drop(outliers.poll(at(10.0), |id| tally(100, rates[usize::try_from(id).unwrap()], 1)));
    let ejection = outliers.ejection(4).unwrap();
    assert!((ejection.evidence.threshold - 61.5).abs() < 0.05, "{ejection:?}");
    assert!((ejection.evidence.observed - 60.0).abs() < 1e-9, "{ejection:?}");
    assert_eq!((ejection.until, outliers.next_wake()), (at(40.0), at(20.0)));
}

#[test]
fn too_many_failures_eject_whatever_the_others_do() {
    let rates =
        |rates: &[u32], calls| rates.iter().map(|&r| tally(calls, r, 1)).collect::<Vec<_>>();
    check("", &rates(&[15, 100], 100), &["0 out failure_percent 30s"]);
    check("", &rates(&[16, 100], 100), &[]);
    check("", &rates(&[0, 100], 49), &[]);
    check("failure_percent = 0", &rates(&[0, 100], 100), &[]);
}

#[test]
fn latencies_are_compared() {
    let medians =
        |ms: &[u64], calls| ms.iter().map(|&ms| tally(calls, 100, ms)).collect::<Vec<_>>();
    check("", &medians(&[10, 10, 30], 50), &["2 out latency 30s"]);
    check("", &medians(&[10, 10, 29], 50), &[]);
    check("", &medians(&[2, 2, 11], 50), &[]);
    check("", &medians(&[2, 2, 12], 50), &["2 out latency 30s"]);
    check("", &medians(&[10, 30], 50), &[]);
    check("", &medians(&[10, 10, 30], 49), &[]);
    check("latency = false", &medians(&[10, 10, 30], 50), &[]);
    // Half and half: neither is the norm.
    check("", &medians(&[10, 10, 100, 100], 50), &[]);
}

#[test]
fn the_floor_is_judged_after_the_ejection() {
    let all_bad = |n: usize| vec![tally(100, 0, 1); n];
    let line = |id, what| format!("{id} {what}");
    for (n, settings, ejected) in [
        (1, "", 0),
        (2, "", 1),
        (3, "", 1),
        (3, "max_ejected_percent = 67", 2),
        (3, "max_ejected_percent = 66", 1),
        (4, "max_ejected_percent = 100", 3),
        (4, "max_ejected_percent = 100\nmin_healthy = 3", 1),
        (4, "max_ejected_percent = 0", 0),
        (4, "max_ejected_percent = 100\nmin_healthy = 0", 4),
    ] {
        let out = (0..ejected).map(|id| line(id, "out failure_percent 30s"));
        let stay = (ejected..n).map(|id| line(id, "stays failure_percent"));
        let want: Vec<String> = out.chain(stay).collect();
        check(settings, &all_bad(n), &want.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn the_worst_goes_first() {
    let tallies = [tally(100, 10, 1), tally(100, 0, 1), tally(100, 99, 1)];
    check("", &tallies, &["1 out failure_percent 30s", "0 stays failure_percent"]);
}

#[test]
fn unhealthy_instances_do_not_count_as_remaining() {
    let mut outliers = Outliers::new(policy("max_ejected_percent = 100"), at(0.0));
    let healthy = |ids: &[u64]| -> Vec<Peer> {
        (0..4).map(|id| Peer { id, healthy: ids.contains(&id) }).collect()
    };
    drop(outliers.set(at(0.0), &healthy(&[0, 1])));
    let bad = |_| tally(100, 0, 1);
    let changes = outliers.poll(at(10.0), bad);
    let want = [
        "0 out failure_percent 30s",
        "1 stays failure_percent",
        "2 out failure_percent 30s",
        "3 out failure_percent 30s",
    ];
    assert_eq!(told(&changes), want);
    // The last healthy one fails its checks: the other comes back, those who cannot help do not.
    assert_eq!(told(&outliers.set(at(11.0), &healthy(&[0]))), ["0 back early"]);
    assert_eq!(outliers.returned(0), at(11.0));
}

#[test]
fn a_shrinking_set_brings_instances_back() {
    let mut outliers = Outliers::new(OutlierPolicy::default(), at(0.0));
    drop(outliers.set(at(0.0), &peers(4)));
    let changes = outliers.poll(at(10.0), |id| tally(100, if id < 2 { 0 } else { 100 }, 1));
    assert_eq!(told(&changes), ["0 out failure_percent 30s", "1 out failure_percent 30s"]);
    let left: Vec<Peer> = peers(4).into_iter().filter(|peer| peer.id != 3).collect();
    assert_eq!(told(&outliers.set(at(11.0), &left)), ["0 back early"]);
    assert_eq!(outliers.returned(0), at(11.0));
    // An ejected one that leaves and comes back under its number begins anew.
    let without: Vec<Peer> = peers(4).into_iter().filter(|peer| peer.id != 1).collect();
    drop(outliers.set(at(12.0), &without));
    drop(outliers.set(at(13.0), &peers(4)));
    assert_eq!(outliers.ejection(1), None);
}

#[test]
fn ejections_grow_longer_and_healthy_intervals_shorten_them_again() {
    let mut outliers = Outliers::new(policy("consecutive = 3\nmax_seconds = 70"), at(0.0));
    drop(outliers.set(at(0.0), &peers(3)));
    let mut now = 0.0;
    let mut script = |ops: &str, outliers: &mut Outliers| -> Vec<String> {
        let mut lines = Vec::new();
        for op in ops.split_whitespace() {
            let changes = match op.strip_prefix('+') {
                Some(seconds) => {
                    now += seconds.parse::<f64>().unwrap();
                    outliers.poll(at(now), |_| Tally::default())
                }
                None => outliers.run_completed(at(now), op.parse().unwrap()),
            };
            lines.extend(told(&changes));
        }
        lines
    };
    let out = |seconds| format!("0 out consecutive {seconds}s");
    let back = || "0 back".to_owned();
    // Back at 30; the interval from 20 to 30 does not count, so the next one is longer.
    assert_eq!(script("0 +30", &mut outliers), [out(30), back()]);
    assert_eq!(script("0 0 +60 0", &mut outliers), [out(60), back(), out(70)]);
    // Back at 160 with three; two whole intervals later with one.
    assert_eq!(script("+70 +20 0", &mut outliers), [back(), out(60)]);
    // Back at 240 with two; 48 h in one step are healthy intervals too.
    assert_eq!(script("+60 +172800 0", &mut outliers), [back(), out(30)]);
    // Time that goes back counts as the last seen; others are not touched.
    assert_eq!(told(&outliers.run_completed(at(0.0), 1)), ["1 stays consecutive"]);
    assert_eq!(outliers.run_completed(at(0.0), 77), []);
}

#[test]
fn the_ejected_are_no_measure_for_the_others() {
    let mut outliers = Outliers::new(OutlierPolicy::default(), at(0.0));
    drop(outliers.set(at(0.0), &peers(6)));
    drop(outliers.poll(at(10.0), |id| tally(100, if id == 0 { 0 } else { 100 }, 1)));
    assert!(outliers.ejection(0).is_some());
    // 0 still has bad late results; without them 90 % among 99 % is far off, with them it is not.
    let rates = [0, 90, 99, 99, 99, 99];
    let changes = outliers.poll(at(20.0), |id| tally(100, rates[usize::try_from(id).unwrap()], 1));
    assert_eq!(told(&changes), ["1 out success_rate 30s"]);
}

#[test]
fn a_new_policy_keeps_ejections_but_not_beyond_its_floor() {
    let mut outliers = Outliers::new(OutlierPolicy::default(), at(0.0));
    drop(outliers.set(at(0.0), &peers(4)));
    drop(outliers.poll(at(10.0), |id| tally(100, if id < 2 { 0 } else { 100 }, 1)));
    let changes = outliers.set_policy(at(11.0), policy("max_ejected_percent = 25"));
    assert_eq!(told(&changes), ["0 back early"]);
    assert_eq!(outliers.ejection(1).unwrap().until, at(40.0));
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Run(u64),
    Bad(u16),
    Set(u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..40_000).prop_map(Step::Wait),
        (0_u64..12).prop_map(Step::Run),
        any::<u16>().prop_map(Step::Bad),
        (any::<u16>(), any::<u16>()).prop_map(|(present, healthy)| Step::Set(present, healthy)),
    ]
}

proptest! {
    /// Whatever happens, the share of ejected instances stays within its limit, and no healthy one
    /// is out while too few healthy ones remain; nobody is out for longer than the limit; and who
    /// is told out and back is who is out.
    #[test]
    fn the_floor_always_holds(
        max_ejected_percent in 0_u32..=100,
        min_healthy in 0_u32..4,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let text = format!(
            "consecutive = 1\nmax_ejected_percent = {max_ejected_percent}\nmin_healthy = {min_healthy}"
        );
        let mut outliers = Outliers::new(policy(&text), at(0.0));
        let mut set = peers(6);
        drop(outliers.set(at(0.0), &set));
        let (mut now, mut bad) = (at(0.0), 0_u16);
        let mut out = std::collections::BTreeSet::new();
        for step in steps {
            let changes = match step {
                Step::Wait(millis) => {
                    now = now.plus(Duration::from_millis(millis));
                    outliers.poll(now, |id| tally(100, if bad >> id & 1 == 1 { 0 } else { 100 }, 1))
                }
                Step::Run(id) => outliers.run_completed(now, id),
                Step::Bad(ids) => {
                    bad = ids;
                    Vec::new()
                }
                Step::Set(present, healthy) => {
                    let has = |mask: u16, id: u64| mask >> id & 1 == 1;
                    set = (0..12)
                        .filter(|&id| has(present, id))
                        .map(|id| Peer { id, healthy: has(healthy, id) })
                        .collect();
                    let changes = outliers.set(now, &set);
                    out.retain(|id| set.iter().any(|peer| peer.id == *id));
                    changes
                }
            };
            for change in changes {
                match change {
                    Change::Ejected { id, ejection } => {
                        prop_assert!(out.insert(id));
                        let span = ejection.until.since(ejection.since).as_secs();
                        prop_assert!((30..=300).contains(&span));
                    }
                    // One that was removed in the same call may be told back before.
                    Change::Returned { id, .. } => drop(out.remove(&id)),
                    Change::Withheld { .. } => (),
                }
            }
            let is_out = |peer: &&Peer| outliers.ejection(peer.id).is_some();
            let ejected = set.iter().filter(is_out).count();
            prop_assert_eq!(ejected, out.len());
            prop_assert!(100 * ejected <= max_ejected_percent as usize * set.len());
            let healthy_out = set.iter().filter(is_out).any(|peer| peer.healthy);
            let remaining = set.iter().filter(|p| p.healthy && !is_out(p)).count();
            prop_assert!(!healthy_out || remaining >= min_healthy as usize);
            prop_assert!(outliers.next_wake() > now);
        }
    }
}
