//! Every stage a request passes through, in order. Read it downwards for the request and upwards
//! for the answer. Nothing else adds a stage.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http::{Request, Response};
use mainstay_call::CallError;
use mainstay_call::circuit::SharedCircuit;
use mainstay_call::instances::Instances;
use mainstay_call::limit::SharedLimit;
use mainstay_call::observe::Observer;
use mainstay_call::replay::Replay;
use mainstay_call::stage::balance::Balance;
use mainstay_call::stage::circuit::{Circuit, CircuitLayer};
use mainstay_call::stage::deadline::{Deadline, DeadlineLayer, DeadlinePolicy};
use mainstay_call::stage::fallback::{Fallback, FallbackLayer, Fallbacks};
use mainstay_call::stage::limit::{Limit, LimitLayer};
use mainstay_call::stage::retry::{Retries, Retry, RetryLayer};
use mainstay_call::stage::timeout::{Timeout, TimeoutLayer, TimeoutPolicy};
use mainstay_call::watched::Watched;
use mainstay_resilience::classify::Classifier;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{AttemptBody, InBody, PipelineBody};
use crate::faults::{FaultBook, Faulty, FaultyBody, Place};
use crate::gateway::keys::Keys;
use crate::gateway::substitutes::Substitutes;
use crate::identify::{Identify, Policy};
use crate::mirror::Tee;
use crate::upstream::{Upstream, UpstreamBody};

/// A caller's body as the stages get it; what is mirrored is kept as it passes.
pub type CallBody = Tee<InBody>;

/// A caller's body as an attempt sends it: kept once for a substitute, once for a retry.
pub type SentBody = Replay<Replay<CallBody>>;

/// One attempt at one instance.
pub type Attempt = Circuit<Timeout<Faulty<Upstream<SentBody>>>>;

/// A call, from the door to the instances.
pub type Pipeline = Deadline<Identify<Limit<Fallback<Retry<Balance<Attempt>>, Substitutes>, Keys>>>;

/// The answer of a call that has been sent into its [`Pipeline`].
pub type CallComing = <Pipeline as Service<Request<CallBody>>>::Future;

/// The answer of the route's own that has been sent into its [`OwnPipeline`].
pub type OwnComing = <OwnPipeline as Service<Request<CallBody>>>::Future;

pin_project! {
    /// An answer on its way out of the stages.
    #[derive(Debug)]
    pub struct Coming {
        #[pin]
        source: Source,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Source {
        Call {
            #[pin]
            coming: CallComing,
        },
        // Rare enough to be boxed: calls do not carry its room.
        Own {
            coming: Pin<Box<OwnComing>>,
        },
    }
}

impl Coming {
    /// The answer of a service.
    pub fn of_call(coming: CallComing) -> Self {
        Self { source: Source::Call { coming } }
    }

    /// The answer of the route's own.
    pub fn of_own(coming: OwnComing) -> Self {
        Self { source: Source::Own { coming: Box::pin(coming) } }
    }
}

impl Future for Coming {
    type Output = Result<Response<PipelineBody>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().source.project() {
            Projected::Call { coming } => coming.poll(cx),
            Projected::Own { coming } => coming.as_mut().poll(cx),
        }
    }
}

