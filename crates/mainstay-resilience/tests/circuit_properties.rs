//! What must hold of circuits and windows whatever happens to them.

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{Circuit, CircuitPolicy, Mode, Permit, RawCircuit, State};
use mainstay_resilience::window::{CountWindow, Sample, Tally, TimeWindow};
use proptest::prelude::*;

const SLOW: Duration = Duration::from_millis(40);

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Op {
    Ask,
    Report(usize, Outcome, u64),
    Cancel(usize),
    Advance(u64),
    Poll,
    PassOver,
    Mode(Mode),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Success),
        3 => Just(Outcome::Failure),
        2 => Just(Outcome::RequestTimeout),
        1 => Just(Outcome::ConnectTimeout),
        1 => Just(Outcome::Refused),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        6 => Just(Mode::Auto),
        1 => Just(Mode::ForcedOpen),
        1 => Just(Mode::ForcedClosed),
        1 => Just(Mode::Disabled),
        1 => Just(Mode::Observe),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => Just(Op::Ask),
        12 => (0usize..4, outcome(), 0u64..80).prop_map(|(i, how, ms)| Op::Report(i, how, ms)),
        1 => (0usize..4).prop_map(Op::Cancel),
        6 => (0u64..1_500).prop_map(Op::Advance),
        1 => (1_000u64..100_000).prop_map(Op::Advance),
        2 => Just(Op::Poll),
        1 => Just(Op::PassOver),
        1 => mode().prop_map(Op::Mode),
    ]
}

/// Policies with small numbers, so that short scripts meet every condition.
fn policy() -> impl Strategy<Value = CircuitPolicy> {
    (
        (any::<bool>(), 1u32..8, 0u32..4, 0u32..4, 0u32..6),
        (1u32..5, any::<bool>(), any::<bool>(), 0usize..3, 0u32..3),
    )
        .prop_map(
            |((count, min, run, unavailable, failures), (probes, all, above, ramp, k))| {
                let text = format!(
                    "window = \"{}\"\nwindow_calls = 20\nwindow_seconds = 5\nsub_windows = 5
                min_calls = {min}\nconsecutive_failures = {run}\nfailures = {failures}
                unavailable_calls = {unavailable}\nslow_call_seconds = 0.04
                sub_window_failures = 2\nsub_window_policy = \"{}\"\nsub_window_k = {}
                probes = {probes}\nprobe_rule = \"{}\"\ncompare = \"{}\"
                probe_lease_seconds = 2\nhalf_open_max_seconds = 6\ncooldown_max_seconds = 20
                ramp_percent = {}\ncooldown_jitter_percent = 10",
                    if count { "count" } else { "time" },
                    if k == 0 { "off" } else { "k_of_n" },
                    k.max(1),
                    if all { "all" } else { "rate" },
                    if above { "above" } else { "at_least" },
                    ["[]", "[10, 25, 50]", "[50]"][ramp],
                );
                let raw: RawCircuit = toml::from_str(&text).expect("a table");
                CircuitPolicy::try_from(raw).expect("within its ranges")
            },
        )
}

/// A call that has not come back.
struct Out {
    permit: Permit,
    asked: Instant,
    /// For a probe, the number of changes there had been when it was let through.
    probe: Option<u64>,
}

/// A circuit and the calls that are out.
struct Bench {
    circuit: Circuit,
    now: Instant,
    out: Vec<Out>,
}

impl Bench {
    fn new(policy: CircuitPolicy) -> Self {
        let circuit = Circuit::new(policy, 3, Instant::ZERO);
        Self { circuit, now: Instant::ZERO, out: Vec::new() }
    }

    fn play(&mut self, op: Op) {
        let (mut state, seen) = (self.circuit.state(), self.circuit.changes());
        match op {
            Op::Ask => self.ask(),
            Op::Report(i, outcome, ms) if i < self.out.len() => {
                let Out { permit, .. } = self.out.remove(i);
                self.circuit.record(self.now, permit, outcome, Duration::from_millis(ms));
            }
            Op::Cancel(i) if i < self.out.len() => {
                let Out { permit, .. } = self.out.remove(i);
                self.circuit.cancel(self.now, permit);
            }
            Op::Report(..) | Op::Cancel(_) => (),
            Op::Advance(ms) => self.now = self.now.plus(Duration::from_millis(ms)),
            Op::Poll => drop(self.circuit.poll(self.now)),
            Op::PassOver => self.circuit.pass_over(self.now),
            Op::Mode(mode) => drop(self.circuit.set_mode(self.now, mode)),
        }
        let new: Vec<_> = self.circuit.changes_since(seen).collect();
        assert_eq!(new.len() as u64, self.circuit.changes() - seen, "a change was forgotten");
        for change in &new {
            assert_eq!(change.from, state, "a change is missing: {new:?}");
            state = change.to;
        }
        assert_eq!(state, self.circuit.state());
    }

