//! The requests of one client connection.

use super::body::Body;
use super::field::{Fields, Line, Span, line};
use super::host::is_host;
use super::rule::{Refusal, Rule};
use super::scan::{find_lf, target_end, token_end};
use super::{Element, Limits, Phase, Verdict};

/// Follows the requests on one connection and judges each before it passes.
///
/// ```
/// use mainstay_proxy::framing::{Guard, Limits, Rule, Verdict};
///
/// let mut guard = Guard::new(Limits::default());
/// let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// assert_eq!(guard.feed(good), Verdict::Pass { passed: good.len() });
///
/// let smuggled = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\
///                  Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
/// let Verdict::Refuse { passed: 0, refusal } = guard.feed(smuggled) else { panic!() };
/// assert_eq!(refusal.rule, Rule::LengthAndCoding);
/// ```
#[derive(Clone, Debug)]
pub struct Guard {
    limits: Limits,
    state: State,
    /// The head being read, so that a slow one is not read from its beginning each time.
    open: Open,
    heads: u64,
}

#[derive(Clone, Debug)]
enum State {
    Head,
    Body {
        body: Body,
        then: Then,
    },
    Held {
        then_closes: bool,
    },
    /// The last message of the connection has passed.
    Last,
    Refused(Refusal),
}

/// What follows a message.
#[derive(Clone, Copy, Debug)]
enum Then {
    Next,
    Hold { then_closes: bool },
    Close,
}

/// The head being read, or the last that was.
#[derive(Clone, Debug, Default)]
struct Open {
    /// Bytes before the start line: nothing, or one empty line.
    blank: usize,
    /// Bytes of complete and judged lines.
    judged: usize,
    /// Bytes seen.
    seen: usize,
    start: Option<Start>,
    fields: Fields,
    /// It is complete, and has passed.
    passed: bool,
}

/// What a head says that has passed, and where it says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'g> {
    /// Where the method stands.
    pub(crate) method: (usize, usize),
    /// Where the target stands.
    pub(crate) target: (usize, usize),
    /// HTTP/1.1, else HTTP/1.0.
    pub(crate) is_1_1: bool,
    /// Where the fields stand.
    pub(crate) fields: &'g [Span],
    /// It is the last of its connection.
    pub(crate) closes: bool,
    /// The caller takes trailers.
    pub(crate) takes_trailers: bool,
    /// The caller waits for a `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// What the start line says.
#[derive(Clone, Debug)]
struct Start {
    connect: bool,
    minor: u8,
    method: (usize, usize),
    target: (usize, usize),
    /// Where the authority of the target stands, if it has one, from the head's beginning.
    authority: Option<(usize, usize)>,
}

