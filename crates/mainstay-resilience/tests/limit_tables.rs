//! The worked table of limits: every row is a script.

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::limit::{Cost, Decision, LimitPolicy, Limiter, RawLimit};

/// Plays `script` to a limit written as `toml`.
///
/// `@250` sets the clock to 250 ms. Then follow answers expected, in order: `yes`, `no` or
/// `no=510` (`retry_after`, in ms), `wait=100` (until then, in ms), `exceeds=5`; `yes*4` stands for
/// four. `cost=3` changes what the next calls cost, `cancel` refunds the last wait or grant,
/// `max=4` changes the policy live, `scale=40` its scale.
#[track_caller]
fn check(toml: &str, script: &str) {
    let raw: RawLimit = toml::from_str(toml).expect("a limit");
    let policy = |raw: &RawLimit| LimitPolicy::try_from(raw.clone()).expect("a valid limit");
    let mut limiter = Limiter::new(&policy(&raw), Instant::ZERO).expect("a limit that tells time");
    let (mut raw, mut now, mut cost, mut last) = (raw, Instant::ZERO, Cost::ONE, None);
    for (step, word) in script.split_whitespace().enumerate() {
        if let Some(moment) = word.strip_prefix('@') {
            now = Instant::ZERO.plus(millis(moment));
            continue;
        }
        let (word, times) = word.split_once('*').map_or((word, 1), |(w, n)| (w, number(n)));
        let (verb, value) = word.split_once('=').unwrap_or((word, ""));
        match verb {
            "cost" => cost = Cost::new(number(value)).expect("not 0"),
            "cancel" => limiter.refund(now, last.take().expect("something to cancel")),
            "scale" => limiter.set_scale(now, number(value)),
            "max" => {
                raw.max = Some(number(value));
                assert!(limiter.set_policy(now, &policy(&raw)));
            }
            _ => {
                for n in 0..times {
                    let answer = limiter.ask(now, cost);
                    let at = format!("{verb} {n} at word {step} of {script:?} ({toml})");
                    last = expect(answer, verb, value, now, &at);
                }
            }
        }
    }
}

#[track_caller]
fn expect(
    answer: Decision,
    verb: &str,
    value: &str,
    now: Instant,
    at: &str,
) -> Option<mainstay_resilience::limit::Receipt> {
    match (answer, verb) {
        (Decision::Granted { receipt, .. }, "yes") => return Some(receipt),
        (Decision::Wait { until, receipt }, "wait") => {
            near(until.since(now), value, at);
            return Some(receipt);
        }
        (Decision::Denied(_), "no") if value.is_empty() => (),
        (Decision::Denied(denied), "no") => near(denied.retry_after, value, at),
        (Decision::CostExceedsQuota { capacity }, "exceeds") => {
            assert_eq!(capacity, number(value), "{at}");
        }
        (answer, _) => unreachable!("{at}: {answer:?}"),
    }
    None
}

/// Equal to within a microsecond.
#[track_caller]
fn near(got: Duration, want: &str, at: &str) {
    let apart = got.abs_diff(millis(want));
    assert!(apart <= Duration::from_micros(1), "{at}: {got:?}, not {want} ms");
}

fn millis(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse::<f64>().expect("milliseconds") / 1_000.0)
}

fn number(text: &str) -> u32 {
    text.parse().expect("a number")
}

#[test]
fn a_counter_counts_within_its_window() {
    check(
        "kind = 'counter'\nmax = 5\nwindow_seconds = 60",
        "@0 yes*5 @1000 no=59000 @11000 no=49000 @41000 no=19000 @71000 yes*5 no=49000",
    );
}

#[test]
fn a_counter_may_spend_two_windows_at_an_edge_and_no_more() {
    check("kind = 'counter'\nmax = 5", "@999 yes*5 no=1 @1000 yes*5 no=1000");
}

#[test]
fn a_counter_reserves_ahead_and_saves_nothing_up() {
    check(
        "kind = 'counter'\nmax = 1\nwindow_seconds = 0.25",
        "@0 yes no=250 no=250 @1500 yes no=250",
    );
    let waits = "kind = 'counter'\nmax = 1\nwindow_seconds = 0.25\nwait_max_seconds = 0.25";
    check(waits, "@0 yes wait=250 no=500 @1500 yes wait=250 no=500");
    check(waits, "@0 yes wait=250 @250 wait=250 no @500 wait=250");
}

