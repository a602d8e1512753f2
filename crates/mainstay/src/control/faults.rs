//! Faults made on purpose.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use mainstay_core::problem::Code;
use mainstay_resilience::classify::Answer as Outcome;
use mainstay_resilience::fault::{Fault, FaultId, FaultKind, FaultPolicy, RawFault};
use serde_json::{Value, json};

use super::answer::{Answer, Document, Refused, items};
use super::author::By;
use super::events::{Changed, needed_reason, reason};
use super::moment::Moment;
use crate::role::Shared;

/// `GET /faults`
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let now = Moment::now().now;
    let all = shared.gateway.parts().faults.list(now);
    Ok(items(all.iter().map(|(fault, left)| document(fault, *left)).collect()))
}

/// `POST /faults`
pub(super) async fn set(
    State(shared): State<Arc<Shared>>,
    By(author): By,
    headers: HeaderMap,
    Document(mut raw): Document<RawFault>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let why = needed_reason(raw.reason.take(), &headers)?;
    raw.reason = Some(why.clone());
    let policy = FaultPolicy::try_from(raw)?;
    let now = Moment::now().now;
    let faults = &shared.gateway.parts().faults;
    let id = faults
        .set(policy.clone(), now)
        .map_err(|full| Refused::new(Code::Limited, full.to_string()))?;
    let left = policy.ttl;
    let after = document(&Fault { id, until: now.plus(left), policy }, left);
    let subject = name(id);
    let reason = Some(why.as_str());
    Changed { what: "fault.set", subject: &subject, before: &Value::Null, after: &after, reason }
        .emit_audited(&shared, "fault", &author);
    Ok((StatusCode::CREATED, Json(after)))
}

/// `DELETE /faults/{id}`
pub(super) async fn clear(
    State(shared): State<Arc<Shared>>,
    Path(subject): Path<String>,
    By(author): By,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let why = reason(None, &headers)?;
    let now = Moment::now().now;
    let faults = &shared.gateway.parts().faults;
    let number = subject.strip_prefix("f-").and_then(|number| number.parse().ok());
    let before = faults.list(now).into_iter().find(|(fault, _)| Some(fault.id.0) == number);
    let known = before.filter(|(fault, _)| faults.clear(fault.id, now));
    let Some((fault, left)) = known else { return Err(Refused::missing("fault", &subject)) };
    let (before, after) = (document(&fault, left), Value::Null);
    let reason = why.as_deref();
    Changed { what: "fault.clear", subject: &subject, before: &before, after: &after, reason }
        .emit_audited(&shared, "fault", &author);
    Ok(StatusCode::NO_CONTENT)
}

fn name(id: FaultId) -> String {
    format!("f-{}", id.0)
}

/// A fault in the words in which it is asked for.
fn document(fault: &Fault, left: Duration) -> Value {
    let Fault { id, until: _, policy } = fault;
    let matches = &policy.matches;
    let header = matches.header.as_ref();
    let header = header.map(|(name, value)| json!({ "name": name, "value": value }));
    let pairs = [
        ("route", json!(matches.route)),
        ("service", json!(matches.service)),
        ("instance", json!(matches.instance)),
        ("header", json!(header)),
    ];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_null());
    let matches: serde_json::Map<String, Value> =
        pairs.map(|(name, value)| (name.to_owned(), value)).collect();
    json!({
        "id": name(*id),
        "fault": kind(policy.kind),
        "match": matches,
        "percent": f64::from(policy.share_millionths) / 10_000.0,
        "seconds_left": (left.as_secs_f64() * 1_000.0).round() / 1_000.0,
        "reason": policy.reason,
    })
}

fn kind(kind: FaultKind) -> Value {
    let figures = match kind {
        FaultKind::Delay { span, jitter_percent } => {
            json!({ "seconds": span.as_secs_f64(), "jitter": jitter_percent })
        }
        FaultKind::Abort(Outcome::Http(status)) => json!({ "status": status }),
        FaultKind::Abort(Outcome::Grpc(code)) => json!({ "grpc": code }),
        FaultKind::SlowBody { bytes_per_second } => json!({ "bytes_per_second": bytes_per_second }),
        FaultKind::Truncate { after_bytes } => json!({ "after_bytes": after_bytes }),
        FaultKind::Reset | FaultKind::Blackhole | FaultKind::ConnectTimeout => {
            return json!(kind.as_str());
        }
    };
    json!({ kind.as_str(): figures })
}
