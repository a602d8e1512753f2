//! Requests that reach a node which does not own their transaction: passed on to the one that does,
//! once.
//!
//! Nodes that are to pass requests on share `server.token_file`: what is passed on bears the
//! caller's own credential, so that nobody gets further than by asking the owner itself. It is sent
//! only where the owner listens: a control port on loopback is passed on to from its own machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_txn::Gid;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::super::AGREED_BYTES_MAX;
use super::super::answer::Refused;
use super::super::dtm;
use crate::cluster::Cluster;
use crate::cluster::opening::Opened;
use crate::deferred;
use crate::transaction::reachable;

/// Marks what was passed on, so that two nodes that are wrong about each other do not do it for
/// ever.
const FORWARDED: &str = "mainstay-forwarded";

/// Marks the answer of another node.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct PassedOn;

/// How long the owner may take: an answer may be waited for for a minute.
const PATIENCE: Duration = Duration::from_secs(65);

/// Largest answer: a page of 500 summaries, or a transaction of a thousand branches.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Below which path transactions are named.
const ONE: &str = "/transactions/";

/// Below which queues are, and in them receipts.
const DEFERRED: &str = "/deferred/";

/// The API that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Native,
    Dtm,
}

impl Door {
    /// Below which path its calls are.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Native => "/api/v1",
            Self::Dtm => dtm::PREFIX,
        }
    }

    const fn body_bytes_max(self) -> usize {
        match self {
            Self::Native => AGREED_BYTES_MAX,
            Self::Dtm => dtm::BODY_BYTES_MAX,
        }
    }

    /// `path` below the prefix, which a router may have taken off already.
    fn below(self, path: &str) -> &str {
        path.strip_prefix(self.prefix()).unwrap_or(path)
    }

    /// Whether a request for `path` may be about one transaction.
    fn is_about_one(self, path: &str) -> bool {
        match self {
            Self::Native => {
                let path = self.below(path);
                matches!(path, "/transactions" | "/messages")
                    || path.starts_with(ONE)
                    || path.starts_with(DEFERRED)
            }
            Self::Dtm => true,
        }
    }

    /// Whether this node answered that it does not own the transaction.
    fn is_not_owner(self, response: &Response) -> bool {
        let told = response.extensions();
        match self {
            Self::Native => told
                .get::<Refused>()
                .is_some_and(|refused| refused.code() == Code::TransactionOwnerUnknown.as_str()),
            Self::Dtm => told.get::<dtm::Elsewhere>().is_some(),
        }
    }

    /// Which transaction a request is about.
    fn gid(self, parts: &Parts, body: &[u8]) -> Option<Gid> {
        match self {
            Self::Native => gid_of(self.below(parts.uri.path()), body),
            Self::Dtm => dtm::gid_of(&parts.method, &parts.uri, body),
        }
    }

    /// What the owner answers whom it does not know.
    const fn stranger(self) -> StatusCode {
        match self {
            Self::Native => StatusCode::UNAUTHORIZED,
            Self::Dtm => StatusCode::FORBIDDEN,
        }
    }

    fn too_large(self) -> Response {
        match self {
            Self::Native => Refused::of_status(StatusCode::PAYLOAD_TOO_LARGE).into_response(),
            Self::Dtm => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        }
    }

    fn refused(self, detail: &str, effect: Effect, owner: &str) -> Response {
        let again = Duration::from_secs(1);
        match self {
            Self::Native => Refused::new(Code::TransactionOwnerUnknown, detail)
                .with_effect(effect)
                .with("owner", owner.into())
                .retry_after(again)
                .into_response(),
            Self::Dtm => {
                dtm::Said::Away { why: format!("{detail} ({owner})"), after: again }.into_response()
            }
        }
    }
}

/// Whether another node passed `request` on.
pub(in crate::control) fn is_passed_on(request: &Request) -> bool {
    request.headers().contains_key(FORWARDED)
}

/// What the node whose control port is at `address` answers to a request without a body; `None` when
/// it is not reached, or does not know this node's callers.
pub(in crate::control) async fn ask(address: &str, parts: Parts) -> Option<Response> {
    let address = reachable(address)?;
    let asked = pass_on(Door::Native, address, parts, Bytes::new());
    let answer = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
    (answer.status() != Door::Native.stranger()).then_some(answer)
}

/// Passes a request of the native API on if this node does not own its transaction and another
/// does.
pub(in crate::control) async fn passed_on(
    State(cluster): State<Arc<Cluster>>,
    request: Request,
    next: Next,
) -> Response {
    answered(Door::Native, &cluster, request, next).await
}

/// The same for clients of DTM.
pub(in crate::control) async fn dtm_passed_on(
    State(cluster): State<Arc<Cluster>>,
    request: Request,
    next: Next,
) -> Response {
    answered(Door::Dtm, &cluster, request, next).await
}

