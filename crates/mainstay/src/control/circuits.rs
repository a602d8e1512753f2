//! Circuits: where they stand, and overruling them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use mainstay_call::circuit::SharedCircuit;
use mainstay_coord::audit::Author;
use mainstay_core::Instant;
use mainstay_resilience::circuit::{Mode, Scope, State as Stands, Transition, View};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Document, Refused, items};
use super::author::By;
use super::events::{Changed, needed_reason, reason};
use super::moment::Moment;
use crate::role::Shared;

/// Which circuits are asked for.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only those of this service.
    service: Option<String>,
    /// Only those that stand there: `closed`, `open`, `half-open`, `ramp`.
    state: Option<String>,
}

/// `GET /circuit-states`
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Asked(Filter { service, state }): Asked<Filter>,
) -> Answer {
    let states = [Stands::Closed, Stands::Open, Stands::HalfOpen, Stands::Ramp].map(Stands::as_str);
    if let Some(state) = state.as_deref().filter(|state| !states.contains(state)) {
        let all = states.join(", ");
        return Err(Refused::invalid(format!("`state` is one of {all}, not `{state}`")));
    }
    let moment = Moment::now();
    let wanted = |circuit: &Arc<SharedCircuit>| {
        let of_service = service.as_deref().is_none_or(|name| place(circuit).0 == Some(name));
        let document = of_service.then(|| document(circuit, moment))?;
        let stands = state.as_deref().is_none_or(|state| document["state"] == state);
        stands.then_some(document)
    };
    Ok(items(shared.gateway.parts().machines.circuits().iter().filter_map(wanted).collect()))
}

/// A mode asked for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CircuitMode)]
pub(super) struct Force {
    /// `auto`, `forced-open`, `forced-closed`, `disabled` or `observe`.
    mode: String,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    reason: Option<String>,
    /// How long, 1 to 2,592,000; until changed, unless told.
    expires_seconds: Option<f64>,
}

/// `PUT /circuit-states/{id}/mode`
pub(super) async fn set_mode(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    By(author): By,
    headers: HeaderMap,
    Document(force): Document<Force>,
) -> Answer {
    let why = needed_reason(force.reason, &headers)?;
    let mode: Mode =
        force.mode.parse().map_err(|error| Refused::invalid(format!("`mode`: {error}")))?;
    let moment = Moment::now();
    let until = match force.expires_seconds {
        None => Instant::MAX,
        Some(seconds) if (1.0..=EXPIRES_SECONDS_MAX).contains(&seconds) => {
            moment.now.plus(Duration::from_secs_f64(seconds))
        }
        Some(seconds) => {
            let range = format!("must be 1 to {EXPIRES_SECONDS_MAX}, found {seconds}");
            return Err(Refused::invalid(format!("`expires_seconds`: {range}")));
        }
    };
    let circuit = find(&shared, &id)?;
    let force = |now| circuit.set_mode(now, mode, until);
    Ok(change((&shared, &author), &circuit, ("circuit.mode", Some(&why)), force))
}

/// A month: whoever wants a circuit forced for longer wants another policy.
const EXPIRES_SECONDS_MAX: f64 = 30.0 * 86_400.0;

/// A reset asked for.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = CircuitReset)]
pub(super) struct Reset {
    /// Why, 3 to 500 characters.
    reason: Option<String>,
}

/// `POST /circuit-states/{id}/reset`: by its own judgement again, and with nothing held against
/// anybody.
pub(super) async fn reset(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    By(author): By,
    headers: HeaderMap,
    Document(asked): Document<Reset>,
) -> Answer {
    let why = reason(asked.reason, &headers)?;
    let circuit = find(&shared, &id)?;
    let what = ("circuit.reset", why.as_deref());
    Ok(change((&shared, &author), &circuit, what, |now| {
        let _released = circuit.set_mode(now, Mode::Auto, Instant::MAX);
        circuit.reset(now)
    }))
}

