use std::task::{Context as Task, Poll};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mainstay_call::circuit::CircuitKey;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Degraded, Facts};
use mainstay_call::endpoint::Endpoint;
use mainstay_call::error::Figures;
use mainstay_call::instances::{Instances, InstancesPolicy, MakeEndpoint};
use mainstay_call::observe::Silent;
use mainstay_call::resolve::{Instance, Resolve, StaticList};
use mainstay_call::stage::balance::{Balance, Learns};
use mainstay_call::stage::circuit::{Circuit, CircuitLayer};
use mainstay_core::name::ServiceName;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect};
use mainstay_resilience::circuit::{Mode, RawCircuit};
use tower_layer::Layer;
use tower_service::Service;

use super::*;

/// An instance that answers with a status, or fails.
#[derive(Clone, Copy, Debug)]
struct Peer(Result<u16, Failure>);

impl Service<Request<()>> for Peer {
    type Response = Response<Full<Bytes>>;
    type Error = CallError;
    type Future = std::future::Ready<Result<Self::Response, CallError>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<()>) -> Self::Future {
        let answer = |status| Response::builder().status(status).body(Full::default());
        std::future::ready(match self.0 {
            Ok(status) => Ok(answer(status).expect("a status")),
            Err(failure) => Err(failure.into()),
        })
    }
}

struct Maker {
    peer: Peer,
    circuit: Arc<SharedCircuit>,
}

impl MakeEndpoint<Circuit<Peer>> for Maker {
    fn endpoint(&self, instance: &Instance, now: Instant) -> Arc<Endpoint> {
        let circuits = Box::new([Arc::clone(&self.circuit)]);
        let (name, address) = (Arc::clone(&instance.name), Arc::clone(&instance.address));
        Arc::new(Endpoint::new(name, address, now, circuits))
    }

    fn service(&self, endpoint: &Arc<Endpoint>) -> Circuit<Peer> {
        let circuits: Vec<_> = endpoint.circuits().to_vec();
        CircuitLayer::new(circuits.into(), Arc::default()).layer(self.peer)
    }
}

/// One service `order` with one instance behind a circuit.
struct Bench {
    circuit: Arc<SharedCircuit>,
    balance: Balance<Circuit<Peer>>,
    context: Arc<Context>,
}

impl Bench {
    fn new(peer: Result<u16, Failure>) -> Self {
        let policy = Arc::new(RawCircuit::default().try_into().expect("defaults"));
        let key = CircuitKey { policy: "default".into(), subject: "order@10.0.0.7:8080".into() };
        let circuit = Arc::new(SharedCircuit::new(key, policy, 1, Arc::new(Silent)));
        let order = ServiceName::new("order").expect("a name");
        let list = StaticList::new().with(order.clone(), ["10.0.0.7:8080"]);
        let learns = Learns {
            service: "order".into(),
            classifier: Arc::default(),
            failure_penalty: Duration::ZERO,
            consecutive: 0,
            wake: 0.into(),
            observer: Arc::new(Silent),
        };
        let policy = InstancesPolicy {
            balance: mainstay_resilience::balance::RawBalance::default().try_into().expect("legal"),
            outlier: mainstay_resilience::outlier::RawOutlier::default().try_into().expect("legal"),
            zone: "".into(),
            listed: true,
        };
        let make = Maker { peer: Peer(peer), circuit: Arc::clone(&circuit) };
        let instances = Instances::new(
            policy,
            Arc::new(learns),
            list.watch("default", &order),
            Box::new(make),
            &[],
        );
        let context = Context::new(MonotonicClock.now(), Facts::default());
        Self { circuit, balance: Balance::new(Arc::new(instances)), context }
    }

