//! Chooses the instance an attempt goes to.
//!
//! Everything an attempt needs is settled in advance in a set: who the instances are, one service
//! for each, and the picker made from their weights, zones, health and ejections. A set is
//! replaced, never changed, when the source has news or when time has something to say (an
//! ejection ends, an interval is judged); the call that notices replaces it, the others go on with
//! the old one meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use http_body::Body;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Effect, Instant};
use mainstay_resilience::Failure;
use mainstay_resilience::balance::{Ask, Estimate, Unpicked};
use mainstay_resilience::classify::{Answer, Classifier, Verdict};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::answer::{self, Head};
use crate::clock::MonotonicClock;
use crate::context::{ATTEMPTS_MAX, Context};
use crate::draw;
use crate::endpoint::InFlight;
use crate::error::{CallError, Figures, Refusal};
use crate::instances::{Instances, Set};
use crate::pause;
use crate::watched::{OnEnd, Watched};

/// Chooses an instance for each attempt; see the [module](self). Clones share everything.
#[derive(Debug)]
pub struct Balance<S> {
    instances: Arc<Instances<S>>,
}

impl<S> Clone for Balance<S> {
    fn clone(&self) -> Self {
        Self { instances: Arc::clone(&self.instances) }
    }
}

impl<S> Balance<S> {
    /// Balances over `instances`.
    pub fn new(instances: Arc<Instances<S>>) -> Self {
        Self { instances }
    }
}

impl<S, B, R> Service<http::Request<B>> for Balance<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError> + Clone,
    R: Body,
{
    type Response = http::Response<Watched<R, Attempt>>;
    type Error = CallError;
    type Future = BalanceFuture<S, S::Future, B>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        // Which instance has to be ready is only known once it has been picked.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let context = Context::within(&mut request);
        let now = context.moment();
        let set = self.instances.at(now);
        match pick(&self.instances, &set, context, now) {
            Err(refusal) => BalanceFuture { state: State::Refused { refusal: Some(refusal) } },
            Ok(index) => {
                let (endpoint, service) = set.member(index);
                context.attempt(endpoint);
                let attempt = Attempt {
                    in_flight: endpoint.enter(),
                    learns: self.instances.learns(),
                    started: now,
                    curious: endpoint.is_curious(now),
                    head: None,
                    told: false,
                };
                let (request, attempt) = (Some(request), Some(attempt));
                let service = service.clone();
                let state = State::Waiting { service, request, attempt, held_back: false };
                BalanceFuture { state }
            }
        }
    }
}

/// Index of the instance for this attempt.
fn pick<S>(
    instances: &Instances<S>,
    set: &Set<S>,
    context: &Context,
    now: Instant,
) -> Result<usize, Refusal> {
    let mut tried = [0; ATTEMPTS_MAX];
    let tried = set.tried(context, &mut tried);
    let draws = if context.attempts() == 0 {
        let draw = context.facts.draw;
        [draw, draw.rotate_left(21), draw.rotate_left(42)]
    } else {
        [draw::next(), draw::next(), draw::next()]
    };
    let attempt = context.attempts();
    let ask = Ask { now, draws, hash: context.facts.hash, attempt, tried };
    let admits = |index: usize| {
        let (endpoint, _) = set.member(index);
        let admits = endpoint.admits(now);
        if !admits {
            endpoint.pass_over(now);
        }
        admits
    };
    set.pick(&ask, admits).map_err(|unpicked| refusal(instances, set, unpicked))
}

#[cold]
fn refusal<S>(instances: &Instances<S>, set: &Set<S>, unpicked: Unpicked) -> Refusal {
    let code = match unpicked {
        Unpicked::NoInstance | Unpicked::Panic => Code::NoInstance,
        Unpicked::CircuitOpen => Code::CircuitOpen,
    };
    #[expect(clippy::cast_precision_loss, reason = "a count of instances")]
    let figures = Figures { observed: set.len() as f64, threshold: 1.0, unit: "instances" };
    Refusal {
        code,
        stage: "balance",
        scope: None,
        rule: Arc::clone(instances.service()),
        figures,
        since: Duration::ZERO,
        retry_after: set.reopens(MonotonicClock.now()),
        status: None,
        effect: Effect::None,
    }
}

