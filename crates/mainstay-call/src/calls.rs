//! A protected client: every stage around one HTTP client, in the order of the pipeline.
//!
//! ```text
//! Deadline ─▶ Limit ─▶ Fallback ─▶ Retry ─▶ Balance ─▶ Circuit ─▶ Timeout ─▶ Transport ─▶ client
//! ```
//!
//! ```no_run
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use mainstay_call::{Calls, Policy};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let http = Client::builder(TokioExecutor::new()).build_http();
//! let payment = Calls::to("payment")?
//!     .instances(["10.0.0.7:8080", "10.0.0.8:8080"])
//!     .upstream(http)
//!     .policy(Policy::from_toml("timeout_seconds = 2")?)
//!     .build();
//! let reply = payment.call(http::Request::get("/health").body(Full::<bytes::Bytes>::default())?).await?;
//! # drop(reply);
//! # Ok(())
//! # }
//! ```
//!
//! The client is itself a tower service. One limit of today's compiler: futures of calls whose
//! answers' bodies have a boxed error (`Box<dyn Error>`) among their type parameters cannot be
//! given to a task (rust-lang/rust#102211); hyper's own bodies have none.
//!
//! A call that is dropped is cancelled, and gives back all it held. There is no call "one way, at
//! most once": when the bytes of a request have been handed to a socket is known to the HTTP
//! client alone, and no tower service tells it.

mod builder;
mod done;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use mainstay_core::Clock;
use mainstay_core::name::PolicyName;
use mainstay_resilience::deadline::{Deadline as Moment, Patience};
use mainstay_resilience::hash::Function;
use mainstay_resilience::key::KeyPart;
use tower_service::Service;

use crate::circuit::SharedCircuit;
use crate::clock::MonotonicClock;
use crate::context::{Context, Facts};
use crate::deferred::{Deferral, NotDeferred, Receipt};
use crate::draw;
use crate::error::{BoxError, CallError};
use crate::instances::Instances;
use crate::machines::Machines;
use crate::replay::Replay;
use crate::stage::balance::{self, Balance};
use crate::stage::circuit::{self, Circuit};
use crate::stage::deadline::{self, Bounded, Deadline};
use crate::stage::fallback::{Defers, Fallback, FallbackBody};
use crate::stage::limit::{FromRequest, Holding, Limit, ReadKey};
use crate::stage::retry::{self, Retry};
use crate::stage::timeout::Timeout;
use crate::transport::Transport;
use crate::watched::Watched;

pub use builder::{Builder, Ready, WantsInstances, WantsUpstream};
pub use done::{CallThen, Done};

/// One attempt at one instance.
pub type Attempts<S> = Circuit<Timeout<Transport<S>>>;

/// All stages.
pub type Stack<S> = Deadline<Limit<Fallback<Retry<Balance<Attempts<S>>>, ()>, FromRequest>>;

/// The body of a request as the client below is given it: kept for another attempt by retries, and
/// for a stand-in by a fallback.
pub type Sent<B> = Replay<Replay<B>>;

/// The body of an answer. What is held for the call, its permits and its place in flight, is given
/// back when this has ended or is dropped.
pub type Answered<R> = Bounded<
    Watched<FallbackBody<Watched<Watched<R, circuit::Pending>, balance::Attempt>>, Holding>,
>;

/// A client of one service; see the [module](self). Clones share everything.
pub struct Calls<S> {
    stack: Stack<S>,
    shared: Arc<Shared<S>>,
}

/// What all clones share beside the stages' own state.
struct Shared<S> {
    patience: Patience,
    hash: Option<(Function, Vec<KeyPart>)>,
    /// Circuits of the service as a whole.
    circuits: Arc<[Arc<SharedCircuit>]>,
    instances: Arc<Instances<Attempts<S>>>,
    machines: Arc<Machines>,
    deferred: Option<Defers>,
}

/// A wish of the program itself for how long a call may take in all, put into the extensions of a
/// request. Unlike a header, which may come from anywhere, it can also lengthen the policy's
/// `timeout_seconds`, up to `deadline_max_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within(pub Duration);

impl<S> Calls<S> {
    /// The instances and what has been learnt of them.
    pub fn instances(&self) -> &Arc<Instances<Attempts<S>>> {
        &self.shared.instances
    }

    /// The circuits, limits and budget behind the stages.
    pub fn machines(&self) -> &Arc<Machines> {
        &self.shared.machines
    }

