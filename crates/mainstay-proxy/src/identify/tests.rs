//! The stage before a service that tells whom it was told of, with keys handed in by the test.

use std::future::Ready;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Context, Facts};
use mainstay_core::Clock as _;
use mainstay_core::problem::Code;
use mainstay_resilience::Failure;
use mainstay_resilience::deadline::{Covers, Deadline};
use mainstay_security::jws::{KeySet, Origin};
use serde_json::json;
use tower_service::Service;

use super::issuers::{Several, bearer};
use super::keys::{Fetched, Keys, WAIT, WAITING_MAX};
use super::policy::Policy;
use super::stage::Identify;
use super::verdicts::VERDICTS_MAX;
use crate::config::{Plane, RawPlane};
use crate::gateway::{Gateway, Parts};
use crate::metrics::Metrics;
use crate::time::wall_clock;

const CONFIG: &str = "
    [[gateway.jwt]]
    issuer = 'https://id.example'
    audiences = ['orders']
    algorithms = ['EdDSA']
    claims_to_headers = { sub = 'x-user' }
    [route.r]
    to = 's'
    jwt = 'required'
    [upstream.s]
    instances = ['127.0.0.1:1']";

/// Answers with the field that tells of the caller.
#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<String>;
    type Error = CallError;
    type Future = Ready<Result<Response<String>, CallError>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let user = request.headers().get("x-user").map(|user| user.to_str().unwrap().to_owned());
        std::future::ready(Ok(Response::new(user.unwrap_or_default())))
    }
}

/// A stage, and the keys of its issuer.
struct Stage {
    gateway: Arc<Gateway>,
    keys: Arc<Keys>,
    policy: Arc<Policy>,
}

struct Signer {
    kid: &'static str,
    key: Ed25519KeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        Self { kid, key: Ed25519KeyPair::generate().unwrap() }
    }

    fn jwk(&self) -> serde_json::Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x })
    }

    fn token(&self, sub: &str) -> String {
        let now = wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let claims =
            json!({ "iss": "https://id.example", "aud": "orders", "sub": sub, "exp": now + 600 });
        let header = json!({ "alg": "EdDSA", "kid": self.kid });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Stage {
    fn new(signers: &[&Signer]) -> Self {
        let raw: RawPlane = toml::from_str(CONFIG).expect("well-formed");
        let plane = Arc::new(Plane::resolve(raw).expect("legal"));
        let gateway = Gateway::new(plane, Parts::new(Metrics::new())).expect("no files");
        let running = gateway.running();
        let route = running.plane.routes.iter().next().expect("a route");
        let policy = Policy::of(route, &running.issuers).expect("it asks");
        let keys = Arc::clone(&running.issuers.iter().next().expect("an issuer").keys);
        let stage = Self { gateway, keys, policy };
        assert!(stage.keys.begin(MonotonicClock.now()), "keys are wanted from the start");
        stage.publish(signers);
        stage
    }

    /// A fetch ends with the keys of `signers`.
    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        let text = json!({ "keys": keys }).to_string();
        let keys = KeySet::parse(text.as_bytes(), Origin::Remote).expect("a key set");
        self.keys.ended(MonotonicClock.now(), 0, Ok(Fetched { keys, max_age: None }));
    }

    /// A call with `token`; whom the service is told of, or the code.
    fn call(&self, token: &str) -> impl Future<Output = Result<String, Code>> + use<> {
        self.call_within(token, None)
    }

    fn call_within(
        &self,
        token: &str,
        patience: Option<Duration>,
    ) -> impl Future<Output = Result<String, Code>> + use<> {
        let mut request = Request::new(());
        let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
        let now = MonotonicClock.now();
        let context = Context::new(now, Facts::default());
        if let Some(patience) = patience {
            context.shorten(Deadline { at: now.plus(patience), covers: Covers::Exchange });
        }
        request.extensions_mut().insert(context);
        let coming = Identify::new(Some(Arc::clone(&self.policy)), Inner).call(request);
        async move { coming.await.map(Response::into_body).map_err(|error| error.code()) }
    }

    fn counted(&self, result: &str) -> u64 {
        let text = self.gateway.parts().metrics.encode().unwrap();
        let label = format!("issuer=\"https://id.example\",result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| {
            line.strip_prefix("mainstay_jwt_checks_total{")?.strip_prefix(&*label)
        });
        line.map_or(0, |count| count.parse().unwrap())
    }
}

#[tokio::test]
async fn a_token_is_verified_once_a_minute_and_no_longer_than_its_key_is_there() {
    let (a, b) = (Signer::new("a"), Signer::new("b"));
    let stage = Stage::new(&[&a]);
    let token = a.token("ada");
    for _time in 0..5 {
        assert_eq!(stage.call(&token).await.as_deref(), Ok("ada"));
    }
    assert_eq!((stage.counted("verified"), stage.counted("cached")), (1, 4));
    // Another set with the same key: it still counts.
    stage.publish(&[&a, &b]);
    assert_eq!(stage.call(&token).await.as_deref(), Ok("ada"));
    assert_eq!((stage.counted("verified"), stage.counted("cached")), (1, 5));
    stage.publish(&[&b]);
    let refused = stage.call(&token);
    // Whoever fetches brings the same.
    let fetch = async {
        while !stage.keys.begin(MonotonicClock.now()) {
            tokio::task::yield_now().await;
        }
        stage.publish(&[&b]);
    };
    assert_eq!(tokio::join!(refused, fetch).0, Err(Code::JwtInvalid));
    // Another key under the same name is another key.
    stage.publish(&[&Signer::new("a")]);
    assert_eq!(stage.call(&token).await, Err(Code::JwtInvalid));
}

