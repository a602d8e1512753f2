use std::time::Duration;

use mainstay_core::{Clock as _, Instant, ManualClock};

use super::*;

/// Policy A of the worked examples: no ramp, no run, no growth of the cooldown.
const A: &str = "failure_rate_percent = 50
    slow_call_seconds = 4
    window_seconds = 20
    sub_windows = 20
    min_calls = 5
    probes = 4
    half_open_max_seconds = 1";

/// What the worked examples have off unless they say otherwise.
const PLAIN: &str = "unavailable_calls = 0
    ramp_percent = []
    consecutive_failures = 0
    cooldown_multiplier = 1";

/// A circuit, a clock, and the permits of calls that have not come back.
struct Bench {
    circuit: Circuit,
    clock: ManualClock,
    out: Vec<Permit>,
    seen: u64,
}

/// Plays `script` to a circuit with `policy` (lines of its table, over [`PLAIN`]).
///
/// | word | does |
/// |---|---|
/// | `@3.5` `+2` | it is second 3.5; two seconds go by |
/// | `o` `f` `t` `r` | a call passes and at once succeeds, fails, times out, is refused by the peer |
/// | `5s` `5sf` | a call passes, takes five seconds by its own account, succeeds or fails |
/// | `ask` `-` | a call passes and stays out; a call is refused |
/// | `=o` `=f` `cancel` | the oldest call that is out succeeds, fails, gives its permit back |
/// | `poll` | time alone |
/// | `closed` `open` `half-open` `ramp` | the state is this |
/// | `mode:M` | somebody sets the mode |
/// | `why:R` `saw:60.0` | reason and figure of the last transition |
/// | `rate:40.0` `rate:?` `slow:75.0` `calls:0` `until:12.5` `changes:1` `refused:1` | the view |
///
/// A word may be repeated: `f*3`. Before each call the circuit is asked whether it admits it, and
/// must say what it then does.
#[track_caller]
fn check(policy: &str, script: &str) {
    check_written(&over(PLAIN, policy), script);
}

#[track_caller]
fn check_written(policy: &str, script: &str) {
    let mut bench = Bench::new(policy);
    for (i, word) in script.split_whitespace().enumerate() {
        let (word, times) = word.split_once('*').unwrap_or((word, "1"));
        for _ in 0..times.parse::<u32>().unwrap() {
            if let Err(problem) = bench.play(word) {
                panic!("word {i} `{word}`: {problem}\nof {script}\n{:#?}", bench.circuit);
            }
        }
    }
}

/// The lines of `base`, with those of `lines` in place of the ones with the same key.
fn over(base: &str, lines: &str) -> String {
    let key = |line: &str| line.split('=').next().unwrap_or("").trim().to_owned();
    let keys: Vec<_> = lines.lines().map(key).collect();
    let kept = base.lines().filter(|line| !keys.contains(&key(line)));
    kept.chain(lines.lines()).collect::<Vec<_>>().join("\n")
}

fn policy(text: &str) -> Result<CircuitPolicy, crate::Invalid> {
    CircuitPolicy::try_from(toml::from_str::<RawCircuit>(text).unwrap())
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().unwrap())
}

impl Bench {
    fn new(text: &str) -> Self {
        let clock = ManualClock::default();
        let circuit = Circuit::new(policy(text).unwrap(), 1, clock.now());
        Self { circuit, clock, out: Vec::new(), seen: 0 }
    }

