//! Each stage alone, in a `tower::ServiceBuilder`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use mainstay_call::CallError;
use mainstay_call::budget::SharedBudget;
use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::limit::SharedLimit;
use mainstay_call::observe::Silent;
use mainstay_call::stage::circuit::CircuitLayer;
use mainstay_call::stage::deadline::{DeadlineLayer, DeadlinePolicy};
use mainstay_call::stage::limit::{FromRequest, LimitLayer};
use mainstay_call::stage::retry::{MostAttempts, Retries, RetryLayer};
use mainstay_call::stage::timeout::{TimeoutLayer, TimeoutPolicy};
use mainstay_core::problem::Code;
use mainstay_resilience::circuit::Scope;
use mainstay_resilience::deadline::Patience;
use mainstay_resilience::limit::{LimitPolicy, RawLimit};
use mainstay_resilience::retry::RetryPolicy;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::peers::request;

type Answer = Result<Response<Full<Bytes>>, CallError>;

#[expect(clippy::unnecessary_wraps, reason = "what a service answers")]
fn ok() -> Answer {
    Ok(Response::new(Full::default()))
}

fn code<R>(result: Result<R, CallError>) -> Option<Code> {
    result.err().map(|error| error.code())
}

#[tokio::test(start_paused = true)]
async fn deadline() {
    let patience = Patience { timeout: Duration::from_secs(2), max: Duration::from_secs(2) };
    let policy = DeadlinePolicy { patience, idle: Duration::from_mins(1) };
    let mut service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(policy))
        .service_fn(async |_: Request<Full<Bytes>>| -> Answer { std::future::pending().await });
    let result = service.ready().await.unwrap().call(request(Method::GET)).await;
    assert_eq!(code(result), Some(Code::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn limit() {
    let raw = RawLimit { max: Some(1), ..RawLimit::default() };
    let limit = SharedLimit::new("api".into(), Arc::new(LimitPolicy::try_from(raw).unwrap()));
    let layer = LimitLayer::new(vec![Arc::new(limit)], FromRequest, Arc::new(Silent));
    let answer = tower::service_fn(async |_: Request<Full<Bytes>>| ok());
    let mut service = ServiceBuilder::new().layer(layer).service(answer);
    assert_eq!(code(service.ready().await.unwrap().call(request(Method::GET)).await), None);
    let refused = service.ready().await.unwrap().call(request(Method::GET)).await;
    assert_eq!(code(refused), Some(Code::Limited));
}

#[tokio::test(start_paused = true)]
async fn retry() {
    let policy = RetryPolicy::default();
    let retries = Retries {
        most: MostAttempts::default(),
        service: "order".into(),
        budget: Arc::new(SharedBudget::new(policy.budget)),
        policy,
        observer: Arc::new(Silent),
    };
    let sent = Arc::new(std::sync::atomic::AtomicU16::new(0));
    let count = Arc::clone(&sent);
    let answer =
        tower::service_fn(move |_: Request<mainstay_call::replay::Replay<Full<Bytes>>>| {
            let before = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut response = Response::new(Full::<Bytes>::default());
            if before < 2 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            std::future::ready(Ok::<_, CallError>(response))
        });
    let layer = RetryLayer::new(Arc::new(retries));
    let mut service = ServiceBuilder::new().layer(layer).service(answer);
    let answer = service.ready().await.unwrap().call(request(Method::GET)).await.unwrap();
    assert_eq!(
        (answer.status(), sent.load(std::sync::atomic::Ordering::Relaxed)),
        (StatusCode::OK, 3)
    );
    sent.store(0, std::sync::atomic::Ordering::Relaxed);
    // The header is read by this layer when nobody above has done it.
    let mut repeated = request(Method::GET);
    repeated.headers_mut().insert("mainstay-attempt", "2".parse().unwrap());
    let answer = service.ready().await.unwrap().call(repeated).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn circuit() {
    let key = CircuitKey { policy: "default".into(), subject: "order".into() };
    let circuit = Arc::new(SharedCircuit::new(key, Arc::default(), 7, Arc::new(Silent)));
    let layer = CircuitLayer::new([circuit].into(), Arc::default());
    let answer = tower::service_fn(async |_: Request<Full<Bytes>>| -> Answer {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        Ok(response)
    });
    let mut service = ServiceBuilder::new().layer(layer).service(answer);
    for _ in 0..5 {
        assert_eq!(code(service.ready().await.unwrap().call(request(Method::GET)).await), None);
    }
    match service.ready().await.unwrap().call(request(Method::GET)).await {
        Err(CallError::Refused(refusal)) => {
            assert_eq!((refusal.code, refusal.scope), (Code::CircuitOpen, Some(Scope::Instance)));
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[tokio::test(start_paused = true)]
async fn timeout() {
    let policy = TimeoutPolicy { attempt: Some(Duration::from_secs(1)), hop: Duration::ZERO };
    let never = tower::service_fn(async |request: Request<Full<Bytes>>| -> Answer {
        assert_eq!(request.headers()["mainstay-timeout-ms"], "1000");
        std::future::pending().await
    });
    let mut service = ServiceBuilder::new().layer(TimeoutLayer::new(policy)).service(never);
    let result = service.ready().await.unwrap().call(request(Method::GET)).await;
    assert_eq!(code(result), Some(Code::UpstreamTimeout));
}