#[test]
fn a_counter_takes_back_what_a_waiter_reserved() {
    let two_ahead = "kind = 'counter'\nmax = 1\nwait_max_seconds = 2";
    check(two_ahead, "@0 yes wait=1000 cancel wait=1000 wait=2000 no=3000");
    check(two_ahead, "@0 yes cancel yes wait=1000 wait=2000 cancel wait=2000");
}

#[test]
fn a_sliding_window_lets_go_of_the_oldest_part_bit_by_bit() {
    let limit = "kind = 'sliding'\nmax = 10";
    check(limit, "@0 yes*10 @500 no=510 @1009 no=1 @1010 yes no=10 @1050 yes*4 no");
    check(&format!("{limit}\nedge = 'full'"), "@0 yes*10 @500 no=600 @1099 no=1 @1100 yes*10 no");
    check(limit, "@0 yes*10 cancel yes no @500 no=510");
}

#[test]
fn a_bucket_refills_evenly() {
    check("max = 2", "@0 yes @1 yes @2 no=498 @1002 yes @1003 yes @1004 no");
    check("max = 5\nburst = 8", "@0 yes*8 no @1002 yes*5 no @2004 yes*5 no @4004 yes*8 no");
    check("max = 10\nburst = 20", "@0 yes*20 no=100 @150 yes no=50");
    check("max = 67", "@0 yes*67 no");
    check("max = 7", "@0 yes*7 no @1000 yes*7 no");
}

#[test]
fn a_bucket_never_holds_more_than_its_burst() {
    check("max = 5", "@0 yes*5 no @2000 yes*5 no cost=15 exceeds=5");
    check("max = 5", "@86400000 yes*5 no @259200000 yes*5 no");
    check("max = 25000", "@0 yes*25000 no @2000 yes*25000 no cost=25001 exceeds=25000");
    check("max = 25000", "@0 yes*25000 no @86400000 yes*25000 no @259200000 yes*25000 no");
}

#[test]
fn a_bucket_undone_in_the_same_instant_shows_no_trace() {
    check("max = 3", "@0 yes*3 cancel yes no");
    check("max = 3", "@0 cost=3 yes @500 cancel cost=1 yes*3 no");
    check("max = 3", "@0 cost=3 yes @1000 cancel yes no=1000");
}

#[test]
fn pacing_spaces_calls_evenly() {
    check(
        "kind = 'pacing'\nmax = 10",
        "@0 yes wait=100 wait=200 wait=300 wait=400 wait=500 no=600",
    );
    check(
        "kind = 'pacing'\nmax = 5\nwait_max_seconds = 2",
        "@0 yes wait=200 wait=400 wait=600 wait=800 wait=1000 wait=1200 wait=1400 wait=1600 \
         wait=1800 wait=2000 no",
    );
    check("kind = 'pacing'\nmax = 10\nqueue_max = 2", "@0 yes wait=100 wait=200 no=300");
    check("kind = 'pacing'\nmax = 10", "@0 cost=3 yes cost=1 wait=300 @60000 yes wait=100");
    check("kind = 'pacing'\nmax = 10", "@0 yes wait=100 cancel wait=100 wait=200");
}

#[test]
fn pacing_is_as_exact_at_a_million_a_second() {
    let waits = |slots: u32, per_ms: f64| -> String {
        let waits = (1..=slots).map(|n| format!("wait={}", f64::from(n) / per_ms));
        waits.collect::<Vec<_>>().join(" ")
    };
    check("kind = 'pacing'\nmax = 1000000", &format!("@0 yes {}", waits(500, 1e3)));
    check("kind = 'pacing'\nmax = 700000", &format!("@0 yes {}", waits(300, 700.0)));
}

#[test]
fn a_lower_quota_set_live_grants_no_burst_and_a_higher_one_adds_nothing_at_once() {
    check("max = 10", "@0 yes*9 max=4 yes no=250 @10000 yes*4 no");
    check("max = 10", "@0 max=4 yes*4 no @10000 yes*4 no");
    check("max = 4", "@0 yes*3 max=10 yes no=100 @10000 yes*10 no");
    check("kind = 'counter'\nmax = 5", "@0 yes*5 max=10 no=1000 @1000 yes*10 no");
    check("kind = 'counter'\nmax = 10", "@0 yes*9 max=4 no=1000 @1000 yes*4 no");
    check("kind = 'sliding'\nmax = 5", "@0 yes*5 max=10 no @2000 yes*10 no");
    check("kind = 'sliding'\nmax = 10", "@0 yes*9 max=4 no @2000 yes*4 no");
    check(
        "kind = 'pacing'\nmax = 10",
        "@0 yes max=1 no=1000 @1000 yes max=10 no=1000 @2000 yes wait=100",
    );
}

