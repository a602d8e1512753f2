//! Makes a request fit the protocol of the connection it goes out on.
//!
//! What came in over one version may go out over the other: HTTP/2 carries the authority beside
//! the fields, HTTP/1 in `Host`; HTTP/1 has fields that speak of the connection and are an error
//! in HTTP/2 (RFC 9113 section 8.2.2).

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

/// Origin form, `Host`, version 1.1.
pub(super) fn http1<B>(request: &mut Request<B>, address: &str) {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_none() && request.headers().contains_key(HOST) {
        return;
    }
    if !request.headers().contains_key(HOST) {
        let host = request.uri().authority().map_or(address, Authority::as_str);
        if let Ok(host) = HeaderValue::from_str(host) {
            request.headers_mut().insert(HOST, host);
        }
    }
    if *request.method() != Method::CONNECT && request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
}

/// Absolute form, no `Host`, nothing that speaks of a connection; `te` only as `trailers`.
pub(super) fn http2<B>(request: &mut Request<B>, address: &str, tls: bool) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
        request.headers_mut().remove(name);
    }
    if request.headers().get(TE).is_some_and(|te| te != "trailers") {
        request.headers_mut().remove(TE);
    }
    if request.uri().authority().is_none() {
        let named = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = named.or_else(|| Authority::try_from(address).ok());
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

#[cfg(test)]
mod tests {
    use super::*;

    /// `GET uri` with `headers` becomes `want` and `host`.
    #[track_caller]
    fn check(
        fit: impl Fn(&mut Request<()>),
        uri: &str,
        host: Option<&str>,
        want: (&str, Option<&str>),
    ) {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let mut request = request.body(()).unwrap();
        fit(&mut request);
        let host = request.headers().get(HOST).map(|host| host.to_str().unwrap());
        assert_eq!((request.uri().to_string().as_str(), host), want, "{uri} {host:?}");
    }

    #[test]
    fn the_authority_stands_where_the_version_wants_it() {
        let one = |request: &mut Request<()>| http1(request, "10.0.0.7:80");
        check(one, "/a?b", Some("shop"), ("/a?b", Some("shop")));
        check(one, "http://shop/a?b", None, ("/a?b", Some("shop")));
        check(one, "http://shop/a", Some("shop"), ("/a", Some("shop")));
        check(one, "/a", None, ("/a", Some("10.0.0.7:80")));
        let two = |request: &mut Request<()>| http2(request, "10.0.0.7:80", false);
        check(two, "/a?b", Some("shop"), ("http://shop/a?b", None));
        check(two, "https://shop/a", None, ("https://shop/a", None));
        check(two, "/a", None, ("http://10.0.0.7:80/a", None));
    }
}
