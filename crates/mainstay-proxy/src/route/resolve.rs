//! From a route as written to one that needs no further check.

use std::time::Duration;

use http::Method;
use mainstay_core::name::RouteName;
use mainstay_resilience::Invalid;
use mainstay_resilience::invalid::{span, within};
use mainstay_resilience::key::KeyPart;

use super::{
    Action, Demand, ForwardPath, HostPattern, Mirror, PathPattern, RawRoute, Route, condition,
};
use crate::config::{namespace, switch};
use crate::redirect::Redirect;
use crate::respond::Respond;
use crate::rewrite::Rewrite;
use crate::rewrite::headers::HeaderRules;
use crate::split::Split;

impl Route {
    /// Resolves the table `[route.NAME]`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for the first key that is wrong; its path is relative to the table.
    pub fn new(name: RouteName, raw: RawRoute) -> Result<Self, Invalid> {
        check_action(&raw)?;
        check_mirror(&raw)?;
        let path = path(&raw)?;
        let (timeout, deadline_max) = patience(&raw)?;
        let rewrite = Rewrite::new(raw.rewrite.unwrap_or_default(), &path)
            .map_err(|error| error.within("rewrite"))?;
        let forward_path = raw.forward_path.unwrap_or_default();
        if forward_path == ForwardPath::Original && rewrite.path.is_some() {
            let problem = "`original` must not stand beside a rewrite of the path";
            return Err(Invalid::contradiction("forward_path", problem));
        }
        let split_key = raw.split_key.map(|text| split_key(&text, &path)).transpose()?;
        let header_rules = HeaderRules::new(raw.header_rules.unwrap_or_default(), &path)
            .map_err(|error| error.within("header_rules"))?;
        let mirror = raw.mirror.map(Mirror::try_from).transpose();
        let body = |bytes| within("body_bytes_max", bytes, 0, BODY_BYTES_LIMIT);
        let action = match (raw.to, raw.redirect, raw.respond) {
            (Some(to), None, None) => Action::To(Split::new(&name, to)?),
            (None, Some(redirect), None) => Action::Redirect(
                Redirect::new(redirect, &path).map_err(|error| error.within("redirect"))?,
            ),
            (None, None, Some(respond)) => Action::Respond(
                Respond::try_from(respond).map_err(|error| error.within("respond"))?,
            ),
            _ => return Err(Invalid::contradiction("to", ONE_ACTION)),
        };
        Ok(Self {
            namespace: namespace(raw.namespace)?,
            host: HostPattern::parse(raw.host.as_deref().unwrap_or("*"))?,
            methods: methods("methods", raw.methods.unwrap_or_default())?,
            headers: condition::headers(raw.headers.unwrap_or_default())?.into(),
            query: condition::query(raw.query.unwrap_or_default())?.into(),
            from: raw.from.unwrap_or_default().into(),
            action,
            rewrite,
            split_key,
            header_rules,
            mirror: mirror.map_err(|error| error.within("mirror"))?,
            jwt: raw.jwt.unwrap_or_default(),
            jwt_issuers: raw.jwt_issuers.unwrap_or_default().into_iter().map(Into::into).collect(),
            switch: raw.switch.map(|name| switch("switch", name)).transpose()?,
            limits: raw.limits.unwrap_or_default().into(),
            circuits: raw.circuits.unwrap_or_default().into(),
            fallback: raw.fallback,
            priority: raw.priority.unwrap_or_default(),
            timeout,
            idle: span("idle_seconds", raw.idle_seconds.unwrap_or(60.0), SPAN_MIN, SPAN_MAX)?,
            deadline_max,
            idempotent: raw.idempotent.unwrap_or(false),
            body_bytes_max: raw.body_bytes_max.map(body).transpose()?,
            forward_path,
            path,
            name,
        })
    }
}

const ONE_ACTION: &str = "must have exactly one of `to`, `redirect` and `respond`";

/// Shortest and longest span a route may name, in seconds: a millisecond and a day.
const SPAN_MIN: f64 = 0.001;
const SPAN_MAX: f64 = 86_400.0;

/// Largest body that can be asked for, in bytes: a tebibyte, beyond which a figure is a slip.
pub(crate) const BODY_BYTES_LIMIT: u64 = 1 << 40;

/// Refuses what only makes sense when a service answers.
fn check_action(raw: &RawRoute) -> Result<(), Invalid> {
    if raw.to.is_some() {
        return Ok(());
    }
    let wants_service = [
        ("rewrite", raw.rewrite.is_some()),
        ("split_key", raw.split_key.is_some()),
        ("mirror", raw.mirror.is_some()),
        ("circuits", raw.circuits.is_some()),
        ("forward_path", raw.forward_path.is_some()),
        ("header_rules.request", raw.header_rules.as_ref().is_some_and(|it| it.request.is_some())),
    ];
    match wants_service.iter().find(|(_, written)| *written) {
        Some((key, _)) => Err(Invalid::contradiction(*key, "needs `to`")),
        None => Ok(()),
    }
}

/// Copies are made before it is known who is calling.
fn check_mirror(raw: &RawRoute) -> Result<(), Invalid> {
    if raw.mirror.is_some() && raw.jwt == Some(Demand::Required) {
        let problem = "`required` must not stand beside `mirror`: copies are made before the \
                       caller is known";
        return Err(Invalid::contradiction("jwt", problem));
    }
    Ok(())
}

fn path(raw: &RawRoute) -> Result<PathPattern, Invalid> {
    let fold = raw.ignore_case.unwrap_or(false);
    match (raw.path.as_deref(), raw.prefix.as_deref(), raw.regex.as_deref()) {
        (Some(path), None, None) => PathPattern::path(path, fold),
        (None, prefix, None) => PathPattern::prefix(prefix.unwrap_or("/"), fold),
        (None, None, Some(regex)) => PathPattern::regex(regex, fold),
        _ => Err(Invalid::contradiction("path", "must be one of `path`, `prefix` and `regex`")),
    }
}

fn patience(raw: &RawRoute) -> Result<(Duration, Duration), Invalid> {
    let seconds = raw.timeout_seconds.unwrap_or(15.0);
    let timeout = span("timeout_seconds", seconds, SPAN_MIN, SPAN_MAX)?;
    let max = raw.deadline_max_seconds.unwrap_or_else(|| seconds.max(300.0));
    Ok((timeout, span("deadline_max_seconds", max, seconds, SPAN_MAX)?))
}

fn split_key(text: &str, path: &PathPattern) -> Result<KeyPart, Invalid> {
    let part: KeyPart =
        text.parse().map_err(|error| Invalid { path: "split_key".to_owned(), ..error })?;
    match &part {
        KeyPart::Service => {
            Err(Invalid::contradiction("split_key", "the service is what the key decides"))
        }
        KeyPart::Path(name) if path.index(name).is_none() => {
            let problem = format!("the route's path does not capture `{name}`");
            Err(Invalid::contradiction("split_key", problem))
        }
        _ => Ok(part),
    }
}

/// Reads a list of methods; `path` says where it stands.
pub(super) fn methods(path: &str, written: Vec<String>) -> Result<Box<[Method]>, Invalid> {
    let parse = |(at, text): (usize, String)| {
        let parsed = Method::from_bytes(text.as_bytes()).ok();
        // Methods are case-sensitive: `get` is another method, and nobody means it.
        parsed.filter(|_| !text.bytes().any(|b| b.is_ascii_lowercase())).ok_or_else(|| {
            let problem = format!("must be a method in capitals, found `{text}`");
            Invalid::range(format!("{path}[{at}]"), problem)
        })
    };
    written.into_iter().enumerate().map(parse).collect()
}
