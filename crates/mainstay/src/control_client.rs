//! Talks to the control plane of a running Mainstay.
//!
//! Small on purpose: one HTTP/1.1 connection a question, over TCP, with a bearer token read from
//! the file a running `dev` or `server` leaves for its user. A question is asked once more after
//! 429, 502, 503, 504 or no connection. A change is sent once: if no answer comes it may have
//! been made, and the exit code says so (8), because "unknown" never becomes "done" or "failed".

mod context;
mod stream;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::time::Duration;

use http::header;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use mainstay_client::{Client, ClientError};
use mainstay_core::problem::Code;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;

pub use self::context::{ContextFile, context_files, default_data_dir, started_ticks};
use crate::exit::Exit;
use crate::report::Report;
use crate::settings::Errors;

/// The control plane when nobody says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:7400";

/// For one answer, connecting included: every call of the API answers within a second or two.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For the head of something large: a full store is packed in a minute or two.
const PREPARE_TIMEOUT: Duration = Duration::from_mins(10);

/// Before the one retry of a question: a restart of the peer's listener takes less.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Largest answer taken: 5,000 instances of about 1 KiB are a third of it.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A control plane to talk to.
#[derive(Debug, PartialEq, Eq)]
pub struct Control {
    /// `http://host:port`, without a path.
    url: String,
    /// `host:port`.
    authority: String,
    token: Option<String>,
}

/// What sends requests over one connection.
type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// What makes a request a change.
#[derive(Clone, Copy, Debug)]
struct Change<'a> {
    /// Why; empty when nobody says.
    reason: &'a str,
    /// The revision it was made from, if it is to be compared.
    base: Option<u64>,
}

/// What came of one exchange.
enum Exchange {
    /// A status and a document.
    Answer(u16, Json),
    /// Nothing was sent: no connection.
    NotSent(String),
    /// It was sent, and no answer came.
    NoAnswer(String),
}

impl Control {
    /// `--control` if given, else what a running process left, else the default port.
    ///
    /// # Errors
    ///
    /// A URL that is not `http://host:port`; a file with a token that others may read.
    pub fn find(given: Option<&str>, variable: fn(&str) -> Option<String>) -> Result<Self, Errors> {
        let mut file = None;
        for path in context_files(variable) {
            file = ContextFile::read(&path)?;
            if file.is_some() {
                break;
            }
        }
        // A token is for the process that gave it, and for no other address.
        let same = |file: &ContextFile| {
            given.is_none_or(|url| url.trim_end_matches('/') == file.url.trim_end_matches('/'))
        };
        let file = file.filter(same);
        let url = given.map(str::to_owned).or_else(|| file.as_ref().map(|file| file.url.clone()));
        let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
        Self::new(&url, file.map(|file| file.token))
    }

    /// The control plane at `url`, asked with `token`.
    ///
    /// # Errors
    ///
    /// A URL that is not `http://host:port`.
    pub fn new(url: &str, token: Option<String>) -> Result<Self, Errors> {
        let uri: Option<http::Uri> = url.parse().ok();
        let authority = uri
            .as_ref()
            .filter(|uri| uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/"))
            .and_then(http::Uri::authority);
        let Some(authority) = authority else {
            let report =
                Report::error(Code::Usage, format!("`{url}` is no address of a control plane"));
            return Err(report.help("write `http://host:port`, without a path").into());
        };
        let port = authority.port_u16().unwrap_or(80);
        let authority = format!("{}:{port}", authority.host());
        Ok(Self { url: format!("http://{authority}"), authority, token })
    }

    /// Its address, `http://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same, asked with `token`.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The client library, for what one exchange is not enough for.
    pub fn client(&self) -> mainstay_client::client::Builder {
        let builder = Client::builder([&self.url]);
        match &self.token {
            Some(token) => builder.token(token),
            None => builder,
        }
    }

    /// Asks for the document at `path`.
    ///
    /// # Errors
    ///
    /// See [`Control::ask`].
    pub fn get(&self, path: &str) -> Result<Json, Errors> {
        self.ask("GET", path, None)
    }

    /// Asks a question that changes nothing; once more when the answer may be better then.
    ///
    /// # Errors
    ///
    /// The problem of the answer with the exit code of its status; `control-unreachable` without
    /// a connection or answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Json>) -> Result<Json, Errors> {
        let once = || async { self.exchange(method, path, body, None).await };
        let exchange = block_on(async {
            match once().await {
                Exchange::Answer(429 | 502 | 503 | 504, _)
                | Exchange::NotSent(_)
                | Exchange::NoAnswer(_) => {
                    tokio::time::sleep(RETRY_AFTER).await;
                    once().await
                }
                answer @ Exchange::Answer(..) => answer,
            }
        })?;
        match exchange {
            Exchange::Answer(status, document) => answered(status, document),
            Exchange::NotSent(why) | Exchange::NoAnswer(why) => Err(self.unreachable(&why)),
        }
    }

