//! The requests of one client connection.

use super::body::Body;
use super::field::{Fields, Line, line};
use super::host::is_host;
use super::rule::{Refusal, Rule};
use super::scan::{find_lf, target_end, token_end};
use super::{Limits, Phase, Verdict};

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

/// A head of which a part is here.
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
}

/// What the start line says.
#[derive(Clone, Debug)]
struct Start {
    connect: bool,
    minor: u8,
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
            let rest = bytes.get(passed..).unwrap_or_default();
            let step = match &mut self.state {
                State::Held { .. } => return Verdict::Hold { passed },
                State::Refused(refusal) => return Verdict::Refuse { passed, refusal: *refusal },
                _ if rest.is_empty() => return Verdict::Pass { passed },
                State::Last => Err(Rule::BytesAfterClose),
                State::Head => self.head(rest),
                State::Body { body, then } => {
                    let then = *then;
                    match body.advance(rest) {
                        Ok(advance) => {
                            if advance.complete {
                                self.state = then.state();
                            }
                            Ok(advance.passed)
                        }
                        Err(defect) => {
                            passed += defect.passed;
                            Err(defect.rule)
                        }
                    }
                }
            };
            match step {
                Ok(0) => return Verdict::Pass { passed },
                Ok(len) => passed += len,
                Err(rule) => {
                    let begun = matches!(self.state, State::Body { .. });
                    self.state = State::Refused(Refusal::of_request(rule, begun));
                }
            }
        }
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
            State::Head if self.open.seen <= self.open.blank => Phase::Idle,
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

    /// Reads the head at the front of `bytes`; 0 while it is not complete.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Rule> {
        let clip = bytes.get(..self.limits.head_bytes_max).unwrap_or(bytes);
        let grown = self.open.seen == 0 || find_lf(clip, self.open.seen).is_some();
        // A start line without end is too long before the head is.
        let grown = grown || self.open.start.is_none();
        if grown && let Some(end) = self.open.read(clip, &self.limits)? {
            let open = std::mem::take(&mut self.open);
            self.state = self.settle(bytes, open)?;
            self.heads += 1;
            return Ok(end);
        }
        self.open.seen = clip.len();
        if clip.len() == self.limits.head_bytes_max { Err(Rule::HeadBytes) } else { Ok(0) }
    }

    /// Judges what only a whole head can tell, and says what comes after it.
    fn settle(&self, bytes: &[u8], open: Open) -> Result<State, Rule> {
        let Open { start: Some(start), fields, .. } = open else { return Err(Rule::StartLine) };
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
                    if self.fields.count == limits.headers_max {
                        return Err(Rule::HeadFields);
                    }
                    self.fields.note(name, value, next - 2 - value.len())?;
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
    Ok(Start { connect, minor, authority })
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
