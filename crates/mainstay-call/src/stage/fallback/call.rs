//! One call: which step is next, and what becomes of the call when none is.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderValue, UPGRADE};
use http::{Request, Response};
use http_body::Body;
use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::classify::Verdict;
use mainstay_resilience::deadline::Deadline;
use mainstay_resilience::fallback::{Action, Cause, Moment, StaleKey};

use super::body::FallbackBody;
use super::kept::Kept;
use super::refusal;
use super::settings::{Dialect, Fallbacks, Waits};
use super::taking::{self, Taking};
use super::{Answer, Substitute};
use crate::answer::{self, Head};
use crate::clock::MonotonicClock;
use crate::context::{Context, Degraded};
use crate::deferred::Receipt;
use crate::error::{BoxError, CallError, Refusal};
use crate::replay::Replay;
use crate::stage::limit::Asked;
use crate::stage::timeout::is_grpc;
use crate::stale::{Keeping, Question};

/// Most of a body that is kept for a substitute: 64 KiB. For a step that defers it is what may be
/// deferred.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// A call of a route that has steps.
#[derive(Debug)]
pub(super) struct Call<T, B> {
    fallbacks: Arc<Fallbacks>,
    pub(super) context: Arc<Context>,
    substitutes: T,
    /// The request, where a substitute may have to be sent it, or it may be made later.
    kept: Option<Box<Kept<B>>>,
    /// What the answer would be stored by.
    question: Option<Box<Question>>,
    dialect: Dialect,
    /// Steps that were tried and could not answer, one bit each: none is tried twice.
    tried: u16,
    /// A step delayed the call, and so has had its say.
    settled: bool,
    /// A step would have delayed the call, but so many are delayed already, as many as may be.
    crowded: Option<u32>,
}

/// What becomes of a call when no step answers.
#[derive(Debug)]
pub(super) enum Otherwise<S, B, R> {
    /// It is sent.
    Send(S, Request<Replay<B>>),
    /// It is refused, unless a step delays it and its limits then think otherwise.
    Limited(Box<Refusal>, Asked, S, Request<Replay<B>>),
    /// It ends like this.
    Return(Result<Response<R>, CallError>),
}

/// What comes next.
pub(super) enum Next<S, U, B, R> {
    /// The end.
    Over(Answer<R>),
    /// The call.
    Send(S, Request<Replay<B>>),
    /// A wait, and then the call.
    Delay { until: Instant, waits: Waits, tells: Box<Tells<S, B, R>> },
    /// Another service.
    Ask { asks: Asks<U, B>, until: Instant, tells: Box<Tells<S, B, R>> },
    /// Handing the request over.
    Defer { taking: Box<Taking<B>>, until: Instant, tells: Box<Tells<S, B, R>> },
}

/// A substitute and the request for it. Boxed, as [`Tells`] is, so that calls that come to neither
/// do not carry the room for them.
pub(super) type Asks<U, B> = Box<(U, Request<Replay<B>>)>;

/// What has to be known when a delay is over, a substitute has answered, or the request is kept; or
/// has not and is not.
#[derive(Debug)]
pub(super) struct Tells<S, B, R> {
    moment: Moment,
    degraded: Degraded,
    otherwise: Otherwise<S, B, R>,
}

