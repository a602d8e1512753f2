//! What happens to header fields on the way through.
//!
//! Each function looks at the names once and changes nothing in the usual request; only what is
//! found to be wrong costs more. Ids come from draws that the caller passes.

use http::Version;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, Entry, FORWARDED, HOST, HeaderMap,
    HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use mainstay_core::problem::Code;

use crate::forwarded::is_x_forwarded;

mod scribe;
mod seen;
mod trace;

#[cfg(test)]
mod tests;

pub use scribe::Scribe;
pub use seen::Seen;
pub use trace::{TRACEPARENT, TRACESTATE, TraceParent, continue_trace};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Fields of one hop, beside `Connection`, which is more than removed.
static HOP_BY_HOP: [HeaderName; 6] =
    [KEEP_ALIVE, TE, TRANSFER_ENCODING, UPGRADE, PROXY_CONNECTION, HTTP2_SETTINGS];
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Removes the fields that concern one hop (RFC 9110 section 7.6.1), from requests and answers
/// alike: the known ones, and those that `Connection` names, except the names that nobody may make
/// a proxy forget. `TE: trailers` stays. A stage that switches protocols puts `Connection` and
/// `Upgrade` back.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let (mut connection, mut te, mut others) = (false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "te" => te = true,
            "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection"
            | "http2-settings" => others = true,
            _ => (),
        }
    }
    // Read first: `Connection` names `TE` as a rule.
    let trailers = te && te_trailers(headers);
    if connection {
        remove_named(headers);
    }
    if te || others {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes `Connection` and what it names.
fn remove_named(headers: &mut HeaderMap) {
    // What nearly every peer names is of one hop by itself, and goes anyway.
    let goes_anyway = |option: &[u8]| {
        HOP_BY_HOP.iter().any(|name| name.as_str().as_bytes().eq_ignore_ascii_case(option))
    };
    let fields = headers.get_all(CONNECTION).into_iter();
    let mut options = fields.flat_map(|field| field.as_bytes().split(|&b| b == b','));
    if options.all(|option| goes_anyway(option.trim_ascii())) {
        headers.remove(CONNECTION);
        return;
    }
    let fields: Vec<HeaderValue> = match headers.entry(CONNECTION) {
        Entry::Occupied(entry) => entry.remove_entry_mult().1.collect(),
        Entry::Vacant(_) => return,
    };
    for option in fields.iter().flat_map(|field| field.as_bytes().split(|&b| b == b',')) {
        let Ok(name) = HeaderName::from_bytes(option.trim_ascii()) else { continue };
        if !is_protected(&name) {
            headers.remove(name);
        }
    }
}

/// Names that `Connection` cannot remove: a client could hide its identity from the upstream, or
/// make two servers disagree on the message.
fn is_protected(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, AUTHORIZATION, COOKIE, FORWARDED, TRACEPARENT].contains(name)
        || is_x_forwarded(name.as_str())
        || begins(name.as_str(), "mainstay-")
        || begins(name.as_str(), "x-mainstay-")
}

fn te_trailers(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TE).iter().flat_map(|te| te.as_bytes().split(|&b| b == b','));
    codings.into_iter().any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whose requests a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// A gateway's.
    Gateway,
    /// A sidecar's: calls of the transaction coordinator come this way too.
    Sidecar,
}

/// Removes the fields by which we tell upstreams who is calling, so that nobody else can.
///
/// `x-mainstay-*`, `x-forwarded-client-cert` and the `claims` (names that the gateway fills from a
/// token) go whoever sent them, `mainstay-*` unless the peer is `trusted`; all with `_` for `-`
/// too, since many servers take the two for the same. Kept from anybody, in their proper spelling,
/// are those that can only restrain the call.
pub fn remove_foreign_identity(
    headers: &mut HeaderMap,
    trusted: bool,
    inbound: Inbound,
    claims: &[HeaderName],
) {
    let goes = |name: &HeaderName| {
        let text = name.as_str();
        let ours = match text.as_bytes().first() {
            Some(b'm') if begins(text, "mainstay-") => {
                text.contains('_') || !(trusted || is_kept(text, inbound))
            }
            Some(b'x') => begins(text, "x-mainstay-") || same(text, "x-forwarded-client-cert"),
            _ => false,
        };
        ours || claims.iter().any(|claim| same(text, claim.as_str()))
    };
    while let Some(name) = headers.keys().find(|name| goes(name)).cloned() {
        headers.remove(name);
    }
}

fn is_kept(name: &str, inbound: Inbound) -> bool {
    match name {
        "mainstay-timeout-ms"
        | "mainstay-timeout-scope"
        | "mainstay-attempt"
        | "mainstay-fencing-token" => true,
        // The branch of a transaction, told by its coordinator.
        "mainstay-gid"
        | "mainstay-branch"
        | "mainstay-op"
        | "mainstay-mode"
        | "mainstay-branch-attempt"
        | "mainstay-epoch"
        | "mainstay-decision" => inbound == Inbound::Sidecar,
        _ => false,
    }
}

/// Whether two names are the same to a server that does not tell `_` from `-`.
fn same(name: &str, other: &str) -> bool {
    let dash = |b: u8| if b == b'_' { b'-' } else { b };
    name.len() == other.len() && name.bytes().map(dash).eq(other.bytes().map(dash))
}

fn begins(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| same(begin, prefix))
}

/// Makes sure that there is one `x-request-id` of 1 to 128 of `[A-Za-z0-9._-]`, and returns it: the
/// caller's if it is, else one made of `draws`.
pub fn ensure_request_id(
    headers: &mut HeaderMap,
    seen: Seen,
    draws: [u64; 2],
    scribe: &mut Scribe,
) -> Option<HeaderValue> {
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if seen.request_id {
        let mut ids = headers.get_all(X_REQUEST_ID).iter();
        if let (Some(id), None) = (ids.next(), ids.next())
            && (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(legal)
        {
            return Some(id.clone());
        }
    }
    let id = scribe.hex(draws[0]).hex(draws[1]).cut()?;
    headers.insert(X_REQUEST_ID, id.clone());
    Some(id)
}

/// Takes `Expect` off a request; says whether the caller waits for a 100 before it sends the body.
///
/// The server writes the 100 when the body is first read, which is when it is wanted: by the upstream
/// that is about to be sent it. So the field goes no further. HTTP/1.0 has no 100.
///
/// # Errors
///
/// [`Code::ExpectationFailed`] for any other expectation.
pub fn take_expect(headers: &mut HeaderMap, version: Version) -> Result<bool, Code> {
    let Entry::Occupied(entry) = headers.entry(EXPECT) else { return Ok(false) };
    let known = |value: HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if entry.remove_entry_mult().1.all(known) {
        Ok(Version::HTTP_10 < version)
    } else {
        Err(Code::ExpectationFailed)
    }
}
