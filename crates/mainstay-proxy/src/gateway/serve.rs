//! The way of one request: taken in, matched, sent on, answered.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, SET_COOKIE, UPGRADE};
use http::request::Parts as Head;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Uri, Version};
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Context, Facts as CallFacts};
use mainstay_call::draw;
use mainstay_core::name::ServiceName;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant, Problem};
use mainstay_resilience::deadline::{Covers, Deadline, Patience};
use tower_service::Service;

use super::affinity;
use super::answer::{self, Asked, Via};
use super::arrival::Arrival;
use super::keys::Found;
use super::lane::{Lane, OwnLane};
use super::protection::Admitted;
use super::telling::{Passed, Streaming};
use super::{Gateway, Parts, Running, Way, receipts};
use crate::body::{InBody, Meter, OutBody, PipelineBody};
use crate::http1::spare;
use crate::key::Facts;
use crate::mirror::Mirrors;
use crate::path::Judged;
use crate::pipeline::Coming;
use crate::rewrite::headers::Values;
use crate::route::{Action, Captures, ForwardPath, Match, Route, View};
use crate::server::ConnInfo;
use crate::split::Split;

/// Answers one request.
///
/// All that can be settled at once is, in plain functions; what has to wait is the call alone, so
/// that one future carries what is needed after it, and nothing is moved from one to the next.
pub(super) async fn serve(
    running: &Running,
    gateway: Arc<Gateway>,
    request: Request<InBody>,
    from: &ConnInfo,
) -> Response<OutBody> {
    let parts = &gateway.parts;
    let started = MonotonicClock.now();
    let (mut head, body) = request.into_parts();
    let arrival = match Arrival::take(running, &parts.metrics, &mut head, from) {
        Ok(arrival) => arrival,
        Err(problem) => return answer::refused(running, parts, &head, from, started, problem),
    };
    let asked = Asked { running, parts, arrival: &arrival, started };
    if let Some(asking) = receipts::asking(asked) {
        return Box::pin(receipts::answer(asked, asking)).await;
    }
    let (coming, sent) = match send(asked, head, body) {
        Ok(sent) => sent,
        Err(answer) => return *answer,
    };
    let mut unanswered = Unanswered { asked, sent: &sent, armed: true };
    let result = coming.await;
    unanswered.armed = false;
    drop(unanswered);
    let meter = sent.meter.clone();
    let (mut response, streaming) = sent.answer(asked, result);
    if let (OutBody::Pipeline(body), Some(streaming)) = (response.body_mut(), streaming) {
        body.tell(move |end, sent| {
            let received = meter.map_or(arrival.announced, |meter| Some(meter.bytes()));
            let bytes = Passed { received, sent: Some(sent) };
            streaming.ended(&gateway.parts, &arrival, started, end, bytes);
        });
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // The tunnel is taken out of the body by the server, which goes on with it.
        return response.map(OutBody::into_tunnel);
    }
    response
}

/// Tells of a call whose caller went away before there was an answer: then what serves it is
/// dropped where it waits.
struct Unanswered<'a, 's> {
    asked: Asked<'a>,
    sent: &'s Sent<'a>,
    armed: bool,
}

impl Drop for Unanswered<'_, '_> {
    fn drop(&mut self) {
        // A call that panics is dropped as well, but nobody went away.
        if self.armed && !std::thread::panicking() {
            let Sent { route, via, context, .. } = self.sent;
            self.asked.cancelled(route, *via, context);
        }
    }
}

/// A call on its way, and what its answer needs.
struct Sent<'a> {
    route: &'a Route,
    captures: Captures,
    judged: Judged<'a>,
    via: Via<'a>,
    context: Arc<Context>,
    admitted: Admitted<'a>,
    /// Brings the caller back to the same instance.
    cookie: Option<HeaderValue>,
    /// Counts the request's body, if there is one.
    meter: Option<Arc<Meter>>,
}

