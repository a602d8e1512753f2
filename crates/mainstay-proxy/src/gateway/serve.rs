//! The way of one request: taken in, matched, sent on, answered.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONNECTION, HOST, SET_COOKIE, UPGRADE};
use http::request::Parts as Head;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Context, Facts as CallFacts};
use mainstay_call::draw;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant, Problem};
use mainstay_resilience::deadline::{Covers, Deadline};
use tower_service::Service;

use super::affinity;
use super::answer::{self, Asked};
use super::arrival::Arrival;
use super::keys::Found;
use super::lane::Lane;
use super::protection::Admitted;
use super::{Parts, Running};
use crate::body::{InBody, OutBody};
use crate::key::Facts;
use crate::mirror::Mirrors;
use crate::path::Judged;
use crate::rewrite::headers::Values;
use crate::route::{Action, Captures, ForwardPath, Match, Route, View};
use crate::server::ConnInfo;
use crate::split::Split;

/// Answers one request.
pub(super) async fn serve(
    running: &Running,
    parts: &Parts,
    request: Request<InBody>,
    from: &ConnInfo,
) -> Response<OutBody> {
    let started = MonotonicClock.now();
    let (mut head, body) = request.into_parts();
    let arrival = match Arrival::take(running, &mut head, from) {
        Ok(arrival) => arrival,
        Err(problem) => return answer::refused(running, parts, &head, from, started, problem),
    };
    let asked = Asked { running, parts, arrival: &arrival, started, at: wall_clock() };
    let judged = match arrival.path(running) {
        Ok(judged) => judged,
        Err(problem) => return asked.problem(None, None, &problem),
    };
    let view = View {
        host: arrival.host(),
        method: &arrival.method,
        path: judged.judged(),
        headers: &head.headers,
        query: arrival.uri.query(),
        client: arrival.client,
    };
    let (route, captures) = match running.plane.routes.find(&view) {
        Match::Found { route, captures } => (Arc::clone(route), captures),
        Match::NoRoute => {
            return asked.problem(None, None, &Problem::new(Code::RouteNotFound, NO_ROUTE));
        }
        Match::MethodNotAllowed { allow } => return asked.not_allowed(allow),
    };
    let admitted = match parts.protection.admit(started, route.priority) {
        Ok(admitted) => admitted,
        Err(problem) => return asked.problem(Some(&route), None, &problem),
    };
    let longest = route.body_bytes_max.unwrap_or(running.plane.gateway.limits.body_bytes_max);
    if http_body::Body::size_hint(&body).lower() > longest {
        let problem = Problem::new(Code::BodyTooLarge, format!("at most {longest} bytes"));
        return asked.problem(Some(&route), None, &problem);
    }
    let split = match &route.action {
        Action::Redirect(redirect) => return asked.redirect(&route, redirect, &view, &captures),
        Action::Respond(respond) => return asked.respond(&route, respond),
        Action::To(split) => split,
    };
    let chosen = match choose(running, &route, captures, &view, split) {
        Ok(chosen) => chosen,
        Err(problem) => return asked.problem(Some(&route), None, &problem),
    };
    let matched = Matched { route: &route, captures: &captures, path: judged.judged() };
    let target = match target(&arrival, &judged, &matched) {
        Ok(target) => target,
        Err(problem) => return asked.problem(Some(&route), Some(chosen.lane), &problem),
    };
    let request = outgoing(head, body.limited(longest), target, &arrival, &matched);
    let context = context(&chosen, &arrival, &route, started);
    call(&asked, &matched, chosen, &context, admitted, request).await
}

/// Where a call goes, and what that takes.
struct Chosen<'r> {
    lane: &'r Lane,
    /// Of the key for consistent hashing.
    hash: Option<u64>,
    /// Brings the caller back to the same instance.
    cookie: Option<HeaderValue>,
    /// For limits whose keys need more than the headers.
    found: Option<Found>,
}

