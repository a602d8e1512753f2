//! The fallback stage: alone, and behind limits.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Context, Degraded, Facts};
use mainstay_call::error::Figures;
use mainstay_call::limit::{LimitUsage, SharedLimit};
use mainstay_call::observe::Observer;
use mainstay_call::replay::Replay;
use mainstay_call::stage::fallback::{FallbackLayer, Fallbacks, Pace, Substitute, Switches};
use mainstay_call::stage::limit::{FromRequest, LimitLayer};
use mainstay_call::stale::{STALE_BYTES_MAX, StaleStore};
use mainstay_call::{CallError, Refusal};
use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::Failure;
use mainstay_resilience::deadline::{Covers, Deadline};
use mainstay_resilience::failure::Congestion;
use mainstay_resilience::fallback::{FallbackPolicy, RawFallback};
use mainstay_resilience::limit::{LimitPolicy, RawLimit};
use parking_lot::Mutex;
use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt, service_fn};

type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;
type Body = StreamBody<Frames>;
type Client = BoxCloneService<Request<Body>, Response<String>, CallError>;

fn body(text: &str) -> Body {
    let frames: Vec<_> = text
        .as_bytes()
        .chunks(3)
        .map(|part| Ok(Frame::data(Bytes::copy_from_slice(part))))
        .collect();
    StreamBody::new(futures_util::stream::iter(frames))
}

/// A route, its upstream and what it is told.
#[derive(Clone, Debug, Default)]
struct Bench {
    /// What the upstream does next, and then again and again the last of it.
    script: Arc<Mutex<VecDeque<&'static str>>>,
    /// Bodies the upstream was sent.
    sent: Arc<Mutex<Vec<String>>>,
    asked: Arc<AtomicUsize>,
    switches: Arc<Mutex<BTreeMap<&'static str, bool>>>,
    slow: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Switches for Bench {
    fn is_on(&self, name: &str, _key: Option<&str>) -> Option<bool> {
        self.switches.lock().get(name).copied()
    }
}

impl Pace for Bench {
    fn is_slow(&self, _now: Instant) -> bool {
        self.slow.load(Ordering::Relaxed)
    }
}

impl Observer for Bench {
    fn degraded(&self, Degraded { kind, cause }: Degraded) {
        self.told.lock().push(format!("{kind}/{cause}"));
    }

    fn limit_decided(&self, _limit: &str, decision: &'static str) {
        self.told.lock().push(decision.to_owned());
    }
}

fn refusal(code: Code) -> CallError {
    CallError::Refused(Refusal {
        code,
        stage: "test",
        scope: None,
        rule: "test".into(),
        figures: Figures { observed: 1.0, threshold: 2.0, unit: "calls" },
        since: Duration::ZERO,
        retry_after: Some(Duration::from_secs(7)),
        status: None,
        effect: Effect::None,
    })
}

impl Bench {
    fn new(script: &[&'static str]) -> Self {
        let bench = Self::default();
        bench.script.lock().extend(script);
        bench
    }

    fn fallbacks(&self, steps: &str) -> Arc<Fallbacks> {
        let policy = (!steps.is_empty()).then(|| {
            let raw: RawFallback = toml::from_str(&format!("steps = [{steps}]")).expect("TOML");
            FallbackPolicy::try_from(raw).expect("legal")
        });
        let mut fallbacks = Fallbacks::new("recommend".into(), policy);
        fallbacks.stale = Some(Arc::new(StaleStore::new(STALE_BYTES_MAX)));
        fallbacks.switch = Some(PolicyName::new("recommend").expect("a name"));
        fallbacks.switches = Arc::new(self.clone());
        fallbacks.pace = Some(Arc::new(self.clone()));
        fallbacks.observer = Arc::new(self.clone());
        Arc::new(fallbacks)
    }

    /// The upstream.
    async fn answer(self, request: Request<Replay<Body>>) -> Result<Response<Body>, CallError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let text = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        self.sent.lock().push(text);
        let word = {
            let mut script = self.script.lock();
            if script.len() > 1 { script.pop_front() } else { script.front().copied() }
        };
        let failure = match word.expect("a script") {
            "timeout" => Failure::RequestTimeout,
            "connect" => Failure::ConnectFailed { identity: false },
            "congestion" => Failure::Congestion(Congestion::PoolExhausted),
            "malformed" => Failure::Malformed,
            "truncated" => Failure::Truncated,
            "cancelled" => Failure::Cancelled,
            "circuit" => return Err(refusal(Code::CircuitOpen)),
            "no-instance" => return Err(refusal(Code::NoInstance)),
            "hang" => std::future::pending().await,
            answer => {
                let mut parts = answer.split(';');
                let status: u16 = parts.next().unwrap_or_default().parse().expect("a status");
                let text = parts.next().unwrap_or_default();
                let mut response = Response::builder().status(status);
                for header in parts {
                    let (name, value) = header.split_once(':').expect("a header");
                    response = response.header(name, value);
                }
                return Ok(response.body(body(text)).expect("an answer"));
            }
        };
        Err(failure.into())
    }