impl Guard {
    /// A machine at the beginning of a connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head, open: Open::default(), heads: 0 }
    }

    /// Judges `bytes`: what the last verdict did not pass, then what came since.
    ///
    /// After a refusal every call refuses again and passes nothing.
    pub fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let mut passed = 0;
        loop {
            match self.next(bytes.get(passed..).unwrap_or_default()) {
                Ok(Element::Partial) => return Verdict::Pass { passed },
                Ok(Element::Held) => return Verdict::Hold { passed },
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
    ///
    /// # Errors
    ///
    /// What is wrong with it; from then on always the same.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Element, Refusal> {
        let (step, begun) = match &mut self.state {
            State::Held { .. } => return Ok(Element::Held),
            State::Refused(refusal) => return Err(*refusal),
            _ if bytes.is_empty() => return Ok(Element::Partial),
            State::Last => (Err(Rule::BytesAfterClose), false),
            State::Head => (self.head(bytes), false),
            State::Body { body, then } => {
                let then = *then;
                let piece = body.next(bytes);
                if let Ok((_, true)) = piece {
                    self.state = then.state();
                }
                (piece.map(|(piece, _)| piece.into()), true)
            }
        };
        step.map_err(|rule| {
            let refusal = Refusal::of_request(rule, begun);
            self.state = State::Refused(refusal);
            refusal
        })
    }

    /// The head that [`Guard::next`] gave last; `None` once the next one has begun.
    pub(crate) fn last_head(&self) -> Option<Head<'_>> {
        let Open { start: Some(start), fields, passed: true, .. } = &self.open else { return None };
        Some(Head {
            method: start.method,
            target: start.target,
            is_1_1: start.minor == 1,
            fields: &fields.spans,
            closes: fields.close || start.minor == 0,
            takes_trailers: fields.takes_trailers,
            expects_continue: fields.expects_continue && start.minor == 1,
        })
    }

    /// Content of the present body still to come, where that is known; 0 between messages.
    pub(crate) fn body_left(&self) -> Option<u64> {
        match &self.state {
            State::Body { body, .. } => body.left(),
            _ => Some(0),
        }
    }

    /// Whether the last message is complete.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Head | State::Held { .. } | State::Last)
    }

    /// The switch of protocols was not agreed to: another request may follow. When it was, what
    /// follows is no business of this machine.
    pub fn resume(&mut self) {
        if let State::Held { then_closes } = self.state {
            self.state = if then_closes { State::Last } else { State::Head };
        }
    }

    /// Where in the stream the machine stands.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Head if self.open.passed || self.open.seen <= self.open.blank => Phase::Idle,
            State::Head => Phase::Head,
            State::Body { body, .. } => Phase::Body { received: body.received() },
            State::Held { .. } => Phase::Held,
            State::Last | State::Refused(_) => Phase::Ended,
        }
    }

    /// Heads passed so far: each is one request.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Reads the head at the front of `bytes`.
    fn head(&mut self, bytes: &[u8]) -> Result<Element, Rule> {
        if self.open.passed {
            self.open.fields.clear();
            let fields = std::mem::take(&mut self.open.fields);
            self.open = Open { fields, ..Open::default() };
        }
        let clip = bytes.get(..self.limits.head_bytes_max).unwrap_or(bytes);
        let grown = self.open.seen == 0 || find_lf(clip, self.open.seen).is_some();
        // A start line without end is too long before the head is.
        let grown = grown || self.open.start.is_none();
        if grown && let Some(end) = self.open.read(clip, &self.limits)? {
            self.state = self.settle(bytes)?;
            self.open.passed = true;
            self.heads += 1;
            return Ok(Element::Head(end));
        }
        self.open.seen = clip.len();
        if clip.len() == self.limits.head_bytes_max {
            Err(Rule::HeadBytes)
        } else {
            Ok(Element::Partial)
        }
    }

    /// Judges what only a whole head can tell, and says what comes after it.
    fn settle(&self, bytes: &[u8]) -> Result<State, Rule> {
        let Open { start: Some(start), fields, .. } = &self.open else {
            return Err(Rule::StartLine);
        };
        if fields.chunked && start.minor == 0 {
            return Err(Rule::CodingVersion);
        }
        let text = |(from, to): (usize, usize)| bytes.get(from..to).unwrap_or_default();
        match (fields.host.map(text), start.authority.map(text)) {
            (None, _) if start.minor == 1 => return Err(Rule::HostMissing),
            (Some(host), _) if !is_host(host) => return Err(Rule::HostForm),
            (_, Some(authority)) if !is_host(authority) => return Err(Rule::Target),
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(Rule::HostTarget);
            }
            _ => (),
        }
        if fields.expects_other {
            return Err(Rule::Expect);
        }
        // HTTP/1.0 is served without keep-alive, asked for or not: its answers say so too.
        let closes = fields.close || start.minor == 0;
        let then = if start.connect || (fields.upgrade && start.minor == 1) {
            Then::Hold { then_closes: closes }
        } else if closes {
            Then::Close
        } else {
            Then::Next
        };
        match fields.length {
            Some(length) if self.limits.body_bytes_max < length => Err(Rule::BodyBytes),
            Some(length) if 0 < length => Ok(State::Body { body: Body::length(length), then }),
            _ if fields.chunked => {
                Ok(State::Body { body: Body::chunked(self.limits.body_bytes_max), then })
            }
            _ => Ok(then.state()),
        }
    }
}

impl Then {
    fn state(self) -> State {
        match self {
            Self::Next => State::Head,
            Self::Hold { then_closes } => State::Held { then_closes },
            Self::Close => State::Last,
        }
    }
}

