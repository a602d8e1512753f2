//! Which paths a route is for, and what it captures of them.

use mainstay_resilience::Invalid;

use super::pattern::{PATTERN_BYTES_MAX, Pattern};
use super::view::triplet;

/// Captures one path may have. Eight ranges are 64 bytes, so they travel by value.
pub const CAPTURES_MAX: usize = 8;

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    /// Literals are in lower case when `ignore_case`.
    pub(crate) kind: Kind,
    pub(crate) ignore_case: bool,
    /// Names of what is captured, in the order of [`Captures`].
    pub(crate) names: Box<[Box<str>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regex(Pattern),
    /// Without a slash at the end; empty for every path.
    Prefix(Box<str>),
    /// What stands between the slashes; `None` captures one segment that is not empty.
    Template(Box<[Option<Box<str>>]>),
    Exact(Box<str>),
}

/// What a path captured: ranges of bytes in the judged path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captures([(u32, u32); CAPTURES_MAX]);

impl Default for Captures {
    fn default() -> Self {
        Self([NOTHING; CAPTURES_MAX])
    }
}

impl Captures {
    /// The part of `path` captured as number `index`, if any was.
    pub(crate) fn get<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        let (start, end) = *self.0.get(index)?;
        path.get(start as usize..end as usize)
    }

    fn set(&mut self, index: usize, start: usize, end: usize) {
        let range = u32::try_from(start).ok().zip(u32::try_from(end).ok());
        if let Some(slot) = self.0.get_mut(index) {
            *slot = range.unwrap_or(NOTHING);
        }
    }
}

/// The range of a group that took no part: beyond every path.
const NOTHING: (u32, u32) = (u32::MAX, u32::MAX);

impl PathPattern {
    /// Reads `path`: a template when it has captures such as `{id}`, else one exact path.
    ///
    /// # Errors
    ///
    /// [`Invalid`] at `path` when no judged path can look like this, or a capture is not a whole
    /// segment, has no proper name, or has one that was used before.
    pub fn path(text: &str, ignore_case: bool) -> Result<Self, Invalid> {
        let literal = literal("path", text, ignore_case)?;
        let mut names: Vec<Box<str>> = Vec::new();
        let mut segments = Vec::new();
        // Names keep their case even where the path does not.
        let written = normalise(text).unwrap_or_default();
        for (folded, segment) in segments_of(&literal).zip(segments_of(&written)) {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let Some(name) = name else {
                if segment.contains(['{', '}']) {
                    let problem = format!("a capture is a whole segment, found `{segment}`");
                    return Err(Invalid::range("path", problem));
                }
                segments.push(Some(folded.into()));
                continue;
            };
            if names.iter().any(|known| **known == *name) {
                return Err(Invalid::contradiction("path", format!("captures `{name}` twice")));
            }
            check_name("path", name)?;
            names.push(name.into());
            segments.push(None);
        }
        if CAPTURES_MAX < names.len() {
            return Err(Invalid::range(
                "path",
                format!("must have at most {CAPTURES_MAX} captures"),
            ));
        }
        let kind = if names.is_empty() {
            Kind::Exact(literal.into())
        } else {
            Kind::Template(segments.into())
        };
        Ok(Self { kind, ignore_case, names: names.into() })
    }

    /// Reads `prefix`; a slash at the end says nothing.
    ///
    /// # Errors
    ///
    /// [`Invalid`] at `prefix` when no judged path can begin like this.
    pub fn prefix(text: &str, ignore_case: bool) -> Result<Self, Invalid> {
        let literal = literal("prefix", text, ignore_case)?;
        if literal.contains(['{', '}']) {
            return Err(Invalid::range("prefix", "has no captures; use `path` or `regex`"));
        }
        let kind = Kind::Prefix(literal.strip_suffix('/').unwrap_or(&literal).into());
        Ok(Self { kind, ignore_case, names: Box::default() })
    }

    /// Reads `regex`; groups with a name are captures.
    ///
    /// # Errors
    ///
    /// [`Invalid`] at `regex` when it does not compile or has too many named groups.
    pub fn regex(text: &str, ignore_case: bool) -> Result<Self, Invalid> {
        let pattern = Pattern::new("regex", text, ignore_case)?;
        let names: Box<[Box<str>]> = pattern.group_names().map(|(_, name)| name.into()).collect();
        if CAPTURES_MAX < names.len() {
            let problem = format!("must have at most {CAPTURES_MAX} groups with a name");
            return Err(Invalid::range("regex", problem));
        }
        Ok(Self { kind: Kind::Regex(pattern), ignore_case, names })
    }

