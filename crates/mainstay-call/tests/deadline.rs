//! The deadline stage.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::Context;
use mainstay_call::stage::deadline::{DeadlineLayer, DeadlinePolicy, arriving, covers};
use mainstay_core::Clock;
use mainstay_core::problem::Code;
use mainstay_resilience::deadline::{Covers, Deadline, Patience};
use tower::{ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// A body that gives a part every so often, for ever.
struct Trickle {
    every: Duration,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Trickle {
    fn new(every: Duration) -> Self {
        Self { every, sleep: Box::pin(tokio::time::sleep(every)) }
    }
}

impl Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.sleep.as_mut().poll(cx));
        self.sleep = Box::pin(tokio::time::sleep(self.every));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

#[derive(Clone, Copy)]
struct Call {
    headers: &'static [(&'static str, &'static str)],
    head: Duration,
    every: Duration,
}

/// A call to a route of 15 s (at most 60) and 5 s idle; how and when it ended. A body that is
/// still moving after a minute is taken for one without an end.
async fn play(call: Call) -> String {
    let patience = Patience { timeout: Duration::from_secs(15), max: Duration::from_mins(1) };
    let policy = DeadlinePolicy { patience, idle: Duration::from_secs(5) };
    let inner = service_fn(move |_request: Request<Empty<Bytes>>| async move {
        tokio::time::sleep(call.head).await;
        Ok::<_, CallError>(Response::new(Trickle::new(call.every)))
    });
    let service = ServiceBuilder::new().layer(DeadlineLayer::new(policy)).service(inner);
    let mut request = Request::builder();
    for (name, value) in call.headers {
        request = request.header(*name, *value);
    }
    let began = MonotonicClock.now();
    let seconds = || MonotonicClock.now().since(began).as_secs();
    let request = request.body(Empty::new()).expect("a request");
    let mut body = match service.oneshot(request).await {
        Ok(response) => response.into_body(),
        Err(error) => return format!("no head, {} after {} s", error.code(), seconds()),
    };
    while seconds() < 60 {
        if let Some(Err(error)) = body.frame().await {
            let code = error.downcast_ref::<CallError>().map(CallError::code);
            return format!("{} after {} s", code.map_or("?", Code::as_str), seconds());
        }
    }
    "no end".to_owned()
}

/// Leaves the first minute behind. Each test has a clock of its own but the process has one zero,
/// and a test that began before it would see time stand still until then.
async fn later() {
    tokio::time::advance(Duration::from_mins(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_covers_what_it_is_meant_for() {
    later().await;
    let (slow, steady) = (Duration::from_secs(20), Duration::from_secs(4));
    let ours: &[_] = &[("mainstay-timeout-ms", "10000")];
    let marked: &[_] = &[("mainstay-timeout-ms", "10000"), ("mainstay-timeout-scope", "head")];
    let grpc: &[_] = &[("grpc-timeout", "9S"), ("mainstay-timeout-ms", "10000")];
    let cases = [
        (Call { headers: &[], head: SECOND, every: steady }, "no end"),
        (Call { headers: &[], head: SECOND, every: slow }, "response-truncated after 6 s"),
        (Call { headers: &[], head: slow, every: SECOND }, "no head, deadline-exceeded after 15 s"),
        (Call { headers: ours, head: SECOND, every: steady }, "deadline-exceeded after 10 s"),
        (
            Call { headers: ours, head: slow, every: SECOND },
            "no head, deadline-exceeded after 10 s",
        ),
        (Call { headers: marked, head: SECOND, every: steady }, "no end"),
        (
            Call { headers: marked, head: slow, every: SECOND },
            "no head, deadline-exceeded after 10 s",
        ),
        (Call { headers: grpc, head: SECOND, every: steady }, "deadline-exceeded after 9 s"),
    ];
    for (call, want) in cases {
        assert_eq!(play(call).await, want, "{:?}", call.headers);
    }
}

/// A body that always has one more part.
struct Ready;

impl Body for Ready {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

/// Seconds in which a body that is always ready was read, of at most a minute.
async fn read_ready(headers: &[(&'static str, &'static str)]) -> u32 {
    let patience = Patience { timeout: Duration::from_secs(15), max: Duration::from_mins(1) };
    let policy = DeadlinePolicy { patience, idle: Duration::from_secs(5) };
    let inner = service_fn(|_request: Request<Empty<Bytes>>| async {
        Ok::<_, CallError>(Response::new(Ready))
    });
    let service = ServiceBuilder::new().layer(DeadlineLayer::new(policy)).service(inner);
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new()).expect("a request");
    let mut body = service.oneshot(request).await.expect("a head").into_body();
    for second in 0..60 {
        match body.frame().await.expect("there is always more") {
            Ok(_part) => tokio::time::advance(SECOND).await,
            Err(error) => {
                let code = error.downcast_ref::<CallError>().map(CallError::code);
                assert_eq!(code, Some(Code::DeadlineExceeded));
                return second;
            }
        }
    }
    60
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_ends_too() {
    later().await;
    assert_eq!(read_ready(&[("mainstay-timeout-ms", "10000")]).await, 10);
    let head = [("mainstay-timeout-ms", "10000"), ("mainstay-timeout-scope", "head")];
    assert_eq!(read_ready(&head).await, 60);
    assert_eq!(read_ready(&[]).await, 60);
}

#[test]
fn a_wish_is_read_from_its_headers() {
    let check = |headers: &[(&'static str, &'static str)], span, for_what| {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a value"));
        }
        assert_eq!((arriving(&map), covers(&map)), (Ok(span), for_what), "{headers:?}");
    };
    let ms = ("mainstay-timeout-ms", "1000");
    check(&[], None, Covers::Exchange);
    check(&[ms], Some(SECOND), Covers::Exchange);
    check(&[ms, ("mainstay-timeout-scope", "head")], Some(SECOND), Covers::Head);
    check(&[ms, ("mainstay-timeout-scope", "all")], Some(SECOND), Covers::Exchange);
    let shorter = Some(Duration::from_millis(9));
    check(&[ms, ("grpc-timeout", "9m")], shorter, Covers::Exchange);
    let mut soon = http::HeaderMap::new();
    soon.insert("mainstay-timeout-ms", http::HeaderValue::from_static("soon"));
    assert!(arriving(&soon).is_err());
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_stands() {
    later().await;
    let inner = service_fn(|mut request: Request<Empty<Bytes>>| async move {
        let deadline = Context::of(&mut request).deadline();
        Ok::<_, CallError>(Response::new(format!("{:?}", deadline.map(|d| d.covers))))
    });
    let policy = DeadlinePolicy { patience: Patience::default(), idle: SECOND };
    let service = ServiceBuilder::new().layer(DeadlineLayer::new(policy)).service(inner);
    let mut request = Request::new(Empty::new());
    let context: Arc<Context> = Context::of(&mut request);
    let at = MonotonicClock.now().plus(SECOND);
    context.shorten(Deadline { at, covers: Covers::Exchange });
    let response = service.oneshot(request).await.expect("an answer");
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(text, "Some(Exchange)");
    assert_eq!(context.deadline().map(|deadline| deadline.at), Some(at));
}
