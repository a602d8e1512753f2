//! What a route changes in the path and host of a request before sending it on.
//!
//! A rewrite starts from the path that was judged, not from the bytes that came: what a policy
//! permitted is what is sent. Parameters behind `;` and doubled slashes, which other routes pass
//! on, therefore end here. The result is checked again; a regular expression that cuts a path so
//! that servers could read it in two ways makes no path at all.

pub mod headers;
pub(crate) mod text;

use http::HeaderValue;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::route::path::{Kind, is_canonical, literal};
use crate::route::pattern::Pattern;
use crate::route::{Captures, PathPattern};

use text::Part;

/// The `rewrite` of a route as written. At most one of `prefix` and `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRewrite {
    /// Stands in place of the prefix that matched. Only for routes with `prefix`.
    pub prefix: Option<String>,
    /// The whole new path. `{NAME}` is a capture of the route's path; with `regex`, a group of
    /// that expression by name or number.
    pub path: Option<String>,
    /// Regular expression for the whole path, at most 1,024 bytes; a path that does not match
    /// stays as it is. Needs `path`.
    pub regex: Option<String>,
    /// Host, with port if need be, that the service is told. Default: the one the caller named.
    pub host: Option<String>,
}

/// What a route changes before sending on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    /// How the path changes.
    pub path: Option<PathRewrite>,
    /// Value of `Host` or `:authority`.
    pub host: Option<HeaderValue>,
}

impl Rewrite {
    /// Resolves the rewrite of a route whose path is `pattern`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when keys contradict each other or the route, for a placeholder that nothing
    /// captures, and for a path or host that cannot be sent.
    pub fn new(raw: RawRewrite, pattern: &PathPattern) -> Result<Self, Invalid> {
        let host = raw.host.map(|host| authority("host", &host)).transpose()?;
        Ok(Self { path: PathRewrite::new(raw.prefix, raw.path, raw.regex, pattern)?, host })
    }
}

/// How a path changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The prefix that matched is replaced.
    Prefix {
        /// Bytes of the path that the prefix took.
        matched: usize,
        /// What stands there instead; without a slash at the end.
        with: Box<str>,
    },
    /// The path is built anew from captures.
    Template(Template),
    /// A path that matches is built anew from the groups of an expression.
    Regex(Box<(Pattern, Template)>),
}

/// A path with numbered holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<[Part<usize>]>);

impl PathRewrite {
    /// Resolves the keys `prefix`, `path` and `regex` of a rewrite or redirect.
    ///
    /// # Errors
    ///
    /// [`Invalid`] at the key that is wrong.
    pub(crate) fn new(
        prefix: Option<String>,
        path: Option<String>,
        regex: Option<String>,
        pattern: &PathPattern,
    ) -> Result<Option<Self>, Invalid> {
        Ok(Some(match (prefix, path, regex) {
            (None, None, None) => return Ok(None),
            (Some(with), None, None) => {
                let Kind::Prefix(matched) = &pattern.kind else {
                    let problem = "the route has no `prefix` to replace; use `path`";
                    return Err(Invalid::contradiction("prefix", problem));
                };
                let with = literal("prefix", &with, false)?;
                let with = with.strip_suffix('/').unwrap_or(&with).into();
                Self::Prefix { matched: matched.len(), with }
            }
            (None, Some(path), None) => {
                let names = pattern.names.iter().map(|name| &**name).enumerate();
                Self::Template(Template::parse(&path, &names.collect::<Vec<_>>())?)
            }
            (None, Some(path), Some(regex)) => {
                let regex = Pattern::new("regex", &regex, pattern.ignore_case)?;
                let numbers: Vec<_> = (0..regex.groups_len()).map(|n| n.to_string()).collect();
                let numbered = numbers.iter().map(String::as_str).enumerate();
                let known: Vec<_> = numbered.chain(regex.group_names()).collect();
                let template = Template::parse(&path, &known)?;
                Self::Regex(Box::new((regex, template)))
            }
            (None, None, Some(_)) => {
                return Err(Invalid::contradiction("regex", "needs `path`: what to make of it"));
            }
            (Some(_), ..) => {
                let problem = "must not stand beside `path` or `regex`";
                return Err(Invalid::contradiction("prefix", problem));
            }
        }))
    }

    /// The new path for a judged `path` with these `captures`, or `None` when it would be one
    /// that servers may read in different ways; answer such a request with `path-ambiguous`.
    pub fn apply(&self, path: &str, captures: &Captures) -> Option<String> {
        let built = match self {
            Self::Prefix { matched, with } => {
                let rest = path.get(*matched..)?;
                // `/` in place of the whole path; else the rest brings its slash along.
                if with.is_empty() && rest.is_empty() {
                    "/".to_owned()
                } else {
                    with.to_string() + rest
                }
            }
            Self::Template(template) => template.fill(|index| captures.get(index, path)),
            Self::Regex(rule) => {
                let (pattern, template) = &**rule;
                let Some(groups) = pattern.groups(path.as_bytes()) else {
                    return Some(path.to_owned());
                };
                template.fill(|group| groups.get(group).and_then(|(from, to)| path.get(from..to)))
            }
        };
        is_canonical(&built).then_some(built)
    }
}

impl Template {
    /// Reads a path whose holes are named in `known`.
    fn parse(text: &str, known: &[(usize, &str)]) -> Result<Self, Invalid> {
        let text = literal("path", text, false)?;
        let number = |name: &str| {
            let found = known.iter().find(|(_, known)| *known == name);
            found
                .map(|(index, _)| *index)
                .ok_or_else(|| text::list(known.iter().map(|(_, name)| *name)))
        };
        Ok(Self(text::parse("path", &text, number)?.into()))
    }

