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

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::budget::Ended;
use mainstay_resilience::circuit::Scope;
use mainstay_resilience::classify::Answer;
use mainstay_resilience::retry::{
    Attempt, Ending, Progress, Race, Retry as Decision, RetryPolicy, Start, Stopped,
    arriving_attempt, method_is_idempotent, outgoing_attempt, outgoing_grpc_attempts,
    parse_pushback,
};
use mainstay_resilience::{Congestion, Failure};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::{self, Head};
use crate::budget::{SharedBudget, Spending};
use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::draw;
use crate::error::CallError;
use crate::observe::Observer;
use crate::replay::Replay;
use crate::stage::timeout::is_grpc;
use crate::timer::Timer;

/// Header that tells the next hop which attempt this is; absent on the first.
pub const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("mainstay-attempt");

const GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Times a call may be sent on because a circuit closed its door between the balancer's question
/// and the attempt. Each costs nothing but the question, but there must be an end.
const RACES_MAX: u8 = 4;

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
}

/// The attempt that `headers` say a call arrived as.
pub fn arriving(headers: &HeaderMap) -> u32 {
    let of = |name| headers.get(name).map(HeaderValue::as_bytes);
    arriving_attempt(of(ATTEMPT_HEADER), of(GRPC_ATTEMPTS))
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
        let now = MonotonicClock.now();
        let most = usize::try_from(self.retries.policy.replay_bytes_max).unwrap_or(usize::MAX);
        let kept = Kept::of(&request, &context);
        let request = request.map(|body| Replay::new(body, most));
        let body = request.body().handle();
        let spending = Spending::begin(Arc::clone(&self.retries.budget), now);
        // What was made ready goes with this call; the service left behind starts anew.
        let fresh = self.inner.clone();
        let mut service = std::mem::replace(&mut self.inner, fresh);
        let first = service.call(request);
        let call = Call {
            service,
            retries: Arc::clone(&self.retries),
            context,
            kept,
            body,
            spending,
            progress: Progress::default(),
            hedges: 0,
            last_sent: now,
            lost_one: false,
            races: 0,
            waiting: false,
            touched: false,
        };
        let timer = Timer::until(call.hedge_at());
        RetryFuture { first: Some(first), others: Vec::new(), timer, call }
    }
}

/// The head of a request, to be sent again.
#[derive(Debug)]
struct Kept {
    method: http::Method,
    uri: http::Uri,
    version: http::Version,
    headers: HeaderMap,
    extensions: Option<http::Extensions>,
    idempotent: bool,
    arriving: u32,
    grpc: bool,
}

impl Kept {
    fn of<B>(request: &http::Request<B>, context: &Context) -> Self {
        let headers = request.headers();
        // Usually the context is the only extension, and is known here anyway.
        let others = request.extensions().len() > 1;
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: headers.clone(),
            extensions: others.then(|| request.extensions().clone()),
            idempotent: context.facts.idempotent
                || method_is_idempotent(request.method().as_str())
                || headers.contains_key(IDEMPOTENCY_KEY),
            // Whoever made the context has read this, unless this layer stands alone.
            arriving: match context.facts.arriving_attempt {
                0 => arriving(headers),
                known => known,
            },
            grpc: is_grpc(headers),
        }
    }

    /// The request for attempt `number`.
    fn again<B>(&self, number: u32, context: &Arc<Context>, body: B) -> http::Request<B> {
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        if let Some(extensions) = &self.extensions {
            *request.extensions_mut() = extensions.clone();
        }
        request.extensions_mut().insert(Arc::clone(context));
        let (name, value) = if self.grpc {
            (GRPC_ATTEMPTS, outgoing_grpc_attempts(number, self.arriving))
        } else {
            (ATTEMPT_HEADER, outgoing_attempt(number, self.arriving))
        };
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(v.as_str()).ok()) {
            request.headers_mut().insert(name, value);
        }
        request
    }
}

pin_project! {
    /// A call and its attempts.
    #[derive(Debug)]
    pub struct RetryFuture<S, F, B> {
        #[pin]
        first: Option<F>,
        // Hedges: attempts beside the first. Empty, and without memory, in almost every call.
        others: Vec<Pin<Box<F>>>,
        // Ends the wait before the next attempt, or says when to hedge.
        #[pin]
        timer: Timer,
        call: Call<S, B>,
    }
}

/// What a call knows of itself between attempts.
#[derive(Debug)]
struct Call<S, B> {
    service: S,
    retries: Arc<Retries>,
    context: Arc<Context>,
    kept: Kept,
    body: Replay<B>,
    spending: Spending,
    progress: Progress,
    /// Hedges of the present attempt, sent or not for want of a credit.
    hedges: u32,
    last_sent: Instant,
    lost_one: bool,
    races: u8,
    /// Between attempts.
    waiting: bool,
    /// An attempt that is over may have had an effect.
    touched: bool,
}

