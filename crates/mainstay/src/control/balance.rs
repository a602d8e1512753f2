//! Services: their instances, who of them can be picked, and why not the others.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use mainstay_call::instances::InstanceView;
use mainstay_core::name::PolicyName;
use mainstay_proxy::gateway::UpstreamRuntime;
use mainstay_resilience::balance::{Kind, LevelState, PanicReason};
use serde_json::{Value, json};

use super::answer::{Answer, Refused};
use super::circuits::id;
use super::moment::Moment;
use crate::role::Shared;

/// What there is to say of a service in force, besides what is written.
pub(super) fn row(shared: &Shared, name: &str) -> Option<Value> {
    let moment = Moment::now();
    let running = shared.gateway.running();
    let upstream = running.upstreams.get(name)?;
    let all = upstream.instances.view();
    let in_flight: u32 = all.iter().map(|row| row.endpoint.load(moment.now).in_flight).sum();
    Some(json!({
        "instances": all.len(),
        "usable": all.iter().filter(|row| why_not(row, moment).is_none()).count(),
        "in_flight": in_flight,
        "balance": kind(upstream.config.balance.kind),
        "panic": panics(upstream),
        "attempts": upstream.config.retry.attempts,
        "circuits": upstream.config.circuits.iter().map(PolicyName::as_str).collect::<Vec<_>>(),
        "limits": upstream.config.limits.iter().map(PolicyName::as_str).collect::<Vec<_>>(),
    }))
}

/// `GET /balance/{namespace}/{service}`
pub(super) async fn balance(
    State(shared): State<Arc<Shared>>,
    Path((namespace, service)): Path<(String, String)>,
) -> Answer {
    let running = shared.gateway.running();
    let known = running.upstreams.get(service.as_str());
    let Some(upstream) = known.filter(|upstream| *upstream.config.namespace == *namespace) else {
        return Err(Refused::missing("service", &format!("{namespace}/{service}")));
    };
    let moment = Moment::now();
    let all = upstream.instances.view();
    let levels = upstream.instances.levels();
    Ok(Json(json!({
        "namespace": namespace,
        "name": service,
        "balance": kind(upstream.config.balance.kind),
        "panic": panics(upstream),
        "levels": levels.iter().map(|state| level(state, moment)).collect::<Vec<_>>(),
        "items": all.iter().map(|row| instance(row, moment)).collect::<Vec<_>>(),
    })))
}

/// Whether a level uses instances that look unusable, or refuses.
pub(super) fn panics(upstream: &UpstreamRuntime) -> bool {
    upstream.instances.levels().iter().any(|level| level.panic.is_some())
}

/// Why an instance is not picked, outermost reason first; `None` when it can be.
pub(super) fn why_not(row: &InstanceView, moment: Moment) -> Option<String> {
    let InstanceView { endpoint, instance, ejection } = row;
    if instance.weight == 0 {
        return Some("its weight is 0".to_owned());
    }
    if !instance.usable {
        return Some("its registration says that it is not healthy".to_owned());
    }
    if let Some(ejection) = ejection {
        let (rule, seen) = (ejection.evidence.rule.as_str(), ejection.evidence);
        let left = ejection.until.since(moment.now).as_secs_f64();
        return Some(format!(
            "ejected for {left:.0} s more: {rule} {:.1}, threshold {:.1}",
            seen.observed, seen.threshold
        ));
    }
    let shut = endpoint.circuits().iter().find(|circuit| !circuit.admits(moment.now))?;
    let view = shut.view(moment.now);
    Some(format!("circuit {} is {}: {}", id(shut), view.state, view.cause.reason))
}

fn instance(row: &InstanceView, moment: Moment) -> Value {
    let InstanceView { endpoint, instance, ejection } = row;
    let load = endpoint.load(moment.now);
    let why_not = why_not(row, moment);
    let circuits = endpoint.circuits().iter().map(
        |circuit| json!({ "id": id(circuit), "state": circuit.view(moment.now).state.as_str() }),
    );
    json!({
        "instance": &*instance.name,
        "address": &*instance.address,
        "usable": why_not.is_none(),
        "why_not": why_not,
        "weight": instance.weight,
        "priority": instance.priority,
        "zone": &*instance.zone,
        "in_flight": load.in_flight,
        "estimate_seconds": load.estimate.read(moment.now).map(|span| span.as_secs_f64()),
        "ejected_until": ejection.and_then(|ejection| moment.text(ejection.until)),
        "since": moment.text(endpoint.since()),
        "circuits": circuits.collect::<Vec<_>>(),
    })
}

fn level(state: &LevelState, moment: Moment) -> Value {
    let LevelState { level, count, health, load, panic } = state;
    let panic = panic.map(|panic| {
        let reason = match panic.reason {
            PanicReason::Protected => "protected",
            PanicReason::FewUsable => "few_usable",
        };
        json!({ "reason": reason, "since": moment.text(panic.since) })
    });
    json!({
        "level": level,
        "instances": count.total,
        "usable": count.usable,
        "health_percent": health,
        "load_percent": load,
        "panic": panic,
    })
}

/// The word for a kind, as in the configuration.
pub(super) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::RoundRobin => "round_robin",
        Kind::Random => "random",
        Kind::LeastRequest => "least_request",
        Kind::PeakEwma => "peak_ewma",
        Kind::RingHash => "ring_hash",
        Kind::Maglev => "maglev",
    }
}