pin_project! {
    /// An attempt at the instance that was picked.
    #[derive(Debug)]
    pub struct BalanceFuture<S, F, B> {
        #[pin]
        state: State<S, F, B>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum State<S, F, B> {
        // Its service is not ready yet.
        Waiting {
            service: S,
            request: Option<http::Request<B>>,
            attempt: Option<Attempt>,
            held_back: bool,
        },
        // On its way.
        Sent {
            #[pin]
            inner: F,
            attempt: Option<Attempt>,
        },
        // Nobody could be picked.
        Refused {
            refusal: Option<Refusal>,
        },
    }
}

impl<S, B, R> Future for BalanceFuture<S, S::Future, B>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError>,
    R: Body,
{
    type Output = Result<http::Response<Watched<R, Attempt>>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Refused { refusal } => {
                    return match refusal.take() {
                        Some(refusal) => Poll::Ready(Err(refusal.into())),
                        None => Poll::Pending, // Polled after it was ready.
                    };
                }
                Projected::Waiting { service, request, attempt, held_back } => {
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => (),
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(ended(Err(error), attempt.take()));
                        }
                        Poll::Pending => {
                            *held_back = true;
                            return Poll::Pending;
                        }
                    }
                    let Some(mut request) = request.take() else { return Poll::Pending };
                    if *held_back {
                        Context::within(&mut request).note(MonotonicClock.now());
                    }
                    State::Sent { inner: service.call(request), attempt: attempt.take() }
                }
                Projected::Sent { inner, attempt } => {
                    let result = ready!(inner.poll(cx));
                    return Poll::Ready(ended(result, attempt.take()));
                }
            };
            state.set(next);
        }
    }
}

fn ended<R: Body>(
    result: Result<http::Response<R>, CallError>,
    attempt: Option<Attempt>,
) -> Result<http::Response<Watched<R, Attempt>>, CallError> {
    let Some(mut attempt) = attempt else {
        return result.map(|response| response.map(|body| Watched::new(body, None)));
    };
    let now = MonotonicClock.now();
    attempt.head = Some(pause::awake(attempt.started, now));
    match result {
        Err(error) => {
            if let CallError::Failed { failure, .. } = &error {
                let verdict = attempt.learns.classifier.judge_failure(*failure);
                attempt.learn(now, verdict);
            } else {
                // Refused by its circuit after all: nothing was sent, nothing is learnt.
                attempt.told = true;
            }
            Err(error)
        }
        Ok(response) => {
            match answer::head(&response) {
                Head::Known(answer) => {
                    if matches!(answer, Answer::Http(429 | 503))
                        && let Some(after) = answer::retry_after(response.headers())
                    {
                        attempt.in_flight.endpoint().ask_later(now, after);
                    }
                    let verdict = attempt.learns.classifier.judge(answer);
                    attempt.learn(now, verdict);
                }
                Head::InTrailers => (),
            }
            Ok(response.map(|body| Watched::new(body, Some(attempt))))
        }
    }
}

/// What attempts teach, the same for all of an upstream's.
#[derive(Debug)]
pub struct Learns {
    /// Service asked.
    pub service: Arc<str>,
    /// Judges results.
    pub classifier: Arc<Classifier>,
    /// What a failed call counts as at least.
    pub failure_penalty: Duration,
    /// Run of failures that ejects.
    pub consecutive: u32,
    /// Nanoseconds of the moment at which there is something to decide about the instances; zero
    /// asks the next call to look.
    pub wake: AtomicU64,
    /// Is told of ends.
    pub observer: Arc<dyn crate::observe::Observer>,
}

/// One attempt: in flight until its answer's body has ended.
#[derive(Debug)]
pub struct Attempt {
    in_flight: InFlight,
    learns: Arc<Learns>,
    started: Instant,
    /// Sent to find out how the instance is.
    curious: bool,
    /// Time to the answer's head; `None` before it.
    head: Option<Duration>,
    /// The result is known and was passed on.
    told: bool,
}

impl Attempt {
    fn learn(&mut self, now: Instant, verdict: Verdict) {
        self.told = true;
        let latency = self.head.unwrap_or_else(|| now.since(self.started));
        let endpoint = self.in_flight.endpoint();
        let Verdict::Record(outcome) = verdict else {
            self.learns.observer.attempt_ended(endpoint, None, latency);
            return;
        };
        let failed = outcome.is_failure();
        let sample = if failed {
            Estimate::failed_sample(latency, self.learns.failure_penalty)
        } else {
            latency
        };
        if self.curious && !failed {
            endpoint.relearn(now, sample);
        } else {
            endpoint.learn(now, sample);
        }
        if endpoint.count(outcome, latency, self.learns.consecutive) {
            self.learns.wake.store(0, Ordering::Relaxed);
        }
        self.learns.observer.attempt_ended(endpoint, Some(failed), latency);
    }
}

impl OnEnd for Attempt {
    fn ended(mut self, trailers: Option<&HeaderMap>) {
        if !self.told {
            let verdict = self.learns.classifier.judge(answer::trailers(trailers));
            self.learn(MonotonicClock.now(), verdict);
        }
    }

    fn broke_off(mut self) {
        if !self.told {
            let verdict = self.learns.classifier.judge_failure(Failure::Truncated);
            self.learn(MonotonicClock.now(), verdict);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.told {
            let took = MonotonicClock.now().since(self.started);
            self.learns.observer.attempt_ended(self.in_flight.endpoint(), None, took);
        }
    }
}
