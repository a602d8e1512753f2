//! The limit stage, and the limits behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, Full};
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::Context;
use mainstay_call::limit::{LimitUsage, SharedLimit};
use mainstay_call::observe::Observer;
use mainstay_call::stage::limit::{FromRequest, Limit, LimitLayer};
use mainstay_core::Clock;
use mainstay_core::problem::Code;
use mainstay_resilience::Failure;
use mainstay_resilience::deadline::{Covers, Deadline};
use mainstay_resilience::limit::{LimitPolicy, RawLimit, Usage};
use parking_lot::Mutex;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt, service_fn};

type Upstream = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Full<Bytes>>, CallError>;

/// Writes down what limits decide.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn limit_decided(&self, limit: &str, decision: &'static str) {
        self.0.lock().push(format!("{limit} {decision}"));
    }
}

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

fn policy(toml: &str) -> Arc<LimitPolicy> {
    let raw: RawLimit = toml::from_str(toml).expect("TOML");
    Arc::new(LimitPolicy::try_from(raw).expect("legal"))
}

fn limit(name: &str, toml: &str) -> Arc<SharedLimit> {
    Arc::new(SharedLimit::new(name.into(), policy(toml)))
}

fn usage(limit: &SharedLimit) -> Usage {
    match limit.usage() {
        LimitUsage::Lone(usage) | LimitUsage::InFlight { usage, .. } => usage,
        LimitUsage::Keyed(_) => unreachable!("not keyed"),
    }
}

/// Limits before an upstream.
struct Bench {
    service: Limit<Upstream, FromRequest>,
    told: Arc<Told>,
    asked: Arc<AtomicUsize>,
}