    fn play(&mut self, word: &str) -> Result<(), String> {
        let now = self.clock.now();
        match word.split_once(':') {
            Some((key, value)) => return self.compare(key, value),
            None if self.advance(word) => return Ok(()),
            None => (),
        }
        let quick = Duration::from_millis(1);
        match word {
            "o" => self.call(Outcome::Success, quick)?,
            "f" => self.call(Outcome::Failure, quick)?,
            "t" => self.call(Outcome::RequestTimeout, quick)?,
            "r" => self.call(Outcome::Refused, quick)?,
            "ask" => {
                let permit = self.ask(now)?.map_err(|refused| format!("{refused:?}"))?;
                self.out.push(permit);
            }
            "-" => drop(self.ask(now)?.err().ok_or("let through")?),
            "=o" | "=f" => {
                let permit = self.out.remove(0);
                let outcome = if word == "=o" { Outcome::Success } else { Outcome::Failure };
                self.circuit.record(now, permit, outcome, quick);
            }
            "cancel" => {
                let permit = self.out.remove(0);
                self.circuit.cancel(now, permit);
            }
            "poll" => drop(self.circuit.poll(now)),
            "closed" | "open" | "half-open" | "ramp" => {
                let state = self.circuit.state();
                if state.as_str() != word {
                    return Err(format!("is {state}"));
                }
            }
            _ => match word.strip_suffix("sf") {
                Some(span) => self.call(Outcome::Failure, seconds(span))?,
                None => self.call(Outcome::Success, seconds(word.trim_end_matches('s')))?,
            },
        }
        Ok(())
    }

    fn advance(&self, word: &str) -> bool {
        if let Some(at) = word.strip_prefix('@') {
            self.clock.set(Instant::ZERO.plus(seconds(at)));
        } else if let Some(by) = word.strip_prefix('+') {
            self.clock.advance(seconds(by));
        } else {
            return false;
        }
        true
    }

    fn ask(&mut self, now: Instant) -> Result<Result<Permit, Refused>, String> {
        let said = self.circuit.admits(now);
        let answer = self.circuit.admit(now);
        (answer.is_ok() == said).then_some(()).ok_or("admits() said otherwise")?;
        Ok(answer)
    }

    fn call(&mut self, outcome: Outcome, latency: Duration) -> Result<(), String> {
        let now = self.clock.now();
        let permit = self.ask(now)?.map_err(|refused| format!("{refused:?}"))?;
        let before = self.circuit.changes();
        let told = self.circuit.record(now, permit, outcome, latency);
        (told.is_some() == (self.circuit.changes() != before))
            .then_some(())
            .ok_or_else(|| format!("told {told:?}"))
    }

    fn compare(&mut self, key: &str, value: &str) -> Result<(), String> {
        let now = self.clock.now();
        let circuit = &mut self.circuit;
        let percent =
            |rate: Option<f64>| rate.map_or_else(|| "?".to_owned(), |rate| format!("{rate:.1}"));
        let got = match key {
            "mode" => {
                circuit.set_mode(now, value.parse().unwrap());
                return Ok(());
            }
            "why" => circuit.last_transition().unwrap().cause.reason.to_string(),
            "saw" => format!("{:.1}", circuit.last_transition().unwrap().cause.observed),
            "rate" => percent(circuit.view(now).failure_rate_percent),
            "slow" => percent(circuit.view(now).slow_rate_percent),
            "calls" => circuit.view(now).total.calls.to_string(),
            "until" => {
                let until = circuit.view(now).next_change.unwrap();
                until.since(Instant::ZERO).as_secs_f64().to_string()
            }
            "tripped" => {
                let window = circuit.view(now).window;
                window.iter().filter(|sub| sub.tripped).count().to_string()
            }
            "changes" => {
                let new = circuit.changes() - self.seen;
                self.seen = circuit.changes();
                new.to_string()
            }
            "refused" => circuit.view(now).refused_total.to_string(),
            "would-reject" => circuit.view(now).would_reject_total.to_string(),
            "would-trip" => circuit.view(now).would_trip_total.to_string(),
            "ramp" => circuit.view(now).ramp_percent.unwrap().to_string(),
            _ => panic!("no such word: {key}"),
        };
        (got == value).then_some(()).ok_or_else(|| format!("is {got}"))
    }
}

