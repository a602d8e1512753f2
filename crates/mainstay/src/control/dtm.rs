//! `/api/dtmsvr/…`: the door for clients of DTM.
//!
//! Clients written for DTM coordinate their transactions here once their server's address is that
//! of the control port. What the door does not do it says: 501, and a line that names the page
//! which lists what there is. See `docs/dtm.md`.
//!
//! | what | module |
//! |---|---|
//! | documents in: `TransBase` and branches; what is begun by them | [`words`]; [`begin`] |
//! | prepare, submit, abort, branches; stop, hurry | [`verbs`] |
//! | query, lists, names | [`read`] |
//! | documents out; words that decide | [`documents`]; [`answer`] |
//!
//! Nothing is kept here. A client that dies between two requests finds what the log says; what
//! DTM knows and the coordinator does not is kept with the transaction as it came.
//!
//! In `mainstay dev` everybody on this machine may ask. A page on the web could then have a
//! browser send requests here. A browser says so, and no client of DTM does: in `Origin`, but for
//! the pictures and scripts of a page, whose `GET` has `Sec-Fetch-Site` alone. Whoever says either
//! is refused unless it bears the token.

mod answer;
mod begin;
mod documents;
mod read;
mod verbs;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_txn::{Coordinator, Gid, Mode};
use serde_json::json;

use super::author::Principal;
use super::guard::{bearer, same};
use super::transactions::forward::dtm_passed_on;
use crate::cluster::Cluster;
use crate::role::Shared;
use crate::transaction::Transactions;
use crate::transaction::settings::DtmConfig;
pub(super) use answer::{Elsewhere, Said};

/// Largest body: half a mebibyte of payloads in JSON, whose quotes double at worst, and a thousand
/// steps with two URLs.
pub(super) const BODY_BYTES_MAX: usize = 2 << 20;

/// Below which path transactions are.
pub(super) const PREFIX: &str = "/api/dtmsvr";

/// The calls, by their whole paths.
pub(super) fn calls(cluster: Option<Arc<Cluster>>) -> Router<Arc<Shared>> {
    let ping = || async { Json(json!({ "msg": "pong" })) };
    let own = Router::new()
        .route("/api/ping", any(ping))
        .route("/api/metrics", get(super::metrics))
        .route("/api/json-rpc", any(missing));
    let is_there = |cluster: &Arc<Cluster>| {
        cluster.transactions.as_ref().is_some_and(|own| own.config().dtm.enabled)
    };
    let Some(cluster) = cluster.filter(is_there) else {
        let line = "this process does not answer clients of DTM; see docs/dtm.md";
        let nobody = move || async move {
            (StatusCode::NOT_FOUND, Json(json!({ "message": line }))).into_response()
        };
        return own.nest(PREFIX, Router::new().fallback(nobody));
    };
    let door = Router::new()
        .route("/version", get(read::version))
        .route("/newGid", get(read::new_gid))
        .route("/prepare", post(verbs::prepare))
        .route("/submit", post(verbs::submit))
        .route("/abort", post(verbs::abort))
        .route("/registerBranch", post(verbs::register))
        .route("/registerTccBranch", post(verbs::register_tcc))
        .route("/registerXaBranch", post(verbs::register_xa))
        .route("/forceStop", post(verbs::stop))
        .route("/resetNextCronTime", post(verbs::hurry))
        .route("/resetCronTime", get(read::hurry_all))
        .route("/query", get(read::query))
        .route("/all", get(read::all))
        .fallback(missing)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&cluster), dtm_passed_on))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(cluster);
    own.nest(PREFIX, door)
}

/// Workflows, topics and other protocols: nobody may take the answer for a decision.
async fn missing() -> Response {
    let line = "this call of DTM is not part of Mainstay's door; see docs/dtm.md";
    (StatusCode::NOT_IMPLEMENTED, Json(json!({ "message": line }))).into_response()
}

/// What is answered where nothing is.
pub(super) async fn nothing() -> Response {
    let line = "only `/api/dtmsvr/…` is answered here; see docs/dtm.md";
    (StatusCode::NOT_FOUND, Json(json!({ "message": line }))).into_response()
}

