//! A fixed answer, without asking any service.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::rewrite::headers::field;

/// Largest body of a fixed answer, in bytes: it is kept in memory for as long as the route is.
pub const RESPOND_BODY_BYTES_MAX: usize = 65_536;

/// The `respond` of a route as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRespond {
    /// Status, 200 to 599. Default 200, or 204 without a body.
    pub status: Option<u16>,
    /// Body, at most 64 KiB. Default none.
    pub body: Option<String>,
    /// Media type of the body. Default `text/plain; charset=utf-8`.
    pub content_type: Option<String>,
    /// Further header fields. Default none.
    pub headers: Option<BTreeMap<String, String>>,
}

/// A fixed answer, resolved. Copying it copies no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// Status.
    pub status: StatusCode,
    /// Header fields, `Content-Type` among them when there is a body.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl TryFrom<RawRespond> for Respond {
    type Error = Invalid;

    fn try_from(raw: RawRespond) -> Result<Self, Invalid> {
        let body = Bytes::from(raw.body.unwrap_or_default());
        if RESPOND_BODY_BYTES_MAX < body.len() {
            let problem = format!("must be at most {RESPOND_BODY_BYTES_MAX} bytes");
            return Err(Invalid::range("body", problem));
        }
        let status = raw.status.unwrap_or(if body.is_empty() { 204 } else { 200 });
        let legal = StatusCode::from_u16(status).ok().filter(|_| (200..600).contains(&status));
        let Some(status) = legal else {
            return Err(Invalid::range("status", format!("must be 200 to 599, found {status}")));
        };
        let bodiless =
            [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
        if bodiless.contains(&status) && !body.is_empty() {
            let problem = format!("an answer of status {} has no body", status.as_u16());
            return Err(Invalid::contradiction("body", problem));
        }
        let value = |place: &str, text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_illegal| Invalid::range(place, "cannot stand in a header field"))
        };
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            let kind = raw.content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
            headers.insert(CONTENT_TYPE, value("content_type", kind)?);
        } else if raw.content_type.is_some() {
            return Err(Invalid::contradiction("content_type", "there is no body"));
        }
        for (name, text) in raw.headers.unwrap_or_default() {
            let place = format!("headers.{name}");
            let name = field(&place, &name)?;
            if headers.insert(name, value(&place, &text)?).is_some() {
                return Err(Invalid::contradiction(place, "stands here twice"));
            }
        }
        Ok(Self { status, headers, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows an answer as status, fields and body.
    #[track_caller]
    fn check(text: &str, want: Result<&str, &str>) {
        let raw: RawRespond = toml::from_str(text).expect("an answer");
        let got = Respond::try_from(raw).map(|Respond { status, headers, body }| {
            let fields: Vec<_> = headers.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
            format!("{} {} {body:?}", status.as_u16(), fields.join(","))
        });
        assert_eq!(got.as_deref().map_err(|error| &*error.path), want, "{text}");
    }

    #[test]
    fn an_answer_has_what_it_needs() {
        check("", Ok("204  b\"\""));
        check("status = 404", Ok("404  b\"\""));
        check("body = 'ok'", Ok("200 content-type=\"text/plain; charset=utf-8\" b\"ok\""));
        check(
            "body = '{}'\ncontent_type = 'application/json'",
            Ok("200 content-type=\"application/json\" b\"{}\""),
        );
        check("headers = { allow = 'GET' }", Ok("204 allow=\"GET\" b\"\""));
    }

    #[test]
    fn an_answer_that_breaks_a_message_is_refused() {
        check("status = 100", Err("status"));
        check("status = 600", Err("status"));
        check("status = 304\nbody = 'x'", Err("body"));
        check("content_type = 'text/html'", Err("content_type"));
        check("headers = { content-length = '3' }", Err("headers.content-length"));
        check("body = 'x'\nheaders = { Content-Type = 'a/b' }", Err("headers.Content-Type"));
        check(&format!("body = '{}'", "x".repeat(65_537)), Err("body"));
    }
}
