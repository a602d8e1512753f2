//! Peak EWMA: the worked numbers, and what becomes of slow and failing instances.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::balance::{
    Ask, BalancePolicy, Candidate, Estimate, Load, Order, Picker, RawBalance, Snapshot,
};
use proptest::prelude::*;

/// Plays `script` to an estimate: `20` is a sample of 20 ms, `+10` lets 10 s pass, `ra60` is a
/// `Retry-After` of 60 s, `x3` a call that failed after 3 ms, `=42.07` is read in ms, and `c2=126.2`
/// is the cost in ms with two calls in flight.
#[track_caller]
fn check(script: &str) {
    let (mut estimate, mut now) = (Estimate::default(), Instant::from_nanos(5_000_000_000));
    for op in script.split_whitespace() {
        let number = |text: &str| text.parse::<f64>().unwrap();
        let millis = |text: &str| Duration::from_secs_f64(number(text) / 1e3);
        estimate = Estimate::from_words(estimate.to_words());
        if let Some(want) = op.strip_prefix('=') {
            let got = estimate.read(now).map_or(-1.0, |read| read.as_secs_f64() * 1e3);
            assert!((got - number(want)).abs() < 0.005, "{op} in {script:?}: {got}");
        } else if let Some(cost) = op.strip_prefix('c') {
            let (in_flight, want) = cost.split_once('=').unwrap();
            let got = estimate.cost(now, in_flight.parse().unwrap()) / 1e6;
            assert!((got - number(want)).abs() < 0.05, "{op} in {script:?}: {got}");
        } else if let Some(seconds) = op.strip_prefix('+') {
            now = now.plus(Duration::from_secs_f64(number(seconds)));
        } else if let Some(seconds) = op.strip_prefix("ra") {
            estimate = estimate.retry_after(now, Duration::from_secs_f64(number(seconds)));
        } else if let Some(latency) = op.strip_prefix('x') {
            let penalty = BalancePolicy::default().failure_penalty;
            estimate = estimate.observe(now, Estimate::failed_sample(millis(latency), penalty));
        } else {
            estimate = estimate.observe(now, millis(op));
        }
    }
}

#[test]
fn a_peak_is_believed_at_once_and_forgotten_slowly() {
    check("20 =20 80 =80 +10 20 =42.07 c0=42.07 c2=126.2");
    check("80 +10 =29.43 +10 =10.83");
    check("20 20 20 =20 +1000 20 =20");
}

#[test]
fn an_unknown_instance_is_tried_one_call_at_a_time() {
    check("=-1 c0=0 c1=1000 c7=1000");
    check("20 +100000 =-1 c0=0 c1=1000");
}

#[test]
fn a_fast_failure_is_a_slow_call() {
    check("x3 =5000 10 =5000 +10 10 =1845.72");
    check("x7000 =7000");
}

#[test]
fn a_retry_after_holds_until_it_passes() {
    check("20 ra60 =60000 +59.9 =60000 +0.2 =0.05");
    check("ra60 c0=60000 c1=120000 +61 c0=0");
    check("20 ra3600 =300000 +299 =300000 +2 =0");
    check("20 ra60 ra1 +30 =60000");
    check("20 ra60 +1 20 =60000");
}

/// Several callers, each with its own eyes, call ten instances.
struct Simulation {
    /// Milliseconds a call takes.
    latency: [f64; 10],
    /// Who answers 503.
    fails: [bool; 10],
    /// Calls a second of each caller.
    rate: f64,
    kind: &'static str,
}

const CALLERS: usize = 4;

struct Caller {
    load: [Load; 10],
}

