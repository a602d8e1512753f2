//! A check as it is written, and as it is meant.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::steady::Patience;
use super::tls::{CheckTls, RawCheckTls};
use crate::registry::Invalid;

/// Checks of one service. Each is sent to each instance, so a few already cost much.
pub const CHECKS_MAX: usize = 16;

/// Shortest interval; smaller ones are raised to it.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A check as written: every field but name and kind optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ServiceCheck)]
pub struct RawCheck {
    /// Its name, unique within the service.
    pub name: String,
    /// `http`, `tcp`, `grpc` or `ttl`.
    pub kind: String,
    /// Where to send it instead of the instance's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// One of the instance's named ports to send it to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// HTTP: path and query. Default `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// HTTP: method. Default `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// HTTP: headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// HTTP: body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// gRPC: the service asked about. Default is the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// HTTP and gRPC: sent over TLS; `{}` says so and nothing more. Default: in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RawCheckTls>,
    /// ttl: how long a report is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
    /// From one start to the next. Default 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<f64>,
    /// Default 3 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Results in a row to become better. Default 2; 0 is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passing_after: Option<u32>,
    /// Results in a row to become worse. Default 3; 0 is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_after: Option<u32>,
}

/// A check, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What is done.
    pub kind: CheckKind,
    /// Where it is sent instead of to the instance's address.
    pub host: Option<String>,
    /// Which port of the instance.
    pub port: CheckPort,
    /// How it is protected; in the clear when absent.
    pub tls: Option<CheckTls>,
    /// From one start to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How many results in a row change the status.
    pub patience: Patience,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckKind {
    /// Sends a request: 2xx passes, 429 warns.
    Http(HttpCheck),
    /// Connects.
    Tcp,
    /// Asks `grpc.health.v1.Health`.
    Grpc {
        /// About which service; empty is the server.
        service: String,
    },
    /// Waits to be told.
    Ttl {
        /// How long what it was told is good.
        ttl: Duration,
    },
}

impl CheckKind {
    /// The word used in documents and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp => "tcp",
            Self::Grpc { .. } => "grpc",
            Self::Ttl { .. } => "ttl",
        }
    }

    /// Whether it is sent, not waited for.
    pub const fn is_active(&self) -> bool {
        !matches!(self, Self::Ttl { .. })
    }
}

/// The request of an HTTP check.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    /// Its method.
    pub method: http::Method,
    /// Its path and query.
    pub path: String,
    /// Its headers, besides `Host` and `User-Agent`.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: String,
}

/// Which port of an instance a check goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckPort {
    /// The instance's own.
    Own,
    /// One of its named ones.
    Named(String),
    /// This one.
    Number(u16),
}

impl TryFrom<&RawCheck> for Check {
    type Error = Invalid;

    fn try_from(raw: &RawCheck) -> Result<Self, Invalid> {
        if raw.name.is_empty() || raw.name.len() > 255 {
            return Err(Invalid::new("checks.name", "must be 1 to 255 bytes"));
        }
        let port = match (&raw.port_name, raw.port) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("checks.port", "is given twice: `port` and `port_name`"));
            }
            (Some(name), None) => CheckPort::Named(name.clone()),
            (None, Some(0)) => return Err(Invalid::new("checks.port", "must be 1 to 65535")),
            (None, Some(number)) => CheckPort::Number(number),
            (None, None) => CheckPort::Own,
        };
        let interval = seconds(raw.interval_seconds, 10.0, "checks.interval_seconds")?;
        let interval = interval.max(INTERVAL_MIN);
        let timeout = seconds(raw.timeout_seconds, 3.0, "checks.timeout_seconds")?;
        let times = |count: Option<u32>, default: u32| {
            NonZeroU32::new(count.unwrap_or(default)).unwrap_or(NonZeroU32::MIN)
        };
        let patience = Patience {
            passing_after: times(raw.passing_after, 2),
            critical_after: times(raw.critical_after, 3),
        };
        let (name, host) = (raw.name.clone(), None);
        let tls = raw.tls.as_ref().map(CheckTls::try_from).transpose()?;
        Ok(Self { name, kind: kind(raw)?, host, port, tls, interval, timeout, patience })
    }
}