    fn ask(&mut self) {
        let said = self.circuit.admits(self.now);
        let answer = self.circuit.admit(self.now);
        assert_eq!(said, answer.is_ok(), "admits() and admit() differ");
        let probing = self.circuit.state() == State::HalfOpen && self.circuit.mode() == Mode::Auto;
        let probe = probing.then(|| self.circuit.changes());
        if let Ok(permit) = answer {
            self.out.push(Out { permit, asked: self.now, probe });
        }
    }

    /// Probes of the present half-open state that are out and whose lease has not ended.
    fn probes_out(&self, lease: Duration) -> u64 {
        let changes = self.circuit.changes();
        let is_probe = |out: &&Out| out.probe == Some(changes) && self.now < out.asked.plus(lease);
        self.out.iter().filter(is_probe).count() as u64
    }
}

fn sum<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Tally {
    tallies.into_iter().fold(Tally::default(), |sum, tally| Tally {
        calls: sum.calls + tally.calls,
        failures: sum.failures + tally.failures,
        slow: sum.slow + tally.slow,
        timeouts: sum.timeouts + tally.timeouts,
        refusals: sum.refusals + tally.refusals,
        latency_nanos: sum.latency_nanos + tally.latency_nanos,
    })
}

/// A tally from scratch.
fn count<'a>(results: impl IntoIterator<Item = &'a (Outcome, Duration)>) -> Tally {
    let mut tally = Tally::default();
    for (outcome, latency) in results {
        let timeouts = [Outcome::RequestTimeout, Outcome::ConnectTimeout];
        tally.calls += 1;
        tally.failures += u64::from(*outcome != Outcome::Success);
        tally.slow += u64::from(*latency >= SLOW);
        tally.timeouts += u64::from(timeouts.contains(outcome));
        tally.refusals += u64::from(*outcome == Outcome::Refused);
        tally.latency_nanos += latency.as_nanos();
    }
    tally
}

fn sample(outcome: Outcome, latency: Duration) -> Sample {
    Sample::new(outcome, latency, 40_000_000)
}

