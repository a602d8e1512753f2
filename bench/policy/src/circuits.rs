//! A permit and a record of a success, and a refusal.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use failsafe::CircuitBreaker as _;
use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::observe::Silent;
use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{Circuit, CircuitPolicy, RawCircuit, WindowKind};
use recloser::Recloser;
use tower::Service;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

use crate::rounds::{Case, now};

const LATENCY: Duration = Duration::from_micros(300);

pub fn cases() -> Vec<Case> {
    let mut all = one_thread();
    all.extend(two_threads());
    all.extend(refusals());
    all
}

fn one_thread() -> Vec<Case> {
    const GROUP: &str = "circuit: permit + record, one thread";
    let mut machine = Circuit::new(CircuitPolicy::default(), 7, now());
    let quiet = shared(RawCircuit::default());
    let (counting, refused) = (counting(), shared(RawCircuit::default()));
    let mut n = 0;
    let (recloser, failsafe) = (Recloser::custom().build(), failsafe::Config::new().build());
    let consecutive = consecutive();
    let mut tower = CircuitBreakerLayer::builder()
        .build()
        .expect("its own defaults")
        .layer_fn(tower::service_fn(|n: u64| std::future::ready(Ok::<u64, u64>(n))));
    vec![
        Case::ours(GROUP, "machine alone", None).op(move |now| {
            let permit = machine.admit(now).expect("closed");
            machine.record(now, permit, black_box(Outcome::Success), LATENCY);
        }),
        Case::ours(GROUP, "`SharedCircuit`", Some(32.0)).basis().op(move |now| call(&quiet, now)),
        Case::ours(GROUP, "`SharedCircuit`, one call in 100 refused by the peer", None)
            .op(move |now| mixed(&refused, now, &mut n)),
        Case::ours(GROUP, "`SharedCircuit`, count window", None)
            .op(move |now| call(&counting, now)),
        Case::peer(GROUP, "recloser, ring of 100 results", "none while closed")
            .op(move |_| reclose(&recloser)),
        Case::peer(GROUP, "failsafe, default (time window and run)", "1 `Instant::now`")
            .op(move |_| drop(black_box(failsafe.call(|| black_box(Ok::<(), ()>(())))))),
        Case::peer(GROUP, "failsafe, run of failures only", "none")
            .op(move |_| drop(black_box(consecutive.call(|| black_box(Ok::<(), ()>(())))))),
        Case::peer(GROUP, "tower-resilience, ring of 100 results", "2 or more `Instant::now`").op(
            move |_| {
                let mut cx = Context::from_waker(Waker::noop());
                let Poll::Ready(Ok(())) = tower.poll_ready(&mut cx) else { panic!("not ready") };
                let mut future = pin!(tower.call(black_box(7)));
                assert!(future.as_mut().poll(&mut cx).is_ready());
            },
        ),
    ]
}

fn two_threads() -> Vec<Case> {
    const GROUP: &str = "circuit: permit + record, two threads sharing it";
    vec![
        Case::ours(GROUP, "`SharedCircuit`", Some(80.0))
            .basis()
            .two(shared(RawCircuit::default()), |circuit, now| call(circuit, now)),
        Case::ours(GROUP, "`SharedCircuit`, one call in 100 refused by the peer", None).two(
            shared(RawCircuit::default()),
            |circuit, now| {
                thread_local! {
                    static N: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
                }
                let mut n = N.get();
                mixed(circuit, now, &mut n);
                N.set(n);
            },
        ),
        Case::ours(GROUP, "`SharedCircuit`, count window", None)
            .two(counting(), |circuit, now| call(circuit, now)),
        Case::peer(GROUP, "recloser, ring of 100 results", "none while closed")
            .two(Recloser::custom().build(), |recloser, _| reclose(recloser)),
        Case::peer(GROUP, "failsafe, default (time window and run)", "1 `Instant::now`")
            .two(failsafe::Config::new().build(), |failsafe, _| {
                drop(black_box(failsafe.call(|| black_box(Ok::<(), ()>(())))))
            }),
    ]
}

fn refusals() -> Vec<Case> {
    const GROUP: &str = "circuit: refusal while open, one thread";
    let raw = RawCircuit { cooldown_seconds: Some(86_400.0), ..RawCircuit::default() };
    let open = shared(raw);
    for _ in 0..5 {
        let permit = open.admit(now()).expect("closed");
        open.record(now(), permit, Outcome::Failure, LATENCY);
    }
    let recloser = Recloser::custom().closed_len(1).open_wait(Duration::from_secs(86_400)).build();
    for _ in 0..5 {
        drop(recloser.call(|| Err::<(), ()>(())));
    }
    vec![
        Case::ours(GROUP, "`SharedCircuit`", Some(50.0)).basis().op(move |now| {
            let refused = open.admit(now).expect_err("open");
            black_box(refused);
        }),
        Case::peer(GROUP, "recloser", "1 `Instant::now`").op(move |_| {
            let refused = recloser.call(|| Ok::<(), ()>(()));
            assert!(black_box(refused).is_err());
        }),
    ]
}

/// One call that fares well.
pub fn call(circuit: &SharedCircuit, now: Instant) {
    let permit = circuit.admit(now).expect("closed");
    circuit.record(now, permit, black_box(Outcome::Success), LATENCY);
}

pub fn shared(raw: RawCircuit) -> SharedCircuit {
    let policy = Arc::new(CircuitPolicy::try_from(raw).expect("in range"));
    let key = CircuitKey { policy: "default".into(), subject: "order@10.0.0.1:80".into() };
    SharedCircuit::new_at(now(), key, policy, 7, Arc::new(Silent))
}

/// A circuit that every call takes the lock of: the order of results matters to a count window.
fn counting() -> SharedCircuit {
    shared(RawCircuit { window: Some(WindowKind::Count), ..RawCircuit::default() })
}

/// The same as [`call`], but the peer refuses one call in a hundred.
fn mixed(circuit: &SharedCircuit, now: Instant, n: &mut u32) {
    *n = n.wrapping_add(1);
    let outcome = if n.is_multiple_of(100) { Outcome::Refused } else { Outcome::Success };
    let permit = circuit.admit(now).expect("closed");
    circuit.record(now, permit, black_box(outcome), LATENCY);
}

fn reclose(recloser: &Recloser) {
    drop(black_box(recloser.call(|| black_box(Ok::<(), ()>(())))));
}

fn consecutive() -> impl failsafe::CircuitBreaker {
    let backoff = failsafe::backoff::constant(Duration::from_secs(5));
    let policy = failsafe::failure_policy::consecutive_failures(5, backoff);
    failsafe::Config::new().failure_policy(policy).build()
}
