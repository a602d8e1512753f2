//! The configuration in force, and reading it again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use mainstay_core::problem::Code;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Document, Refused, first_of};
use super::author::By;
use super::events::{Changed, reason};
use crate::role::Shared;
use crate::settings::origin;

/// `GET /settings`
pub(super) async fn show(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (tree, last) = {
        let live = shared.live.lock();
        (live.tree().clone(), live.last().clone())
    };
    let failure = last.err().map(|errors| first_of(&errors));
    Json(json!({ "items": origin::values(&tree), "last_reload_error": failure }))
}

/// A reload asked for.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = SettingsReload)]
pub(super) struct Reload {
    /// Why, 3 to 500 characters.
    reason: Option<String>,
}

/// `POST /settings/reload`
pub(super) async fn reload(
    State(shared): State<Arc<Shared>>,
    By(author): By,
    headers: HeaderMap,
    Document(asked): Document<Reload>,
) -> Answer {
    let why = reason(asked.reason, &headers)?;
    // Files may lie on a disk that hangs; the control plane answers others meanwhile.
    let reloading = Arc::clone(&shared);
    let done = tokio::task::spawn_blocking(move || reloading.reload())
        .await
        .map_err(|_panicked| Refused::new(Code::Internal, "the reload ended in the middle"))?;
    let (after, answer) = match done {
        Ok(reloaded) => (json!(reloaded), Ok(Json(json!(reloaded)))),
        Err(errors) => {
            (json!({ "refused": first_of(&errors) }), Err(Refused::configuration(&errors)))
        }
    };
    let (subject, before, reason) = ("settings", Value::Null, why.as_deref());
    let changed =
        Changed { what: "settings.reload", subject, before: &before, after: &after, reason };
    match answer {
        // What is refused has its record as every refusal has.
        Err(_) => changed.emit(),
        Ok(_) => changed.emit_audited(&shared, "settings", &author),
    }
    answer
}
