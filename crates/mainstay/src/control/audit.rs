//! The audit outbox over HTTP: who did what, newest first.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use mainstay_coord::audit::{AuditError, Filter, Outcome};
use mainstay_coord::moment::Moment;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, Asked, Refused};
use crate::cluster::Cluster;

/// Records of one page, unless others are asked for.
const PAGE: usize = 100;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    Router::new().route("/audit", get(search)).route("/audit/{id}", get(show))
}

/// Which records.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// A principal.
    actor: Option<String>,
    /// An action, or the beginning of some: `switch:*`.
    action: Option<String>,
    /// An object: `kind/namespace/name`, or without the kind.
    object: Option<String>,
    /// `done`, `refused` or `failed`.
    #[param(value_type = Option<String>)]
    outcome: Option<Outcome>,
    /// The address it came from.
    source: Option<String>,
    /// Words that stand in it, in any case.
    q: Option<String>,
    /// From this moment on.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Moment>,
    /// Up to this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Moment>,
    /// Records of a page. Default 100.
    limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// `GET /audit`
async fn search(State(cluster): State<Arc<Cluster>>, Asked(which): Asked<Which>) -> Answer {
    let Which { actor, action, object, outcome, source, q, from, to, limit, cursor } = which;
    let filter = Filter { actor, action, target: object, outcome, source, words: q, from, to };
    let page = cluster.outbox.list(&filter, cursor.as_deref(), limit.unwrap_or(PAGE)).await?;
    Ok(Json(json!(page)))
}

/// `GET /audit/{id}`
async fn show(State(cluster): State<Arc<Cluster>>, Path(id): Path<String>) -> Answer {
    match cluster.outbox.get(&id).await? {
        Some(listed) => Ok(Json(json!(listed))),
        None => Err(Refused::missing("audit record", &id)),
    }
}

impl From<AuditError> for Refused {
    fn from(error: AuditError) -> Self {
        Self::caused(error.code(), error.effect(), &error)
    }
}
