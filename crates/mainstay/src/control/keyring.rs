//! The keyring over HTTP: which keys there are, a new one, all of them for another node.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mainstay_coord::keyring::{KeyState, RingError};
use mainstay_coord::moment::Moment;
use mainstay_core::problem::Code;
use serde::Serialize;
use serde_json::json;

use super::answer::{Answer, Refused};
use super::author::By;
use super::backup::passphrase;
use crate::cluster::Cluster;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    Router::new()
        .route("/keyring", get(list))
        .route("/keyring/rotate", post(rotate))
        .route("/keyring/export", get(export))
}

/// A key of the keyring, without the key.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = KeyringKey)]
pub(super) struct Shown {
    /// Its id.
    id: String,
    /// `current` for the one that seals, `retired` for those that open what they sealed.
    #[schema(value_type = String)]
    state: KeyState,
    /// When it was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    created: Option<Moment>,
    /// How many data keys of configuration it wraps.
    wraps: u64,
}

/// `GET /keyring`: the current one last.
async fn list(State(cluster): State<Arc<Cluster>>) -> Answer {
    let keyring = cluster.ring.keyring().await;
    let wrapped = cluster.centre.wrapped().await?;
    let shown = keyring.keys().map(|(id, state)| Shown {
        id: id.to_owned(),
        state,
        created: keyring.created_unix_ms(id).map(Moment::from_unix_millis),
        wraps: wrapped.get(id).copied().unwrap_or_default(),
    });
    Ok(Json(json!({ "items": shown.collect::<Vec<_>>() })))
}

/// `POST /keyring/rotate`
async fn rotate(State(cluster): State<Arc<Cluster>>, By(author): By) -> Answer {
    // To its end, also when whoever asked goes away.
    let ring = cluster.ring.clone();
    let rotated = tokio::task::spawn_blocking(move || {
        tokio::runtime::Handle::current().block_on(ring.rotate(&author))
    });
    let ended = |_panicked| Refused::new(Code::Internal, "it ended without an answer");
    let rotated = rotated.await.map_err(ended)??;
    Ok(Json(json!({ "current": rotated.current, "before": rotated.before })))
}

/// `GET /keyring/export`: one line that only the passphrase opens, which comes percent-encoded in
/// `Mainstay-Passphrase`.
async fn export(
    State(cluster): State<Arc<Cluster>>,
    By(author): By,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let missing = "`Mainstay-Passphrase` is needed: what is exported is sealed with it";
    let passphrase = passphrase(&headers)?.ok_or_else(|| Refused::invalid(missing))?;
    let text = cluster.ring.export(passphrase, &author).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], format!("{text}\n")).into_response())
}

impl From<RingError> for Refused {
    fn from(error: RingError) -> Self {
        Self::caused(error.code(), error.effect(), &error)
    }
}
