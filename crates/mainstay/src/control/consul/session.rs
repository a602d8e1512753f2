//! `session/…`: sessions.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use mainstay_coord::consul::{Behavior, ConsulSession, NewSession};
use mainstay_coord::keys::{ConsulSessionId, consul_sessions};
use mainstay_store::{Range, Revision};
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{Text, indexed, json};
use super::body::Fields;
use super::query::Asked;
use super::{NODE_CHECK, Said, span};
use crate::cluster::Cluster;

const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_MAX: Duration = Duration::from_hours(24);
const LOCK_DELAY: Duration = Duration::from_secs(15);
const LOCK_DELAY_MAX: Duration = Duration::from_mins(1);

/// `PUT session/create`
pub(super) async fn create(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    body: Said,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    let mut fields = Fields::read(&body.0)?;
    let node = fields.text("Node")?.filter(|node| !node.is_empty());
    let node = node.unwrap_or_else(|| cluster.node.as_str().to_owned());
    let behavior = match fields.text("Behavior")?.as_deref() {
        None | Some("" | "release") => Behavior::Release,
        Some("delete") => Behavior::Delete,
        Some(other) => {
            return Err(Text::failed(format!("Invalid Behavior setting '{other}'")));
        }
    };
    let ttl = match fields.text("TTL")?.filter(|ttl| !ttl.is_empty()) {
        None => None,
        Some(text) => Some((ttl(&text)?, text)),
    };
    let lock_delay = fields.span("LockDelay", 1_000)?.unwrap_or(LOCK_DELAY);
    let (checks, node_checks) = (fields.texts("Checks")?, fields.texts("NodeChecks")?);
    let node_checks = node_checks.or(checks).unwrap_or_else(|| vec![NODE_CHECK.to_owned()]);
    let service_checks = service_checks(&mut fields)?;
    let new = NewSession {
        name: fields.text("Name")?.unwrap_or_default(),
        node,
        lock_delay: lock_delay.min(LOCK_DELAY_MAX),
        behavior,
        ttl,
        node_checks,
        service_checks,
    };
    let id = door.recipes.create_session(new).await?;
    Ok(json(&asked, &json!({ "ID": id.as_str() })))
}

/// Checks of services, each with its id.
pub(super) fn service_checks(fields: &mut Fields) -> Result<Vec<Value>, Text> {
    let list = match fields.take("ServiceChecks") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(Text::bad(format!("ServiceChecks must be a list, found {other}")));
        }
    };
    let read = |value| {
        let mut check = Fields::of(value)?;
        let id = check.text("ID")?.filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Text::bad("ServiceChecks must each have an ID"))?;
        let namespace = check.text("Namespace")?.unwrap_or_default();
        Ok(json!({ "ID": id, "Namespace": namespace }))
    };
    list.into_iter().map(read).collect()
}

fn ttl(text: &str) -> Result<Duration, Text> {
    let Some(ttl) = span(text) else {
        return Err(Text::failed(format!("Session TTL '{text}' invalid: no duration")));
    };
    if ttl < TTL_MIN || TTL_MAX < ttl {
        let range = "must be between [10s=24h0m0s]";
        return Err(Text::failed(format!("Invalid Session TTL '{}', {range}", ttl.as_nanos())));
    }
    Ok(ttl)
}

/// `PUT session/destroy/S`
pub(super) async fn destroy(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    Path(id): Path<String>,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    if let Some(id) = ConsulSessionId::new(&id) {
        door.recipes.destroy_session(&id).await?;
    }
    Ok(json(&asked, &true))
}

/// `PUT session/renew/S`
pub(super) async fn renew(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    Path(text): Path<String>,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    let renewed = match ConsulSessionId::new(&text) {
        Some(id) => door.recipes.renew_session(&id).await?,
        None => None,
    };
    match renewed {
        Some(session) => Ok(json(&asked, &[document(&session)])),
        None => Err(Text(StatusCode::NOT_FOUND, format!("Session id '{text}' not found"))),
    }
}

/// `GET session/info/S`
pub(super) async fn info(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    Path(text): Path<String>,
) -> Result<Response, Text> {
    let id = ConsulSessionId::new(&text);
    let Some(id) = id else { return found(&cluster, &asked, &[], |_any| true).await };
    found(&cluster, &asked, &[Range::key(&id.record())], |_any| true).await
}

/// `GET session/node/N`
pub(super) async fn of_node(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    Path(node): Path<String>,
) -> Result<Response, Text> {
    found(&cluster, &asked, &[consul_sessions()], |session| session.record.node == node).await
}

/// `GET session/list`
pub(super) async fn list(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    found(&cluster, &asked, &[consul_sessions()], |_any| true).await
}

async fn found(
    cluster: &Cluster,
    asked: &Asked,
    ranges: &[Range],
    wanted: impl Fn(&ConsulSession) -> bool,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    let (after, wait) = asked.blocking()?;
    // What cannot be anybody's id never changes.
    let after = if ranges.is_empty() { Revision::NEVER } else { after };
    let found = door.recipes.find_after(ranges, after, wait).await?;
    let sessions: Result<Vec<_>, _> =
        found.entries.iter().flatten().map(ConsulSession::read).collect();
    let sessions: Vec<_> =
        sessions?.iter().filter(|session| wanted(session)).map(document).collect();
    Ok(indexed(door, found.index.get(), json(asked, &sessions)))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    node: String,
    lock_delay: u64,
    behavior: Behavior,
    #[serde(rename = "TTL")]
    ttl: String,
    node_checks: Vec<String>,
    service_checks: Option<Vec<Value>>,
    create_index: u64,
    modify_index: u64,
}

fn document(session: &ConsulSession) -> Document {
    let record = &session.record;
    let services = &record.service_checks;
    Document {
        id: session.id.as_str().to_owned(),
        name: record.name.clone(),
        node: record.node.clone(),
        lock_delay: record.lock_delay_nanoseconds,
        behavior: record.behavior,
        ttl: record.ttl.clone(),
        node_checks: record.node_checks.clone(),
        service_checks: (!services.is_empty()).then(|| services.clone()),
        create_index: session.created.get(),
        modify_index: session.modified.get(),
    }
}
