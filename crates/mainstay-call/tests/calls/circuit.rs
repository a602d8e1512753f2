//! Circuits around instances and services, fed by whatever tells how a call went.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::Method;
use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::clock::MonotonicClock;
use mainstay_call::observe::Silent;
use mainstay_core::Clock;
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{CircuitPolicy, RawCircuit, State};

use crate::peers::{Client, Peers, Reply, call, request, word};

/// One attempt a call, and every instance is asked in turn.
const PLAIN: &str = "retry = { attempts = 1 }\nbalance = { kind = \"round_robin\" }\n";

/// State of the circuit of the instance at `address`, and the calls in its window.
fn of(client: &Client, address: &str) -> (State, u64) {
    let endpoints = client.instances().endpoints();
    let endpoint = endpoints.iter().find(|e| **e.address() == *address).unwrap();
    let view = endpoint.circuits()[0].view(MonotonicClock.now());
    (view.state, view.total.calls)
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_fails_is_avoided_and_tried_again_later() {
    let peers = Peers::new(|at, _| Reply::Status(if at == "a:1" { 500 } else { 200 }));
    let client = peers.client(&["a:1", "b:1", "c:1"], PLAIN);
    for _ in 0..60 {
        drop(call(&client, request(Method::GET)).await);
    }
    assert_eq!(of(&client, "a:1").0, State::Open);
    assert_eq!((peers.take("a:1"), peers.take("b:1") + peers.take("c:1")), (5, 55));
    assert_eq!(of(&client, "b:1").0, State::Closed);
    peers.set(|_, _| Reply::Status(200));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..30 {
        assert_eq!(word(&call(&client, request(Method::GET)).await), "200");
    }
    assert!(peers.take("a:1") >= 5, "its probes");
    assert_eq!(of(&client, "a:1").0, State::Ramp);
}

#[tokio::test(start_paused = true)]
async fn when_every_instance_is_refused_the_refusal_says_when_to_come_back() {
    let peers = Peers::all(Reply::Status(500));
    let client = peers.client(&["a:1", "b:1"], PLAIN);
    for _ in 0..10 {
        assert_eq!(word(&call(&client, request(Method::GET)).await), "500");
    }
    let done = call(&client, request(Method::GET)).await;
    assert_eq!((word(&done), done.attempts), ("circuit-open".into(), 0));
    let problem = done.result.unwrap_err().problem();
    assert_eq!(problem.retry_after, Some(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_of_the_whole_service_refuses_without_trying_others() {
    let peers = Peers::all(Reply::Status(500));
    let text = "[circuit.all]\nscope = \"service\"\nmin_calls = 4\n[retry]\nretry_on = [\"5xx\"]";
    let client = peers.client(&["a:1", "b:1"], text);
    for _ in 0..2 {
        drop(call(&client, request(Method::GET)).await);
    }
    let sent = peers.seen().len();
    assert_eq!(sent, 4, "the circuit opened between two attempts");
    let done = call(&client, request(Method::GET)).await;
    assert_eq!(word(&done), "circuit-open");
    assert_eq!(peers.seen().len(), sent);
}

#[tokio::test(start_paused = true)]
async fn the_status_in_a_grpc_trailer_is_what_counts() {
    let peers = Peers::all(Reply::Grpc(0));
    let client = peers.client(&["a:1"], PLAIN);
    for _ in 0..5 {
        drop(call(&client, request(Method::POST)).await);
    }
    assert_eq!(of(&client, "a:1"), (State::Closed, 5));
    peers.set(|_, _| Reply::Grpc(13));
    for _ in 0..5 {
        assert_eq!(word(&call(&client, request(Method::POST)).await), "200");
    }
    assert_eq!(of(&client, "a:1").0, State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_fails_and_one_that_is_given_up_says_nothing() {
    let peers = Peers::all(Reply::GrpcCut);
    let client = peers.client(&["a:1"], PLAIN);
    for _ in 0..20 {
        drop(client.call(request(Method::POST)).await.unwrap());
    }
    assert_eq!(of(&client, "a:1"), (State::Closed, 0));
    for _ in 0..5 {
        drop(call(&client, request(Method::POST)).await);
    }
    assert_eq!(of(&client, "a:1").0, State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_or_panics_is_not_lost() {
    let peers = Peers::all(Reply::Status(500));
    let text = format!("{PLAIN}[circuit]\nprobes = 1\nramp_percent = []");
    let client = peers.client(&["a:1"], &text);
    for _ in 0..5 {
        drop(call(&client, request(Method::GET)).await);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    peers.set(|_, _| Reply::Hang);
    let probe = client.call(request(Method::GET));
    assert!(tokio::time::timeout(Duration::from_millis(10), probe).await.is_err());
    peers.set(|_, _| Reply::Panic);
    let probe = std::panic::AssertUnwindSafe(client.call(request(Method::GET)));
    assert!(probe.catch_unwind().await.is_err());
    assert_eq!(of(&client, "a:1").0, State::HalfOpen);
    assert_eq!(
        (peers.under_way(), client.instances().endpoints()[0].load(MonotonicClock.now()).in_flight),
        (0, 0)
    );
    peers.set(|_, _| Reply::Status(200));
    assert_eq!(word(&call(&client, request(Method::GET)).await), "200");
    assert_eq!(of(&client, "a:1").0, State::Closed);
}

#[test]
fn a_thousand_threads_get_exactly_the_probes_there_are() {
    let raw = RawCircuit { cooldown_seconds: Some(0.001), ..RawCircuit::default() };
    let policy = Arc::new(CircuitPolicy::try_from(raw).unwrap());
    let key = CircuitKey { policy: "default".into(), subject: "order@a".into() };
    let circuit = SharedCircuit::new(key, policy, 7, Arc::new(Silent));
    let now = MonotonicClock.now();
    for _ in 0..5 {
        let permit = circuit.admit(now).unwrap();
        circuit.record(now, permit, Outcome::Failure, Duration::ZERO);
    }
    let later = now.plus(Duration::from_secs(1));
    let admitted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..1_000 {
            scope.spawn(|| {
                if circuit.admit(later).is_ok() {
                    admitted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 5);
}
