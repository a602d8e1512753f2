//! Takes a request in: who asks, for what, and whether it may be asked like that.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, REFERER, UPGRADE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use mainstay_call::draw;
use mainstay_call::stage::deadline::{arriving as arriving_deadline, covers};
use mainstay_call::stage::retry::arriving as arriving_attempt;
use mainstay_call::stage::timeout::is_grpc;
use mainstay_core::Problem;
use mainstay_core::problem::Code;
use mainstay_resilience::deadline::Covers;

use super::Running;
use crate::config::gateway::{EncodedSlash, PathParameters};
use crate::forwarded::{self, Arrival as Way};
use crate::framing::check_h2;
use crate::header::{self, Inbound, Scribe, Seen, TraceParent};
use crate::metrics::Metrics;
use crate::path::{self, Judged, Options, Parameters};
use crate::server::ConnInfo;

/// Fields that a usual request gains on its way: its id and trace, four that tell of the hop, two
/// that tell the service how long it has.
const FIELDS_ADDED: usize = 8;

const OTHER_HOST: &str = "the certificate of this connection does not cover the host asked for";

const NO_ID: HeaderValue = HeaderValue::from_static("");

/// What is known of a request before a route is looked for.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) method: Method,
    /// As it came; its path is not yet judged.
    pub(super) uri: Uri,
    pub(super) version: Version,
    /// Host asked for, as the caller wrote it.
    pub(super) host: HeaderValue,
    /// Who asks.
    pub(super) client: IpAddr,
    pub(super) trusted: bool,
    /// What the caller gives the call to take.
    pub(super) patience: Option<Duration>,
    /// The deadline is the hop's above, and covers the way to the answer's head only.
    pub(super) head_only: bool,
    /// The attempt of the caller's that this is.
    pub(super) attempt: u32,
    pub(super) grpc: bool,
    /// The caller asks for a WebSocket.
    pub(super) websocket: bool,
    pub(super) trace: TraceParent,
    pub(super) request_id: HeaderValue,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) referer: Option<HeaderValue>,
    /// Bytes of the body, where the caller announced them.
    pub(super) announced: Option<u64>,
}

impl Arrival {
    /// Reads the head of a request and leaves in its headers only what may go further.
    ///
    /// # Errors
    ///
    /// The problem the caller is told of.
    pub(super) fn take(
        running: &Running,
        metrics: &Metrics,
        parts: &mut Parts,
        from: &ConnInfo,
    ) -> Result<Self, Problem> {
        let config = &running.plane.gateway;
        let trusted = running.trusts(from.peer.ip());
        let version = parts.version;
        if version == Version::HTTP_2 {
            check_http2(running, metrics, parts)?;
            join_cookies(&mut parts.headers);
        }
        let method = parts.method.clone();
        let uri = parts.uri.clone();
        let headers = &mut parts.headers;
        let host = host(&uri, headers)?;
        if let Some(tls) = &from.tls
            && !tls.serves(host.to_str().unwrap_or_default())
        {
            return Err(Problem::new(Code::MisdirectedHost, OTHER_HOST));
        }
        let seen = Seen::of(headers);
        let claims = running.issuers.claims();
        if seen.identity || !claims.is_empty() {
            header::remove_foreign_identity(headers, trusted, Inbound::Gateway, claims);
        }
        let (patience, head_only) = if seen.patience { patience(headers)? } else { (None, false) };
        let attempt = if seen.attempt { arriving_attempt(headers) } else { 1 };
        let mode = config.forwarded;
        let client = forwarded::client_address(from.peer.ip(), headers, &running.trusted, mode);
        let grpc = seen.content_type && is_grpc(headers);
        let websocket = seen.upgrade && websocket(&method, version, headers)?;
        if seen.expect {
            header::take_expect(headers, version)
                .map_err(|code| Problem::new(code, "only `100-continue` can be expected"))?;
        }
        if seen.hop_by_hop {
            header::remove_hop_by_hop(headers);
        }
        headers.reserve(FIELDS_ADDED);
        let mut scribe = Scribe::new();
        let draws = [draw::next(), draw::next()];
        let request_id = header::ensure_request_id(headers, seen, draws, &mut scribe);
        let draws = [draw::next(), draw::next(), draw::next()];
        let (trace, _) = header::continue_trace(headers, seen, draws, false, &mut scribe);
        let way = Way {
            peer: from.peer.ip(),
            proto: if from.tls.is_some() { "https" } else { "http" },
            host: host.to_str().unwrap_or_default(),
            port: from.local.port(),
        };
        forwarded::write(headers, way, &running.trusted, mode, &mut scribe);
        let text = |seen: bool, name| seen.then(|| headers.get(name).cloned()).flatten();
        let announced = text(seen.content_length, CONTENT_LENGTH);
        Ok(Self {
            method,
            uri,
            version,
            host,
            client,
            trusted,
            patience,
            head_only,
            attempt,
            grpc,
            websocket,
            trace,
            request_id: request_id.unwrap_or(NO_ID),
            user_agent: text(seen.user_agent, USER_AGENT),
            referer: text(seen.referer, REFERER),
            announced: announced.and_then(|length| length.to_str().ok()?.parse().ok()),
        })
    }