/// What follows the end of an attempt.
enum Next {
    /// Another after the timer's end, which is now or later.
    Wait(Instant),
    /// Nothing; the result is the call's.
    Done,
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
        let mut this = self.project();
        loop {
            if this.call.waiting {
                ready!(this.timer.as_mut().poll_elapsed(cx));
                ready!(this.call.service.poll_ready(cx))?;
                let Some(body) = this.call.body.again() else {
                    // The last attempt went on reading while this one waited, and the body is now
                    // too large to keep. What that attempt answered is gone.
                    let failure = Failure::Congestion(Congestion::Lost { sent: true });
                    return Poll::Ready(Err(CallError::failed(failure, Outgrown)));
                };
                let first = this.call.send(body);
                this.first.set(Some(first));
                this.timer.as_mut().reset(this.call.hedge_at());
            }
            let Some(result) = poll_attempts(this.first.as_mut(), this.others, cx) else {
                ready!(this.timer.as_mut().poll_elapsed(cx));
                if let Some(hedge) = this.call.hedge(cx) {
                    this.others.push(Box::pin(hedge));
                }
                this.timer.as_mut().reset(this.call.hedge_at());
                continue;
            };
            let ending = ending(&result);
            let under_way = this.first.is_some() || !this.others.is_empty();
            if under_way && this.call.is_non_fatal(ending, &result) {
                // Others may still do better. The next hedge need not wait any longer.
                this.call.spending.ended(Ended::Badly);
                this.call.touched |= has_touched(&result);
                this.call.lost_one = true;
                this.timer.as_mut().reset(this.call.hedge_at());
                continue;
            }
            match this.call.next(ending, &result) {
                Next::Done => return Poll::Ready(this.call.truthful(result)),
                Next::Wait(until) => {
                    this.first.set(None);
                    this.others.clear();
                    this.timer.as_mut().reset(until);
                    this.call.waiting = true;
                }
            }
        }
    }
}