impl Simulation {
    /// Share of instance 0 in the calls between `from` and `to` seconds, as part of a fair share.
    fn share(&self, seed: u64, from: f64, to: f64) -> f64 {
        let raw: RawBalance = toml::from_str(&format!("kind = '{}'", self.kind)).unwrap();
        let policy = BalancePolicy::try_from(raw).unwrap();
        let instance = Candidate {
            address: "a:1",
            name: "a",
            weight: 1,
            priority: 0,
            same_zone: true,
            usable: true,
            since: Instant::ZERO,
        };
        let snapshot =
            Snapshot { instances: &[instance; 10], order: Order::Listed, protected: false };
        let picker = Picker::new(&policy, &snapshot, Instant::ZERO);
        let mut callers: Vec<Caller> =
            (0..CALLERS).map(|_| Caller { load: [Load::default(); 10] }).collect();
        let mut draw = draws(seed);
        // (when, caller, instance and start of the call that ends; none: a call begins)
        let mut events = BinaryHeap::new();
        let second = 1e9;
        for caller in 0..CALLERS {
            events.push(Reverse((draw() % 1_000_000, caller, None)));
        }
        let (mut all, mut mine) = (0.0, 0.0);
        while let Some(Reverse((at, caller, call))) = events.pop() {
            let (now, seconds) = (Instant::from_nanos(at), float(at) / second);
            if seconds > to {
                break;
            }
            let load = &mut callers[caller].load;
            if let Some((index, start)) = call {
                let load: &mut Load = &mut load[index];
                load.in_flight -= 1;
                let mut sample = Duration::from_nanos(at - start);
                if self.fails[index] {
                    sample = Estimate::failed_sample(sample, policy.failure_penalty);
                }
                load.estimate = load.estimate.observe(now, sample);
                continue;
            }
            let ask =
                Ask { now, draws: [draw(), draw(), draw()], hash: None, attempt: 0, tried: &[] };
            let index = picker.pick(&ask, |i| load[i], |_| true).unwrap();
            load[index].in_flight += 1;
            if seconds >= from {
                all += 1.0;
                mine += if index == 0 { 1.0 } else { 0.0 };
            }
            // Latency varies by a fifth; arrivals are a Poisson process.
            let latency = self.latency[index] * 1e6 * (0.8 + 0.4 * unit(draw()));
            events.push(Reverse((at + whole(latency), caller, Some((index, at)))));
            let gap = -(1.0 - unit(draw())).ln() * second / self.rate;
            events.push(Reverse((at + whole(gap), caller, None)));
        }
        10.0 * mine / all
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a minute")]
fn float(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds")]
fn whole(nanos: f64) -> u64 {
    nanos as u64
}

fn unit(draw: u64) -> f64 {
    float(draw >> 11) / float(1 << 53)
}

fn draws(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn first(odd: f64) -> [f64; 10] {
    std::array::from_fn(|i| if i == 0 { odd } else { 10.0 })
}

const RATES: [f64; 4] = [100.0, 500.0, 2_000.0, 5_000.0];

#[track_caller]
fn check_share(odd: f64, fails: bool, window: (f64, f64), want: std::ops::Range<f64>) {
    for (seed, rate) in (1..).zip(RATES) {
        let fails = std::array::from_fn(|i| fails && i == 0);
        let simulation = Simulation { latency: first(odd), fails, rate, kind: "peak_ewma" };
        let share = simulation.share(seed, window.0, window.1);
        assert!(want.contains(&share), "{share:.3} of a fair share at {rate} calls a second");
    }
}

#[test]
fn an_instance_that_fails_fast_attracts_no_traffic() {
    check_share(1.0, true, (0.0, 2.0), 0.0..0.1);
    check_share(1.0, true, (2.0, 6.0), 0.0..0.01);
}

#[test]
fn an_instance_ten_times_slower_loses_nearly_all() {
    check_share(100.0, false, (0.0, 2.0), 0.0..0.1);
    check_share(100.0, false, (2.0, 6.0), 0.0..0.1);
}

#[test]
fn an_instance_twice_as_slow_keeps_a_part() {
    check_share(20.0, false, (2.0, 6.0), 0.15..0.6);
}

#[test]
fn equal_instances_share_equally() {
    check_share(10.0, false, (0.0, 6.0), 0.9..1.1);
}

/// Why the failure bias exists: by calls in flight alone, who fails fast is the least busy.
#[test]
fn least_request_would_send_the_most_to_who_fails_fastest() {
    let fails = std::array::from_fn(|i| i == 0);
    let least = Simulation { latency: first(1.0), fails, rate: 2_000.0, kind: "least_request" };
    let share = least.share(1, 0.0, 2.0);
    assert!(share > 1.5, "{share:.3} of a fair share");
}

proptest! {
    /// Whatever arrives, in whatever order of time: a cost is a number, and not negative.
    #[test]
    fn a_cost_is_always_a_number(
        steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 0..20),
        words in any::<[u64; 3]>(),
        in_flight in any::<u32>(),
    ) {
        for start in [Estimate::default(), Estimate::from_words(words)] {
            let mut estimate = start;
            for &(at, sample, hint) in &steps {
                let (now, sample) = (Instant::from_nanos(at), Duration::from_nanos(sample));
                estimate = if hint {
                    estimate.retry_after(now, sample)
                } else {
                    estimate.observe(now, sample)
                };
                for now in [now, Instant::ZERO, Instant::MAX] {
                    let cost = estimate.cost(now, in_flight);
                    prop_assert!(cost >= 0.0 && cost.is_finite(), "{cost} of {estimate:?}");
                }
                prop_assert_eq!(Estimate::from_words(estimate.to_words()), estimate);
            }
        }
    }
}
