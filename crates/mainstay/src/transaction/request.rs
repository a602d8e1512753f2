//! What a branch is sent.
//!
//! In our own dialect the gid, branch and operation are headers, and the payload is the body as it
//! was given. In that of DTM they are parameters of the query, as its clients expect them.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use mainstay_call::stage::timeout::TIMEOUT_HEADER;
use mainstay_txn::port::Outgoing;
use mainstay_txn::{Dialect, Mode, Target};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::output::hex;

/// What does not stand in a header or query as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'-');

/// A request that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the branch cannot be called: {0}")]
pub(super) struct Unmade(String);

/// The request of `call` to `target`. To a service it has a path alone: an instance is picked
/// later.
///
/// # Errors
///
/// [`Unmade`] when the target is no address.
pub(super) fn request(call: &Outgoing, target: &Target) -> Result<Request<Full<Bytes>>, Unmade> {
    let unmade = |error: &dyn std::fmt::Display| Unmade(error.to_string());
    let (at, method) = match target {
        Target::Service { path, method, .. } => (path.clone(), method.as_deref()),
        Target::Url(url) => (url.clone(), None),
    };
    let method = match (call.dialect, method) {
        (_, Some(method)) => method.parse::<Method>().map_err(|error| unmade(&error))?,
        (Dialect::Dtm, None) if call.payload.bytes.is_empty() && call.mode != Mode::Xa => {
            Method::GET
        }
        (Dialect::Dtm | Dialect::Native, None) => Method::POST,
    };
    let (at, own) = match call.dialect {
        Dialect::Native => (at, native(call)),
        Dialect::Dtm => (with_query(&at, call), dtm()),
    };
    let uri = at.parse::<Uri>().map_err(|error| unmade(&error))?;
    let mut request = Request::new(Full::new(call.payload.bytes.clone()));
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    let headers = request.headers_mut();
    *headers = own;
    if let Some(text) = &call.payload.content_type
        && let Ok(value) = HeaderValue::from_str(text)
    {
        headers.insert(header::CONTENT_TYPE, value);
    }
    if matches!(target, Target::Url(_)) {
        // Calls of services are told by the pipeline.
        let millis = u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX);
        headers.insert(TIMEOUT_HEADER, millis.into());
    }
    for (name, value) in &call.payload.headers {
        let named = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::from_str(value).ok());
        if let Some((name, value)) = named.filter(|(name, _)| !is_reserved(name)) {
            headers.insert(name, value);
        }
    }
    // Said by us alone: senders of messages are refused names like it.
    let host = call.payload.headers.iter().find(|(name, _)| name == HOST_KEPT);
    if let Some(host) = host.and_then(|(_, value)| HeaderValue::from_str(value).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}

/// Keeps the host that a deferred request was sent to. Not sent itself.
pub(crate) const HOST_KEPT: &str = "mainstay-host";

/// Whether a sender may not say it: what a connection needs, and what only we say.
pub(crate) fn is_reserved(name: &HeaderName) -> bool {
    const OF_CONNECTIONS: [HeaderName; 10] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    OF_CONNECTIONS.contains(name) || name.as_str().starts_with("mainstay-")
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// Headers of our own dialect.
fn native(call: &Outgoing) -> HeaderMap {
    let gid = escaped(call.gid.as_str());
    let (branch, op) = (call.branch.as_str(), call.op.as_str());
    let mut headers = HeaderMap::new();
    let mut say = |name: &'static str, value: &str| {
        // Percent-encoded, or words and digits.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    say("mainstay-gid", &gid);
    say("mainstay-branch", branch);
    say("mainstay-op", op);
    say("mainstay-mode", call.mode.as_str());
    say("mainstay-branch-attempt", &call.attempt.to_string());
    say("mainstay-epoch", &call.epoch.to_string());
    if let Some(decision) = call.decision {
        say("mainstay-decision", decision.as_str());
    }
    // With the operation in it: to undo something is not the same request again.
    say("idempotency-key", &format!("{gid}:{branch}:{op}"));
    say("traceparent", &traceparent(call));
    headers
}

/// A trace of the transaction (W3C Trace Context): all its calls, on whichever node, are of one.
fn traceparent(call: &Outgoing) -> String {
    let trace = Sha256::digest(call.gid.as_str().as_bytes());
    let trace = hex(trace.get(..16).unwrap_or_default());
    let span = mainstay_call::draw::next().max(1);
    format!("00-{trace}-{span:016x}-00")
}

fn dtm() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

/// How clients of DTM call a mode.
pub(crate) const fn trans_type(mode: Mode) -> &'static str {
    match mode {
        Mode::Message => "msg",
        mode => mode.as_str(),
    }
}

