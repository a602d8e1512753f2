//! Keys of issuers: where they stand, and fetching them now.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use mainstay_api::gateway::{DroppedKey, IssuerKey, IssuerKeys};
use mainstay_call::clock::MonotonicClock;
use mainstay_core::Clock as _;
use mainstay_proxy::config::jwt::Source;
use mainstay_proxy::identify::keys::View;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Document, Refused, items};
use super::author::By;
use super::events::{Changed, reason};
use crate::role::Shared;

/// How long an answer waits for keys that were asked for: a discovery document and the keys, at
/// five seconds each.
const REFRESHED_MAX: Duration = Duration::from_secs(10);

/// `GET /jwks`
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let now = MonotonicClock.now();
    let running = shared.gateway.running();
    items(running.issuers.iter().map(|issuer| json!(document(issuer.keys.view(now)))).collect())
}

/// Keys asked for.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RefreshKeys)]
pub(super) struct Refresh {
    /// Why, 3 to 500 characters.
    reason: Option<String>,
}

/// `POST /jwks/{issuer}/refresh`: answers with where they stand then, whatever came of it.
pub(super) async fn refresh(
    State(shared): State<Arc<Shared>>,
    Path(issuer): Path<String>,
    By(author): By,
    headers: HeaderMap,
    Document(asked): Document<Refresh>,
) -> Answer {
    let why = reason(asked.reason, &headers)?;
    let keys = {
        let running = shared.gateway.running();
        let named = running.issuers.iter().find(|known| known.keys.issuer() == issuer);
        named
            .map(|known| Arc::clone(&known.keys))
            .ok_or_else(|| Refused::missing("issuer", &issuer))?
    };
    let brief = |view: &View| json!({ "state": view.state.as_str(), "keys": view.keys.len() });
    let before = brief(&keys.view(MonotonicClock.now()));
    let settled = keys.settled();
    keys.refresh(MonotonicClock.now());
    // Late or not, what is told is where they stand.
    let _elapsed = tokio::time::timeout(REFRESHED_MAX, settled).await;
    let view = keys.view(MonotonicClock.now());
    let after = brief(&view);
    let (what, reason) = ("jwks.refresh", why.as_deref());
    Changed { what, subject: &issuer, before: &before, after: &after, reason }
        .emit_audited(&shared, "jwks", &author);
    Ok(Json(json!(document(view))))
}

fn document(view: View) -> IssuerKeys {
    let key = |(kid, algorithms): (Option<Box<str>>, Vec<&str>)| IssuerKey {
        kid: kid.map(Into::into),
        algorithms: algorithms.into_iter().map(str::to_owned).collect(),
    };
    let dropped = view.dropped.into_iter().map(|key| DroppedKey {
        place: key.place as u64,
        kid: key.kid.map(Into::into),
        why: key.why.to_string(),
    });
    IssuerKeys {
        issuer: view.issuer.to_string(),
        source: source(&view.source),
        state: view.state.as_str().to_owned(),
        age_seconds: view.age.map(|age| age.as_secs_f64()),
        next_seconds: view.next.map(|next| next.as_secs_f64()),
        failure: view.failure,
        keys: view.keys.into_iter().map(key).collect(),
        dropped: dropped.collect(),
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Url(url) | Source::Discovery(url) => url.to_string(),
        Source::File(path) => path.display().to_string(),
    }
}
