//! Where a request would go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a request would go, without sending it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteFound {
    /// The route; absent where none matches.
    pub route: Option<String>,
    /// Why there is none: `route-not-found`, `method-not-allowed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Methods the path takes, where it does not take this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<String>,
    /// The host as judged.
    pub host: String,
    /// The path as judged.
    pub path: String,
    /// Where the route stands: `mainstay.toml:12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What its pattern took out of the path.
    #[serde(default)]
    pub captures: BTreeMap<String, String>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<RouteAction>,
    /// The service, where it is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The services it can go to.
    #[serde(default)]
    pub services: Vec<RouteShare>,
    /// What the call passes, outermost first.
    #[serde(default)]
    pub stages: Vec<RouteStage>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteAction {
    /// It goes to a service.
    To,
    /// It redirects, with this status.
    Redirect(u16),
    /// It answers by itself, with this status.
    Respond(u16),
}

/// A service of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteShare {
    /// Which.
    pub service: String,
    /// Its share of the calls.
    pub share_percent: f64,
}

/// A stage a call passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteStage {
    /// Which: `deadline`, `limit`, `fallback`, …
    pub stage: String,
    /// Its rule, or its figure.
    pub rule: String,
    /// On the way to which service; empty where the route answers itself.
    pub service: String,
    /// Where that stands, or `default`.
    pub origin: String,
}
