//! What a change may be asked with: to be tried only (`dry_run`), and only if nothing has moved
//! since (`If-Match`).
//!
//! Whoever adds one of them relies on it, so a call that does not know it must not go on without
//! it: it would change what was to be looked at, or what somebody else has changed meanwhile.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Refused;

/// A change, and whether it knows `dry_run` and `If-Match`.
struct Knows(Method, &'static str, bool, bool);

/// Every change that knows one of them.
const KNOWING: [Knows; 25] = [
    Knows(Method::PUT, "/registry/{namespace}/services/{service}", true, true),
    Knows(Method::DELETE, "/registry/{namespace}/services/{service}", true, true),
    Knows(Method::PUT, "/registry/{namespace}/services/{service}/instances/{id}", true, true),
    Knows(Method::DELETE, "/registry/{namespace}/services/{service}/instances/{id}", true, true),
    Knows(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/drain",
        true,
        true,
    ),
    Knows(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/undrain",
        true,
        true,
    ),
    Knows(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/maintenance",
        true,
        true,
    ),
    Knows(
        Method::POST,
        "/registry/{namespace}/services/{service}/instances/{id}/weight",
        true,
        true,
    ),
    Knows(Method::PUT, "/config/{namespace}/{group}/drafts/{item}", true, true),
    Knows(Method::DELETE, "/config/{namespace}/{group}/drafts/{item}", true, true),
    Knows(Method::POST, "/config/{namespace}/{group}/releases", true, true),
    Knows(Method::POST, "/config/{namespace}/{group}/rollback", true, true),
    Knows(Method::PUT, "/config/{namespace}/{group}/canary", true, true),
    Knows(Method::POST, "/config/{namespace}/{group}/canary/promote", true, true),
    Knows(Method::POST, "/config/{namespace}/{group}/canary/abort", true, true),
    Knows(Method::PUT, "/switches/{namespace}/{name}", true, true),
    Knows(Method::DELETE, "/switches/{namespace}/{name}", true, true),
    Knows(Method::POST, "/switches/{namespace}/{name}/rollback", true, true),
    Knows(Method::PUT, "/switches/{namespace}/{name}/value", true, true),
    Knows(Method::PUT, "/plans/{namespace}/{name}", true, true),
    Knows(Method::DELETE, "/plans/{namespace}/{name}", true, true),
    Knows(Method::POST, "/plans/{namespace}/{name}/rollback", true, true),
    Knows(Method::POST, "/plans/{namespace}/{name}/activate", true, true),
    Knows(Method::POST, "/plans/{namespace}/{name}/deactivate", true, true),
    // It changes nothing anyway.
    Knows(Method::POST, "/plans/{namespace}/{name}/rehearse", false, true),
];

/// Lets a request pass whose conditions are known where it goes.
pub(super) async fn known(request: Request, next: Next) -> Response {
    match unknown(&request) {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    }
}

fn unknown(request: &Request) -> Option<Refused> {
    if request.method() == Method::GET {
        return None;
    }
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let is_it = |Knows(method, known, ..): &&Knows| method == request.method() && *known == path;
    let (dry, compared) =
        KNOWING.iter().find(is_it).map_or((false, false), |Knows(_, _, dry, at)| (*dry, *at));
    let pairs = request.uri().query().unwrap_or_default().split('&');
    let mut names = pairs.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    if !dry && names.any(|name| name == "dry_run") {
        return Some(Refused::invalid("this change cannot be tried: it takes no `dry_run`"));
    }
    if !compared && request.headers().contains_key(header::IF_MATCH) {
        let detail = "this change compares nothing: it takes no `If-Match`";
        return Some(Refused::invalid(detail));
    }
    None
}

#[cfg(test)]
mod tests;
