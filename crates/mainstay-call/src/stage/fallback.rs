//! Answers when the real answer cannot be had, or is not wanted.
//!
//! The stage stands between the limits and the retries, so it is asked once a call: before it is
//! sent, when a limit left a refusal to it, or when the last attempt has failed. Which step is
//! next is decided by [`FallbackPolicy::choose`](mainstay_resilience::fallback::FallbackPolicy);
//! here the step is taken, and the one after it when it turns out that it cannot answer. A call
//! of a route without steps passes through untouched.
//!
//! A substitute has to be sent the whole request, so up to 64 KiB of its body are kept while it
//! passes, on routes that have a `substitute` step; on those with a `defer` step as much as may be
//! deferred; and nowhere else. It is a call of its own, with
//! what remains of the deadline, and its answer is the end of it: nobody stands in for a stand-in.
//!
//! Whatever is given in place of the upstream's answer is marked `Cache-Control: no-store`, told
//! to the [observer](crate::observe::Observer::degraded) and noted in the call's
//! [`Context`]. A call that was only delayed is told and noted too, but its answer is the
//! upstream's own, and as good to store as ever.
//!
//! Nothing here outlives the deadline: a delay that would not end before it is not begun, and a
//! substitute is given up at it. A request that is being handed over at the deadline may be kept
//! all the same, and then made: its caller, who is told that it failed, will ask again.

mod body;
mod call;
mod kept;
mod refusal;
mod settings;
mod taking;

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mainstay_core::name::ServiceName;
use mainstay_core::problem::Code;
use mainstay_resilience::fallback::Moment;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use self::body::FallbackBody;
use self::call::{Asks, Call, Next, Otherwise, Tells, plain};
use self::refusal::switched_off;
use self::settings::Waits;
pub use self::settings::{Defers, Fallbacks, NoSwitches, Pace, Switches};
use self::taking::Taking;
use crate::context::{Context, Facts};
use crate::draw;
use crate::error::{BoxError, CallError};
use crate::replay::Replay;
use crate::timer::Timer;

/// What the stage answers with.
type Answer<R> = Result<Response<FallbackBody<R>>, CallError>;

/// Finds the services that `substitute` steps name.
///
/// `()` finds none: such a step then never answers.
pub trait Substitute<B, R>: Clone {
    /// Sends one call to the service. It must not have a fallback of its own.
    type Service: Service<Request<Replay<B>>, Response = Response<R>, Error = CallError>;

    /// The service called `name`, if there is one.
    fn find(&self, name: &ServiceName) -> Option<Self::Service>;

    /// What is known of the call to `name`, made in place of one of which `facts` are known.
    /// Circuits and hash are the original service's, and are left out unless this is written.
    fn facts(&self, _name: &ServiceName, facts: &Facts) -> Facts {
        Facts { draw: draw::next(), hash: None, circuits: Arc::default(), ..facts.clone() }
    }
}

impl<B, R> Substitute<B, R> for () {
    type Service = Nobody<R>;

    fn find(&self, _name: &ServiceName) -> Option<Nobody<R>> {
        None
    }
}

/// A service there is none of.
pub struct Nobody<R> {
    never: Infallible,
    answers: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for Nobody<R> {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.never {}
    }
}

impl<Q, R> Service<Q> for Nobody<R> {
    type Response = Response<R>;
    type Error = CallError;
    type Future = std::future::Ready<Result<Response<R>, CallError>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        match self.never {}
    }

    fn call(&mut self, _request: Q) -> Self::Future {
        match self.never {}
    }
}

/// Makes [`Fallback`] services.
#[derive(Clone, Debug)]
pub struct FallbackLayer<T> {
    fallbacks: Arc<Fallbacks>,
    substitutes: T,
}

impl<T> FallbackLayer<T> {
    /// Answers as `fallbacks` say; services that stand in are found by `substitutes`.
    pub fn new(fallbacks: Arc<Fallbacks>, substitutes: T) -> Self {
        Self { fallbacks, substitutes }
    }
}

impl<S, T: Clone> Layer<S> for FallbackLayer<T> {
    type Service = Fallback<S, T>;

