//! The answer on its way back: headers, problems, counters, the log line.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use http_body::Body;
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::Context;
use mainstay_call::stage::timeout::is_grpc;
use mainstay_core::name::PolicyName;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant, Problem};

use super::arrival::Arrival;
use super::lane::Lane;
use super::serve::Matched;
use super::{Parts, Running, Way};
use crate::access_log::Entry;
use crate::body::{OutBody, PipelineBody, tunnel_of};
use crate::config::gateway::{Explain, OutcomeHeader};
use crate::faults::FAULT_HEADER;
use crate::header;
use crate::metrics::RouteMetrics;
use crate::record::{Ended, Record, Stages, Step, steps};
use crate::redirect::Redirect;
use crate::respond::Respond;
use crate::rewrite::headers::Values;
use crate::route::{Captures, Route, View};
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

/// What is counted and logged of an answer.
struct Told<'a> {
    route: Option<&'a Route>,
    metrics: &'a RouteMetrics,
    service: Option<&'a str>,
    context: Option<&'a Context>,
    outcome: &'static str,
    cause: Option<&'static str>,
    /// Not a plain success.
    failed: bool,
    /// What the stages decided, when that is kept.
    steps: Vec<Step>,
}

/// What the log says of the answer itself.
struct Outline {
    status: u16,
    /// Of its body, where they are known.
    bytes: Option<u64>,
}

impl From<&Response<OutBody>> for Outline {
    fn from(response: &Response<OutBody>) -> Self {
        let bytes = response.body().size_hint().exact();
        Self { status: response.status().as_u16(), bytes }
    }
}

impl Asked<'_> {
    /// The answer that came back through the stages, or the problem they ended in.
    pub(super) fn answer(
        &self,
        matched: &Matched<'_>,
        lane: &Lane,
        context: &Context,
        now: Instant,
        result: Result<Response<PipelineBody>, CallError>,
    ) -> Response<OutBody> {
        let Matched { route, captures, path } = *matched;
        let error = result.as_ref().err().map(problem_of);
        let steps = self.steps(route, lane, context, now, &result);
        let rule = error.as_ref().and_then(|problem| problem.rejection.as_ref());
        let rule = rule.map(|rejection| rejection.rule.clone());
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
        let headers = response.headers_mut();
        if let Some(quota) = context.quota() {
            quota.write(headers);
        }
        self.outcome_header(headers, outcome, rule.as_deref(), context);
        let rules = &route.header_rules.response;
        if !rules.is_empty() {
            let values = Values {
                client: self.arrival.client,
                host: self.arrival.host(),
                route,
                request_id: "",
                path,
                captures,
            };
            rules.apply(headers, &values);
        }
        if let Some(fault) = context.fault() {
            // Whoever answers in the end: people must not take a rehearsal for the real thing.
            headers.insert(FAULT_HEADER, HeaderValue::from_static(fault));
        }
        let failed = outcome != "ok" || response.status().is_server_error();
        let told = Told {
            route: Some(route),
            metrics: &lane.metrics,
            service: Some(lane.upstream.instances.service()),
            context: Some(context),
            outcome,
            cause: context.degraded().map(|degraded| degraded.cause),
            failed,
            steps,
        };
        self.tell(&response, now, told);
        response
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
        self.tell(
            &response,
            MonotonicClock.now(),
            Told {
                route: way.map(|way| &*way.route),
                metrics: self.metrics(way, lane),
                service: lane.map(|lane| &**lane.upstream.instances.service()),
                context: None,
                outcome,
                cause: None,
                failed: true,
                steps: Vec::new(),
            },
        );
        response
    }

    /// The path has routes, but none for this method.
    pub(super) fn not_allowed(&self, allow: HeaderValue) -> Response<OutBody> {
        let problem = Problem::new(Code::MethodNotAllowed, "see `Allow` for what is");
        let mut response = self.problem(None, None, &problem);
        response.headers_mut().insert(ALLOW, allow);
        response
    }

    /// Sends the caller elsewhere.
    pub(super) fn redirect(
        &self,
        way: &Way,
        redirect: &Redirect,
        view: &View<'_>,
        captures: &Captures,
    ) -> Response<OutBody> {
        let Some(location) = redirect.location(view, captures) else {
            let problem = Problem::new(Code::PathAmbiguous, "the target of the redirect is none");
            return self.problem(Some(way), None, &problem);
        };
        let mut response = Response::new(OutBody::Empty);
        *response.status_mut() = redirect.status;
        response.headers_mut().insert(LOCATION, location);
        self.own(way, response)
    }

    /// Answers with what the route says.
    pub(super) fn respond(&self, way: &Way, respond: &Respond) -> Response<OutBody> {
        let mut response = Response::new(OutBody::from(respond.body.clone()));
        *response.status_mut() = respond.status;
        *response.headers_mut() = respond.headers.clone();
        self.own(way, response)
    }

    /// Counts and logs a call that nobody waited for any more.
    #[cold]
    pub(super) fn cancelled(&self, route: &Route, lane: &Lane, context: &Context) {
        let told = Told {
            route: Some(route),
            metrics: &lane.metrics,
            service: Some(lane.upstream.instances.service()),
            context: Some(context),
            outcome: Code::Cancelled.as_str(),
            cause: None,
            failed: true,
            steps: Vec::new(),
        };
        let status = Code::Cancelled.http();
        self.tell(Outline { status, bytes: None }, MonotonicClock.now(), told);
    }

    fn own(&self, way: &Way, response: Response<OutBody>) -> Response<OutBody> {
        self.tell(
            &response,
            MonotonicClock.now(),
            Told {
                route: Some(&way.route),
                metrics: self.metrics(Some(way), None),
                service: None,
                context: None,
                outcome: "ok",
                cause: None,
                failed: false,
                steps: Vec::new(),
            },
        );
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
        let trace = trace_id(self.arrival);
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
        lane: &Lane,
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
        let retry = &lane.upstream.config.retry;
        let limits: Vec<&str> = route.limits.iter().map(PolicyName::as_str).collect();
        let stages = Stages {
            service: lane.upstream.instances.service(),
            limits: &limits,
            fallback: route.fallback.as_ref().map(PolicyName::as_str),
            attempts_max: retry.attempts.get(),
            attempt_timeout: retry.try_timeout,
        };
        let error = result.as_ref().err();
        steps(context, Ended { now, at: wall_clock(), status, error }, stages)
    }

    /// Keeps what was decided, to be explained.
    fn keep(&self, status: u16, outcome: &'static str, took: Duration, steps: Vec<Step>) {
        let record = Record {
            request_id: self.arrival.request_id.to_str().unwrap_or_default().to_owned(),
            trace_id: trace_id(self.arrival),
            at: arrived(took),
            listener: "gateway",
            method: self.arrival.method.to_string(),
            path: self.arrival.uri.path().to_owned(),
            status,
            outcome,
            duration: took,
            steps,
        };
        let dropped = self.parts.records.keep(MonotonicClock.now(), record);
        self.parts.metrics.records_dropped(dropped);
    }

    /// Counts the answer, keeps its record and writes its line.
    fn tell(&self, answer: impl Into<Outline>, now: Instant, mut told: Told<'_>) {
        let took = now.since(self.started);
        let Outline { status, bytes } = answer.into();
        told.metrics.answered(status, told.outcome, took);
        let steps = std::mem::take(&mut told.steps);
        if !steps.is_empty() || (told.failed && told.context.is_none()) {
            self.keep(status, told.outcome, took, steps);
        }
        let draw = told.context.map_or(0, |context| context.facts.draw);
        let Some(log) = self.parts.log.as_ref().filter(|log| log.wants(told.failed, draw)) else {
            return;
        };
        let arrival = self.arrival;
        let instance = told.context.and_then(Context::instance);
        let trace = trace_id(arrival);
        log.write(&Entry {
            at: arrived(took),
            method: arrival.method.as_str(),
            path: arrival.uri.path(),
            query: arrival.uri.query(),
            version: version(arrival.version),
            status,
            client: arrival.client,
            host: Some(arrival.host()),
            user_agent: arrival.user_agent.as_ref().and_then(|agent| agent.to_str().ok()),
            referer: arrival.referer.as_ref().and_then(|referer| referer.to_str().ok()),
            route: told.route.map(|route| route.name.as_str()),
            service: told.service,
            instance: instance.as_ref().map(|instance| &**instance.name()),
            attempts: told.context.map_or(0, Context::attempts),
            outcome: told.outcome,
            cause: told.cause,
            duration: took,
            upstream: told.context.filter(|it| it.attempts() > 0).map(Context::upstream),
            queued: told.context.map(Context::queued).filter(|it| !it.is_zero()),
            received_bytes: arrival.announced,
            sent_bytes: bytes,
            trace_id: &trace,
            request_id: arrival.request_id.to_str().unwrap_or_default(),
        });
    }
}