    /// Makes one call, as often as the policy allows and needs.
    ///
    /// # Errors
    ///
    /// [`CallError`]: how the last attempt failed, or which stage refused. An answer that the peer
    /// gave is no error, whatever its status.
    ///
    /// # Cancel safety
    ///
    /// Safe for this process: dropping the call gives back permits, credits and places in queues.
    /// What the peer has done by then is unknown.
    pub async fn call<B, R>(
        &self,
        request: http::Request<B>,
    ) -> Result<http::Response<Answered<R>>, CallError>
    where
        S: Service<http::Request<Sent<B>>, Response = http::Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes>,
    {
        let mut stack = self.stack.clone();
        std::future::poll_fn(|cx| ready::<S, B, R>(&mut stack, cx)).await?;
        Service::call(&mut stack, self.begin(request).0).await
    }

    /// Makes one call and hands its end to `callback`, which is run exactly once: with the answer
    /// or the error, or as cancelled when the future that this returns is dropped, or unwinds,
    /// before its end. Nothing happens until that future is awaited or given to a task.
    pub fn call_then<B, R, F>(
        &self,
        request: http::Request<B>,
        callback: F,
    ) -> CallThen<Stack<S>, http::Request<B>, Answered<R>, F>
    where
        S: Service<http::Request<Sent<B>>, Response = http::Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes>,
        F: FnOnce(Done<Answered<R>>),
    {
        let (request, context) = self.begin(request);
        CallThen::new(self.stack.clone(), request, context, callback)
    }

    /// Hands a request over to be made later, at least once, in the queue that is called like the
    /// service. When this has returned a receipt, the request survives a crash.
    ///
    /// # Errors
    ///
    /// [`NotDeferred`]: nothing was kept, unless it says that nobody knows.
    ///
    /// # Cancel safety
    ///
    /// The request may be kept all the same, and then is made.
    pub async fn defer(&self, request: http::Request<Bytes>) -> Result<Receipt, NotDeferred> {
        let Some(Defers { port, service }) = &self.shared.deferred else {
            return Err(NotDeferred::Nobody);
        };
        let queue =
            PolicyName::new(service).map_err(|error| NotDeferred::Unfit(error.to_string()))?;
        port.defer(Deferral { queue, service: Arc::clone(service), request }).await
    }

    /// Gives the request its own context: a call inside another call has its own attempts, and
    /// shares with it only the deadline.
    fn begin<B>(&self, mut request: http::Request<B>) -> (http::Request<B>, Arc<Context>) {
        let Shared { patience, hash, circuits, .. } = &*self.shared;
        let now = MonotonicClock.now();
        let hash = hash.as_ref().and_then(|(function, parts)| {
            function.hash_parts(parts, |part| FromRequest.read(&request, part).map(Cow::into_owned))
        });
        let facts = Facts {
            switch_key: None,
            draw: draw::next(),
            hash,
            arriving_attempt: retry::arriving(request.headers()),
            circuits: Arc::clone(circuits),
            ..Facts::default()
        };
        let context = Context::new(now, facts);
        let own = match request.extensions().get() {
            Some(Within(wish)) => Moment::resolve(now, Some(*wish), true, *patience),
            None => deadline::wished(request.headers(), now, *patience),
        };
        context.shorten(own);
        if let Some(outer) = request.extensions_mut().insert(Arc::clone(&context)) {
            outer.deadline().into_iter().for_each(|deadline| context.shorten(deadline));
        }
        (request, context)
    }
}

/// Readiness of the stack, with its request type spelled out once.
fn ready<S, B, R>(stack: &mut Stack<S>, cx: &mut Task<'_>) -> Poll<Result<(), CallError>>
where
    S: Service<http::Request<Sent<B>>, Response = http::Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    Service::<http::Request<B>>::poll_ready(stack, cx)
}

impl<S, B, R> Service<http::Request<B>> for Calls<S>
where
    S: Service<http::Request<Sent<B>>, Response = http::Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Response = http::Response<Answered<R>>;
    type Error = CallError;
    type Future = <Stack<S> as Service<http::Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        ready::<S, B, R>(&mut self.stack, cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (request, _context) = self.begin(request);
        self.stack.call(request)
    }
}

impl<S: Clone> Clone for Calls<S> {
    fn clone(&self) -> Self {
        Self { stack: self.stack.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for Calls<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.shared.instances.service();
        f.debug_struct("Calls").field("service", service).finish_non_exhaustive()
    }
}
