//! Promises of the time-based limits, against exact logs so simple that they need no test.

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::limit::{
    Cost, Decision, LimitPolicy, Limiter, Quota, Rate, RawLimit, Receipt, gcra,
};
use proptest::prelude::*;

/// A call that was let through: when, in ns, and how many units.
type Log = Vec<(u64, u64)>;

fn limiter(toml: &str) -> Limiter {
    Limiter::new(&policy(toml), Instant::ZERO).expect("a limit that tells time")
}

fn policy(toml: &str) -> LimitPolicy {
    let raw: RawLimit = toml::from_str(toml).expect("a limit");
    LimitPolicy::try_from(raw).expect("a valid limit")
}

/// Gaps between calls in ns: mostly within a window, at times two days.
fn gaps() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let gap = prop_oneof![
        20 => 0u64..300_000_000,
        5 => (0u64..30).prop_map(|ms| ms * 50_000_000),
        5 => Just(0u64),
        1 => Just(48 * 3_600_000_000_000),
    ];
    prop::collection::vec((gap, 1u32..4), 1..150)
}

/// Plays `calls`; returns what was let through, at the moment it was.
fn play(limiter: &mut Limiter, calls: &[(u64, u32)]) -> Log {
    let (mut now, mut log) = (Instant::ZERO, Log::new());
    for &(gap, cost) in calls {
        now = now.plus(Duration::from_nanos(gap));
        let cost = Cost::new(cost).expect("not 0");
        match limiter.ask(now, cost) {
            Decision::Granted { .. } => log.push((now.as_nanos(), u64::from(cost.get()))),
            Decision::Wait { until, .. } => log.push((until.as_nanos(), u64::from(cost.get()))),
            _ => (),
        }
    }
    log
}

/// Units let through in the most crowded half-open span of `length` ns.
fn busiest(log: &Log, length: u64) -> u64 {
    let mut log = log.clone();
    log.sort_unstable();
    let from = |start: u64| {
        log.iter().filter(move |&&(at, _)| start <= at && at < start.saturating_add(length))
    };
    log.iter().map(|&(at, _)| from(at).map(|&(_, cost)| cost).sum()).max().unwrap_or(0)
}

const SECOND: u64 = 1_000_000_000;

