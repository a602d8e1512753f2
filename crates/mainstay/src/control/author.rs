//! Who asks for a change, and why: what audit records say of it.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use mainstay_coord::audit::{Actor, Author};
use mainstay_core::problem::Code;

use super::answer::Refused;
use super::events::reason;
use super::{consul, dtm, grpc};

/// Who acts, as far as the control plane knows: it knows one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Principal {
    /// Whoever has the token of `control.toml`.
    Operator,
    /// Nobody who is known: a door that is open to this machine, or one that stayed shut.
    #[default]
    Anonymous,
}

impl Principal {
    /// `actor`, being this one.
    pub(super) fn acting(self, actor: Actor) -> Actor {
        let (principal, kind, roles) = match self {
            Self::Operator => ("operator", "user", vec!["admin".to_owned()]),
            Self::Anonymous => ("anonymous", "anonymous", Vec::new()),
        };
        Actor { principal: principal.to_owned(), kind: kind.to_owned(), roles, ..actor }
    }
}

/// Longest name of a request that is kept.
const CORRELATION_BYTES_MAX: usize = 128;

/// Who asks for a change. The reason is that of `Mainstay-Reason`, if there is one.
#[derive(Clone, Debug)]
pub(super) struct By(pub(super) Author);

impl By {
    /// The author, whose reason stands in the document, or else was sent as a field.
    ///
    /// # Errors
    ///
    /// `reason-required` when it has fewer than 3 or more than 500 characters.
    pub(super) fn because(self, document: Option<String>) -> Result<Author, Refused> {
        let Self(author) = self;
        match reason(document, &HeaderMap::new())? {
            Some(reason) => Ok(author.because(reason)),
            None => Ok(author),
        }
    }
}

/// The author, who must say why.
///
/// # Errors
///
/// `reason-required` without a reason.
pub(super) fn needed(author: Author) -> Result<Author, Refused> {
    if author.reason.is_some() {
        return Ok(author);
    }
    let detail = "this change needs a reason of 3 to 500 characters";
    Err(Refused::new(Code::ReasonRequired, detail))
}

impl By {
    /// The author, whose reason is `reason` unless the request gives one.
    pub(super) fn or_because(self, reason: &str) -> Author {
        let Self(author) = self;
        if author.reason.is_some() { author } else { author.because(reason.to_owned()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refused> {
        let reason = reason(None, &parts.headers)?;
        Ok(Self(Author { reason, ..author(&parts.headers, &parts.extensions) }))
    }
}

/// Who sent a request of these `headers`, which the guard let pass; without why.
pub(super) fn author(headers: &HeaderMap, extensions: &Extensions) -> Author {
    let address = extensions.get::<ConnectInfo<SocketAddr>>();
    // The guard says who it let pass.
    let principal = extensions.get::<Principal>().copied().unwrap_or_default();
    let actor = principal.acting(Actor {
        via: via(headers, extensions).to_owned(),
        address: address.map(|ConnectInfo(address)| address.ip().to_string()),
        ..Actor::default()
    });
    let mut author = Author::new(actor);
    author.trace_id = field(headers, "traceparent").and_then(trace_id);
    author.correlation =
        field(headers, "idempotency-key").or_else(|| field(headers, "x-request-id"));
    author
}

/// Through which door a request came.
fn via(headers: &HeaderMap, extensions: &Extensions) -> &'static str {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let path = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if consul::is_its(path) {
        "consul"
    } else if dtm::is_its(path) {
        "dtm"
    } else if grpc::is_its(path) {
        "grpc"
    } else if agent.is_some_and(|agent| agent.starts_with("mainstay/")) {
        "cli"
    } else {
        "api"
    }
}

fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    (1..=CORRELATION_BYTES_MAX).contains(&text.len()).then(|| text.to_owned())
}

/// The trace of a `traceparent` (W3C Trace Context, 3.2).
fn trace_id(parent: String) -> Option<String> {
    let id = parent.split('-').nth(1)?;
    let is_one = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| id.to_owned())
}
