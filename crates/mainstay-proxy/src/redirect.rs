//! Sending a caller elsewhere.
//!
//! `Location` says only what changes (RFC 9110 §10.2.2, RFC 3986 §4.2): with neither scheme nor
//! host it is a path, with a host it begins with `//` and keeps the scheme the caller used.

use http::{HeaderValue, StatusCode};
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::rewrite::{PathRewrite, authority};
use crate::route::{Captures, PathPattern, View};

/// The `redirect` of a route as written. At least one of `scheme`, `host`, `port`, `prefix` and
/// `path`; at most one of `prefix` and `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRedirect {
    /// `http` or `https`. Default: the one the caller used.
    pub scheme: Option<String>,
    /// Host without port. Default: the one the caller named.
    pub host: Option<String>,
    /// Port, 1 to 65535. Default: that of the scheme, where scheme or host change.
    pub port: Option<u16>,
    /// Stands in place of the prefix that matched. Only for routes with `prefix`.
    pub prefix: Option<String>,
    /// The whole new path. `{NAME}` is a capture of the route's path; with `regex`, a group of
    /// that expression by name or number.
    pub path: Option<String>,
    /// Regular expression for the whole path, at most 1,024 bytes; a path that does not match
    /// stays as it is. Needs `path`.
    pub regex: Option<String>,
    /// 301, 302, 303, 307 or 308. Default 307: keeps the method, and can be taken back.
    pub status: Option<u16>,
    /// Whether the query goes along. Default `true`.
    pub keep_query: Option<bool>,
}

/// A redirect, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Status of the answer.
    pub status: StatusCode,
    scheme: Option<&'static str>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathRewrite>,
    keep_query: bool,
}

impl Redirect {
    /// Resolves the redirect of a route whose path is `pattern`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when a key is out of range, keys contradict each other, or nothing changes.
    pub fn new(raw: RawRedirect, pattern: &PathPattern) -> Result<Self, Invalid> {
        let scheme = match raw.scheme.as_deref() {
            None => None,
            Some("http") => Some("http"),
            Some("https") => Some("https"),
            Some(other) => {
                let problem = format!("must be `http` or `https`, found `{other}`");
                return Err(Invalid::range("scheme", problem));
            }
        };
        let host = raw.host.map(|host| {
            let port = host.rsplit_once(']').map_or(&*host, |(_, after)| after).contains(':');
            if port {
                return Err(Invalid::range("host", "must be without port; use `port`"));
            }
            authority("host", &host).map(|_legal| host.into_boxed_str())
        });
        let status = raw.status.unwrap_or(307);
        if ![301, 302, 303, 307, 308].contains(&status) {
            let problem = format!("must be 301, 302, 303, 307 or 308, found {status}");
            return Err(Invalid::range("status", problem));
        }
        if raw.port == Some(0) {
            return Err(Invalid::range("port", "must be 1 to 65535, found 0"));
        }
        let redirect = Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::TEMPORARY_REDIRECT),
            scheme,
            host: host.transpose()?,
            port: raw.port,
            path: PathRewrite::new(raw.prefix, raw.path, raw.regex, pattern)?,
            keep_query: raw.keep_query.unwrap_or(true),
        };
        if redirect.names_no_server() && redirect.path.is_none() {
            let problem = "must change one of `scheme`, `host`, `port`, `prefix` and `path`";
            return Err(Invalid::contradiction("scheme", problem));
        }
        Ok(redirect)
    }

    /// Value of `Location`, or `None` when it would be a path that servers may read in different
    /// ways, or the request has no host to return to.
    pub fn location(&self, view: &View<'_>, captures: &Captures) -> Option<HeaderValue> {
        let mut location = String::new();
        if !self.names_no_server() {
            if let Some(scheme) = self.scheme {
                location.push_str(scheme);
                location.push(':');
            }
            let host = self.host.as_deref().unwrap_or_else(|| view.hostname());
            if host.is_empty() {
                return None;
            }
            location.push_str("//");
            location.push_str(host);
            let standard = matches!(
                (self.scheme, self.port),
                (_, None) | (Some("http"), Some(80)) | (Some("https"), Some(443))
            );
            if !standard && let Some(port) = self.port {
                location.push(':');
                location.push_str(&port.to_string());
            }
        }
        match &self.path {
            Some(path) => location.push_str(&path.apply(view.path, captures)?),
            None => location.push_str(view.path),
        }
        if self.keep_query
            && let Some(query) = view.query
        {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::try_from(location).ok()
    }

    fn names_no_server(&self) -> bool {
        self.scheme.is_none() && self.host.is_none() && self.port.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, Method};

    use crate::route::Action;
    use crate::route::tests::{parse, route};

    use super::*;

    /// Redirects `GET //Shop.example:7480/old/x?a=1` by a route with `prefix = "/old"`.
    #[track_caller]
    fn check(redirect: &str, want: &str) {
        let route = route("r", &format!("prefix = '/old'\nredirect = {redirect}"));
        let Action::Redirect(redirect) = &route.action else { panic!("a redirect") };
        let view = View {
            host: "Shop.example:7480",
            method: &Method::GET,
            path: "/old/x",
            headers: &HeaderMap::new(),
            query: Some("a=1"),
            client: IpAddr::from([127, 0, 0, 1]),
        };
        let location = redirect.location(&view, &Captures::default()).expect("a location");
        let got = format!("{} {}", redirect.status.as_u16(), location.to_str().expect("text"));
        assert_eq!(got, want);
    }

    #[test]
    fn a_location_says_what_changes() {
        check("{ scheme = 'https', status = 308 }", "308 https://Shop.example/old/x?a=1");
        check("{ scheme = 'https', port = 443 }", "307 https://Shop.example/old/x?a=1");
        check("{ scheme = 'https', port = 7443 }", "307 https://Shop.example:7443/old/x?a=1");
        check("{ host = 'new.example' }", "307 //new.example/old/x?a=1");
        check("{ port = 8080 }", "307 //Shop.example:8080/old/x?a=1");
        check("{ prefix = '/new', status = 301 }", "301 /new/x?a=1");
        check("{ prefix = '/' }", "307 /x?a=1");
        check("{ path = '/gone', keep_query = false }", "307 /gone");
        check("{ regex = '/old/(.*)', path = '/n/{1}' }", "307 /n/x?a=1");
        check("{ host = '[::1]', scheme = 'http' }", "307 http://[::1]/old/x?a=1");
    }

    #[test]
    fn a_redirect_without_sense_is_refused() {
        for (redirect, path) in [
            ("{}", "redirect.scheme"),
            ("{ scheme = 'ftp' }", "redirect.scheme"),
            ("{ host = 'a:80' }", "redirect.host"),
            ("{ host = '[::1]:80' }", "redirect.host"),
            ("{ port = 0 }", "redirect.port"),
            ("{ path = '/a', status = 200 }", "redirect.status"),
            ("{ path = '//evil.example' }", "redirect.path"),
            ("{ path = '/{id}' }", "redirect.path"),
        ] {
            let text = format!("prefix = '/old'\nredirect = {redirect}");
            assert_eq!(parse("r", &text).expect_err(redirect).path, path);
        }
    }
}
