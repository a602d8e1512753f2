//! Why something is as it is, and whether all is well.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why something is as it is: a code, a service, a limit, a route, a fallback, a circuit, a request.
/// Of a request it also says `request_id`, `trace_id`, `at`, `listener`, `method`, `path`,
/// `status`, `outcome` and `duration_seconds`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What was asked about.
    pub subject: String,
    /// What that is: `code`, `service`, `limit`, `route`, `fallback`, `circuit`, `request`.
    pub kind: String,
    /// In a sentence.
    pub summary: String,
    /// Stage by stage, outermost first.
    pub steps: Vec<Step>,
    /// The page of a code, as Markdown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// What one stage did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ExplanationStep)]
pub struct Step {
    /// Which: `limit`, `circuit`, …
    pub stage: String,
    /// `pass`, `reject`, `none` where nothing is configured, `not-reached`, or what it did instead.
    pub outcome: String,
    /// Rule, as configured.
    pub rule: Option<String>,
    /// Revision of the rule, when it comes from the store.
    #[serde(default)]
    pub revision: Option<u64>,
    /// What was observed, with its unit.
    pub observed: Option<String>,
    /// What the rule allows, with its unit.
    pub threshold: Option<String>,
    /// Since when this is so.
    pub since: Option<String>,
    /// What ends it.
    pub clears_when: Option<String>,
}

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Which; `mainstay explain check-ID` has its page.
    pub id: String,
    /// What it is about.
    pub category: String,
    /// `pass`, `skip`, `unknown`, `warn`, `fail`.
    pub state: String,
    /// In a sentence.
    pub summary: String,
    /// What it was judged by.
    #[serde(default)]
    pub evidence: Option<String>,
    /// What to do next.
    #[serde(default)]
    pub next: Option<String>,
}
