//! The answer on its way back: its head, and the problems it can be instead.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, LOCATION};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::{Context, Degraded};
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
use super::{Parts, Running, Way};
use crate::access_log::Entry;
use crate::body::{OutBody, PipelineBody, Streamed};
use crate::config::gateway::{Explain, OutcomeHeader};
use crate::faults::FAULT_HEADER;
use crate::header;
use crate::metrics::RouteMetrics;
use crate::record::{Ended, Stages, Step, steps};
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

impl Asked<'_> {
    /// The answer that came back through the stages, or the problem they ended in; with what is
    /// to be told once its body is over, if that is still on its way.
    pub(super) fn answer(
        &self,
        matched: &Matched<'_>,
        lane: &Lane,
        context: &Arc<Context>,
        now: Instant,
        result: Result<Response<PipelineBody>, CallError>,
    ) -> (Response<OutBody>, Option<Streaming>) {
        let Matched { route, captures, path } = *matched;
        let judged = outcome(lane, context, &result);
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
        let told = Told {
            status: response.status().as_u16(),
            outcome,
            cause: context.degraded().map(|degraded| degraded.cause),
            failed: outcome != "ok" || response.status().is_server_error(),
            route: Some(route.name.shared()),
            service: Some(lane.upstream.instances.service()),
            context: Some(context),
        };
        self.count(&told, &lane.metrics, now, steps, judged);
        let streaming = matches!(response.body(), OutBody::Pipeline(_));
        if !streaming {
            self.line(&told, now, response.body().size_hint().exact());
        }
        let streaming = streaming.then(|| Streaming::of(&told, lane, context));
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
        self.own(Some(way), response)
    }

    /// Answers with what the route says.
    pub(super) fn respond(&self, way: &Way, respond: &Respond) -> Response<OutBody> {
        let mut response = Response::new(OutBody::from(respond.body.clone()));
        *response.status_mut() = respond.status;
        *response.headers_mut() = respond.headers.clone();
        self.own(Some(way), response)
    }

    /// Counts and logs a call that nobody waited for any more.
    #[cold]
    pub(super) fn cancelled(&self, route: &Route, lane: &Lane, context: &Context) {
        let told = Told {
            status: Code::Cancelled.http(),
            outcome: Code::Cancelled.as_str(),
            cause: None,
            failed: true,
            route: Some(route.name.shared()),
            service: Some(lane.upstream.instances.service()),
            context: Some(context),
        };
        self.tell(&told, &lane.metrics, None);
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
}

/// How the service did, as its caller saw it: after the last attempt. `None` where it was not asked,
/// or that is not to be told.
fn outcome<B>(
    lane: &Lane,
    context: &Context,
    result: &Result<Response<B>, CallError>,
) -> Option<Outcome> {
    if context.attempts() == 0 {
        return None;
    }
    match context.degraded() {
        // What it answered is gone; all causes but these are failures.
        Some(Degraded { cause: "timeout", .. }) => Some(Outcome::RequestTimeout),
        Some(Degraded { cause: "connect", .. }) => Some(Outcome::ConnectTimeout),
        Some(_) => Some(Outcome::Failure),
        None => circuit::outcome(&lane.upstream.config.classifier, result),
    }
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