#[test]
fn worked_examples_with_policy_a() {
    // 1
    check(A, "f*3 o closed rate:? o open why:failure_rate saw:60.0 changes:1 - refused:1");
    // 2
    check(A, "o +1 o +1 o +1 f +1 f closed rate:40.0 +1 f open saw:50.0");
    // 3
    check(A, "5s 5sf 0.1s 0.1sf closed 5s open why:slow_rate saw:60.0");
    // 4
    check(A, "f*5 open +3 -*2 +3 ask half-open calls:0");
    let long = format!("{A}\ncooldown_seconds = 7200");
    check(&long, "f*5 open @7199.999999999 - @7200 ask half-open");
    // 5
    let growing = over(A, "probes = 1\ncooldown_multiplier = 1.5");
    check(&growing, "f*5 @5 f open until:12.5 @11 - @12.5 ask half-open");
    // 6
    check(A, "f*5 @5 f f o f open saw:75.0 why:failure_rate");
    check(A, "f*5 @5 f o o o closed why:probes_passed");
    check(A, "f*5 @5 5s*3 o open why:slow_rate saw:75.0");
    // 7
    check(A, "f*5 @5 ask*4 -*2 cancel ask =o*3 cancel f closed");
    // 8
    check(A, "f*5 @5 ask half-open @5.999 poll half-open +0.001 poll open why:probes_silent");
    // 9
    check(A, "mode:forced-open +6 - +3600 poll - open");
    check(A, "mode:disabled f*10 closed calls:0");
    check(A, "mode:observe f*3 o*2 saw:60.0 changes:2 would-trip:1 o*3 would-reject:3 changes:0");
}

#[test]
fn worked_example_10_rules_brought_from_sentinel() {
    let sentinel = "slow_call_seconds = 0.05
        slow_rate_percent = 80
        failure_rate_percent = 0
        window_seconds = 20
        min_calls = 10
        probes = 1";
    let above = format!("{sentinel}\ncompare = \"above\"");
    check(&above, "1s*7 o*3 closed 1s*5 closed 1s open why:slow_rate saw:81.2");
    check(sentinel, "1s*7 o*3 closed 1s*4 closed 1s open saw:80.0");
    check(&above, "1s*10 open @5 1s open @10 o closed");
    // "Above" is strict for the latency itself as well, and nothing is above 100 percent.
    check(&above, "0.05s*10 closed");
    let all = over(&above, "slow_rate_percent = 100");
    check(&all, "0.06s*9 closed 0.06s open");
}

#[test]
fn worked_examples_11_and_13() {
    let eleven = "window_seconds = 25\nmin_calls = 10\nprobes = 1";
    check(eleven, "f*6 o*3 closed f open saw:70.0 +2 - +7 f open +6 o closed");
    let thirteen = "failure_rate_percent = 20\nmin_calls = 1\ncooldown_seconds = 10\nprobes = 1";
    check(thirteen, "o f open +5 - +10 f open +20 o closed o*6 f closed rate:14.3");
    let all = format!("{}\nprobe_rule = \"all\"", over(thirteen, "probes = 3"));
    check(&all, "f open +10 o o half-open o closed");
    check(&all, "f open +10 o f open why:probe_failed");
}

#[test]
fn worked_example_12_two_circuits_on_one_call() {
    let of = |cooldown: u32| {
        let lines = format!(
            "slow_call_seconds = 0.05\nmin_calls = 1\nprobes = 1\ncooldown_seconds = {cooldown}"
        );
        Circuit::new(policy(&over(PLAIN, &lines)).unwrap(), 0, Instant::ZERO)
    };
    let mut both = [of(2), of(4)];
    let mut call = |at: u64, latency: u64| {
        let now = Instant::ZERO.plus(Duration::from_secs(at));
        if !both.iter().all(|circuit| circuit.admits(now)) {
            return both.each_ref().map(Circuit::state).map(|state| (false, state));
        }
        let permits = both.each_mut().map(|circuit| circuit.admit(now).unwrap());
        for (circuit, permit) in both.iter_mut().zip(permits) {
            circuit.record(now, permit, Outcome::Success, Duration::from_millis(latency));
        }
        both.each_ref().map(Circuit::state).map(|state| (true, state))
    };
    assert_eq!(call(0, 100), [(true, State::Open); 2]);
    for _ in 0..10 {
        assert_eq!(call(3, 1), [(false, State::Open); 2], "a refusal must not strand a probe");
    }
    for _ in 0..10 {
        assert_eq!(call(6, 1), [(true, State::Closed); 2]);
    }
}

