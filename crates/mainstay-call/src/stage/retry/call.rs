//! What one call knows of its attempts, and what it does after each.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http::header::HeaderName;
use http_body::Body;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::Failure;
use mainstay_resilience::budget::Ended;
use mainstay_resilience::circuit::Scope;
use mainstay_resilience::classify::Answer;
use mainstay_resilience::retry::{
    Attempt, Ending, Progress, Race, Retry as Decision, Start, Stopped, parse_pushback,
};
use tower_service::Service;

use super::Retries;
use super::kept::Kept;
use crate::answer::{self, Head};
use crate::budget::Spending;
use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::draw;
use crate::error::CallError;
use crate::replay::Replay;

const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Times a call may be sent on because a circuit closed its door between the balancer's question
/// and the attempt. Each costs nothing but the question, but there must be an end.
const RACES_MAX: u8 = 4;

/// What a call knows of itself between attempts.
#[derive(Debug)]
pub(super) struct Call<S, B> {
    pub(super) service: S,
    pub(super) retries: Arc<Retries>,
    pub(super) context: Arc<Context>,
    pub(super) kept: Kept,
    pub(super) body: Replay<B>,
    pub(super) spending: Spending,
    pub(super) progress: Progress,
    /// Hedges of the present attempt, sent or not for want of a credit.
    pub(super) hedges: u32,
    pub(super) last_sent: Instant,
    pub(super) lost_one: bool,
    pub(super) races: u8,
    /// Between attempts.
    pub(super) waiting: bool,
    /// An attempt that is over may have had an effect.
    pub(super) touched: bool,
}

/// What follows the end of an attempt.
pub(super) enum Next {
    /// Another after the timer's end, which is now or later.
    Wait(Instant),
    /// Nothing; the result is the call's.
    Done,
}

impl<S, B> Call<S, B>
where
    B: Body<Data = Bytes>,
{
    /// Begins the next attempt with `body`.
    pub(super) fn send<R>(&mut self, body: Replay<B>) -> S::Future
    where
        S: Service<http::Request<Replay<B>>, Response = http::Response<R>, Error = CallError>,
    {
        self.waiting = false;
        self.hedges = 0;
        self.lost_one = false;
        self.last_sent = MonotonicClock.now();
        self.context.note(self.last_sent);
        self.spending.sent();
        let request = self.kept.again(self.progress.number(), &self.context, body);
        self.service.call(request)
    }

    /// When to ask whether to hedge.
    pub(super) fn hedge_at(&self) -> Instant {
        let Some(hedge) = &self.retries.policy.hedge else { return Instant::MAX };
        if self.progress.most() == Some(NonZeroU32::MIN) {
            return Instant::MAX;
        }
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
    pub(super) fn hedge<R>(&mut self, cx: &mut Task<'_>) -> Option<S::Future>
    where
        S: Service<http::Request<Replay<B>>, Response = http::Response<R>, Error = CallError>,
    {
        let now = MonotonicClock.now();
        self.hedges += 1;
        self.last_sent = now;
        self.context.note(now);
        self.lost_one = false;
        let ready = matches!(self.service.poll_ready(cx), Poll::Ready(Ok(())));
        if !ready || !self.spending.take(now) {
            self.retries.observer.hedged("withheld");
            return None;
        }
        self.spending.sent();
        self.retries.observer.hedged("sent");
        self.retries.observer.retried(&self.retries.service, "hedge");
        let number = self.progress.number().saturating_add(self.hedges);
        let request = self.kept.again(number, &self.context, Replay::Empty);
        Some(self.service.call(request))
    }

    pub(super) fn is_non_fatal<R>(
        &self,
        ending: Option<Ending>,
        result: &Result<http::Response<R>, CallError>,
    ) -> bool {
        let hinted = hint(result).is_some();
        let hedge = self.retries.policy.hedge.as_ref();
        hedge.zip(ending).is_some_and(|(hedge, ending)| hedge.is_non_fatal(ending, hinted))
    }

    /// What follows an attempt that ended so.
    pub(super) fn next<R>(
        &mut self,
        ending: Option<Ending>,
        result: &Result<http::Response<R>, CallError>,
    ) -> Next {
        let now = MonotonicClock.now();
        self.context.note_upstream(now.since(self.last_sent));
        let Some(ending) = ending else {
            if result.is_ok() {
                // A gRPC answer whose status is still to come: committed, and well so far.
                self.spending.ended(Ended::Well);
            }
            return self.after_refusal(result, now);
        };
        if is_good(ending) {
            self.spending.ended(Ended::Well);
            return Next::Done;
        }
        let retry_after = hint(result);
        let bad = self.retries.policy.is_retryable(ending, retry_after.is_some());
        self.spending.ended(if bad { Ended::Badly } else { Ended::Otherwise });
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
    pub(super) fn truthful<R>(
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
pub(super) struct Outgrown;

/// Whether an attempt that ended so may have had an effect.
pub(super) fn has_touched<R>(result: &Result<http::Response<R>, CallError>) -> bool {
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
        Ending::Failed(Failure::RequestTimeout | Failure::Overslept { connecting: false }) => {
            "timeout"
        }
        Ending::Failed(
            Failure::ConnectTimeout
            | Failure::Overslept { connecting: true }
            | Failure::ConnectFailed { .. },
        ) => "connect",
        Ending::Failed(Failure::Unprocessed) => "refused-stream",
        Ending::Failed(_) => "congestion",
    }
}

/// How an attempt ended, as the retry policy sees it; `None` for a refusal by a stage below and
/// for a gRPC answer whose status is still to come.
pub(super) fn ending<R>(result: &Result<http::Response<R>, CallError>) -> Option<Ending> {
    match result {
        Ok(response) => match answer::head(response) {
            Head::Known(answer) => Some(Ending::Answered(answer)),
            Head::InTrailers => None,
        },
        Err(CallError::Failed { failure, .. }) => Some(Ending::Failed(*failure)),
        Err(CallError::Refused(_) | CallError::Denied(_)) => None,
    }
}
