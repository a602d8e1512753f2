//! The orders in which threads can meet at a shared circuit, tried by loom: `cargo xtask models`.
//! Without a bound on how often a thread is interrupted:
//!
//! ```text
//! RUSTFLAGS="--cfg mainstay_loom" cargo test -p mainstay-call --release --test loom_circuit
//! RUSTFLAGS="--cfg mainstay_loom" cargo test -p mainstay-call --release --lib modelled
//! ```
#![cfg(mainstay_loom)]
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::time::Duration;

use loom::thread;
use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::observe::Silent;
use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{CircuitPolicy, RawCircuit, State};

const START: Instant = Instant::from_nanos(1);
const LATENCY: Duration = Duration::from_nanos(1);

/// A circuit that opens after `run` failures in a row and lets `probes` find out how things are.
fn circuit(run: u32, probes: u32) -> Arc<SharedCircuit> {
    let raw = RawCircuit {
        consecutive_failures: Some(run),
        probes: Some(probes),
        sub_windows: Some(2),
        ..RawCircuit::default()
    };
    let policy = Arc::new(CircuitPolicy::try_from(raw).unwrap());
    let key = CircuitKey { policy: "p".into(), subject: "s".into() };
    Arc::new(SharedCircuit::new_at(START, key, policy, 7, Arc::new(Silent)))
}

/// One call at `now`; whether it was let through.
fn call(circuit: &SharedCircuit, now: Instant, outcome: Outcome) -> bool {
    circuit.admit(now).map(|permit| circuit.record(now, permit, outcome, LATENCY)).is_ok()
}

/// Opens the circuit; returns the end of its cooldown.
fn open(circuit: &SharedCircuit) -> Instant {
    while circuit.view(START).state == State::Closed {
        call(circuit, START, Outcome::Failure);
    }
    circuit.view(START).next_change.unwrap()
}

/// Runs `work` on `N` threads at once; the main thread is one of them.
fn together<const N: usize, R: Send + 'static>(work: [Box<dyn FnOnce() -> R + Send>; N]) -> Vec<R> {
    let mut work = work.into_iter();
    let mine = work.next().unwrap();
    let others: Vec<_> = work.map(|work| thread::spawn(work)).collect();
    let mine = mine();
    let others = others.into_iter().map(|thread| thread.join().unwrap());
    std::iter::once(mine).chain(others).collect()
}

#[test]
fn exactly_as_many_probes_as_the_policy_says() {
    loom::model(|| {
        let circuit = circuit(1, 2);
        let after = open(&circuit);
        let ask = || -> Box<dyn FnOnce() -> bool + Send> {
            let circuit = Arc::clone(&circuit);
            Box::new(move || circuit.admit(after).is_ok())
        };
        let through = together([ask(), ask(), ask()]).into_iter().filter(|&ok| ok).count();
        assert_eq!(through, 2);
        assert_eq!(circuit.view(after).probes_in_flight, 2);
    });
}

#[test]
fn no_success_is_lost_between_shards_and_window() {
    loom::model(|| {
        let circuit = circuit(5, 1);
        let (ours, theirs) = (Arc::clone(&circuit), Arc::clone(&circuit));
        let next = START.plus(Duration::from_secs(5));
        together::<2, ()>([
            Box::new(move || {
                call(&ours, START, Outcome::Success);
                call(&ours, START, Outcome::Refused);
            }),
            // The second of these moves the window on, whatever the other thread is doing.
            Box::new(move || {
                call(&theirs, START, Outcome::Success);
                call(&theirs, next, Outcome::Success);
            }),
        ]);
        let total = circuit.view(next).total;
        assert_eq!((total.calls, total.failures, total.latency_nanos), (4, 1, 4));
    });
}

#[test]
fn a_success_from_before_the_circuit_opened_says_nothing_after_it() {
    loom::model(|| {
        let circuit = circuit(1, 1);
        let (ours, theirs) = (Arc::clone(&circuit), Arc::clone(&circuit));
        let let_through = together::<2, bool>([
            Box::new(move || call(&ours, START, Outcome::Failure)),
            Box::new(move || call(&theirs, START, Outcome::Success)),
        ]);
        let view = circuit.view(START);
        // The failure opened the circuit; the success came before it, or was refused, or had a
        // permit from before it.
        assert!(let_through[0]);
        assert_eq!((view.state, view.opened_total), (State::Open, 1));
        assert!(!circuit.admits(START));
        assert_eq!(view.refused_total, u64::from(!let_through[1]));
        let total = view.total;
        assert_eq!(total.failures, 1);
        assert!(total.calls <= 1 + u64::from(let_through[1]));
    });
}

#[test]
fn a_run_of_failures_ends_with_the_success_in_between() {
    loom::model(|| {
        let circuit = circuit(2, 1);
        let (ours, theirs) = (Arc::clone(&circuit), Arc::clone(&circuit));
        together::<2, ()>([
            Box::new(move || {
                call(&ours, START, Outcome::Failure);
                call(&ours, START, Outcome::Success);
                call(&ours, START, Outcome::Failure);
            }),
            Box::new(move || {
                call(&theirs, START, Outcome::Success);
            }),
        ]);
        let view = circuit.view(START);
        assert_eq!((view.state, view.total.calls), (State::Closed, 4));
    });
}

#[test]
fn a_probe_given_up_while_others_ask_is_free_again() {
    loom::model(|| {
        let circuit = circuit(1, 1);
        let after = open(&circuit);
        let (ours, theirs) = (Arc::clone(&circuit), Arc::clone(&circuit));
        let through = together::<2, bool>([
            Box::new(move || match ours.admit(after) {
                Ok(permit) => {
                    ours.cancel(after, permit);
                    true
                }
                Err(_refused) => false,
            }),
            Box::new(move || match theirs.admit(after) {
                Ok(permit) => {
                    theirs.cancel(after, permit);
                    true
                }
                Err(_refused) => false,
            }),
        ]);
        assert!(through.contains(&true));
        let view = circuit.view(after);
        assert_eq!((view.state, view.probes_free, view.probes_in_flight), (State::HalfOpen, 1, 0));
    });
}
