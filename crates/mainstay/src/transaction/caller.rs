//! Calls branches.
//!
//! A service is called through the stages of every protected call: who can answer, which of them
//! is asked, whether its circuit lets it be. Retries are the coordinator's own, which remembers
//! them over a crash. A URL is called where it leads, if it may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mainstay_call::calls::{Sent, Within};
use mainstay_call::clock::MonotonicClock;
use mainstay_call::machines::Machines;
use mainstay_call::observe::Silent;
use mainstay_call::resolve::Resolve;
use mainstay_call::transport::failed;
use mainstay_call::{BoxError, CallError, Calls, Policy, Refusal};
use mainstay_coord::health::targets::Addresses;
use mainstay_core::{Clock as _, Effect, Instant};
use mainstay_txn::classify::{Ending, classify};
use mainstay_txn::port::{Answering, Outgoing, Participants, To};
use mainstay_txn::{Dialect, Outcome, Target};
use parking_lot::Mutex;

use super::connector::{Connector, Judge, denied};
use super::databases::Databases;
use super::figures::Figures;
use super::reply;
use super::request::request;
use super::settings::BodyMarkers;
use super::targets::Targets;
use crate::cluster::resolve::RegistryResolver;
use crate::report::causes;

/// Services whose clients are kept: what all transactions of a busy system name. Beyond that the
/// one unused for longest goes, with what its circuits know.
const SERVICES_MAX: usize = 1_024;

/// How long the rest of an answer is waited for that is of no consequence.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much of an answer is read: what DTM's words are looked for in, and more than people read.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What is sent.
type Payload = Full<Bytes>;
type Http = Client<Connector, Sent<Payload>>;
type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;
pub(super) type Answer = Response<AnswerBody>;

/// Calls branches.
pub(super) struct Caller {
    databases: Databases,
    services: Services,
    urls: Client<Connector, Payload>,
    markers: BodyMarkers,
    figures: Figures,
}

/// Calls services, each through a client of its own.
pub(super) struct Services {
    resolver: Arc<dyn Resolve>,
    clients: Mutex<BTreeMap<Arc<str>, (Calls<Http>, Instant)>>,
    http: Http,
    policy: Policy,
    machines: Arc<Machines>,
}

impl Services {
    /// Those that `resolver` knows, at `addresses` where they go by a name.
    pub(super) fn new(resolver: Arc<dyn Resolve>, addresses: Addresses) -> Self {
        let mut policy = Policy::default();
        policy.retry.attempts = std::num::NonZeroU32::MIN;
        Self {
            resolver,
            clients: Mutex::default(),
            http: client(Judge::Services(addresses)),
            policy,
            machines: Arc::new(Machines::new(Arc::new(Silent))),
        }
    }

    /// Calls `service` once.
    ///
    /// # Errors
    ///
    /// What it means that no answer came.
    pub(super) async fn call(
        &self,
        service: &str,
        mut request: Request<Payload>,
        timeout: Duration,
    ) -> Result<Answer, Outcome> {
        let calls = self.client(service).map_err(Outcome::Denied)?;
        request.extensions_mut().insert(Within(timeout));
        match calls.call(request).await {
            Ok(answer) => Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) => Err(unanswered(&error)),
        }
    }

    /// Has the resolver asked anew when `service` is called next.
    pub(super) fn forget(&self, service: &str) {
        self.clients.lock().remove(service);
    }

    fn client(&self, service: &str) -> Result<Calls<Http>, String> {
        let now = MonotonicClock.now();
        let mut clients = self.clients.lock();
        if let Some((calls, used)) = clients.get_mut(service) {
            *used = now;
            return Ok(calls.clone());
        }
        let builder = Calls::to(service).map_err(|error| error.to_string())?;
        let calls = builder
            .resolve(&*self.resolver)
            .upstream(self.http.clone())
            .policy(self.policy.clone())
            .machines(Arc::clone(&self.machines))
            .build();
        if SERVICES_MAX <= clients.len() {
            let oldest = clients.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
                clients.remove(&name);
            }
        }
        clients.insert(service.into(), (calls.clone(), now));
        Ok(calls)
    }
}

impl Caller {
    /// A caller of services that `resolver` knows, at `addresses` where they go by a name, and of
    /// URLs that `targets` allows, and of `databases`.
    pub(super) fn new(
        (resolver, addresses): (Arc<RegistryResolver>, Addresses),
        targets: Arc<Targets>,
        databases: Databases,
        markers: BodyMarkers,
        figures: Figures,
    ) -> Self {
        Self {
            databases,
            services: Services::new(resolver, addresses),
            urls: client(Judge::Urls(targets)),
            markers,
            figures,
        }
    }

    /// Whether anybody may be called yet: a database was asked first whether the log that speaks
    /// is the newest.
    pub(super) fn may_call(&self) -> bool {
        self.databases.are_looked_at()
    }

