//! The answer on its way back: its head, and the problems it can be instead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, LOCATION, WWW_AUTHENTICATE};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Context, Degraded};
use mainstay_call::draw;
use mainstay_call::stage::circuit;
use mainstay_call::stage::timeout::is_grpc;
use mainstay_core::name::PolicyName;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant, Problem};
use mainstay_resilience::Outcome;

use super::arrival::Arrival;
use super::document::{document, grpc};
use super::lane::Lane;
use super::serve::Matched;
use super::telling::{Streaming, Told, version};
use super::{Parts, Running, UpstreamRuntime, Way};
use crate::access_log::Entry;
use crate::body::{OutBody, PipelineBody, Streamed};
use crate::config::gateway::{Explain, OutcomeHeader};
use crate::faults::FAULT_HEADER;
use crate::header::{self, TraceParent};
use crate::metrics::RouteMetrics;
use crate::record::{Ended, Stages, Step, steps};
use crate::rewrite::headers::Values;
use crate::route::{Action, Captures, Demand, Route, View};
use crate::server::ConnInfo;
use crate::time::wall_clock;

const OUTCOME: HeaderName = HeaderName::from_static("mainstay-outcome");

/// A request that was taken in, and is owed an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) running: &'a Running,
    pub(super) parts: &'a Parts,
    pub(super) arrival: &'a Arrival,
    pub(super) started: Instant,
}

/// Where an answer comes from, and by what it is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Via<'a> {
    pub(super) metrics: &'a RouteMetrics,
    /// The service; none where the route answers itself.
    pub(super) upstream: Option<&'a UpstreamRuntime>,
}

impl<'a> Via<'a> {
    fn service(&self) -> Option<&'a Arc<str>> {
        self.upstream.map(|upstream| upstream.instances.service())
    }
}

impl Lane {
    /// By what its answers are counted.
    pub(super) fn via(&self) -> Via<'_> {
        Via { metrics: &self.metrics, upstream: Some(&self.upstream) }
    }
}

