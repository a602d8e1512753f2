//! A shared circuit decides and shows what one circuit alone would.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::observe::{Observer, Silent};
use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{
    Circuit, CircuitPolicy, Compare, Enforcement, Mode, RawCircuit, SubWindowPolicy, Transition,
    WindowKind,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    /// Lets time pass, in milliseconds.
    Wait(u64),
    Admit,
    /// Ends the n-th call in flight, with a latency in milliseconds.
    End(usize, Outcome, u64),
    Cancel(usize),
    PassOver,
    SetMode(Mode, Option<u64>),
    SetPolicy(usize),
    Reset,
    View,
}

/// Notes every transition it is told of.
#[derive(Debug, Default)]
struct Diary(Mutex<Vec<Transition>>);

impl Observer for Diary {
    fn circuit_changed(&self, _circuit: &SharedCircuit, transition: &Transition) {
        self.0.lock().unwrap().push(*transition);
    }
}

/// Plays `events` to a shared circuit and to one alone.
fn check(policies: &[Arc<CircuitPolicy>], events: &[Event]) {
    let mut now = Instant::from_nanos(1_000_000);
    let key = CircuitKey { policy: "p".into(), subject: "s".into() };
    let diary = Arc::new(Diary::default());
    let first = Arc::clone(&policies[0]);
    let shared = SharedCircuit::new_at(now, key, Arc::clone(&first), 7, Arc::clone(&diary) as _);
    let mut alone = Circuit::new(first, 7, now);
    let mut told = Vec::new();
    let mut out = Vec::new();
    for (step, event) in events.iter().enumerate() {
        let seen = alone.changes();
        match *event {
            Event::Wait(millis) => now = now.plus(Duration::from_millis(millis)),
            Event::Admit => {
                assert_eq!(shared.admits(now), alone.admits(now), "step {step} of {events:?}");
                match (shared.admit(now), alone.admit(now)) {
                    (Ok(ours), Ok(theirs)) => out.push((ours, theirs)),
                    (Err(ours), Err(theirs)) => assert_eq!(ours, theirs, "step {step}"),
                    (ours, theirs) => panic!("step {step}: {ours:?}, alone {theirs:?}"),
                }
            }
            Event::End(n, outcome, millis) if !out.is_empty() => {
                let (ours, theirs) = out.swap_remove(n % out.len());
                let latency = Duration::from_millis(millis);
                shared.record(now, ours, outcome, latency);
                let _transition = alone.record(now, theirs, outcome, latency);
            }
            Event::Cancel(n) if !out.is_empty() => {
                let (ours, theirs) = out.swap_remove(n % out.len());
                shared.cancel(now, ours);
                alone.cancel(now, theirs);
            }
            Event::End(..) | Event::Cancel(_) => (),
            Event::PassOver => {
                shared.pass_over(now);
                alone.pass_over(now);
            }
            Event::SetMode(mode, millis) => {
                let span = millis.map(Duration::from_millis);
                let until = span.map_or(Instant::MAX, |span| now.plus(span));
                let ours = shared.set_mode(now, mode, until);
                assert_eq!(ours, alone.set_mode_until(now, mode, until), "step {step}");
            }
            Event::SetPolicy(n) => {
                let policy = &policies[n % policies.len()];
                shared.set_policy(now, Arc::clone(policy));
                if alone.policy() != policy {
                    alone.set_policy(now, Arc::clone(policy));
                }
            }
            Event::Reset => assert_eq!(shared.reset(now), alone.reset(now), "step {step}"),
            Event::View => {
                assert_eq!(shared.view(now), alone.view(now), "step {step} of {events:?}");
                assert_eq!(shared.snapshot(now), alone.snapshot(now), "step {step}");
            }
        }
        told.extend(alone.changes_since(seen));
    }
    let seen = alone.changes();
    assert_eq!(shared.view(now), alone.view(now), "after {events:?}");
    told.extend(alone.changes_since(seen));
    assert_eq!(*diary.0.lock().unwrap(), told, "what the observer heard of {events:?}");
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        12 => Just(Outcome::Success),
        2 => Just(Outcome::Failure),
        1 => Just(Outcome::RequestTimeout),
        1 => Just(Outcome::ConnectTimeout),
        1 => Just(Outcome::Refused),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        3 => Just(Mode::Auto),
        1 => Just(Mode::ForcedOpen),
        1 => Just(Mode::ForcedClosed),
        1 => Just(Mode::Disabled),
        1 => Just(Mode::Observe),
    ]
}