/// Sends a request into the stages of its route.
///
/// # Errors
///
/// The answer, when it is given without a call.
fn send(
    asked: Asked<'_>,
    head: Head,
    body: InBody,
) -> Result<(Coming, Sent<'_>), Box<Response<OutBody>>> {
    let Asked { running, parts, arrival, started } = asked;
    let judged =
        arrival.path(running).map_err(|problem| Box::new(asked.problem(None, None, &problem)))?;
    let view = View {
        host: arrival.host(),
        method: &arrival.method,
        path: judged.judged(),
        headers: &head.headers,
        query: arrival.uri.query(),
        client: arrival.client,
    };
    let (way, captures) = match running.plane.routes.find(&view) {
        Match::Found { place, captures, .. } => (&running.ways[place], captures),
        Match::NoRoute => {
            let problem = Problem::new(Code::RouteNotFound, NO_ROUTE);
            return Err(Box::new(asked.problem(None, None, &problem)));
        }
        Match::MethodNotAllowed { allow } => return Err(Box::new(asked.not_allowed(allow))),
    };
    let route = &way.route;
    let refused = |problem| Box::new(asked.problem(Some(way), None, &problem));
    let admitted = parts.protection.admit(started, route.priority).map_err(refused)?;
    let longest = route.body_bytes_max.unwrap_or(running.plane.gateway.limits.body_bytes_max);
    if http_body::Body::size_hint(&body).lower() > longest {
        return Err(refused(Problem::new(Code::BodyTooLarge, format!("at most {longest} bytes"))));
    }
    let split = match &route.action {
        Action::To(split) => split,
        own @ (Action::Redirect(_) | Action::Respond(_)) => {
            let answer = answer::fixed(own, &view, &captures).map_err(refused)?;
            let matched = Matched { route, captures: &captures, path: judged.judged() };
            let Some(own) = &way.own else {
                return Err(Box::new(asked.at_once(way, &matched, answer)));
            };
            let found = own.keyed.then(|| Arc::new(found(&view, route, captures, "")));
            let context = own_context(own, arrival, route, started);
            let meter = body.meter();
            let request = Request::from_parts(head, body.limited(longest));
            let coming = own_call(own, (answer, found), &context, request);
            let via = way.via();
            let cookie = None;
            return Ok((
                coming,
                Sent { route, captures, judged, via, context, admitted, cookie, meter },
            ));
        }
    };
    let chosen = choose(way, captures, &view, split).map_err(refused)?;
    let lane = chosen.lane;
    let matched = Matched { route, captures: &captures, path: judged.judged() };
    let target = target(arrival, &judged, &matched)
        .map_err(|problem| Box::new(asked.problem(Some(way), Some(lane), &problem)))?;
    let context = context(&chosen, arrival, route, started);
    let meter = body.meter();
    let request = outgoing(head, body.limited(longest), target, arrival, &matched);
    let coming = call(parts, &matched, &chosen, &context, request);
    let cookie = chosen.cookie;
    let via = lane.via();
    Ok((coming, Sent { route, captures, judged, via, context, admitted, cookie, meter }))
}

/// Where a call goes, and what that takes.
struct Chosen<'r> {
    lane: &'r Lane,
    /// Of the key for consistent hashing.
    hash: Option<u64>,
    /// Brings the caller back to the same instance.
    cookie: Option<HeaderValue>,
    /// For limits whose keys need more than the headers.
    found: Option<Arc<Found>>,
    /// What the caller goes by for switches, where it can be told before the request is.
    switch_key: Option<Arc<str>>,
}