impl Asked<'_> {
    /// The answer that came back through the stages, or the problem they ended in; with what is
    /// to be told once its body is over, if that is still on its way.
    pub(super) fn answer(
        &self,
        matched: &Matched<'_>,
        via: Via<'_>,
        context: &Arc<Context>,
        now: Instant,
        result: Result<Response<PipelineBody>, CallError>,
    ) -> (Response<OutBody>, Option<Streaming>) {
        let route = matched.route;
        let judged = outcome(via, context, &result);
        let error = result.as_ref().err().map(problem_of);
        let steps = self.steps(route, via, context, now, &result);
        let rule = error.as_ref().and_then(|problem| problem.rejection.as_ref());
        let rule = rule.map(|rejection| rejection.rule.clone());
        let denied = matches!(result, Err(CallError::Denied(_)));
        let (mut response, outcome) = match result {
            Ok(response) => {
                let outcome = context.degraded().map_or("ok", |degraded| degraded.kind);
                (passed_on(response), outcome)
            }
            Err(_told) => {
                let problem = error.unwrap_or_else(internal);
                (self.document(&problem), problem.code.as_str())
            }
        };
        let challenged = denied && response.status() == StatusCode::UNAUTHORIZED;
        let headers = response.headers_mut();
        if challenged {
            // The scheme alone (RFC 6750, section 3): why is in the document.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(quota) = context.quota() {
            quota.write(headers);
        }
        self.outcome_header(headers, outcome, rule.as_deref(), context);
        self.header_rules(matched, headers);
        if let Some(fault) = context.fault() {
            // Whoever answers in the end: people must not take a rehearsal for the real thing.
            headers.insert(FAULT_HEADER, HeaderValue::from_static(fault));
        }
        let told = Told {
            status: response.status().as_u16(),
            outcome,
            cause: context.degraded().map(|degraded| degraded.cause),
            // An error that the route says itself is meant so.
            failed: outcome != "ok"
                || (via.upstream.is_some() && response.status().is_server_error()),
            route: Some(route.name.shared()),
            service: via.service(),
            context: Some(context),
        };
        self.count(&told, via.metrics, now, steps, judged);
        let streaming = matches!(response.body(), OutBody::Pipeline(_));
        if !streaming {
            self.line(&told, now, response.body().size_hint().exact());
        }
        let streaming = streaming.then(|| Streaming::of(&told, context));
        (response, streaming)
    }

    /// A problem found before or instead of a call.
    pub(super) fn problem(
        &self,
        way: Option<&Way>,
        lane: Option<&Lane>,
        problem: &Problem,
    ) -> Response<OutBody> {
        let mut response = self.document(problem);
        let outcome = problem.code.as_str();
        if self.running.plane.gateway.outcome_header != OutcomeHeader::Off
            && let Ok(value) = HeaderValue::from_str(outcome)
        {
            response.headers_mut().insert(OUTCOME, value);
        }
        let told = Told {
            status: response.status().as_u16(),
            outcome,
            cause: None,
            failed: true,
            route: way.map(|way| way.route.name.shared()),
            service: lane.map(|lane| lane.upstream.instances.service()),
            context: None,
        };
        self.tell(&told, self.metrics(way, lane), response.body().size_hint().exact());
        response
    }

    /// The path has routes, but none for this method.
    pub(super) fn not_allowed(&self, allow: HeaderValue) -> Response<OutBody> {
        let problem = Problem::new(Code::MethodNotAllowed, "see `Allow` for what is");
        let mut response = self.problem(None, None, &problem);
        response.headers_mut().insert(ALLOW, allow);
        response
    }

    /// Answers with what the route says, which nothing may keep from being said.
    pub(super) fn at_once(
        &self,
        way: &Way,
        matched: &Matched<'_>,
        answer: Response<Bytes>,
    ) -> Response<OutBody> {
        let mut response = answer.map(OutBody::from);
        self.header_rules(matched, response.headers_mut());
        self.own(Some(way), response)
    }

    /// Changes the fields of an answer as the route says.
    fn header_rules(&self, matched: &Matched<'_>, headers: &mut HeaderMap) {
        let Matched { route, captures, path } = *matched;
        let rules = &route.header_rules.response;
        if rules.is_empty() {
            return;
        }
        let (client, host) = (self.arrival.client, self.arrival.host());
        rules.apply(headers, &Values { client, host, route, request_id: "", path, captures });
    }

    /// Counts and logs a call that nobody waited for any more.
    #[cold]
    pub(super) fn cancelled(&self, route: &Route, via: Via<'_>, context: &Context) {
        let told = Told {
            status: Code::Cancelled.http(),
            outcome: Code::Cancelled.as_str(),
            cause: None,
            failed: true,
            route: Some(route.name.shared()),
            service: via.service(),
            context: Some(context),
        };
        self.tell(&told, via.metrics, None);
    }

    /// Counts and logs an answer of our own.
    pub(super) fn own(&self, way: Option<&Way>, response: Response<OutBody>) -> Response<OutBody> {
        let told = Told {
            status: response.status().as_u16(),
            outcome: "ok",
            cause: None,
            failed: false,
            route: way.map(|way| way.route.name.shared()),
            service: None,
            context: None,
        };
        self.tell(&told, self.metrics(way, None), response.body().size_hint().exact());
        response
    }

    fn metrics<'s>(&'s self, way: Option<&'s Way>, lane: Option<&'s Lane>) -> &'s RouteMetrics {
        match (lane, way) {
            (Some(lane), _) => &lane.metrics,
            (None, Some(way)) => &way.metrics,
            (None, None) => &self.running.unrouted,
        }
    }

    /// A problem as its caller reads it: a document, or for gRPC a head that ends the call.
    fn document(&self, problem: &Problem) -> Response<OutBody> {
        let full = self.running.plane.gateway.explain == Explain::Full;
        let trace = self.arrival.trace_id();
        if self.arrival.grpc { grpc(problem) } else { document(problem, full, Some(&trace)) }
    }

    fn outcome_header(
        &self,
        headers: &mut HeaderMap,
        outcome: &'static str,
        rule: Option<&str>,
        context: &Context,
    ) {
        let plain = outcome == "ok" && context.attempts() <= 1;
        match self.running.plane.gateway.outcome_header {
            OutcomeHeader::Off => return,
            OutcomeHeader::Degraded if plain => return,
            OutcomeHeader::Degraded | OutcomeHeader::All => (),
        }
        let mut parts = vec![outcome.to_owned()];
        parts.extend(rule.map(|rule| format!("rule=\"{rule}\"")));
        parts.extend(context.degraded().map(|degraded| format!("cause={}", degraded.cause)));
        if context.attempts() > 1 {
            parts.push(format!("attempts={}", context.attempts()));
        }
        parts.extend(context.retry_stopped().map(|why| format!("retry_stopped={why}")));
        if let Ok(value) = HeaderValue::try_from(parts.join(";")) {
            headers.insert(OUTCOME, value);
        }
    }

    /// What the stages decided, if it is to be kept.
    fn steps(
        &self,
        route: &Route,
        via: Via<'_>,
        context: &Context,
        now: Instant,
        result: &Result<Response<PipelineBody>, CallError>,
    ) -> Vec<Step> {
        let status = match result {
            Ok(response) => response.status().as_u16(),
            Err(error) => error.problem().status,
        };
        let failed = result.is_err() || status >= 500 || context.degraded().is_some();
        let slow = now.since(self.started) >= SLOW;
        if !self.parts.records.wants(failed, slow, context.facts.draw) {
            return Vec::new();
        }
        let retry = via.upstream.map(|upstream| &upstream.config.retry);
        let limits: Vec<&str> = route.limits.iter().map(PolicyName::as_str).collect();
        let stages = Stages {
            service: via.service().map_or("", |service| service),
            limits: &limits,
            fallback: route.fallback.as_ref().map(PolicyName::as_str),
            identify: !self.running.issuers.is_empty() && route.jwt != Demand::Off,
            attempts_max: retry.map_or(0, |retry| retry.attempts.get()),
            attempt_timeout: retry.and_then(|retry| retry.try_timeout),
        };
        let error = result.as_ref().err();
        steps(context, Ended { now, at: wall_clock(), status, error }, stages)
    }
}