    fn fill<'p>(&self, value: impl Fn(usize) -> Option<&'p str>) -> String {
        let piece = |part| match part {
            &Part::Placeholder(index) => value(index).unwrap_or_default(),
            Part::Literal(text) => text,
        };
        let mut path = String::new();
        self.0.iter().for_each(|part| path.push_str(piece(part)));
        path
    }
}

/// Reads `name` or `name:port` as it stands in `Host`.
pub(crate) fn authority(path: &str, text: &str) -> Result<HeaderValue, Invalid> {
    let parsed = text.parse::<http::uri::Authority>().ok();
    let legal = parsed.is_some_and(|authority| {
        !text.contains('@') && !authority.host().is_empty() && !text.ends_with(':')
    });
    legal.then(|| HeaderValue::from_str(text).ok()).flatten().ok_or_else(|| {
        Invalid::range(path, format!("must be `name` or `name:port`, found `{text}`"))
    })
}

#[cfg(test)]
mod tests {
    use crate::route::tests::{parse, route};

    use super::*;

    /// Rewrites `path` by a route with this `matcher` and `rewrite`.
    #[track_caller]
    fn check(matcher: &str, rewrite: &str, path: &str, want: Option<&str>) {
        let route = route("r", &format!("{matcher}\nto = 's'\nrewrite = {rewrite}"));
        let mut captures = Captures::default();
        assert!(route.path.matches(path, &mut captures), "{matcher} {path}");
        let rewrite = route.rewrite.path.as_ref().expect("a path is rewritten");
        assert_eq!(rewrite.apply(path, &captures).as_deref(), want, "{rewrite:?} {path}");
    }

    #[test]
    fn a_prefix_is_replaced() {
        let orders = "prefix = '/orders'";
        check(orders, "{ prefix = '/v1/orders' }", "/orders", Some("/v1/orders"));
        check(orders, "{ prefix = '/v1/orders' }", "/orders/7", Some("/v1/orders/7"));
        check(orders, "{ prefix = '/v1/orders/' }", "/orders/7", Some("/v1/orders/7"));
        check(orders, "{ prefix = '/' }", "/orders", Some("/"));
        check(orders, "{ prefix = '/' }", "/orders/", Some("/"));
        check(orders, "{ prefix = '/' }", "/orders/7", Some("/7"));
        check("prefix = '/'", "{ prefix = '/api' }", "/x", Some("/api/x"));
        check("", "{ prefix = '/api' }", "/", Some("/api/"));
        check("prefix = '/a'\nignore_case = true", "{ prefix = '/B' }", "/A/C", Some("/B/C"));
    }

    #[test]
    fn a_template_takes_captures() {
        let user = "path = '/users/{id}/{part}'";
        check(user, "{ path = '/v2/{part}/of/{id}' }", "/users/7/cart", Some("/v2/cart/of/7"));
        check(user, "{ path = '/u-{id}.json' }", "/users/7/x", Some("/u-7.json"));
        check(user, "{ path = '/fixed' }", "/users/7/x", Some("/fixed"));
        check("regex = '/v(?<n>[0-9]+)/.*'", "{ path = '/n/{n}' }", "/v12/x", Some("/n/12"));
    }

    #[test]
    fn an_expression_takes_its_groups() {
        let any = "prefix = '/'";
        let move_tail = "{ regex = '/a/(.*)', path = '/b/{1}' }";
        check(any, move_tail, "/a/x/y", Some("/b/x/y"));
        check(any, move_tail, "/c/x", Some("/c/x"));
        check(any, "{ regex = '/a/(?<rest>.*)', path = '/{rest}' }", "/a/x", Some("/x"));
        check(any, "{ regex = '/a(/x)?', path = '/b{1}' }", "/a", Some("/b"));
    }

    #[test]
    fn a_path_that_could_be_read_twice_is_not_made() {
        let any = "prefix = '/'";
        check(any, "{ regex = '/a(.*)', path = '/.{1}' }", "/a./b", None);
        check(any, "{ regex = '/a(.*)', path = '/{1}' }", "/a/b", None);
        check(any, "{ regex = '/(.{3}).*', path = '/{1}' }", "/a%C3%A9", None);
    }

    #[test]
    fn a_rewrite_without_sense_is_refused() {
        let orders = "prefix = '/orders'";
        for (matcher, rewrite, path) in [
            ("path = '/orders'", "{ prefix = '/x' }", "rewrite.prefix"),
            (orders, "{ prefix = 'x' }", "rewrite.prefix"),
            (orders, "{ prefix = '/x', path = '/y' }", "rewrite.prefix"),
            (orders, "{ path = '/{id}' }", "rewrite.path"),
            (orders, "{ path = '/a/../b' }", "rewrite.path"),
            (orders, "{ regex = '/a' }", "rewrite.regex"),
            (orders, "{ regex = '(', path = '/a' }", "rewrite.regex"),
            (orders, "{ regex = '/(a)', path = '/{2}' }", "rewrite.path"),
            (orders, "{ host = 'a b' }", "rewrite.host"),
            (orders, "{ host = 'user@a' }", "rewrite.host"),
        ] {
            let text = format!("{matcher}\nto = 's'\nrewrite = {rewrite}");
            assert_eq!(parse("r", &text).expect_err(rewrite).path, path, "{rewrite}");
        }
    }
}