fn change(
    (shared, author): (&Shared, &Author),
    circuit: &SharedCircuit,
    (what, reason): (&'static str, Option<&str>),
    work: impl FnOnce(Instant) -> Option<Transition>,
) -> Json<Value> {
    let moment = Moment::now();
    let brief = |view: View| json!({ "state": view.state.as_str(), "mode": view.mode.as_str() });
    let before = brief(circuit.view(moment.now));
    // What is reported is where it stands, also when nothing changed.
    let _transition = work(moment.now);
    let after = brief(circuit.view(moment.now));
    Changed { what, subject: &id(circuit), before: &before, after: &after, reason }
        .emit_audited(shared, "circuit", author);
    Json(document(circuit, moment))
}

/// The circuit called `id`; the name of its policy or what it guards will do where only one
/// circuit has it.
fn find(shared: &Shared, name: &str) -> Result<Arc<SharedCircuit>, Refused> {
    let all = shared.gateway.parts().machines.circuits();
    if let Some(exact) = all.iter().find(|circuit| id(circuit) == name) {
        return Ok(Arc::clone(exact));
    }
    let is_meant = |circuit: &&Arc<SharedCircuit>| {
        *circuit.key().policy == *name || *circuit.key().subject == *name
    };
    let meant: Vec<_> = all.iter().filter(is_meant).collect();
    match meant.as_slice() {
        [] => Err(Refused::missing("circuit", name)),
        [one] => Ok(Arc::clone(one)),
        many => {
            let ids: Vec<String> = many.iter().take(5).map(|circuit| id(circuit)).collect();
            let (count, ids) = (many.len(), ids.join(", "));
            Err(Refused::invalid(format!("`{name}` names {count} circuits: {ids}; say which")))
        }
    }
}

/// `policy/subject`.
pub(super) fn id(circuit: &SharedCircuit) -> String {
    let key = circuit.key();
    format!("{}/{}", key.policy, key.subject)
}

/// Service, instance and route that a circuit is about.
fn place(circuit: &SharedCircuit) -> (Option<&str>, Option<&str>, Option<&str>) {
    let subject = &*circuit.key().subject;
    match (circuit.scope(), subject.split_once('@')) {
        (Scope::Instance, Some((service, instance))) => (Some(service), Some(instance), None),
        (Scope::Instance | Scope::Service, _) => (Some(subject), None, None),
        (Scope::Route, _) => (None, None, Some(subject)),
    }
}

fn document(circuit: &SharedCircuit, moment: Moment) -> Value {
    let view = circuit.view(moment.now);
    let (service, instance, route) = place(circuit);
    let window = view.window.iter().map(|part| {
        json!({
            "start": moment.text(part.start),
            "calls": part.tally.calls,
            "failures": part.tally.failures,
            "slow": part.tally.slow,
            "timeouts": part.tally.timeouts,
            "tripped": part.tripped,
        })
    });
    json!({
        "id": id(circuit),
        "circuit": &*circuit.key().policy,
        "scope": circuit.scope(),
        "service": service,
        "instance": instance,
        "route": route,
        "state": view.state.as_str(),
        "mode": view.mode.as_str(),
        "mode_until": view.mode_until.and_then(|at| moment.text(at)),
        "enforced": view.enforced,
        "reason": view.cause.reason.as_str(),
        "observed": view.cause.observed,
        "threshold": view.cause.threshold,
        "since": moment.text(view.since),
        "next_change": view.next_change.and_then(|at| moment.text(at)),
        "calls": view.total.calls,
        "failures": view.total.failures,
        "failure_rate_percent": view.failure_rate_percent,
        "slow_rate_percent": view.slow_rate_percent,
        "window": window.collect::<Vec<_>>(),
        "probes": { "free": view.probes_free, "in_flight": view.probes_in_flight },
        "ramp_percent": view.ramp_percent,
        "opened_total": view.opened_total,
        "refused_total": view.refused_total,
        "would_trip_total": view.would_trip_total,
        "would_reject_total": view.would_reject_total,
    })
}