/// The upstream's answer, without what concerned only its connection.
fn passed_on(mut response: Response<PipelineBody>) -> Response<OutBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // The tunnel is taken out of the body by the server, which goes on with it.
        return response.map(tunnel_of);
    }
    header::remove_hop_by_hop(response.headers_mut());
    response.map(OutBody::Pipeline)
}

/// The time of day at which the head of a request had arrived that `took` this long. Read only
/// where somebody is told of it.
fn arrived(took: Duration) -> SystemTime {
    let now = wall_clock();
    now.checked_sub(took).unwrap_or(now)
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
    let response =
        if is_grpc(&head.headers) { grpc(&problem) } else { document(&problem, false, None) };
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
            attempts: 0,
            outcome,
            cause: None,
            duration: took,
            upstream: None,
            queued: None,
            received_bytes: None,
            sent_bytes: response.body().size_hint().exact(),
            trace_id: "",
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

/// An RFC 9457 document.
fn document(problem: &Problem, full: bool, trace: Option<&str>) -> Response<OutBody> {
    let code = problem.code.as_str();
    let mut members = serde_json::json!({
        "type": format!("/problems/{code}"),
        "code": code,
        "title": problem.code.title(),
        "status": problem.status,
        "detail": problem.detail,
        "effect": problem.effect.as_str(),
    });
    if let Some(after) = problem.retry_after {
        members["retry_after"] = after.as_secs_f64().into();
    }
    if let Some(trace) = trace {
        members["trace_id"] = trace.into();
    }
    if let Some(rejection) = &problem.rejection {
        members["rejection"] = if full {
            serde_json::to_value(rejection).unwrap_or_default()
        } else {
            serde_json::json!({ "rule": rejection.rule })
        };
    }
    let body = Bytes::from(format!("{members}\n"));
    let mut response = Response::new(OutBody::Empty);
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(after) = problem.retry_after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    *response.body_mut() = OutBody::Full(body);
    response
}

/// A gRPC answer that is all head: status 200 and the problem in `grpc-status`.
fn grpc(problem: &Problem) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Empty);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(problem.code.grpc())));
    // Percent-encoded as gRPC's protocol document says; titles are plain ASCII without `%`.
    let message = format!("{}: {}", problem.code, problem.code.title());
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
    response
}

fn trace_id(arrival: &Arrival) -> String {
    format!("{:032x}", arrival.trace.trace)
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