    /// The route by itself.
    fn route(&self, fallbacks: &Arc<Fallbacks>) -> Client {
        let bench = self.clone();
        let inner = service_fn(move |request| bench.clone().answer(request));
        let layer = FallbackLayer::new(Arc::clone(fallbacks), ());
        boxed(ServiceBuilder::new().layer(layer).service(inner))
    }

    /// The route, with `others` to stand in for it.
    fn route_with(&self, fallbacks: &Arc<Fallbacks>, others: Others) -> Client {
        let bench = self.clone();
        let inner = service_fn(move |request| bench.clone().answer(request));
        let layer = FallbackLayer::new(Arc::clone(fallbacks), others);
        boxed(ServiceBuilder::new().layer(layer).service(inner))
    }

    /// The route behind a limit.
    fn limited(&self, fallbacks: &Arc<Fallbacks>, limit: &Arc<SharedLimit>) -> Client {
        let bench = self.clone();
        let inner = service_fn(move |request| bench.clone().answer(request));
        let limits: Arc<[_]> = Arc::new([Arc::clone(limit)]);
        let limits = LimitLayer::new(limits, FromRequest, Arc::new(self.clone()));
        let layer = FallbackLayer::new(Arc::clone(fallbacks), ());
        boxed(ServiceBuilder::new().layer(limits).layer(layer).service(inner))
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Services by name.
#[derive(Clone, Debug, Default)]
struct Others(BTreeMap<&'static str, Bench>);

impl Substitute<Body, Body> for Others {
    type Service = BoxCloneService<Request<Replay<Body>>, Response<Body>, CallError>;

    fn find(&self, name: &ServiceName) -> Option<Self::Service> {
        let bench = self.0.get(name.as_str())?.clone();
        Some(BoxCloneService::new(service_fn(move |request| bench.clone().answer(request))))
    }
}

fn boxed<S, R>(service: S) -> Client
where
    S: tower::Service<Request<Body>, Response = Response<R>, Error = CallError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    R: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: std::fmt::Debug,
{
    let read = |result: Result<Response<R>, CallError>| async {
        let (parts, mut body) = result?.into_parts();
        let mut text = String::new();
        while let Some(frame) = body.frame().await {
            match frame.expect("a whole body").into_data() {
                Ok(data) => text.push_str(&String::from_utf8_lossy(&data)),
                Err(frame) => {
                    let trailers = frame.into_trailers().expect("trailers");
                    let _infallible = write!(text, "|{trailers:?}");
                }
            }
        }
        Ok(Response::from_parts(parts, text))
    };
    BoxCloneService::new(service.then(read))
}

fn get(path: &str) -> Request<Body> {
    Request::builder().uri(path).header("host", "shop").body(body("")).expect("a request")
}

fn post(text: &str) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri("/").body(body(text));
    request.expect("a request")
}

/// Sends `request`; the answer in short: status and body, or the code, and how it came about.
async fn send(client: &Client, mut request: Request<Body>) -> String {
    let context = Context::of(&mut request);
    let mut short = match client.clone().oneshot(request).await {
        Ok(response) => {
            let marked = response.headers().get("cache-control").is_some_and(|v| v == "no-store");
            let made = context.degraded().is_some_and(|degraded| degraded.kind != "delay");
            assert_eq!(marked, made, "only what was made up is not to be stored: {response:?}");
            format!("{} {}", response.status().as_u16(), response.body())
        }
        Err(error) => {
            let problem = error.problem();
            format!("!{} {} {}", problem.code, problem.status, problem.effect.as_str())
        }
    };
    if let Some(Degraded { kind, cause }) = context.degraded() {
        let _infallible = write!(short, " [{kind}/{cause}]");
    }
    short
}

/// A call whose upstream does as `script` says, to a route with `steps`.
#[track_caller]
fn check(steps: &str, script: &'static str, want: &str) {
    check_of(steps, &Bench::new(&[script]), get("/a"), want);
}

#[track_caller]
fn check_of(steps: &str, bench: &Bench, request: Request<Body>, want: &str) {
    let client = bench.route(&bench.fallbacks(steps));
    let got = block_on(send(&client, request));
    assert_eq!(got, want, "{steps} on {:?}", bench.script.lock());
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        later().await;
        future.await
    })
}

#[test]
fn a_route_without_steps_is_left_alone() {
    check("", "200;fine", "200 fine");
    check("", "503;no", "503 no");
    check("", "circuit", "!circuit-open 503 none");
}

#[test]
fn every_condition_holds_for_its_own_causes() {
    let causes = ["circuit", "timeout", "connect", "congestion", "503", "no-instance", "malformed"];
    let holds: [(&str, &[&str]); 8] = [
        ("circuit", &["circuit"]),
        ("timeout", &["timeout"]),
        ("connect", &["connect"]),
        ("congestion", &["congestion"]),
        ("5xx", &["503"]),
        ("no-instance", &["no-instance"]),
        ("unavailable", &["circuit", "connect", "no-instance"]),
        ("any", &causes),
    ];
    for (word, for_causes) in holds {
        for cause in causes {
            let bench = Bench::new(&[cause]);
            let client =
                bench.route(&bench.fallbacks(&format!("{{ when = ['{word}'], silent = {{}} }}")));
            let got = block_on(send(&client, get("/a")));
            let silent = got.starts_with("204");
            assert_eq!(silent, for_causes.contains(&cause), "{word} on {cause}: {got}");
        }
    }
}

#[test]
fn a_good_answer_and_a_caller_who_left_are_nobodys_business() {
    let any = "{ when = ['any'], silent = {} }";
    for (script, want) in [
        ("200;fine", "200 fine"),
        ("404;none", "404 none"),
        ("429;slow down", "429 slow down"),
        ("truncated", "!response-truncated 502 unknown"),
        ("cancelled", "!cancelled 499 unknown"),
    ] {
        check(any, script, want);
    }
}

#[test]
fn every_kind_answers_in_its_way() {
    check("{ when = ['any'], silent = {} }", "circuit", "204  [silent/circuit]");
    let given = "{ when = ['any'], silent = { status = 200, body = '[]' } }";
    check(given, "timeout", "200 [] [silent/timeout]");
    let value = "{ when = ['any'], value = { content_type = 'application/json', body = '[1]' } }";
    check(value, "503;down", "200 [1] [value/5xx]");
    check("{ when = ['any'], fail = {} }", "circuit", "!degraded 503 none [fail/circuit]");
    let fail = "{ when = ['any'], fail = { status = 418, code = 'limited' } }";
    check(fail, "no-instance", "!limited 418 none [fail/no-instance]");
    // A refusal in the place of a call that was made does not deny it.
    check(fail, "timeout", "!limited 418 unknown [fail/timeout]");
    check(fail, "500;done", "!limited 418 done [fail/5xx]");
    check("{ when = ['any'], stale = {} }", "circuit", "!circuit-open 503 none");
    check("{ when = ['any'], substitute = { service = 'b' } }", "503;no", "503 no");
}

#[test]
fn an_answer_says_what_it_is() {
    let bench = Bench::new(&["circuit"]);
    let steps = "{ when = ['any'], value = { content_type = 'application/json', body = '[1]' } }";
    let client = bench.route(&bench.fallbacks(steps));
    let answer = block_on(client.clone().oneshot(get("/a"))).expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(bench.told(), ["value/circuit"]);
    let mut head = get("/a");
    *head.method_mut() = Method::HEAD;
    assert_eq!(block_on(send(&client, head)), "200  [value/circuit]");
}

#[test]
fn grpc_gets_a_message_and_a_status() {
    let call = || {
        let request =
            Request::builder().method(Method::POST).header("content-type", "application/grpc");
        request.body(body("")).expect("a request")
    };
    let bench = || Bench::new(&["circuit"]);
    let ok = "|{\"grpc-status\": \"0\"}";
    let silent = format!("200 \0\0\0\0\0{ok} [silent/circuit]");
    check_of("{ when = ['any'], silent = {} }", &bench(), call(), &silent);
    let value = format!("200 \0\0\0\0\u{2}hi{ok} [value/circuit]");
    let steps = "{ when = ['any'], value = { status = 500, body = 'hi' } }";
    check_of(steps, &bench(), call(), &value);
    // Trailers only, with a status that says the service failed.
    let failed = Bench::new(&["200;;content-type:application/grpc;grpc-status:14"]);
    check_of("{ when = ['5xx'], silent = {} }", &failed, call(), &silent.replace("circuit", "5xx"));
}

#[test]
fn the_first_step_that_can_answer_does() {
    let steps = "{ when = ['timeout'], fail = {} }, { when = ['any'], stale = {} }, \
                 { when = ['circuit'], silent = {} }, { when = ['any'], value = { body = 'x' } }";
    check(steps, "circuit", "204  [silent/circuit]");
    check(steps, "connect", "200 x [value/connect]");
    check(steps, "timeout", "!degraded 503 unknown [fail/timeout]");
}

#[test]
fn a_route_that_is_switched_off_is_not_asked() {
    let off = |on| {
        let bench = Bench::new(&["200;fine"]);
        bench.switches.lock().insert("recommend", on);
        bench
    };
    check_of("", &off(true), get("/a"), "200 fine");
    let bench = off(false);
    check_of("", &bench, get("/a"), "!switched-off 503 none");
    check_of("{ when = ['any'], silent = {} }", &bench, get("/a"), "!switched-off 503 none");
    check_of("{ when = ['switch'], silent = {} }", &bench, get("/a"), "204  [silent/switch]");
    assert_eq!(bench.asked(), 0);
}

#[test]
fn steps_are_armed_before_the_call_by_switches_and_slowness() {
    let armed = |switch: Option<bool>, slow: bool| {
        let bench = Bench::new(&["200;fine"]);
        bench.switches.lock().extend(switch.map(|on| ("spare", on)));
        bench.slow.store(slow, Ordering::Relaxed);
        bench
    };
    let steps = "{ when = ['slow'], value = { body = 's' } }, \
                 { when = ['switch:spare'], value = { body = 'w' } }";
    check_of(steps, &armed(None, false), get("/a"), "200 fine");
    check_of(steps, &armed(Some(false), false), get("/a"), "200 fine");
    check_of(steps, &armed(Some(true), false), get("/a"), "200 w [value/switch]");
    check_of(steps, &armed(None, true), get("/a"), "200 s [value/slow]");
    let both = "{ when = ['switch:spare'], silent = {} }";
    check_of(both, &armed(Some(true), true), get("/a"), "204  [silent/switch]");
}

/// Leaves the first minute behind. Each test has a clock of its own but the process has one zero,
/// and a test that began before it would see time stand still until then.
async fn later() {
    tokio::time::advance(Duration::from_mins(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_is_sent_later_and_then_left_alone() {
    later().await;
    let bench = Bench::new(&["200;fine", "circuit"]);
    bench.slow.store(true, Ordering::Relaxed);
    let steps = "{ when = ['slow'], delay = { seconds = 2 } }, { when = ['any'], silent = {} }";
    let fallbacks = bench.fallbacks(steps);
    let client = bench.route(&fallbacks);
    let before = MonotonicClock.now();
    assert_eq!(send(&client, get("/a")).await, "200 fine [delay/slow]");
    assert_eq!(MonotonicClock.now().since(before), Duration::from_secs(2));
    assert_eq!(send(&client, get("/a")).await, "!circuit-open 503 none [delay/slow]");
    assert_eq!(fallbacks.delayed(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_delayed_than_may_be_and_none_beyond_its_deadline() {
    later().await;
    let bench = Bench::new(&["200;fine"]);
    bench.slow.store(true, Ordering::Relaxed);
    let fallbacks = bench.fallbacks("{ when = ['slow'], delay = { seconds = 2, queue_max = 1 } }");
    let client = bench.route(&fallbacks);
    let mut first = tokio_test_task(send(&client, get("/a")));
    assert!(first.poll().is_pending());
    assert_eq!(fallbacks.delayed(), 1);
    assert_eq!(send(&client, get("/b")).await, "!delay-queue-full 503 none");
    drop(first);
    assert_eq!(fallbacks.delayed(), 0, "who gives up makes room");
    let hurried = with_deadline(get("/c"), Duration::from_secs(2));
    assert_eq!(send(&client, hurried).await, "200 fine");
}

/// A future that a test polls by hand.
struct ByHand<F>(std::pin::Pin<Box<F>>);

fn tokio_test_task<F: Future>(future: F) -> ByHand<F> {
    ByHand(Box::pin(future))
}

impl<F: Future> ByHand<F> {
    fn poll(&mut self) -> Poll<F::Output> {
        let waker = futures_util::task::noop_waker();
        self.0.as_mut().poll(&mut std::task::Context::from_waker(&waker))
    }
}

fn with_deadline(mut request: Request<Body>, span: Duration) -> Request<Body> {
    let at = MonotonicClock.now().plus(span);
    Context::of(&mut request).shorten(Deadline { at, covers: Covers::Exchange });
    request
}

fn others(name: &'static str, script: &[&'static str]) -> (Bench, Others) {
    let other = Bench::new(script);
    (other.clone(), Others([(name, other)].into()))
}

#[tokio::test(start_paused = true)]
async fn a_substitute_is_sent_the_whole_request_again() {
    later().await;
    let (other, found) = others("b", &["200;from b"]);
    let bench = Bench::new(&["circuit"]);
    let fallbacks = bench.fallbacks("{ when = ['any'], substitute = { service = 'b' } }");
    let client = bench.route_with(&fallbacks, found);
    assert_eq!(send(&client, post("hello there")).await, "200 from b [substitute/circuit]");
    assert_eq!(*bench.sent.lock(), ["hello there"]);
    assert_eq!(*other.sent.lock(), ["hello there"]);
    // More than is kept: there is nothing whole to send.
    let long = "x".repeat(65_537);
    assert_eq!(send(&client, post(&long)).await, "!circuit-open 503 none");
    assert_eq!(other.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_substitute_that_fails_passes_the_question_on() {
    later().await;
    let steps =
        "{ when = ['any'], substitute = { service = 'b' } }, { when = ['any'], silent = {} }";
    for failing in ["503;no", "timeout", "circuit"] {
        let (other, found) = others("b", &[failing]);
        let bench = Bench::new(&["circuit"]);
        let client = bench.route_with(&bench.fallbacks(steps), found.clone());
        assert_eq!(send(&client, get("/")).await, "204  [silent/circuit]");
        assert_eq!(other.asked(), 1, "each is asked once");
        let only = bench.fallbacks("{ when = ['any'], substitute = { service = 'b' } }");
        let got = send(&bench.route_with(&only, found), get("/")).await;
        assert_eq!(got, "!circuit-open 503 none", "the first failure is the caller's");
    }
    let (_, unknown) = others("c", &["200"]);
    let bench = Bench::new(&["circuit"]);
    let client = bench.route_with(&bench.fallbacks(steps), unknown);
    assert_eq!(send(&client, get("/")).await, "204  [silent/circuit]");
}

#[tokio::test(start_paused = true)]
async fn a_substitute_is_given_up_at_the_deadline() {
    later().await;
    let (_, found) = others("b", &["hang"]);
    let bench = Bench::new(&["circuit"]);
    let steps =
        "{ when = ['any'], substitute = { service = 'b' } }, { when = ['any'], silent = {} }";
    let client = bench.route_with(&bench.fallbacks(steps), found);
    let before = MonotonicClock.now();
    let hurried = with_deadline(get("/"), Duration::from_millis(300));
    assert_eq!(send(&client, hurried).await, "204  [silent/circuit]");
    assert_eq!(MonotonicClock.now().since(before), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_substitute_failed_beforehand_is_made_after_all() {
    later().await;
    let (other, found) = others("b", &["503"]);
    let bench = Bench::new(&["200;fine", "503;no"]);
    bench.slow.store(true, Ordering::Relaxed);
    let steps = "{ when = ['slow', 'any'], substitute = { service = 'b' } }";
    let client = bench.route_with(&bench.fallbacks(steps), found);
    assert_eq!(send(&client, post("whole")).await, "200 fine");
    assert_eq!(send(&client, post("whole")).await, "503 no");
    assert_eq!(*bench.sent.lock(), ["whole", "whole"]);
    assert_eq!(other.asked(), 2, "once for each call");
    bench.switches.lock().insert("recommend", false);
    let steps = "{ when = ['switch'], substitute = { service = 'b' } }";
    let (_, found) = others("b", &["503"]);
    let client = bench.route_with(&bench.fallbacks(steps), found);
    assert_eq!(send(&client, get("/")).await, "!switched-off 503 none");
}

const STALE: &str = "{ when = ['any'], stale = {} }";

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_is_given_until_it_is_too_old() {
    later().await;
    let bench = Bench::new(&["200;first", "200;second;etag:2;age:10", "503;no"]);
    let client = bench.route(&bench.fallbacks(STALE));
    assert_eq!(send(&client, get("/a?x=1")).await, "200 first");
    assert_eq!(send(&client, get("/a?x=1")).await, "200 second");
    tokio::time::advance(Duration::from_secs(30)).await;
    let answer = client.clone().oneshot(get("/a?x=1")).await.expect("an answer");
    assert_eq!(answer.body(), "second");
    let header = |name| answer.headers().get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((header("age"), header("etag")), (Some("40"), Some("2")));
    assert_eq!(send(&client, get("/a?x=2")).await, "503 no", "another question");
    tokio::time::advance(Duration::from_secs(261)).await;
    assert_eq!(send(&client, get("/a?x=1")).await, "503 no", "301 s old");
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_kept_is_not() {
    later().await;
    let asks = |header: Option<(&'static str, &'static str)>| {
        let mut request = get("/a");
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        request
    };
    let plain = || asks(None);
    let authorised = || asks(Some(("authorization", "Bearer a")));
    let by_principal = "{ when = ['any'], stale = { key = 'principal' } }";
    let good = "200;good";
    let cases: [(&str, &'static str, Request<Body>, Request<Body>, bool); 12] = [
        (STALE, good, plain(), plain(), true),
        (STALE, good, post("x"), post("x"), false),
        (STALE, "201;good", plain(), plain(), false),
        (STALE, "200;good;cache-control:max-age=1, No-Store", plain(), plain(), false),
        (STALE, "200;good;cache-control:private=\"x\"", plain(), plain(), false),
        (STALE, "200;good;set-cookie:a=b", plain(), plain(), false),
        (STALE, "200;good;vary:*", plain(), plain(), false),
        (STALE, good, authorised(), authorised(), false),
        (STALE, good, plain(), authorised(), false),
        (by_principal, good, authorised(), authorised(), true),
        (by_principal, good, authorised(), asks(Some(("authorization", "Bearer b"))), false),
        (by_principal, good, authorised(), plain(), false),
    ];
    for (steps, answer, first, second, kept) in cases {
        let bench = Bench::new(&[answer, "circuit"]);
        let client = bench.route(&bench.fallbacks(steps));
        send(&client, first).await;
        let got = send(&client, second).await;
        assert_eq!(got.starts_with("200 good [stale"), kept, "{steps} {answer}: {got}");
    }
    let bench = Bench::new(&["200;good;vary:accept, x-a", "circuit"]);
    let client = bench.route(&bench.fallbacks(STALE));
    send(&client, asks(Some(("accept", "text/html")))).await;
    let same = send(&client, asks(Some(("accept", "text/html")))).await;
    assert_eq!(same, "200 good [stale/circuit]");
    let other = send(&client, asks(Some(("accept", "image/png")))).await;
    assert_eq!(other, "!circuit-open 503 none");
}

#[tokio::test(start_paused = true)]
async fn principals_share_with_nobody() {
    later().await;
    let of = |name: &str| {
        let mut request = get("/a");
        let facts = Facts { principal: Some(name.into()), ..Facts::default() };
        request.extensions_mut().insert(Context::new(MonotonicClock.now(), facts));
        request
    };
    let bench = Bench::new(&["200;good", "circuit"]);
    let client = bench.route(&bench.fallbacks("{ when = ['any'], stale = { key = 'principal' } }"));
    send(&client, of("alice")).await;
    assert_eq!(send(&client, of("alice")).await, "200 good [stale/circuit]");
    assert_eq!(send(&client, of("bob")).await, "!circuit-open 503 none");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_not_read_to_its_end_is_not_kept() {
    later().await;
    let bench = Bench::new(&["200;a long answer", "circuit"]);
    let fallbacks = bench.fallbacks(STALE);
    let upstream = bench.clone();
    let inner = service_fn(move |request| upstream.clone().answer(request));
    let service =
        ServiceBuilder::new().layer(FallbackLayer::new(Arc::clone(&fallbacks), ())).service(inner);
    let mut response = service.clone().oneshot(get("/a")).await.expect("an answer");
    assert!(response.body_mut().frame().await.is_some());
    drop(response);
    let client = bench.route(&fallbacks);
    assert_eq!(send(&client, get("/a")).await, "!circuit-open 503 none");
    // Nor is one of more than a mebibyte.
    let long: &'static str = Box::leak(format!("200;{}", "x".repeat(1_048_577)).into_boxed_str());
    bench.script.lock().push_front(long);
    send(&client, get("/a")).await;
    assert_eq!(send(&client, get("/a")).await, "!circuit-open 503 none");
}

#[test]
fn the_store_stays_within_its_bytes() {
    let bench = Bench::new(&[Box::leak(format!("200;{}", "x".repeat(10_000)).into_boxed_str())]);
    let mut fallbacks = Fallbacks::new("r".into(), bench.fallbacks(STALE).policy().cloned());
    let store = Arc::new(StaleStore::new(200_000));
    fallbacks.stale = Some(Arc::clone(&store));
    let client = bench.route(&Arc::new(fallbacks));
    block_on(async {
        for n in 0..300 {
            send(&client, get(&format!("/{n}"))).await;
        }
    });
    store.settle();
    assert!((1..=200_000).contains(&store.bytes()), "{store:?}");
}

fn limit(toml: &str) -> Arc<SharedLimit> {
    let raw: RawLimit = toml::from_str(toml).expect("TOML");
    let policy = LimitPolicy::try_from(raw).expect("legal");
    Arc::new(SharedLimit::new("api".into(), Arc::new(policy)))
}

fn used(limit: &SharedLimit) -> u64 {
    match limit.usage() {
        LimitUsage::Lone(usage) | LimitUsage::InFlight { usage, .. } => usage.used,
        LimitUsage::Keyed(_) => unreachable!("not keyed"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_answered_without_an_upstream() {
    later().await;
    let (timed, in_flight) = ("max = 1\n", "kind = 'concurrency'\nmax = 1\n");
    let cases = [
        (timed, "", "!limited 429 none"),
        (timed, "{ when = ['limited'], silent = {} }", "204  [silent/limited]"),
        (timed, "{ when = ['any'], value = { body = 'x' } }", "200 x [value/limited]"),
        (timed, "{ when = ['any'], fail = { status = 420 } }", "!degraded 420 none [fail/limited]"),
        (timed, "{ when = ['shed', 'circuit'], silent = {} }", "!limited 429 none"),
        (timed, "{ when = ['any'], substitute = { service = 'b' } }", "!limited 429 none"),
        (in_flight, "{ when = ['shed'], silent = {} }", "204  [silent/shed]"),
        (in_flight, "{ when = ['limited'], silent = {} }", "!shed 503 none"),
    ];
    for (kind, steps, want) in cases {
        let limit = limit(&format!("{kind}on_deny = 'fallback'"));
        let bench = Bench::new(&["200;fine", "hang"]);
        let fallbacks = bench.fallbacks(steps);
        let client = bench.limited(&fallbacks, &limit);
        if kind == timed {
            assert_eq!(send(&client, get("/")).await, "200 fine");
            assert_eq!(send(&client, get("/")).await, want, "{kind} {steps}");
            assert_eq!(bench.asked(), 1);
        } else {
            bench.script.lock().pop_front();
            let mut first = tokio_test_task(send(&client, get("/")));
            assert!(first.poll().is_pending());
            assert_eq!(send(&client, get("/")).await, want, "{kind} {steps}");
            drop(first);
            assert_eq!(used(&limit), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_keeps_its_refusal_asks_nobody() {
    later().await;
    let limit = limit("max = 1");
    let bench = Bench::new(&["200;fine"]);
    let client = bench.limited(&bench.fallbacks("{ when = ['any'], silent = {} }"), &limit);
    send(&client, get("/")).await;
    assert_eq!(send(&client, get("/")).await, "!limited 429 none");
}

const DELAY: &str = "{ when = ['limited', 'shed'], delay = { seconds = 1 } }";

#[tokio::test(start_paused = true)]
async fn a_delayed_call_asks_its_limits_once_more() {
    later().await;
    let limit = limit("max = 1\nwindow_seconds = 1\non_deny = 'fallback'");
    let bench = Bench::new(&["200;fine"]);
    let client = bench.limited(&bench.fallbacks(DELAY), &limit);
    assert_eq!(send(&client, get("/")).await, "200 fine");
    let (second, third) = tokio::join!(send(&client, get("/")), send(&client, get("/")));
    let mut both = [second, third];
    both.sort();
    assert_eq!(both, ["!limited 429 none", "200 fine [delay/limited]"]);
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_holds_its_permit_until_its_body_ends() {
    later().await;
    let limit = limit("kind = 'concurrency'\nmax = 1\non_deny = 'fallback'");
    let bench = Bench::new(&["200;a long answer"]);
    let fallbacks = bench.fallbacks(DELAY);
    let upstream = bench.clone();
    let inner = service_fn(move |request| upstream.clone().answer(request));
    let limits: Arc<[_]> = Arc::new([Arc::clone(&limit)]);
    let service = ServiceBuilder::new()
        .layer(LimitLayer::new(limits, FromRequest, Arc::new(bench.clone())))
        .layer(FallbackLayer::new(Arc::clone(&fallbacks), ()))
        .service(inner);
    let first = service.clone().oneshot(get("/")).await.expect("an answer");
    let mut second = tokio_test_task(service.clone().oneshot(get("/")));
    assert!(second.poll().is_pending(), "delayed");
    drop(first);
    assert_eq!(used(&limit), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    let second = second.0.await.expect("an answer");
    assert_eq!(used(&limit), 1, "still streaming");
    let text = second.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!((text.as_ref(), used(&limit)), (b"a long answer".as_slice(), 0));
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_a_delay_has_taken_nothing() {
    later().await;
    let limit = limit("max = 1\nwindow_seconds = 1\non_deny = 'fallback'");
    let bench = Bench::new(&["200;fine"]);
    let fallbacks = bench.fallbacks(DELAY);
    let client = bench.limited(&fallbacks, &limit);
    send(&client, get("/")).await;
    let mut second = tokio_test_task(send(&client, get("/")));
    assert!(second.poll().is_pending());
    drop(second);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!((used(&limit), fallbacks.delayed(), bench.asked()), (0, 0, 1));
}
