//! Anchored regular expressions, and whether two of them have anything in common.
//!
//! Matching is linear in the text (Thompson's construction, by the `regex` crate); an expression
//! that would need more than a mebibyte compiled is refused. Classes are ASCII: judged paths are.
//!
//! Whether two expressions share a text is decided exactly, by looking for a pair of accepting
//! states that both automata can reach on the same bytes (product construction, Rabin and Scott,
//! 1959). Where that would take too long the answer is yes, which asks the author for one more
//! condition and never lets two routes compete in silence.

use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

use mainstay_resilience::Invalid;
use regex::bytes::{CaptureLocations, Regex, RegexBuilder};
use regex_automata::nfa::thompson::{self, NFA, State, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;

/// A regular expression that must match the whole text.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    ignore_case: bool,
    leading_bytes: usize,
    regex: Regex,
    /// Made when it is first compared with another; `None` where it grows too large.
    automaton: OnceLock<Option<NFA>>,
}

impl Pattern {
    /// Compiles `text`; `path` says where it stands.
    ///
    /// # Errors
    ///
    /// [`Invalid`] at `path` when it is no regular expression, longer than [`PATTERN_BYTES_MAX`],
    /// or too large once compiled.
    pub fn new(path: &str, text: &str, ignore_case: bool) -> Result<Self, Invalid> {
        if PATTERN_BYTES_MAX < text.len() {
            return Err(Invalid::range(path, format!("must be at most {PATTERN_BYTES_MAX} bytes")));
        }
        let compile = |text: &str| {
            RegexBuilder::new(text)
                .unicode(false)
                .case_insensitive(ignore_case)
                .size_limit(COMPILED_BYTES_MAX)
                .build()
                .map_err(|error| Invalid::range(path, format!("no regular expression: {error}")))
        };
        // Alone first: `a)|(b` would only be balanced inside the anchors, and escape them.
        compile(text)?;
        let regex = compile(&format!(r"\A(?:{text})\z"))?;
        let leading_bytes = leading_bytes(text);
        Ok(Self {
            text: text.into(),
            ignore_case,
            leading_bytes,
            regex,
            automaton: OnceLock::new(),
        })
    }

    /// Whether all of `text` matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// Names of the groups that have one, with their numbers.
    pub(crate) fn group_names(&self) -> impl Iterator<Item = (usize, &str)> {
        self.regex.capture_names().enumerate().filter_map(|(at, name)| Some((at, name?)))
    }

    /// Where each group stands in `text`, if all of it matches.
    pub(crate) fn groups(&self, text: &[u8]) -> Option<CaptureLocations> {
        let mut places = self.regex.capture_locations();
        self.regex.captures_read(&mut places, text).map(|_| places)
    }

    /// How many groups there are, the whole match included.
    pub(crate) fn groups_len(&self) -> usize {
        self.regex.captures_len()
    }

    /// Text that every match begins with; may be shorter than it could be.
    pub(crate) fn leading(&self) -> &str {
        self.text.get(..self.leading_bytes).unwrap_or_default()
    }

    /// Whether some text matches both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let fold = self.ignore_case || other.ignore_case;
        let mut begin = self.leading().bytes().zip(other.leading().bytes());
        if !begin.all(|(a, b)| if fold { a.eq_ignore_ascii_case(&b) } else { a == b }) {
            return false;
        }
        match (self.automaton(), other.automaton()) {
            (Some(a), Some(b)) => meet(a, b),
            _ => true,
        }
    }

    fn automaton(&self) -> Option<&NFA> {
        let build = || {
            let syntax =
                syntax::Config::new().unicode(false).utf8(false).case_insensitive(self.ignore_case);
            let config = thompson::Config::new()
                .utf8(false)
                .which_captures(WhichCaptures::None)
                .nfa_size_limit(Some(COMPILED_BYTES_MAX));
            thompson::Compiler::new().syntax(syntax).configure(config).build(&self.text).ok()
        };
        self.automaton.get_or_init(build).as_ref()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.text, if self.ignore_case { "i" } else { "" })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.ignore_case == other.ignore_case
    }
}

impl Eq for Pattern {}

/// Longest pattern of a route, in bytes: an eighth of the longest request target, far more than
/// anybody can read.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// Most memory one compiled expression may take, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Pairs of states looked at before two expressions count as overlapping: a quarter of a million
/// pairs take some tens of milliseconds, and two hand-written paths need a few hundred.
const PAIRS_MAX: usize = 1 << 18;