#[test]
fn a_scale_is_rounded_down_to_at_least_one() {
    check("max = 10\nburst = 20", "@0 scale=40 yes*8 no=250 @10000 yes*8 no scale=100 no=100");
    check("kind = 'counter'\nmax = 7", "@0 scale=50 yes*3 no @1000 scale=1 yes no");
    check("max = 10", "@0 scale=50 max=20 yes*5 no=100 @10000 yes*10 no cost=11 exceeds=10");
}

/// Moment, in ms, of each grant of a saturated warm-up, by asking again after `retry_after`.
fn saturated(max: u32, warm_up_seconds: f64, grants: usize) -> Vec<f64> {
    let raw = RawLimit {
        max: Some(max),
        warm_up_seconds: Some(warm_up_seconds),
        wait_max_seconds: Some(0.0),
        ..toml::from_str("kind = 'warm_up'").expect("a kind")
    };
    let policy = LimitPolicy::try_from(raw).expect("a valid limit");
    let mut limiter = Limiter::new(&policy, Instant::ZERO).expect("a limit that tells time");
    let (mut now, mut moments) = (Instant::ZERO, Vec::new());
    while moments.len() < grants {
        match limiter.ask(now, Cost::ONE) {
            Decision::Granted { .. } => moments.push(now.since(Instant::ZERO).as_secs_f64() * 1e3),
            Decision::Denied(denied) => now = now.plus(denied.retry_after),
            other => unreachable!("{other:?}"),
        }
    }
    moments
}

#[test]
fn a_warm_up_takes_exactly_its_time() {
    #[track_caller]
    fn check(moments: &[f64], grant: usize, ms: f64) {
        assert!((moments[grant] - ms).abs() < 1e-3, "grant {grant} at {} ms", moments[grant]);
    }
    let moments = saturated(10, 10.0, 61);
    for (grant, ms) in [(0, 0.0), (10, 2_800.0), (20, 5_200.0), (30, 7_200.0), (40, 8_800.0)] {
        check(&moments, grant, ms);
    }
    for (n, ms) in (10_000..).step_by(100).take(11).enumerate() {
        check(&moments, 50 + n, f64::from(ms));
    }
    // The rate at a point is one over the price there: 3.33, 3.85, 5, 7.14 per second. A call pays
    // the mean price of the permit it takes, which is that half a permit on.
    for (grant, rate) in [(0, 1e3 / 298.0), (10, 1e3 / 258.0), (25, 1e3 / 198.0), (40, 1e3 / 138.0)]
    {
        let got = 1e3 / (moments[grant + 1] - moments[grant]);
        assert!((got - rate).abs() < 1e-3, "{got} calls a second at {grant}");
    }
    let moments = saturated(100, 5.0, 252);
    for (grant, ms) in [(100, 2_600.0), (250, 5_000.0), (251, 5_010.0)] {
        check(&moments, grant, ms);
    }
}

#[test]
fn a_warm_up_cools_while_idle_and_waits_like_pacing() {
    let limit = "kind = 'warm_up'\nmax = 10\nwait_max_seconds = 1";
    check(limit, "@0 yes wait=298 wait=592 wait=882 no=1168");
    check(limit, "@0 yes wait=298 cancel wait=298");
    check(limit, "@0 yes @60000 yes wait=298");
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    for kind in ["counter", "sliding", "bucket", "pacing\"\nwait_max_seconds = 0\nmode = \"enforce"]
    {
        check(
            &format!("kind = \"{kind}\"\nmax = 1"),
            "@5000 yes @10 no @0 no @4999 no @7000 yes no",
        );
    }
}

