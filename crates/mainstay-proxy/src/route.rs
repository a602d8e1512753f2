//! Which requests a route is for, and what happens to them.
//!
//! | question | module |
//! |---|---|
//! | what a route may know of a request | [`view`] |
//! | which hosts | [`host`] |
//! | which paths, and what is captured of them | [`path`], [`pattern`] |
//! | which header fields and query parameters | [`condition`] |
//! | which of all routes is the best | [`table`] |
//! | what a route looks like in configuration | [`raw`] |
//!
//! What a route does is next door: [`split`](crate::split), [`rewrite`](crate::rewrite),
//! [`redirect`](crate::redirect), [`respond`](crate::respond).

pub mod condition;
pub mod host;
pub mod mirror;
pub mod path;
mod paths;
pub mod pattern;
pub mod raw;
mod resolve;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;

use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use mainstay_core::name::{PolicyName, RouteName};
use mainstay_resilience::key::KeyPart;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::redirect::Redirect;
use crate::respond::Respond;
use crate::rewrite::Rewrite;
use crate::rewrite::headers::HeaderRules;
use crate::split::Split;

pub use condition::{Condition, Test};
pub use host::HostPattern;
pub use mainstay_resilience::system::Priority;
pub use mirror::Mirror;
pub use path::{CAPTURES_MAX, Captures, PathPattern};
pub use raw::RawRoute;
pub use table::{Match, Routes};
pub use view::View;

pub(crate) use resolve::BODY_BYTES_LIMIT;

/// One route, resolved. Made by [`Route::new`] from what was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Namespace of the services it names.
    pub namespace: Box<str>,
    /// Hosts it is for.
    pub host: HostPattern,
    /// Paths it is for.
    pub path: PathPattern,
    /// Methods it is for; empty for all.
    pub methods: Box<[Method]>,
    /// Conditions on header fields.
    pub headers: Box<[Condition<HeaderName>]>,
    /// Conditions on query parameters.
    pub query: Box<[Condition<Box<str>>]>,
    /// Client addresses it is for; empty for all.
    pub from: Box<[IpNet]>,
    /// What answers.
    pub action: Action,
    /// What is changed before sending on.
    pub rewrite: Rewrite,
    /// What keeps a caller on one side of a split, and of a switch that is on for some percent.
    pub split_key: Option<KeyPart>,
    /// What is changed in header fields.
    pub header_rules: HeaderRules,
    /// Who else gets a copy.
    pub mirror: Option<Mirror>,
    /// Whether callers must say who they are.
    pub jwt: Demand,
    /// Issuers whose tokens are taken; empty for all.
    pub jwt_issuers: Box<[Box<str>]>,
    /// Switch that turns the route off.
    pub switch: Option<Box<str>>,
    /// Limits that must all grant.
    pub limits: Box<[PolicyName]>,
    /// Circuits that must all admit.
    pub circuits: Box<[PolicyName]>,
    /// What answers when the service cannot.
    pub fallback: Option<PolicyName>,
    /// Who is shed first.
    pub priority: Priority,
    /// Deadline of a call that brings none.
    pub timeout: Duration,
    /// Longest pause within a body.
    pub idle: Duration,
    /// Longest deadline a trusted caller may ask for.
    pub deadline_max: Duration,
    /// Whether every method may be sent again.
    pub idempotent: bool,
    /// Largest request body in bytes, where it differs from the gateway's.
    pub body_bytes_max: Option<u64>,
    /// Which form of the path is sent on.
    pub forward_path: ForwardPath,
}

/// What answers a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A service, by weight.
    To(Split),
    /// A redirect.
    Redirect(Redirect),
    /// A fixed answer.
    Respond(Respond),
}

/// Whether callers must say who they are by a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// No token is looked at.
    Off,
    /// One that is brought must be right; without one the caller is anonymous.
    #[default]
    Optional,
    /// Nobody is let in without one.
    Required,
}

/// Which form of the path is sent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardPath {
    /// The canonical form; `;` parameters and doubled slashes stay in it.
    #[default]
    Canonical,
    /// The bytes as they came, for signed addresses.
    Original,
}

impl Route {
    /// What the path captured as `name`, given the judged `path` it was captured from.
    pub fn capture<'p>(&self, captures: &Captures, path: &'p str, name: &str) -> Option<&'p str> {
        captures.get(self.path.index(name)?, path)
    }

    /// Everything that the path captured, by name, given the judged `path` it was captured from.
    pub fn captured<'p>(&self, captures: &Captures, path: &'p str) -> Vec<(&str, &'p str)> {
        let names = self.path.names.iter();
        names.filter_map(|name| Some((&**name, self.capture(captures, path, name)?))).collect()
    }

    /// Whether what it answers itself passes through something; a service's answer does not count.
    pub fn has_own_stages(&self) -> bool {
        !matches!(self.action, Action::To(_))
            && (!self.limits.is_empty()
                || self.switch.is_some()
                || self.fallback.is_some()
                || self.jwt == Demand::Required)
    }

    /// Whether the request may take this route, its method aside; fills `captures` if so. The
    /// host is not looked at: the table has done that.
    pub(crate) fn accepts(&self, view: &View<'_>, captures: &mut Captures) -> bool {
        (self.from.is_empty() || self.from.iter().any(|net| net.contains(&view.client)))
            && condition::headers_hold(&self.headers, view)
            && condition::query_holds(&self.query, view)
            && self.path.matches(view.path, captures)
    }

    /// Whether the route is for `method`.
    pub(crate) fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Host before path before the number of other conditions.
    pub(crate) fn rank(&self) -> (u64, u64, usize) {
        let others = self.headers.len()
            + self.query.len()
            + usize::from(!self.methods.is_empty())
            + usize::from(!self.from.is_empty());
        (self.host.rank(), self.path.rank(), others)
    }

    /// Whether some request matches both routes and neither is of higher rank. The costly
    /// question, whether two regular expressions meet, comes last.
    pub(crate) fn competes(&self, other: &Self) -> bool {
        let method = |m: &Method| other.allows(m);
        let net = |a: &IpNet| other.from.iter().any(|b| a.contains(b) || b.contains(a));
        self.rank() == other.rank()
            && self.host == other.host
            && (self.methods.is_empty() || self.methods.iter().any(method))
            && (self.from.is_empty() || other.from.is_empty() || self.from.iter().any(net))
            && condition::meet(&self.headers, &other.headers)
            && condition::meet(&self.query, &other.query)
            && self.path.meets(&other.path)
    }
}