/// How much of `text` is plain: every match begins with that.
fn leading_bytes(text: &str) -> usize {
    if has_alternatives(text) {
        return 0;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_~%&=@:,;!'".contains(&b);
    let end = text.bytes().position(|b| !plain(b)).unwrap_or(text.len());
    let repeated = matches!(text.as_bytes().get(end), Some(b'?' | b'*' | b'+' | b'{'));
    end.saturating_sub(usize::from(repeated))
}

/// Whether `text` may have a `|` outside of groups. Parentheses within classes and comments are
/// not told from others, so with either about, any `|` is taken for one.
fn has_alternatives(text: &str) -> bool {
    if text.contains('|') && text.contains(['[', '#']) {
        return true;
    }
    let (mut depth, mut bytes) = (0_u32, text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => return true,
            _ => (),
        }
    }
    false
}

/// Whether both automata accept a common text. Look-around counts as holding: for expressions
/// with `\b` inside the answer may be yes without need.
fn meet(a: &NFA, b: &NFA) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(a.start_anchored(), b.start_anchored())];
    while let Some(pair) = open.pop() {
        if !seen.insert(pair) {
            continue;
        }
        if PAIRS_MAX < seen.len() {
            return true;
        }
        let (left, right) = (a.state(pair.0), b.state(pair.1));
        if let Some(next) = silent(left) {
            open.extend(next.into_iter().map(|id| (id, pair.1)));
        } else if let Some(next) = silent(right) {
            open.extend(next.into_iter().map(|id| (pair.0, id)));
        } else if matches!((left, right), (State::Match { .. }, State::Match { .. })) {
            return true;
        } else {
            let steps = bytes(right);
            for (from, to, left) in bytes(left) {
                let common = steps.iter().filter(|step| step.0 <= to && from <= step.1);
                open.extend(common.map(|step| (left, step.2)));
            }
        }
    }
    false
}

/// Where a state leads without reading anything, if it is of that kind.
fn silent(state: &State) -> Option<Vec<StateID>> {
    match state {
        State::Look { next, .. } | State::Capture { next, .. } => Some(vec![*next]),
        State::Union { alternates } => Some(alternates.to_vec()),
        State::BinaryUnion { alt1, alt2 } => Some(vec![*alt1, *alt2]),
        _ => None,
    }
}

/// Where a state leads on which range of bytes.
fn bytes(state: &State) -> Vec<(u8, u8, StateID)> {
    match state {
        State::ByteRange { trans } => vec![(trans.start, trans.end, trans.next)],
        State::Sparse(sparse) => {
            sparse.transitions.iter().map(|t| (t.start, t.end, t.next)).collect()
        }
        State::Dense(dense) => {
            (0..=u8::MAX).filter_map(|b| Some((b, b, dense.matches_byte(b)?))).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new("regex", text, false).expect("a legal expression")
    }

    #[test]
    fn the_whole_text_must_match() {
        for (text, path, want) in [
            ("/a.*", "/ab", true),
            ("/a", "/ab", false),
            ("a|/b", "/b", true),
            ("/a|b", "/ac", false),
            (r"/\d+", "/٣", false),
            ("(?i)/A", "/a", true),
            ("^/a$", "/a", true),
        ] {
            assert_eq!(pattern(text).is_match(path.as_bytes()), want, "{text} {path}");
        }
    }

    #[test]
    fn an_expression_cannot_leave_its_anchors() {
        for bad in ["a)|(b", "(", "(?x)a # c", r"(a{1000}){1000}", &"a".repeat(1025), r"(a)\1"] {
            assert_eq!(Pattern::new("regex", bad, false).expect_err(bad).path, "regex");
        }
    }

    #[test]
    fn leading_text_is_never_too_long() {
        for (text, want) in [
            ("/api/v[12]/.*", "/api/v"),
            ("/api/?", "/api"),
            ("/a|/b", ""),
            ("(/a|/b)/c", ""),
            ("/a(b|c)", "/a"),
            ("(?i)/a", ""),
            (r"/a\(|/b", ""),
            ("/a[(]|/b", ""),
            ("/a(?x) # (\n|/b", ""),
            (r"/a\d(x|y)", "/a"),
            (r"/a\.b", "/a"),
            ("/a{2}", "/"),
            ("/a", "/a"),
            ("", ""),
        ] {
            assert_eq!(pattern(text).leading(), want, "{text}");
        }
    }

    #[track_caller]
    fn check(a: &str, b: &str, want: bool) {
        assert_eq!(pattern(a).meets(&pattern(b)), want, "{a} {b}");
        assert_eq!(pattern(b).meets(&pattern(a)), want, "{b} {a}");
    }

    #[test]
    fn overlap_is_decided_by_the_languages() {
        check(r".*\.png", r".*\.jpg", false);
        check("/a/.*", r".*\.png", true);
        check("/[0-9]+", "/[a-z]+", false);
        check("/[0-9a]+", "/[a-z]+", true);
        check("/a+", "/a", true);
        check("/(ab)+", "/a(ba)*", false);
        check("/(ab)+c", "/a(ba)*bc", true);
        check("", "a", false);
        check(r"(\w{1,60}/){1,20}x", r"(\w{1,60}/){1,20}y", false);
    }
}
