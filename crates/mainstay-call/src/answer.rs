//! What an answer says of how the call went.

use std::time::Duration;

use http::HeaderMap;
use mainstay_resilience::classify::Answer;
use mainstay_resilience::retry::parse_retry_after;

use crate::stage::timeout::is_grpc;

/// What the head of an answer tells.
pub(crate) enum Head {
    /// The result.
    Known(Answer),
    /// A gRPC answer whose status comes after its body.
    InTrailers,
}

/// Reads the result from the head of `response`, if it is there.
pub(crate) fn head<B>(response: &http::Response<B>) -> Head {
    let status = response.status();
    if status == http::StatusCode::OK && is_grpc(response.headers()) {
        return match grpc_status(response.headers()) {
            Some(code) => Head::Known(Answer::Grpc(code)),
            None => Head::InTrailers,
        };
    }
    Head::Known(Answer::Http(status.as_u16()))
}

/// Reads the result from the trailers of a gRPC answer. One that ends without a status is what
/// gRPC calls `unknown`.
pub(crate) fn trailers(trailers: Option<&HeaderMap>) -> Answer {
    Answer::Grpc(trailers.and_then(grpc_status).unwrap_or(2))
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The hint in `Retry-After`, in either of its forms (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?;
    parse_retry_after(value.as_bytes(), wall_clock())
}

#[expect(clippy::disallowed_methods, reason = "a date can only be compared with the wall clock")]
fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
