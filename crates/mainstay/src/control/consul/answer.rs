//! Answers as Consul gives them: JSON, plain text for errors, the index in a header.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay_coord::consul::ConsulError;
use mainstay_store::Error;
use serde::Serialize;

use super::query::Asked;
use crate::cluster::ConsulDoor;

/// An error: a status and one line.
#[derive(Debug)]
pub(in crate::control) struct Text(
    pub(in crate::control) StatusCode,
    pub(in crate::control) String,
);

impl Text {
    pub(super) fn bad(line: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, line.into())
    }

    pub(super) fn failed(line: impl Into<String>) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, line.into())
    }
}

impl IntoResponse for Text {
    fn into_response(self) -> Response {
        let Self(status, line) = self;
        (status, [(header::CONTENT_TYPE, TEXT)], line).into_response()
    }
}

impl From<ConsulError> for Text {
    fn from(error: ConsulError) -> Self {
        match &error {
            // The words that clients look for before they try another server.
            ConsulError::Store(Error::Unavailable { .. } | Error::Closed) | ConsulError::Behind => {
                Self::failed("No cluster leader")
            }
            ConsulError::Store(Error::Busy { .. }) => {
                Self(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            }
            ConsulError::Store(Error::BatchTooLarge { .. } | Error::ValueTooLarge { .. })
            | ConsulError::ValueTooLarge { .. } => {
                Self(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            ConsulError::NodeName(_) | ConsulError::ChecksTooMany => Self::bad(error.to_string()),
            ConsulError::Store(_)
            | ConsulError::SessionInvalid(_)
            | ConsulError::NodeUnknown(_)
            | ConsulError::Dependence(_)
            | ConsulError::Unreadable(_) => Self::failed(error.to_string()),
        }
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// `value` as a document.
pub(super) fn json(asked: &Asked, value: &impl Serialize) -> Response {
    with_status(asked, StatusCode::OK, value)
}

/// `value` as a document under `status`.
pub(super) fn with_status(asked: &Asked, status: StatusCode, value: &impl Serialize) -> Response {
    let text = if asked.has("pretty") {
        let mut text = Vec::new();
        let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, form);
        value.serialize(&mut writer).map(|()| text)
    } else {
        serde_json::to_vec(value)
    };
    match text {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => Text::failed(error.to_string()).into_response(),
    }
}

/// No document under `status`.
pub(super) fn empty(status: StatusCode) -> Response {
    (status, Body::empty()).into_response()
}

/// The headers of every read.
pub(super) fn indexed(door: &ConsulDoor, index: u64, mut response: Response) -> Response {
    let policy = if door.is_open { "allow" } else { "deny" };
    let headers = response.headers_mut();
    headers.insert("x-consul-index", index.max(1).into());
    for (name, value) in [
        ("x-consul-knownleader", "true"),
        ("x-consul-lastcontact", "0"),
        ("x-consul-effective-consistency", "leader"),
        ("x-consul-default-acl-policy", policy),
        ("x-consul-query-backend", "blocking-query"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
