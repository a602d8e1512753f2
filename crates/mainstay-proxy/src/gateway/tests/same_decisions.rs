//! Library and gateway decide alike: the same policy, the same instances, the same events.
//!
//! A call goes through both at the same moments of a clock that is turned by hand. In the library
//! a peer does what the script says; in the gateway a rehearsed fault does, at the same place of
//! the pipeline. The sidecar is the gateway. Choices that are drawn are left out of the policies:
//! two callers that draw would not agree with themselves.

use std::fmt::Write as _;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use mainstay_call::calls::{Answered, Done};
use mainstay_call::machines::Machines;
use mainstay_call::{CallError, Calls, Policy};
use mainstay_resilience::classify::Answer;
use mainstay_resilience::fault::{FaultKind, FaultMatch, FaultPolicy};
use mainstay_resilience::{Congestion, Failure};
use tower_service::Service;

use super::*;

/// Calls in all, over every policy.
const CALLS: u32 = 100_000;

const INSTANCES: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

/// A policy: `timeout_seconds`, then the keys of the tables `retry`, `outlier`, `circuit`, `limit`.
const POLICIES: [(f64, &str, &str, &str, &str); 4] = [
    (2.0, "try_seconds = 0.5", "", "", "max = 100000"),
    (
        1.0,
        "attempts = 2, try_seconds = 0.3",
        "consecutive = 3, base_seconds = 4",
        "consecutive_failures = 4, cooldown_seconds = 3, probes = 1",
        "max = 20, window_seconds = 1",
    ),
    (
        5.0,
        "attempts = 4, budget = { ratio_percent = 5 }",
        "max_ejected_percent = 34",
        "scope = 'service', failure_rate_percent = 40, min_calls = 8, cooldown_seconds = 1",
        "kind = 'sliding', max = 9, window_seconds = 1",
    ),
    (
        0.7,
        "attempts = 1",
        "consecutive = 2",
        "slow_call_seconds = 0.2, min_calls = 6, probes = 2, window = 'count', window_calls = 20",
        "kind = 'counter', max = 15, window_seconds = 2",
    ),
];

/// What an instance does with attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Fine,
    Broken,
    Overloaded,
    Resets,
    Silent,
    Away,
}

impl Mood {
    const ALL: [Self; 6] =
        [Self::Fine, Self::Broken, Self::Overloaded, Self::Resets, Self::Silent, Self::Away];

    fn fault(self) -> FaultKind {
        match self {
            Self::Fine => FaultKind::Abort(Answer::Http(200)),
            Self::Broken => FaultKind::Abort(Answer::Http(500)),
            Self::Overloaded => FaultKind::Abort(Answer::Http(503)),
            Self::Resets => FaultKind::Reset,
            Self::Silent => FaultKind::Blackhole,
            Self::Away => FaultKind::ConnectTimeout,
        }
    }
}

/// What a call came to: a status or a code, the attempts, and whom was asked last.
type Came = (String, u32, Option<String>);

/// The library's side of the world.
#[derive(Clone, Debug)]
struct Peers(Arc<Mutex<[Mood; 3]>>);

impl<B: 'static> Service<Request<B>> for Peers {
    type Response = Response<Full<Bytes>>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let at = request.uri().authority().expect("an instance").to_string();
        let place = INSTANCES.iter().position(|known| *known == at).expect("one of ours");
        let mood = self.0.lock()[place];
        Box::pin(async move {
            let answer = |status| {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::from_u16(status).expect("one");
                Ok(response)
            };
            match mood {
                Mood::Fine => answer(200),
                Mood::Broken => answer(500),
                Mood::Overloaded => answer(503),
                Mood::Resets => Err(Failure::Congestion(Congestion::Lost { sent: true }).into()),
                Mood::Silent => std::future::pending().await,
                Mood::Away => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Err(Failure::ConnectTimeout.into())
                }
            }
        })
    }
}

/// Both, and what they are told to think of the instances.
struct Pair {
    moods: Arc<Mutex<[Mood; 3]>>,
    library: Calls<Peers>,
    gateway: Arc<Gateway>,
    log: mpsc::Receiver<String>,
}

impl Pair {
    fn of((timeout, retry, outlier, circuit, limit): (f64, &str, &str, &str, &str)) -> Self {
        let retry = format!("{retry}, backoff = {{ jitter = 'none' }}");
        let own = format!(
            "retry = {{ {retry} }}\noutlier = {{ {outlier} }}\n\
             balance = {{ kind = 'round_robin' }}\n"
        );
        let machines = format!("circuit.default = {{ {circuit} }}\nlimit.api = {{ {limit} }}\n");
        let moods = Arc::new(Mutex::new([Mood::Fine; 3]));
        let library = Calls::to("shop").unwrap().instances(INSTANCES);
        let policy = format!("timeout_seconds = {timeout}\n{own}{machines}");
        let library = library
            .upstream(Peers(Arc::clone(&moods)))
            .policy(Policy::from_toml(&policy).unwrap())
            .build();
        let raw = format!(
            "{machines}\n[gateway]\noutcome_header = 'off'\n\
             [route.all]\nto = 'shop'\ntimeout_seconds = {timeout}\n\
             [upstream.shop]\ninstances = {INSTANCES:?}\nlimits = ['api']\n{own}"
        );
        let plane = Plane::resolve(toml::from_str(&raw).unwrap()).unwrap();
        let (gateway, log) = logging(plane);
        let this = Self { moods, library, gateway, log };
        this.think([Mood::Fine; 3]);
        this
    }