#[tokio::test]
async fn a_request_waits_for_the_key_that_it_names() {
    let (a, b) = (Signer::new("a"), Signer::new("b"));
    let stage = Stage::new(&[&a]);
    let (first, second) = (stage.call(&b.token("bob")), stage.call(&b.token("bea")));
    let fetch = async {
        tokio::task::yield_now().await;
        assert!(stage.keys.begin(MonotonicClock.now()), "a fetch is asked for");
        assert!(!stage.keys.begin(MonotonicClock.now()), "and no second one");
        stage.publish(&[&a, &b]);
    };
    let (first, second, ()) = tokio::join!(first, second, fetch);
    assert_eq!((first.as_deref(), second.as_deref()), (Ok("bob"), Ok("bea")));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_keys_for_longer_than_two_seconds_or_his_deadline() {
    let stage = Stage::new(&[&Signer::new("a")]);
    let unknown = Signer::new("b").token("bob");
    let began = tokio::time::timeout(WAIT + Duration::from_millis(10), stage.call(&unknown)).await;
    assert_eq!(began, Ok(Err(Code::JwtInvalid)));
    let patience = Duration::from_millis(200);
    let short = stage.call_within(&unknown, Some(patience));
    let ended = tokio::time::timeout(Duration::from_millis(210), short).await;
    // The machine's clock stands by the clock of the test: either says that time is up.
    let ended = ended.expect("it ends with its deadline");
    let late = Failure::Deadline { sent: false }.code();
    assert!(matches!(ended, Err(code) if code == late || code == Code::JwtInvalid), "{ended:?}");
}

#[tokio::test]
async fn places_of_those_who_wait_are_bounded_and_given_back() {
    let stage = Stage::new(&[&Signer::new("a")]);
    let unknown = Signer::new("b").token("bob");
    let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(stage.call(&unknown))).collect();
    assert!(waiting.iter_mut().all(|call| poll(call.as_mut()).is_pending()));
    let mut more = Box::pin(stage.call(&unknown));
    assert_eq!(poll(more.as_mut()), Poll::Ready(Err(Code::JwtInvalid)));
    waiting.truncate(WAITING_MAX - 1);
    let mut more = Box::pin(stage.call(&unknown));
    assert!(poll(more.as_mut()).is_pending());
}

/// Polls `future` once; nobody is woken.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(std::task::Waker::noop()))
}

/// More tokens than there are places: all are right, and the table does not grow.
#[tokio::test]
async fn tokens_beyond_the_table_are_verified_again() {
    let a = Signer::new("a");
    let stage = Stage::new(&[&a]);
    let tokens: Vec<String> = (0..200).map(|n| a.token(&format!("user {n}"))).collect();
    for _round in 0..2 {
        for (n, token) in tokens.iter().enumerate() {
            assert_eq!(stage.call(token).await, Ok(format!("user {n}")));
        }
    }
    assert_eq!(stage.counted("verified") + stage.counted("cached"), 400);
    assert!(stage.counted("cached") > 190, "hardly two of 200 share four of {VERDICTS_MAX} places");
}

#[tokio::test]
async fn without_keys_it_says_when_to_come_back() {
    let a = Signer::new("a");
    let raw: RawPlane = toml::from_str(CONFIG).expect("well-formed");
    let plane = Arc::new(Plane::resolve(raw).expect("legal"));
    let gateway = Gateway::new(plane, Parts::new(Metrics::new())).expect("no files");
    let running = gateway.running();
    let route = running.plane.routes.iter().next().expect("a route");
    let policy = Policy::of(route, &running.issuers).expect("it asks");
    let mut request = Request::new(());
    let value = HeaderValue::try_from(format!("Bearer {}", a.token("ada"))).unwrap();
    request.headers_mut().insert(AUTHORIZATION, value);
    let refused = Identify::new(Some(policy), Inner).call(request).await.unwrap_err();
    let problem = refused.problem();
    assert_eq!((problem.code, problem.status), (Code::JwksUnavailable, 503));
    assert!(problem.retry_after >= Some(Duration::from_secs(1)));
}

#[test]
fn the_credential_is_found_where_it_stands() {
    let read = |fields: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_static(field));
        }
        bearer(&headers).map(|token| token.map(|token| String::from_utf8_lossy(token).into_owned()))
    };
    let some = |token: &str| Ok(Some(token.to_owned()));
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&["Basic YTpi"]), Ok(None));
    assert_eq!(read(&["Bearerx a"]), Ok(None));
    assert_eq!(read(&["Bea"]), Ok(None));
    assert_eq!(read(&["Bearer"]), some(""));
    assert_eq!(read(&["bEARER   a.b.c"]), some("a.b.c"));
    assert_eq!(read(&["Bearer a", "Bearer a"]), Err(Several));
    assert_eq!(read(&["Basic a", "Bearer a"]), Err(Several));
}