proptest! {
    #[test]
    fn a_counter_keeps_each_window_and_twice_that_over_an_edge(
        max in 3u32..12, waits: bool, calls in gaps(),
    ) {
        let wait = if waits { 2 } else { 0 };
        let toml = format!("kind = 'counter'\nmax = {max}\nwait_max_seconds = {wait}");
        let log = play(&mut limiter(&toml), &calls);
        prop_assert!(busiest(&log, SECOND) <= 2 * u64::from(max));
        for &(at, _) in &log {
            let window = log.iter().filter(|&&(other, _)| other / SECOND == at / SECOND);
            prop_assert!(window.map(|&(_, cost)| cost).sum::<u64>() <= u64::from(max));
        }
    }

    #[test]
    fn a_full_sliding_window_is_never_exceeded(max in 3u32..12, subs in 1u32..=10, calls in gaps()) {
        let toml = format!("kind = 'sliding'\nmax = {max}\nsub_windows = {subs}\nedge = 'full'");
        let log = play(&mut limiter(&toml), &calls);
        prop_assert!(busiest(&log, SECOND) <= u64::from(max));
    }

    #[test]
    fn a_weighted_sliding_window_is_exceeded_by_one_sub_window_at_most(
        max in 3u32..12, subs in 1u32..=10, calls in gaps(),
    ) {
        let toml = format!("kind = 'sliding'\nmax = {max}\nsub_windows = {subs}");
        let log = play(&mut limiter(&toml), &calls);
        let sub = SECOND.div_ceil(u64::from(subs));
        let slack = log.iter().map(|&(at, _)| {
            let same = log.iter().filter(|&&(other, _)| other / sub == at / sub);
            same.map(|&(_, cost)| cost).sum::<u64>()
        });
        let slack = slack.max().unwrap_or(0);
        prop_assert!(busiest(&log, SECOND) <= u64::from(max) + slack);
    }

    /// Against the definition: tokens as a fraction over `max`, filled at every call.
    #[test]
    fn a_bucket_is_a_token_bucket(max in 1u32..100, burst in 3u32..20, calls in gaps()) {
        let mut bucket = limiter(&format!("max = {max}\nburst = {burst}"));
        let (full, rate) = (u128::from(burst) * u128::from(SECOND), u128::from(max));
        let (mut now, mut tokens) = (Instant::ZERO, full);
        for (gap, cost) in calls {
            now = now.plus(Duration::from_nanos(gap));
            tokens = (tokens + u128::from(gap) * rate).min(full);
            let units = u128::from(cost) * u128::from(SECOND);
            let answer = bucket.ask(now, Cost::new(cost).expect("not 0"));
            let granted = matches!(answer, Decision::Granted { .. });
            // Above 64 the interval may be rounded, by 1/64 ns for every unit.
            let edge = tokens.abs_diff(units) <= u128::from(burst) * rate && 64 < max;
            prop_assert!(granted == (units <= tokens) || edge, "{answer:?} with {tokens}");
            if granted {
                tokens = tokens.saturating_sub(units);
            }
            if let Decision::Granted { remaining, .. } = answer && max <= 64 {
                prop_assert_eq!(u128::from(remaining), tokens / u128::from(SECOND));
            }
        }
    }

    #[test]
    fn a_bucket_never_exceeds_burst_and_rate_over_any_span(
        max in 1u32..5_000, burst in 3u32..50, calls in gaps(),
    ) {
        let log = play(&mut limiter(&format!("max = {max}\nburst = {burst}")), &calls);
        for (i, &(start, _)) in log.iter().enumerate() {
            let mut sum = 0;
            for &(at, cost) in &log[i..] {
                sum += u128::from(cost);
                let refilled = u128::from(at - start) * u128::from(max);
                prop_assert!(sum * u128::from(SECOND) <= u128::from(burst) * u128::from(SECOND) + refilled);
            }
        }
    }

    #[test]
    fn every_rate_up_to_a_million_a_second_is_exact_within_one_percent(max in 1u32..=1_000_000) {
        let quota = Quota { max: max.try_into().expect("not 0"), window: Duration::from_secs(1) };
        let rate = Rate::new(quota, max);
        let cost = Cost::new(max).expect("not 0");
        let tat = gcra(0, Instant::ZERO, &rate, cost).expect("full");
        let second = rate.reset(tat, Instant::ZERO).as_nanos();
        prop_assert!((SECOND.into()..=u128::from(SECOND) + u128::from(SECOND) / 10_000).contains(&second));
    }

    #[test]
    fn pacing_leaves_an_interval_for_every_unit(max in 3u32..2_000, calls in gaps()) {
        let toml = format!("kind = 'pacing'\nmax = {max}\nwait_max_seconds = 1");
        let log = play(&mut limiter(&toml), &calls);
        for pair in log.windows(2) {
            let spaced = (pair[1].0 - pair[0].0 + 1) * u64::from(max);
            prop_assert!(pair[0].1 * SECOND <= spaced, "{pair:?}");
        }
    }

    #[test]
    fn a_warm_up_is_never_faster_than_its_rate(max in 3u32..200, calls in gaps()) {
        let toml = format!("kind = 'warm_up'\nmax = {max}\nwait_max_seconds = 1");
        let log = play(&mut limiter(&toml), &calls);
        for pair in log.windows(2) {
            let spaced = (pair[1].0 - pair[0].0 + 1) * u64::from(max);
            prop_assert!(pair[0].1 * SECOND <= spaced, "{pair:?}");
        }
    }

    #[test]
    fn waiting_exactly_retry_after_earns_a_grant(
        kind in 0usize..6, max in 3u32..90, calls in gaps(),
    ) {
        let kind = KINDS[kind];
        let mut limiter = limiter(&format!("max = {max}\n{kind}"));
        let mut now = Instant::ZERO;
        for (gap, cost) in calls {
            now = now.plus(Duration::from_nanos(gap));
            let cost = Cost::new(cost).expect("not 0");
            if let Decision::Denied(denied) = limiter.ask(now, cost) {
                prop_assert!(!denied.retry_after.is_zero());
                now = now.plus(denied.retry_after);
                let answer = limiter.ask(now, cost);
                prop_assert!(matches!(answer, Decision::Granted { .. }), "{denied:?} then {answer:?}");
            }
        }
    }

    /// A call that is undone leaves no more behind than one that was never made would.
    #[test]
    fn what_is_refunded_is_never_more_than_was_taken(
        kind in 0usize..4,
        max in 3u32..20,
        calls in prop::collection::vec((0u64..400_000_000, 1u32..4, 0u8..4), 1..120),
    ) {
        let kind = KINDS[kind];
        let (mut limiter, mut reference) =
            (limiter(&format!("max = {max}\n{kind}")), limiter(&format!("max = {max}\n{kind}")));
        let (mut now, mut undone): (Instant, Option<Receipt>) = (Instant::ZERO, None);
        for (gap, cost, undo) in calls {
            now = now.plus(Duration::from_nanos(gap));
            let cost = Cost::new(cost).expect("not 0");
            if let Decision::Granted { receipt, .. } = limiter.ask(now, cost) {
                if undo == 0 && undone.is_none() {
                    undone = Some(receipt);
                } else {
                    let never_asked = reference.ask(now, cost);
                    prop_assert!(
                        matches!(never_asked, Decision::Granted { .. }),
                        "granted only because of a refund: {never_asked:?}"
                    );
                }
            }
            if undo == 1 && let Some(receipt) = undone.take() {
                limiter.refund(now, receipt);
            }
        }
    }

    #[test]
    fn a_call_undone_at_once_leaves_no_trace(kind in 0usize..6, max in 3u32..20, calls in gaps()) {
        let kind = KINDS[kind];
        let mut limiter = limiter(&format!("max = {max}\n{kind}"));
        let mut now = Instant::ZERO;
        for (n, (gap, cost)) in calls.into_iter().enumerate() {
            now = now.plus(Duration::from_nanos(gap));
            let before = limiter.usage(now);
            if let Decision::Granted { receipt, .. } | Decision::Wait { receipt, .. } =
                limiter.ask(now, Cost::new(cost).expect("not 0"))
                && n % 2 == 0
            {
                limiter.refund(now, receipt);
                let after = limiter.usage(now);
                prop_assert_eq!((before.used, before.capacity), (after.used, after.capacity));
            }
        }
    }

    /// After a change no more is free than before it, and never more than the new quota.
    #[test]
    fn a_change_of_quota_frees_nothing(
        kind in 0usize..4,
        calls in prop::collection::vec((0u64..400_000_000, 1u32..4, 3u32..40), 1..100),
    ) {
        let kind = KINDS[kind];
        let mut limiter = limiter(&format!("max = 20\n{kind}"));
        let mut now = Instant::ZERO;
        for (gap, cost, max) in calls {
            now = now.plus(Duration::from_nanos(gap));
            drop(limiter.ask(now, Cost::new(cost).expect("not 0")));
            let before = limiter.usage(now).remaining();
            let changed = policy(&format!("max = {max}\n{kind}"));
            prop_assert!(limiter.set_policy(now, &changed));
            let after = limiter.usage(now);
            prop_assert!(after.remaining() <= before, "{before} then {after:?}");
            prop_assert_eq!(after.capacity, u64::from(max));
        }
    }
}

/// The first four hold units, the last two space calls.
const KINDS: [&str; 6] = [
    "kind = 'bucket'",
    "kind = 'sliding'",
    "kind = 'sliding'\nedge = 'full'",
    "kind = 'counter'",
    "kind = 'pacing'\nqueue_max = 8",
    "kind = 'warm_up'\nwait_max_seconds = 0.2",
];