    /// Sends the call; what came of it.
    async fn send(&mut self) -> Result<u16, CallError> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Arc::clone(&self.context));
        let answer = self.balance.call(request).await?;
        Ok(answer.status().as_u16())
    }

    /// The steps, a line each: `stage outcome [rule] observed / threshold ! clears_when`.
    fn told(&self, result: &Result<u16, CallError>, stages: Stages<'_>) -> Vec<String> {
        let now = MonotonicClock.now();
        let (status, error) = match result {
            Ok(status) => (*status, None),
            Err(error) => (error.code().http(), Some(error)),
        };
        let ended = Ended { now, at: UNIX_EPOCH + Duration::from_secs(1_000), status, error };
        let told = steps(&self.context, ended, stages);
        let line = |step: Step| {
            let Step { stage, outcome, rule, observed, threshold, clears_when, .. } = step;
            let part = |mark: &str, text: Option<String>| {
                text.map(|text| format!("{mark}{text}")).unwrap_or_default()
            };
            let rule = part(" [", rule.map(|rule| rule + "]"));
            let seen = part(" ", observed) + &part(" / ", threshold) + &part(" ! ", clears_when);
            format!("{stage} {outcome}{rule}{seen}")
        };
        told.into_iter().map(line).collect()
    }
}

fn stages() -> Stages<'static> {
    Stages {
        service: "order",
        limits: &["order-api", "per-user"],
        identify: false,
        fallback: Some("orders"),
        attempts_max: 3,
        attempt_timeout: Some(Duration::from_secs(2)),
    }
}

fn refusal(stage: &'static str, code: Code) -> CallError {
    CallError::Refused(Refusal {
        code,
        stage,
        scope: None,
        rule: "per-user".into(),
        figures: Figures { observed: 11.0, threshold: 10.0, unit: "units" },
        since: Duration::from_secs(3),
        retry_after: Some(Duration::from_millis(500)),
        status: None,
        effect: Effect::None,
    })
}