    /// Sends a change, once.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`]; with exit code 8 when it was sent and nobody knows what became of it.
    pub fn change(
        &self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        reason: Option<&str>,
    ) -> Result<Json, Errors> {
        self.change_from(method, path, body, reason, None)
    }

    /// The same, if what is changed is still at revision `base`; 0 is "not there".
    ///
    /// # Errors
    ///
    /// As [`Control::change`]; `revision-moved` when it is not.
    pub fn change_from(
        &self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        reason: Option<&str>,
        base: Option<u64>,
    ) -> Result<Json, Errors> {
        let change = Change { reason: reason.unwrap_or_default(), base };
        match block_on(self.exchange(method, path, body, Some(change)))? {
            Exchange::Answer(status, document) => answered(status, document),
            Exchange::NotSent(why) => Err(self.unreachable(&why)),
            Exchange::NoAnswer(why) => {
                let message = format!(
                    "the change was sent to {} and no answer came ({why}): it may or may not have \
                     been made",
                    self.url
                );
                let report = Report {
                    exit: Exit::Unknown,
                    ..Report::error(Code::ControlUnreachable, message)
                };
                Err(report.help("look before you send it again").into())
            }
        }
    }

    /// Asks for the bytes at `path`, with some headers more, and hands them to `sink` as they come,
    /// with the size of the whole where it is said.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`], but it is asked once; also when it is cut short.
    pub fn download(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        sink: &mut dyn FnMut(&[u8], Option<u64>) -> io::Result<()>,
    ) -> Result<(), Errors> {
        let mut request = self
            .request("GET", path, None, None)
            .map_err(|error| self.unreachable(&error.to_string()))?;
        for &(name, value) in headers {
            let value = http::HeaderValue::from_str(value);
            let value = value.map_err(|error| self.unreachable(&error.to_string()))?;
            request.headers_mut().insert(name, value);
        }
        let fetch = |sender| async move { fetch(sender, request, sink).await };
        let fetched = block_on(self.connected(fetch))?.and_then(|fetched| fetched);
        match fetched {
            Ok((status, document)) => answered(status, document).map(drop),
            Err(why) => Err(self.unreachable(&why)),
        }
    }

    /// Follows a stream of server-sent events: shows each to `take` as a document with its name as
    /// `event`, until it says `false` or the stream ends. After a lost connection it goes on from
    /// the last revision it has seen.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`], also when the stream was lost and cannot be had again.
    pub fn follow(
        &self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        mut take: impl FnMut(&Json) -> bool,
    ) -> Result<(), Errors> {
        let ended = block_on(stream::follow(self, method, path, body, &mut take))?;
        match ended {
            stream::Ended::Enough => Ok(()),
            stream::Ended::Answer(status, document) => answered(status, document).map(drop),
            stream::Ended::Lost(why) => Err(self.unreachable(&why)),
        }
    }

