//! Switches and plans over HTTP: what is the same for both, below the path `P` of each.
//!
//! | call | answer |
//! |---|---|
//! | `GET P`, `GET P/{namespace}` | the objects, by namespace and name |
//! | `POST P/validate` | what is wrong with a content |
//! | `GET P/{namespace}/{name}/history`, `…/diff?from=&to=` | the past of one |

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{Json, Router};
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::{Namespace, RuleName};
use mainstay_coord::revisions::{Fault, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Document, Refused};
use super::registry::named;
use super::revisions::{self, Between, Page, object};
use crate::cluster::Cluster;

/// Objects of one page, unless others are asked for.
const PAGE: usize = 100;

/// The calls that are the same for every kind, of `kind`.
pub(super) fn reads(kind: &'static Kind) -> Router<Arc<Cluster>> {
    let at = |rest: &str| format!("{}{rest}", kind.path);
    Router::new()
        .route(
            &at(""),
            get(move |cluster: State<Arc<Cluster>>, page: Asked<Part>| {
                list(kind, cluster, None, page)
            }),
        )
        .route(
            &at("/validate"),
            post(move |Document(Content { content }): Document<Content>| async move {
                validate(kind, &content)
            }),
        )
        .route(
            &at("/{namespace}"),
            get(move |cluster: State<Arc<Cluster>>, namespace: Path<String>, page: Asked<Part>| {
                let Path(namespace) = namespace;
                list(kind, cluster, Some(namespace), page)
            }),
        )
        .route(
            &at("/{namespace}/{name}/history"),
            get(move |cluster: State<Arc<Cluster>>, path: Of, page: Asked<Page>| {
                history(kind, cluster, path, page)
            }),
        )
        .route(
            &at("/{namespace}/{name}/diff"),
            get(move |cluster: State<Arc<Cluster>>, path: Of, between: Asked<Between>| {
                diff(kind, cluster, path, between)
            }),
        )
}

/// What a path names, of a kind still to be told.
#[derive(Clone, Debug)]
pub(super) struct Of {
    namespace: Namespace,
    name: RuleName,
}

impl Of {
    /// The object, of `kind`.
    pub(super) fn kind(self, kind: RuleKind) -> RuleRef {
        let Self { namespace, name } = self;
        RuleRef { kind, namespace, name }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Of {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((namespace, name)) =
            path.map_err(|rejection| Refused::invalid(rejection.body_text()))?;
        Ok(Self { namespace: named(Namespace::new(namespace))?, name: named(RuleName::new(name))? })
    }
}

/// A content to be put, and why.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ObjectPut)]
pub(super) struct Put {
    /// The content.
    pub(super) content: Value,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    pub(super) reason: Option<String>,
}

/// A content to be looked at.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ObjectContent)]
pub(super) struct Content {
    /// The content.
    content: Value,
}

fn validate(kind: &Kind, content: &Value) -> Json<Value> {
    let faults: Vec<Fault> = (kind.check)(content);
    Json(json!({ "errors": faults, "warnings": [] }))
}

/// Which part of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Go on after this one: `next` of the page before.
    after: Option<String>,
    /// Objects of a page. Default 100.
    limit: Option<usize>,
}

async fn list(
    kind: &'static Kind,
    State(cluster): State<Arc<Cluster>>,
    namespace: Option<String>,
    Asked(Part { after, limit }): Asked<Part>,
) -> Answer {
    let namespace = namespace.map(|name| named(Namespace::new(name))).transpose()?;
    let after = after.map(|after| match (&namespace, after.split_once('/')) {
        (Some(namespace), _) => object(kind, namespace.to_string(), after),
        (None, Some((namespace, name))) => object(kind, namespace.to_owned(), name.to_owned()),
        (None, None) => Err(Refused::invalid("`after` must be `namespace/name` here")),
    });
    let (after, limit) = (after.transpose()?, limit.unwrap_or(PAGE));
    let page = cluster.rules.list(kind, namespace.as_ref(), after.as_ref(), limit).await?;
    Ok(Json(json!(page)))
}

async fn history(
    kind: &'static Kind,
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    Asked(page): Asked<Page>,
) -> Answer {
    revisions::history(&cluster.rules, &of.kind(kind.key), page).await
}

async fn diff(
    kind: &'static Kind,
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    Asked(Between { from, to }): Asked<Between>,
) -> Answer {
    Ok(Json(json!(cluster.rules.diff(kind, &of.kind(kind.key), from, to).await?)))
}
