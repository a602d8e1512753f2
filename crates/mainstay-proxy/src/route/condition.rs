//! Conditions on header fields and query parameters.
//!
//! A field or parameter may stand in a request more than once. A condition on its value holds
//! only if every occurrence meets it: then neither the first nor the last wins, and a request
//! cannot reach a route by saying one thing to us and another to the service behind.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderName;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::View;
use super::pattern::Pattern;

/// A condition as written: the exact value, or a table with one of four tests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawTest {
    /// The value is this text.
    Exact(String),
    /// One test by name.
    Named(RawNamedTest),
}

/// Exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawNamedTest {
    /// The value is this text; letter case counts.
    pub exact: Option<String>,
    /// The whole value matches this regular expression of at most 1,024 bytes.
    pub regex: Option<String>,
    /// `true`: it is there, whatever its value.
    pub present: Option<bool>,
    /// `true`: it is not there.
    pub absent: Option<bool>,
}

/// One condition, on one field or parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<Name> {
    /// Name of the field or parameter.
    pub name: Name,
    /// What must be true of its values.
    pub test: Test,
}

/// What must be true of all values of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// There is a value, and every one is this.
    Exact(Box<str>),
    /// There is a value, and every one matches as a whole.
    Regex(Pattern),
    /// There is a value.
    Present,
    /// There is none.
    Absent,
}

impl Test {
    /// Reads one test; `path` says where it stands.
    fn parse(path: &str, raw: RawTest) -> Result<Self, Invalid> {
        let named = match raw {
            RawTest::Exact(text) => return Ok(Self::Exact(text.into())),
            RawTest::Named(named) => named,
        };
        match (named.exact, named.regex, named.present, named.absent) {
            (Some(text), None, None, None) => Ok(Self::Exact(text.into())),
            (None, Some(text), None, None) => Ok(Self::Regex(Pattern::new(path, &text, false)?)),
            (None, None, Some(true), None) | (None, None, None, Some(false)) => Ok(Self::Present),
            (None, None, None, Some(true)) | (None, None, Some(false), None) => Ok(Self::Absent),
            _ => {
                let problem = "must be a text, or one of `exact`, `regex`, `present`, `absent`";
                Err(Invalid::contradiction(path, problem))
            }
        }
    }

    fn holds<V: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = V>) -> bool {
        let Some(first) = values.next() else { return *self == Self::Absent };
        match self {
            Self::Absent => false,
            Self::Present => true,
            Self::Exact(text) => {
                let same = |value: V| value.as_ref() == text.as_bytes();
                same(first) && values.all(same)
            }
            Self::Regex(pattern) => {
                let fits = |value: V| pattern.is_match(value.as_ref());
                fits(first) && values.all(fits)
            }
        }
    }

    /// Whether some values meet both.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) | (Self::Present, Self::Present) => true,
            (Self::Absent, _) | (_, Self::Absent) => false,
            (Self::Present, _) | (_, Self::Present) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Exact(text), Self::Regex(pattern))
            | (Self::Regex(pattern), Self::Exact(text)) => pattern.is_match(text.as_bytes()),
            (Self::Regex(a), Self::Regex(b)) => a.meets(b),
        }
    }
}

/// Reads the `headers` of a route.
pub(crate) fn headers(
    raw: BTreeMap<String, RawTest>,
) -> Result<Vec<Condition<HeaderName>>, Invalid> {
    let mut conditions: Vec<Condition<HeaderName>> = Vec::with_capacity(raw.len());
    for (name, test) in raw {
        let path = format!("headers.{name}");
        let test = Test::parse(&path, test)?;
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_illegal| Invalid::range(&path, "this is no name of a header field"))?;
        if conditions.iter().any(|known| known.name == name) {
            return Err(Invalid::contradiction(
                path,
                "stands here twice, in different letter case",
            ));
        }
        conditions.push(Condition { name, test });
    }
    Ok(conditions)
}

/// Reads the `query` of a route.
pub(crate) fn query(raw: BTreeMap<String, RawTest>) -> Result<Vec<Condition<Box<str>>>, Invalid> {
    let parse = |(name, test): (String, RawTest)| {
        let test = Test::parse(&format!("query.{name}"), test)?;
        Ok(Condition { name: name.into(), test })
    };
    raw.into_iter().map(parse).collect()
}

/// Whether the request meets all conditions on its header fields.
pub(crate) fn headers_hold(conditions: &[Condition<HeaderName>], view: &View<'_>) -> bool {
    conditions.iter().all(|c| c.test.holds(view.headers.get_all(&c.name).into_iter()))
}

/// Whether the request meets all conditions on its query.
pub(crate) fn query_holds(conditions: &[Condition<Box<str>>], view: &View<'_>) -> bool {
    conditions.iter().all(|c| c.test.holds(view.query_values(&c.name).map(Text)))
}

/// A decoded value, looked at as bytes.
struct Text<'a>(Cow<'a, str>);

impl AsRef<[u8]> for Text<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Whether some request meets both lists.
pub(crate) fn meet<N: PartialEq>(a: &[Condition<N>], b: &[Condition<N>]) -> bool {
    let twin = |c: &Condition<N>| b.iter().find(|other| other.name == c.name);
    a.iter().all(|c| twin(c).is_none_or(|other| c.test.meets(&other.test)))
}
