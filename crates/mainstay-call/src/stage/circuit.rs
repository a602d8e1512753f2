//! Lets an attempt through while its circuits do, and tells them how it ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use http_body::Body;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::classify::{Classifier, Verdict};
use mainstay_resilience::{Failure, Outcome};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::{self, Head};
use crate::circuit::{Permits, SharedCircuit};
use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::error::{CallError, Refusal};
use crate::pause;
use crate::watched::{OnEnd, Watched};

/// Makes [`Circuit`] services.
#[derive(Clone, Debug)]
pub struct CircuitLayer {
    circuits: Arc<[Arc<SharedCircuit>]>,
    classifier: Arc<Classifier>,
}

impl CircuitLayer {
    /// Guards calls by `circuits`, which hear of results as `classifier` judges them. The circuits
    /// that the call's [`Context`] names are asked as well.
    pub fn new(circuits: Arc<[Arc<SharedCircuit>]>, classifier: Arc<Classifier>) -> Self {
        Self { circuits, classifier }
    }
}

impl<S> Layer<S> for CircuitLayer {
    type Service = Circuit<S>;

    fn layer(&self, inner: S) -> Circuit<S> {
        Circuit { layer: self.clone(), inner }
    }
}

/// Guards a service by circuits; see the [module](self).
#[derive(Clone, Debug)]
pub struct Circuit<S> {
    layer: CircuitLayer,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Circuit<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = CallError>,
    R: Body,
{
    type Response = http::Response<Watched<R, Pending>>;
    type Error = CallError;
    type Future = CircuitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> CircuitFuture<S::Future> {
        let context = Context::within(&mut request);
        let started = context.moment();
        let own = self.layer.circuits.iter();
        match Permits::take(started, own.chain(context.facts.circuits.iter())) {
            Err(refusal) => CircuitFuture { state: State::Refused { refusal: Some(refusal) } },
            Ok(permits) => {
                let classifier = Arc::clone(&self.layer.classifier);
                let pending = Some(Asked { permits, classifier, started, head: Duration::ZERO });
                CircuitFuture { state: State::Sent { inner: self.inner.call(request), pending } }
            }
        }
    }
}

pin_project! {
    /// An attempt under permits.
    #[derive(Debug)]
    pub struct CircuitFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum State<F> {
        Sent {
            #[pin]
            inner: F,
            pending: Option<Asked>,
        },
        Refused {
            refusal: Option<Refusal>,
        },
    }
}

impl<F, R> Future for CircuitFuture<F>
where
    F: Future<Output = Result<http::Response<R>, CallError>>,
    R: Body,
{
    type Output = Result<http::Response<Watched<R, Pending>>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Refused { refusal } => match refusal.take() {
                Some(refusal) => Poll::Ready(Err(refusal.into())),
                None => Poll::Pending, // Polled after it was ready.
            },
            Projected::Sent { inner, pending } => {
                let result = ready!(inner.poll(cx));
                let Some(mut pending) = pending.take() else {
                    // Polled after it was ready: nothing is left to record.
                    return Poll::Ready(result.map(|r| r.map(|body| Watched::new(body, None))));
                };
                let now = MonotonicClock.now();
                pending.head = pause::awake(pending.started, now);
                Poll::Ready(match result {
                    Err(error) => {
                        pending.failed(now, &error);
                        Err(error)
                    }
                    Ok(response) => match answer::head(&response) {
                        Head::Known(answer) => {
                            pending.judged(now, answer);
                            Ok(response.map(|body| Watched::new(body, None)))
                        }
                        Head::InTrailers => {
                            let pending = Pending(Box::new(pending));
                            Ok(response.map(|body| Watched::new(body, Some(pending))))
                        }
                    },
                })
            }
        }
    }
}

/// What circuits hear of a call that ended so, as far as the head of its answer tells; `None` where
/// that says nothing of the service.
pub fn outcome<B>(
    classifier: &Classifier,
    result: &Result<http::Response<B>, CallError>,
) -> Option<Outcome> {
    let verdict = match result {
        Ok(response) => match answer::head(response) {
            Head::Known(answer) => classifier.judge(answer),
            Head::InTrailers => Verdict::Record(Outcome::Success),
        },
        Err(CallError::Failed { failure, .. }) => classifier.judge_failure(*failure),
        Err(CallError::Refused(_) | CallError::Denied(_)) => Verdict::Ignore,
    };
    match verdict {
        Verdict::Record(outcome) => Some(outcome),
        Verdict::Ignore => None,
    }
}

/// Permits of an answered attempt whose result is not known yet: it comes after the body. Dropped
/// without a result they go back. Boxed, since the answers of most calls pass without.
#[derive(Debug)]
pub struct Pending(Box<Asked>);

/// Permits of an attempt.
#[derive(Debug)]
struct Asked {
    permits: Permits,
    classifier: Arc<Classifier>,
    started: Instant,
    head: Duration,
}

impl Asked {
    fn judged(self, now: Instant, answer: mainstay_resilience::classify::Answer) {
        self.settle(now, |classifier| classifier.judge(answer));
    }

    fn failed(self, now: Instant, error: &CallError) {
        if let CallError::Failed { failure, .. } = error {
            self.settle(now, |classifier| classifier.judge_failure(*failure));
        }
    }

    fn settle(self, now: Instant, judge: impl FnOnce(&Classifier) -> Verdict) {
        if let Verdict::Record(outcome) = judge(&self.classifier) {
            self.permits.record(now, outcome, self.head);
        }
    }
}

impl OnEnd for Pending {
    fn ended(self, trailers: Option<&HeaderMap>) {
        self.0.judged(MonotonicClock.now(), answer::trailers(trailers));
    }

    fn broke_off(self) {
        self.0.settle(MonotonicClock.now(), |classifier| {
            classifier.judge_failure(Failure::Truncated)
        });
    }
}
