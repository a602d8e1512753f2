//! Field lines, and what they say about where the message ends.

use super::rule::Rule;
use super::scan::{find_lf, token_end, value_end};

/// One line of a field section.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    /// The empty line that ends the section; the position after it.
    End(usize),
    /// A field, and the position after its line. The value is raw: spaces and tabs around it are
    /// still there, because around lengths and codings they matter.
    Field { name: &'a [u8], value: &'a [u8], next: usize },
    /// The line is not there to its LF.
    Partial,
}

/// Reads the line that begins at `at`.
///
/// A line is judged when its LF is there and not before, so that the verdict does not depend on
/// how the bytes were cut into reads.
pub(crate) fn line(bytes: &[u8], at: usize) -> Result<Line<'_>, Rule> {
    match whole_line(bytes, at) {
        Ok(line) => Ok(line),
        Err(_) if find_lf(bytes, at).is_none() => Ok(Line::Partial),
        Err(rule) => Err(rule),
    }
}

fn whole_line(bytes: &[u8], at: usize) -> Result<Line<'_>, Rule> {
    let colon = token_end(bytes, at);
    match bytes.get(colon) {
        Some(b':') if at < colon => (),
        Some(b'\r') if at == colon => {
            return match bytes.get(at + 1) {
                Some(b'\n') => Ok(Line::End(at + 2)),
                Some(_) => Err(Rule::BareCr),
                None => Ok(Line::Partial),
            };
        }
        Some(b'\n') => return Err(Rule::BareLf),
        Some(b' ' | b'\t') if at == colon => return Err(Rule::ObsFold),
        Some(b' ' | b'\t') => return Err(Rule::NameSpace),
        // No name before the colon, or no colon in the line.
        Some(b':' | b'\r') => return Err(Rule::NameEmpty),
        Some(_) => return Err(Rule::NameToken),
        None => return Ok(Line::Partial),
    }
    let end = value_end(bytes, colon + 1);
    match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => {
            let (name, value) = (&bytes[at..colon], &bytes[colon + 1..end]);
            Ok(Line::Field { name, value, next: end + 2 })
        }
        (Some(b'\r'), Some(_)) => Err(Rule::BareCr),
        (Some(b'\n'), _) => Err(Rule::BareLf),
        (Some(b'\r'), None) | (None, _) => Ok(Line::Partial),
        (Some(_), _) => Err(Rule::ValueControl),
    }
}

/// Where a field of a head stands, from the head's beginning; its value without the white space
/// around it. Heads are limited far below 4 GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) name: (u32, u32),
    pub(crate) value: (u32, u32),
}

/// What the fields of one head say about framing and routing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    /// The fields so far.
    pub(crate) spans: Vec<Span>,
    /// `Content-Length`.
    pub(crate) length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub(crate) chunked: bool,
    /// Where the value of `Host` stands, without the space around it, from the head's beginning.
    pub(crate) host: Option<(usize, usize)>,
    /// `Connection: close`.
    pub(crate) close: bool,
    /// Any `Upgrade`.
    pub(crate) upgrade: bool,
    /// `TE: trailers`.
    pub(crate) takes_trailers: bool,
    /// `Expect: 100-continue`.
    pub(crate) expects_continue: bool,
    /// An `Expect` other than `100-continue`.
    pub(crate) expects_other: bool,
}

impl Fields {
    /// Forgets all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        *self = Self { spans, ..Self::default() };
    }

    /// Takes note of the field whose line ends at `next`, from the head's beginning.
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8], next: usize) -> Result<(), Rule> {
        let value_at = next - 2 - value.len();
        let name_at = value_at - 1 - name.len();
        let front = value.len() - value.trim_ascii_start().len();
        let value_from = value_at + front;
        let value_to = value_from + value.trim_ascii().len();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "positions in a head of limited length"
        )]
        let span = |from: usize, to: usize| (from as u32, to as u32);
        self.spans.push(Span {
            name: span(name_at, name_at + name.len()),
            value: span(value_from, value_to),
        });
        // Lengths tell nearly all fields apart; only the rest is compared.
        match name.len() {
            2 if name.eq_ignore_ascii_case(b"te") => {
                for coding in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                    self.takes_trailers |= coding.eq_ignore_ascii_case(b"trailers");
                }
            }
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.is_some() {
                    return Err(Rule::HostRepeated);
                }
                self.host = Some((value_from, value_to));
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                let known = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= known;
                self.expects_other |= !known;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.note_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.note_coding(value)?,
            _ => (),
        }
        Ok(())
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Rule> {
        if self.chunked {
            return Err(Rule::LengthAndCoding);
        }
        if self.length.is_some() {
            return Err(Rule::LengthRepeated);
        }
        let digits = bare(value);
        if digits.contains(&b',') {
            return Err(Rule::LengthList);
        }
        // 19 digits always fit a u64, and no body is longer.
        if digits.is_empty() || 19 < digits.len() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Rule::LengthForm);
        }
        self.length = Some(digits.iter().fold(0, |n, &b| n * 10 + u64::from(b - b'0')));
        Ok(())
    }

    fn note_coding(&mut self, value: &[u8]) -> Result<(), Rule> {
        if self.length.is_some() {
            return Err(Rule::LengthAndCoding);
        }
        if self.chunked {
            return Err(Rule::CodingRepeated);
        }
        if !bare(value).eq_ignore_ascii_case(b"chunked") {
            return Err(Rule::Coding);
        }
        self.chunked = true;
        Ok(())
    }
}

/// A value less the one space that everybody puts after the colon. What other white space there is
/// around a length or a coding, some parsers drop and others do not.
fn bare(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// Whether a trailer may not have this name (RFC 9110 section 6.5.1): it would change framing,
/// routing or authentication of a message that was acted upon already.
pub(crate) fn forbidden_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: &[&str] = &[
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
    ];
    const FORBIDDEN_PREFIX: &[&str] = &["x-forwarded-", "mainstay-", "x-mainstay-"];
    let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
    let begins = |prefix: &&str| {
        name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    FORBIDDEN.iter().any(is) || FORBIDDEN_PREFIX.iter().any(begins)
}
