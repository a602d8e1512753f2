//! Why a stage refused, in figures a person can act on.

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

/// The evidence behind a local refusal: which rule, what it saw, and what would clear it.
///
/// Machines return small `Copy` refusals; this is what a stage makes of one when somebody will
/// read it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Rejection {
    /// Stage that refused: `limit`, `circuit`, `balance`, …
    pub stage: &'static str,
    /// Name of the rule, as configured.
    pub rule: String,
    /// Revision of the rule, when it comes from the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What was observed, with its unit: `62 of 100 calls failed`.
    pub observed: Cow<'static, str>,
    /// What the rule allows, with its unit: `50 %`.
    pub threshold: Cow<'static, str>,
    /// Seconds for which this has been so.
    #[serde(rename = "since_seconds", serialize_with = "seconds")]
    #[schemars(with = "f64")]
    pub since: Duration,
    /// What ends it: `probes in 5.9 s`, `a permit in 0.1 s`.
    pub clears_when: Cow<'static, str>,
}

fn seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}