    fn layer(&self, inner: S) -> Fallback<S, T> {
        Fallback { layer: self.clone(), inner }
    }
}

/// Answers in place of a service; see the [module](self).
#[derive(Clone, Debug)]
pub struct Fallback<S, T> {
    layer: FallbackLayer<T>,
    inner: S,
}

/// The future of a call with a body `B`, to a service `S` that answers with a body `R`.
type FutureOf<S, T, B, R> = FallbackFuture<
    S,
    T,
    <S as Service<Request<Replay<B>>>>::Future,
    <T as Substitute<B, R>>::Service,
    <<T as Substitute<B, R>>::Service as Service<Request<Replay<B>>>>::Future,
    B,
    R,
>;

impl<S, T, B, R> Service<Request<B>> for Fallback<S, T>
where
    S: Service<Request<Replay<B>>, Response = Response<R>, Error = CallError> + Clone,
    T: Substitute<B, R>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Response = Response<FallbackBody<R>>;
    type Error = CallError;
    type Future = FutureOf<S, T, B, R>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(&mut request);
        let limited = context.take_limited();
        let FallbackLayer { fallbacks, substitutes } = &self.layer;
        if fallbacks.steps.is_none() {
            let refused = limited.map(|(refusal, _)| refusal.into());
            let state = match refused
                .or_else(|| fallbacks.is_off(&context).then(|| switched_off(fallbacks)))
            {
                Some(error) => State::Over { answer: Some(Box::new(Err(error))) },
                None => State::Sent { inner: self.inner.call(request.map(Replay::once)) },
            };
            return FallbackFuture { state, call: None };
        }
        let (mut call, request) = Call::begin(fallbacks, substitutes.clone(), context, request);
        // A service is cloned only where its call may have to wait.
        let reserved = |inner: &mut S| {
            let fresh = inner.clone();
            std::mem::replace(inner, fresh)
        };
        let next = if let Some((refusal, asked)) = limited {
            let shed = refusal.code == Code::Shed;
            let moment = if shed { Moment::Shed } else { Moment::Limited };
            let service = reserved(&mut self.inner);
            call.next(moment, Otherwise::Limited(Box::new(refusal), asked, service, request))
        } else {
            match fallbacks.before(&call.context) {
                Some(moment @ Moment::Before { switched_off: true, .. }) => {
                    call.next(moment, Otherwise::Return(Err(switched_off(fallbacks))))
                }
                Some(moment) if fallbacks.choose(moment, 0, &call.context).is_some() => {
                    call.next(moment, Otherwise::Send(reserved(&mut self.inner), request))
                }
                _ => {
                    let state = State::Sent { inner: self.inner.call(request) };
                    return FallbackFuture { state, call: Some(call) };
                }
            }
        };
        FallbackFuture { state: State::of(next), call: Some(call) }
    }
}