    /// Whether `path` is one of these; fills `captures` if so. Allocates only for a regular
    /// expression with named groups.
    pub fn matches(&self, path: &str, captures: &mut Captures) -> bool {
        match &self.kind {
            Kind::Exact(exact) => self.same(path, exact),
            Kind::Prefix(prefix) => {
                path.get(..prefix.len()).is_some_and(|head| self.same(head, prefix))
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            Kind::Template(segments) => self.fits(segments, path, captures),
            Kind::Regex(pattern) if self.names.is_empty() => pattern.is_match(path.as_bytes()),
            Kind::Regex(pattern) => {
                let Some(groups) = pattern.groups(path.as_bytes()) else { return false };
                for (index, (group, _)) in pattern.group_names().enumerate() {
                    if let Some((start, end)) = groups.get(group) {
                        captures.set(index, start, end);
                    }
                }
                true
            }
        }
    }

    fn fits(&self, segments: &[Option<Box<str>>], path: &str, captures: &mut Captures) -> bool {
        let Some(rest) = path.strip_prefix('/') else { return false };
        let (mut at, mut index, mut wanted) = (1, 0, segments.iter());
        for segment in rest.split('/') {
            match wanted.next() {
                Some(Some(literal)) if self.same(segment, literal) => (),
                Some(None) if !segment.is_empty() => {
                    captures.set(index, at, at + segment.len());
                    index += 1;
                }
                _ => return false,
            }
            at += segment.len() + 1;
        }
        wanted.next().is_none()
    }

    fn same(&self, text: &str, literal: &str) -> bool {
        if self.ignore_case { text.eq_ignore_ascii_case(literal) } else { text == literal }
    }

    /// Number of the capture `name`.
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| **known == *name)
    }

    /// An exact path, then a template by its literals, then a prefix by its length, then a
    /// regular expression.
    pub(crate) fn rank(&self) -> u64 {
        const CLASS: u64 = 2 * PATTERN_BYTES_MAX as u64;
        match &self.kind {
            Kind::Regex(_) => 0,
            Kind::Prefix(prefix) => 1 + prefix.len() as u64,
            Kind::Template(segments) => CLASS + segments.iter().flatten().count() as u64,
            Kind::Exact(_) => 2 * CLASS,
        }
    }

    /// Whether some path is of both patterns; both are of one rank.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let fold = self.ignore_case || other.ignore_case;
        let same = |a: &str, b: &str| if fold { a.eq_ignore_ascii_case(b) } else { a == b };
        match (&self.kind, &other.kind) {
            (Kind::Exact(a), Kind::Exact(b)) | (Kind::Prefix(a), Kind::Prefix(b)) => same(a, b),
            (Kind::Template(a), Kind::Template(b)) => {
                let meet = |pair: (&Option<Box<str>>, &Option<Box<str>>)| match pair {
                    (Some(a), Some(b)) => same(a, b),
                    (Some(literal), None) | (None, Some(literal)) => !literal.is_empty(),
                    (None, None) => true,
                };
                a.len() == b.len() && a.iter().zip(b).all(meet)
            }
            (Kind::Regex(a), Kind::Regex(b)) => a.meets(b),
            _ => false,
        }
    }
}

/// What stands between the slashes of `path`; nothing for a path that does not begin with one.
pub(crate) fn segments_of(path: &str) -> impl Iterator<Item = &str> + Clone {
    path.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/'))
}

/// Checks the name of a capture: a letter or `_`, then letters, digits and `_`.
pub(crate) fn check_name(path: &str, name: &str) -> Result<(), Invalid> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.bytes().all(word) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit()) {
        return Ok(());
    }
    let problem = format!("a capture is named by letters, digits and `_`, found `{name}`");
    Err(Invalid::range(path, problem))
}

/// Reads a literal path into the form paths are judged in.
pub(crate) fn literal(field: &str, text: &str, ignore_case: bool) -> Result<String, Invalid> {
    if PATTERN_BYTES_MAX < text.len() {
        return Err(Invalid::range(field, format!("must be at most {PATTERN_BYTES_MAX} bytes")));
    }
    let mut literal = normalise(text)
        .ok_or_else(|| Invalid::range(field, format!("`{text}` has a broken `%` triplet")))?;
    if !is_canonical(&literal) {
        let problem = format!(
            "must begin with `/` and have no empty, `.` or `..` segment, `?`, `#`, `\\` or control \
             byte, found `{text}`"
        );
        return Err(Invalid::range(field, problem));
    }
    if ignore_case {
        literal.make_ascii_lowercase();
    }
    Ok(literal)
}