#[test]
fn sub_window_and_unavailable_verdicts() {
    let verdicts = "sub_window_failures = 3
        sub_window_policy = \"k_of_n\"
        sub_window_k = 2
        failure_rate_percent = 0
        unavailable_calls = 3";
    let script = "@0.1 f @0.2 f @0.5 o tripped:0 @0.9 f tripped:1 closed";
    check(verdicts, &format!("{script} @1.2 o @2.1 f @2.3 f closed @2.6 f open why:sub_windows"));
    let any = over(verdicts, "sub_window_policy = \"any\"");
    check(&any, "@0.1 f @0.2 f @0.5 o closed @0.9 f open why:sub_windows saw:1.0");
    // A tripped sub-window leaves with its window.
    check(verdicts, "@0.1 f*3 tripped:1 @9.99 poll tripped:1 @10 tripped:0 f*3 closed");

    check(verdicts, "@3 t @3.4 t @3.8 t closed @3.999 poll closed @4 poll open why:unavailable");
    check(verdicts, "@3 t @3.4 t @3.8 t @4 - open");
    check(verdicts, "@3 t @3.4 t @3.8 t @3.9 o @4 poll @5 poll closed");
    check(verdicts, "@3 t @3.8 t @4 poll @5 poll closed");
    // It opened when the sub-window ended, whenever somebody looks.
    check(verdicts, "@3 t*3 @8 - open until:9 @9 ask half-open");
    check(verdicts, "@3 t*3 @60 ask half-open changes:2");
}

#[test]
fn an_unavailable_transition_carries_its_evidence() {
    let mut bench = Bench::new("");
    for word in "@3.2 t @3.4 t @3.8 t @30".split(' ') {
        bench.play(word).unwrap();
    }
    let change = bench.circuit.poll(bench.clock.now()).expect("it opened by time alone");
    let second = |n| Instant::ZERO.plus(Duration::from_secs(n));
    assert_eq!((change.cause.reason, change.at), (Reason::Unavailable, second(4)));
    let Evidence { start, tally } = change.evidence;
    assert_eq!((start, tally.calls, tally.timeouts), (second(3), 3, 3));
    assert!(change.is_trip() && change.enforced);
}

#[test]
fn a_count_window_judges_its_last_results_and_its_groups() {
    let count = "window = \"count\"\nwindow_calls = 20\nsub_windows = 5\nmin_calls = 20";
    check(count, "o*10 f*9 closed rate:? o closed rate:45.0 f open");
    // The first result has left when the twenty-first comes.
    check(count, "f*9 o*11 rate:45.0 o rate:40.0 +3600 rate:40.0 closed");
    let groups = format!("{count}\nunavailable_calls = 4\nfailure_rate_percent = 0");
    check(&groups, "t*3 closed t open why:unavailable");
    check(&groups, "o t*3 closed t*3 o closed");
    let tripped = format!(
        "{}\nsub_window_failures = 2\nsub_window_policy = \"k_of_n\"",
        over(&groups, "unavailable_calls = 0")
    );
    check(&tripped, "f f o o tripped:1 o*4 f closed f open why:sub_windows");
    check(&tripped, "f f o*18 tripped:1 o tripped:0");
}

#[test]
fn a_run_of_failures_opens_at_once_and_refusals_stand_beside_it() {
    check("consecutive_failures = 5", "f*4 closed f open why:consecutive saw:5.0");
    check("consecutive_failures = 5", "f*4 o f*4 closed");
    check("consecutive_failures = 5", "f*4 r*3 closed f open");
    // Refusals do count in rates, and fail a probe.
    check("min_calls = 4", "o*2 r closed r open why:failure_rate");
    check("min_calls = 4\nprobes = 1", "f*4 open @5 r open");
    // By default instances are judged by runs, services are not.
    check_written("", "f*5 open");
    check_written("scope = \"service\"", "f*19 closed f open why:failure_rate");
}

#[test]
fn the_first_reason_in_order_is_given() {
    let all = "consecutive_failures = 3
        min_calls = 3
        failures = 3
        slow_call_seconds = 1";
    check(all, "2sf*3 open why:consecutive");
    check(&over(all, "consecutive_failures = 0"), "2sf*3 open why:failure_rate");
    let all = over(all, "consecutive_failures = 0\nfailure_rate_percent = 0");
    check(&all, "2sf*3 open why:slow_rate");
    check(&over(&all, "slow_rate_percent = 0"), "2sf*3 open why:failures saw:3.0");
    check(&over(&all, "slow_rate_percent = 0\ncompare = \"above\""), "f*3 closed f open");
}

