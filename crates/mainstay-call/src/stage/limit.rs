//! Refuses what would be too much, before it costs anything.
//!
//! A call may pass several limits. They are asked in the order they are listed, and all must let
//! it through: when one refuses, what the earlier ones counted is given back. A limit that lets a
//! call through later makes it wait here; a caller that gives up meanwhile is not counted. One
//! that gives up after its call was sent is: that call was made.
//!
//! A limit with `on_deny = "fallback"` does not end the call: it marks it, and the fallback stage,
//! which stands next, answers from its steps that need no upstream. Where no such stage takes the
//! mark the refusal stands.
//!
//! A call in flight is in flight until the last byte of its answer has passed, and holds its
//! permit until then. What an adaptive limit learns from is the time to the answer's head: the
//! rest is up to the size of the body and to whoever reads it.
//!
//! What a call carries through its limits is boxed, and a call without limits carries nothing.

mod asking;
mod holding;
mod key;
mod quota;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub(crate) use self::asking::{Asked, Held};
use self::asking::{Asking, Step};
pub use self::holding::Holding;
use self::holding::ended;
pub use self::key::{FromRequest, ReadKey};
pub use self::quota::Quota;
use crate::context::Context;
use crate::error::{CallError, Refusal};
use crate::limit::{Place, SharedLimit, Taken};
use crate::observe::Observer;
use crate::timer::Timer;
use crate::watched::Watched;

/// Most limits one call may pass.
pub const LIMITS_MAX: usize = 4;

/// Makes [`Limit`] services.
#[derive(Clone, Debug)]
pub struct LimitLayer<K> {
    limits: Arc<[Arc<SharedLimit>]>,
    keys: K,
    observer: Arc<dyn Observer>,
}

impl<K> LimitLayer<K> {
    /// Lets calls through that all of `limits` grant, of which the first [`LIMITS_MAX`] are asked.
    pub fn new(
        limits: impl Into<Arc<[Arc<SharedLimit>]>>,
        keys: K,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { limits: limits.into(), keys, observer }
    }
}

impl<S, K: Clone> Layer<S> for LimitLayer<K> {
    type Service = Limit<S, K>;

    fn layer(&self, inner: S) -> Limit<S, K> {
        Limit { layer: self.clone(), inner }
    }
}

/// Lets through what its limits grant; see the [module](self).
#[derive(Clone, Debug)]
pub struct Limit<S, K> {
    layer: LimitLayer<K>,
    inner: S,
}

impl<S, K, B, R> Service<http::Request<B>> for Limit<S, K>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError> + Clone,
    K: ReadKey<B>,
    R: Body,
{
    type Response = http::Response<Watched<R, Holding>>;
    type Error = CallError;
    type Future = LimitFuture<S, S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if self.layer.limits.is_empty() {
            let state = State::Sent { inner: self.inner.call(request) };
            return LimitFuture { state, waiting: None, asking: None };
        }
        let context = Context::of(&mut request);
        let mut asking = Box::new(Asking::new(&self.layer, context));
        let mut reserved = |request| {
            let fresh = self.inner.clone();
            Some(Box::new((std::mem::replace(&mut self.inner, fresh), request)))
        };
        let mut waiting = None;
        let state = match asking.begin(&self.layer.keys, &request) {
            Step::Through => match asking.send(&mut self.inner, request) {
                Ok(inner) => State::Sent { inner },
                Err(refusal) => State::Over { refusal: Some(refusal) },
            },
            Step::WaitUntil(until) => {
                waiting = reserved(request);
                State::Waiting { timer: Timer::until(until), place: None }
            }
            Step::Queue(place) => {
                waiting = reserved(request);
                State::Waiting { timer: Timer::until(place.until()), place: Some(place) }
            }
            Step::Refused(refusal) => State::Over { refusal: Some(refusal) },
        };
        LimitFuture { state, waiting, asking: Some(asking) }
    }
}

pin_project! {
    /// A call on its way through limits.
    #[derive(Debug)]
    pub struct LimitFuture<S, F, B> {
        #[pin]
        state: State<F>,
        // What is called once the way is free.
        waiting: Option<Box<(S, http::Request<B>)>>,
        asking: Option<Box<Asking>>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum State<F> {
        Waiting {
            timer: Timer,
            // In the queue for a permit; without it, the timer's end is what is waited for.
            place: Option<Place>,
        },
        Sent {
            #[pin]
            inner: F,
        },
        Over {
            refusal: Option<Box<Refusal>>,
        },
    }
}

impl<S, F, B, R> Future for LimitFuture<S, F, B>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError, Future = F>,
    F: Future<Output = Result<http::Response<R>, CallError>>,
    R: Body,
{
    type Output = Result<http::Response<Watched<R, Holding>>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let Some(asking) = this.asking.as_mut() else {
                let Projected::Sent { inner } = this.state.as_mut().project() else {
                    return Poll::Pending; // Without limits there is nothing else it can be.
                };
                let result = ready!(inner.poll(cx));
                return Poll::Ready(result.map(|r| r.map(|body| Watched::new(body, None))));
            };
            let step = match this.state.as_mut().project() {
                Projected::Sent { inner } => {
                    let result = ready!(inner.poll(cx));
                    return Poll::Ready(ended(result, asking));
                }
                Projected::Over { refusal } => {
                    // Without one it is polled after it was ready.
                    let refusal = refusal.take();
                    return refusal.map_or(Poll::Pending, |it| Poll::Ready(Err((*it).into())));
                }
                Projected::Waiting { timer, place: None } => {
                    ready!(timer.poll_elapsed(cx));
                    asking.go_on()
                }
                Projected::Waiting { timer, place: Some(place) } => {
                    let answer = ready!(poll_place(place, timer, cx));
                    asking.placed(answer)
                }
            };
            let state = match step {
                Step::Through => {
                    let Some(waiting) = this.waiting.take() else {
                        return Poll::Pending; // Polled after it was ready.
                    };
                    let (mut service, request) = *waiting;
                    match asking.send(&mut service, request) {
                        Ok(inner) => State::Sent { inner },
                        Err(refusal) => State::Over { refusal: Some(refusal) },
                    }
                }
                Step::WaitUntil(until) => {
                    State::Waiting { timer: Timer::until(until), place: None }
                }
                Step::Queue(place) => {
                    State::Waiting { timer: Timer::until(place.until()), place: Some(place) }
                }
                Step::Refused(refusal) => State::Over { refusal: Some(refusal) },
            };
            this.state.set(state);
        }
    }
}

/// Waits for the permit, and no longer than the timer.
fn poll_place(
    place: &mut Place,
    timer: &mut Timer,
    cx: &mut Task<'_>,
) -> Poll<Result<Taken, Box<Refusal>>> {
    let answer = place.poll_permit(cx);
    if answer.is_pending() {
        ready!(timer.poll_elapsed(cx));
        return place.poll_permit(cx);
    }
    answer
}