    fn unreachable(&self, why: &str) -> Errors {
        let message = format!("no control plane answers at {}: {why}", self.url);
        let report = Report::error(Code::ControlUnreachable, message);
        report.help("name another with --control URL").next("mainstay dev").into()
    }

    /// One request and its answer.
    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        change: Option<Change<'_>>,
    ) -> Exchange {
        let request = match self.request(method, path, body, change) {
            Ok(request) => request,
            Err(error) => return Exchange::NotSent(error.to_string()),
        };
        let send = |sender| tokio::time::timeout(ANSWER_TIMEOUT, send(sender, request));
        match self.connected(send).await {
            Err(why) => Exchange::NotSent(why),
            Ok(Ok(Ok((status, document)))) => Exchange::Answer(status, document),
            Ok(Ok(Err(why))) => Exchange::NoAnswer(why),
            Ok(Err(_elapsed)) => {
                Exchange::NoAnswer(format!("none within {} s", ANSWER_TIMEOUT.as_secs()))
            }
        }
    }

    /// Connects, and does `work` with what sends requests there.
    ///
    /// # Errors
    ///
    /// Why there is no connection; nothing was sent then.
    async fn connected<T, F: Future<Output = T>>(
        &self,
        work: impl FnOnce(Sender) -> F,
    ) -> Result<T, String> {
        let connect = tokio::net::TcpStream::connect(&self.authority);
        let stream = tokio::time::timeout(ANSWER_TIMEOUT, connect).await;
        let stream = stream.map_err(|_elapsed| "connecting took too long".to_owned())?;
        let stream = TokioIo::new(stream.map_err(|error| plain(&error))?);
        let made = hyper::client::conn::http1::handshake(stream).await;
        let (sender, connection) = made.map_err(|error| error.to_string())?;
        let mut work = std::pin::pin!(work(sender));
        // The connection moves only while it is polled beside the work. When it ends first, the work
        // has all it will get.
        tokio::select! {
            done = &mut work => Ok(done),
            _ended = connection => Ok(work.await),
        }
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        change: Option<Change<'_>>,
    ) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("mainstay/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(Change { reason, base }) = change {
            request = request.header("idempotency-key", idempotency_key());
            if !reason.is_empty() {
                let encoded = utf8_percent_encode(reason, NON_ALPHANUMERIC).to_string();
                request = request.header("mainstay-reason", encoded);
            }
            if let Some(base) = base {
                request = request.header(header::IF_MATCH, format!("\"{base}\""));
            }
        }
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(bytes))
    }
}

/// Sends `request` and reads the whole answer.
async fn send(
    mut sender: Sender,
    request: http::Request<Full<Bytes>>,
) -> Result<(u16, Json), String> {
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let bytes = whole(answer.into_body()).await?;
    let document = if bytes.is_empty() {
        Json::Null
    } else {
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Json::String(String::from_utf8_lossy(&bytes).into_owned()))
    };
    Ok((status, document))
}

/// Sends `request` and hands the body of a good answer to `sink`; the document of a bad one is
/// returned.
async fn fetch(
    mut sender: Sender,
    request: http::Request<Full<Bytes>>,
    sink: &mut dyn FnMut(&[u8], Option<u64>) -> io::Result<()>,
) -> Result<(u16, Json), String> {
    let text = |error: hyper::Error| error.to_string();
    let answer = tokio::time::timeout(PREPARE_TIMEOUT, sender.send_request(request)).await;
    let answer = answer.map_err(|_elapsed| "no answer within ten minutes".to_owned())?;
    let answer = answer.map_err(text)?;
    let status = answer.status().as_u16();
    if !answer.status().is_success() {
        let bytes = whole(answer.into_body()).await?;
        return Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()));
    }
    let length = answer.headers().get(header::CONTENT_LENGTH);
    let total = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = answer.into_body();
    loop {
        let frame = tokio::time::timeout(ANSWER_TIMEOUT, body.frame()).await;
        let Some(frame) = frame.map_err(|_elapsed| "it stalled half way".to_owned())? else {
            return Ok((status, Json::Null));
        };
        if let Ok(chunk) = frame.map_err(text)?.into_data() {
            sink(&chunk, total).map_err(|error| error.to_string())?;
        }
    }
}

