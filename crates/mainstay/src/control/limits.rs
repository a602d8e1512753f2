//! Limits: which there are, and how much of them is used.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use mainstay_call::limit::{LimitUsage, SharedLimit};
use mainstay_coord::keys::RuleKind;
use mainstay_core::problem::Code;
use mainstay_resilience::limit::{Kind, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Refused};
use crate::role::Shared;
use crate::rules::rule;
use crate::settings::graft;

/// Most keys listed: a page of them, not a dump of the table.
const TOP_MAX: usize = 1_000;

/// What there is to say of a limit in force, besides what is written.
pub(super) fn row(shared: &Shared, name: &str) -> Option<Value> {
    let running = shared.gateway.running();
    let policy = running.plane.limits.get(name)?;
    Some(json!({
        "kind": kind(&policy.kind),
        "mode": policy.mode,
        "keyed": !policy.key.is_empty(),
        "used_by_a_route": find(shared, name).is_some(),
    }))
}

/// The namespace of a limit: that of the rule, or else the one its file says.
fn namespace_of(shared: &Shared, name: &str) -> String {
    let book = shared.rules.book().lock();
    if let Some(kept) = book.in_force(RuleKind::LIMIT, name) {
        return kept.id.namespace.to_string();
    }
    drop(book);
    let live = shared.live.lock();
    let written = graft::written(live.files(), RuleKind::LIMIT.as_str(), name);
    written.map_or(rule::DEFAULT_NAMESPACE, rule::namespace_of).to_owned()
}

/// How many keys are asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Most {
    /// Keys listed, at most 1,000. Default 20.
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
    if namespace != namespace_of(&shared, &name) || !known {
        return Err(Refused::missing("limit", &format!("{namespace}/{name}")));
    }
    let Some(limit) = find(&shared, &name) else {
        let detail = format!("limit `{name}` is configured, but no route or upstream uses it");
        return Err(Refused::new(Code::NotFound, detail));
    };
    Ok(Json(document(&limit, &namespace, top)))
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

fn document(limit: &SharedLimit, namespace: &str, top: usize) -> Value {
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
        "namespace": namespace,
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