#[test]
fn a_window_that_went_idle_wants_its_minimum_again() {
    check("min_calls = 4", "f*3 +10 f*3 closed calls:3 f open");
    check("min_calls = 4", "f*2 +86400 calls:0 rate:? f*3 closed");
}

#[test]
fn the_ramp_lets_each_step_s_share_through() {
    let ramp = "ramp_percent = [10, 25, 50]\nmin_calls = 10\nprobes = 1";
    let ten = "o -*9 o -*9 o";
    let quarter = "o -*3 o -*3 o";
    let half = "o - o - o";
    check(
        ramp,
        &format!(
            "f*10 @5 o ramp ramp:10 {ten} @7 ramp:25 {quarter} @9 ramp:50 {half} @11 poll closed"
        ),
    );
    // A step ends at the first success after its time, or after half_open_max_seconds.
    check(ramp, "f*10 @5 o ramp @60 poll ramp:10 o poll ramp:25 @64.9 ramp:25 @122 ramp:50");
    check(ramp, "f*10 @5 o @64.9 poll ramp:10 @65 ramp:25 @125 ramp:50 @185 poll closed");
    // Steps nobody looked at are gone through all the same.
    check(ramp, "f*10 @5 o @184.9 poll ramp @185 poll closed why:ramp_done");
    // A call that came back unused lets another through.
    check(ramp, "f*10 @5 o ask - cancel ask -*7 ask");
}

#[test]
fn any_condition_on_the_ramp_opens_again() {
    let ramp = "ramp_percent = [50, 100]
        min_calls = 10
        probes = 2
        cooldown_multiplier = 1.5";
    check(ramp, "f*10 @5 o*2 ramp calls:0 f - f open why:failure_rate saw:100.0 until:12.5");
    let run = over(ramp, "consecutive_failures = 1");
    check(&run, "f @5 o*2 ramp f open why:consecutive");
    // The exponent begins anew only when the circuit has been closed.
    check(ramp, "f*10 @5 o*2 ramp f - f open @12.5 o*2 o @14.5 o @16.5 poll closed f*8 until:21.5");
}

#[test]
fn a_probe_that_never_reports_gives_its_place_back() {
    let lease = "min_calls = 1\nprobes = 2\nprobe_lease_seconds = 3";
    check(lease, "f open @5 ask*2 - @7.9 - @8 ask*2 - =o*2 half-open =o*2 closed");
    // A late result is nobody's, though its place has not been taken.
    check(lease, "f open @5 ask @8 =f half-open o*2 closed");
    // What has been heard decides when the time is up.
    check(lease, "f open @5 o @65 poll closed");
    check(lease, "f open @5 f @64.9 poll half-open @65 poll open why:failure_rate");
    // Silence is no new opening: the cooldown does not grow.
    let growing = format!("{lease}\ncooldown_multiplier = 2\nhalf_open_max_seconds = 1");
    check(&over(lease, &growing), "f @5 ask @6 poll open until:11 @11 f f open until:21");
}

#[test]
fn exactly_as_many_probes_as_stated_however_many_ask() {
    check("min_calls = 1", "f open @4.999 -*10 @5 ask*5 -*995");
    check("min_calls = 1", "f open @5 ask*5 =o*2 - cancel ask - =o*3 closed");
}

#[test]
fn late_results_say_nothing_new() {
    check("min_calls = 1", "ask*3 =f open =o =f open changes:1 @5 ask*5 half-open");
    check("min_calls = 1\nprobes = 1", "ask f open @5 o closed =f closed calls:0");
}

