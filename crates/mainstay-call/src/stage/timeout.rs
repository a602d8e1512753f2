//! Bounds one attempt, and tells the upstream how long it has.
//!
//! The attempt ends at the earlier of its own timeout and the call's deadline. Which of the two
//! matters to those who learn from it: an instance that does not answer within the time *we* set
//! has failed; one that was cut off because the *caller* was in a hurry has not. A caller who gave
//! the attempt a second or more was in no hurry, and an instance that hangs must be noticed even
//! when every caller sets a deadline of its own.
//!
//! A peer takes whatever timeout it is sent for the whole exchange, and would cut a stream off at
//! it. So what is sent says what it covers: with `mainstay-timeout-scope: head` only the way to
//! the answer's head is meant. gRPC has no word for that, and is told nothing then.

use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use mainstay_core::{Clock, Instant};
use mainstay_resilience::Failure;
use mainstay_resilience::deadline::{Covers, Deadline, Digits};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::error::CallError;
use crate::pause;
use crate::timer::Timer;

/// Header that tells the next hop how many milliseconds it has.
pub const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("mainstay-timeout-ms");

/// Header that says what [`TIMEOUT_HEADER`] covers: `head`, or the whole exchange when it is absent.
pub const SCOPE_HEADER: HeaderName = HeaderName::from_static("mainstay-timeout-scope");

/// The value of [`SCOPE_HEADER`] for a timeout that ends with the answer's head.
pub(crate) const SCOPE_HEAD: HeaderValue = HeaderValue::from_static("head");

/// Header of the same meaning in gRPC.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long an attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutPolicy {
    /// One attempt; unset means whatever remains of the deadline.
    pub attempt: Option<Duration>,
    /// Kept back for the way between two hops.
    pub hop: Duration,
}

/// Makes [`Timeout`] services.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer(TimeoutPolicy);

impl TimeoutLayer {
    /// Bounds each call by `policy`.
    pub const fn new(policy: TimeoutPolicy) -> Self {
        Self(policy)
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { policy: self.0, inner }
    }
}

/// Bounds each attempt; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Timeout<S> {
    policy: TimeoutPolicy,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Timeout<S>
where
    S: Service<http::Request<B>, Response = R, Error = CallError>,
{
    type Response = R;
    type Error = CallError;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> TimeoutFuture<S::Future> {
        let context = Context::within(&mut request);
        let (now, deadline) = (context.moment(), context.deadline());
        if deadline.is_some_and(|deadline| deadline.has_passed(now)) {
            return TimeoutFuture { state: State::Late };
        }
        let own = self.policy.attempt.map(|span| now.plus(span));
        let last = deadline.map(|deadline| deadline.at);
        let at = own.into_iter().chain(last).min().unwrap_or(Instant::MAX);
        let whole = deadline.filter(|deadline| deadline.covers == Covers::Exchange);
        if let Some(whole) = whole {
            announce(&mut request, whole, now, self.policy.hop);
        } else if at != Instant::MAX {
            announce(&mut request, Deadline { at, covers: Covers::Head }, now, self.policy.hop);
        }
        let hurried = whole.is_some_and(|whole| whole.at == at) && at.since(now) < HURRY;
        let failure =
            if hurried { Failure::Deadline { sent: true } } else { Failure::RequestTimeout };
        let inner = self.inner.call(request);
        let (timer, times) = (Timer::until(at), Times { began: now, due: at });
        TimeoutFuture { state: State::Running { inner, timer, times, failure } }
    }
}

/// An attempt that was given less than this says nothing of the instance when it is cut off: the
/// same second that a connection is given by default.
const HURRY: Duration = Duration::from_secs(1);

/// Tells the upstream how long it has: what remains here, less the way there.
fn announce<B>(request: &mut http::Request<B>, ends: Deadline, now: Instant, hop: Duration) {
    let left = ends.outgoing(now, hop);
    let headers = request.headers_mut();
    if let Ok(value) = HeaderValue::from_bytes(Digits::timeout_ms(left).as_bytes()) {
        headers.insert(TIMEOUT_HEADER, value);
    }
    match ends.covers {
        Covers::Head => drop(headers.insert(SCOPE_HEADER, SCOPE_HEAD)),
        Covers::Exchange => {
            headers.remove(SCOPE_HEADER);
            if is_grpc(headers)
                && let Ok(value) = HeaderValue::from_str(Digits::grpc_timeout(left).as_str())
            {
                headers.insert(GRPC_TIMEOUT, value);
            }
        }
    }
}

/// Whether a message speaks gRPC, by its content type.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc")
            && matches!(value.get(16), None | Some(b'+' | b';' | b' '))
    })
}

pin_project! {
    /// An attempt that ends in time.
    #[derive(Debug)]
    pub struct TimeoutFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum State<F> {
        Running {
            #[pin]
            inner: F,
            timer: Timer,
            times: Times,
            failure: Failure,
        },
        // The deadline had passed before this attempt was sent.
        Late,
    }
}

/// When an attempt began, and when it should end at the latest.
#[derive(Clone, Copy, Debug)]
struct Times {
    began: Instant,
    due: Instant,
}

impl Times {
    /// What it is that an attempt which was to end in `failure` is told of.
    #[cold]
    fn over(self, failure: Failure) -> Failure {
        let now = MonotonicClock.now();
        match failure {
            Failure::RequestTimeout if pause::excuses(self.began, self.due, now) => {
                Failure::Overslept { connecting: false }
            }
            failure => failure,
        }
    }
}

impl<F, R> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<R, CallError>>,
{
    type Output = Result<R, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Late => Poll::Ready(Err(Failure::Deadline { sent: false }.into())),
            Projected::Running { inner, timer, times, failure } => match inner.poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => match timer.poll_elapsed(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(times.over(*failure).into())),
                    Poll::Pending => Poll::Pending,
                },
            },
        }
    }
}