/// What the stages of a route's calls to one service are set to.
#[derive(Clone, Debug)]
pub struct Stages {
    /// How long a call may take.
    pub deadline: DeadlinePolicy,
    /// Whose tokens tell who is calling; `None` where nobody is asked.
    pub identify: Option<Arc<Policy>>,
    /// What it may not exceed.
    pub limits: Arc<[Arc<SharedLimit>]>,
    /// What is answered when the real answer cannot be had.
    pub fallbacks: Arc<Fallbacks>,
    /// Who is asked in the service's place.
    pub substitutes: Substitutes,
    /// When it is sent again.
    pub retries: Arc<Retries>,
    /// Whom it is sent to.
    pub instances: Arc<Instances<Attempt>>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

/// The stages of a call. Before them stand the head guard, which reads bytes, and the gateway,
/// which finds the route and turns whatever goes wrong into a problem.
pub fn pipeline(stages: Stages) -> Pipeline {
    let Stages { deadline, identify, limits, fallbacks, .. } = stages;
    let Stages { substitutes, retries, instances, observer, .. } = stages;
    // The caller's patience; every later stage may only shorten it.
    DeadlineLayer::new(deadline).kept_below().layer(
        // Who is calling. Nothing answers in a service's place who may not call it, and limits may
        // go by who it is.
        Identify::new(
            identify,
            // Refuse early and cheaply what could not be served anyway.
            LimitLayer::new(limits, Keys, observer).layer(
                // From here on a failure can still be answered in the service's place.
                FallbackLayer::new(fallbacks, substitutes).layer(
                    // Below this line stages run once per attempt, not once per request.
                    RetryLayer::new(retries).layer(
                        // Below this line stages exist once per instance; see `attempt`.
                        Balance::new(instances),
                    ),
                ),
            ),
        ),
    )
}

/// An answer of the route's own, a redirect or a fixed text: what of a call's stages makes sense
/// where no service is asked.
pub type OwnPipeline = Deadline<Identify<Limit<Fallback<Own, Substitutes>, Keys>>>;

/// What the stages of a route's own answers are set to.
#[derive(Clone, Debug)]
pub struct OwnStages {
    /// How long a call may take: it may wait for a limit, or for a stand-in.
    pub deadline: DeadlinePolicy,
    /// Whose tokens tell who is calling; `None` where nobody is asked.
    pub identify: Option<Arc<Policy>>,
    /// What it may not exceed.
    pub limits: Arc<[Arc<SharedLimit>]>,
    /// What is answered when a limit or the route's switch says no.
    pub fallbacks: Arc<Fallbacks>,
    /// Who is asked in the route's place.
    pub substitutes: Substitutes,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

/// The stages of an answer of the route's own, in the order of [`pipeline`].
pub fn own(stages: OwnStages) -> OwnPipeline {
    let OwnStages { deadline, identify, limits, fallbacks, substitutes, observer } = stages;
    DeadlineLayer::new(deadline).kept_below().layer(Identify::new(
        identify,
        LimitLayer::new(limits, Keys, observer)
            .layer(FallbackLayer::new(fallbacks, substitutes).layer(Own)),
    ))
}

/// Gives the answer that was put into the request's extensions, as a service gives its own.
#[derive(Clone, Copy, Debug)]
pub struct Own;

impl<B> Service<Request<B>> for Own {
    type Response = Response<AttemptBody>;
    type Error = CallError;
    type Future = std::future::Ready<Result<Response<AttemptBody>, CallError>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let answer = request.extensions_mut().remove::<Response<Bytes>>().unwrap_or_default();
        let body = |bytes| {
            let plain = FaultyBody::Plain(UpstreamBody::whole(bytes));
            Watched::new(Watched::new(plain, None), None)
        };
        std::future::ready(Ok(answer.map(body)))
    }
}

/// What the stages of attempts at one instance are set to.
#[derive(Clone, Debug)]
pub struct AttemptStages {
    /// Its circuits.
    pub circuits: Arc<[Arc<SharedCircuit>]>,
    /// How results are judged.
    pub classifier: Arc<Classifier>,
    /// How long an attempt may take.
    pub timeout: TimeoutPolicy,
    /// Faults to rehearse with.
    pub faults: Arc<FaultBook>,
    /// Whom attempts are sent to.
    pub place: Arc<Place>,
}

/// The stages of an attempt at one instance.
pub fn attempt(stages: AttemptStages, upstream: Upstream<SentBody>) -> Attempt {
    let AttemptStages { circuits, classifier, timeout, faults, place } = stages;
    // An instance that has failed is left alone for a while.
    CircuitLayer::new(circuits, classifier).layer(
        // One attempt is bounded, and tells the instance how long it has.
        TimeoutLayer::new(timeout).layer(
            // Rehearsed faults meet the stages above as real ones would.
            Faulty::new(faults, place, upstream),
        ),
    )
}
