use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;

/// Plays windows of ten samples each to a limit and compares the limit after the last one. A
/// window is `in flight:milliseconds`, with `!` if a call was dropped.
#[track_caller]
fn check(policy: AdaptivePolicy, script: &str, want: u32) {
    let mut now = Instant::ZERO;
    let mut limit = Adaptive::new(policy, now);
    for window in script.split_whitespace() {
        let (in_flight, rest) = window.split_once(':').unwrap();
        let in_flight = in_flight.parse().unwrap();
        let latency = Duration::from_millis(rest.trim_end_matches('!').parse().unwrap());
        if rest.ends_with('!') {
            limit.record(now, now, in_flight, Ended::Dropped, Duration::ZERO);
        }
        for _ in 0..10 {
            limit.record(now, now, in_flight, Ended::Success, latency);
        }
        now = now.plus(Duration::from_secs(1));
        limit.poll(now);
    }
    assert_eq!(limit.limit(), want, "{script}: {limit:?}");
}

fn of(algorithm: Algorithm, floor: u32, initial: u32, ceiling: u32) -> AdaptivePolicy {
    AdaptivePolicy { algorithm, floor, ceiling, initial, ..AdaptivePolicy::default() }
}

#[test]
fn worked_cases_of_the_gradient() {
    let gradient = of(Algorithm::Gradient, 5, 100, 1_000);
    // The first window finds the baseline; with 40 of 100 in flight it moves nothing.
    check(gradient, "40:10", 100);
    check(gradient, "40:10 80:12", 102);
    check(gradient, "40:10 80:20", 95);
    check(gradient, "40:10 80:30", 90);
    check(gradient, "40:10 40:12", 100);
    check(gradient, "40:10 80:12!", 90);
    check(gradient, "40:10 80:1000", 90);
}

#[test]
fn worked_cases_of_vegas() {
    let bounds = VegasBounds { alpha: Some(3), beta: Some(6), ..VegasBounds::default() };
    let vegas = AdaptivePolicy { vegas: bounds, ..of(Algorithm::Vegas, 1, 10, 20) };
    check(vegas, "10:10", 10);
    check(vegas, "10:10 11:10", 16);
    check(vegas, "10:10 11:50", 9);
    check(vegas, "10:10 14:14", 10);
    check(of(Algorithm::Vegas, 5, 10_000, 20_000), "9000:10000 9000:10000", 10_024);
    let halving = |smoothing| {
        let vegas = VegasBounds { decrease: Decrease::Halve, smoothing, ..VegasBounds::default() };
        AdaptivePolicy { vegas, ..of(Algorithm::Vegas, 5, 100, 1_000) }
    };
    check(halving(0.5), "100:10!", 75);
    check(halving(0.5), "100:10! 100:10!", 56);
    check(halving(1.0), "100:10!", 50);
    check(halving(1.0), "100:10! 100:10!", 25);
    check(of(Algorithm::Vegas, 5, 100, 1_000), "100:10!", 98);
}

#[test]
fn worked_cases_of_aimd() {
    check(of(Algorithm::Aimd, 5, 20, 1_000), "10:10", 21);
    check(of(Algorithm::Aimd, 5, 20, 1_000), "9:10", 20);
    check(of(Algorithm::Aimd, 5, 30, 1_000), "30:10!", 27);
    check(of(Algorithm::Aimd, 5, 21, 21), "21:10", 21);
    let timeout = Some(Duration::from_millis(50));
    let timed = AdaptivePolicy { timeout, ..of(Algorithm::Aimd, 5, 30, 1_000) };
    check(timed, "30:50", 31);
    check(timed, "30:51", 27);
    check(of(Algorithm::Aimd, 5, 5, 1_000), "5:10! 5:10!", 5);
}

#[test]
fn a_window_takes_its_time_and_ten_samples_of_calls_begun_under_this_limit() {
    let second = |n| Instant::ZERO.plus(Duration::from_secs(n));
    let mut limit = Adaptive::new(of(Algorithm::Aimd, 5, 20, 1_000), second(0));
    let mut tell =
        |now, started| limit.record(now, started, 20, Ended::Success, Duration::from_millis(5));
    for _ in 0..9 {
        assert_eq!(tell(second(3), second(0)), None, "nine are not enough");
    }
    assert_eq!(tell(second(3), second(0)), Some(21));
    for _ in 0..20 {
        assert_eq!(tell(second(5), second(2)), None, "begun under the old limit");
    }
    for _ in 0..9 {
        assert_eq!(tell(second(5), second(3)), None);
    }
    assert_eq!(tell(second(5), second(3)), Some(22));
    assert_eq!(limit.next_wake(), None);
}

