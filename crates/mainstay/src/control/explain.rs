//! Why something is as it is: a code, a request, a service, a route, a rule.

mod route;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use mainstay_call::circuit::SharedCircuit;
use mainstay_core::problem::Code;
use mainstay_proxy::gateway::UpstreamRuntime;
use mainstay_resilience::circuit::State as Stands;
use serde_json::{Value, json};

use super::answer::{Answer, Refused};
use super::moment::Moment;
use super::{balance, circuits, limits};
use crate::explain::{self, Language};
use crate::role::Shared;

/// `GET /explain/{subject}`
pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    Path(subject): Path<String>,
) -> Answer {
    let running = shared.gateway.running();
    if let Some(page) = explain::page(&subject, Language::English) {
        let title = Code::parse(&subject).map(Code::title);
        let mut document = document(&subject, "code", title.unwrap_or(&subject), Vec::new());
        document["page"] = json!(page.text);
        return Ok(Json(document));
    }
    let name = subject.rsplit_once('/').map_or(subject.as_str(), |(_, name)| name);
    if let Some(upstream) = running.upstreams.get(name) {
        return Ok(Json(service(&subject, upstream)));
    }
    if let Some(limit) = limits::find(&shared, &subject) {
        return Ok(Json(limit_document(&subject, &limit)));
    }
    if let Some(route) = running.plane.routes.iter().find(|route| route.name.as_str() == name) {
        return Ok(Json(route::document_of(&shared, &running, &subject, route)));
    }
    if let Some((_, fallback)) =
        running.plane.fallbacks.iter().find(|(known, _)| known.as_str() == name)
    {
        let defers = shared.gateway.parts().deferred.is_some();
        return Ok(Json(route::fallback((&running, defers), &subject, name, fallback)));
    }
    let machines = shared.gateway.parts().machines.circuits();
    let is_meant =
        |c: &&Arc<SharedCircuit>| *c.key().policy == *subject || circuits::id(c) == subject;
    let meant: Vec<_> = machines.iter().filter(is_meant).collect();
    if !meant.is_empty() {
        let steps: Vec<Value> = meant.iter().map(|circuit| circuit_step(circuit)).collect();
        let closed = steps.iter().filter(|step| step["outcome"] == "pass").count();
        let summary = format!("circuit {subject}: {closed} of {} let calls through", steps.len());
        return Ok(Json(document(&subject, "circuit", &summary, steps)));
    }
    request(&shared, &subject)
}

/// What was decided about the request of an id. Ids come from callers too and may look like
/// anything, so this is asked last; what does not even look like one of ours was hardly meant so.
fn request(shared: &Shared, id: &str) -> Answer {
    let why_not = match shared.gateway.parts().records.find(Moment::now().now, id) {
        Ok(record) => return Ok(Json(json!(*record))),
        Err(why_not) => why_not,
    };
    let is_id = 16 <= id.len() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    Err(if is_id {
        Refused::new(Code::NotRecorded, why_not.to_string())
    } else {
        let kinds = "no code, service, limit, route, fallback, circuit or recorded request";
        Refused::new(Code::NotFound, format!("{kinds} is called `{id}`"))
    })
}

fn document(subject: &str, kind: &str, summary: &str, steps: Vec<Value>) -> Value {
    json!({ "subject": subject, "kind": kind, "summary": summary, "steps": steps })
}

/// Why each instance of a service is or is not picked.
fn service(subject: &str, upstream: &UpstreamRuntime) -> Value {
    let moment = Moment::now();
    let all = upstream.instances.view();
    let steps: Vec<Value> = all
        .iter()
        .map(|row| {
            let why_not = balance::why_not(row, moment);
            let outcome = if why_not.is_none() { "pass" } else { "reject" };
            let in_flight = row.endpoint.load(moment.now).in_flight;
            let until = row.ejection.and_then(|ejection| moment.text(ejection.until));
            json!({
                "stage": "balance",
                "outcome": outcome,
                "rule": &*row.instance.name,
                "observed": why_not.unwrap_or_else(|| format!("{in_flight} calls in flight")),
                "threshold": null,
                "since": row.ejection.and_then(|ejection| moment.text(ejection.since)),
                "clears_when": until,
            })
        })
        .collect();
    let usable = steps.iter().filter(|step| step["outcome"] == "pass").count();
    let (total, kind) = (steps.len(), balance::kind(upstream.config.balance.kind));
    let panic = if balance::panics(upstream) { "; in panic, all are used" } else { "" };
    let summary = format!(
        "service {}: {usable} of {total} instances can be picked, by {kind}{panic}",
        upstream.instances.service()
    );
    document(subject, "service", &summary, steps)
}

fn limit_document(subject: &str, limit: &mainstay_call::limit::SharedLimit) -> Value {
    let kind = limits::kind(&limit.policy().kind);
    let summary = match limits::filled(limit) {
        Some(usage) => {
            format!("limit {subject}: {} of {} in use, {kind}", usage.used, usage.capacity)
        }
        None => format!("limit {subject}: a quota for each key, {kind}"),
    };
    document(subject, "limit", &summary, vec![limit_step(limit)])
}

fn limit_step(limit: &mainstay_call::limit::SharedLimit) -> Value {
    let (outcome, observed, threshold) = match limits::filled(limit) {
        Some(usage) => {
            let outcome = if usage.remaining() == 0 { "reject" } else { "pass" };
            (outcome, usage.used.to_string(), Some(usage.capacity.to_string()))
        }
        None => ("pass", "a quota for each key".to_owned(), None),
    };
    step("limit", outcome, limit.name(), Some(observed), threshold)
}

/// One stage, of which it is not known since when it is so.
fn step(
    stage: &str,
    outcome: &str,
    rule: &str,
    observed: Option<String>,
    threshold: Option<String>,
) -> Value {
    json!({
        "stage": stage,
        "outcome": outcome,
        "rule": rule,
        "observed": observed,
        "threshold": threshold,
        "since": null,
        "clears_when": null,
    })
}

fn circuit_step(circuit: &SharedCircuit) -> Value {
    let moment = Moment::now();
    let view = circuit.view(moment.now);
    let outcome = if view.state == Stands::Open && view.enforced { "reject" } else { "pass" };
    let observed = format!(
        "{} because of {}; {} of {} calls failed; mode {}",
        view.state, view.cause.reason, view.total.failures, view.total.calls, view.mode
    );
    json!({
        "stage": "circuit",
        "outcome": outcome,
        "rule": circuits::id(circuit),
        "observed": observed,
        "threshold": view.cause.threshold.to_string(),
        "since": moment.text(view.since),
        "clears_when": view.next_change.and_then(|at| moment.text(at)),
    })
}
