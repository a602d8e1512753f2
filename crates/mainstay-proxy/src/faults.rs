//! Faults made on purpose, done to attempts in the place of the network.
//!
//! [`FaultBook`] holds the faults in force, for all workers; [`Faulty`] stands at the upstream end
//! of the pipeline, inside the timeout, and does to an attempt what the book says. Circuit, retry
//! and fallback stand outside and meet the fault as they would meet a real one: a reset is
//! [`Lost`](Congestion::Lost), a black hole runs into the timeout, a truncated answer breaks off
//! with [`Failure::Truncated`]. Nothing tells them apart but what is meant for people: the header
//! [`FAULT_HEADER`] on an answer, [`Injected`] as the source of an error, and
//! [`Context::fault`](mainstay_call::context::Context::fault), from which whoever answers a call
//! in the end can mark that answer as well.
//!
//! While no fault is in force, which is nearly always, an attempt pays one relaxed load and no
//! allocation.

mod body;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::Context;
use mainstay_call::draw;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::classify::Answer;
use mainstay_resilience::fault::{
    Fault, FaultId, FaultKind, FaultPolicy, FaultTable, TableFull, Target,
};
use mainstay_resilience::{Congestion, Failure};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

pub use body::{FaultyBody, Slow};

/// Marks an answer that a fault had a part in; its value is the kind of fault.
pub const FAULT_HEADER: HeaderName = HeaderName::from_static("mainstay-fault");

/// The faults in force, shared by all workers.
pub struct FaultBook {
    /// Whether there may be any. A worker that reads an old value sends one more attempt as if the
    /// fault had been set, or ended, a moment later.
    any: AtomicBool,
    table: Mutex<FaultTable>,
    told: Box<dyn Fn(&'static str) + Send + Sync>,
}

impl FaultBook {
    /// A book without faults. `told` hears the kind of each fault as it is done to an attempt, on
    /// the path of the call: count, do not wait.
    pub fn new(told: impl Fn(&'static str) + Send + Sync + 'static) -> Arc<Self> {
        let (any, table) = (AtomicBool::new(false), Mutex::default());
        Arc::new(Self { any, table, told: Box::new(told) })
    }

    /// Whether no fault is in force. One relaxed load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// Puts a fault in force for its ttl, from `now` on.
    ///
    /// # Errors
    ///
    /// [`TableFull`] when there are as many as there may be.
    pub fn set(&self, policy: FaultPolicy, now: Instant) -> Result<FaultId, TableFull> {
        self.work(|table| table.add(now, policy))
    }

    /// Ends one fault; says whether it was in force.
    pub fn clear(&self, id: FaultId, now: Instant) -> bool {
        self.work(|table| table.clear(now, id))
    }

    /// Ends all of them; says how many there were.
    pub fn clear_all(&self, now: Instant) -> usize {
        self.work(|table| table.clear_all(now))
    }

    /// The faults in force, each with the time it has left.
    pub fn list(&self, now: Instant) -> Vec<(Fault, Duration)> {
        self.work(|table| table.list(now).map(|(fault, left)| (fault.clone(), left)).collect())
    }

    /// The fault to do to `target`, if any. An ended one leaves the book here, so that it costs
    /// nothing from the first attempt after its end.
    fn pick(&self, now: Instant, target: &Target<'_>, draw: u64) -> Option<FaultKind> {
        let kind = self.work(|table| table.pick(now, target, draw).map(|fault| fault.policy.kind));
        if let Some(kind) = kind {
            (self.told)(kind.as_str());
        }
        kind
    }

    fn work<R>(&self, work: impl FnOnce(&mut FaultTable) -> R) -> R {
        let mut table = self.table.lock();
        let result = work(&mut table);
        self.any.store(!table.is_empty(), Ordering::Relaxed);
        result
    }
}

impl fmt::Debug for FaultBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultBook").field("table", &self.table).finish_non_exhaustive()
    }
}