fn kind(raw: &RawCheck) -> Result<CheckKind, Invalid> {
    let given = [
        ("http", "checks.path", raw.path.is_some()),
        ("http", "checks.method", raw.method.is_some()),
        ("http", "checks.headers", !raw.headers.is_empty()),
        ("http", "checks.body", raw.body.is_some()),
        ("grpc", "checks.service", raw.service.is_some()),
        ("ttl", "checks.ttl_seconds", raw.ttl_seconds.is_some()),
    ];
    if let Some((_, field, _)) = given.iter().find(|(of, _, is_set)| *is_set && *of != raw.kind) {
        return Err(Invalid::new(field, "does not belong to this kind of check"));
    }
    if raw.tls.is_some() && !matches!(&*raw.kind, "http" | "grpc") {
        return Err(Invalid::new("checks.tls", "does not belong to this kind of check"));
    }
    match &*raw.kind {
        "http" => http_check(raw).map(CheckKind::Http),
        "tcp" => Ok(CheckKind::Tcp),
        "grpc" => Ok(CheckKind::Grpc { service: raw.service.clone().unwrap_or_default() }),
        "ttl" => match raw.ttl_seconds {
            Some(ttl @ 1..=86_400) => {
                Ok(CheckKind::Ttl { ttl: Duration::from_secs(u64::from(ttl)) })
            }
            _ => Err(Invalid::new("checks.ttl_seconds", "must be 1 to 86400")),
        },
        "command" => Err(Invalid::new("checks.kind", "`command` runs programs and is off")),
        _ => Err(Invalid::new("checks.kind", "must be `http`, `tcp`, `grpc` or `ttl`")),
    }
}

fn http_check(raw: &RawCheck) -> Result<HttpCheck, Invalid> {
    let method = raw.method.as_deref().unwrap_or("GET").parse::<http::Method>();
    let method = method.map_err(|_wrong| Invalid::new("checks.method", "is no HTTP method"))?;
    let path = raw.path.as_deref().unwrap_or("/");
    let is_path = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
    if !is_path {
        return Err(Invalid::new("checks.path", "must be a path that begins with `/`"));
    }
    let mut headers = http::HeaderMap::new();
    for (name, value) in &raw.headers {
        let name = http::HeaderName::try_from(name);
        let value = http::HeaderValue::try_from(value);
        match (name, value) {
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            _ => return Err(Invalid::new("checks.headers", "holds what is no header")),
        }
    }
    let body = raw.body.clone().unwrap_or_default();
    Ok(HttpCheck { method, path: path.to_owned(), headers, body })
}

fn seconds(given: Option<f64>, default: f64, field: &'static str) -> Result<Duration, Invalid> {
    let span = Duration::try_from_secs_f64(given.unwrap_or(default)).ok();
    let span = span.filter(|span| !span.is_zero() && *span <= Duration::from_hours(24));
    span.ok_or_else(|| Invalid::new(field, "must be above 0 and at most 86400"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> RawCheck {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_check_that_says_little_gets_the_defaults() {
        let check = Check::try_from(&raw(r#"{"name": "up", "kind": "tcp"}"#)).unwrap();
        assert_eq!(check.interval, Duration::from_secs(10));
        assert_eq!(check.timeout, Duration::from_secs(3));
        assert_eq!(check.patience.passing_after.get(), 2);
        assert_eq!(check.patience.critical_after.get(), 3);
    }

    #[test]
    fn intervals_and_counts_that_are_too_small_are_raised() {
        let json = r#"{"name": "up", "kind": "http", "interval_seconds": 0.01,
            "passing_after": 0, "critical_after": 0}"#;
        let check = Check::try_from(&raw(json)).unwrap();
        assert_eq!(check.interval, INTERVAL_MIN);
        assert_eq!(check.patience.passing_after, NonZeroU32::MIN);
        assert_eq!(check.patience.critical_after, NonZeroU32::MIN);
    }

    #[test]
    fn a_wrong_field_is_named_as_it_was_written() {
        for (json, field) in [
            (r#"{"kind": "tcp"}"#, "checks.name"),
            (r#"{"name": "a", "kind": "udp"}"#, "checks.kind"),
            (r#"{"name": "a", "kind": "command"}"#, "checks.kind"),
            (r#"{"name": "a", "kind": "tcp", "path": "/"}"#, "checks.path"),
            (r#"{"name": "a", "kind": "http", "path": "up"}"#, "checks.path"),
            (r#"{"name": "a", "kind": "http", "method": "G T"}"#, "checks.method"),
            (r#"{"name": "a", "kind": "http", "headers": {"a b": ""}}"#, "checks.headers"),
            (r#"{"name": "a", "kind": "ttl"}"#, "checks.ttl_seconds"),
            (r#"{"name": "a", "kind": "tcp", "tls": {}}"#, "checks.tls"),
            (r#"{"name": "a", "kind": "http", "tls": {"ca_pem": ""}}"#, "checks.tls.ca_pem"),
            (
                r#"{"name": "a", "kind": "grpc", "tls": {"server_name": "a b"}}"#,
                "checks.tls.server_name",
            ),
            (
                r#"{"name": "a", "kind": "http", "tls": {"ca_pem": "", "verify": false}}"#,
                "checks.tls.verify",
            ),
            (r#"{"name": "a", "kind": "tcp", "timeout_seconds": 0}"#, "checks.timeout_seconds"),
            (r#"{"name": "a", "kind": "tcp", "port": 1, "port_name": "b"}"#, "checks.port"),
        ] {
            let wrong = Check::try_from(&raw(json)).unwrap_err();
            assert_eq!(wrong.field(), field, "{json}");
        }
    }
}