pin_project! {
    /// A call, and what stands in for it.
    #[derive(Debug)]
    pub struct FallbackFuture<S, T, F, U, V, B, R> {
        #[pin]
        state: State<S, F, U, V, B, R>,
        // Absent on routes without steps.
        call: Option<Call<T, B>>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum State<S, F, U, V, B, R> {
        Over {
            answer: Option<Box<Answer<R>>>,
        },
        Sent {
            #[pin]
            inner: F,
        },
        Delayed {
            timer: Timer,
            tells: Option<Box<Tells<S, B, R>>>,
            waits: Option<Waits>,
        },
        Asking {
            #[pin]
            inner: Option<V>,
            // Ends the question at the deadline.
            timer: Timer,
            waiting: Option<Asks<U, B>>,
            tells: Option<Box<Tells<S, B, R>>>,
        },
        Deferring {
            taking: Box<Taking<B>>,
            // Ends the handing over at the deadline.
            timer: Timer,
            tells: Option<Box<Tells<S, B, R>>>,
        },
    }
}

impl<S, F, U, V, B, R> State<S, F, U, V, B, R> {
    fn of(next: Next<S, U, B, R>) -> Self
    where
        S: Service<Request<Replay<B>>, Future = F>,
    {
        match next {
            Next::Over(answer) => Self::Over { answer: Some(Box::new(answer)) },
            Next::Send(mut service, request) => Self::Sent { inner: service.call(request) },
            Next::Delay { until, waits, tells } => {
                Self::Delayed { timer: Timer::until(until), tells: Some(tells), waits: Some(waits) }
            }
            Next::Ask { asks, until, tells } => Self::Asking {
                inner: None,
                timer: Timer::until(until),
                waiting: Some(asks),
                tells: Some(tells),
            },
            Next::Defer { taking, until, tells } => {
                Self::Deferring { taking, timer: Timer::until(until), tells: Some(tells) }
            }
        }
    }
}

impl<S, T, F, U, V, B, R> Future for FallbackFuture<S, T, F, U, V, B, R>
where
    S: Service<Request<Replay<B>>, Response = Response<R>, Error = CallError, Future = F>,
    F: Future<Output = Result<Response<R>, CallError>>,
    T: Substitute<B, R, Service = U>,
    U: Service<Request<Replay<B>>, Response = Response<R>, Error = CallError, Future = V>,
    V: Future<Output = Result<Response<R>, CallError>>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Output = Answer<R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Answer<R>> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                Projected::Over { answer } => {
                    // Without one it is polled after it was ready.
                    return answer.take().map_or(Poll::Pending, |answer| Poll::Ready(*answer));
                }
                Projected::Sent { inner } => {
                    let result = ready!(inner.poll(cx));
                    let Some(call) = this.call else { return Poll::Ready(plain(result)) };
                    match call.after(result) {
                        ControlFlow::Break(answer) => return Poll::Ready(answer),
                        ControlFlow::Continue(next) => next,
                    }
                }
                Projected::Delayed { timer, tells, waits } => {
                    ready!(timer.poll_elapsed(cx));
                    *waits = None;
                    let (Some(call), Some(tells)) = (this.call.as_mut(), tells.take()) else {
                        return Poll::Pending;
                    };
                    call.delayed(*tells)
                }
                Projected::Asking { inner, timer, waiting, tells } => {
                    let result = match poll_substitute(inner, waiting, cx) {
                        Poll::Ready(result) => Some(result),
                        Poll::Pending => {
                            ready!(timer.poll_elapsed(cx));
                            None
                        }
                    };
                    let (Some(call), Some(tells)) = (this.call.as_mut(), tells.take()) else {
                        return Poll::Pending;
                    };
                    call.asked(result, *tells)
                }
                Projected::Deferring { taking, timer, tells } => {
                    let receipt = match taking.poll(cx) {
                        Poll::Ready(taken) => taken.ok(),
                        Poll::Pending => {
                            ready!(timer.poll_elapsed(cx));
                            None
                        }
                    };
                    let (Some(call), Some(tells)) = (this.call.as_mut(), tells.take()) else {
                        return Poll::Pending;
                    };
                    call.taken(receipt, *tells)
                }
            };
            match next {
                Next::Over(answer) => {
                    this.state.set(State::Over { answer: None });
                    return Poll::Ready(answer);
                }
                next => this.state.set(State::of(next)),
            }
        }
    }
}

/// Sends the call to a substitute once that is ready, and waits for its answer.
fn poll_substitute<U, V, B, R>(
    mut inner: Pin<&mut Option<V>>,
    waiting: &mut Option<Asks<U, B>>,
    cx: &mut Task<'_>,
) -> Poll<Result<Response<R>, CallError>>
where
    U: Service<Request<Replay<B>>, Response = Response<R>, Error = CallError, Future = V>,
    V: Future<Output = Result<Response<R>, CallError>>,
{
    if let Some(asks) = waiting {
        ready!(asks.0.poll_ready(cx))?;
    }
    if let Some(asks) = waiting.take() {
        let (mut service, request) = *asks;
        inner.set(Some(service.call(request)));
    }
    match inner.as_pin_mut() {
        Some(inner) => inner.poll(cx),
        None => Poll::Pending,
    }
}