/// Undoes triplets that need not be, writes the others in upper case, and adds those that must
/// be, so that people may write `/café` and `/a b`. `None` for a broken triplet.
fn normalise(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = if byte == b'%' { triplet(bytes.next()?, bytes.next()?)? } else { byte };
        if (byte == b'%' && !is_unreserved(decoded)) || byte == b' ' || !byte.is_ascii() {
            out.push('%');
            out.extend([decoded >> 4, decoded & 15].map(|digit| {
                char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase()
            }));
        } else {
            out.push(char::from(decoded));
        }
    }
    Some(out)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether `path` could be a judged path: what a pattern needs to be able to match, and a
/// rewritten path to be safe to send.
pub(crate) fn is_canonical(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !b"?#\\".contains(&b);
    let mut triplets = path.split('%').skip(1).map(str::as_bytes);
    let whole = |text: &[u8]| match *text {
        [high, low, ..] => triplet(high, low).is_some_and(|byte| {
            !is_unreserved(byte)
                && !byte.is_ascii_control()
                && byte != b'\\'
                && !high.is_ascii_lowercase()
                && !low.is_ascii_lowercase()
        }),
        _ => false,
    };
    let mut last_empty = false;
    let mut segments_ok = true;
    for segment in segments_of(path) {
        segments_ok &= !last_empty && segment != "." && segment != "..";
        last_empty = segment.is_empty();
    }
    path.starts_with('/') && path.bytes().all(plain) && triplets.all(whole) && segments_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Matches `path` against a pattern written `path:…`, `prefix:…` or `regex:…`, with a `~`
    /// before the colon to ignore case; the captures come as `name=value`.
    #[track_caller]
    fn check(pattern: &str, path: &str, want: Option<&str>) {
        let (kind, text) = pattern.split_once(':').expect("kind and text");
        let (kind, fold) = kind.strip_suffix('~').map_or((kind, false), |kind| (kind, true));
        let parsed = match kind {
            "path" => PathPattern::path(text, fold),
            "prefix" => PathPattern::prefix(text, fold),
            _ => PathPattern::regex(text, fold),
        }
        .expect("a legal pattern");
        let mut captures = Captures::default();
        let got = parsed.matches(path, &mut captures).then(|| {
            let named = parsed.names.iter().enumerate();
            let shown =
                named.map(|(at, name)| format!("{name}={}", captures.get(at, path).unwrap_or("-")));
            shown.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(got.as_deref(), want, "{pattern} {path}");
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        check("prefix:/api", "/api", Some(""));
        check("prefix:/api", "/api/", Some(""));
        check("prefix:/api", "/api/x", Some(""));
        check("prefix:/api", "/apix", None);
        check("prefix:/api/", "/api", Some(""));
        check("prefix:/", "/anything", Some(""));
        check("prefix:/admin", "/admin", Some(""));
        check("prefix:/admin", "/admin/x", Some(""));
        check("prefix:/admin", "/adminx", None);
        check("prefix:/admin", "/Admin", None);
        check("prefix~:/admin", "/Admin/x", Some(""));
    }

    #[test]
    fn a_capture_is_one_segment() {
        check("path:/orders/{id}", "/orders/7", Some("id=7"));
        check("path:/orders/{id}", "/orders/7/", None);
        check("path:/orders/{id}", "/orders/", None);
        check("path:/orders/{id}", "/orders", None);
        check("path:/orders/{id}/", "/orders/7/", Some("id=7"));
        check("path:/{a}/b/{c}", "/x/b/y%2Fz", Some("a=x c=y%2Fz"));
        check("path~:/Orders/{Id}", "/oRDERS/Ab", Some("Id=Ab"));
    }

    #[test]
    fn an_exact_path_is_itself() {
        check("path:/orders", "/orders", Some(""));
        check("path:/orders", "/orders/", None);
        check("path:/", "/", Some(""));
        check("path:/caf\u{e9}", "/caf%C3%A9", Some(""));
        check("path:/%7euser%2fx", "/~user%2Fx", Some(""));
    }

    #[test]
    fn a_group_with_a_name_is_a_capture() {
        check(r"regex:/v(?<version>\d+)/(.*)", "/v2/x", Some("version=2"));
        check(r"regex:/a(/(?<rest>.+))?", "/a", Some("rest=-"));
        check(r"regex~:/A\d", "/a1", Some(""));
        check(r"regex:/a\d", "/a12", None);
    }

    #[test]
    fn a_path_that_is_never_judged_is_refused() {
        for bad in [
            "",
            "orders",
            "/a//b",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/a?b",
            "/a#b",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/a%",
            "/a%zz",
            "/a{b}",
            "/{}",
            "/{1}",
            "/{a}/{a}",
            "/{a-b}",
            "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}",
            "/\n",
        ] {
            assert!(PathPattern::path(bad, false).is_err(), "{bad:?}");
        }
        for bad in ["", "a", "//", "/{a}", "/a/.."] {
            assert!(PathPattern::prefix(bad, false).is_err(), "{bad:?}");
        }
    }
}
