//! The stage: lets through who is known, or need not be.
//!
//! A request that need not wait carries nothing of this stage but a pointer. One whose token names a
//! key that nobody knows yet is boxed while the keys are fetched.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Request, Response};
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::Context;
use mainstay_core::{Clock as _, Instant};
use mainstay_resilience::Failure;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::keys::{WAIT, Waiting};
use super::policy::{Decision, Policy, tell};

/// Lets through who is known; see the [module](self).
#[derive(Clone, Debug)]
pub struct Identify<S> {
    policy: Option<Arc<Policy>>,
    inner: S,
}

impl<S> Identify<S> {
    /// Asks by `policy`, or nobody.
    pub const fn new(policy: Option<Arc<Policy>>, inner: S) -> Self {
        Self { policy, inner }
    }
}

impl<S, B, R> Service<Request<B>> for Identify<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = CallError> + Clone,
{
    type Response = Response<R>;
    type Error = CallError;
    type Future = IdentifyFuture<S, S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(policy) = &self.policy else {
            return IdentifyFuture { state: State::Sent { inner: self.inner.call(request) } };
        };
        let context = Context::of(&mut request);
        let now = context.moment();
        let state = match settle(policy, &context, &mut request, now, true) {
            Settled::Through => State::Sent { inner: self.inner.call(request) },
            Settled::Denied(error) => State::Over { error: Some(error) },
            Settled::Wait(waiting) => {
                let until = now.plus(WAIT);
                let until = context.deadline().map_or(until, |deadline| until.min(deadline.at));
                let wait = wait(waiting, until.since(now));
                let policy = Arc::clone(policy);
                let service = self.inner.clone();
                let held = Held { wait, policy, service, request, context, until };
                State::Waiting { held: Some(Box::new(held)) }
            }
        };
        IdentifyFuture { state }
    }
}

/// A request that waits for keys.
struct Held<S, B> {
    wait: Settling,
    policy: Arc<Policy>,
    service: S,
    request: Request<B>,
    context: Arc<Context>,
    until: Instant,
}

/// Whether a fetch ended while there was time.
type Settling = Pin<Box<dyn Future<Output = bool> + Send>>;

fn wait(waiting: Waiting, span: Duration) -> Settling {
    Box::pin(async move { tokio::time::timeout(span, waiting.over()).await.is_ok() })
}

enum Settled {
    Through,
    Denied(CallError),
    Wait(Waiting),
}

/// Decides, and does to `request` what follows.
fn settle<B>(
    policy: &Policy,
    context: &Context,
    request: &mut Request<B>,
    now: Instant,
    patience: bool,
) -> Settled {
    match policy.decide(request.headers(), now, patience) {
        Decision::Known(verdict) => {
            tell(request.headers_mut(), &verdict);
            context.identify(Arc::clone(&verdict.caller));
            Settled::Through
        }
        Decision::Anonymous { strip } => {
            if strip {
                request.headers_mut().remove(AUTHORIZATION);
            }
            context.identify(policy.anonymous());
            Settled::Through
        }
        Decision::Denied(problem) => Settled::Denied(CallError::Denied(problem)),
        Decision::Wait(waiting) => Settled::Wait(waiting),
    }
}

pin_project! {
    /// A call on its way past the question who makes it.
    pub struct IdentifyFuture<S, F, B> {
        #[pin]
        state: State<S, F, B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, F, B> {
        Sent {
            #[pin]
            inner: F,
        },
        Waiting {
            held: Option<Box<Held<S, B>>>,
        },
        Over {
            error: Option<CallError>,
        },
    }
}

impl<S, F, B> fmt::Debug for IdentifyFuture<S, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentifyFuture").finish_non_exhaustive()
    }
}

impl<S, B, R> Future for IdentifyFuture<S, S::Future, B>
where
    S: Service<Request<B>, Response = Response<R>, Error = CallError>,
{
    type Output = Result<Response<R>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                Projected::Sent { inner } => return inner.poll(cx),
                Projected::Over { error } => {
                    let gone = || Failure::Deadline { sent: false }.into();
                    return Poll::Ready(Err(error.take().unwrap_or_else(gone)));
                }
                Projected::Waiting { held } => {
                    let settled = match held.as_mut() {
                        Some(held) => ready!(held.wait.as_mut().poll(cx)),
                        None => false,
                    };
                    match held.take() {
                        Some(held) => again(held, settled),
                        None => State::Over { error: None },
                    }
                }
            };
            this.state.set(next);
        }
    }
}

/// Looks again after a wait: once more if it was for nothing, and then for the last time.
fn again<S, B, R>(mut held: Box<Held<S, B>>, settled: bool) -> State<S, S::Future, B>
where
    S: Service<Request<B>, Response = Response<R>, Error = CallError>,
{
    let now = MonotonicClock.now();
    // The stages below would else count the wait as theirs.
    held.context.note(now);
    if held.context.deadline().is_some_and(|deadline| deadline.at <= now) {
        return State::Over { error: Some(Failure::Deadline { sent: false }.into()) };
    }
    let patience = settled && now < held.until;
    match settle(&held.policy, &held.context, &mut held.request, now, patience) {
        Settled::Through => {
            let Held { mut service, request, .. } = *held;
            State::Sent { inner: service.call(request) }
        }
        Settled::Denied(error) => State::Over { error: Some(error) },
        Settled::Wait(waiting) => {
            held.wait = wait(waiting, held.until.since(now));
            State::Waiting { held: Some(held) }
        }
    }
}
