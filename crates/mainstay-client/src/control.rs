//! Requests to the control plane: HTTP/1.1 and JSON, to one of several servers.
//!
//! A client keeps to one server as long as it answers, and goes on to the next when it does not.
//! Connections are kept and used again. Whether a request is repeated is for whoever makes it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mainstay_api::lock::SECRET_HEADER;
use mainstay_api::problem::Problem;
use mainstay_core::Effect;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ClientError;

/// For a connection: two tries of a lost packet on a bad day.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest document taken as an answer unless the call says otherwise; none is as large as a
/// twentieth of it.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a segment of a path may have as it is (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, SEGMENT)
}

/// The servers, and the way to them.
#[derive(Debug)]
pub(crate) struct Control {
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// `http://host:port` each; at least one.
    servers: Vec<String>,
    current: AtomicUsize,
    token: Option<HeaderValue>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Below `/api/v1`.
    pub(crate) path: String,
    pub(crate) secret: Option<HeaderValue>,
    /// The last revision that was heard of, of a stream that is opened again.
    pub(crate) last_event_id: Option<u64>,
    pub(crate) document: Bytes,
    /// For the head of the answer.
    pub(crate) timeout: Duration,
    /// Longest answer that is taken.
    pub(crate) answer_bytes_max: usize,
}

impl Call {
    /// A request without a document.
    pub(crate) fn new(method: Method, path: String, timeout: Duration) -> Self {
        let document = Bytes::new();
        let answer_bytes_max = ANSWER_BYTES_MAX;
        Self {
            method,
            path,
            secret: None,
            last_event_id: None,
            document,
            timeout,
            answer_bytes_max,
        }
    }

    /// For a stream that goes on after `revision`.
    pub(crate) fn last_event_id(self, revision: Option<u64>) -> Self {
        Self { last_event_id: revision, ..self }
    }

    /// With a session's secret.
    pub(crate) fn secret(mut self, secret: &HeaderValue) -> Self {
        self.secret = Some(secret.clone());
        self
    }

    /// For an answer of up to so many bytes.
    pub(crate) fn answer_bytes_max(self, bytes: usize) -> Self {
        Self { answer_bytes_max: bytes, ..self }
    }

    /// With a document.
    pub(crate) fn document(mut self, document: &impl Serialize) -> Self {
        let document = serde_json::to_vec(document).expect("texts and numbers are JSON");
        self.document = document.into();
        self
    }
}