/// Chooses among the services that the route leads to.
fn choose<'r>(
    way: &'r Way,
    captures: Captures,
    view: &View<'_>,
    split: &Split,
) -> Result<Chosen<'r>, Problem> {
    let route = &way.route;
    let facts =
        Facts { view, route, captures: &captures, service: None, principal: None, tenant: None };
    let key = route.split_key.as_ref().and_then(|part| facts.read(part));
    let service = match &key {
        Some(key) => split.pick_for(key),
        None => split.pick(draw::next()),
    };
    let lane = way
        .lane(service)
        .ok_or_else(|| Problem::new(Code::NoInstance, "the service is not configured"))?;
    let (hash, cookie) = affinity::hash(&lane.upstream.config.balance, &facts);
    let switch_key = key.filter(|_| lane.switched).map(|key| Arc::from(&*key));
    let found = lane.keyed.then(|| Arc::new(found(view, route, captures, service.as_str())));
    Ok(Chosen { lane, hash, cookie, found, switch_key })
}

/// Sends a request through the stages.
fn call(
    parts: &Parts,
    matched: &Matched<'_>,
    chosen: &Chosen<'_>,
    context: &Arc<Context>,
    mut request: Request<InBody>,
) -> Coming {
    let Chosen { lane, found, .. } = chosen;
    request.extensions_mut().insert(Arc::clone(context));
    if let Some(found) = found {
        request.extensions_mut().insert(Arc::clone(found));
    }
    let request = match (&matched.route.mirror, &lane.copies) {
        (Some(mirror), Some(copies)) if mirror.copies(request.method(), draw::next()) => {
            parts.mirrors.copy(request, copies.clone())
        }
        _ => Mirrors::pass(request),
    };
    // Every stage is always ready: what has to be waited for is waited for in the call.
    Coming::of_call(lane.pipeline.clone().call(request))
}

/// Sends a request through the stages of an answer that the route gives itself.
fn own_call(
    own: &OwnLane,
    (answer, found): (Response<Bytes>, Option<Arc<Found>>),
    context: &Arc<Context>,
    mut request: Request<InBody>,
) -> Coming {
    let extensions = request.extensions_mut();
    *extensions = Extensions::new();
    extensions.insert(Arc::clone(context));
    extensions.insert(answer);
    if let Some(found) = found {
        extensions.insert(found);
    }
    Coming::of_own(own.pipeline.clone().call(Mirrors::pass(request)))
}

impl Sent<'_> {
    /// The answer to the caller.
    fn answer(
        self,
        asked: Asked<'_>,
        result: Result<Response<PipelineBody>, CallError>,
    ) -> (Response<OutBody>, Option<Streaming>) {
        let Self { route, captures, judged, via, context, admitted, cookie, meter: _ } = self;
        let now = MonotonicClock.now();
        if result.is_ok() {
            admitted.answered(now.since(asked.started));
        }
        let matched = Matched { route, captures: &captures, path: judged.judged() };
        let (mut response, streaming) = asked.answer(&matched, via, &context, now, result);
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        (response, streaming)
    }
}

/// The route of a request, and what it found in the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matched<'a> {
    pub(super) route: &'a Route,
    pub(super) captures: &'a Captures,
    /// As judged.
    pub(super) path: &'a str,
}

const NO_ROUTE: &str = "no route matches the host and path of the request";

/// What the stages share about this call.
fn context(
    chosen: &Chosen<'_>,
    arrival: &Arrival,
    route: &Arc<Route>,
    started: Instant,
) -> Arc<Context> {
    let (lane, hash) = (chosen.lane, chosen.hash);
    let facts = CallFacts {
        draw: draw::next(),
        hash,
        arriving_attempt: arrival.attempt,
        idempotent: route.idempotent,
        route: Some(Arc::clone(&lane.route)),
        principal: None,
        switch_key: switch_key(chosen, arrival),
        circuits: Arc::clone(&lane.circuits),
    };
    patient(facts, lane.patience, arrival, started)
}

/// The same where the route answers itself.
fn own_context(
    own: &OwnLane,
    arrival: &Arrival,
    route: &Arc<Route>,
    started: Instant,
) -> Arc<Context> {
    let facts = CallFacts {
        draw: draw::next(),
        arriving_attempt: arrival.attempt,
        idempotent: route.idempotent,
        route: Some(Arc::clone(&own.route)),
        switch_key: own.switched.then(|| arrival.trace_id().into()),
        ..CallFacts::default()
    };
    patient(facts, own.patience, arrival, started)
}