    async fn endpoint(&self, call: &Outgoing, target: &Target) -> Outcome {
        let request = match request(call, target) {
            Ok(request) => request,
            Err(unmade) => return Outcome::Denied(unmade.to_string()),
        };
        let sent = async {
            match target {
                Target::Service { service, .. } => {
                    self.services.call(service, request, call.timeout).await
                }
                Target::Url(_) => self.to_url(request).await,
            }
        };
        came_of(call, sent, self.markers).await
    }

    async fn to_url(&self, request: Request<Payload>) -> Result<Answer, Outcome> {
        to_url(&self.urls, request).await
    }
}

async fn to_url(
    urls: &Client<Connector, Payload>,
    request: Request<Payload>,
) -> Result<Answer, Outcome> {
    match urls.request(request).await {
        Ok(answer) => Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
        Err(error) => Err(unanswered(&failed(error.into()))),
    }
}

/// Calls URLs as the coordinator does, for somebody who names them by hand and so may name any.
pub(crate) struct ByHand(Client<Connector, Payload>);

impl ByHand {
    pub(crate) fn new() -> Self {
        Self(client(Judge::Anywhere))
    }

    /// Calls once. What is no URL is not sent.
    pub(crate) async fn call(&self, call: &Outgoing) -> Outcome {
        let To::Endpoint(target @ Target::Url(_)) = &call.to else {
            return Outcome::Denied("only a URL can be called by hand".to_owned());
        };
        match request(call, target) {
            Ok(request) => came_of(call, to_url(&self.0, request), BodyMarkers::Text).await,
            Err(unmade) => Outcome::Denied(unmade.to_string()),
        }
    }
}

/// What came of `sent`, within the time that `call` has.
pub(super) async fn came_of(
    call: &Outgoing,
    sent: impl Future<Output = Result<Answer, Outcome>>,
    markers: BodyMarkers,
) -> Outcome {
    let began = MonotonicClock.now();
    let answer = match tokio::time::timeout(call.timeout, sent).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(outcome)) => return outcome,
        Err(_elapsed) => return classify(Ending::Broken(too_slow(call.timeout))),
    };
    let status = answer.status().as_u16();
    // In our own dialect the head says it all; what follows is read for people, and so that
    // the connection can be used again.
    let body = match call.dialect {
        Dialect::Native => read(answer.into_body(), PATIENCE).await.unwrap_or_default(),
        Dialect::Dtm => {
            let left = call.timeout.saturating_sub(MonotonicClock.now().since(began));
            match read(answer.into_body(), left).await {
                Ok(body) => body,
                Err(why) => return classify(Ending::Broken(why)),
            }
        }
    };
    let ending = Ending::Answered { status, detail: body };
    reply::outcome(call.dialect, ending, markers)
}

impl Participants for Caller {
    fn call(&self, call: Outgoing) -> Answering<'_, Outcome> {
        Box::pin(async move {
            let began = MonotonicClock.now();
            let outcome = match &call.to {
                To::Endpoint(target) => self.endpoint(&call, target).await,
                To::Resource { .. } => self.databases.call(&call).await,
            };
            self.figures.ended(call.op, &outcome, MonotonicClock.now().since(began));
            outcome
        })
    }
}

fn client<B>(judge: Judge) -> Client<Connector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(30))
        // As many as may be under way to one peer.
        .pool_max_idle_per_host(32)
        .build(Connector::new(judge))
}

fn too_slow(timeout: Duration) -> String {
    format!("no answer within {} s", timeout.as_secs_f64())
}

/// The text of a body, as much of it as is of use.
async fn read(body: AnswerBody, patience: Duration) -> Result<String, String> {
    let mut body = std::pin::pin!(body);
    let mut text = Vec::new();
    let all = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
            let Some(bytes) = frame.data_ref() else { continue };
            let room = BODY_BYTES_MAX.saturating_sub(text.len());
            text.extend(bytes.iter().take(room));
            if BODY_BYTES_MAX <= text.len() {
                break;
            }
        }
        Ok::<(), String>(())
    };
    tokio::time::timeout(patience, all).await.map_err(|_elapsed| too_slow(patience))??;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What it means that no answer came.
fn unanswered(error: &CallError) -> Outcome {
    if let Some(denied) = denied(error) {
        return Outcome::Denied(denied.to_string());
    }
    let why = causes(error);
    if error.effect() != Effect::None {
        return classify(Ending::Broken(why));
    }
    classify(match error {
        CallError::Refused(Refusal { retry_after: Some(retry_after), .. }) => {
            Ending::Closed { why, retry_after: *retry_after }
        }
        CallError::Refused(_) | CallError::Denied(_) | CallError::Failed { .. } => {
            Ending::Unsent(why)
        }
    })
}