impl<T, B> Call<T, B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Takes note of `request`, and makes it one that can be sent again if that may be needed.
    pub(super) fn begin(
        fallbacks: &Arc<Fallbacks>,
        substitutes: T,
        context: Arc<Context>,
        request: Request<B>,
    ) -> (Self, Request<Replay<B>>) {
        let steps = fallbacks.steps.as_ref();
        let wanted = steps.map(|steps| steps.wanted).unwrap_or_default();
        let store = fallbacks.stale.as_ref().filter(|_| wanted.contains(&true));
        let question = store.and_then(|store| {
            Question::of(store, &request, &fallbacks.name, &context, wanted).map(Box::new)
        });
        let dialect = match request.method() {
            _ if is_grpc(request.headers()) => Dialect::Grpc,
            &http::Method::HEAD => Dialect::Head,
            _ => Dialect::Http,
        };
        let (request, kept) = if let Some(most) = kept_bytes_max(fallbacks) {
            let request = request.map(|body| Replay::new(body, most));
            let kept = Box::new(Kept::of(&request));
            (request, Some(kept))
        } else {
            (request.map(Replay::once), None)
        };
        let call = Self {
            fallbacks: Arc::clone(fallbacks),
            context,
            substitutes,
            kept,
            question,
            dialect,
            tried: 0,
            settled: false,
            crowded: None,
        };
        (call, request)
    }

    /// Asks the steps that have not been tried, in their order.
    pub(super) fn next<S, R>(
        &mut self,
        moment: Moment,
        otherwise: Otherwise<S, B, R>,
    ) -> Next<S, T::Service, B, R>
    where
        T: Substitute<B, R>,
        R: Body,
    {
        let fallbacks = Arc::clone(&self.fallbacks);
        let mut from = 0;
        while let Some((index, action)) = fallbacks.choose(moment, from, &self.context) {
            from = index + 1;
            if self.tried >> index & 1 == 1 {
                continue;
            }
            self.tried |= 1 << index;
            let cause = fallbacks.cause(moment, index);
            let degraded = Degraded { kind: action.as_str(), cause };
            match action {
                Action::Silent { .. } | Action::Value { .. } => {
                    let answer = fallbacks.steps.as_ref().and_then(|steps| steps.answer(index));
                    if let Some(answer) = answer {
                        self.tell(degraded);
                        return Next::Over(Ok(answer.response(self.dialect)));
                    }
                }
                Action::Stale { max_age, key } => {
                    if let Some(response) = self.stale(*key, *max_age) {
                        self.tell(degraded);
                        return Next::Over(Ok(response));
                    }
                }
                Action::Fail { status, code } => {
                    self.tell(degraded);
                    let (rule, attempts) = (&fallbacks.name, self.context.attempts());
                    let says = (*code, *status);
                    let refusal = refusal::of_step(rule, says, &otherwise, cause, attempts);
                    return Next::Over(Err(refusal.into()));
                }
                Action::Delay { span, queue_max } => {
                    if let Some((until, waits)) = self.delay(index, *span, *queue_max) {
                        let tells = Box::new(Tells { moment, degraded, otherwise });
                        return Next::Delay { until, waits, tells };
                    }
                }
                Action::Substitute { service } => {
                    if let Some(asks) = self.substitute(service) {
                        let until = self.until();
                        let tells = Box::new(Tells { moment, degraded, otherwise });
                        return Next::Ask { asks, until, tells };
                    }
                }
                Action::Defer { queue } => {
                    if let Some(taking) = self.defer(queue) {
                        let until = self.until();
                        let tells = Box::new(Tells { moment, degraded, otherwise });
                        return Next::Defer { taking, until, tells };
                    }
                }
            }
        }
        self.nobody(otherwise)
    }

    fn nobody<S, U, R: Body>(&self, otherwise: Otherwise<S, B, R>) -> Next<S, U, B, R> {
        match otherwise {
            Otherwise::Send(service, request) => match self.crowded {
                None => Next::Send(service, request),
                Some(most) => Next::Over(Err(refusal::crowded(&self.fallbacks.name, most).into())),
            },
            Otherwise::Limited(refusal, ..) => Next::Over(Err((*refusal).into())),
            Otherwise::Return(result) => Next::Over(plain(result)),
        }
    }

    /// The answer of a call that has ended well, or badly with nobody left to answer; else what
    /// comes next.
    pub(super) fn after<S, R>(
        &mut self,
        result: Result<Response<R>, CallError>,
    ) -> ControlFlow<Answer<R>, Next<S, T::Service, B, R>>
    where
        T: Substitute<B, R>,
        R: Body,
    {
        match self.judge(&result) {
            None => ControlFlow::Break(result.map(|response| self.kept(response))),
            Some(_) if self.settled => ControlFlow::Break(plain(result)),
            Some(cause) => {
                ControlFlow::Continue(self.next(Moment::After(cause), Otherwise::Return(result)))
            }
        }
    }

    /// Goes on after a substitute has answered, or could not in time.
    pub(super) fn asked<S, R>(
        &mut self,
        result: Option<Result<Response<R>, CallError>>,
        tells: Tells<S, B, R>,
    ) -> Next<S, T::Service, B, R>
    where
        T: Substitute<B, R>,
        R: Body,
    {
        let Tells { moment, degraded, otherwise } = tells;
        let result = match result {
            Some(Ok(mut response)) if self.judge(&Ok::<_, CallError>(&response)).is_none() => {
                self.tell(degraded);
                let no_store = HeaderValue::from_static("no-store");
                response.headers_mut().insert(CACHE_CONTROL, no_store);
                return Next::Over(plain(Ok(response)));
            }
            Some(result) => result,
            None => Err(mainstay_resilience::Failure::Deadline { sent: true }.into()),
        };
        let otherwise = self.unread(otherwise, result);
        self.next(moment, otherwise)
    }

    /// Goes on after the request was handed over, or could not be.
    pub(super) fn taken<S, R>(
        &mut self,
        receipt: Option<Receipt>,
        tells: Tells<S, B, R>,
    ) -> Next<S, T::Service, B, R>
    where
        T: Substitute<B, R>,
        R: Body,
    {
        let Tells { moment, degraded, otherwise } = tells;
        if let Some(receipt) = receipt {
            self.tell(degraded);
            return Next::Over(Ok(taking::response(&receipt, self.dialect)));
        }
        let most = kept_bytes_max(&self.fallbacks).unwrap_or(REPLAY_BYTES_MAX);
        let spent = refusal::spent(&self.fallbacks.name, most);
        let otherwise = self.unread(otherwise, Err(spent.into()));
        self.next(moment, otherwise)
    }

    /// What becomes of the call when no further step answers, after a step that may have read some
    /// of its body: it ends with `result` if it cannot be read once more.
    fn unread<S, R>(
        &self,
        otherwise: Otherwise<S, B, R>,
        result: Result<Response<R>, CallError>,
    ) -> Otherwise<S, B, R> {
        match otherwise {
            Otherwise::Send(service, request) => match self.again() {
                Some(body) => {
                    self.context.note(MonotonicClock.now());
                    Otherwise::Send(service, request.map(|_read| body))
                }
                None => Otherwise::Return(result),
            },
            Otherwise::Limited(refusal, asked, service, request) => match self.again() {
                Some(body) => {
                    Otherwise::Limited(refusal, asked, service, request.map(|_read| body))
                }
                None => Otherwise::Return(Err((*refusal).into())),
            },
            Otherwise::Return(result) => Otherwise::Return(result),
        }
    }

    /// Goes on after a delay.
    pub(super) fn delayed<S, U, R: Body>(&mut self, tells: Tells<S, B, R>) -> Next<S, U, B, R> {
        let Tells { degraded, otherwise, .. } = tells;
        let now = MonotonicClock.now();
        self.context.note(now);
        self.settled = true;
        let (service, request) = match otherwise {
            Otherwise::Send(service, request) => (service, request),
            Otherwise::Limited(_, asked, service, request) => {
                match asked.once_more(now) {
                    Err(refusal) => return Next::Over(Err(refusal.into())),
                    Ok(held) => self.context.hold(held),
                }
                (service, request)
            }
            Otherwise::Return(result) => return Next::Over(plain(result)),
        };
        self.tell(degraded);
        Next::Send(service, request)
    }

    /// Why the call failed, if it did and somebody is left to answer.
    fn judge<H: Headed>(&self, result: &Result<H, CallError>) -> Option<Cause> {
        match result {
            Ok(response) => match response.head() {
                Head::Known(answer) => {
                    let verdict = self.fallbacks.classifier.judge(answer);
                    let failed = Verdict::Record(mainstay_resilience::Outcome::Failure);
                    (verdict == failed).then_some(Cause::ServerError)
                }
                Head::InTrailers => None,
            },
            Err(CallError::Failed { failure, .. }) => Cause::of(*failure),
            Err(CallError::Refused(refusal)) => match refusal.code {
                Code::CircuitOpen => Some(Cause::Circuit),
                Code::NoInstance => Some(Cause::NoInstance),
                _ => None,
            },
            // Nobody stands in for the service before somebody who may not call it.
            Err(CallError::Denied(_)) => None,
        }
    }

    /// A good answer, which is copied on its way where it may be needed again.
    fn kept<R: Body>(&mut self, response: Response<R>) -> Response<FallbackBody<R>> {
        let question = self.question.take();
        let keeping = question.zip(self.fallbacks.stale.as_ref());
        let keeping =
            keeping.and_then(|(question, store)| Keeping::begin(store, question, &response));
        response.map(|body| FallbackBody::upstream(body, keeping))
    }

    fn stale<R: Body>(
        &self,
        key: StaleKey,
        max_age: Duration,
    ) -> Option<Response<FallbackBody<R>>> {
        let (store, question) = (self.fallbacks.stale.as_ref()?, self.question.as_ref()?);
        let kept = store.answer(question, key, max_age, MonotonicClock.now())?;
        let mut response = Response::new(FallbackBody::at_hand(kept.body, false));
        *response.headers_mut() = kept.headers;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }

    /// A place among the delayed, and until when; nothing where the deadline is too near.
    fn delay(&mut self, index: usize, span: Duration, queue_max: u32) -> Option<(Instant, Waits)> {
        let until = MonotonicClock.now().plus(span);
        if self.context.deadline().is_some_and(|deadline| deadline.at <= until) {
            return None;
        }
        let waits = Waits::enter(&self.fallbacks, index, queue_max);
        if waits.is_none() {
            self.crowded = Some(queue_max);
        }
        waits.map(|waits| (until, waits))
    }

    /// The service that stands in, and the request for it.
    fn substitute<R>(&self, name: &ServiceName) -> Option<Asks<T::Service, B>>
    where
        T: Substitute<B, R>,
    {
        let now = MonotonicClock.now();
        let deadline = self.context.deadline();
        if deadline.is_some_and(|deadline| deadline.has_passed(now)) {
            return None;
        }
        let body = self.again()?;
        let service = self.substitutes.find(name)?;
        let facts = self.substitutes.facts(name, &self.context.facts);
        let context = Context::new(now, facts);
        if let Some(Deadline { at, covers }) = deadline {
            context.shorten(Deadline { at, covers });
        }
        let kept = self.kept.as_ref()?;
        Some(Box::new((service, kept.again(context, body))))
    }

    /// The request, on its way into `queue`.
    fn defer(&self, queue: &PolicyName) -> Option<Box<Taking<B>>> {
        let (to, kept) = (self.fallbacks.deferred.as_ref()?, self.kept.as_ref()?);
        let now = MonotonicClock.now();
        let is_late = self.context.deadline().is_some_and(|deadline| deadline.has_passed(now));
        let head = kept.head();
        // A tunnel is no request that could be made later.
        if is_late || head.headers.contains_key(UPGRADE) {
            return None;
        }
        let announced = kept.body.size_hint().lower();
        Taking::begin(to, queue.clone(), head, || kept.body.again(), announced)
    }

    /// Until when the call may take.
    fn until(&self) -> Instant {
        self.context.deadline().map_or(Instant::MAX, |deadline| deadline.at)
    }

    fn again(&self) -> Option<Replay<B>> {
        self.kept.as_ref()?.body.again()
    }

    /// Notes that the answer is not simply the upstream's.
    fn tell(&self, degraded: Degraded) {
        self.context.degrade(degraded);
        self.fallbacks.observer.degraded(degraded);
    }
}

/// Most of a body that is kept, if some step may need it.
fn kept_bytes_max(fallbacks: &Fallbacks) -> Option<usize> {
    let steps = fallbacks.steps.as_ref()?;
    let deferred = fallbacks.deferred.as_ref().filter(|_| steps.defers);
    let deferred = deferred.map(|to| to.port.body_bytes_max());
    deferred.into_iter().chain(steps.substitutes.then_some(REPLAY_BYTES_MAX)).max()
}

/// A result that passes as it is.
pub(super) fn plain<R: Body>(result: Result<Response<R>, CallError>) -> Answer<R> {
    result.map(|response| response.map(|body| FallbackBody::upstream(body, None)))
}

/// What has the head of an answer.
trait Headed {
    fn head(&self) -> Head;
}

impl<R> Headed for Response<R> {
    fn head(&self) -> Head {
        answer::head(self)
    }
}

impl<R> Headed for &Response<R> {
    fn head(&self) -> Head {
        answer::head(self)
    }
}
