//! Limits: which there are, and how much of them is used.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use mainstay_call::limit::{LimitUsage, SharedLimit};
use mainstay_core::name::PolicyName;
use mainstay_core::problem::Code;
use mainstay_resilience::limit::{Kind, LimitPolicy, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Refused, items};
use crate::role::Shared;

/// Limits have no namespaces of their own yet: all are in this one.
const NAMESPACE: &str = "default";

/// Most keys listed: a page of them, not a dump of the table.
const TOP_MAX: usize = 1_000;

/// `GET /limits`
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let running = shared.gateway.running();
    let limit = |(name, policy): (&PolicyName, &Arc<LimitPolicy>)| {
        json!({
            "namespace": NAMESPACE,
            "name": name.as_str(),
            "kind": kind(&policy.kind),
            "mode": policy.mode,
            "keyed": !policy.key.is_empty(),
            "used_by_a_route": find(&shared, name.as_str()).is_some(),
        })
    };
    Ok(items(running.plane.limits.iter().map(limit).collect()))
}

/// How many keys are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Most {
    top: usize,
}

impl Default for Most {
    fn default() -> Self {
        Self { top: 20 }
    }
}

/// `GET /limits/{namespace}/{name}/usage`
pub(super) async fn usage(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
    Asked(Most { top }): Asked<Most>,
) -> Answer {
    if TOP_MAX < top {
        return Err(Refused::invalid(format!("`top` is at most {TOP_MAX}, not {top}")));
    }
    let known = shared.gateway.running().plane.limits.contains_key(name.as_str());
    if namespace != NAMESPACE || !known {
        return Err(Refused::missing("limit", &format!("{namespace}/{name}")));
    }
    let Some(limit) = find(&shared, &name) else {
        let detail = format!("limit `{name}` is configured, but no route or upstream uses it");
        return Err(Refused::new(Code::NotFound, detail));
    };
    Ok(Json(document(&limit, top)))
}

/// The limit called `name`, if one is in use.
pub(super) fn find(shared: &Shared, name: &str) -> Option<Arc<SharedLimit>> {
    shared.gateway.parts().machines.find_limit(&Arc::from(name))
}

/// Units in use and units there are, of limits that count them in one place.
pub(super) fn filled(limit: &SharedLimit) -> Option<Usage> {
    match limit.usage() {
        LimitUsage::Lone(usage) | LimitUsage::InFlight { usage, .. } => Some(usage),
        LimitUsage::Keyed(_) => None,
    }
}

fn document(limit: &SharedLimit, top: usize) -> Value {
    let policy = limit.policy();
    let usage = limit.usage();
    let (one, keyed, queue) = match usage {
        LimitUsage::Lone(usage) => (Some(usage), None, None),
        LimitUsage::InFlight { usage, waiting } => (Some(usage), None, Some(waiting)),
        LimitUsage::Keyed(keyed) => (None, Some(keyed), None),
    };
    let tally =
        one.map(|usage| usage.tally).or_else(|| keyed.map(|keyed| keyed.tally)).unwrap_or_default();
    let top = limit.top(top).into_iter();
    json!({
        "namespace": NAMESPACE,
        "name": &**limit.name(),
        "kind": kind(&policy.kind),
        "mode": policy.mode,
        "used": one.map(|usage| usage.used),
        "capacity": one.map(|usage| usage.capacity),
        "remaining": one.map(|usage| usage.remaining()),
        "reset_seconds": one.map(|usage| usage.reset.as_secs_f64()),
        "queue": queue,
        "granted": tally.granted,
        "waited": tally.waited,
        "denied": tally.denied,
        "would_reject": tally.would_reject,
        "keys": keyed.map(|keyed| keyed.keys),
        "keys_max": keyed.map(|keyed| keyed.keys_max),
        "evictions": keyed.map(|keyed| keyed.evictions),
        "top": top.map(|key| json!({ "key": key.text, "asked": key.count })).collect::<Vec<_>>(),
    })
}

/// The word for a kind, as in the configuration.
pub(super) const fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Counter { .. } => "counter",
        Kind::Sliding { .. } => "sliding",
        Kind::Bucket { .. } => "bucket",
        Kind::Pacing { .. } => "pacing",
        Kind::WarmUp { .. } => "warm_up",
        Kind::Concurrency { .. } => "concurrency",
        Kind::Adaptive { .. } => "adaptive",
    }
}
