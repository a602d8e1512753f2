//! Peers that do as they are told, and remember what they were sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use mainstay_call::calls::{Answered, Done};
use mainstay_call::{BoxError, CallError, Calls, Policy};
use mainstay_resilience::Failure;
use parking_lot::Mutex;
use tower_service::Service;

pub(crate) type ReplyBody = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Client = Calls<Peers>;

/// What a peer does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers.
    Status(u16),
    /// Answers with a header.
    With(u16, &'static str, &'static str),
    /// Answers as gRPC, with this status in the trailers.
    Grpc(u32),
    /// Answers as gRPC, and breaks off before the trailers.
    GrpcCut,
    /// Answers after a while.
    After(Duration, u16),
    /// Never answers.
    Hang,
    /// Fails before it has read anything.
    Fail(Failure),
    /// Fails after it has read the request.
    FailLate(Failure),
    /// Panics.
    Panic,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Authority it was sent to.
    pub(crate) at: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Rule = Box<dyn FnMut(&str, usize) -> Reply + Send>;

/// Every peer there is: a tower service that answers for all addresses.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Mutex<State>>);

struct State {
    rule: Rule,
    seen: Vec<Seen>,
    under_way: usize,
}

impl Peers {
    /// Peers that do what `rule` says of an address and the number of requests before.
    pub(crate) fn new(rule: impl FnMut(&str, usize) -> Reply + Send + 'static) -> Self {
        let rule = Box::new(rule);
        Self(Arc::new(Mutex::new(State { rule, seen: Vec::new(), under_way: 0 })))
    }

    /// Peers that all do the same.
    pub(crate) fn all(reply: Reply) -> Self {
        Self::new(move |_, _| reply.clone())
    }

    /// A client of them at `addresses`, under the policy in `text`.
    #[track_caller]
    pub(crate) fn client(&self, addresses: &[&str], text: &str) -> Client {
        let policy = Policy::from_toml(text).unwrap();
        let builder = Calls::to("order").unwrap().instances(addresses.iter().copied());
        builder.upstream(self.clone()).policy(policy).build()
    }

    pub(crate) fn set(&self, rule: impl FnMut(&str, usize) -> Reply + Send + 'static) {
        self.0.lock().rule = Box::new(rule);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lock().seen.clone()
    }

    /// Forgets what was seen; returns how much that was, for each address.
    pub(crate) fn take(&self, address: &str) -> usize {
        let mut state = self.0.lock();
        let count = state.seen.iter().filter(|seen| seen.at == address).count();
        state.seen.retain(|seen| seen.at != address);
        count
    }

    /// Requests that a peer works on, or whose answer's body is not over.
    pub(crate) fn under_way(&self) -> usize {
        self.0.lock().under_way
    }
}

/// Counts a request at a peer until it is over or given up.
struct UnderWay(Peers);

impl UnderWay {
    fn new(peers: &Peers) -> Self {
        peers.0.lock().under_way += 1;
        Self(peers.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.lock().under_way -= 1;
    }
}

impl<B> Service<Request<B>> for Peers
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peers = self.clone();
        Box::pin(async move {
            let under_way = UnderWay::new(&peers);
            let (parts, body) = request.into_parts();
            let at = parts.uri.authority().unwrap().to_string();
            let (reply, number) = {
                let mut state = peers.0.lock();
                let number = state.seen.len();
                let reply = (state.rule)(&at, number);
                state.seen.push(Seen { at, headers: parts.headers, body: Bytes::new() });
                (reply, number)
            };
            if let Reply::Fail(failure) = reply {
                return Err(CallError::from(failure).into());
            }
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            if let Some(seen) = peers.0.lock().seen.get_mut(number) {
                seen.body = body;
            }
            match reply {
                Reply::Status(status) => Ok(answer(status, under_way)),
                Reply::With(status, name, value) => {
                    let mut response = answer(status, under_way);
                    let name = HeaderName::from_static(name);
                    response.headers_mut().insert(name, HeaderValue::from_static(value));
                    Ok(response)
                }
                Reply::After(span, status) => {
                    tokio::time::sleep(span).await;
                    Ok(answer(status, under_way))
                }
                Reply::Grpc(status) => Ok(grpc(Some(status), under_way)),
                Reply::GrpcCut => Ok(grpc(None, under_way)),
                Reply::Hang => std::future::pending().await,
                Reply::Fail(failure) | Reply::FailLate(failure) => {
                    Err(CallError::from(failure).into())
                }
                Reply::Panic => panic!("as told"),
            }
        })
    }
}

fn answer(status: u16, under_way: UnderWay) -> Response<ReplyBody> {
    let body = Full::new(Bytes::from_static(b"reply")).map_err(move |never| {
        let _held = &under_way;
        match never {}
    });
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

fn grpc(status: Option<u32>, under_way: UnderWay) -> Response<ReplyBody> {
    let end = status.map_or(Err(io::Error::other("cut off")), |status| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.into());
        Ok(Frame::trailers(trailers))
    });
    let frames = [Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), end];
    let body = StreamBody::new(futures_util::stream::iter(frames)).map_err(move |error| {
        let _held = &under_way;
        error
    });
    let mut response = Response::new(UnsyncBoxBody::new(body));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    response
}

/// A request without a body.
pub(crate) fn request(method: Method) -> Request<Full<Bytes>> {
    with_body(method, "")
}

/// A request with a body.
pub(crate) fn with_body(method: Method, body: &'static str) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    Request::builder().method(method).uri("/x").body(body).unwrap()
}

/// Makes a call and tells all about its end; the answer's body is read.
pub(crate) async fn call(client: &Client, request: Request<Full<Bytes>>) -> Done<Bytes> {
    let slot = Arc::new(Mutex::new(None));
    let end = Arc::clone(&slot);
    let told = move |done: Done<Answered<ReplyBody>>| *end.lock() = Some(done);
    client.call_then(request, told).await;
    let Done { result, attempts, instance, latency } = slot.lock().take().unwrap();
    let result = match result {
        Err(error) => Err(error),
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes);
            Ok(Response::from_parts(parts, body.unwrap_or_default()))
        }
    };
    Done { result, attempts, instance, latency }
}

/// What a call came to, in a word: the status or the code of the problem.
pub(crate) fn word(done: &Done<Bytes>) -> String {
    match &done.result {
        Ok(response) => response.status().as_u16().to_string(),
        Err(error) => error.code().to_string(),
    }
}