proptest! {
    /// Whatever happens, the view agrees with itself and no more probes are out than stated.
    #[test]
    fn views_agree_and_probes_are_never_more_than_stated(
        policy in policy(),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let (probes, lease) = (u64::from(policy.probes), policy.probe_lease);
        let mut bench = Bench::new(policy);
        for op in ops {
            bench.play(op);
            let view = bench.circuit.view(bench.now);
            prop_assert_eq!(view.total, sum(view.window.iter().map(|sub| &sub.tally)));
            prop_assert_eq!(view.state, bench.circuit.state());
            prop_assert_eq!(view.state == State::Ramp, view.ramp_percent.is_some());
            prop_assert!(view.since <= bench.now);
            let places = u64::from(view.probes_free + view.probes_in_flight);
            if view.state == State::HalfOpen {
                prop_assert_eq!(places + view.probes.calls, probes);
                prop_assert!(bench.probes_out(lease) + view.probes.calls <= probes);
            } else {
                prop_assert_eq!(places, 0);
            }
        }
    }

    /// At the moment of the change exactly so many calls pass as there are probes, however many
    /// ask and whatever became of earlier calls.
    #[test]
    fn half_open_lets_exactly_its_probes_through(
        policy in policy(),
        ops in prop::collection::vec(op(), 1..80),
        ask in 1usize..50,
    ) {
        let probes = policy.probes as usize;
        let mut bench = Bench::new(policy);
        for op in ops {
            bench.play(op);
        }
        bench.play(Op::Mode(Mode::ForcedOpen));
        bench.play(Op::Mode(Mode::Auto));
        bench.out.clear();
        for _ in 0..ask {
            bench.play(Op::Ask);
        }
        prop_assert_eq!(bench.out.len(), ask.min(probes));
    }

    /// From any state, silence and then nothing but success reaches closed within the longest
    /// cooldown, half-open time and ramp; no lost permit can prevent it.
    #[test]
    fn silence_and_then_success_closes_in_bounded_time(
        policy in policy(),
        ops in prop::collection::vec(op(), 1..150),
        silence in 5_000u64..100_000,
    ) {
        let ramp = policy.ramp_step * u32::try_from(policy.ramp.len()).unwrap();
        let cooldown = policy.cooldown_max.mul_f64(1.1);
        let bound = cooldown + policy.half_open_max + ramp + Duration::from_secs(2);
        let mut bench = Bench::new(policy);
        for op in ops {
            bench.play(op);
        }
        bench.play(Op::Mode(Mode::Auto));
        bench.play(Op::Advance(silence));
        let start = bench.now;
        bench.play(Op::Poll);
        while bench.circuit.state() != State::Closed {
            prop_assert!(bench.now.since(start) <= bound, "stuck: {:?}", bench.circuit);
            if let Ok(permit) = bench.circuit.admit(bench.now) {
                bench.circuit.record(bench.now, permit, Outcome::Success, Duration::ZERO);
            }
            bench.play(Op::Advance(50));
        }
    }

    /// How often anybody looks makes no difference: a circuit polled every 10 ms makes the same
    /// changes at the same moments as one that is never polled.
    #[test]
    fn looking_more_often_changes_nothing(
        policy in policy(),
        ops in prop::collection::vec(op(), 1..100),
    ) {
        let (mut seldom, mut often) = (Bench::new(policy.clone()), Bench::new(policy));
        for op in ops.into_iter().filter(|op| !matches!(op, Op::Poll)) {
            if let Op::Advance(ms) = op {
                for step in 0..ms / 10 {
                    often.circuit.poll(often.now.plus(Duration::from_millis(step * 10)));
                }
            }
            seldom.play(op);
            often.play(op);
            let told = [seldom.circuit.changes(), often.circuit.changes()];
            if told[0] == told[1] {
                let (a, b) = (&seldom.circuit, &often.circuit);
                prop_assert_eq!(a.last_transition(), b.last_transition());
            }
            prop_assert_eq!(seldom.circuit.admits(seldom.now), often.circuit.admits(often.now));
        }
        prop_assert_eq!(seldom.circuit.view(seldom.now), often.circuit.view(often.now));
        prop_assert_eq!(seldom.circuit.last_transition(), often.circuit.last_transition());
    }

    /// Totals of a circuit that cannot open equal a count of everything that came, from scratch.
    #[test]
    fn totals_of_a_circuit_equal_a_count_from_scratch(
        calls in prop::collection::vec((0u64..900, outcome(), 0u64..80), 1..100),
    ) {
        let slow_call_seconds = Some(SLOW.as_secs_f64());
        let raw = RawCircuit { slow_call_seconds, ..RawCircuit::default() };
        let mut circuit = Circuit::new(CircuitPolicy::try_from(raw).unwrap(), 0, Instant::ZERO);
        circuit.set_mode(Instant::ZERO, Mode::ForcedClosed);
        let (mut now, mut log) = (Instant::ZERO, Vec::new());
        for (gap, outcome, ms) in calls {
            now = now.plus(Duration::from_millis(gap));
            let latency = Duration::from_millis(ms);
            let permit = circuit.admit(now).unwrap();
            circuit.record(now, permit, outcome, latency);
            log.push((now, (outcome, latency)));
            let second = |at: Instant| at.as_nanos() / 1_000_000_000;
            let covered = log.iter().filter(|(at, _)| second(now) < second(*at) + 10);
            let want = count(covered.map(|(_, result)| result));
            prop_assert_eq!(circuit.view(now).total, want);
        }
    }

    /// A time window equals a log of all results, cut at whole sub-windows.
    #[test]
    fn a_time_window_equals_a_log(
        start in 0u64..5_000,
        parts in 1u64..12,
        trip in 0u64..4,
        results in prop::collection::vec((0u64..3_000, outcome(), 0u64..80), 1..200),
    ) {
        let (width, start) = (700, Instant::ZERO.plus(Duration::from_millis(start)));
        let places = usize::try_from(parts).unwrap();
        let mut window = TimeWindow::new(Duration::from_millis(width * parts), places, start);
        window.trip_at(trip);
        let (mut now, mut log) = (0, Vec::new());
        for (gap, outcome, ms) in results {
            now += gap;
            window.advance(start.plus(Duration::from_millis(now)));
            window.add(sample(outcome, Duration::from_millis(ms)));
            let newest = now / width;
            log.push((newest, (outcome, Duration::from_millis(ms))));
            let oldest = (newest + 1).saturating_sub(parts);
            let of = |wanted: u64| count(log.iter().filter(|l| l.0 == wanted).map(|l| &l.1));
            let want: Vec<_> = (oldest..=newest).map(of).collect();
            let got: Vec<_> = window.sub_windows().map(|sub| sub.tally).collect();
            prop_assert_eq!(&got[got.len() - want.len()..], &want[..]);
            prop_assert_eq!(*window.total(), sum(&want));
            let tripped = want.iter().filter(|t| trip > 0 && t.failures >= trip).count();
            prop_assert_eq!(window.tripped() as usize, tripped);
        }
    }

    /// A count window equals the end of a log.
    #[test]
    fn a_count_window_equals_the_end_of_a_log(
        group in 1usize..6,
        parts in 1usize..6,
        trip in 0u64..4,
        results in prop::collection::vec((outcome(), 0u64..80), 1..120),
    ) {
        let mut window = CountWindow::new(group * parts, parts);
        window.trip_at(trip);
        let mut log = Vec::new();
        for (outcome, ms) in results {
            let now = Instant::from_nanos(log.len() as u64);
            window.add(now, sample(outcome, Duration::from_millis(ms)));
            log.push((outcome, Duration::from_millis(ms)));
            let first = log.len().saturating_sub(group * parts);
            prop_assert_eq!(*window.total(), count(&log[first..]));
            let of = |k: usize| {
                let (from, to) = ((k * group).max(first), ((k + 1) * group).min(log.len()));
                count(&log[from..to])
            };
            let want: Vec<_> = (first / group..=(log.len() - 1) / group).map(of).collect();
            let got: Vec<_> = window.sub_windows().map(|sub| sub.tally).collect();
            prop_assert_eq!(&got, &want);
            let tripped = want.iter().filter(|t| trip > 0 && t.failures >= trip).count();
            prop_assert_eq!(window.tripped() as usize, tripped);
        }
    }
}
