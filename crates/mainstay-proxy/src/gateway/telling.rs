//! What is told of an answer: counters and the record when its head is there, the log line when its
//! body has ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use mainstay_call::clock::MonotonicClock;
use mainstay_call::context::Context;
use mainstay_core::problem::Code;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::Outcome;

use super::Parts;
use super::answer::Asked;
use super::arrival::Arrival;
use crate::access_log::Entry;
use crate::body::End;
use crate::metrics::RouteMetrics;
use crate::record::{Record, Step};
use crate::summary::{Call, Fate};
use crate::time::wall_clock;

/// How an answer came to be, as far as its head tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) status: u16,
    pub(super) outcome: &'static str,
    /// What called for a degraded answer.
    pub(super) cause: Option<&'static str>,
    /// Not a plain success.
    pub(super) failed: bool,
    pub(super) route: Option<&'a Arc<str>>,
    pub(super) service: Option<&'a Arc<str>>,
    pub(super) context: Option<&'a Context>,
}

/// The bodies of a request and its answer, as far as they went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) received: Option<u64>,
    pub(super) sent: Option<u64>,
}

/// What is told of an answer whose body is still on its way.
#[derive(Debug)]
pub(super) struct Streaming {
    status: u16,
    outcome: &'static str,
    cause: Option<&'static str>,
    failed: bool,
    service: Option<Arc<str>>,
    context: Arc<Context>,
}

impl Asked<'_> {
    /// Counts an answer to a call that ended in `outcome`, and keeps what was decided about it, when
    /// that is wanted.
    pub(super) fn count(
        &self,
        told: &Told<'_>,
        metrics: &RouteMetrics,
        now: Instant,
        steps: Vec<Step>,
        outcome: Option<Outcome>,
    ) {
        let took = now.since(self.started);
        metrics.answered(told.status, told.outcome, took);
        if let Some(summaries) = &self.parts.summaries {
            summaries.keep(now, self.call(told, took, outcome));
        }
        if steps.is_empty() && (!told.failed || told.context.is_some()) {
            return;
        }
        let record = Record {
            request_id: self.arrival.request_id.to_str().unwrap_or_default().to_owned(),
            trace_id: self.arrival.trace_id(),
            at: arrived(took),
            listener: "gateway",
            method: self.arrival.method.to_string(),
            path: self.arrival.uri.path().to_owned(),
            status: told.status,
            outcome: told.outcome,
            duration: took,
            steps,
        };
        let dropped = self.parts.records.keep(now, record);
        self.parts.metrics.records_dropped(dropped);
    }

    /// What it was in a few words.
    fn call(&self, told: &Told<'_>, took: Duration, outcome: Option<Outcome>) -> Call {
        let instance = told.context.and_then(Context::instance);
        Call {
            at: self.started,
            took_micros: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            fate: fate(told),
            outcome,
            client: self.arrival.client,
            route: told.route.cloned(),
            service: told.service.cloned(),
            instance: instance.map(|instance| Arc::clone(instance.name())),
        }
    }

    /// Counts and logs what was answered without asking anybody.
    pub(super) fn tell(&self, told: &Told<'_>, metrics: &RouteMetrics, sent: Option<u64>) {
        let now = MonotonicClock.now();
        self.count(told, metrics, now, Vec::new(), None);
        self.line(told, now, sent);
    }

    /// Logs an answer whose body is at hand, with `sent` bytes of it.
    pub(super) fn line(&self, told: &Told<'_>, now: Instant, sent: Option<u64>) {
        let bytes = Passed { received: self.arrival.announced, sent };
        line(self.parts, self.arrival, told, bytes, || now.since(self.started));
    }
}

impl Streaming {
    /// An answer that came through stages.
    pub(super) fn of(told: &Told<'_>, context: &Arc<Context>) -> Self {
        Self {
            status: told.status,
            outcome: told.outcome,
            cause: told.cause,
            failed: told.failed,
            service: told.service.cloned(),
            context: Arc::clone(context),
        }
    }

