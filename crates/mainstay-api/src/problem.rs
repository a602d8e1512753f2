//! Why something did not work (RFC 9457), as it is sent.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::lock::Holder;

/// Media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem document. What is there besides depends on the code; members nobody knows are passed
/// over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where it is explained.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Which kind; kebab-case, stable, a page of `docs/problems`.
    pub code: String,
    /// What the code means.
    #[serde(default)]
    pub title: String,
    /// Status of the HTTP answer.
    #[serde(default)]
    pub status: u16,
    /// What happened here.
    #[serde(default)]
    pub detail: String,
    /// What the call may have done: `none`, `done` or `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// When trying again may help, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
    /// Ties the answer to logs and spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Who holds what was asked for (`lock-busy`, `lock-wait-timeout`); absent while a lock delay
    /// runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Box<Holder>>,
    /// Holders and waiters before the caller (`lock-busy`, `lock-wait-timeout`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
}
