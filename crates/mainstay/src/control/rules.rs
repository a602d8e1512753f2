//! Rules of the data plane over HTTP: routes, upstreams, circuits, limits, fallbacks.
//!
//! All kinds have the same calls under a path of their own. What the configuration files say is
//! shown beside what the store keeps, and changed in the files alone.
//!
//! | calls | module |
//! |---|---|
//! | lists, one rule, history, differences, `validate` | [`read`] |
//! | `simulate` | [`simulate`] |
//! | `PUT`, `DELETE`, `rollback` | [`write`](mod@write) |
//! | following all of them, and switches | [`watch`] |

pub(super) mod read;
pub(super) mod simulate;
pub(super) mod watch;
mod write;

use std::fmt;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::revisions::Kind;
use mainstay_core::problem::Code;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Asked, Document, Refused, items};
use super::revisions::object;
use super::{AGREED_BYTES_MAX, routes};
use crate::cluster::{self, Cluster};
use crate::role::Shared;
use crate::rules::replay::replays;
use crate::rules::{self, KINDS, rule};

/// The calls of all kinds.
pub(super) fn calls() -> Router<Arc<Shared>> {
    let kinds = KINDS.into_iter().map(of_kind);
    kinds
        .fold(Router::new(), Router::merge)
        .layer(DefaultBodyLimit::max(AGREED_BYTES_MAX))
        .route("/kinds", get(list_kinds))
        .route("/rules/watch", get(watch::watch))
}

fn of_kind(kind: Kind) -> Router<Arc<Shared>> {
    let at = |rest: &str| format!("{}{rest}", kind.path);
    // A verb beside the namespaces: the namespace of that name is listed all the same.
    let listing = |namespace: &'static str| {
        get(move |state: State<Arc<Shared>>, asked: Asked<read::Which>| {
            read::in_namespace(Extension(kind), state, Path(namespace.to_owned()), asked)
        })
    };
    let router = Router::new()
        .route(&at(""), get(read::everywhere))
        .route(&at("/validate"), listing("validate").post(read::validate))
        .route(&at("/{namespace}"), get(read::in_namespace))
        .route(&at("/{namespace}/{name}"), get(read::show).put(write::put).delete(write::remove))
        .route(&at("/{namespace}/{name}/history"), get(read::history))
        .route(&at("/{namespace}/{name}/diff"), get(read::diff))
        .route(&at("/{namespace}/{name}/rollback"), post(write::roll_back));
    let router = match kind.key {
        RuleKind::ROUTE => router.route(&at("/test"), listing("test").post(routes::test)),
        _ => router,
    };
    let router = if replays(kind.key) {
        router.route(&at("/simulate"), listing("simulate").post(simulate::simulate))
    } else {
        router
    };
    router.layer(Extension(kind))
}

/// `GET /kinds`
async fn list_kinds() -> Json<Value> {
    let kind = |kind: &Kind| {
        json!({
            "kind": kind.key.as_str(),
            "path": kind.path,
            "schema": rules::schema(kind.key),
            "simulates": replays(kind.key),
        })
    };
    items(cluster::KINDS.iter().map(kind).collect())
}

/// What the store keeps, or why there is none.
fn cluster(shared: &Shared) -> Result<&Arc<Cluster>, Refused> {
    let detail = match &shared.elsewhere {
        None => "this process keeps no rules: they stand in its configuration files",
        Some(_) => {
            "this process keeps no rules: they stand in its configuration files, and with the \
             servers of `[client]`, which change them"
        }
    };
    let none = || Refused::new(Code::ManagedElsewhere, detail);
    shared.cluster.as_ref().ok_or_else(none)
}

/// The rule that a path names.
#[derive(Debug)]
struct At {
    kind: Kind,
    namespace: String,
    name: String,
}

impl At {
    /// The rule of the store that goes by it. Names of files may be others.
    fn rule(&self) -> Result<RuleRef, Refused> {
        object(&self.kind, self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let of_router = || Refused::new(Code::Internal, "the path is of no kind");
        let kind = *parts.extensions.get::<Kind>().ok_or_else(of_router)?;
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((namespace, name)) =
            path.map_err(|rejection| Refused::invalid(rejection.body_text()))?;
        Ok(Self { kind, namespace, name })
    }
}

/// The content of a rule, as a request gives it.
#[derive(Debug)]
struct Content {
    /// The text of the table.
    text: String,
    namespace: Option<String>,
    name: Option<String>,
}

/// A content in a document.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RuleContent)]
pub(super) struct Wrapped {
    /// The text of the table, or the table.
    content: Value,
    /// Which rule it is meant to be; `validate` takes it, a path says it by itself.
    #[serde(default)]
    namespace: Option<String>,
    /// Its name; one that nothing goes by, unless told.
    #[serde(default)]
    name: Option<String>,
}

impl<S: Send + Sync> FromRequest<S> for Content {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if matches!(&*kind, "application/toml" | "application/x-toml" | "text/toml" | "text/plain")
        {
            let text = String::from_request(request, state).await;
            let text = text.map_err(|rejection| match rejection.status() {
                StatusCode::BAD_REQUEST => Refused::invalid("the content must be UTF-8"),
                status => Refused::of_status(status),
            })?;
            return Ok(Self { text, namespace: None, name: None });
        }
        let Document(Wrapped { content, namespace, name }) =
            Document::from_request(request, state).await?;
        let text = match content {
            Value::String(text) => text,
            table => rule::written(&table)
                .map_err(|why| Refused::invalid(format!("`content`: {why}")))?,
        };
        Ok(Self { text, namespace, name })
    }
}
