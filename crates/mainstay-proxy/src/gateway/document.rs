//! A problem as its caller reads it: a document, or for gRPC a head that ends the call.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use mainstay_core::Problem;

use crate::body::OutBody;

/// An RFC 9457 document.
pub(super) fn document(problem: &Problem, full: bool, trace: Option<&str>) -> Response<OutBody> {
    let code = problem.code.as_str();
    let mut members = serde_json::json!({
        "type": format!("/problems/{code}"),
        "code": code,
        "title": problem.code.title(),
        "status": problem.status,
        "detail": problem.detail,
        "effect": problem.effect.as_str(),
    });
    if let Some(after) = problem.retry_after {
        members["retry_after"] = after.as_secs_f64().into();
    }
    if let Some(trace) = trace {
        members["trace_id"] = trace.into();
    }
    if let Some(rejection) = &problem.rejection {
        members["rejection"] = if full {
            serde_json::to_value(rejection).unwrap_or_default()
        } else {
            serde_json::json!({ "rule": rejection.rule })
        };
    }
    let body = Bytes::from(format!("{members}\n"));
    let mut response = Response::new(OutBody::Empty);
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(after) = problem.retry_after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    *response.body_mut() = OutBody::Full(body);
    response
}

/// A gRPC answer that is all head: status 200 and the problem in `grpc-status`.
pub(super) fn grpc(problem: &Problem) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Empty);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(problem.code.grpc())));
    // Percent-encoded as gRPC's protocol document says; titles are plain ASCII without `%`.
    let message = format!("{}: {}", problem.code, problem.code.title());
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
    response
}