impl Bench {
    /// An upstream that answers `x` after `takes`.
    fn new(limits: &[&Arc<SharedLimit>], takes: Duration) -> Self {
        Self::before(limits, move || async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            Ok(Response::new(Full::from("x")))
        })
    }

    fn before<F>(
        limits: &[&Arc<SharedLimit>],
        upstream: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Response<Full<Bytes>>, CallError>> + Send + 'static,
    {
        let (told, asked) = (Arc::new(Told::default()), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let inner = BoxCloneSyncService::new(service_fn(move |_request| {
            count.fetch_add(1, Ordering::Relaxed);
            upstream()
        }));
        let limits: Vec<_> = limits.iter().copied().map(Arc::clone).collect();
        let layer = LimitLayer::new(limits, FromRequest, Arc::clone(&told) as Arc<dyn Observer>);
        Self { service: ServiceBuilder::new().layer(layer).service(inner), told, asked }
    }

    async fn ask(&self) -> Result<Response<Bytes>, CallError> {
        self.send(request()).await
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Result<Response<Bytes>, CallError> {
        let (parts, body) = self.service.clone().oneshot(request).await?.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    /// `y` granted, `n` refused.
    async fn pattern(&self, calls: usize) -> String {
        let mut pattern = String::new();
        for _ in 0..calls {
            pattern.push(if self.ask().await.is_ok() { 'y' } else { 'n' });
        }
        pattern
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn request() -> Request<Empty<Bytes>> {
    Request::new(Empty::new())
}

fn code(result: &Result<Response<Bytes>, CallError>) -> Code {
    result.as_ref().expect_err("a refusal").code()
}

/// Leaves the first minute behind. Each test has a clock of its own but the process has one zero,
/// and a test that began before it would see time stand still until then.
async fn later() {
    tokio::time::advance(Duration::from_mins(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_lets_through_what_it_holds() {
    later().await;
    let api = limit("api", "max = 2\nwindow_seconds = 1");
    let bench = Bench::new(&[&api], Duration::ZERO);
    assert_eq!(bench.pattern(3).await, "yyn");
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(bench.pattern(2).await, "yn");
    assert_eq!(bench.asked(), 3);
    let granted_denied = ["api granted", "api granted", "api denied", "api granted", "api denied"];
    assert_eq!(bench.told.take(), granted_denied);
    let refused = bench.ask().await.expect_err("a refusal").problem();
    assert_eq!((refused.code, refused.status), (Code::Limited, 429));
    assert_eq!(refused.retry_after, Some(Duration::from_millis(500)));
    let evidence = refused.rejection.expect("evidence");
    assert_eq!((&*evidence.observed, &*evidence.threshold), ("2 units", "2 units"));
}

#[tokio::test(start_paused = true)]
async fn an_observing_limit_counts_what_it_would_refuse() {
    later().await;
    for kind in ["bucket", "sliding", "counter"] {
        let api = limit("api", &format!("kind = '{kind}'\nmax = 1\nmode = 'observe'"));
        let bench = Bench::new(&[&api], Duration::ZERO);
        assert_eq!(bench.pattern(3).await, "yyy");
        let told = ["api granted", "api would-reject", "api would-reject"];
        assert_eq!(bench.told.take(), told, "{kind}");
        let tally = usage(&api).tally;
        assert_eq!((tally.granted, tally.would_reject, tally.denied), (3, 2, 0), "{kind}");
    }
    let api = limit("api", "kind = 'concurrency'\nmax = 1\nmode = 'observe'");
    let bench = Bench::new(&[&api], Duration::from_secs(1));
    let (first, second) = tokio::join!(bench.ask(), bench.ask());
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(bench.told.take(), ["api granted", "api would-reject"]);
}

#[tokio::test(start_paused = true)]
async fn all_limits_grant_or_none_keeps_anything() {
    later().await;
    for kind in ["bucket", "sliding", "counter"] {
        let first = limit("first", &format!("kind = '{kind}'\nmax = 10"));
        let second = limit("second", "max = 1");
        let bench = Bench::new(&[&first, &second], Duration::ZERO);
        assert_eq!(bench.pattern(4).await, "ynnn");
        assert_eq!((usage(&first).used, usage(&second).used), (1, 1), "{kind}");
    }
    let first = limit("first", "max = 10\nkey = ['header:a']");
    let second = limit("second", "kind = 'concurrency'\nmax = 1");
    let bench = Bench::new(&[&first, &second], Duration::from_secs(1));
    let mut held = Box::pin(bench.ask());
    assert!(held.as_mut().now_or_never().is_none());
    for _ in 0..20 {
        assert_eq!(code(&bench.ask().await), Code::Shed);
    }
    drop(held);
    assert_eq!(usage(&second).used, 0);
}

#[tokio::test(start_paused = true)]
async fn paced_calls_go_in_their_slots_and_not_beyond_their_deadline() {
    later().await;
    let paced = limit("paced", "kind = 'pacing'\nmax = 10\nwait_max_seconds = 0.5");
    let bench = Bench::new(&[&paced], Duration::ZERO);
    let began = MonotonicClock.now();
    let at = |bench: &Bench| {
        let call = bench.service.clone().oneshot(request());
        async move {
            let result = call.await;
            result.map(|_| MonotonicClock.now().since(began).as_millis())
        }
    };
    let calls: Vec<_> = (0..7).map(|_| at(&bench)).collect();
    let mut slots: Vec<_> = futures_util::future::join_all(calls).await;
    assert!(slots.pop().is_some_and(|last| last.is_err()));
    let slots: Vec<_> = slots.into_iter().map(|slot| slot.expect("granted")).collect();
    // The timer's grain is a millisecond; it is never early.
    for (slot, at) in slots.iter().zip([0, 100, 200, 300, 400, 500]) {
        assert!((at..=at + 1).contains(slot), "{slots:?}");
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(bench.ask().await.is_ok());
    let mut hurried = request();
    let deadline = MonotonicClock.now().plus(Duration::from_millis(50));
    Context::of(&mut hurried).shorten(Deadline { at: deadline, covers: Covers::Head });
    assert_eq!(code(&bench.send(hurried).await), Code::Limited);
    assert_eq!(MonotonicClock.now().since(deadline), Duration::ZERO);
    assert!(MonotonicClock.now() < deadline, "refused at once");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_has_taken_nothing() {
    later().await;
    let first = limit("first", "max = 10");
    let paced = limit("paced", "kind = 'pacing'\nmax = 1\nwait_max_seconds = 5");
    let bench = Bench::new(&[&first, &paced], Duration::ZERO);
    assert!(bench.ask().await.is_ok());
    {
        let mut waits = std::pin::pin!(bench.ask());
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(usage(&first).used, 2);
    }
    assert_eq!(usage(&first).used, 1);
    let before = MonotonicClock.now();
    assert!(bench.ask().await.is_ok());
    let waited = MonotonicClock.now().since(before);
    assert!(waited <= Duration::from_millis(1_001), "the slot is free again: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_after_the_call_was_sent_stays_counted() {
    later().await;
    let (bucket, counter) = (limit("a", "max = 10"), limit("b", "kind = 'counter'\nmax = 10"));
    let permits = limit("c", "kind = 'concurrency'\nmax = 1");
    let bench = Bench::new(&[&bucket, &counter, &permits], Duration::from_millis(10));
    {
        let mut sent = std::pin::pin!(bench.ask());
        assert!(sent.as_mut().now_or_never().is_none());
        assert_eq!(bench.asked(), 1);
    }
    assert_eq!((usage(&bucket).used, usage(&counter).used, usage(&permits).used), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_body_ends() {
    later().await;
    let permits = limit("permits", "kind = 'concurrency'\nmax = 1");
    let bench = Bench::new(&[&permits], Duration::ZERO);
    let response = bench.service.clone().oneshot(request()).await.expect("granted");
    assert!(!response.body().is_end_stream());
    assert_eq!(code(&bench.ask().await), Code::Shed);
    assert!(response.into_body().collect().await.is_ok());
    // Given up half way is an end, too.
    drop(bench.service.clone().oneshot(request()).await.expect("granted"));
    assert!(bench.ask().await.is_ok());
    assert_eq!(usage(&permits).used, 0);
}

/// The order in which three waiters get the one permit.
async fn order_of(order: &str) -> Vec<usize> {
    let toml = "kind = 'concurrency'\nmax = 1\nqueue_max = 3\nwait_max_seconds = 60";
    let permits = limit("permits", &format!("{toml}\norder = '{order}'"));
    let bench = Arc::new(Bench::new(&[&permits], Duration::from_millis(10)));
    let served = Arc::new(Mutex::new(Vec::new()));
    let set = tokio::task::LocalSet::new();
    for n in 0..5 {
        let (bench, served) = (Arc::clone(&bench), Arc::clone(&served));
        set.spawn_local(async move {
            if bench.ask().await.is_ok() {
                served.lock().push(n);
            }
        });
    }
    set.await;
    assert_eq!(usage(&permits).used, 0);
    Arc::into_inner(served).expect("all are done").into_inner()
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_the_order_of_the_policy() {
    later().await;
    assert_eq!(order_of("fifo").await, [0, 1, 2, 3]);
    assert_eq!(order_of("lifo").await, [0, 3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_or_waited_too_long_makes_room() {
    later().await;
    let toml = "kind = 'concurrency'\nmax = 1\nqueue_max = 1\nwait_max_seconds = 1";
    let permits = limit("permits", toml);
    let bench = Bench::new(&[&permits], Duration::from_secs(10));
    let mut first = Box::pin(bench.ask());
    assert!(first.as_mut().now_or_never().is_none());
    {
        let mut second = std::pin::pin!(bench.ask());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(code(&bench.ask().await), Code::Shed, "the queue is full");
    }
    let began = MonotonicClock.now();
    assert_eq!(code(&bench.ask().await), Code::Shed);
    assert!(MonotonicClock.now().since(began) >= Duration::from_secs(1), "after waiting");
    let mut third = Box::pin(bench.ask());
    assert!(third.as_mut().now_or_never().is_none());
    drop(first);
    // The permit has been handed over; who leaves now passes it on.
    drop(third);
    assert_eq!(usage(&permits).used, 0);
}

#[tokio::test(start_paused = true)]
async fn keys_have_quotas_of_their_own_and_answers_say_what_is_left() {
    later().await;
    let api = limit("order-api", "max = 2\nkey = ['header:x-user', 'query:q']");
    let bench = Bench::new(&[&api], Duration::ZERO);
    let of = |user: &str| {
        let request = Request::builder().uri("/?q=1").header("x-user", user);
        request.body(Empty::new()).expect("a request")
    };
    let answer = bench.send(of("a")).await.expect("granted");
    assert_eq!(answer.headers()["ratelimit-policy"], "\"order-api\";q=2;w=1");
    assert_eq!(answer.headers()["ratelimit"], "\"order-api\";r=1;t=1");
    let mut refused = of("a");
    assert!(bench.send(of("a")).await.is_ok());
    let context = Context::of(&mut refused);
    assert_eq!(code(&bench.send(refused).await), Code::Limited);
    let mut headers = http::HeaderMap::new();
    context.quota().expect("a quota").write(&mut headers);
    assert_eq!(headers["ratelimit"], "\"order-api\";r=0;t=1");
    assert!(bench.send(of("b")).await.is_ok());
    let top: Vec<_> = api.top(2).into_iter().map(|key| key.text).collect();
    assert_eq!(top.first().map(|text| &**text), Some("a 1"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_left_to_a_fallback_that_is_not_there_stands() {
    later().await;
    let api = limit("api", "max = 1\non_deny = 'fallback'");
    let bench = Bench::new(&[&api], Duration::ZERO);
    assert_eq!(bench.pattern(3).await, "ynn");
    assert_eq!(code(&bench.ask().await), Code::Limited);
}

#[test]
fn a_bucket_grants_each_unit_once() {
    for mode in ["enforce", "observe"] {
        let api = limit("api", &format!("max = 10\nwindow_seconds = 3600\nmode = '{mode}'"));
        let bench = Bench::new(&[&api], Duration::ZERO);
        let ready = std::sync::Barrier::new(64);
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    ready.wait();
                    for _ in 0..20 {
                        let _ended = bench.ask().now_or_never().expect("no wait");
                    }
                });
            }
        });
        let tally = usage(&api).tally;
        match mode {
            "enforce" => {
                assert_eq!((tally.granted, tally.denied), (10, 1_270));
                assert_eq!(bench.asked(), 10);
            }
            _ => {
                assert_eq!((tally.granted, tally.would_reject), (1_280, 1_270));
                assert_eq!(bench.asked(), 1_280);
            }
        }
    }
}

#[test]
fn a_change_of_policy_among_threads_adds_nothing() {
    let small = policy("max = 10\nwindow_seconds = 3600");
    let other = policy("max = 10\nwindow_seconds = 3599");
    let api = limit("api", "max = 10\nwindow_seconds = 3600");
    let bench = Bench::new(&[&api], Duration::ZERO);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..500 {
                assert!(api.set_policy(if n % 2 == 0 { &other } else { &small }));
            }
        });
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let _ended = bench.ask().now_or_never().expect("no wait");
                }
            });
        }
    });
    assert_eq!(bench.asked(), 10);
    assert_eq!(usage(&api).used, 10);
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_keeps_what_was_used_and_learned() {
    later().await;
    let api = limit("api", "max = 10");
    let bench = Bench::new(&[&api], Duration::ZERO);
    assert_eq!(bench.pattern(9).await, "yyyyyyyyy");
    assert!(api.set_policy(&policy("max = 4")));
    assert_eq!(bench.pattern(2).await, "yn", "one unit was left, not four");
    assert!(api.set_policy(&policy("max = 4\nmode = 'observe'")));
    assert_eq!(bench.pattern(2).await, "yy");
    for other in ["kind = 'counter'\nmax = 4", "kind = 'concurrency'\nmax = 4"] {
        assert!(!api.set_policy(&policy(other)), "{other} needs another gate");
    }
    assert!(!api.set_policy(&policy("max = 4\nkey = ['principal']")));
    assert_eq!(api.policy(), policy("max = 4\nmode = 'observe'"));
}

/// Rounds of `calls` at once, a second apart.
async fn rounds(bench: &Bench, rounds: usize, calls: usize) {
    for _ in 0..rounds {
        futures_util::future::join_all((0..calls).map(|_| bench.ask())).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_learns_from_how_calls_end() {
    later().await;
    let adaptive = |rest: &str| {
        limit("a", &format!("kind = 'adaptive'\nalgorithm = 'aimd'\ninitial = 20\n{rest}"))
    };
    let good = adaptive("");
    rounds(&Bench::new(&[&good], Duration::from_millis(5)), 3, 15).await;
    assert!(usage(&good).capacity > 20, "{:?}", usage(&good));
    assert!(good.set_policy(&policy("kind = 'adaptive'\nalgorithm = 'aimd'\nfloor = 2")));
    assert!(usage(&good).capacity > 20, "what was learned stays");
    let ceiling = "kind = 'adaptive'\nalgorithm = 'aimd'\ninitial = 7\nceiling = 7";
    assert!(good.set_policy(&policy(ceiling)));
    assert_eq!(usage(&good).capacity, 7);

    let timeouts = adaptive("");
    let failing = || async { Err(Failure::RequestTimeout.into()) };
    rounds(&Bench::before(&[&timeouts], failing), 3, 15).await;
    assert!(usage(&timeouts).capacity < 20, "{:?}", usage(&timeouts));

    let refused = adaptive("");
    let busy = || async {
        let response = Response::builder().status(429).body(Full::default());
        Ok(response.expect("an answer"))
    };
    rounds(&Bench::before(&[&refused], busy), 3, 15).await;
    assert!(usage(&refused).capacity < 20, "{:?}", usage(&refused));

    let broken = adaptive("");
    let error = || async {
        let response = Response::builder().status(500).body(Full::default());
        Ok(response.expect("an answer"))
    };
    rounds(&Bench::before(&[&broken], error), 3, 15).await;
    assert_eq!(usage(&broken).capacity, 20, "a failure says nothing of load");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_polled_again_is_still_one_wait() {
    later().await;
    let paced = limit("paced", "kind = 'pacing'\nmax = 1\nwait_max_seconds = 5");
    let bench = Bench::new(&[&paced], Duration::ZERO);
    assert!(bench.ask().await.is_ok());
    let mut waits = Box::pin(bench.ask());
    for _ in 0..3 {
        assert!(waits.as_mut().now_or_never().is_none());
    }
    assert!(waits.await.is_ok());
    assert_eq!(bench.told.take(), ["paced granted", "paced waited"]);
}
