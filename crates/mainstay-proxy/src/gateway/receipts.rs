//! Answers those who ask what became of a deferred request.
//!
//! The path belongs to the gateway where requests can be deferred; elsewhere it is matched like any
//! other. A receipt is known to whom it was given alone: it shows how far the request is, and
//! nothing of what it says.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use mainstay_call::deferred::{Answering, NoReceipt, RECEIPTS, Receipt};
use mainstay_core::Problem;
use mainstay_core::problem::Code;

use super::answer::Asked;
use crate::body::OutBody;

/// A receipt that is asked for.
pub(super) enum Asking {
    /// It is being looked for.
    Look(Answering<Result<Receipt, NoReceipt>>),
    /// With a method that none has.
    NotSo,
}

/// The receipt that a request asks for, if it does.
pub(super) fn asking(asked: Asked<'_>) -> Option<Asking> {
    let port = asked.parts.deferred.as_ref()?;
    let id = asked.arrival.uri.path().strip_prefix(RECEIPTS)?;
    Some(match asked.arrival.method {
        Method::GET | Method::HEAD => Asking::Look(port.look(id)),
        _ => Asking::NotSo,
    })
}

/// The answer to it.
pub(super) async fn answer(asked: Asked<'_>, asking: Asking) -> Response<OutBody> {
    match asking {
        Asking::NotSo => asked.not_allowed(HeaderValue::from_static("GET, HEAD")),
        Asking::Look(look) => match look.await {
            Ok(receipt) => asked.own(None, shown(&receipt)),
            Err(error) => {
                let code = match error {
                    NoReceipt::Unknown => Code::NotFound,
                    NoReceipt::Away(_) => Code::TransactionLogUnavailable,
                };
                asked.problem(None, None, &Problem::new(code, error.to_string()))
            }
        },
    }
}

fn shown(receipt: &Receipt) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Full(Bytes::from(receipt.document())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