/// All of a body, if it is not too large.
async fn whole(body: Incoming) -> Result<Bytes, String> {
    let whole = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    whole.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}

/// The document of a good answer, or the problem of a bad one.
fn answered(status: u16, document: Json) -> Result<Json, Errors> {
    let exit = match (Exit::of_status(status), document.get("effect").and_then(Json::as_str)) {
        (Exit::Done, _) => return Ok(document),
        (Exit::Unavailable, Some("unknown")) => Exit::Unknown,
        (exit, _) => exit,
    };
    let field = |name: &str| document.get(name).and_then(Json::as_str);
    let code = field("code").map_or_else(|| fallback_code(status).to_owned(), str::to_owned);
    let detail = field("detail")
        .or_else(|| field("title"))
        .map_or_else(|| format!("the control plane answered with status {status}"), str::to_owned);
    let mut report = Report::named(code, exit, detail);
    report.help.extend(field("permission").map(|name| format!("missing permission: {name}")));
    report.help.extend(document.get("retry_after").and_then(Json::as_f64).map(again));
    let errors = document.get("errors").and_then(Json::as_array).into_iter().flatten();
    report.help.extend(errors.filter_map(|error| {
        let detail = error.get("detail").and_then(Json::as_str)?;
        let place = error.get("place").or_else(|| error.get("path")).and_then(Json::as_str);
        let place = place.filter(|place| !place.is_empty());
        Some(place.map_or_else(|| detail.to_owned(), |place| format!("{place}: {detail}")))
    }));
    Err(report.into())
}

/// When to come back.
fn again(seconds: f64) -> String {
    format!("try again in {seconds} s")
}

/// The code for an answer without one, as of a proxy in between.
fn fallback_code(status: u16) -> &'static str {
    let code = match status {
        401 | 403 => Code::CredentialMissing,
        404 | 410 => Code::NotFound,
        421 => Code::HostNotAllowed,
        400 | 422 => Code::InvalidRequest,
        429 | 502 | 503 | 504 => Code::ControlUnreachable,
        _ => Code::Internal,
    };
    code.as_str()
}

/// The system's words without its number: `connection refused`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or("").to_lowercase()
}

/// 128 bits nobody else sends: the hasher's keys come from the system's random source.
fn idempotency_key() -> String {
    let draw = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", draw(), draw())
}

/// Why the client library did not do as asked.
pub fn refusal(error: &ClientError) -> Report {
    match error {
        ClientError::Refused(problem) => {
            let exit = match (Exit::of_status(problem.status), problem.effect.as_deref()) {
                (Exit::Unavailable, Some("unknown")) => Exit::Unknown,
                (exit, _) => exit,
            };
            let mut report = Report::named(problem.code.clone(), exit, problem.detail.clone());
            report.help.extend(problem.retry_after.map(again));
            report
        }
        ClientError::Unreachable { .. } => {
            let report = Report::error(Code::ControlUnreachable, error.to_string());
            report.help("name another with --control URL").next("mainstay dev")
        }
        ClientError::Invalid { .. } => Report::error(Code::Usage, error.to_string()),
        ClientError::Lost(_) => Report::error(Code::LockLost, error.to_string()),
        ClientError::Stopped => Report::error(Code::ControlUnreachable, error.to_string()),
    }
}

/// Runs `future` to its end on a runtime of its own, on this thread.
///
/// # Errors
///
/// When the system gives no runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Errors> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Report::error(Code::Internal, format!("the runtime does not start: {error}"))
    })?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests;