impl Control {
    /// The control plane at `servers`, asked with `token`.
    pub(crate) fn new(servers: &[String], token: Option<&str>) -> Result<Self, ClientError> {
        let servers: Option<Vec<String>> = servers.iter().map(|text| server(text)).collect();
        let servers =
            servers.filter(|servers| !servers.is_empty()).ok_or(ClientError::Invalid {
                what: "servers",
                why: "must be one or more of `http://HOST:PORT`, without a path; control ports \
                      have no TLS yet",
            })?;
        let token = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let token = match token {
            Some(None) => {
                let why = "must be visible ASCII characters";
                return Err(ClientError::Invalid { what: "token", why });
            }
            token => token.flatten(),
        };
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let pool =
            Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { pool, servers, current: AtomicUsize::new(0), token })
    }

    /// Asks the current server once, and reads its document. One that does not answer is left for
    /// the next.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        let response = self.send(call).await?;
        let document = read(response.into_body(), call).await?;
        let document = if document.is_empty() { &b"null"[..] } else { &document };
        serde_json::from_slice(document).map_err(|error| unknown(format!("its answer: {error}")))
    }

    /// Asks the current server once; returns its answer, if it is a good one, as it begins.
    pub(crate) async fn send(&self, call: &Call) -> Result<Response<Incoming>, ClientError> {
        let at = self.current.load(Ordering::Relaxed);
        let answered = self.exchange(call, at).await;
        if answered.as_ref().is_err_and(ClientError::is_passing) {
            self.current.store((at + 1) % self.servers.len(), Ordering::Relaxed);
        }
        answered
    }

    /// Sends `request` to whoever it is for, who is no server of the control plane; returns the
    /// status and body of the answer, or why there is none.
    pub(crate) async fn call(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let answered = async {
            let response = self.pool.request(request).await.map_err(|error| chain(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            body.map(|body| (status, body.to_bytes())).map_err(|error| error.to_string())
        };
        let answer = tokio::time::timeout(timeout, answered).await;
        answer.unwrap_or_else(|_elapsed| Err(format!("nothing in {timeout:?}")))
    }

    /// How many servers there are.
    pub(crate) const fn servers(&self) -> usize {
        self.servers.len()
    }

    async fn exchange(&self, call: &Call, at: usize) -> Result<Response<Incoming>, ClientError> {
        let server = self.servers.get(at).map_or("", String::as_str);
        let mut request = Request::new(Full::new(call.document.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = Uri::try_from(format!("{server}/api/v1{}", call.path))
            .map_err(|error| not_sent(error.to_string()))?;
        let headers = request.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(token) = &self.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        if let Some(revision) = call.last_event_id {
            headers.insert("last-event-id", HeaderValue::from(revision));
        }
        if let Some(secret) = &call.secret {
            headers.insert(SECRET_HEADER, secret.clone());
        }
        let response = match tokio::time::timeout(call.timeout, self.pool.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Err(not_sent(chain(&error))),
            Ok(Err(error)) => return Err(unknown(chain(&error))),
            Err(_elapsed) => return Err(unknown(format!("nothing in {:?}", call.timeout))),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let document = read(response.into_body(), call).await.unwrap_or_default();
        Err(ClientError::Refused(Box::new(problem(status, &document))))
    }
}

/// `text` as `http://host:port`.
fn server(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let is_plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
    let authority = uri.authority().filter(|_| is_plain && uri.query().is_none())?;
    Some(format!("http://{authority}"))
}

/// The whole of `body`.
async fn read(body: Incoming, call: &Call) -> Result<Bytes, ClientError> {
    let whole = Limited::new(body, call.answer_bytes_max).collect();
    match tokio::time::timeout(call.timeout, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(unknown(error.to_string())),
        Err(_elapsed) => Err(unknown("its answer does not end".to_owned())),
    }
}

/// The problem in `document`; or what its status says, when something else has answered.
fn problem(status: StatusCode, document: &[u8]) -> Problem {
    let read: Option<Problem> = serde_json::from_slice(document).ok();
    let mut problem = read.unwrap_or_else(|| Problem {
        kind: String::new(),
        code: format!("http-{}", status.as_u16()),
        title: String::new(),
        status: 0,
        detail: format!("something that is no control plane answered {status}"),
        effect: None,
        retry_after: None,
        trace_id: None,
        holder: None,
        queued: None,
    });
    problem.status = status.as_u16();
    problem
}

const fn not_sent(why: String) -> ClientError {
    ClientError::Unreachable { why, effect: Effect::None }
}

const fn unknown(why: String) -> ClientError {
    ClientError::Unreachable { why, effect: Effect::Unknown }
}

/// The error and every cause, once each: `a: b: c`.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_servers() {
        assert_eq!(server("http://10.0.0.1:7400/").as_deref(), Some("http://10.0.0.1:7400"));
        assert_eq!(server("http://a.example:7400").as_deref(), Some("http://a.example:7400"));
        for bad in ["", "10.0.0.1:7400", "https://a:7400", "http://a:7400/x", "http://a?b"] {
            assert_eq!(server(bad), None, "{bad:?}");
        }
        let none = Control::new(&[], None).unwrap_err();
        assert_eq!(none.code(), "invalid-request");
    }

    #[test]
    fn what_is_no_problem_document_is_told_by_its_status() {
        let told = problem(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!((told.code.as_str(), told.status), ("http-502", 502));
    }
}