#[test]
fn the_baseline_falls_at_once_and_rises_by_a_twentieth_each_half_minute() {
    let mut baseline = Baseline::new(Instant::ZERO);
    let mut at = |second, median| {
        baseline.observe(Instant::ZERO.plus(Duration::from_secs(second)), median);
        baseline.get().unwrap()
    };
    assert_eq!(at(0, 1_000), 1_000);
    assert_eq!(at(1, 800), 800);
    assert_eq!(at(299, 5_000), 800, "the low one is still remembered");
    assert_eq!(at(300, 5_000), 840);
    assert_eq!(at(329, 5_000), 840);
    assert_eq!(at(330, 5_000), 882);
    assert_eq!(at(331, 870), 870);
    assert_eq!(at(100_000, 5_000), 870, "nothing was seen meanwhile");
}

#[test]
fn the_median_is_exact_while_samples_are_few_and_close_when_many() {
    let mut latencies = Latencies::new();
    assert_eq!(latencies.median(), None);
    for nanos in (1..=501).rev() {
        latencies.add(nanos);
    }
    assert_eq!(latencies.median(), Some(251));
    latencies.clear();
    for nanos in 0..1_000_000 {
        latencies.add(nanos);
    }
    let median = latencies.median().unwrap();
    assert!((470_000..530_000).contains(&median), "{median}");
    assert!(latencies.kept.len() <= LATENCIES_KEPT);
}

#[test]
fn a_policy_refuses_what_makes_no_sense() {
    let read = |text: &str| AdaptivePolicy::try_from(toml::from_str::<RawAdaptive>(text).unwrap());
    let cases = [
        ("floor = 0", "floor: must be 1 to 1000000, found 0"),
        ("floor = 9\nceiling = 8", "ceiling: must be 9 to 1000000, found 8"),
        ("initial = 4", "initial: must be 5 to 1000, found 4"),
        ("tolerance = 0.9", "tolerance: must be 1 to 10, found 0.9"),
        ("sample_seconds = 0", "sample_seconds: must be 0.01 to 60 seconds, found 0"),
    ];
    for (text, want) in cases {
        assert_eq!(read(text).expect_err(text).to_string(), want);
    }
    assert_eq!(read("floor = 30").unwrap().initial, 30);
}

/// A service with `workers` that each take a random time around `mean` for a call, in front of it
/// a queue without end, and an adaptive limit in front of that.
struct Model {
    limit: Adaptive,
    draws: u64,
    now: Instant,
    mean: f64,
    free: u32,
    queue: VecDeque<Call>,
    /// Calls being worked on, by the time they will be done.
    busy: BinaryHeap<Reverse<(Instant, Call)>>,
    in_flight: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    started: Instant,
    in_flight: u32,
}

const WORKERS: u32 = 50;
const MEAN: f64 = 0.02;

impl Model {
    fn new(policy: AdaptivePolicy, seed: u64) -> Self {
        Self {
            limit: Adaptive::new(policy, Instant::ZERO),
            draws: seed,
            now: Instant::ZERO,
            mean: MEAN,
            free: WORKERS,
            queue: VecDeque::new(),
            busy: BinaryHeap::new(),
            in_flight: 0,
        }
    }

    /// Calls a second when every worker is busy.
    fn capacity(&self) -> f64 {
        f64::from(WORKERS) / self.mean
    }

    /// Runs for `seconds` at `rate` calls a second; returns calls answered in time, per second.
    fn run(&mut self, seconds: u32, rate: f64) -> f64 {
        let end = self.now.plus(Duration::from_secs(u64::from(seconds)));
        let (mut good, mut arrival) = (0_u32, self.now.plus(self.gap(1.0 / rate)));
        while self.now < end {
            let done = self.busy.peek().map_or(Instant::MAX, |Reverse((at, _))| *at);
            if done <= arrival {
                good += u32::from(self.finish());
                continue;
            }
            self.now = arrival;
            arrival = self.now.plus(self.gap(1.0 / rate));
            if self.in_flight < self.limit.limit() {
                self.in_flight += 1;
                self.queue.push_back(Call { started: self.now, in_flight: self.in_flight });
                self.work();
            }
        }
        f64::from(good) / f64::from(seconds)
    }

    fn finish(&mut self) -> bool {
        let Some(Reverse((at, call))) = self.busy.pop() else { return false };
        self.now = at;
        self.free += 1;
        self.in_flight -= 1;
        let latency = at.since(call.started);
        let in_time = latency <= Duration::from_millis(500);
        let ended = if in_time { Ended::Success } else { Ended::Timeout };
        self.limit.record(at, call.started, call.in_flight, ended, latency);
        self.work();
        in_time
    }