#[track_caller]
fn same(told: &[String], want: &[&str]) {
    assert_eq!(told, want, "\n{}", told.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_good_call_passes_every_stage() {
    let mut bench = Bench::new(Ok(200));
    let result = bench.send().await;
    let want = [
        "deadline none no deadline",
        "limit pass [order-api, per-user]",
        "fallback pass [orders]",
        "retry pass 1 attempt / 3 attempts",
        "balance pass [order] instance 10.0.0.7:8080",
        "circuit pass [default] order@10.0.0.7:8080 closed; 0 of 1 calls failed",
        "timeout pass / 2.000 s",
        "upstream answer 200",
    ];
    same(&bench.told(&result, stages()), &want);
    let bare = Stages { service: "order", attempts_max: 1, ..Stages::default() };
    bench.context.note_fault("delay");
    let told = bench.told(&result, bare);
    assert_eq!(told[1], "limit none no limit set for this route");
    assert_eq!(told[2], "fallback none no fallback set for this route");
    assert_eq!(told[6], "timeout pass / what remains of the deadline");
    assert_eq!(told[7], "upstream answer 200, fault `delay` injected");
}

#[tokio::test(start_paused = true)]
async fn a_refusing_limit_leaves_the_rest_unreached() {
    let bench = Bench::new(Ok(200));
    let want = [
        "deadline none no deadline",
        "limit reject [per-user] 11 units / 10 units ! may pass in 0.5 s",
        "fallback not-reached",
        "retry not-reached",
        "balance not-reached [order]",
        "circuit not-reached",
        "timeout not-reached",
        "upstream not-reached",
    ];
    same(&bench.told(&Err(refusal("limit", Code::Limited)), stages()), &want);
    // The same with a fallback that answers for it.
    bench.context.degrade(Degraded { kind: "silent", cause: "limited" });
    let told = bench.told(&Ok(204), stages());
    assert_eq!(told[1], "limit reject [order-api, per-user]");
    assert_eq!(told[2], "fallback answer [orders] silent because of limited");
    assert_eq!(&told[3..], &want[3..]);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_says_whose_it_is() {
    let mut bench = Bench::new(Ok(200));
    let now = MonotonicClock.now();
    bench.circuit.set_mode(now, Mode::ForcedOpen, Instant::MAX);
    let result = bench.send().await;
    assert!(matches!(&result, Err(CallError::Refused(refusal)) if refusal.stage == "balance"));
    let told = bench.told(&result, stages());
    assert!(told[4].starts_with("balance reject [order] 1 instances"), "{told:?}");
    assert_eq!(
        (&*told[3], &*told[5]),
        ("retry pass 0 attempts / 3 attempts", "circuit not-reached")
    );

    // It was asked, and opened before the attempt was sent: a fallback answered.
    let mut bench = Bench::new(Ok(200));
    assert!(bench.send().await.is_ok());
    bench.circuit.set_mode(now, Mode::ForcedOpen, Instant::MAX);
    let told = bench.told(&Err(refusal("circuit", Code::CircuitOpen)), stages());
    assert_eq!(told[5], "circuit reject [per-user] 11 units / 10 units ! may pass in 0.5 s");
    bench.context.degrade(Degraded { kind: "stale", cause: "circuit" });
    let told = bench.told(&Ok(200), stages());
    assert_eq!(told[2], "fallback answer [orders] stale because of circuit");
    let forced = "order@10.0.0.7:8080 open; 0 of 1 calls failed; mode forced-open";
    assert_eq!(told[5], format!("circuit reject [default] {forced}"));
    assert_eq!((&*told[6], &*told[7]), ("timeout not-reached", "upstream not-reached"));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_failures_opened_shows_its_figures() {
    let mut bench = Bench::new(Ok(503));
    while bench.circuit.admits(MonotonicClock.now()) {
        let answer = bench.send().await;
        assert_eq!(answer.expect("an answer"), 503);
    }
    bench.context.degrade(Degraded { kind: "stale", cause: "circuit" });
    tokio::time::advance(Duration::from_secs(2)).await;
    let want = "circuit reject [default] order@10.0.0.7:8080 open; 5 of 5 calls failed \
                / 5 (consecutive) ! probes in 3.000 s";
    assert_eq!(bench.told(&Ok(200), stages())[5], want);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_where_it_happened() {
    for (peer, timeout, upstream) in [
        (Ok(503), "timeout pass / 2.000 s", "upstream fail 503"),
        (Ok(404), "timeout pass / 2.000 s", "upstream answer 404"),
        (
            Err(Failure::RequestTimeout),
            "timeout cut / 2.000 s",
            "upstream fail upstream-timeout, effect unknown",
        ),
        (
            Err(Failure::ConnectTimeout),
            "timeout pass / 2.000 s",
            "upstream fail connect-timeout, effect none",
        ),
    ] {
        let mut bench = Bench::new(peer);
        let result = bench.send().await;
        let told = bench.told(&result, stages());
        assert_eq!((&*told[6], &*told[7]), (timeout, upstream));
    }
    let mut bench = Bench::new(Ok(503));
    for _ in 0..2 {
        assert!(bench.send().await.is_ok());
    }
    let told = bench.told(&Ok(503), stages());
    assert_eq!(told[3], "retry retry 2 attempts / 3 attempts");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_ran_out_is_told_with_its_figures() {
    let mut bench = Bench::new(Err(Failure::Deadline { sent: true }));
    let at = bench.context.started.plus(Duration::from_secs(1));
    let covers = mainstay_resilience::deadline::Covers::Exchange;
    bench.context.shorten(mainstay_resilience::deadline::Deadline { at, covers });
    let late = Err(CallError::from(Failure::Deadline { sent: false }));
    tokio::time::advance(Duration::from_millis(1_001)).await;
    let told = bench.told(&late, stages());
    assert_eq!(told[0], "deadline reject 1.001 s / 1.000 s");
    assert_eq!(told[1], "limit not-passed [order-api, per-user]");
    assert_eq!(told[3], "retry not-reached");
    let result = bench.send().await;
    let told = bench.told(&result, stages());
    assert_eq!(told[1], "limit pass [order-api, per-user]");
    assert_eq!(told[7], "upstream fail deadline-exceeded, effect unknown");
}

#[tokio::test(start_paused = true)]
async fn since_is_a_moment_of_the_wall_clock() {
    let bench = Bench::new(Ok(200));
    let error = refusal("limit", Code::Limited);
    let at = UNIX_EPOCH + Duration::from_secs(1_000);
    let ended = Ended { now: MonotonicClock.now(), at, status: 429, error: Some(&error) };
    let told = steps(&bench.context, ended, stages());
    assert_eq!(told[1].since, Some(UNIX_EPOCH + Duration::from_secs(997)));
}