    /// Tells of an answer whose body ended as `end` says, to a request that came at `started`.
    pub(super) fn ended(
        &self,
        parts: &Parts,
        arrival: &Arrival,
        started: Instant,
        end: End,
        bytes: Passed,
    ) {
        let broken = match end {
            End::Broken(code) => Some(code),
            // The answer to HEAD has no body that anybody would take.
            End::GivenUp if arrival.method != Method::HEAD => Some(Code::Cancelled),
            End::Whole | End::GivenUp => None,
        };
        let route = self.context.facts.route.as_ref();
        if let Some(code) = broken {
            let name = |name: Option<&Arc<str>>| name.map_or("", |name| &**name).to_owned();
            let [route, service] = [route, self.service.as_ref()].map(name);
            parts.metrics.answer_broken(&route, &service, code.as_str());
        }
        let told = Told {
            status: self.status,
            outcome: broken.map_or(self.outcome, Code::as_str),
            cause: self.cause,
            failed: self.failed || broken.is_some(),
            route,
            service: self.service.as_ref(),
            context: Some(&self.context),
        };
        line(parts, arrival, &told, bytes, || MonotonicClock.now().since(started));
    }
}

/// What became of a call.
fn fate(told: &Told<'_>) -> Fate {
    let is = |word: &str, code: Code| word == code.as_str();
    match (told.outcome, told.cause) {
        _ if !told.failed => Fate::Permitted,
        (_, Some("limited" | "shed")) => Fate::Denied,
        (_, Some("circuit")) => Fate::RejectedOpen,
        (word, _) if is(word, Code::Limited) || is(word, Code::Shed) => Fate::Denied,
        (word, _) if is(word, Code::CostExceedsQuota) => Fate::Denied,
        (word, _) if is(word, Code::CircuitOpen) => Fate::RejectedOpen,
        _ => Fate::Permitted,
    }
}

/// Writes the log line, if this request's is wanted.
fn line(
    parts: &Parts,
    arrival: &Arrival,
    told: &Told<'_>,
    bytes: Passed,
    took: impl FnOnce() -> Duration,
) {
    let draw = told.context.map_or(0, |context| context.facts.draw);
    let Some(log) = parts.log.as_ref().filter(|log| log.wants(told.failed, draw)) else {
        return;
    };
    let took = took();
    let instance = told.context.and_then(Context::instance);
    let caller = told.context.and_then(Context::caller);
    let trace = arrival.trace_id();
    log.write(&Entry {
        at: arrived(took),
        method: arrival.method.as_str(),
        path: arrival.uri.path(),
        query: arrival.uri.query(),
        version: version(arrival.version),
        status: told.status,
        client: arrival.client,
        host: Some(arrival.host()),
        user_agent: arrival.user_agent.as_ref().and_then(|agent| agent.to_str().ok()),
        referer: arrival.referer.as_ref().and_then(|referer| referer.to_str().ok()),
        route: told.route.map(|route| &**route),
        service: told.service.map(|service| &**service),
        instance: instance.as_ref().map(|instance| &**instance.name()),
        principal_kind: caller.map(|caller| caller.kind),
        issuer: caller.map(|caller| &*caller.issuer).filter(|issuer| !issuer.is_empty()),
        attempts: told.context.map_or(0, Context::attempts),
        outcome: told.outcome,
        cause: told.cause,
        duration: took,
        upstream: told.context.filter(|it| it.attempts() > 0).map(Context::upstream),
        queued: told.context.map(Context::queued).filter(|it| !it.is_zero()),
        received_bytes: bytes.received,
        sent_bytes: bytes.sent,
        trace_id: &trace,
        request_id: arrival.request_id.to_str().unwrap_or_default(),
    });
}

/// The time of day at which the head of a request had arrived that `took` this long. Read only
/// where somebody is told of it.
fn arrived(took: Duration) -> SystemTime {
    let now = wall_clock();
    now.checked_sub(took).unwrap_or(now)
}

pub(super) const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
