//! One form of the path, for everybody who judges it and for the upstream.
//!
//! A policy that reads `/admin` and an upstream that reads `/%61dmin`, `//admin` or `/x/../admin`
//! as the same are a hole (CVE-2021-31920 and its many relatives). So the path is brought into one
//! form before anybody looks at it (RFC 3986 section 6.2.2), that form is sent, and what servers
//! are known to read differently is refused.
//!
//! Two liberties of servers cannot be refused, because honest applications use them: parameters
//! (`/a;v=1/b`) and empty segments (`//a`). They stay in what is *sent*, and are gone from what is
//! *judged*: routing, policies, rules, limits and logs see the path without them.

use std::borrow::Cow;

#[cfg(test)]
mod tests;

/// What is done with `;…` in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parameters {
    /// Dropped for judging, kept in what is sent.
    #[default]
    Strip,
    /// Refused.
    Refuse,
    /// Part of the segment for judging too.
    Keep,
}

/// How paths are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is done with `;…`.
    pub parameters: Parameters,
    /// Whether `%2F` may stand inside a segment; else it is refused.
    pub keep_encoded_slash: bool,
}

/// A path that everybody reads alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    sent: Cow<'a, str>,
    /// Absent when it is what is sent, as for nearly every path there is.
    judged: Option<String>,
}

impl Judged<'_> {
    /// The path for routing, policies, rules, limits and logs. Begins with `/`, or is `*`.
    pub fn judged(&self) -> &str {
        self.judged.as_deref().unwrap_or(&self.sent)
    }

    /// The path to send upstream.
    pub fn sent(&self) -> &str {
        &self.sent
    }
}

/// A path that servers read in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    Relative,
    /// A percent sign without two hexadecimal digits after it.
    #[error("a percent sign is not followed by two hexadecimal digits")]
    Triplet,
    /// A fragment.
    #[error("the path has a fragment")]
    Fragment,
    /// A control byte or a space, plain or, for control bytes, encoded.
    #[error("the path holds a control byte")]
    Control,
    /// A byte from 0x80 that is not encoded.
    #[error("the path holds a byte outside ASCII")]
    RawByte,
    /// A backslash, plain or encoded.
    #[error("the path holds a backslash")]
    Backslash,
    /// An encoded slash.
    #[error("the path holds an encoded slash")]
    EncodedSlash,
    /// An encoded percent sign before two hexadecimal digits: decoded twice, another path.
    #[error("the path is encoded twice")]
    EncodedTwice,
    /// Encoded bytes that are not UTF-8, or in a longer form than needed.
    #[error("the path is not UTF-8")]
    Utf8,
    /// `..` in the root.
    #[error("the path leaves the root")]
    AboveRoot,
    /// `..` after an empty segment: gone with it, or with the one before it.
    #[error("dots follow an empty segment")]
    EmptySegment,
    /// `..;` or `.;`: dots to some, a name to others.
    #[error("dots have a parameter")]
    DotParameter,
    /// A parameter, where none is allowed.
    #[error("the path has a parameter")]
    Parameter,
}

impl Ambiguous {
    /// Name of the rule, kebab-case.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Relative => "path-relative",
            Self::Triplet => "path-triplet",
            Self::Fragment => "path-fragment",
            Self::Control => "path-control",
            Self::RawByte => "path-raw-byte",
            Self::Backslash => "path-backslash",
            Self::EncodedSlash => "path-encoded-slash",
            Self::EncodedTwice => "path-encoded-twice",
            Self::Utf8 => "path-utf8",
            Self::AboveRoot => "path-above-root",
            Self::EmptySegment => "path-empty-segment",
            Self::DotParameter => "path-dot-parameter",
            Self::Parameter => "path-parameter",
        }
    }
}

/// Brings the path of a request target into its one form. A query is cut off first.
///
/// Allocates nothing for a path that has that form already and no parameters or empty segments.
///
/// # Errors
///
/// [`Ambiguous`] when servers would read it differently.
pub fn judge(target: &str, options: Options) -> Result<Judged<'_>, Ambiguous> {
    let raw = target.split_once('?').map_or(target, |(path, _query)| path);
    if raw == "*" || is_plain(raw.as_bytes()) {
        return Ok(Judged { sent: Cow::Borrowed(raw), judged: None });
    }
    if !raw.starts_with('/') {
        return Err(Ambiguous::Relative);
    }
    let sent = match resolve(&decode(raw, options)?)? {
        same if same == raw => Cow::Borrowed(raw),
        other => Cow::Owned(other),
    };
    if sent.contains(';') && options.parameters == Parameters::Refuse {
        return Err(Ambiguous::Parameter);
    }
    let judged = strip(&sent, options.parameters);
    let judged = (judged != *sent).then_some(judged);
    Ok(Judged { sent, judged })
}