impl Open {
    /// Reads on in `bytes`, which begin with the head; its length once its empty line is there.
    fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Rule> {
        if self.start.is_none() && !self.read_start(bytes, limits)? {
            return Ok(None);
        }
        loop {
            match line(bytes, self.judged)? {
                Line::End(end) => return Ok(Some(end)),
                Line::Partial => return Ok(None),
                Line::Field { name, value, next } => {
                    if self.fields.spans.len() == limits.headers_max {
                        return Err(Rule::HeadFields);
                    }
                    self.fields.note(name, value, next)?;
                    self.judged = next;
                }
            }
        }
    }

    /// Reads the empty line that may stand first, and the start line; false while it is not there.
    fn read_start(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Rule> {
        loop {
            match bytes.get(self.judged..).unwrap_or_default() {
                [b'\r', b'\n', ..] if self.blank == 0 => {
                    self.blank = 2;
                    self.judged = 2;
                }
                [b'\r', b'\n', ..] => return Err(Rule::EmptyLines),
                _ => break,
            }
        }
        let line_bytes_max = limits.uri_bytes_max.saturating_add(START_LINE_SLACK);
        let clip = bytes.get(..self.judged + line_bytes_max).unwrap_or(bytes);
        let Some(lf) = find_lf(clip, self.judged) else {
            return if clip.len() == self.judged + line_bytes_max {
                Err(Rule::UriBytes)
            } else {
                Ok(false)
            };
        };
        self.start = Some(start_line(bytes, self.judged, lf, limits)?);
        self.judged = lf + 1;
        Ok(true)
    }
}

/// Reads `method SP target SP HTTP/1.x CR`, which stands from `at` to the LF at `lf`.
fn start_line(bytes: &[u8], at: usize, lf: usize, limits: &Limits) -> Result<Start, Rule> {
    let line = bytes.get(..lf).and_then(|line| line.strip_suffix(b"\r")).ok_or(Rule::BareLf)?;
    let method_end = token_end(line, at);
    match line.get(method_end) {
        Some(b' ') if at < method_end => (),
        None | Some(b' ' | b'\t') => return Err(Rule::StartLine),
        Some(b'\r') => return Err(Rule::BareCr),
        Some(_) => return Err(Rule::Method),
    }
    let target_at = method_end + 1;
    let target_to = target_end(line, target_at);
    match line.get(target_to) {
        Some(b' ') if target_at < target_to => (),
        None | Some(b' ' | b'\t') => return Err(Rule::StartLine),
        Some(b'\r') => return Err(Rule::BareCr),
        Some(b'#') => return Err(Rule::Fragment),
        Some(_) => return Err(Rule::Target),
    }
    if limits.uri_bytes_max < target_to - target_at {
        return Err(Rule::UriBytes);
    }
    let minor = match &line[target_to + 1..] {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        other if other.contains(&b'\r') => return Err(Rule::BareCr),
        other if other.starts_with(b"HTTP/") && other.iter().all(u8::is_ascii_graphic) => {
            return Err(Rule::Version);
        }
        _ => return Err(Rule::StartLine),
    };
    let method = &line[at..method_end];
    let connect = method == b"CONNECT";
    if method == b"TRACE" {
        return Err(Rule::MethodTrace);
    }
    if connect && !limits.connect {
        return Err(Rule::MethodConnect);
    }
    let authority = authority(method, &line[target_at..target_to])?;
    let authority = authority.map(|(from, to)| (target_at + from, target_at + to));
    let (method, target) = ((at, method_end), (target_at, target_to));
    Ok(Start { connect, minor, method, target, authority })
}

/// Method, two spaces, version and line end take far less beside the target of a start line.
const START_LINE_SLACK: usize = 64;

/// Where in `target` the authority stands (RFC 9112 section 3.2): nowhere in `/path` and `*`.
fn authority(method: &[u8], target: &[u8]) -> Result<Option<(usize, usize)>, Rule> {
    if method == b"CONNECT" {
        return Ok(Some((0, target.len())));
    }
    match target {
        [b'/', ..] => return Ok(None),
        b"*" if method == b"OPTIONS" => return Ok(None),
        _ => (),
    }
    let begins =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme));
    let from = match () {
        () if begins(b"http://") => 7,
        () if begins(b"https://") => 8,
        () => return Err(Rule::Target),
    };
    let len = target[from..].iter().take_while(|b| !matches!(b, b'/' | b'?')).count();
    Ok(Some((from, from + len)))
}