#[test]
fn modes_say_nothing_twice_and_come_back_by_probes() {
    let one = "min_calls = 1\nprobes = 1";
    check(one, "mode:auto changes:0 mode:forced-open changes:1 mode:forced-open changes:0 -");
    check(one, "mode:forced-open +9 mode:auto open ask half-open - =o closed");
    check(one, "mode:forced-closed f*9 closed calls:9 rate:100.0 mode:auto closed f open");
    check(one, "f open mode:forced-closed o closed mode:auto closed");
    check(one, "f open mode:disabled f*3 closed calls:0 mode:auto closed f open");
    check(one, "ask mode:disabled =f mode:auto closed calls:0");
    // An observing policy follows the same path and refuses nothing.
    let observing = format!("{one}\nmode = \"observe\"");
    check(&observing, "f open o*3 would-reject:3 refused:0 @5 ask half-open o =o closed");
    check(
        &observing,
        "f would-trip:1 mode:forced-open - mode:forced-closed f*3 closed would-trip:1",
    );
}

#[test]
fn a_mode_with_an_end_ends_by_itself() {
    let mut bench = Bench::new("");
    let second = |n| Instant::ZERO.plus(Duration::from_secs(n));
    let set = bench.circuit.set_mode_until(second(1), Mode::ForcedOpen, second(9));
    assert_eq!(
        set.map(|t| (t.from, t.to, t.mode)),
        Some((State::Closed, State::Open, Mode::ForcedOpen))
    );
    assert_eq!(bench.circuit.next_wake(), Some(second(9)));
    let refused = bench.circuit.admit(second(2)).expect_err("forced open");
    assert_eq!((refused.why, refused.retry_after), (Why::ForcedOpen, Duration::from_secs(7)));
    assert!(!bench.circuit.admits(second(8)) && bench.circuit.admits(second(9)));
    let ended = bench.circuit.poll(second(20)).expect("the mode has ended");
    assert_eq!((ended.mode, ended.at), (Mode::Auto, second(9)));
}

#[test]
fn a_refusal_says_why_since_when_and_until_when() {
    let mut bench = Bench::new(&over(PLAIN, A));
    for word in "f*3 o o".replace("f*3", "f f f").split(' ') {
        bench.play(word).unwrap();
    }
    let refused =
        bench.circuit.admit(Instant::ZERO.plus(Duration::from_secs(2))).expect_err("open");
    assert_eq!(refused.why, Why::Open(Reason::FailureRate));
    assert_eq!((refused.observed, refused.threshold), (60.0, 50.0));
    assert_eq!((refused.since.as_secs(), refused.retry_after.as_secs()), (2, 3));
    let told = refused.rejection("default");
    assert_eq!(
        (&*told.observed, &*told.threshold),
        ("60 % of calls failed", "50 % of calls failed")
    );
    assert_eq!(told.clears_when, "probes in 3.0 s");
}

#[test]
fn cooldowns_grow_to_their_cap_and_jitter_stays_within_its_share() {
    let plain = "min_calls = 1\nprobes = 1\ncooldown_multiplier = 2\ncooldown_max_seconds = 12";
    check(plain, "f until:5 @5 f until:15 @15 f until:27 @27 f until:39 @39 o closed f until:44");
    let jittered = policy("cooldown_jitter_percent = 20\nconsecutive_failures = 1").unwrap();
    let mut spans = Vec::new();
    for seed in 0..200 {
        let mut circuit = Circuit::new(jittered.clone(), seed, Instant::ZERO);
        let permit = circuit.admit(Instant::ZERO).unwrap();
        let change = circuit.record(Instant::ZERO, permit, Outcome::Failure, Duration::ZERO);
        spans.push(change.unwrap().until.unwrap().as_nanos());
    }
    let (least, most) = (spans.iter().min().unwrap(), spans.iter().max().unwrap());
    assert!((4_000_000_000..4_200_000_000).contains(least), "{least}");
    assert!((5_800_000_000..=6_000_000_000).contains(most), "{most}");
}

#[test]
fn time_that_goes_back_stands_still_and_a_jump_overflows_nothing() {
    let mut bench = Bench::new("");
    let circuit = &mut bench.circuit;
    let late = Instant::ZERO.plus(Duration::from_secs(100));
    let permit = circuit.admit(late).unwrap();
    circuit.record(Instant::ZERO, permit, Outcome::Failure, Duration::MAX);
    assert_eq!(circuit.view(Instant::ZERO).total.calls, 1);
    for _ in 0..4 {
        let permit = circuit.admit(Instant::MAX).unwrap();
        circuit.record(Instant::MAX, permit, Outcome::Failure, Duration::MAX);
    }
    circuit.poll(Instant::MAX);
    assert!(circuit.view(Instant::MAX).opened_total == 1);
}