/// Whether `path` is in its one form, for judging too. Says no to some that are, such as those
/// with triplets: they take the long way and come out as they were.
fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') || !path.iter().all(|&b| PLAIN[usize::from(b)]) {
        return false;
    }
    // Dots and slashes matter only right after a slash.
    path.windows(2).enumerate().all(|(at, pair)| match pair {
        b"//" => false,
        b"/." => !matches!(
            path.get(at + 2..).unwrap_or_default(),
            [] | [b'/', ..] | [b'.'] | [b'.', b'/', ..]
        ),
        _ => true,
    })
}

/// Bytes that mean themselves wherever they stand in a path.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21_u8;
    while byte < 0x7F {
        table[byte as usize] = !matches!(byte, b'#' | b'%' | b';' | b'?' | b'\\');
        byte += 1;
    }
    table
};

/// Decodes triplets of unreserved bytes, writes the others in upper case, and refuses the bytes
/// and triplets that are read differently.
fn decode(raw: &str, options: Options) -> Result<String, Ambiguous> {
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let value = triplet(bytes, at).ok_or(Ambiguous::Triplet)?;
            if 0x80 <= value {
                at = character(bytes, at, &mut out).ok_or(Ambiguous::Utf8)?;
                continue;
            }
            match value {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(value));
                }
                0..0x20 | 0x7F => return Err(Ambiguous::Control),
                b'\\' => return Err(Ambiguous::Backslash),
                b'/' if !options.keep_encoded_slash => return Err(Ambiguous::EncodedSlash),
                _ => push_triplet(&mut out, value),
            }
            at += 3;
        } else {
            match byte {
                0..=b' ' | 0x7F => return Err(Ambiguous::Control),
                0x80.. => return Err(Ambiguous::RawByte),
                b'#' => return Err(Ambiguous::Fragment),
                b'\\' => return Err(Ambiguous::Backslash),
                _ => out.push(char::from(byte)),
            }
            at += 1;
        }
    }
    // Only now: `%25%32%66` has become `%252f`.
    let hex = |b: &u8| b.is_ascii_hexdigit();
    let twice = |w: &[u8]| w.starts_with(b"%25") && w.iter().skip(3).all(hex);
    if out.as_bytes().windows(5).any(twice) {
        return Err(Ambiguous::EncodedTwice);
    }
    Ok(out)
}

/// The byte that the triplet at `at` stands for.
fn triplet(bytes: &[u8], at: usize) -> Option<u8> {
    let &[b'%', high, low] = bytes.get(at..at + 3)? else { return None };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn push_triplet(out: &mut String, value: u8) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(value >> 4)]));
    out.push(char::from(DIGITS[usize::from(value & 0x0F)]));
}

/// Reads the triplets of one character outside ASCII at `at`; the position after them. The
/// standard library's decoder refuses overlong forms and surrogates.
fn character(bytes: &[u8], at: usize, out: &mut String) -> Option<usize> {
    let len = match triplet(bytes, at)? {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return None,
    };
    let mut decoded = [0; 4];
    for (index, byte) in decoded.iter_mut().take(len).enumerate() {
        *byte = triplet(bytes, at + 3 * index)?;
    }
    std::str::from_utf8(decoded.get(..len)?).ok()?;
    decoded.iter().take(len).for_each(|&byte| push_triplet(out, byte));
    Some(at + 3 * len)
}

/// Resolves `.` and `..` (RFC 3986 section 5.2.4).
fn resolve(path: &str) -> Result<String, Ambiguous> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let name = segment.split(';').next().unwrap_or_default();
        match name {
            "." | ".." if name != segment => return Err(Ambiguous::DotParameter),
            "." => (),
            ".." => {
                let slash = out.rfind('/').ok_or(Ambiguous::AboveRoot)?;
                // A segment that is nothing but a parameter is empty to those who strip it.
                if matches!(out.as_bytes().get(slash + 1), None | Some(b';')) {
                    return Err(Ambiguous::EmptySegment);
                }
                out.truncate(slash);
            }
            _ => {
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

/// The path as it is judged: without empty segments and, unless they are kept, parameters.
fn strip(path: &str, parameters: Parameters) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let name = match parameters {
            Parameters::Keep => segment,
            Parameters::Strip | Parameters::Refuse => segment.split(';').next().unwrap_or_default(),
        };
        if !name.is_empty() || segments.peek().is_none() {
            out.push('/');
            out.push_str(name);
        }
    }
    out
}