/// The result of an attempt that has ended, which is then gone.
fn poll_attempts<F: Future>(
    mut first: Pin<&mut Option<F>>,
    others: &mut Vec<Pin<Box<F>>>,
    cx: &mut Task<'_>,
) -> Option<F::Output> {
    if let Some(attempt) = first.as_mut().as_pin_mut()
        && let Poll::Ready(result) = attempt.poll(cx)
    {
        first.set(None);
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

/// How an attempt ended, as the retry policy sees it; `None` for a refusal by a stage below and
/// for a gRPC answer whose status is still to come.
fn ending<R>(result: &Result<http::Response<R>, CallError>) -> Option<Ending> {
    match result {
        Ok(response) => match answer::head(response) {
            Head::Known(answer) => Some(Ending::Answered(answer)),
            Head::InTrailers => None,
        },
        Err(CallError::Failed { failure, .. }) => Some(Ending::Failed(*failure)),
        Err(CallError::Refused(_)) => None,
    }
}

impl<S, B> Call<S, B>
where
    B: Body<Data = Bytes>,
{
    /// Begins the next attempt with `body`.
    fn send<R>(&mut self, body: Replay<B>) -> S::Future
    where
        S: Service<http::Request<Replay<B>>, Response = http::Response<R>, Error = CallError>,
    {
        self.waiting = false;
        self.hedges = 0;
        self.lost_one = false;
        self.last_sent = MonotonicClock.now();
        self.spending.sent();
        let request = self.kept.again(self.progress.number(), &self.context, body);
        self.service.call(request)
    }

    /// When to ask whether to hedge.
    fn hedge_at(&self) -> Instant {
        let Some(hedge) = &self.retries.policy.hedge else { return Instant::MAX };
        match hedge.next(&self.race()) {
            Start::Never => Instant::MAX,
            Start::Now => Instant::ZERO,
            Start::At(at) => at,
        }
    }

    fn race(&self) -> Race {
        Race {
            idempotent: self.kept.idempotent,
            // A body that is still passing cannot be read by two attempts at once.
            committed: !matches!(self.body, Replay::Empty),
            arriving: self.kept.arriving,
            sent: self.hedges,
            last_sent: self.last_sent,
            lost_one: self.lost_one,
        }
    }

    /// Another attempt beside those under way, if the policy and the budget allow it.
    fn hedge<R>(&mut self, cx: &mut Task<'_>) -> Option<S::Future>
    where
        S: Service<http::Request<Replay<B>>, Response = http::Response<R>, Error = CallError>,
    {
        let now = MonotonicClock.now();
        self.hedges += 1;
        self.last_sent = now;
        self.lost_one = false;
        let ready = matches!(self.service.poll_ready(cx), Poll::Ready(Ok(())));
        if !ready || !self.spending.take(now) {
            return None;
        }
        self.spending.sent();
        self.retries.observer.retried(&self.retries.service, "hedge");
        let number = self.progress.number().saturating_add(self.hedges);
        let request = self.kept.again(number, &self.context, Replay::Empty);
        Some(self.service.call(request))
    }

    fn is_non_fatal<R>(
        &self,
        ending: Option<Ending>,
        result: &Result<http::Response<R>, CallError>,
    ) -> bool {
        let hinted = hint(result).is_some();
        let hedge = self.retries.policy.hedge.as_ref();
        hedge.zip(ending).is_some_and(|(hedge, ending)| hedge.is_non_fatal(ending, hinted))
    }

    /// What follows an attempt that ended so.
    fn next<R>(
        &mut self,
        ending: Option<Ending>,
        result: &Result<http::Response<R>, CallError>,
    ) -> Next {
        let now = MonotonicClock.now();
        let Some(ending) = ending else {
            if result.is_ok() {
                // A gRPC answer whose status is still to come: committed, and well so far.
                self.spending.ended(Ended::Well);
            }
            return self.after_refusal(result, now);
        };
        let retry_after = hint(result);
        let good = is_good(ending);
        let bad = !good && self.retries.policy.is_retryable(ending, retry_after.is_some());
        self.spending.ended(match (good, bad) {
            (true, _) => Ended::Well,
            (_, true) => Ended::Badly,
            _ => Ended::Otherwise,
        });
        if good {
            return Next::Done;
        }
        let attempt = Attempt {
            ending,
            idempotent: self.kept.idempotent,
            committed: !self.body.is_whole(),
            arriving: self.kept.arriving,
            pushback: result.as_ref().ok().and_then(pushback),
            retry_after,
            remaining: self.context.remaining(now).unwrap_or(std::time::Duration::MAX),
        };
        match self.retries.policy.decide(&mut self.progress, &attempt, draw::next()) {
            Decision::Stop(why) => self.stop(why),
            Decision::Again { transparent, .. } if !transparent && !self.spending.take(now) => {
                self.stop(Stopped::Budget)
            }
            Decision::Again { after, .. } => {
                self.retries.observer.retried(&self.retries.service, reason(ending));
                self.touched |= has_touched(result);
                Next::Wait(now.plus(after))
            }
        }
    }

    /// A stage below refused. When it was the circuit of the instance that had just been picked,
    /// another instance is asked at once; nothing was sent, so this is no attempt.
    fn after_refusal<R>(
        &mut self,
        result: &Result<http::Response<R>, CallError>,
        now: Instant,
    ) -> Next {
        let raced = matches!(result, Err(CallError::Refused(refusal))
            if refusal.code == Code::CircuitOpen && refusal.scope == Some(Scope::Instance));
        if raced && self.races < RACES_MAX && self.body.is_whole() {
            self.races += 1;
            return Next::Wait(now);
        }
        Next::Done
    }

    /// A deadline that passed before the last attempt says that nothing was sent; that is not so
    /// when an earlier attempt was.
    fn truthful<R>(
        &self,
        result: Result<http::Response<R>, CallError>,
    ) -> Result<http::Response<R>, CallError> {
        match result {
            Err(CallError::Failed { failure: Failure::Deadline { sent: false }, source }) => {
                let failure = Failure::Deadline { sent: self.touched };
                Err(CallError::Failed { failure, source })
            }
            other => other,
        }
    }

    fn stop(&mut self, why: Stopped) -> Next {
        if why != Stopped::NotRetryable {
            self.context.stop_retry(why.as_str());
            self.retries.observer.retry_stopped(why.as_str());
        }
        Next::Done
    }
}

/// The request's body can no longer be sent from its beginning.
#[derive(Debug, thiserror::Error)]
#[error("request body outgrew what is kept for another attempt")]
struct Outgrown;

/// Whether an attempt that ended so may have had an effect.
fn has_touched<R>(result: &Result<http::Response<R>, CallError>) -> bool {
    result.as_ref().map_or_else(|error| error.effect() != Effect::None, |_answer| true)
}

/// Whether an attempt that ended so is a success, whatever `retry_on` names: those answers are
/// passed on without a second look.
fn is_good(ending: Ending) -> bool {
    matches!(ending, Ending::Answered(Answer::Http(100..=399) | Answer::Grpc(0)))
}

fn hint<R>(result: &Result<http::Response<R>, CallError>) -> Option<std::time::Duration> {
    answer::retry_after(result.as_ref().ok()?.headers())
}

fn pushback<R>(response: &http::Response<R>) -> Option<mainstay_resilience::retry::Pushback> {
    response.headers().get(GRPC_PUSHBACK).map(|value| parse_pushback(value.as_bytes()))
}

/// What the attempt before came to, for the metric.
const fn reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Answered(Answer::Http(429)) => "refused",
        Ending::Answered(Answer::Http(500..=599)) => "5xx",
        Ending::Answered(Answer::Http(_)) => "status",
        Ending::Answered(Answer::Grpc(_)) => "grpc",
        Ending::Failed(Failure::RequestTimeout) => "timeout",
        Ending::Failed(Failure::ConnectTimeout | Failure::ConnectFailed { .. }) => "connect",
        Ending::Failed(Failure::Unprocessed) => "refused-stream",
        Ending::Failed(_) => "congestion",
    }
}
