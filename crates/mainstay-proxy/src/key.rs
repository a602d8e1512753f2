//! Reading the parts of a key from a request.
//!
//! A field that stands in a request more than once counts with all its values, joined by commas:
//! were the first or the last of them to win, a caller could choose whose key to use up.

use std::borrow::Cow;

use mainstay_resilience::hash::Function;
use mainstay_resilience::key::KeyPart;

use crate::route::{Captures, Route, View};

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

impl<'a> Facts<'a> {
    /// The value of `part`, or `None` when the request does not have it.
    ///
    /// Copies only an address, a value with escapes in it, and a field that stands there twice.
    pub fn read(&self, part: &KeyPart) -> Option<Cow<'a, str>> {
        let view = self.view;
        match part {
            KeyPart::ClientAddress => Some(Cow::Owned(view.client.to_string())),
            KeyPart::Principal => self.principal.map(Cow::Borrowed),
            KeyPart::Tenant => self.tenant.map(Cow::Borrowed),
            KeyPart::Service => self.service.map(Cow::Borrowed),
            KeyPart::WholePath => Some(Cow::Borrowed(view.path)),
            KeyPart::Header(name) => {
                let fields = view.headers.get_all(&**name).into_iter();
                joined(fields.map(|field| String::from_utf8_lossy(field.as_bytes())))
            }
            KeyPart::Path(name) => {
                self.route.capture(self.captures, view.path, name).map(Cow::Borrowed)
            }
            KeyPart::Query(name) => joined(view.query_values(name)),
            KeyPart::Cookie(name) => joined(view.cookie_values(name)),
        }
    }

    /// The hash of `parts`, joined; `None` when the request has none of them, or all are empty.
    pub fn hash(&self, parts: &[KeyPart], function: Function) -> Option<u64> {
        function.hash_parts(parts, |part| self.read(part))
    }
}

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

    /// Shows `ask` the facts of one request that has everything at least once, but no principal.
    fn with_facts<T>(ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let route = route("r", "path = '/users/{id}'\nto = 'user'");
        let mut headers = HeaderMap::new();
        headers.append("x-user", "ada".parse().expect("legal"));
        headers.append("x-twice", "a".parse().expect("legal"));
        headers.append("x-twice", "b".parse().expect("legal"));
        headers.append("x-empty", "".parse().expect("legal"));
        headers.append("cookie", "sid=77".parse().expect("legal"));
        let view = View {
            host: "shop.example",
            method: &Method::GET,
            path: "/users/7",
            headers: &headers,
            query: Some("q=a%20b&q=c&plain=d"),
            client: IpAddr::from([10, 0, 0, 1]),
        };
        let mut captures = Captures::default();
        assert!(route.path.matches(view.path, &mut captures));
        ask(&Facts {
            view: &view,
            route: &route,
            captures: &captures,
            service: Some("user"),
            principal: None,
            tenant: Some("acme"),
        })
    }

    fn parse(part: &str) -> KeyPart {
        part.parse().expect("a legal part")
    }

    #[track_caller]
    fn check(part: &str, want: Option<&str>) {
        let got = with_facts(|facts| facts.read(&parse(part)).map(Cow::into_owned));
        assert_eq!(got.as_deref(), want, "{part}");
    }

    /// Hashes the parts named in `parts`; `want` is the text that has the same hash.
    #[track_caller]
    fn check_hash(parts: &str, want: Option<&str>) {
        let parts: Vec<KeyPart> = parts.split_whitespace().map(parse).collect();
        for function in [Function::Crc32, Function::Xxh64] {
            let got = with_facts(|facts| facts.hash(&parts, function));
            assert_eq!(got, want.map(|text| function.hash(text.as_bytes())), "{parts:?}");
        }
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
        check("header:x-empty", Some(""));
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
    fn what_stands_there_plainly_is_not_copied() {
        for part in
            ["tenant", "service", "path", "header:x-user", "path:id", "query:plain", "cookie:sid"]
        {
            let borrowed =
                with_facts(|facts| matches!(facts.read(&parse(part)), Some(Cow::Borrowed(_))));
            assert!(borrowed, "{part}");
        }
    }

    #[test]
    fn parts_are_joined_and_hashed() {
        check_hash("header:x-user", Some("ada"));
        check_hash("header:x-user path:id query:q", Some("ada7a b,c"));
        check_hash("header:x-none client_address header:x-empty", Some("10.0.0.1"));
        check_hash("header:x-none", None);
        check_hash("header:x-empty", None);
        check_hash("header:x-none header:x-empty", None);
        check_hash("", None);
    }
}