#[test]
fn the_end_of_time_is_no_way_past_a_limit() {
    for kind in ["counter", "sliding", "bucket", "pacing", "warm_up"] {
        let raw: RawLimit = toml::from_str(&format!("kind = '{kind}'\nmax = 2")).expect("a limit");
        let policy = LimitPolicy::try_from(raw).expect("a valid limit");
        let mut limiter = Limiter::new(&policy, Instant::ZERO).expect("a limit that tells time");
        let granted = |limiter: &mut Limiter, now| {
            let asks = (0..9).map(|_| limiter.ask(now, Cost::ONE));
            let passes = |answer: &Decision| match answer {
                Decision::Granted { .. } => true,
                Decision::Wait { until, .. } => *until <= now,
                _ => false,
            };
            asks.filter(passes).count()
        };
        let hours = Instant::ZERO.plus(Duration::from_hours(48));
        assert!(granted(&mut limiter, hours) <= 2, "{kind}");
        assert!(granted(&mut limiter, Instant::MAX) <= 2, "{kind}");
        assert!(granted(&mut limiter, Instant::MAX) <= 2, "{kind}");
    }
}

#[test]
fn an_observing_limit_lets_go_what_it_would_refuse_and_counts_it() {
    let raw: RawLimit = toml::from_str("max = 2\nmode = 'observe'").expect("a limit");
    let policy = LimitPolicy::try_from(raw).expect("a valid limit");
    let mut limiter = Limiter::new(&policy, Instant::ZERO).expect("a limit that tells time");
    for n in 0..5 {
        let answer = limiter.ask(Instant::ZERO, Cost::ONE);
        let Decision::Granted { receipt, .. } = answer else { panic!("{answer:?}") };
        if n == 4 {
            limiter.refund(Instant::ZERO, receipt); // Took nothing, so gives nothing back.
        }
    }
    let usage = limiter.usage(Instant::ZERO);
    assert_eq!((usage.used, usage.remaining()), (2, 0));
    assert_eq!((usage.tally.granted, usage.tally.would_reject, usage.tally.denied), (5, 3, 0));
}

#[test]
fn a_refusal_says_since_when() {
    let raw: RawLimit = toml::from_str("max = 2\nwindow_seconds = 10").expect("a limit");
    let policy = LimitPolicy::try_from(raw).expect("a valid limit");
    let mut limiter = Limiter::new(&policy, Instant::ZERO).expect("a limit that tells time");
    let second = |n| Instant::ZERO.plus(Duration::from_secs(n));
    for n in [0, 0, 1, 3] {
        match limiter.ask(second(n), Cost::ONE) {
            Decision::Denied(denied) => {
                let off = denied.since.since(second(1));
                assert!(off < Duration::from_millis(17), "{off:?}");
                assert_eq!((denied.observed, denied.threshold), (2, 2));
            }
            answer => assert_eq!(n, 0, "{answer:?}"),
        }
    }
    assert_eq!(limiter.next_wake(), Some(second(10)));
}

#[test]
fn a_wait_beyond_the_deadline_is_a_denial_at_once() {
    let raw: RawLimit = toml::from_str("kind = 'pacing'\nmax = 10").expect("a limit");
    let policy = LimitPolicy::try_from(raw).expect("a valid limit");
    let mut limiter = Limiter::new(&policy, Instant::ZERO).expect("a limit that tells time");
    let deadline = |ms| Instant::ZERO.plus(Duration::from_millis(ms));
    let mut ask = |ms| limiter.ask_by(Instant::ZERO, Cost::ONE, deadline(ms));
    assert!(matches!(ask(99), Decision::Granted { .. }));
    assert!(matches!(ask(99), Decision::Denied(_)));
    assert!(matches!(ask(100), Decision::Wait { until, .. } if until == deadline(100)));
}

#[test]
fn a_change_of_kind_keeps_what_was_used() {
    let policy = |text: &str| {
        let raw: RawLimit = toml::from_str(text).expect("a limit");
        LimitPolicy::try_from(raw).expect("a valid limit")
    };
    let mut limiter = Limiter::new(&policy("max = 10"), Instant::ZERO).expect("tells time");
    for _ in 0..7 {
        assert!(matches!(limiter.ask(Instant::ZERO, Cost::ONE), Decision::Granted { .. }));
    }
    for kind in ["counter", "sliding", "bucket"] {
        let changed = policy(&format!("kind = '{kind}'\nmax = 20"));
        assert!(limiter.set_policy(Instant::ZERO, &changed));
        assert_eq!(limiter.usage(Instant::ZERO).remaining(), 3, "{kind}");
    }
    assert!(!limiter.set_policy(Instant::ZERO, &policy("kind = 'concurrency'\nmax = 20")));
    assert_eq!(limiter.usage(Instant::ZERO).remaining(), 3);
}