/// A context with as much time as the caller has.
fn patient(
    facts: CallFacts,
    patience: Patience,
    arrival: &Arrival,
    started: Instant,
) -> Arc<Context> {
    let context = Context::new(started, facts);
    let mut deadline = Deadline::resolve(started, arrival.patience, arrival.trusted, patience);
    if arrival.head_only {
        deadline.covers = Covers::Head;
    }
    context.shorten(deadline);
    context
}

/// What the caller goes by for switches that are on for some: the key of the split, else its
/// trace, so that it stays on its side over the hops of one request.
fn switch_key(chosen: &Chosen<'_>, arrival: &Arrival) -> Option<Arc<str>> {
    if !chosen.lane.switched {
        return None;
    }
    Some(chosen.switch_key.clone().unwrap_or_else(|| arrival.trace_id().into()))
}

/// The target to ask the service for; `None` for the one that came.
fn target(
    arrival: &Arrival,
    judged: &Judged<'_>,
    matched: &Matched<'_>,
) -> Result<Option<Uri>, Problem> {
    let Matched { route, captures, .. } = *matched;
    let ambiguous = |what: &'static str| Problem::new(Code::PathAmbiguous, what);
    let path = match (&route.rewrite.path, route.forward_path) {
        (Some(rewrite), _) => Some(
            rewrite
                .apply(judged.judged(), captures)
                .ok_or_else(|| ambiguous("the rewritten path is no path"))?,
        ),
        (None, ForwardPath::Original) => None,
        (None, ForwardPath::Canonical) if judged.sent() == arrival.uri.path() => None,
        (None, ForwardPath::Canonical) => Some(judged.sent().to_owned()),
    };
    let target = match path {
        // Origin form, as it came: the common case copies nothing.
        None if arrival.uri.authority().is_none() => return Ok(None),
        None => arrival.uri.path_and_query().cloned(),
        Some(path) => {
            let whole = match arrival.uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            PathAndQuery::try_from(whole).ok()
        }
    };
    let target = target.ok_or_else(|| ambiguous("the path cannot be sent on"))?;
    Ok(Some(Uri::from(target)))
}

fn found(view: &View<'_>, route: &Arc<Route>, captures: Captures, service: &str) -> Found {
    Found {
        host: view.host.into(),
        path: view.path.into(),
        query: view.query.map(Into::into),
        client: view.client,
        route: Arc::clone(route),
        captures,
        service: service.into(),
    }
}

/// The request as the service gets it.
fn outgoing(
    mut head: Head,
    body: InBody,
    target: Option<Uri>,
    arrival: &Arrival,
    matched: &Matched<'_>,
) -> Request<InBody> {
    let Matched { route, captures, path } = *matched;
    // What the transport knows of the caller's connection ends here.
    head.version = Version::default();
    head.extensions = spare::extensions();
    if let Some(target) = target {
        head.uri = target;
    }
    let headers = &mut head.headers;
    let rules = &route.header_rules.request;
    if !rules.is_empty() {
        let request_id = headers.get("x-request-id").cloned();
        let values = Values {
            client: arrival.client,
            host: arrival.host(),
            route,
            request_id: request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
            path,
            captures,
        };
        rules.apply(headers, &values);
    }
    if let Some(host) = &route.rewrite.host {
        headers.insert(HOST, host.clone());
    }
    if arrival.websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    Request::from_parts(head, body)
}

impl Way {
    /// What requests to `service` pass through.
    fn lane(&self, service: &ServiceName) -> Option<&Lane> {
        self.lanes.iter().find(|(name, _)| name == service).map(|(_, lane)| lane)
    }

    /// By what its own answers are counted.
    fn via(&self) -> Via<'_> {
        Via { metrics: &self.metrics, upstream: None }
    }
}