    /// From now on the instances do so.
    fn think(&self, moods: [Mood; 3]) {
        *self.moods.lock() = moods;
        let (faults, now) = (&self.gateway.parts.faults, MonotonicClock.now());
        faults.clear_all(now);
        for (instance, mood) in INSTANCES.iter().zip(moods) {
            let matches =
                FaultMatch { instance: Some((*instance).to_owned()), ..FaultMatch::default() };
            let fault = FaultPolicy {
                matches,
                share_millionths: 1_000_000,
                kind: mood.fault(),
                ttl: Duration::from_hours(1),
                reason: "as the script says".to_owned(),
            };
            faults.set(fault, now).unwrap();
        }
    }

    /// Sends one call through both at once.
    async fn call(&self, method: Method) -> [Came; 2] {
        let request = Request::builder().method(method.clone()).uri("/cart");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let mut told = None;
        let through_library = async {
            self.library
                .call_then(request, |done: Done<Answered<Full<Bytes>>>| {
                    let word = match &done.result {
                        Ok(answer) => answer.status().as_u16().to_string(),
                        Err(error) => error.code().to_string(),
                    };
                    told = Some((word, done.attempts, done.instance.as_deref().map(str::to_owned)));
                })
                .await;
        };
        let (running, from) = (self.gateway.running(), caller());
        let request = Request::builder().method(method).uri("/cart").header("host", "shop");
        let request = request.body(InBody::empty()).unwrap();
        let through_gateway = serve::serve(&running, Arc::clone(&self.gateway), request, &from);
        drop(tokio::join!(through_library, through_gateway).1);
        let line = self.log.recv_timeout(Duration::from_secs(20)).expect("a line for each");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let word = match line["mainstay.outcome"].as_str().unwrap() {
            "ok" => line["http.response.status_code"].to_string(),
            code => code.to_owned(),
        };
        let attempts = u32::try_from(line["mainstay.attempts"].as_u64().unwrap()).unwrap();
        let instance = line["mainstay.instance"].as_str().map(str::to_owned);
        [told.expect("told once"), (word, attempts, instance)]
    }
}

/// Where all circuits and limits stand.
fn state(machines: &Machines) -> String {
    let now = MonotonicClock.now();
    let mut circuits = machines.circuits();
    circuits.sort_by(|a, b| a.key().subject.cmp(&b.key().subject));
    let mut text = String::new();
    for circuit in circuits {
        let view = circuit.view(now);
        let (subject, total) = (&circuit.key().subject, &view.total);
        writeln!(text, "{subject} {:?} {:?} {total:?}", view.state, view.since).unwrap();
    }
    for limit in machines.limits() {
        writeln!(text, "{} {:?}", limit.name(), limit.usage()).unwrap();
    }
    text
}

#[test]
fn library_and_gateway_decide_alike() {
    let mut seed = 0x5eed_u64;
    // Numerical Recipes' generator; its high bits are good enough for a script.
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut words = std::collections::BTreeSet::new();
    for policy in POLICIES {
        paused(async {
            let pair = Pair::of(policy);
            for n in 0..CALLS / 4 {
                if draw(40) == 0 || n % 4_000 == 0 {
                    let mood = |n: u64| Mood::ALL[usize::try_from(n).unwrap_or_default()];
                    pair.think([(); 3].map(|()| mood(draw(12).saturating_sub(6))));
                }
                tokio::time::advance(Duration::from_millis(draw(160))).await;
                let method = if draw(5) == 0 { Method::POST } else { Method::GET };
                let [library, gateway] = pair.call(method).await;
                assert_eq!(library, gateway, "call {n} of {policy:?}, {:?}", pair.moods.lock());
                words.insert(library.0);
                if n % 200 == 0 {
                    let [library, gateway] =
                        [pair.library.machines(), &pair.gateway.parts.machines].map(|it| state(it));
                    assert_eq!(library, gateway, "after call {n} of {policy:?}");
                }
            }
        });
    }
    let all = words.iter().map(String::as_str).collect::<Vec<_>>();
    for word in ["200", "500", "503", "circuit-open", "limited", "upstream-timeout"] {
        assert!(all.contains(&word), "the script never led to {word}: {all:?}");
    }
}
