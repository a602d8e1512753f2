//! What a route changes in header fields.
//!
//! Fields are removed first, then set, then added. Fields that frame a message or belong to one
//! connection are not open to rules, and neither are those by which Mainstay speaks for itself:
//! a rule must not be able to break a message in two or to forge who a caller is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::text::{self, Part};
use crate::route::{Captures, PathPattern, Route};

/// The `header_rules` of a route as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHeaderRules {
    /// Changes to the request before it is sent on.
    pub request: Option<RawHeaderEdit>,
    /// Changes to the response before it is sent back.
    pub response: Option<RawHeaderEdit>,
}

/// Changes to one message: `remove` before `set` before `add`.
///
/// Values may hold `{client_address}`, `{host}`, `{route}`, `{request_id}` and, for a capture of
/// the route's path, `{path.NAME}`; `{{` and `}}` stand for braces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHeaderEdit {
    /// Fields that get this one value, whatever they had. Default none.
    pub set: Option<BTreeMap<String, String>>,
    /// Fields that get one value more. Default none.
    pub add: Option<BTreeMap<String, String>>,
    /// Fields that are taken away. Default none.
    pub remove: Option<Vec<String>>,
}

/// What a route changes in header fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderRules {
    /// Changes to the request.
    pub request: HeaderEdit,
    /// Changes to the response.
    pub response: HeaderEdit,
}

/// Changes to one message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdit {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, Value)]>,
    add: Box<[(HeaderName, Value)]>,
}

/// What placeholders are filled with.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// Right-most address that is not one of our own proxies.
    pub client: IpAddr,
    /// Host of the request, without port.
    pub host: &'a str,
    /// The route that matched.
    pub route: &'a Route,
    /// Identifies the request in logs of both sides.
    pub request_id: &'a str,
    /// The judged path.
    pub path: &'a str,
    /// What the route captured of it.
    pub captures: &'a Captures,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// Costs a counter to copy.
    Fixed(HeaderValue),
    Filled(Box<[Part<Placeholder>]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    ClientAddress,
    Host,
    Route,
    RequestId,
    Capture(usize),
}

impl HeaderRules {
    /// Resolves the rules of a route whose path is `path`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a name that is none or is not open to rules, and for a value that cannot
    /// stand in a header or has a placeholder nobody knows.
    pub fn new(raw: RawHeaderRules, path: &PathPattern) -> Result<Self, Invalid> {
        let edit = |table: &str, raw: Option<RawHeaderEdit>| {
            HeaderEdit::new(raw.unwrap_or_default(), path).map_err(|error| error.within(table))
        };
        Ok(Self {
            request: edit("request", raw.request)?,
            response: edit("response", raw.response)?,
        })
    }
}

impl HeaderEdit {
    fn new(raw: RawHeaderEdit, path: &PathPattern) -> Result<Self, Invalid> {
        let fields = |table: &str, raw: Option<BTreeMap<String, String>>| {
            let parse = |(name, value): (String, String)| {
                let place = format!("{table}.{name}");
                Ok((field(&place, &name)?, Value::parse(&place, &value, path)?))
            };
            raw.unwrap_or_default().into_iter().map(parse).collect::<Result<Box<[_]>, Invalid>>()
        };
        let names = raw.remove.unwrap_or_default();
        let remove = names.iter().enumerate();
        Ok(Self {
            remove: remove
                .map(|(at, name)| field(&format!("remove[{at}]"), name))
                .collect::<Result<_, _>>()?,
            set: fields("set", raw.set)?,
            add: fields("add", raw.add)?,
        })
    }

    /// Changes `headers`. A field whose filled value cannot stand in a header is taken away.
    pub fn apply(&self, headers: &mut HeaderMap, values: &Values<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            match value.fill(values) {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.fill(values) {
                headers.append(name, value);
            }
        }
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

impl Value {
    fn parse(place: &str, text: &str, path: &PathPattern) -> Result<Self, Invalid> {
        let known = |name: &str| match name {
            "client_address" => Ok(Placeholder::ClientAddress),
            "host" => Ok(Placeholder::Host),
            "route" => Ok(Placeholder::Route),
            "request_id" => Ok(Placeholder::RequestId),
            _ => name
                .strip_prefix("path.")
                .and_then(|capture| path.index(capture))
                .map(Placeholder::Capture)
                .ok_or_else(|| {
                    let fixed = ["client_address", "host", "route", "request_id"];
                    let captures: Vec<_> = path.names.iter().map(|n| format!("path.{n}")).collect();
                    text::list(fixed.into_iter().chain(captures.iter().map(String::as_str)))
                }),
        };
        let parts = text::parse(place, text, known)?;
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_illegal| Invalid::range(place, "cannot stand in a header field"))
        };
        for part in &parts {
            if let Part::Literal(text) = part {
                header(text)?;
            }
        }
        match &*parts {
            [] => Ok(Self::Fixed(HeaderValue::from_static(""))),
            [Part::Literal(text)] => Ok(Self::Fixed(header(text)?)),
            _ => Ok(Self::Filled(parts.into())),
        }
    }

