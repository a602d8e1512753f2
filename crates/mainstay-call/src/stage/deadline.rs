//! Gives a call its deadline and keeps it.
//!
//! The deadline is the caller's, if the caller gave one, within what the route allows; else the
//! route's own. Every stage below shortens its waits to it. A deadline the caller gave covers the
//! whole exchange; the route's own covers the way to the answer's head, and from there the body
//! has to keep moving. So streams and long polls need no exception.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use mainstay_core::{Clock, Instant};
use mainstay_resilience::Failure;
use mainstay_resilience::deadline::{
    Covers, Deadline as Moment, Malformed, Patience, parse_grpc_timeout, parse_timeout_ms,
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::error::{BoxError, CallError};
use crate::stage::timeout::{GRPC_TIMEOUT, SCOPE_HEAD, SCOPE_HEADER, TIMEOUT_HEADER};
use crate::timer::Timer;

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlinePolicy {
    /// What callers get, and what they may ask for.
    pub patience: Patience,
    /// Longest time without a byte of an answer's body.
    pub idle: Duration,
}

/// What `headers` ask for: the shorter of `mainstay-timeout-ms` and `grpc-timeout`.
///
/// # Errors
///
/// [`Malformed`] when one of them cannot be read.
pub fn arriving(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let of = |name: http::HeaderName, parse: fn(&[u8]) -> Result<Duration, Malformed>| {
        headers.get(name).map(|value| parse(value.as_bytes())).transpose()
    };
    let ours = of(TIMEOUT_HEADER, parse_timeout_ms)?;
    let grpc = of(GRPC_TIMEOUT, parse_grpc_timeout)?;
    Ok(ours.into_iter().chain(grpc).min())
}

/// What the timeout in `headers` covers: `mainstay-timeout-scope: head` says that it is the way to
/// the answer's head, and that the body may take longer.
pub fn covers(headers: &HeaderMap) -> Covers {
    match headers.get(SCOPE_HEADER) {
        Some(scope) if scope == SCOPE_HEAD => Covers::Head,
        _ => Covers::Exchange,
    }
}

/// The deadline of a call that begins at `now` with `headers` from somebody who is not trusted to
/// lengthen it. A malformed wish is refused by whoever takes a request in; here it is no wish.
pub(crate) fn wished(headers: &HeaderMap, now: Instant, patience: Patience) -> Moment {
    let asked = arriving(headers).unwrap_or(None);
    let mut moment = Moment::resolve(now, asked, false, patience);
    if covers(headers) == Covers::Head {
        moment.covers = Covers::Head;
    }
    moment
}

/// Makes [`Deadline`] services.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    policy: DeadlinePolicy,
    timed: bool,
}

impl DeadlineLayer {
    /// Gives calls the deadline that `policy` allows, and cuts them off at it.
    pub const fn new(policy: DeadlinePolicy) -> Self {
        Self { policy, timed: true }
    }

    /// Without a timer of its own, for a stack in which everything below that waits ends in time
    /// by itself: the stages of this crate do, each attempt having a timer already.
    #[must_use]
    pub const fn kept_below(mut self) -> Self {
        self.timed = false;
        self
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { layer: *self, inner }
    }
}

/// Gives calls a deadline; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Deadline<S> {
    layer: DeadlineLayer,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Deadline<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError>,
{
    type Response = http::Response<Bounded<R>>;
    type Error = CallError;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> DeadlineFuture<S::Future> {
        let context = Context::of(&mut request);
        let DeadlinePolicy { patience, idle } = self.layer.policy;
        if context.deadline().is_none() {
            context.shorten(wished(request.headers(), context.started, patience));
        }
        let deadline = context.deadline();
        let timed = deadline.filter(|_| self.layer.timed);
        let timed = timed.map(|deadline| (Timer::until(deadline.at), context));
        let whole = deadline.filter(|d| d.covers == Covers::Exchange).map(|d| d.at);
        DeadlineFuture { inner: self.inner.call(request), timed, whole, idle }
    }
}

pin_project! {
    /// A call that ends in time.
    #[derive(Debug)]
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        // Ends the call, and knows whether anything was sent by then.
        timed: Option<(Timer, Arc<Context>)>,
        whole: Option<Instant>,
        idle: Duration,
    }
}

impl<F, R> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<http::Response<R>, CallError>>,
{
    type Output = Result<http::Response<Bounded<R>>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.inner.poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.map(|response| {
                response.map(|body| Bounded {
                    body,
                    timer: Timer::until(Instant::MAX),
                    waiting: false,
                    whole: *this.whole,
                    idle: *this.idle,
                })
            })),
            Poll::Pending => {
                let Some((timer, context)) = this.timed else { return Poll::Pending };
                ready!(timer.poll_elapsed(cx));
                Poll::Ready(Err(Failure::Deadline { sent: context.attempts() > 0 }.into()))
            }
        }
    }
}

pin_project! {
    /// A body that ends by its deadline, or keeps moving.
    #[derive(Debug)]
    pub struct Bounded<B> {
        #[pin]
        body: B,
        timer: Timer,
        // The timer runs since the body was last found not ready.
        waiting: bool,
        // The moment by which all of the body must have passed.
        whole: Option<Instant>,
        idle: Duration,
    }
}

impl<B> Bounded<B> {
    /// The body itself, whose bounds are not looked at in what is done to it here.
    pub fn get_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

impl<B> Body for Bounded<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        match this.body.poll_frame(cx) {
            Poll::Ready(frame) => {
                *this.waiting = false;
                // A body that always has more ready never comes to the timer.
                let more = matches!(&frame, Some(Ok(frame)) if frame.is_data());
                if more && this.whole.is_some_and(|at| at <= MonotonicClock.now()) {
                    let failure = Failure::Deadline { sent: true };
                    return Poll::Ready(Some(Err(CallError::from(failure).into())));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                if !*this.waiting {
                    *this.waiting = true;
                    let idle = MonotonicClock.now().plus(*this.idle);
                    this.timer.reset(this.whole.map_or(idle, |at| at.min(idle)));
                }
                ready!(this.timer.poll_elapsed(cx));
                let failure = if this.whole.is_some_and(|at| at <= MonotonicClock.now()) {
                    Failure::Deadline { sent: true }
                } else {
                    Failure::Truncated
                };
                Poll::Ready(Some(Err(CallError::from(failure).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
