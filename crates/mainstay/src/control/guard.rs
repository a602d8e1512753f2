//! Who may ask.
//!
//! Two questions come before every call but `live`, `ready` and what probes ask over gRPC (and before
//! those of the doors of Consul and DTM, which may be open to this machine: [`consul`], [`dtm`]). Is it meant for us? A page on the
//! web can have its own name resolve to loopback and then send requests here with the browser of
//! whoever reads it (DNS rebinding); such requests bear that name in `Host` or `:authority`, so only names that
//! cannot be anybody else's pass. Does the caller know the token? It stands in a file that only
//! the owner of the process can read.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mainstay_core::problem::Code;

use super::answer::{PROBLEM, Refused};
use super::author::Principal;
use super::{consul, dtm, grpc};
use crate::role::Shared;

/// Lets a request pass or refuses it, and completes the answer's header.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    // Nobody learns anything from these, and probes have neither token nor our name.
    let path = request.uri().path();
    let open = matches!(path, "/api/v1/live" | "/api/v1/ready") || grpc::is_health(path);
    let (is_consul, is_dtm) = (consul::is_its(path), dtm::is_its(path));
    let who = if is_consul {
        consul::principal(&request, &shared.token)
    } else if is_dtm {
        dtm::principal(&request, &shared.token)
    } else {
        principal(request.headers(), &shared.token)
    };
    request.extensions_mut().insert(who);
    let mut response = if is_consul {
        let door = shared.cluster.as_deref().and_then(|cluster| cluster.consul.as_ref());
        let is_open = door.is_some_and(|door| door.is_open);
        match is_foreign(&request).or_else(|| consul::refusal(&request, who, is_open)) {
            Some(refused) => refused.into_response(),
            None => next.run(request).await,
        }
    } else if is_dtm {
        let is_open = shared.cluster.as_deref().is_some_and(|cluster| cluster.dtm_is_open);
        let foreign = (!is_for_us(&request)).then(|| dtm::Said::Forbidden(NOT_FOR_US.to_owned()));
        match foreign.or_else(|| dtm::refusal(&request, who, is_open)) {
            Some(refused) => refused.into_response(),
            None => next.run(request).await,
        }
    } else {
        match refusal(&request, who) {
            Some(refused) if !open => refused.into_response(),
            _ => explained(next.run(request).await),
        }
    };
    response.extensions_mut().insert(who);
    complete(&mut response);
    response
}