    fn fill(&self, values: &Values<'_>) -> Option<HeaderValue> {
        let parts = match self {
            Self::Fixed(value) => return Some(value.clone()),
            Self::Filled(parts) => parts,
        };
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(Placeholder::ClientAddress) => {
                    write!(text, "{}", values.client).ok()?;
                }
                Part::Placeholder(Placeholder::Host) => text.push_str(values.host),
                Part::Placeholder(Placeholder::Route) => text.push_str(values.route.name.as_str()),
                Part::Placeholder(Placeholder::RequestId) => text.push_str(values.request_id),
                Part::Placeholder(Placeholder::Capture(index)) => {
                    text.push_str(values.captures.get(*index, values.path).unwrap_or_default());
                }
            }
        }
        HeaderValue::try_from(text).ok()
    }
}

/// Reads a name that is open to rules.
pub(crate) fn field(place: &str, name: &str) -> Result<HeaderName, Invalid> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_illegal| Invalid::range(place, format!("`{name}` is no name of a field")))?;
    let text = name.as_str();
    if text == "host" {
        return Err(Invalid::contradiction(place, "use `rewrite.host` to change the host"));
    }
    if CLOSED.contains(&text) || text.starts_with("mainstay-") || text.starts_with("x-mainstay-") {
        let problem = format!("`{text}` is not open to rules: Mainstay sets it");
        return Err(Invalid::contradiction(place, problem));
    }
    Ok(name)
}

/// Fields that frame a message or belong to one connection (RFC 9110 §7.6.1, RFC 9112 §6).
const CLOSED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
];

#[cfg(test)]
mod tests {
    use crate::route::tests::{parse, route};

    use super::*;

    /// Applies `rules` to a request with `a: 1` and `b: 2`.
    #[track_caller]
    fn check(rules: &str, want: &str) {
        let text = format!("path = '/u/{{id}}'\nto = 's'\nheader_rules.request = {rules}");
        let route = route("users", &text);
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("b", HeaderValue::from_static("2"));
        let mut captures = Captures::default();
        assert!(route.path.matches("/u/7", &mut captures));
        let values = Values {
            client: IpAddr::from([10, 0, 0, 1]),
            host: "shop.example",
            route: &route,
            request_id: "r-1",
            path: "/u/7",
            captures: &captures,
        };
        route.header_rules.request.apply(&mut headers, &values);
        let mut got: Vec<_> =
            headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().expect("text"))).collect();
        got.sort();
        assert_eq!(got.join(", "), want, "{rules}");
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        check("{}", "a: 1, b: 2");
        check("{ remove = ['A'] }", "b: 2");
        check("{ set = { a = '9', c = '' } }", "a: 9, b: 2, c: ");
        check("{ add = { a = '9' } }", "a: 1, a: 9, b: 2");
        check("{ remove = ['b'], set = { b = '8' }, add = { b = '9' } }", "a: 1, b: 8, b: 9");
    }

    #[test]
    fn placeholders_come_from_a_fixed_list() {
        check("{ remove = ['a', 'b'], set = { x = '{client_address}' } }", "x: 10.0.0.1");
        check("{ remove = ['a', 'b'], set = { x = '{host}/{route}' } }", "x: shop.example/users");
        check("{ remove = ['a', 'b'], set = { x = '<{request_id}>' } }", "x: <r-1>");
        check("{ remove = ['a', 'b'], set = { x = 'u-{path.id}' } }", "x: u-7");
        check("{ remove = ['a', 'b'], set = { x = '{{host}}' } }", "x: {host}");
    }

    #[test]
    fn what_is_not_open_to_rules_is_refused() {
        for (rules, path) in [
            ("{ set = { x = '{query}' } }", "header_rules.request.set.x"),
            ("{ set = { x = '{path.other}' } }", "header_rules.request.set.x"),
            ("{ set = { x = '{host' } }", "header_rules.request.set.x"),
            ("{ set = { x = \"a\\nb\" } }", "header_rules.request.set.x"),
            ("{ set = { host = 'a' } }", "header_rules.request.set.host"),
            ("{ add = { Content-Length = '1' } }", "header_rules.request.add.Content-Length"),
            ("{ set = { mainstay-attempt = '1' } }", "header_rules.request.set.mainstay-attempt"),
            ("{ remove = ['a', 'Connection'] }", "header_rules.request.remove[1]"),
            ("{ remove = ['a b'] }", "header_rules.request.remove[0]"),
        ] {
            let text = format!("path = '/u/{{id}}'\nto = 's'\nheader_rules.request = {rules}");
            assert_eq!(parse("r", &text).expect_err(rules).path, path);
        }
    }
}