async fn answered(door: Door, cluster: &Cluster, request: Request, next: Next) -> Response {
    // A store of its own has one node.
    let is_alone = matches!(cluster.opened, Opened::Embedded(_));
    let is_ours = door.is_about_one(request.uri().path());
    if is_alone || !is_ours || request.headers().contains_key(FORWARDED) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, door.body_bytes_max()).await else { return door.too_large() };
    let again = parts.clone();
    let response = next.run(Request::from_parts(parts, Body::from(body.clone()))).await;
    let gid = if door.is_not_owner(&response) { door.gid(&again, &body) } else { None };
    let Some(gid) = gid else { return response };
    let Some(owner) = owner(cluster, &gid).await else { return response };
    let Some(address) = reachable(&owner) else {
        let detail = "the owner listens on the loopback of another machine; ask it there";
        return door.refused(detail, Effect::None, &owner);
    };
    match tokio::time::timeout(PATIENCE, pass_on(door, address, again, body)).await {
        Ok(Ok(answer)) if answer.status() == door.stranger() => {
            let detail = "the owner does not know this node's callers; let nodes share \
                          `server.token_file`, or ask the owner itself";
            door.refused(detail, Effect::None, &owner)
        }
        Ok(Ok(answer)) => answer,
        Ok(Err(Failed { sent: false, why })) => door.refused(&why, Effect::None, &owner),
        Ok(Err(Failed { sent: true, why })) => door.refused(&why, Effect::Unknown, &owner),
        Err(_elapsed) => door.refused("the owner does not answer", Effect::Unknown, &owner),
    }
}

/// Which transaction a request for `path`, below the prefix, is about.
fn gid_of(path: &str, body: &[u8]) -> Option<Gid> {
    #[derive(Deserialize)]
    struct Named {
        gid: String,
    }
    if let Some(rest) = path.strip_prefix(DEFERRED) {
        return deferred::gid(rest.split('/').nth(1)?);
    }
    if let Some(rest) = path.strip_prefix(ONE) {
        let segment = rest.split('/').next()?;
        let text = percent_decode_str(segment).decode_utf8().ok()?;
        return Gid::new(&text).ok();
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    Gid::new(&named.gid).ok()
}

/// Where the owner's control port is, if it is another node.
async fn owner(cluster: &Cluster, gid: &Gid) -> Option<String> {
    let coordinator = cluster.transactions.as_ref()?.coordinator()?;
    let owner = coordinator.owner(gid).await.ok()??;
    (owner.node != cluster.node.as_str()).then_some(owner.address)
}

/// The owner gave no answer.
struct Failed {
    sent: bool,
    why: String,
}

async fn pass_on(
    door: Door,
    address: SocketAddr,
    parts: Parts,
    body: Bytes,
) -> Result<Response, Failed> {
    let unsent = |error: &dyn std::fmt::Display| Failed {
        sent: false,
        why: format!("the owner is not reached: {error}"),
    };
    let lost = |error: &dyn std::fmt::Display| Failed {
        sent: true,
        why: format!("the owner gave no answer: {error}"),
    };
    let stream = TcpStream::connect(address).await.map_err(|error| unsent(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unsent(&error))?;
    let own = parts.uri.path_and_query().map_or("/", |own| own.as_str());
    let own = door.below(own);
    let mut request = hyper::Request::new(Full::new(body));
    *request.method_mut() = parts.method;
    *request.uri_mut() =
        format!("{}{own}", door.prefix()).parse().map_err(|error| unsent(&error))?;
    *request.headers_mut() = parts.headers;
    let headers = request.headers_mut();
    for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.insert(FORWARDED, HeaderValue::from_static("1"));
    let host = HeaderValue::from_str(&address.to_string()).map_err(|error| unsent(&error))?;
    headers.insert(header::HOST, host);
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| lost(&error))?;
        let (mut head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| lost(&error))?.to_bytes();
        for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        head.extensions.insert(PassedOn);
        Ok(Response::from_parts(head, Body::from(body)))
    };
    // Driven by whoever waits for the answer; it may end first, with the answer on its way.
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        _ended = &mut connection => {}
    }
    exchange.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_which_transaction_it_is_about() {
        let of = |path: &str, body: &str| {
            let door = Door::Native;
            let gid = gid_of(door.below(path), body.as_bytes());
            assert!(gid.is_none() || door.is_about_one(path), "{path}");
            gid.map(|gid| gid.to_string())
        };
        assert_eq!(of("/transactions/a%3Ab/submit", "").as_deref(), Some("a:b"));
        assert_eq!(of("/api/v1/transactions/g", "").as_deref(), Some("g"));
        assert_eq!(of("/transactions", r#"{"gid":"g","mode":"tcc"}"#).as_deref(), Some("g"));
        let receipt = "0123456789abcdef0123456789abcdef";
        for (prefix, queue) in [("", "orders"), ("/api/v1", "transactions")] {
            let named = of(&format!("{prefix}/deferred/{queue}/{receipt}/replay"), "");
            assert_eq!(named, Some(format!("deferred-{receipt}")));
        }
        for name in ["deferred", "transactions", "messages"] {
            let path = format!("/api/v1/transactions/{name}/submit");
            assert_eq!(of(&path, "").as_deref(), Some(name));
        }
        assert_eq!(of("/deferred/orders", ""), None);
        assert_eq!(of("/messages", r#"{"target":{}}"#), None);
        assert_eq!(of("/transactions", "no document"), None);
        let others = ["/config/default/transactions/drafts/a", "/rules/default/messages"];
        for other in others.into_iter().chain(["/transaction-resources/orders/check"]) {
            assert!(!Door::Native.is_about_one(other), "{other}");
        }
    }
}
