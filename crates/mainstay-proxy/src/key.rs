//! Parts of a key: by what a caller is told from other callers.
//!
//! Limits count by a key, hashing balancers place by one, and a weighted route keeps a caller on
//! one side by one. All three read it here, so that `header:x-user` means the same everywhere.
//!
//! A field that stands in a request more than once counts with all its values, joined by commas:
//! were the first or the last of them to win, a caller could choose whose key to use up.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;

use crate::route::{Captures, Route, View};

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// `client_address`: right-most address that is not one of our own proxies.
    ClientAddress,
    /// `principal`: who the caller proved to be.
    Principal,
    /// `tenant`: on whose behalf.
    Tenant,
    /// `service`: the one the call goes to.
    Service,
    /// `path`: the whole judged path.
    WholePath,
    /// `header:NAME`; letter case does not matter.
    Header(HeaderName),
    /// `path:NAME`: a capture of the route's path.
    Path(Box<str>),
    /// `query:NAME`: a query parameter, decoded once.
    Query(Box<str>),
    /// `cookie:NAME`.
    Cookie(Box<str>),
}

/// Where the parts of a key are read from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The request.
    pub view: &'a View<'a>,
    /// The route that matched it.
    pub route: &'a Route,
    /// What the route's path captured.
    pub captures: &'a Captures,
    /// The service it goes to, once that is decided.
    pub service: Option<&'a str>,
    /// Who the caller proved to be, if anybody.
    pub principal: Option<&'a str>,
    /// On whose behalf, if known.
    pub tenant: Option<&'a str>,
}

impl KeyPart {
    /// The value of this part, or `None` when the request does not have it.
    ///
    /// Copies only an address, a value with escapes in it, and a field that stands there twice.
    pub fn read<'a>(&'a self, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
        let view = facts.view;
        match self {
            Self::ClientAddress => Some(Cow::Owned(view.client.to_string())),
            Self::Principal => facts.principal.map(Cow::Borrowed),
            Self::Tenant => facts.tenant.map(Cow::Borrowed),
            Self::Service => facts.service.map(Cow::Borrowed),
            Self::WholePath => Some(Cow::Borrowed(view.path)),
            Self::Header(name) => {
                let fields = view.headers.get_all(name).into_iter();
                joined(fields.map(|field| String::from_utf8_lossy(field.as_bytes())))
            }
            Self::Path(name) => {
                facts.route.capture(facts.captures, view.path, name).map(Cow::Borrowed)
            }
            Self::Query(name) => joined(view.query_values(name)),
            Self::Cookie(name) => joined(view.cookie_values(name)),
        }
    }
}

impl FromStr for KeyPart {
    type Err = Invalid;

    /// Reads `client_address`, `header:x-user` and so on. The error's path is empty: only the
    /// reader of the table knows which key it was.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |problem: String| Invalid {
            path: String::new(),
            code: Code::ConfigOutOfRange,
            problem,
        };
        let part = match text.split_once(':') {
            None => match text {
                "client_address" => Self::ClientAddress,
                "principal" => Self::Principal,
                "tenant" => Self::Tenant,
                "service" => Self::Service,
                "path" => Self::WholePath,
                _ => return Err(wrong(format!("key part `{text}` is none of {PARTS}"))),
            },
            Some((_, "")) => return Err(wrong(format!("key part `{text}` names nothing"))),
            Some(("header", name)) => Self::Header(
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_illegal| wrong(format!("`{name}` is no name of a header field")))?,
            ),
            Some(("path", name)) => Self::Path(name.into()),
            Some(("query", name)) => Self::Query(name.into()),
            Some(("cookie", name)) => Self::Cookie(name.into()),
            Some(_) => return Err(wrong(format!("key part `{text}` is none of {PARTS}"))),
        };
        Ok(part)
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client_address"),
            Self::Principal => f.write_str("principal"),
            Self::Tenant => f.write_str("tenant"),
            Self::Service => f.write_str("service"),
            Self::WholePath => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

const PARTS: &str = "`client_address`, `principal`, `tenant`, `service`, `path`, `header:NAME`, \
                     `path:NAME`, `query:NAME`, `cookie:NAME`";

fn joined<'a>(mut values: impl Iterator<Item = Cow<'a, str>>) -> Option<Cow<'a, str>> {
    let mut all = values.next()?;
    for value in values {
        let text = all.to_mut();
        text.push(',');
        text.push_str(&value);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, Method};

    use crate::route::tests::route;

    use super::*;

    /// Reads `part` from one request that has everything at least once.
    #[track_caller]
    fn check(part: &str, want: Option<&str>) {
        let route = route("r", "path = '/users/{id}'\nto = 'user'");
        let mut headers = HeaderMap::new();
        headers.append("x-user", "ada".parse().expect("legal"));
        headers.append("x-twice", "a".parse().expect("legal"));
        headers.append("x-twice", "b".parse().expect("legal"));
        headers.append("cookie", "sid=77".parse().expect("legal"));
        let view = View {
            host: "shop.example",
            method: &Method::GET,
            path: "/users/7",
            headers: &headers,
            query: Some("q=a%20b&q=c"),
            client: IpAddr::from([10, 0, 0, 1]),
        };
        let mut captures = Captures::default();
        assert!(route.path.matches(view.path, &mut captures));
        let facts = Facts {
            view: &view,
            route: &route,
            captures: &captures,
            service: Some("user"),
            principal: None,
            tenant: Some("acme"),
        };
        let parsed: KeyPart = part.parse().expect("a legal part");
        assert_eq!(parsed.read(&facts).as_deref(), want, "{part}");
        assert_eq!(parsed.to_string().parse(), Ok(parsed));
    }

    #[test]
    fn every_part_is_read_from_its_place() {
        check("client_address", Some("10.0.0.1"));
        check("principal", None);
        check("tenant", Some("acme"));
        check("service", Some("user"));
        check("path", Some("/users/7"));
        check("header:X-User", Some("ada"));
        check("header:x-none", None);
        check("path:id", Some("7"));
        check("path:other", None);
        check("cookie:sid", Some("77"));
    }

    #[test]
    fn what_stands_there_twice_counts_twice() {
        check("header:x-twice", Some("a,b"));
        check("query:q", Some("a b,c"));
    }

    #[test]
    fn a_part_nobody_knows_is_refused() {
        for bad in ["", "ip", "header:", "header:a b", "body:x", "Header:x"] {
            assert!(bad.parse::<KeyPart>().is_err(), "{bad}");
        }
    }
}
