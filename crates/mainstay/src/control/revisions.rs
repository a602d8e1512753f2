//! Objects with a history over HTTP: what is the same for every kind.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use mainstay_coord::Revisions;
use mainstay_coord::keys::RuleRef;
use mainstay_coord::name::{Namespace, RuleName};
use mainstay_coord::revisions::{Kind, RuleError, Terms, Written};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Asked, Refused, if_match};
use super::author::{By, needed};
use super::registry::named;
use crate::report::causes;

/// Revisions of one page, unless others are asked for.
const PAGE: usize = 100;

/// Whether a change is only to be looked at.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Rehearsed {
    /// Say what would be done or refused, and change nothing.
    dry_run: bool,
}

/// Which part of a history.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// The newest revision wanted: `next` of the page before.
    from: Option<u64>,
    /// Revisions of a page. Default 100.
    limit: Option<usize>,
}

/// Between which revisions; 0 is "not there".
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Between {
    /// From this revision.
    pub(super) from: u64,
    /// To this one.
    pub(super) to: u64,
}

/// Back to which revision, and why.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ObjectRollback)]
pub(super) struct Back {
    /// The revision whose content comes back.
    pub(super) to: u64,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// The object of `kind` that a path names.
pub(super) fn object(kind: &Kind, namespace: String, name: String) -> Result<RuleRef, Refused> {
    let (namespace, name) = (named(Namespace::new(namespace))?, named(RuleName::new(name))?);
    Ok(RuleRef { kind: kind.key, namespace, name })
}

/// On what terms a request wants a change: `dry_run`, `If-Match`, who asks and why.
#[derive(Debug)]
pub(super) struct How {
    by: By,
    expected: Option<u64>,
    dry_run: bool,
}

impl How {
    /// The terms. The reason is that of the document, or else was sent as a field.
    ///
    /// # Errors
    ///
    /// `reason-required` when it is none.
    pub(super) fn terms(self, reason: Option<String>) -> Result<Terms, Refused> {
        let Self { by, expected, dry_run } = self;
        Ok(Terms { expected, dry_run, ..Terms::new(by.because(reason)?) })
    }

    /// The terms of a change that needs a reason.
    ///
    /// # Errors
    ///
    /// `reason-required` without one.
    pub(super) fn reasoned(self, reason: Option<String>) -> Result<Terms, Refused> {
        let terms = self.terms(reason)?;
        Ok(Terms { author: needed(terms.author)?, ..terms })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for How {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Asked(Rehearsed { dry_run }) = Asked::from_request_parts(parts, state).await?;
        let by = By::from_request_parts(parts, state).await?;
        Ok(Self { by, expected: if_match(&parts.headers)?, dry_run })
    }
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
