//! The answers of one upstream connection.

use super::body::Body;
use super::field::{Fields, Line, Span, line};
use super::rule::{Refusal, Rule};
use super::scan::{find_lf, value_end};
use super::{Element, Phase, Verdict};

/// Most fields of an answer.
const HEADERS_MAX: usize = 100;

/// What was asked: an answer cannot be read without knowing it (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Asked {
    /// Nothing: any byte is one too many.
    #[default]
    Nothing = 0,
    /// A request whose answer may have a body.
    Plain = 1,
    /// `HEAD`: the answer has no body, whatever its fields say.
    Head = 2,
    /// A request that offers to switch protocols by `Upgrade`.
    Upgrade = 3,
    /// `CONNECT`: a 2xx begins a tunnel.
    Connect = 4,
}

/// Follows the answers on one connection; one request at a time.
///
/// ```
/// use mainstay_proxy::framing::{Asked, ResponseGuard, Rule, Verdict};
///
/// let mut guard = ResponseGuard::new(65_536);
/// guard.ask(Asked::Plain);
/// let Verdict::Refuse { refusal, .. } = guard.feed(b"HTTP/1.1 204 No Content\r\n\r\nx") else {
///     panic!()
/// };
/// assert_eq!(refusal.rule, Rule::BytesUnasked);
/// ```
#[derive(Clone, Debug)]
pub struct ResponseGuard {
    /// Longest head of an answer, in bytes.
    head_bytes_max: usize,
    asked: Asked,
    state: State,
    /// The head being read.
    open: Open,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Head,
    Body(Body),
    Tunnel,
    Refused(Refusal),
}

/// The head being read, or the last that was.
#[derive(Clone, Debug, Default)]
struct Open {
    judged: usize,
    seen: usize,
    /// Status and minor version.
    start: Option<(u16, u8)>,
    fields: Fields,
    /// It is complete, and has passed.
    passed: bool,
}

/// What a head says that has passed, and where it says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'g> {
    pub(crate) status: u16,
    /// Where the fields stand.
    pub(crate) fields: &'g [Span],
    /// The connection ends with this answer.
    pub(crate) closes: bool,
}

impl ResponseGuard {
    /// A machine at the beginning of a connection; nothing was asked. Heads of answers may have
    /// up to `head_bytes_max` bytes.
    pub fn new(head_bytes_max: usize) -> Self {
        let (asked, state, open) = Default::default();
        Self { head_bytes_max, asked, state, open }
    }

    /// A request is about to be sent.
    pub fn ask(&mut self, asked: Asked) {
        self.asked = asked;
    }

