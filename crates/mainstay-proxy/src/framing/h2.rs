//! What the h2 crate leaves to others.
//!
//! It refuses upper-case names, pseudo-headers that are misplaced or repeated, control bytes, and
//! data that differ from `content-length`. It lets through what only hurts when the request is
//! written anew as HTTP/1.1, so that is refused here.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TE};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::Limits;
use super::host::is_host;
use super::rule::Rule;

/// Judges the head of a request over HTTP/2 by the rules of RFC 9113 section 8.2 and by those of
/// HTTP/1.1 that still apply.
///
/// # Errors
///
/// The [`Rule`] that was broken; the stream is reset or answered, the connection goes on.
pub fn check_h2(parts: &Parts, limits: &Limits) -> Result<(), Rule> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if limits.uri_bytes_max < target {
        return Err(Rule::UriBytes);
    }
    if limits.headers_max < parts.headers.len() {
        return Err(Rule::HeadFields);
    }
    if parts.method == Method::TRACE {
        return Err(Rule::MethodTrace);
    }
    if parts.method == Method::CONNECT && !limits.connect {
        return Err(Rule::MethodConnect);
    }
    for (name, value) in &parts.headers {
        check_field(name.as_str(), value.as_bytes())?;
    }
    check_host(parts)?;
    check_length(&parts.headers, limits)?;
    let known = |expect: &HeaderValue| expect.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if parts.headers.get_all(EXPECT).iter().all(known) { Ok(()) } else { Err(Rule::Expect) }
}

fn check_field(name: &str, value: &[u8]) -> Result<(), Rule> {
    match name {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
            return Err(Rule::ConnectionField);
        }
        _ if name == TE.as_str() && value != b"trailers" => return Err(Rule::ConnectionField),
        _ => (),
    }
    let space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    if space(value.first()) || space(value.last()) {
        return Err(Rule::ValueSpace);
    }
    Ok(())
}

/// One authority, told once or twice alike.
fn check_host(parts: &Parts) -> Result<(), Rule> {
    let mut hosts = parts.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Rule::HostRepeated);
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (host, authority) {
        (None, None) => Err(Rule::HostMissing),
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
            Err(Rule::HostTarget)
        }
        (Some(host), _) | (None, Some(host)) if !is_host(host) => Err(Rule::HostForm),
        _ => Ok(()),
    }
}

fn check_length(headers: &HeaderMap, limits: &Limits) -> Result<(), Rule> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let Some(length) = lengths.next() else { return Ok(()) };
    if lengths.next().is_some() {
        return Err(Rule::LengthRepeated);
    }
    if length.is_empty() || 19 < length.len() || !length.iter().all(u8::is_ascii_digit) {
        return Err(Rule::LengthForm);
    }
    let bytes = length.iter().fold(0, |n, &b| n * 10 + u64::from(b - b'0'));
    if limits.body_bytes_max < bytes { Err(Rule::BodyBytes) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_request_over_http2_has_no_leftovers_of_http1() {
        let check = |uri: &str, fields: &[(&str, &str)], want: Result<(), Rule>| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            assert_eq!(check_h2(&parts, &Limits::default()), want, "{uri} {fields:?}");
        };
        let a = "https://a/x";
        check(a, &[], Ok(()));
        check(a, &[("te", "trailers"), ("host", "A"), ("content-length", "5"), ("x", "")], Ok(()));
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
        {
            check(a, &[(name, "x")], Err(Rule::ConnectionField));
        }
        check(a, &[("te", "trailers, gzip")], Err(Rule::ConnectionField));
        check(a, &[("x", " y")], Err(Rule::ValueSpace));
        check(a, &[("x", "y\t")], Err(Rule::ValueSpace));
        check("/x", &[], Err(Rule::HostMissing));
        check("/x", &[("host", "a")], Ok(()));
        check(a, &[("host", "b")], Err(Rule::HostTarget));
        check(a, &[("host", "a"), ("host", "a")], Err(Rule::HostRepeated));
        check("https://u@a/x", &[], Err(Rule::HostForm));
        check(a, &[("content-length", "5"), ("content-length", "5")], Err(Rule::LengthRepeated));
        check(a, &[("content-length", "+5")], Err(Rule::LengthForm));
        check(a, &[("content-length", "999999999999")], Err(Rule::BodyBytes));
        check(a, &[("expect", "x")], Err(Rule::Expect));
        check(&format!("https://a/{}", "x".repeat(8192)), &[], Err(Rule::UriBytes));
    }
}
