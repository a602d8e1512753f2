//! Requests that are handed over to be made later: by a step of a fallback, and by hand.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::Context;
use mainstay_call::deferred::{
    Answering, Deferral, Deferred, NoReceipt, NotDeferred, Receipt, ReceiptState,
};
use mainstay_call::replay::Replay;
use mainstay_call::stage::fallback::{Defers, FallbackBody, FallbackLayer, Fallbacks};
use mainstay_call::{CallError, Calls};
use mainstay_core::{Clock, Moment};
use mainstay_resilience::Failure;
use mainstay_resilience::deadline::{Covers, Deadline};
use mainstay_resilience::fallback::{FallbackPolicy, RawFallback};
use parking_lot::Mutex;
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// Keeps what it is given, as long as its script says so.
#[derive(Clone, Debug, Default)]
struct Keeper {
    kept: Arc<Mutex<Vec<String>>>,
    script: Arc<Mutex<VecDeque<&'static str>>>,
}

impl Deferred for Keeper {
    fn body_bytes_max(&self) -> usize {
        8
    }

    fn defer(&self, deferral: Deferral) -> Answering<Result<Receipt, NotDeferred>> {
        let Deferral { queue, service, request } = deferral;
        let (head, body) = request.into_parts();
        let body = String::from_utf8_lossy(&body).into_owned();
        let kept = format!("{queue} {service} {} {} {body}", head.method, head.uri);
        let word = self.script.lock().pop_front();
        let own = self.clone();
        Box::pin(async move {
            match word {
                Some("full") => return Err(NotDeferred::Full(queue)),
                Some("hang") => std::future::pending().await,
                _ => own.kept.lock().push(kept),
            }
            Ok(Receipt {
                id: "0a".repeat(16).into(),
                state: ReceiptState::Queued,
                queued_at: Moment::from_unix_millis(0),
                tries: 0,
                next_try_at: None,
                ended_at: None,
                status: None,
            })
        })
    }

    fn look(&self, _id: &str) -> Answering<Result<Receipt, NoReceipt>> {
        Box::pin(async { Err(NoReceipt::Unknown) })
    }
}

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;
type Body =
    StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

fn body(text: &str) -> Body {
    let frames: Frames =
        text.as_bytes().chunks(3).map(|p| Ok(Frame::data(Bytes::copy_from_slice(p)))).collect();
    StreamBody::new(futures_util::stream::iter(frames))
}

fn post(text: &str) -> Request<Body> {
    Request::post("/orders?x=1").body(body(text)).expect("a request")
}

/// Sends `request` to a route with `steps`, whose service fails or echoes the body.
async fn send(
    steps: &str,
    keeper: &Keeper,
    fails: bool,
    request: Request<Body>,
) -> Result<Response<String>, CallError> {
    let raw: RawFallback = toml::from_str(&format!("steps = [{steps}]")).expect("TOML");
    let policy = FallbackPolicy::try_from(raw).expect("legal");
    let mut fallbacks = Fallbacks::new("orders".into(), Some(policy));
    fallbacks.deferred = Some(Defers { port: Arc::new(keeper.clone()), service: "order".into() });
    fallbacks.switch = Some(mainstay_core::name::PolicyName::new("open").expect("a name"));
    let inner = service_fn(move |request: Request<Replay<Body>>| async move {
        let read = request.into_body().collect().await.expect("a whole body").to_bytes();
        if fails {
            return Err(Failure::ConnectFailed { identity: false }.into());
        }
        Ok(Response::new(Full::new(read)))
    });
    let route = ServiceBuilder::new().layer(FallbackLayer::new(Arc::new(fallbacks), ()));
    let answer: Response<FallbackBody<Full<Bytes>>> = route.service(inner).oneshot(request).await?;
    let (head, body) = answer.into_parts();
    let text = body.collect().await.expect("a whole body").to_bytes();
    Ok(Response::from_parts(head, String::from_utf8_lossy(&text).into_owned()))
}

