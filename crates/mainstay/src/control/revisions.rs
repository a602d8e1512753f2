//! Objects with a history over HTTP: what is the same for every kind.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use mainstay_coord::Revisions;
use mainstay_coord::audit::Author;
use mainstay_coord::keys::RuleRef;
use mainstay_coord::name::{Namespace, RuleName};
use mainstay_coord::revisions::{Kind, RuleError, Terms, Written};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refused, if_match};
use super::registry::named;
use crate::report::causes;

/// Revisions of one page, unless others are asked for.
const PAGE: usize = 100;

/// Whether a change is only to be looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rehearsed {
    pub(super) dry_run: bool,
}

/// Which part of a history.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Page {
    /// The newest revision wanted: `next` of the page before.
    from: Option<u64>,
    limit: Option<usize>,
}

/// Between which revisions; 0 is "not there".
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Between {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Back to which revision, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    pub(super) to: u64,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// The object of `kind` that a path names.
pub(super) fn object(kind: &Kind, namespace: String, name: String) -> Result<RuleRef, Refused> {
    let (namespace, name) = (named(Namespace::new(namespace))?, named(RuleName::new(name))?);
    Ok(RuleRef { kind: kind.key, namespace, name })
}

/// On what terms a request wants a change.
pub(super) fn terms(
    author: Author,
    headers: &HeaderMap,
    Rehearsed { dry_run }: Rehearsed,
) -> Result<Terms, Refused> {
    Ok(Terms { expected: if_match(headers)?, dry_run, ..Terms::new(author) })
}

/// `GET P/{namespace}/{name}/history`
pub(super) async fn history(revisions: &Revisions, rule: &RuleRef, page: Page) -> Answer {
    let Page { from, limit } = page;
    Ok(Json(json!(revisions.history(rule, from, limit.unwrap_or(PAGE)).await?)))
}

/// What a change came to, with `more` members; the revision is its `ETag` too.
pub(super) fn changed(
    rule: &RuleRef,
    written: &Written,
    dry_run: bool,
    more: Map<String, Value>,
) -> Response {
    let mut document = json!({
        "namespace": rule.namespace.as_str(),
        "name": rule.name.as_str(),
        "revision": written.revision,
        "store_revision": written.store_revision,
        "changed": written.changed,
        "dry_run": dry_run,
        "diff": written.diff,
    });
    if let Some(fields) = document.as_object_mut() {
        fields.extend(more);
    }
    // What was only looked at has no tag yet.
    if dry_run { Json(document).into_response() } else { tagged(written.revision, document) }
}

/// A document with the number of its revision as its `ETag`.
pub(super) fn tagged(revision: u64, document: Value) -> Response {
    let mut response = Json(document).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

impl From<RuleError> for Refused {
    fn from(error: RuleError) -> Self {
        let refused = Self::new(error.code(), causes(&error)).with_effect(error.effect());
        match error {
            RuleError::Store(error) => Self::from(error),
            RuleError::Moved { found, current, .. } => {
                refused.with("found", json!(found)).with("current", json!(current))
            }
            RuleError::ManagedElsewhere { managed_by, .. } => {
                refused.with("managed_by", json!(managed_by))
            }
            RuleError::Invalid { faults, .. } => refused.with("errors", json!(faults)),
            _ => refused,
        }
    }
}