    /// Judges `bytes`: what the last verdict did not pass, then what came since. Never answers
    /// [`Verdict::Hold`].
    ///
    /// The end of the stream is told to nobody: a body up to the end is then complete, and any
    /// other is cut short.
    pub fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let mut passed = 0;
        loop {
            match self.next(bytes.get(passed..).unwrap_or_default()) {
                Ok(Element::Partial) => return Verdict::Pass { passed },
                Ok(Element::Held) => return Verdict::Pass { passed: bytes.len() },
                Ok(
                    Element::Head(len)
                    | Element::Content(len)
                    | Element::Framing(len)
                    | Element::Trailers(len),
                ) => passed += len,
                Err(refusal) => return Verdict::Refuse { passed, refusal },
            }
        }
    }

    /// The element that `bytes` begin with: what the last one left, then what came since.
    /// [`Element::Held`] once the protocol was switched, and everything passes.
    ///
    /// # Errors
    ///
    /// What is wrong with it; from then on always the same.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Element, Refusal> {
        let (step, begun) = match &mut self.state {
            State::Tunnel => return Ok(Element::Held),
            State::Refused(refusal) => return Err(*refusal),
            _ if bytes.is_empty() => return Ok(Element::Partial),
            State::Head if self.asked == Asked::Nothing => (Err(Rule::BytesUnasked), false),
            State::Head => (self.head(bytes), false),
            State::Body(body) => {
                let piece = body.next(bytes);
                if let Ok((_, true)) = piece {
                    (self.state, self.asked) = (State::Head, Asked::Nothing);
                }
                (piece.map(|(piece, _)| piece.into()), true)
            }
        };
        step.map_err(|rule| {
            let refusal = Refusal::of_response(rule, begun);
            self.state = State::Refused(refusal);
            refusal
        })
    }

    /// The head that [`ResponseGuard::next`] gave last; `None` once the next one has begun.
    pub(crate) fn last_head(&self) -> Option<Head<'_>> {
        let Open { start: Some((status, minor)), fields, passed: true, .. } = &self.open else {
            return None;
        };
        let closes = fields.close || *minor == 0;
        Some(Head { status: *status, fields: &fields.spans, closes })
    }

    /// Content of the present body still to come, where that is known; 0 between messages.
    pub(crate) fn body_left(&self) -> Option<u64> {
        match &self.state {
            State::Body(body) => body.left(),
            _ => Some(0),
        }
    }

    /// The stream has ended; whether the answer is complete with that.
    pub(crate) fn end(&mut self) -> bool {
        if matches!(&self.state, State::Body(body) if body.is_to_the_end()) {
            (self.state, self.asked) = (State::Head, Asked::Nothing);
        }
        self.is_free()
    }

    /// Where in the stream the machine stands.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Head if self.open.passed || self.open.seen == 0 => Phase::Idle,
            State::Head => Phase::Head,
            State::Body(body) => Phase::Body { received: body.received() },
            State::Tunnel => Phase::Tunnel,
            State::Refused(_) => Phase::Ended,
        }
    }

    /// Whether the answer to what was asked is complete and another request may be sent.
    pub fn is_free(&self) -> bool {
        matches!(self.state, State::Head) && self.asked == Asked::Nothing
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Element, Rule> {
        if self.open.passed {
            self.open.fields.clear();
            let fields = std::mem::take(&mut self.open.fields);
            self.open = Open { fields, ..Open::default() };
        }
        let clip = bytes.get(..self.head_bytes_max).unwrap_or(bytes);
        let grown = self.open.seen == 0 || find_lf(clip, self.open.seen).is_some();
        if grown && let Some(end) = self.open.read(clip)? {
            self.settle()?;
            self.open.passed = true;
            return Ok(Element::Head(end));
        }
        self.open.seen = clip.len();
        if clip.len() == self.head_bytes_max { Err(Rule::HeadBytes) } else { Ok(Element::Partial) }
    }

    /// Says what comes after a head (RFC 9112 section 6.3).
    fn settle(&mut self) -> Result<(), Rule> {
        let Some((status, minor)) = self.open.start else { return Err(Rule::StartLine) };
        let fields = &self.open.fields;
        if fields.chunked && minor == 0 {
            return Err(Rule::CodingVersion);
        }
        let bodiless = matches!(status, 100..200 | 204);
        if bodiless && (fields.chunked || fields.length.is_some_and(|length| length != 0)) {
            return Err(Rule::LengthUnasked);
        }
        match (status, self.asked) {
            (101, Asked::Upgrade) | (200..300, Asked::Connect) => {
                self.state = State::Tunnel;
                return Ok(());
            }
            (101, _) => return Err(Rule::SwitchUnasked),
            // More will follow: the request is not answered.
            (100..200, _) => return Ok(()),
            _ => (),
        }
        let empty = bodiless || status == 304 || self.asked == Asked::Head;
        self.state = match fields.length {
            _ if empty => State::Head,
            _ if fields.chunked => State::Body(Body::chunked(u64::MAX)),
            Some(0) => State::Head,
            Some(length) => State::Body(Body::length(length)),
            None => State::Body(Body::to_the_end()),
        };
        if matches!(self.state, State::Head) {
            self.asked = Asked::Nothing;
        }
        Ok(())
    }
}

impl Open {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Rule> {
        if self.start.is_none() {
            match status_line(bytes) {
                Ok(None) => return Ok(None),
                Ok(Some((status, minor, next))) => {
                    (self.start, self.judged) = (Some((status, minor)), next);
                }
                Err(_) if find_lf(bytes, 0).is_none() => return Ok(None),
                Err(rule) => return Err(rule),
            }
        }
        loop {
            match line(bytes, self.judged)? {
                Line::End(end) => return Ok(Some(end)),
                Line::Partial => return Ok(None),
                Line::Field { name, value, next } => {
                    if self.fields.spans.len() == HEADERS_MAX {
                        return Err(Rule::HeadFields);
                    }
                    match self.fields.note(name, value, next) {
                        // A `Host` in an answer means nothing, however often it stands there.
                        Ok(()) | Err(Rule::HostRepeated) => (),
                        Err(rule) => return Err(rule),
                    }
                    self.judged = next;
                }
            }
        }
    }
}

/// Reads `HTTP/1.x SP status [SP reason] CRLF`: status, minor version, and the position after it.
fn status_line(bytes: &[u8]) -> Result<Option<(u16, u8, usize)>, Rule> {
    let end = value_end(bytes, 0);
    match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => (),
        (Some(b'\r'), Some(_)) => return Err(Rule::BareCr),
        (Some(b'\n'), _) => return Err(Rule::BareLf),
        (Some(b'\r'), None) | (None, _) => return Ok(None),
        (Some(_), _) => return Err(Rule::StartLine),
    }
    let Some(rest) = bytes[..end].strip_prefix(b"HTTP/") else { return Err(Rule::StartLine) };
    let (minor, rest) = match rest {
        [b'1', b'.', minor @ (b'0' | b'1'), rest @ ..] => (minor - b'0', rest),
        _ => return Err(Rule::Version),
    };
    match rest {
        // The space after the status belongs there even before an empty reason; some servers
        // forget it, and no parser reads that in two ways.
        [b' ', digits @ ..] if 3 <= digits.len() => {
            let (status, reason) = digits.split_at(3);
            let number = status.iter().fold(0, |n, &b| n * 10 + u16::from(b & 0x0F));
            let plain = status.iter().all(u8::is_ascii_digit) && (100..600).contains(&number);
            if !plain || !matches!(reason, [] | [b' ', ..]) {
                return Err(Rule::StartLine);
            }
            Ok(Some((number, minor, end + 2)))
        }
        _ => Err(Rule::StartLine),
    }
}