/// How the service did, as its caller saw it: after the last attempt. `None` where it was not asked,
/// or that is not to be told.
fn outcome<B>(
    via: Via<'_>,
    context: &Context,
    result: &Result<Response<B>, CallError>,
) -> Option<Outcome> {
    let upstream = via.upstream.filter(|_| context.attempts() > 0)?;
    match context.degraded() {
        // What it answered is gone; all causes but these are failures.
        Some(Degraded { cause: "timeout", .. }) => Some(Outcome::RequestTimeout),
        Some(Degraded { cause: "connect", .. }) => Some(Outcome::ConnectTimeout),
        Some(_) => Some(Outcome::Failure),
        None => circuit::outcome(&upstream.config.classifier, result),
    }
}

/// What a route answers itself.
///
/// # Errors
///
/// When it sends callers to a place that is none.
pub(super) fn fixed(
    action: &Action,
    view: &View<'_>,
    captures: &Captures,
) -> Result<Response<Bytes>, Problem> {
    let mut response = Response::new(Bytes::new());
    match action {
        Action::Redirect(redirect) => {
            let ambiguous =
                || Problem::new(Code::PathAmbiguous, "the target of the redirect is none");
            let location = redirect.location(view, captures).ok_or_else(ambiguous)?;
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(LOCATION, location);
        }
        Action::Respond(respond) => {
            *response.status_mut() = respond.status;
            *response.headers_mut() = respond.headers.clone();
            *response.body_mut() = respond.body.clone();
        }
        Action::To(_) => {}
    }
    Ok(response)
}

/// The upstream's answer, without what concerned only its connection.
fn passed_on(mut response: Response<PipelineBody>) -> Response<OutBody> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        header::remove_hop_by_hop(response.headers_mut());
    }
    response.map(|body| OutBody::Pipeline(Streamed::new(body)))
}

/// Answers a request that could not even be taken in.
pub(super) fn refused(
    running: &Running,
    parts: &Parts,
    head: &Head,
    from: &ConnInfo,
    started: Instant,
    problem: Problem,
) -> Response<OutBody> {
    let draws = [draw::next(), draw::next(), draw::next()];
    let trace = TraceParent::of(&head.headers).unwrap_or_else(|| TraceParent::begin(draws, false));
    let trace = trace.trace_id();
    let response = if is_grpc(&head.headers) {
        grpc(&problem)
    } else {
        document(&problem, false, Some(&trace))
    };
    let took = MonotonicClock.now().since(started);
    let outcome = problem.code.as_str();
    running.unrouted.answered(response.status().as_u16(), outcome, took);
    if let Some(log) = parts.log.as_ref().filter(|log| log.wants(true, 0)) {
        log.write(&Entry {
            at: wall_clock(),
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query(),
            version: version(head.version),
            status: response.status().as_u16(),
            client: from.peer.ip(),
            host: None,
            user_agent: None,
            referer: None,
            route: None,
            service: None,
            instance: None,
            principal_kind: None,
            issuer: None,
            attempts: 0,
            outcome,
            cause: None,
            duration: took,
            upstream: None,
            queued: None,
            received_bytes: None,
            sent_bytes: response.body().size_hint().exact(),
            trace_id: &trace,
            request_id: "",
        });
    }
    response
}

/// From here on a request is slow, and its record is kept.
const SLOW: Duration = Duration::from_secs(1);

/// Stands where a problem must be and none is; nothing leads here.
#[cold]
fn internal() -> Problem {
    Problem::new(Code::Internal, Code::Internal.title())
}

/// What a caller is told of a call that did not work.
fn problem_of(error: &CallError) -> Problem {
    // A body that its sender broke off or that grew too long is the caller's doing, wherever in
    // the stages it was noticed.
    let sources = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let body = sources.into_iter().find_map(crate::body::BodyError::problem_of);
    body.unwrap_or_else(|| error.problem())
}