    /// The path in the one form that is judged.
    ///
    /// # Errors
    ///
    /// The problem the caller is told of, when servers could read it differently.
    pub(super) fn path(&self, running: &Running) -> Result<Judged<'_>, Problem> {
        running.judge(self.uri.path())
    }

    /// Ties what is told of the request to spans.
    pub(super) fn trace_id(&self) -> String {
        self.trace.trace_id()
    }

    /// Host asked for, as text.
    pub(super) fn host(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }
}

impl Running {
    /// `path` in the one form that is judged and the one that is sent on.
    ///
    /// # Errors
    ///
    /// `path-ambiguous` when servers would read it in different ways.
    pub fn judge<'p>(&self, path: &'p str) -> Result<Judged<'p>, Problem> {
        let config = &self.plane.gateway;
        let options = Options {
            parameters: match config.path_parameters {
                PathParameters::Strip => Parameters::Strip,
                PathParameters::Refuse => Parameters::Refuse,
                PathParameters::Keep => Parameters::Keep,
            },
            keep_encoded_slash: config.encoded_slash == EncodedSlash::Keep,
        };
        path::judge(path, options)
            .map_err(|ambiguous| Problem::new(Code::PathAmbiguous, ambiguous.to_string()))
    }
}

fn check_http2(running: &Running, metrics: &Metrics, parts: &Parts) -> Result<(), Problem> {
    check_h2(parts, running.framing()).map_err(|rule| {
        metrics.malformed(rule.as_str());
        Problem::new(rule.problem(), rule.detail())
    })
}

/// Makes one `cookie` field of several: HTTP/2 lets a caller send each pair in a field of its own,
/// to compress them better, and everybody else reads only one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Of bytes that are legal in a value each, so it is one.
    if let Ok(mut cookie) = HeaderValue::try_from(joined) {
        cookie.set_sensitive(headers.get_all(COOKIE).iter().any(HeaderValue::is_sensitive));
        headers.insert(COOKIE, cookie);
    }
}

fn host(uri: &Uri, headers: &mut HeaderMap) -> Result<HeaderValue, Problem> {
    let missing = || Problem::new(Code::MalformedRequest, "the request names no host");
    // The head guard has made sure that the two do not contradict each other.
    if let Some(authority) = uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_illegal| missing())?;
        headers.insert(HOST, host.clone());
        return Ok(host);
    }
    headers.get(HOST).cloned().ok_or_else(missing)
}

fn patience(headers: &HeaderMap) -> Result<(Option<Duration>, bool), Problem> {
    let arriving = arriving_deadline(headers)
        .map_err(|malformed| Problem::new(Code::MalformedRequest, malformed.to_string()))?;
    Ok((arriving, covers(headers) == Covers::Head))
}

/// Whether the caller asks for a WebSocket (RFC 6455, section 4.1); any other upgrade is refused.
fn websocket(method: &Method, version: Version, headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(upgrade) = headers.get(UPGRADE) else { return Ok(false) };
    let named = headers.get_all(CONNECTION).iter().any(|field| {
        let options = field.as_bytes().split(|b| *b == b',');
        options.into_iter().any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    if !named {
        // Without `Connection: upgrade` the field means nothing to us (RFC 9110, section 7.8).
        return Ok(false);
    }
    let asked = upgrade.as_bytes().eq_ignore_ascii_case(b"websocket");
    if asked && *method == Method::GET && version == Version::HTTP_11 {
        return Ok(true);
    }
    Err(Problem::new(Code::UpgradeRefused, "only WebSocket over HTTP/1.1 is offered"))
}