const DEFER: &str = "{ when = ['any'], defer = { queue = 'later' } }";

#[tokio::test]
async fn a_failed_call_is_handed_over_whole_and_answered_with_a_receipt() {
    let keeper = Keeper::default();
    let answer = send(DEFER, &keeper, true, post("1234567")).await.expect("an answer");
    assert_eq!(answer.status(), 202);
    let id = "0a".repeat(16);
    let location = format!("/.well-known/mainstay/receipts/{id}");
    assert_eq!(answer.headers()["location"], location.as_str());
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let told: serde_json::Value = serde_json::from_str(answer.body()).expect("JSON");
    assert_eq!((told["receipt"].as_str(), told["state"].as_str()), (Some(&*id), Some("queued")));
    assert_eq!(*keeper.kept.lock(), ["later order POST /orders?x=1 1234567"]);
    let answer = send(DEFER, &keeper, false, post("fine")).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.body().as_str()), (200, "fine"));
    assert_eq!(keeper.kept.lock().len(), 1, "what succeeded is not made again");
}

#[tokio::test]
async fn callers_of_grpc_and_of_heads_are_answered_in_their_way() {
    let keeper = Keeper::default();
    let mut request = post("1");
    request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    let answer = send(DEFER, &keeper, true, request).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.body().as_str()), (200, "\0\0\0\0\0"));
    assert_eq!(answer.headers()["mainstay-receipt"], "0a".repeat(16).as_str());
    let mut request = post("");
    *request.method_mut() = http::Method::HEAD;
    let answer = send(DEFER, &keeper, true, request).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.body().as_str()), (202, ""));
}

#[tokio::test]
async fn a_step_that_cannot_keep_the_request_leaves_it_to_the_next() {
    let steps = format!("{DEFER}, {{ when = ['any'], silent = {{}} }}");
    let keeper = Keeper::default();
    keeper.script.lock().push_back("full");
    let status = |answer: Result<Response<String>, CallError>| answer.expect("one").status();
    assert_eq!(status(send(&steps, &keeper, true, post("1")).await), 204);
    assert_eq!(status(send(&steps, &keeper, true, post("123456789")).await), 204, "too long");
    let mut tunnel = post("");
    tunnel.headers_mut().insert("upgrade", "websocket".parse().expect("a value"));
    assert_eq!(status(send(&steps, &keeper, true, tunnel).await), 204);
    assert_eq!(*keeper.kept.lock(), [""; 0]);
    assert_eq!(status(send(&steps, &keeper, true, post("1")).await), 202);
}

#[tokio::test(start_paused = true)]
async fn handing_over_ends_at_the_deadline() {
    let steps = format!("{DEFER}, {{ when = ['any'], silent = {{}} }}");
    let keeper = Keeper::default();
    keeper.script.lock().push_back("hang");
    let mut request = post("1");
    let at = MonotonicClock.now().plus(Duration::from_millis(50));
    Context::of(&mut request).shorten(Deadline { at, covers: Covers::Exchange });
    let answer = send(&steps, &keeper, true, request).await.expect("an answer");
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn a_client_hands_over_by_hand() {
    let http = || {
        service_fn(|_request: Request<Replay<Replay<Full<Bytes>>>>| async {
            Err::<Response<Full<Bytes>>, _>(std::io::Error::other("nobody listens"))
        })
    };
    let keeper = Keeper::default();
    let request = || Request::put("/pay").body(Bytes::from_static(b"7")).expect("a request");
    let calls = || Calls::to("payment").expect("a name").instances(["127.0.0.1:1"]);
    let own = calls().upstream(http()).deferred(Arc::new(keeper.clone())).build();
    let receipt = own.defer(request()).await.expect("a receipt");
    assert_eq!(receipt.state, ReceiptState::Queued);
    assert_eq!(*keeper.kept.lock(), ["payment payment PUT /pay 7"]);
    let none = calls().upstream(http()).build();
    assert_eq!(none.defer(request()).await, Err(NotDeferred::Nobody));
}
