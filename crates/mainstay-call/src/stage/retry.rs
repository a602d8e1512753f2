//! Sends a call again when that can help and cannot harm.
//!
//! What to do after an attempt is decided by [`RetryPolicy::decide`]; here the request is kept so
//! that it can be sent again, the credit is taken, and the wait is waited. A call that is answered
//! at once costs a copy of its head and nothing else: a body is only kept while it passes, and only
//! up to the policy's limit.
//!
//! Hedging is the same with attempts at one time: after a while without an answer another attempt
//! goes to another instance, the first good answer wins, and the others are dropped, which cancels
//! them.

mod call;
mod kept;

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use mainstay_resilience::budget::Ended;
use mainstay_resilience::retry::{Progress, RetryPolicy};
use mainstay_resilience::{Congestion, Failure};
use tower_layer::Layer;
use tower_service::Service;

use self::call::{Call, Next, Outgrown, ending, has_touched};
use self::kept::Kept;
pub use self::kept::{ATTEMPT_HEADER, arriving};
use crate::budget::{SharedBudget, Spending};
use crate::context::Context;
use crate::error::CallError;
use crate::observe::Observer;
use crate::replay::Replay;
use crate::timer::Timer;

/// What one upstream's calls share.
#[derive(Debug)]
pub struct Retries {
    /// Service asked.
    pub service: Arc<str>,
    /// When to send again.
    pub policy: RetryPolicy,
    /// How much of it all calls may do together.
    pub budget: Arc<SharedBudget>,
    /// Is told of what is done.
    pub observer: Arc<dyn Observer>,
    /// Most attempts of calls to come, where a switch says so and not the policy.
    pub most: MostAttempts,
}

/// A number of attempts that is turned while calls are made; the policy's, until it is set.
#[derive(Debug, Default)]
pub struct MostAttempts(AtomicU32);

impl MostAttempts {
    /// Calls from now on take at most `most` attempts; `None` leaves it to the policy again. One
    /// attempt is no hedge either.
    pub fn set(&self, most: Option<NonZeroU32>) {
        self.0.store(most.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }

    fn get(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.load(Ordering::Relaxed))
    }
}

/// Makes [`Retry`] services.
#[derive(Clone, Debug)]
pub struct RetryLayer(Arc<Retries>);

impl RetryLayer {
    /// Sends calls again as `retries` say.
    pub fn new(retries: Arc<Retries>) -> Self {
        Self(retries)
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { retries: Arc::clone(&self.0), inner }
    }
}

/// Sends calls again; see the [module](self).
#[derive(Clone, Debug)]
pub struct Retry<S> {
    retries: Arc<Retries>,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Retry<S>
where
    S: Service<http::Request<Replay<B>>, Response = http::Response<R>, Error = CallError> + Clone,
    B: Body<Data = Bytes>,
{
    type Response = http::Response<R>;
    type Error = CallError;
    type Future = RetryFuture<S, S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let context = Context::of(&mut request);
        let now = context.moment();
        let most = usize::try_from(self.retries.policy.replay_bytes_max).unwrap_or(usize::MAX);
        let kept = Kept::of(&request, &context);
        let request = request.map(|body| Replay::new(body, most));
        let body = request.body().handle();
        let spending = Spending::begin(Arc::clone(&self.retries.budget), now);
        // What was made ready goes with this call; the service left behind starts anew.
        let fresh = self.inner.clone();
        let mut service = std::mem::replace(&mut self.inner, fresh);
        let first = Some(Box::pin(service.call(request)));
        let call = Box::new(Call {
            service,
            retries: Arc::clone(&self.retries),
            context,
            kept,
            body,
            spending,
            progress: Progress::at_most(self.retries.most.get()),
            hedges: 0,
            last_sent: now,
            lost_one: false,
            races: 0,
            waiting: false,
            touched: false,
        });
        let timer = Timer::until(call.hedge_at());
        RetryFuture { first, others: Vec::new(), timer, call }
    }
}

/// A call and its attempts.
///
/// What is large stands in boxes of its own, so that the stages above hand four words on, and not
/// the room for a request, a connection and an answer.
#[derive(Debug)]
pub struct RetryFuture<S, F, B> {
    first: Option<Pin<Box<F>>>,
    /// Hedges: attempts beside the first. Empty, and without memory, in almost every call.
    others: Vec<Pin<Box<F>>>,
    /// Ends the wait before the next attempt, or says when to hedge.
    timer: Timer,
    call: Box<Call<S, B>>,
}

impl<S, F, B, R> Future for RetryFuture<S, F, B>
where
    S: Service<
            http::Request<Replay<B>>,
            Response = http::Response<R>,
            Error = CallError,
            Future = F,
        >,
    F: Future<Output = Result<http::Response<R>, CallError>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<http::Response<R>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if this.call.waiting {
                ready!(this.timer.poll_elapsed(cx));
                ready!(this.call.service.poll_ready(cx))?;
                let Some(body) = this.call.body.again() else {
                    // The last attempt went on reading while this one waited, and the body is now
                    // too large to keep. What that attempt answered is gone.
                    let failure = Failure::Congestion(Congestion::Lost { sent: true });
                    return Poll::Ready(Err(CallError::failed(failure, Outgrown)));
                };
                this.first = Some(Box::pin(this.call.send(body)));
                this.timer.reset(this.call.hedge_at());
            }
            let hedges = this.others.len();
            let Some(result) = poll_attempts(&mut this.first, &mut this.others, cx) else {
                ready!(this.timer.poll_elapsed(cx));
                if let Some(hedge) = this.call.hedge(cx) {
                    this.others.push(Box::pin(hedge));
                }
                this.timer.reset(this.call.hedge_at());
                continue;
            };
            let ending = ending(&result);
            let under_way = this.first.is_some() || !this.others.is_empty();
            if under_way && this.call.is_non_fatal(ending, &result) {
                // Others may still do better. The next hedge need not wait any longer.
                this.call.spending.ended(Ended::Badly);
                this.call.touched |= has_touched(&result);
                this.call.lost_one = true;
                this.timer.reset(this.call.hedge_at());
                continue;
            }
            match this.call.next(ending, &result) {
                Next::Done => {
                    if this.others.len() < hedges && result.is_ok() {
                        this.call.retries.observer.hedged("won");
                    }
                    return Poll::Ready(this.call.truthful(result));
                }
                Next::Wait(until) => {
                    this.first = None;
                    this.others.clear();
                    this.timer.reset(until);
                    this.call.waiting = true;
                }
            }
        }
    }
}

/// The result of an attempt that has ended, which is then gone.
fn poll_attempts<F: Future>(
    first: &mut Option<Pin<Box<F>>>,
    others: &mut Vec<Pin<Box<F>>>,
    cx: &mut Task<'_>,
) -> Option<F::Output> {
    if let Some(attempt) = first
        && let Poll::Ready(result) = attempt.as_mut().poll(cx)
    {
        *first = None;
        return Some(result);
    }
    for n in 0..others.len() {
        if let Poll::Ready(result) = others[n].as_mut().poll(cx) {
            drop(others.swap_remove(n));
            return Some(result);
        }
    }
    None
}