/// `url` with the parameters that clients of DTM read.
fn with_query(url: &str, call: &Outgoing) -> String {
    let mode = trans_type(call.mode);
    let query = format!(
        "gid={}&trans_type={mode}&branch_id={}&op={}",
        escaped(call.gid.as_str()),
        call.branch,
        call.op
    );
    let url = url.split('#').next().unwrap_or(url);
    let between = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{url}{between}{query}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mainstay_txn::port::To;
    use mainstay_txn::{BranchId, Decision, Gid, Op, Payload};

    use super::*;

    fn call(dialect: Dialect, gid: &str) -> Outgoing {
        Outgoing {
            gid: Gid::new(gid).unwrap(),
            mode: Mode::Saga,
            dialect,
            branch: BranchId::number(1),
            op: Op::Action,
            attempt: 2,
            epoch: 7,
            decision: Some(Decision::Commit),
            to: To::Endpoint(Target::Url("http://a/".to_owned())),
            payload: Payload::default(),
            timeout: Duration::from_secs(5),
        }
    }

    fn url(text: &str) -> Target {
        Target::Url(text.to_owned())
    }

    fn header(request: &Request<Full<Bytes>>, name: &str) -> String {
        request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
    }

    #[test]
    fn our_dialect_speaks_in_headers() {
        let mut call = call(Dialect::Native, "转账-7");
        call.payload.bytes = Bytes::from_static(b"{}");
        call.payload.content_type = Some("application/json".to_owned());
        call.payload.headers = vec![
            ("x-tenant".to_owned(), "blue".to_owned()),
            ("mainstay-gid".to_owned(), "another".to_owned()),
            ("Host".to_owned(), "elsewhere".to_owned()),
            ("Content-Length".to_owned(), "999".to_owned()),
        ];
        let request = request(&call, &url("http://stock:80/deduct?x=1")).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "http://stock:80/deduct?x=1");
        for (name, want) in [
            ("mainstay-gid", "%E8%BD%AC%E8%B4%A6-7"),
            ("mainstay-branch", "01"),
            ("mainstay-op", "action"),
            ("mainstay-mode", "saga"),
            ("mainstay-branch-attempt", "2"),
            ("mainstay-epoch", "7"),
            ("mainstay-decision", "commit"),
            ("mainstay-timeout-ms", "5000"),
            ("idempotency-key", "%E8%BD%AC%E8%B4%A6-7:01:action"),
            ("content-type", "application/json"),
            ("x-tenant", "blue"),
            ("host", ""),
            ("content-length", ""),
        ] {
            assert_eq!(header(&request, name), want, "{name}");
        }
        assert_eq!(header(&request, "traceparent").len(), 55);
    }

    #[test]
    fn a_sender_may_name_its_own_key_and_a_service_its_method() {
        let mut call = call(Dialect::Native, "g");
        call.payload.headers = vec![("Idempotency-Key".to_owned(), "mine".to_owned())];
        let (service, method) = ("stock".to_owned(), Some("PUT".to_owned()));
        let target = Target::Service { service, path: "/deduct".to_owned(), method };
        let request = request(&call, &target).unwrap();
        assert_eq!(header(&request, "idempotency-key"), "mine");
        assert_eq!((request.method(), request.uri().path()), (&Method::PUT, "/deduct"));
        assert_eq!(header(&request, "mainstay-timeout-ms"), "", "the pipeline says it");
    }

    #[test]
    fn the_dialect_of_dtm_speaks_in_the_query() {
        let cases = [
            ("http://a/b", "http://a/b?gid=g%3A1&trans_type=saga&branch_id=01&op=action"),
            ("http://a/b?", "http://a/b?gid=g%3A1&trans_type=saga&branch_id=01&op=action"),
            ("http://a/b?x=1#f", "http://a/b?x=1&gid=g%3A1&trans_type=saga&branch_id=01&op=action"),
        ];
        for (from, want) in cases {
            let request = request(&call(Dialect::Dtm, "g:1"), &url(from)).unwrap();
            assert_eq!(request.uri().to_string(), want);
            assert_eq!(request.method(), Method::GET, "nothing is sent");
            assert_eq!(header(&request, "content-type"), "application/json");
            assert_eq!(header(&request, "mainstay-gid"), "");
        }
        let mut xa = call(Dialect::Dtm, "g");
        xa.mode = Mode::Xa;
        assert_eq!(request(&xa, &url("http://a/b")).unwrap().method(), Method::POST);
        let mut message = call(Dialect::Dtm, "g");
        (message.mode, message.op) = (Mode::Message, Op::Check);
        message.payload.bytes = Bytes::from_static(b"{}");
        let request = request(&message, &url("http://a/b")).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert!(request.uri().query().unwrap().ends_with("trans_type=msg&branch_id=01&op=msg"));
    }
}