#[test]
fn a_new_policy_keeps_what_was_counted() {
    let mut bench = Bench::new("consecutive_failures = 0\nunavailable_calls = 0");
    for word in "@0.5 f @3.5 f @3.6 o".split(' ') {
        bench.play(word).unwrap();
    }
    let now = bench.clock.now();
    let finer =
        "consecutive_failures = 0\nsub_windows = 20\nmin_calls = 4\nsub_window_failures = 1";
    bench.circuit.set_policy(now, policy(finer).unwrap());
    let view = bench.circuit.view(now);
    assert_eq!((view.total.calls, view.total.failures), (3, 2));
    assert_eq!(view.window.iter().filter(|sub| sub.tripped).count(), 2);
    bench.play("f").unwrap();
    assert_eq!(bench.circuit.state(), State::Open, "3 of 4, by the new minimum");
    // A cooldown that has begun keeps its end.
    let until = bench.circuit.view(now).next_change;
    bench.circuit.set_policy(now, policy("cooldown_seconds = 50").unwrap());
    assert_eq!(bench.circuit.view(now).next_change, until);

    let count = "window = \"count\"\nwindow_calls = 40\nsub_windows = 4";
    let mut bench = Bench::new(count);
    for word in "o f o f o".split(' ') {
        bench.play(word).unwrap();
    }
    let now = bench.clock.now();
    bench
        .circuit
        .set_policy(now, policy("window = \"count\"\nwindow_calls = 3\nsub_windows = 1").unwrap());
    let total = bench.circuit.view(now).total;
    assert_eq!((total.calls, total.failures), (3, 1), "the last three of five");
}

#[test]
fn what_outlives_a_restart() {
    let second = |n| Instant::ZERO.plus(Duration::from_secs(n));
    let restart = |words: &str, at: u64, away: u64| {
        let text = over(PLAIN, "min_calls = 4\nprobes = 1\ncooldown_multiplier = 2");
        let mut bench = Bench::new(&text);
        for word in words.split_whitespace() {
            bench.play(word).unwrap();
        }
        let json = serde_json::to_string(&bench.circuit.snapshot(second(at))).unwrap();
        let mut next = Circuit::new(policy(&text).unwrap(), 1, Instant::ZERO);
        let told = next.restore(
            second(1),
            &serde_json::from_str(&json).unwrap(),
            Duration::from_secs(away),
        );
        (next, told)
    };
    // An open circuit stays open for the rest of its cooldown.
    let (mut open, told) = restart("f f f f", 1, 2);
    let told = told.map(|t| (t.to, t.cause.reason, t.cause.observed));
    assert_eq!(told, Some((State::Open, Reason::Restored, 100.0)));
    assert_eq!(open.view(second(1)).next_change, Some(second(3)));
    assert!(!open.admits(second(2)) && open.admits(second(3)));
    assert_eq!(open.admit(second(2)).unwrap_err().why, Why::Open(Reason::FailureRate));
    let permit = open.admit(second(3)).unwrap();
    open.record(second(3), permit, Outcome::Failure, Duration::ZERO);
    assert_eq!(open.view(second(3)).next_change, Some(second(13)), "the exponent is kept");
    // A half-open one begins with new probes; a forced one stays forced; counts keep their age.
    let (half, _) = restart("f f f f @5 ask", 5, 1);
    assert!(half.state() == State::Open && half.admits(second(1)));
    let (forced, _) = restart("mode:forced-open", 5, 1);
    assert!(forced.mode() == Mode::ForcedOpen && !forced.admits(second(9_999)));
    let (mut counts, told) = restart("f o @2 f", 3, 1);
    assert_eq!((told, counts.view(second(1)).total.calls), (None, 3));
    assert_eq!(counts.view(second(7)).total.calls, 1, "those of second 0 are ten seconds old");
    assert_eq!(restart("f o f", 3, 9).0.view(second(1)).total.calls, 0);
}