/// The same where clients of Consul are answered alone: whoever reaches that address may be
/// anywhere, and may call it by any name.
pub(super) async fn clients_alone(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let who = consul::principal(&request, &shared.token);
    request.extensions_mut().insert(who);
    let door = shared.cluster.as_deref().and_then(|cluster| cluster.consul.as_ref());
    let is_open = door.is_some_and(|door| door.is_open_alone);
    let is_local = door.and_then(|door| door.config.listen).is_some_and(|at| at.ip().is_loopback());
    let foreign = if is_local { is_foreign(&request) } else { None };
    let mut response = match foreign.or_else(|| consul::refusal(&request, who, is_open)) {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    response.extensions_mut().insert(who);
    complete(&mut response);
    response
}

/// The same where clients of DTM are answered alone.
pub(super) async fn dtm_alone(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let who = dtm::principal(&request, &shared.token);
    request.extensions_mut().insert(who);
    let cluster = shared.cluster.as_deref();
    let listen =
        cluster.and_then(|cluster| cluster.transactions.as_ref()?.config().dtm.http_listen);
    let is_local = listen.is_some_and(|at| at.ip().is_loopback());
    let is_open = is_local && cluster.is_some_and(|cluster| cluster.dtm_is_open);
    let foreign = || dtm::Said::Forbidden(NOT_FOR_US.to_owned());
    let foreign = (is_local && !is_for_us(&request)).then(foreign);
    let mut response = match foreign.or_else(|| dtm::refusal(&request, who, is_open)) {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    response.extensions_mut().insert(who);
    complete(&mut response);
    response
}

fn complete(response: &mut Response) {
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// Who a request comes from.
fn principal(headers: &HeaderMap, token: &str) -> Principal {
    if bearer(headers).is_some_and(|given| same(given, token)) {
        Principal::Operator
    } else {
        Principal::Anonymous
    }
}

fn refusal(request: &Request, who: Principal) -> Option<Refused> {
    if !is_for_us(request) {
        return Some(Refused::new(Code::HostNotAllowed, NOT_FOR_US));
    }
    if who == Principal::Operator {
        return None;
    }
    let detail = "send the token of control.toml as `Authorization: Bearer TOKEN`";
    Some(Refused::new(Code::CredentialMissing, detail))
}

const NOT_FOR_US: &str = "the `Host` of the request must be `localhost` or a loopback address";

fn is_for_us(request: &Request) -> bool {
    let mut hosts =
        request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or(""));
    let named = match hosts.next() {
        Some(host) => is_ours(host) && hosts.next().is_none(),
        // HTTP/2 has it in `:authority`.
        None => request.version() == Version::HTTP_2 && request.uri().authority().is_some(),
    };
    let target = request.uri().authority().is_none_or(|authority| is_ours(authority.as_str()));
    named && target
}

/// The same for the Consul door, in its own words.
fn is_foreign(request: &Request) -> Option<consul::Text> {
    let line = || consul::Text(StatusCode::FORBIDDEN, NOT_FOR_US.to_owned());
    (!is_for_us(request)).then(line)
}

/// The router refuses in plain text; that becomes a problem document.
fn explained(response: Response) -> Response {
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|k| k == PROBLEM);
    if !status.is_client_error() || is_problem {
        return response;
    }
    let mut refused = Refused::of_status(status).into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        refused.headers_mut().insert(header::ALLOW, allow.clone());
    }
    refused
}

/// Whether `host` is a name of this machine that no resolver can give to another.
fn is_ours(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            if !is_port(port) {
                return false;
            }
            address
        }
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether two texts are equal, in a time that says nothing of where they differ.
pub(super) fn same(a: &str, b: &str) -> bool {
    let differ = |seen, (x, y): (u8, u8)| black_box(seen | (x ^ y));
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_ours() {
        let ours = ["localhost", "LocalHost:7400", "127.0.0.1", "127.9.9.9:80", "[::1]:7400"];
        for host in ours.into_iter().chain(["[::1]", "127.0.0.1:"]) {
            assert!(is_ours(host), "{host}");
        }
        let others = ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"];
        let odd =
            ["10.0.0.1", "localhost:80:80", "localhost:x", "[::1", "[::1]x", "::1", "0.0.0.0"];
        for host in others.into_iter().chain(odd).chain(["a@localhost", "localhost "]) {
            assert!(!is_ours(host), "{host}");
        }
    }

    #[test]
    fn what_names_another_anywhere_is_not_for_us() {
        let ask = |version, uri: &str, hosts: &[&str]| {
            let request = http::Request::builder().version(version).uri(uri);
            let named = hosts.iter().fold(request, |request, host| request.header("host", *host));
            is_for_us(&named.body(axum::body::Body::empty()).unwrap())
        };
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let (ours, others) = ("http://localhost:7400/x", "http://evil.example/x");
        for (version, uri, hosts) in [
            (one, "/x", &["localhost:7400"][..]),
            (one, ours, &["localhost:7400"]),
            (two, ours, &[]),
            (two, ours, &["127.0.0.1"]),
        ] {
            assert!(ask(version, uri, hosts), "{version:?} {uri} {hosts:?}");
        }
        for (version, uri, hosts) in [
            (one, "/x", &[][..]),
            (one, ours, &[]),
            (one, others, &["localhost"]),
            (two, others, &[]),
            (two, others, &["localhost"]),
            (two, ours, &["evil.example"]),
            (two, ours, &["localhost", "localhost"]),
            (two, "/x", &[]),
        ] {
            assert!(!ask(version, uri, hosts), "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn tokens_are_equal_as_wholes() {
        assert!(same("abc", "abc"));
        for other in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!same(other, "abc"), "{other}");
        }
    }
}