/// The source of an error that a fault caused, for the operator's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault `{0}` was injected")]
pub struct Injected(pub &'static str);

/// Whom a [`Faulty`] service sends to.
#[derive(Clone, Debug)]
pub struct Place {
    /// Service.
    pub service: Arc<str>,
    /// Instance, as the registry names it.
    pub instance: Arc<str>,
    /// How long a connection that does not come up is waited for.
    pub connect: Duration,
}

/// Does faults to the attempts it sends on; see the [module](self).
#[derive(Clone, Debug)]
pub struct Faulty<S> {
    book: Arc<FaultBook>,
    place: Arc<Place>,
    inner: S,
}

impl<S> Faulty<S> {
    /// Sends by `inner` to `place`, unless `book` has something else in mind.
    pub fn new(book: Arc<FaultBook>, place: Arc<Place>, inner: S) -> Self {
        Self { book, place, inner }
    }

    #[cold]
    fn pick<B>(&self, request: &mut Request<B>) -> Option<FaultKind> {
        let context = Context::of(request);
        let Place { service, instance, connect: _ } = &*self.place;
        let target = Target {
            route: context.facts.route.as_deref(),
            service,
            instance,
            header: &|name| request.headers().get(name).map(HeaderValue::as_bytes),
        };
        let kind = self.book.pick(MonotonicClock.now(), &target, draw::next())?;
        context.note_fault(kind.as_str());
        Some(kind)
    }
}

impl<S, B, R> Service<Request<B>> for Faulty<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = CallError> + Clone,
    R: Body + Unpin,
{
    type Response = Response<FaultyBody<R>>;
    type Error = CallError;
    type Future = FaultyFuture<S, S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let kind = if self.book.is_empty() { None } else { self.pick(&mut request) };
        let state = match kind {
            None | Some(FaultKind::SlowBody { .. } | FaultKind::Truncate { .. }) => {
                State::Sent { inner: self.inner.call(request), kind }
            }
            Some(kind @ FaultKind::Delay { .. }) => {
                let sleep = Box::pin(tokio::time::sleep(kind.delay(draw::next())));
                // The service that was made ready goes with the request; the clone left behind
                // has nothing reserved.
                let left = self.inner.clone();
                let service = std::mem::replace(&mut self.inner, left);
                State::Held { sleep, held: Some(Box::new((service, request))), kind }
            }
            Some(FaultKind::Abort(answer)) => State::Answered { answer },
            Some(FaultKind::Reset) => {
                let failure = Failure::Congestion(Congestion::Lost { sent: true });
                State::Failed { after: None, failure, kind: "reset" }
            }
            Some(FaultKind::ConnectTimeout) => {
                let after = Some(Box::pin(tokio::time::sleep(self.place.connect)));
                State::Failed { after, failure: Failure::ConnectTimeout, kind: "connect_timeout" }
            }
            Some(FaultKind::Blackhole) => State::Silent,
        };
        FaultyFuture { state }
    }
}

pin_project! {
    /// An attempt, with what a fault does to it.
    #[derive(Debug)]
    pub struct FaultyFuture<S, F, B> {
        #[pin]
        state: State<S, F, B>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum State<S, F, B> {
        // On its way; a fault is done to the answer.
        Sent {
            #[pin]
            inner: F,
            kind: Option<FaultKind>,
        },
        // Held back, then sent.
        Held {
            sleep: Pin<Box<Sleep>>,
            held: Option<Box<(S, Request<B>)>>,
            kind: FaultKind,
        },
        // Answered here.
        Answered {
            answer: Answer,
        },
        // It fails, at once or after a time.
        Failed {
            after: Option<Pin<Box<Sleep>>>,
            failure: Failure,
            kind: &'static str,
        },
        // Nothing will ever come.
        Silent,
    }
}

impl<S, B, R> Future for FaultyFuture<S, S::Future, B>
where
    S: Service<Request<B>, Response = Response<R>, Error = CallError>,
    R: Body + Unpin,
{
    type Output = Result<Response<FaultyBody<R>>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Sent { inner, kind } => {
                    return inner.poll(cx).map_ok(|response| changed(response, *kind));
                }
                Projected::Held { sleep, held, kind } => {
                    ready!(sleep.as_mut().poll(cx));
                    // Polled after it was ready there is nothing left to send.
                    let Some(held) = held.take() else { return Poll::Pending };
                    let (mut service, request) = *held;
                    State::Sent { inner: service.call(request), kind: Some(*kind) }
                }
                Projected::Answered { answer } => return Poll::Ready(Ok(abort(*answer))),
                Projected::Failed { after, failure, kind } => {
                    if let Some(after) = after {
                        ready!(after.as_mut().poll(cx));
                    }
                    return Poll::Ready(Err(CallError::failed(*failure, Injected(kind))));
                }
                Projected::Silent => return Poll::Pending,
            };
            state.set(next);
        }
    }
}

/// `response` with a fault done to it.
fn changed<R>(response: Response<R>, kind: Option<FaultKind>) -> Response<FaultyBody<R>> {
    let Some(kind) = kind else { return response.map(FaultyBody::Plain) };
    let mut response = response.map(|body| FaultyBody::changed(body, kind));
    mark(&mut response, kind.as_str());
    response
}

/// The answer of a service that was never asked. In gRPC it is trailers-only: the status stands in
/// the head, and there is no body.
fn abort<R>(answer: Answer) -> Response<FaultyBody<R>> {
    let mut response = Response::new(FaultyBody::Empty);
    match answer {
        Answer::Http(status) => {
            *response.status_mut() =
                StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        }
        Answer::Grpc(code) => {
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(code));
            headers.insert("grpc-message", HeaderValue::from_static("injected fault"));
        }
    }
    mark(&mut response, "abort");
    response
}

fn mark<B>(response: &mut Response<B>, kind: &'static str) {
    response.headers_mut().insert(FAULT_HEADER, HeaderValue::from_static(kind));
}

#[cfg(test)]
mod tests;
