//! `/v1/…`: the door for clients of Consul.
//!
//! Clients written for Consul find here what they know: its paths, its documents, its plain text
//! for errors. What the door does not do it says: 501, and a line that names the page which lists
//! what there is. See `docs/consul.md`.
//!
//! | calls | module |
//! |---|---|
//! | `kv/…`, `txn` | [`kv`], [`txn`] |
//! | `session/…` | [`session`] |
//! | `agent/…` of services and checks | [`service`], [`check`] |
//! | `catalog/…`, `health/…` | [`catalog`], [`health`] |
//! | `event/…` | [`event`] |
//! | who is here | [`agent`] |
//! | what services and checks become | [`registration`] |
//! | what they look like; what expressions may ask about | [`documents`]; [`fields`] |
//!
//! The door may be open to everybody on this machine, and then a page on the web could have a
//! browser send requests here: reading the answers is forbidden to it, but a `POST` is sent all
//! the same. A browser says `Origin` with it, and no client of Consul does; so whoever says it is
//! refused unless it bears a token.

mod agent;
mod answer;
mod body;
mod catalog;
mod check;
mod documents;
mod event;
mod fields;
mod health;
mod kv;
mod query;
mod registration;
mod scope;
mod service;
mod session;
mod txn;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::routing::{get, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_coord::consul::NODE_CHECK;
use percent_encoding::percent_decode_str;

use super::author::Principal;
use super::guard::{bearer, same};
use crate::cluster::{Cluster, ConsulDoor};
use crate::role::Shared;
pub(super) use answer::Text;

/// Largest body: 128 operations that fill a batch of the store, 1,400,000 bytes, in base64.
const BODY_BYTES_MAX: usize = 2 << 20;

/// The calls.
pub(super) fn calls(cluster: Option<Arc<Cluster>>) -> Router<Arc<Shared>> {
    let Some(cluster) = cluster.filter(|cluster| cluster.consul.is_some()) else {
        let line = "this process does not answer clients of Consul; see docs/consul.md";
        return Router::new()
            .fallback(move || async move { Text(StatusCode::NOT_FOUND, line.to_owned()) });
    };
    let door = registry()
        .merge(pairs_and_sessions())
        .route("/agent/self", get(agent::own))
        .route("/agent/members", get(agent::members))
        .route("/agent/host", get(agent::host))
        .route("/agent/version", get(agent::version))
        .route("/agent/leave", put(agent::leave).post(agent::leave))
        .route("/agent/monitor", get(agent::monitor))
        .route("/status/leader", get(agent::leader))
        .route("/status/peers", get(agent::peers))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(cluster);
    Router::new()
        .route("/agent/metrics", get(agent::metrics))
        .route("/agent/reload", put(agent::reload).post(agent::reload))
        .merge(door)
}

/// What the door does not do. Where it asks nobody for a token it answers calls about tokens as a
/// Consul without access control does, which clients look for.
async fn unknown(State(cluster): State<Arc<Cluster>>, asked: Uri) -> Text {
    // The router has taken `/v1` off.
    let path = asked.path();
    let is_about_tokens = path.starts_with("/acl/") || path.starts_with("/agent/token/");
    if is_about_tokens && cluster.consul.as_ref().is_some_and(|door| door.is_open) {
        return Text(StatusCode::UNAUTHORIZED, "ACL support disabled".to_owned());
    }
    let line = "this call of Consul is not part of Mainstay's door; see docs/consul.md";
    Text(StatusCode::NOT_IMPLEMENTED, line.to_owned())
}

/// Calls about pairs and sessions.
fn pairs_and_sessions() -> Router<Arc<Cluster>> {
    let pairs = || get(kv::get).put(kv::put).post(kv::put).delete(kv::delete);
    Router::new()
        .route("/kv", pairs())
        .route("/kv/", pairs())
        .route("/kv/{*key}", pairs())
        .route("/txn", put(txn::put).post(txn::put))
        .route("/session/create", put(session::create).post(session::create))
        .route("/session/destroy/{id}", put(session::destroy).post(session::destroy))
        .route("/session/renew/{id}", put(session::renew).post(session::renew))
        .route("/session/info/{id}", get(session::info))
        .route("/session/node/{node}", get(session::of_node))
        .route("/session/list", get(session::list))
}

/// Calls about services, nodes and checks. Ids may hold anything, slashes too.
fn registry() -> Router<Arc<Cluster>> {
    Router::new()
        .route("/agent/services", get(service::list))
        .route("/agent/service/register", put(service::register).post(service::register))
        .route(
            "/agent/service/deregister/{*id}",
            put(service::deregister).post(service::deregister),
        )
        .route(
            "/agent/service/maintenance/{*id}",
            put(service::maintenance).post(service::maintenance),
        )
        .route("/agent/service/{*id}", get(service::one))
        .route("/agent/health/service/id/{*id}", get(service::health_by_id))
        .route("/agent/health/service/name/{*name}", get(service::health_by_name))
        .route("/agent/maintenance", put(check::maintenance).post(check::maintenance))
        .route("/agent/checks", get(check::list))
        .route("/agent/check/register", put(check::register).post(check::register))
        .route("/agent/check/deregister/{*id}", put(check::deregister).post(check::deregister))
        .route("/agent/check/pass/{*id}", put(check::pass).post(check::pass))
        .route("/agent/check/warn/{*id}", put(check::warn).post(check::warn))
        .route("/agent/check/fail/{*id}", put(check::fail).post(check::fail))
        .route("/agent/check/update/{*id}", put(check::update).post(check::update))
        .route("/catalog/datacenters", get(agent::datacenters))
        .route("/catalog/register", put(catalog::register).post(catalog::register))
        .route("/catalog/deregister", put(catalog::deregister).post(catalog::deregister))
        .route("/catalog/nodes", get(catalog::nodes))
        .route("/catalog/services", get(catalog::services))
        .route("/catalog/service/{name}", get(catalog::service))
        .route("/catalog/connect/{name}", get(catalog::nobody))
        .route("/catalog/gateway-services/{name}", get(catalog::nobody))
        .route("/catalog/node/{name}", get(catalog::on_node))
        .route("/catalog/node-services/{name}", get(catalog::services_on_node))
        .route("/event/fire/{*name}", put(event::fire).post(event::fire))
        .route("/event/list", get(event::list))
        .route("/health/node/{name}", get(health::of_node))
        .route("/health/checks/{name}", get(health::checks))
        .route("/health/service/{name}", get(health::service))
        .route("/health/connect/{name}", get(catalog::nobody))
        .route("/health/ingress/{name}", get(catalog::nobody))
        .route("/health/state/{state}", get(health::in_state))
}

impl Cluster {
    /// The door; calls of it are not mounted without.
    fn consul(&self) -> Result<&ConsulDoor, Text> {
        let line = || Text(StatusCode::NOT_FOUND, "there is no such door".to_owned());
        self.consul.as_ref().ok_or_else(line)
    }
}

/// What is answered where nothing is.
pub(super) async fn nothing() -> Text {
    Text(StatusCode::NOT_FOUND, "only `/v1/…` is answered here; see docs/consul.md".to_owned())
}

/// Whether `path` is one of the door.
pub(super) fn is_its(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

/// The token that a request brings, in whichever of the three places.
fn given(request: &Request) -> Option<String> {
    let headers = request.headers();
    let given = headers.get("x-consul-token").and_then(|value| value.to_str().ok());
    let in_query = || {
        let mut pairs = request.uri().query()?.split('&');
        let value = pairs.find_map(|pair| pair.strip_prefix("token="))?;
        percent_decode_str(value).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    let is_there = |given: &&str| !given.is_empty();
    let given = given.filter(is_there).or_else(|| bearer(headers).filter(is_there));
    given.map(str::to_owned).or_else(in_query).filter(|given| !given.is_empty())
}

/// Who a request comes from.
pub(super) fn principal(request: &Request, token: &str) -> Principal {
    if given(request).is_some_and(|given| same(&given, token)) {
        Principal::Operator
    } else {
        Principal::Anonymous
    }
}

/// Why a request of `who` may not pass, if so.
pub(super) fn refusal(request: &Request, who: Principal, is_open: bool) -> Option<Text> {
    if who == Principal::Operator {
        return None;
    }
    let line = match given(request) {
        _ if is_open && request.headers().contains_key(header::ORIGIN) => {
            "Permission denied: requests of web pages need the token of control.toml"
        }
        // Clients bring along tokens of the Consul they spoke to before.
        _ if is_open => return None,
        Some(_) => "ACL not found",
        None => "Permission denied: anonymous token lacks permission",
    };
    Some(Text(StatusCode::FORBIDDEN, line.to_owned()))
}

/// A body as it came.
#[derive(Debug)]
struct Said(Bytes);

impl<S: Send + Sync> FromRequest<S> for Said {
    type Rejection = Text;

    async fn from_request(request: Request, state: &S) -> Result<Self, Text> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|rejection| {
            let line = format!("Request body too large, max size: {BODY_BYTES_MAX} bytes");
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Text(StatusCode::PAYLOAD_TOO_LARGE, line),
                status => Text(status, rejection.body_text()),
            }
        })
    }
}