    fn work(&mut self) {
        while self.free > 0
            && let Some(call) = self.queue.pop_front()
        {
            self.free -= 1;
            // A spread of a tenth: the law takes the least of many medians for the truth, so with
            // a wide spread "half slower" would lie beyond its tolerance of one half.
            let span = Duration::from_secs_f64(self.mean * (0.9 + 0.2 * self.unit()));
            self.busy.push(Reverse((self.now.plus(span), call)));
        }
    }

    /// An exponentially distributed span.
    fn gap(&mut self, mean: f64) -> Duration {
        Duration::from_secs_f64(-self.unit().ln() * mean)
    }

    /// A draw in (0, 1], by xorshift.
    fn unit(&mut self) -> f64 {
        self.draws ^= self.draws << 13;
        self.draws ^= self.draws >> 7;
        self.draws ^= self.draws << 17;
        let high = u32::try_from(self.draws >> 32).unwrap();
        (f64::from(high) + 1.0) / (f64::from(u32::MAX) + 1.0)
    }
}

/// Plays a bad day to a limit: the service becomes 10 to 50 percent slower, is overloaded threefold
/// for a minute, recovers. It must keep answering nine tenths of what it can.
#[track_caller]
fn survives(policy: AdaptivePolicy, seed: u64, slower: &[f64]) {
    let mut model = Model::new(policy, seed);
    model.run(60, 0.7 * model.capacity());
    for slower in slower {
        model.mean = MEAN * slower;
        model.run(20, 1.2 * model.capacity());
        let share = model.run(40, 1.2 * model.capacity()) / model.capacity();
        assert!(share >= 0.9, "seed {seed}, {slower}: {share}, limit {}", model.limit.limit());
    }
    let share = model.run(60, 3.0 * model.capacity()) / model.capacity();
    assert!(share >= 0.9, "seed {seed}, overload: {share}, limit {}", model.limit.limit());
    assert!(model.limit.limit() > 2 * policy.floor, "collapsed: {}", model.limit.limit());
    assert!(model.limit.limit() < 6 * WORKERS, "no limit any more: {}", model.limit.limit());
    model.run(10, 0.9 * model.capacity());
    let share = model.run(30, 0.9 * model.capacity()) / model.capacity();
    assert!(share >= 0.85, "seed {seed}, recovery: {share} of 0.9, limit {}", model.limit.limit());
}

#[test]
fn a_bad_day_in_a_queue_model() {
    let slower = [1.1, 1.3, 1.5, 1.0];
    let timeout = Some(Duration::from_millis(60));
    for seed in 1..=3 {
        survives(AdaptivePolicy::default(), seed, &slower);
        survives(AdaptivePolicy { timeout, ..of(Algorithm::Aimd, 5, 20, 1_000) }, seed, &slower);
        // A slower peer looks to `vegas` like a queue, whose length it bounds in calls.
        survives(of(Algorithm::Vegas, 5, 20, 1_000), seed, &[1.0]);
    }
}

#[test]
fn ordinary_load_does_not_make_the_limit_drift() {
    let mut model = Model::new(AdaptivePolicy::default(), 9);
    model.run(120, 0.8 * model.capacity());
    let early = model.limit.limit();
    let share = model.run(1_200, 0.8 * model.capacity()) / model.capacity();
    let late = model.limit.limit();
    assert!(share > 0.78, "{share}");
    assert!(early.abs_diff(late) <= early / 5, "from {early} to {late}");
}

proptest! {
    /// Whatever comes, the limit stays within its bounds and a window changes it by no more than
    /// its law allows.
    #[test]
    fn the_limit_stays_within_its_bounds(
        algorithm in prop_oneof![
            Just(Algorithm::Gradient), Just(Algorithm::Vegas), Just(Algorithm::Aimd)
        ],
        samples in prop::collection::vec((0u64..400, 0u64..3_000, 0u32..80, 0u8..12), 1..400),
    ) {
        let mut limit = Adaptive::new(of(algorithm, 5, 20, 40), Instant::ZERO);
        let mut now = Instant::ZERO;
        for (gap, latency, in_flight, how) in samples {
            now = now.plus(Duration::from_millis(gap));
            let ended = match how {
                0 => Ended::Timeout,
                1 => Ended::Dropped,
                _ => Ended::Success,
            };
            let before = limit.limit();
            let latency = Duration::from_millis(latency);
            let told = limit.record(now, now, in_flight, ended, latency);
            prop_assert_eq!(told, (limit.limit() != before).then(|| limit.limit()));
            prop_assert!((5..=40).contains(&limit.limit()));
            prop_assert!(limit.limit() * 10 >= before * 9 - 10);
        }
    }
}