#[test]
fn a_view_shows_everything_a_console_draws() {
    let mut bench = Bench::new(&over(PLAIN, &format!("{A}\nsub_window_failures = 2")));
    for word in "@1.5 f f @3 5s o".split(' ') {
        bench.play(word).unwrap();
    }
    let view = bench.circuit.view(bench.clock.now());
    assert_eq!((view.window.len(), view.state, view.mode), (20, State::Closed, Mode::Auto));
    let filled: Vec<_> = view.window.iter().filter(|sub| sub.tally.calls > 0).collect();
    let second = |n| Instant::ZERO.plus(Duration::from_secs(n));
    assert_eq!(
        filled.iter().map(|s| (s.start, s.tripped)).collect::<Vec<_>>(),
        [(second(1), true), (second(3), false)]
    );
    assert_eq!((filled[0].tally.failures, filled[1].tally.slow), (2, 1));
    for word in "f f f @9 ask ask".split(' ') {
        if bench.circuit.state() == State::Open && word == "f" {
            continue;
        }
        bench.play(word).unwrap();
    }
    let view = bench.circuit.view(bench.clock.now());
    assert_eq!((view.state, view.probes_free, view.probes_in_flight), (State::HalfOpen, 2, 2));
    assert_eq!((view.opened_total, view.next_change), (1, Some(second(10))));
}

#[test]
fn a_policy_refuses_what_makes_no_sense() {
    let cases = [
        ("window_seconds = 0", "window_seconds: must be 0.1 to 3600 seconds, found 0"),
        ("sub_windows = 0", "sub_windows: must be 1 to 100, found 0"),
        ("window = \"count\"\nwindow_calls = 15", "window_calls: must be a multiple of"),
        ("window = \"count\"\nmin_calls = 101", "min_calls: must be at most `window_calls` (100)"),
        ("failure_rate_percent = 101", "failure_rate_percent: must be 0 to 100, found 101"),
        ("slow_call_seconds = 0", "slow_call_seconds: must be 0.001 to 3600 seconds"),
        ("sub_window_policy = \"any\"", "sub_window_policy: needs `sub_window_failures`"),
        (
            "sub_window_failures = 1\nsub_window_policy = \"k_of_n\"\nsub_window_k = 11",
            "sub_window_k: must be 1 to 10, found 11",
        ),
        ("cooldown_max_seconds = 4", "cooldown_max_seconds: must be 5 to 86400 seconds"),
        ("cooldown_multiplier = 0.5", "cooldown_multiplier: must be 1 to 10, found 0.5"),
        ("probes = 0", "probes: must be 1 to 1000, found 0"),
        ("ramp_percent = [10, 0]", "ramp_percent[1]: must be 1 to 100, found 0"),
        ("ramp_percent = [25, 10]", "ramp_percent: each step must be more than the one before"),
        ("half_open_max_seconds = nan", "half_open_max_seconds: must be 0.001 to 3600"),
    ];
    for (text, want) in cases {
        let problem = policy(text).expect_err(text).to_string();
        assert!(problem.starts_with(want), "{text}: {problem}");
    }
    assert!(toml::from_str::<RawCircuit>("probe = 1").is_err(), "an unknown key is an error");
    let default = CircuitPolicy::default();
    assert_eq!((default.consecutive_failures, default.min_calls, default.probes), (5, 20, 5));
    assert_eq!(&*default.ramp, [10, 25, 50]);
}

#[test]
fn a_call_that_went_elsewhere_still_moves_the_ramp() {
    let text = over(PLAIN, "min_calls = 1\nprobes = 1\nramp_percent = [25]");
    let mut bench = Bench::new(&text);
    for word in "f @5 o ramp o".split(' ') {
        bench.play(word).unwrap();
    }
    let now = bench.clock.now();
    for _ in 0..3 {
        assert!(!bench.circuit.admits(now));
        bench.circuit.pass_over(now);
    }
    assert!(bench.circuit.admits(now));
    bench.circuit.pass_over(now);
    assert!(bench.circuit.admits(now), "a call that would have passed is not passed over");
}