/// Chooses among the services that the route leads to.
fn choose<'r>(
    running: &'r Running,
    route: &Arc<Route>,
    captures: Captures,
    view: &View<'_>,
    split: &Split,
) -> Result<Chosen<'r>, Problem> {
    let facts =
        Facts { view, route, captures: &captures, service: None, principal: None, tenant: None };
    let key = route.split_key.as_ref().and_then(|part| facts.read(part));
    let service = match key {
        Some(key) => split.pick_for(&key),
        None => split.pick(draw::next()),
    };
    let lane = running.lane(route, service);
    let lane =
        lane.ok_or_else(|| Problem::new(Code::NoInstance, "the service is not configured"))?;
    let (hash, cookie) = affinity::hash(&lane.upstream.config.balance, &facts);
    let found = lane.keyed.then(|| found(view, route, captures, service.as_str()));
    Ok(Chosen { lane, hash, cookie, found })
}

/// Sends a request through the stages; its answer.
async fn call(
    asked: &Asked<'_>,
    matched: &Matched<'_>,
    chosen: Chosen<'_>,
    context: &Arc<Context>,
    admitted: Admitted<'_>,
    mut request: Request<InBody>,
) -> Response<OutBody> {
    let Chosen { lane, cookie, found, .. } = chosen;
    request.extensions_mut().insert(Arc::clone(context));
    if let Some(found) = found {
        request.extensions_mut().insert(Arc::new(found));
    }
    let method = &asked.arrival.method;
    let request = match (&matched.route.mirror, &lane.copies) {
        (Some(mirror), Some(copies)) if mirror.copies(method, draw::next()) => {
            asked.parts.mirrors.copy(request, copies.clone())
        }
        _ => Mirrors::pass(request),
    };
    let mut pipeline = lane.pipeline.clone();
    // Every stage is always ready: what has to be waited for is waited for in the call.
    let result = pipeline.call(request).await;
    if result.is_ok() {
        admitted.answered(MonotonicClock.now().since(asked.started));
    }
    let mut response = asked.answer(matched, lane, context, result);
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
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
    let Chosen { lane, hash, .. } = *chosen;
    let context = Context::new(
        started,
        CallFacts {
            draw: draw::next(),
            hash,
            arriving_attempt: arrival.attempt,
            idempotent: route.idempotent,
            route: Some(Arc::clone(&lane.route)),
            principal: None,
            circuits: Arc::clone(&lane.circuits),
        },
    );
    let patience = lane.patience;
    let mut deadline = Deadline::resolve(started, arrival.patience, arrival.trusted, patience);
    if arrival.head_only {
        deadline.covers = Covers::Head;
    }
    context.shorten(deadline);
    context
}

/// The target to ask the service for.
fn target(arrival: &Arrival, judged: &Judged<'_>, matched: &Matched<'_>) -> Result<Uri, Problem> {
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
        None if arrival.uri.authority().is_none() => return Ok(arrival.uri.clone()),
        None => arrival.uri.path_and_query().cloned(),
        Some(path) => {
            let whole = match arrival.uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            PathAndQuery::try_from(whole).ok()
        }
    };
    target.map(Uri::from).ok_or_else(|| ambiguous("the path cannot be sent on"))
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
    head: Head,
    body: InBody,
    target: Uri,
    arrival: &Arrival,
    matched: &Matched<'_>,
) -> Request<InBody> {
    let Matched { route, captures, path } = *matched;
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = target;
    *request.headers_mut() = head.headers;
    let headers = request.headers_mut();
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
    request
}

impl Running {
    /// What requests by `route` to `service` pass through.
    pub(super) fn lane(
        &self,
        route: &Route,
        service: &mainstay_core::name::ServiceName,
    ) -> Option<&Lane> {
        let way = self.lanes.get(&route.name)?;
        way.lanes.iter().find(|(name, _)| name == service).map(|(_, lane)| lane)
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line bears the time of day")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
