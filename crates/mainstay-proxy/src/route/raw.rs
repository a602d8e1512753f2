//! A route as written.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mainstay_core::name::PolicyName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::condition::RawTest;
use super::mirror::RawMirror;
use super::{Demand, ForwardPath, Priority};
use crate::redirect::RawRedirect;
use crate::respond::RawRespond;
use crate::rewrite::RawRewrite;
use crate::rewrite::headers::RawHeaderRules;
use crate::split::RawTo;

/// One `[route.NAME]` table as written: every field optional, nothing checked.
///
/// A request takes the route of highest rank that matches it: exact host before longest suffix
/// before any; exact path before the template with more literals before the longer prefix before
/// a regular expression; then more other conditions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRoute {
    /// Namespace of the services and policies it names, 1 to 63 of `a-z`, `0-9`, `-`. Default
    /// `default`.
    pub namespace: Option<String>,
    /// Host it is for: a name, `*.` and a name for all below it, or `*`. Without port; letter
    /// case does not matter. Default `*`.
    pub host: Option<String>,
    /// Path it is for: exact, or a template such as `/orders/{id}` whose captures are whole
    /// segments, at most 8. One of `path`, `prefix`, `regex`.
    pub path: Option<String>,
    /// Beginning of the paths it is for, up to a slash: `/api` is for `/api` and `/api/x`, not
    /// for `/apix`. Default `/`, which is for all.
    pub prefix: Option<String>,
    /// Regular expression for the whole path, at most 1,024 bytes; groups with a name are
    /// captures.
    pub regex: Option<String>,
    /// Methods it is for. Default all. Where only the method is wrong the answer is 405.
    pub methods: Option<Vec<String>>,
    /// Conditions on header fields, by name: a text, or one of `{ exact }`, `{ regex }`,
    /// `{ present = true }`, `{ absent = true }`. Of a field that is there more than once every
    /// value must fit.
    pub headers: Option<BTreeMap<String, RawTest>>,
    /// Conditions on query parameters, likewise.
    pub query: Option<BTreeMap<String, RawTest>>,
    /// Client networks it is for, such as `10.0.0.0/8`. Default all.
    #[schemars(with = "Option<Vec<String>>")]
    pub from: Option<Vec<IpNet>>,

    /// Service that answers, or a list of `{ service, weight }`. One of `to`, `redirect`,
    /// `respond`.
    pub to: Option<RawTo>,
    /// Answers with a redirect.
    pub redirect: Option<RawRedirect>,
    /// Answers with a fixed text.
    pub respond: Option<RawRespond>,
    /// Changes path and host before sending on.
    pub rewrite: Option<RawRewrite>,
    /// What keeps a caller on one side of a weighted `to`: `client_address`, `principal`,
    /// `tenant`, `path`, `header:NAME`, `path:NAME`, `query:NAME` or `cookie:NAME`. Default: by
    /// random draw.
    pub split_key: Option<String>,
    /// Changes header fields of request and response; without `to`, of the response alone.
    pub header_rules: Option<RawHeaderRules>,
    /// Sends copies to another service.
    pub mirror: Option<RawMirror>,
    /// Whether letter case of the path does not matter. Default `false`.
    pub ignore_case: Option<bool>,
    /// Path sent on: `canonical`, or `original` for the bytes as they came. Default `canonical`.
    pub forward_path: Option<ForwardPath>,

    /// Whether callers must say who they are by a token (JWT) of one of `[[gateway.jwt]]`:
    /// `required`; `optional`, where one that is brought must be right; or `off`, where none is
    /// looked at. Default `optional` where there is an issuer.
    pub jwt: Option<Demand>,
    /// Issuers whose tokens are taken, by their `issuer`. Default all.
    pub jwt_issuers: Option<Vec<String>>,
    /// Switch that turns the route off, 1 to 128 of `a-z`, `0-9`, `-`. Default none.
    pub switch: Option<String>,
    /// Limits that must all grant. Default none.
    pub limits: Option<Vec<PolicyName>>,
    /// Circuits that must all admit, beside those of the upstream. Default none.
    pub circuits: Option<Vec<PolicyName>>,
    /// Fallback that answers when the service cannot, or where a limit or a switch says no. Default
    /// none.
    pub fallback: Option<PolicyName>,
    /// Who is shed first under overload: `low`, `normal`, `high`, `critical` (never). Default
    /// `normal`.
    pub priority: Option<Priority>,
    /// Deadline of a call that brings none, in seconds, 0.001 to 86,400. Default 15.
    pub timeout_seconds: Option<f64>,
    /// Longest pause within a body, in seconds, 0.001 to 86,400. Default 60.
    pub idle_seconds: Option<f64>,
    /// Longest deadline a trusted caller may ask for, in seconds, `timeout_seconds` to 86,400.
    /// Default 300, or `timeout_seconds` where that is more.
    pub deadline_max_seconds: Option<f64>,
    /// Whether calls of every method may be sent again. Default `false`: only those of methods
    /// that are idempotent by definition.
    pub idempotent: Option<bool>,
    /// Largest request body, in bytes, 0 to 1 TiB. Default: that of `[gateway.limits]`.
    pub body_bytes_max: Option<u64>,
}