/// What coordinates transactions here.
fn of(cluster: &Cluster) -> Result<(&Transactions, Coordinator), Said> {
    let Some(transactions) = &cluster.transactions else {
        return Err(Said::wrong("this node coordinates no transactions (`transaction.enabled`)"));
    };
    match transactions.coordinator() {
        Some(coordinator) => Ok((transactions, coordinator)),
        None => {
            let why = "the coordinator has not started yet".to_owned();
            Err(Said::Away { why, after: Duration::from_secs(1) })
        }
    }
}

/// Which transaction a request is about: a `POST` says so in its body, a `GET` in its query.
pub(super) fn gid_of(method: &Method, uri: &Uri, body: &[u8]) -> Option<Gid> {
    if *method == Method::POST {
        words::Fields::read(body).ok()?.gid().ok()
    } else {
        read::named(uri)
    }
}

/// Whether `path` is one of the door.
pub(super) fn is_its(path: &str) -> bool {
    path.starts_with(PREFIX) || matches!(path, "/api/ping" | "/api/metrics" | "/api/json-rpc")
}

/// Who a request comes from: whoever bears the token, or has it as the password of a URL's
/// `user:password@`, which clients send as `Basic`.
pub(super) fn principal(request: &Request, token: &str) -> Principal {
    let headers = request.headers();
    let basic = || {
        let field = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, pair) = field.split_once(' ')?;
        let pair =
            STANDARD.decode(pair.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let (_, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        Some(same(password, token))
    };
    if bearer(headers).is_some_and(|given| same(given, token)) || basic() == Some(true) {
        Principal::Operator
    } else {
        Principal::Anonymous
    }
}

/// Why a request of `who` may not pass, if so.
pub(super) fn refusal(request: &Request, who: Principal, is_open: bool) -> Option<Said> {
    if request.uri().path() == "/api/ping" {
        return None; // Nobody learns anything from it, and probes have no token.
    }
    let is_page = is_of_page(request.headers());
    let line = match who {
        Principal::Operator => return None,
        Principal::Anonymous if is_open && !is_page => return None,
        Principal::Anonymous if is_open => "requests of web pages need the token of control.toml",
        Principal::Anonymous => {
            "send the token of control.toml as Bearer, or as the password of the server's URL"
        }
    };
    Some(Said::Forbidden(line.to_owned()))
}

/// Whether a page had a browser send a request; a person who types its address has not.
fn is_of_page(headers: &HeaderMap) -> bool {
    // Fetch Metadata; browsers send it to every address of this machine.
    let site = headers.get("sec-fetch-site");
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != "none")
}

/// Whether `body` is what a client begins a transaction or joins one with, beside `headers`.
pub(super) fn takes(body: &[u8], headers: &HeaderMap, config: &DtmConfig) -> bool {
    let begins = words::TransBase::read(body, headers, config).is_ok_and(|base| {
        [false, true].map(|submit| begin::begin(&base, submit, config).is_ok()).contains(&true)
    });
    let joins = words::Fields::read(body)
        .is_ok_and(|fields| Mode::ALL.iter().any(|mode| begin::joining(&fields, *mode).is_ok()));
    begins || joins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_names_its_transaction_in_the_body_and_a_get_in_the_query() {
        let uri: Uri = "/api/dtmsvr/any?gid=of-query".parse().unwrap();
        let body = br#"{"gid":"of-body"}"#;
        let of =
            |method, uri: &Uri, body: &[u8]| gid_of(&method, uri, body).map(|gid| gid.to_string());
        assert_eq!(of(Method::POST, &uri, body).as_deref(), Some("of-body"));
        assert_eq!(of(Method::GET, &uri, body).as_deref(), Some("of-query"));
        assert_eq!(of(Method::POST, &uri, b""), None);
        assert_eq!(of(Method::GET, &"/api/dtmsvr/all".parse().unwrap(), body), None);
    }
}
