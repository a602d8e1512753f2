//! Documents in and out.

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::report::{self, Report};
use crate::settings::Errors;

/// A document, or why there is none.
pub(super) type Answer = Result<Json<Value>, Refused>;

/// A problem document (RFC 9457) and its status.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    status: StatusCode,
    document: Box<Value>,
    retry_after: Option<Duration>,
    no_record: bool,
}

impl Refused {
    /// A problem of kind `code`.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http()).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
        let document = json!({
            "type": format!("docs/problems/{code}.md"),
            "code": code.as_str(),
            "title": code.title(),
            "status": status.as_u16(),
            "detail": detail.into(),
            "effect": "none",
        });
        Self { status, document: Box::new(document), retry_after: None, no_record: false }
    }

    /// The problem that `error` is, with all its causes; over when a store that is busy says so.
    pub(super) fn caused(code: Code, effect: Effect, error: &(dyn Error + 'static)) -> Self {
        let refused = Self::new(code, report::causes(error)).with_effect(effect);
        let mut cause = Some(error);
        while let Some(error) = cause {
            let store = error.downcast_ref::<mainstay_store::Error>();
            if let Some(after) = store.and_then(mainstay_store::Error::retry_after) {
                return refused.retry_after(after);
            }
            cause = error.source();
        }
        refused
    }

    /// The same problem, of a request that may have done something.
    pub(super) fn with_effect(mut self, effect: Effect) -> Self {
        if let Some(fields) = self.document.as_object_mut() {
            fields.insert("effect".to_owned(), effect.as_str().into());
        }
        self
    }

    /// The same problem, with a member more.
    pub(super) fn with(mut self, member: &str, value: Value) -> Self {
        if let Some(fields) = self.document.as_object_mut() {
            fields.insert(member.to_owned(), value);
        }
        self
    }

    /// The same problem, over in `after`.
    pub(super) fn retry_after(mut self, after: Duration) -> Self {
        if let Some(fields) = self.document.as_object_mut() {
            fields.insert("retry_after".to_owned(), after.as_secs_f64().into());
        }
        self.retry_after = Some(after);
        self
    }

    /// The same problem, of which no audit record is to be left: there is one, or nothing was to
    /// change.
    pub(super) fn without_record(mut self) -> Self {
        self.no_record = true;
        self
    }

    /// Whether none is to be left.
    pub(super) const fn is_without_record(&self) -> bool {
        self.no_record
    }

    /// Its code.
    pub(super) fn code(&self) -> &str {
        self.document.get("code").and_then(Value::as_str).unwrap_or_default()
    }

    /// The whole document.
    pub(super) const fn document(&self) -> &Value {
        &self.document
    }

    /// Its status, what is wrong in words, and when it is over.
    pub(super) fn said(&self) -> (StatusCode, &str, Option<Duration>) {
        let detail = self.document.get("detail").and_then(Value::as_str).unwrap_or_default();
        (self.status, detail, self.retry_after)
    }

    /// The request document is wrong.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// There is no such thing.
    pub(super) fn missing(what: &str, name: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} `{name}`"))
    }

    /// The faults of a configuration, all of them.
    pub(super) fn configuration(errors: &Errors) -> Self {
        let mut document = report::document(&errors.reports);
        let first = errors.reports.first().map(|report| Code::parse(&report.code));
        // Whatever its first fault is called: what was asked for cannot be done with this content.
        let status = match first.flatten().map(Code::http) {
            Some(status @ 400..) => StatusCode::from_u16(status).ok(),
            _ => None,
        };
        let status = status.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
        if let Some(fields) = document.as_object_mut() {
            fields.remove("exit");
            fields.insert("status".to_owned(), status.as_u16().into());
            fields.insert("effect".to_owned(), "none".into());
        }
        Self { status, document: Box::new(document), retry_after: None, no_record: false }
    }

    /// What a plain answer of the router comes to.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => (Code::NotFound, "the API has no such path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                (Code::MethodNotAllowed, "the path is there, for other methods")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                (Code::BodyTooLarge, "at most 64 KiB, or 4 MiB about agreed state")
            }
            _ => (Code::InvalidRequest, "the request cannot be read"),
        };
        Self::new(code, detail)
    }
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        let Invalid { path, code, problem } = invalid;
        let detail = format!("`{path}`: {problem}");
        // Codes of the configuration are for files; this was a request.
        Self::new(if code == Code::ReasonRequired { code } else { Code::InvalidRequest }, detail)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&*self.document)).into_response();
        let kind = HeaderValue::from_static(PROBLEM);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(0 < after.subsec_nanos());
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Media type of problem documents.
pub(super) const PROBLEM: &str = "application/problem+json";

/// A request's document; nothing at all stands for the empty one.
#[derive(Debug)]
pub(super) struct Document<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Document<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Refused::of_status(rejection.status()))?;
        let text = if bytes.is_empty() { &b"{}"[..] } else { &bytes[..] };
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| Refused::invalid(error.to_string()))?;
        reader.end().map_err(|error| Refused::invalid(error.to_string()))?;
        Ok(Self(value))
    }
}

/// A request's query.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refused> {
        let query = Query::try_from_uri(&parts.uri);
        let Query(value) = query.map_err(|rejection| Refused::invalid(rejection.body_text()))?;
        Ok(Self(value))
    }
}

/// The number of what the caller had read: `If-Match: "41"`; `None` when it does not say.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(field) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let number = field.to_str().ok().map(|text| text.trim().trim_matches('"'));
    let number = number.and_then(|number| number.parse().ok());
    let wrong = "`If-Match` must be a revision or release in quotes, such as \"41\"";
    number.map(Some).ok_or_else(|| Refused::invalid(wrong))
}

/// `{"items": […]}`.
pub(super) fn items(items: Vec<Value>) -> Json<Value> {
    Json(json!({ "items": items }))
}

/// The first fault of `errors`, on one line.
pub(super) fn first_of(errors: &Errors) -> String {
    let line = |report: &Report| {
        let place = report.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        format!("{place}{}", report.message)
    };
    errors.reports.first().map(line).unwrap_or_default()
}