impl Said {
    /// The bytes, if they are at most `max`.
    fn at_most(self, max: usize) -> Result<Bytes, Text> {
        let found = self.0.len();
        if found <= max {
            return Ok(self.0);
        }
        let line = format!("Request body({found} bytes) too large, max size: {max} bytes");
        Err(Text(StatusCode::PAYLOAD_TOO_LARGE, line))
    }
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn unbase64(text: &str) -> Option<Bytes> {
    STANDARD.decode(text).ok().map(Bytes::from)
}

/// A span of time as Go writes it: `10s`, `1m30s`, `1.5h`, `0`. `None` for what is none, and for
/// one that is negative or longer than 292 years.
fn span(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !matches!(c, '0'..='9' | '.'))?);
        let (unit, tail) =
            tail.split_at(tail.find(|c: char| matches!(c, '0'..='9' | '.')).unwrap_or(tail.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    let is_one = !text.is_empty() && u64::try_from(total.as_nanos()).is_ok();
    is_one.then_some(total)
}

/// How many of the documents that clients send `body` is taken for.
pub(super) fn takes(body: &[u8]) -> usize {
    let documents: [fn(&mut body::Fields) -> Result<(), Text>; 4] = [
        |said| service::checks(said, "id", "name").map(drop),
        |said| registration::check(said, "id", "title").map(drop),
        |said| catalog::node_record(said, String::new()).map(drop),
        |said| session::service_checks(said).map(drop),
    ];
    let taken = |read: &fn(&mut body::Fields) -> Result<(), Text>| {
        body::Fields::read(body).is_ok_and(|mut said| read(&mut said).is_ok())
    };
    let batch = serde_json::from_slice::<Vec<serde_json::Value>>(body)
        .is_ok_and(|batch| batch.into_iter().all(|op| txn::op(op).is_ok()));
    documents.iter().filter(|read| taken(read)).count() + usize::from(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        let cases = [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("100ms", Some(100)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("", None),
            ("10", None),
            ("-1s", None),
            ("s", None),
            ("1x", None),
            ("1s1", None),
            ("99999999999h", None),
        ];
        for (text, want) in cases {
            assert_eq!(span(text), want.map(Duration::from_millis), "{text:?}");
        }
    }
}