/// Calls that mostly fare well, and now and then anything else.
fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => Just(Event::Admit),
        40 => (0usize..9, outcome(), 0u64..12).prop_map(|(n, o, l)| Event::End(n, o, l)),
        20 => prop_oneof![8 => 0u64..40, 3 => 40u64..400, 1 => 400u64..9_000].prop_map(Event::Wait),
        4 => (0usize..9).prop_map(Event::Cancel),
        3 => Just(Event::PassOver),
        3 => Just(Event::View),
        1 => (mode(), proptest::option::of(0u64..500)).prop_map(|(m, t)| Event::SetMode(m, t)),
        1 => (0usize..3).prop_map(Event::SetPolicy),
        1 => Just(Event::Reset),
    ]
}

fn policy() -> impl Strategy<Value = Arc<CircuitPolicy>> {
    let odds = (
        proptest::option::weighted(0.5, 1u32..12),
        prop_oneof![6 => Just(WindowKind::Time), 1 => Just(WindowKind::Count)],
        prop_oneof![4 => Just(Enforcement::Enforce), 1 => Just(Enforcement::Observe)],
        prop_oneof![1 => Just(Compare::AtLeast), 1 => Just(Compare::Above)],
        prop_oneof![2 => Just(SubWindowPolicy::Off), 1 => Just(SubWindowPolicy::KOfN)],
    );
    let figures = (1u32..12, 10u32..90, 0u32..5, 0u32..6, 1u32..4, 1u32..4, 1u32..5);
    (odds, figures).prop_map(|((slow, window, mode, compare, subs), figures)| {
        let (min_calls, rate, run, failures, sub_failures, unavailable, probes) = figures;
        let raw = RawCircuit {
            mode: Some(mode),
            compare: Some(compare),
            window: Some(window),
            window_seconds: Some(0.5),
            window_calls: Some(20),
            sub_windows: Some(5),
            min_calls: Some(min_calls),
            failure_rate_percent: Some(f64::from(rate)),
            slow_call_seconds: slow.map(|millis| f64::from(millis) / 1e3),
            consecutive_failures: Some(run),
            failures: Some(failures),
            sub_window_failures: Some(sub_failures),
            sub_window_policy: Some(subs),
            unavailable_calls: Some(unavailable),
            cooldown_seconds: Some(0.1),
            cooldown_max_seconds: Some(1.0),
            probes: Some(probes),
            probe_lease_seconds: Some(0.2),
            half_open_max_seconds: Some(1.0),
            ramp_step_seconds: Some(0.1),
            ..RawCircuit::default()
        };
        Arc::new(CircuitPolicy::try_from(raw).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn decides_and_shows_what_one_alone_would(
        policies in proptest::collection::vec(policy(), 3),
        events in proptest::collection::vec(event(), 1..300),
    ) {
        check(&policies, &events);
    }
}

#[test]
fn loses_no_success_of_many_threads() {
    let now = Instant::from_nanos(1);
    let key = CircuitKey { policy: "p".into(), subject: "s".into() };
    let policy = Arc::new(CircuitPolicy::default());
    let shared = SharedCircuit::new_at(now, key, policy, 7, Arc::new(Silent));
    let latency = Duration::from_nanos(3);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let shared = &shared;
            scope.spawn(move || {
                for call in 0..2_000 {
                    let permit = shared.admit(now).unwrap();
                    // A failure now and then makes the counts be taken in, while others count.
                    let fails = thread == 0 && call % 100 == 99;
                    let outcome = if fails { Outcome::Refused } else { Outcome::Success };
                    shared.record(now, permit, outcome, latency);
                }
            });
        }
    });
    let total = shared.view(now).total;
    assert_eq!((total.calls, total.failures, total.latency_nanos), (16_000, 20, 48_000));
}
