//! Audit records over HTTP: who did what, newest first; and what proves that nothing of it changed.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use mainstay_coord::audit::{AuditError, Author, Filter, Outcome, Target};
use mainstay_coord::moment::Moment;
use mainstay_core::Effect;
use mainstay_security::audit::tile::Level;
use mainstay_security::audit::{Hash, Tile};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{Answer, Asked, Refused};
use super::author::By;
use super::transactions::forward;
use crate::audit::LogError;
use crate::cluster::Cluster;

/// Records of one page, unless others are asked for.
const PAGE: usize = 100;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    Router::new()
        .route("/audit", get(search))
        .route("/audit/checkpoint", get(checkpoint))
        .route("/audit/heads", get(heads))
        .route("/audit/keys", get(keys))
        .route("/audit/proof/inclusion", get(inclusion))
        .route("/audit/proof/consistency", get(consistency))
        .route("/audit/tile/{*tile}", get(tile))
        .route("/audit/{id}", get(show))
}

/// Passes a request about the log on to the node that takes records over, if that is another one.
/// Where it cannot be reached this node answers by the outbox and a log of its own.
pub(super) async fn where_the_log_is(
    State(cluster): State<Arc<Cluster>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let is_ours = path == "/audit" || path.starts_with("/audit/");
    if !is_ours || forward::is_passed_on(&request) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    if let Ok(Some(address)) = cluster.audit.elsewhere().await
        && let Some(answer) = forward::ask(&address, parts.clone()).await
    {
        return answer;
    }
    next.run(Request::from_parts(parts, body)).await
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
async fn search(
    State(cluster): State<Arc<Cluster>>,
    By(author): By,
    Asked(which): Asked<Which>,
) -> Answer {
    let Which { actor, action, object, outcome, source, q, from, to, limit, cursor } = which;
    let filter = Filter { actor, action, target: object, outcome, source, words: q, from, to };
    let page = cluster.audit.list(&filter, cursor.as_deref(), limit.unwrap_or(PAGE)).await?;
    told(&cluster, "audit:search", &author);
    Ok(Json(json!(page)))
}

/// Records that somebody read records; nobody waits for it.
fn told(cluster: &Cluster, action: &str, author: &Author) {
    let target =
        Target { kind: "audit-log".to_owned(), id: cluster.node.to_string(), ..Target::default() };
    cluster.outbox.tell(cluster.outbox.record(action, target, author));
}

/// `GET /audit/{id}`
async fn show(
    State(cluster): State<Arc<Cluster>>,
    By(author): By,
    Path(id): Path<String>,
) -> Answer {
    match cluster.audit.get(&id).await? {
        Some(listed) => {
            told(&cluster, "audit:search", &author);
            Ok(Json(json!(listed)))
        }
        None => Err(Refused::missing("audit record", &id)),
    }
}

/// `GET /audit/checkpoint`
async fn checkpoint(State(cluster): State<Arc<Cluster>>) -> Result<Response, Refused> {
    Ok(text(cluster.audit.head().await?.to_string()))
}

/// `GET /audit/heads`
async fn heads(State(cluster): State<Arc<Cluster>>) -> Result<Response, Refused> {
    Ok(text(cluster.audit.list_file("heads").await?))
}

/// `GET /audit/keys`
async fn keys(State(cluster): State<Arc<Cluster>>) -> Result<Response, Refused> {
    Ok(text(cluster.audit.list_file("keys").await?))
}

fn text(text: String) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Which record is proved to be there.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Included {
    /// The number of the record.
    seq: u64,
    /// Among how many records. Default: those of the newest head.
    size: Option<u64>,
}

/// That a record is there (RFC 6962, 2.1.1).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AuditInclusion)]
pub(super) struct Inclusion {
    seq: u64,
    size: u64,
    /// The hash of the record, in base64, as all hashes here.
    leaf: String,
    /// Hashes beside the way from the leaf to the root, from below.
    proof: Vec<String>,
    root: String,
}

/// `GET /audit/proof/inclusion`
async fn inclusion(State(cluster): State<Arc<Cluster>>, Asked(asked): Asked<Included>) -> Answer {
    let Included { seq, size } = asked;
    let (size, leaf, proof, root) = cluster.audit.inclusion(seq, size).await?;
    let (leaf, root) = (leaf.to_base64(), root.to_base64());
    Ok(Json(json!(Inclusion { seq, size, leaf, proof: texts(&proof), root })))
}

/// Between which sizes nothing old is proved to have changed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Grown {
    /// How many records there were, at least 1.
    from: u64,
    /// How many there are. Default: those of the newest head.
    to: Option<u64>,
}

/// That the log only grew (RFC 6962, 2.1.2).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AuditConsistency)]
pub(super) struct Consistency {
    from: u64,
    to: u64,
    /// Hashes that come to both roots, in base64.
    proof: Vec<String>,
    from_root: String,
    to_root: String,
}

/// `GET /audit/proof/consistency`
async fn consistency(State(cluster): State<Arc<Cluster>>, Asked(asked): Asked<Grown>) -> Answer {
    let Grown { from, to } = asked;
    let (to, proof, first, second) = cluster.audit.consistency(from, to).await?;
    let (from_root, to_root) = (first.to_base64(), second.to_base64());
    Ok(Json(json!(Consistency { from, to, proof: texts(&proof), from_root, to_root })))
}

fn texts(proof: &[Hash]) -> Vec<String> {
    proof.iter().map(|hash| hash.to_base64()).collect()
}

/// `GET /audit/tile/…`
async fn tile(
    State(cluster): State<Arc<Cluster>>,
    By(author): By,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let missing = || Refused::missing("tile of the audit log", &name);
    let tile = Tile::parse(&format!("tile/{name}")).ok_or_else(missing)?;
    let bytes = cluster.audit.tile(tile).await?.ok_or_else(missing)?;
    if tile.level == Level::Entries {
        told(&cluster, "audit:export", &author);
    }
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

impl From<AuditError> for Refused {
    fn from(error: AuditError) -> Self {
        Self::caused(error.code(), error.effect(), &error)
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Outbox(error) => error.into(),
            other => Self::caused(other.code(), Effect::None, &other),
        }
    }
}
