//! What a call's result means: for the circuit, the balancer and the retry policy.
//!
//! Two questions are asked of a result, and both are answered by a list the user wrote in the same
//! words: *does it count as a failure* (`failure`, `ignore`: [`Classifier`]) and *may it be tried
//! again* (`retry_on`: [`crate::retry`]). A list becomes a [`ResultSet`], four machine words of
//! bits, so that either question costs one shift and one mask.
//!
//! | word | results |
//! |---|---|
//! | `timeout` | sent, no complete head in time |
//! | `connect` | no connection: refused, unreachable, TLS, name, or not up in time |
//! | `congestion` | lost, stalled, no free connection |
//! | `refused` | 429, 503 with `Retry-After`, gRPC 8 |
//! | `refused-stream` | `REFUSED_STREAM`, `GOAWAY` below the stream |
//! | `5xx` | HTTP 500 to 599 |
//! | `502` | that HTTP status, 200 to 599 |
//! | `grpc:14`, `unavailable` | that gRPC code, by number 1 to 16 or by name in any case |
//!
//! Not every result is a success or a failure. A result nobody listed that carries no answer (a
//! drained connection's `GOAWAY`, a caller who hung up) says nothing about the instance: it is
//! [`Verdict::Ignore`]d, its permit goes back, and it counts nowhere.

use crate::{Failure, Invalid, Outcome};

/// A complete answer, reduced to its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Status of an HTTP response.
    Http(u16),
    /// `grpc-status` of a gRPC response; the HTTP status below it (200) says nothing.
    Grpc(u32),
}

impl Answer {
    /// Whether the peer refused to do the work: 429, gRPC 8, and 503 when it came with
    /// `Retry-After` (`hinted`). The effect of a refusal is none.
    pub const fn is_refusal(self, hinted: bool) -> bool {
        match self {
            Self::Http(status) => status == 429 || (status == 503 && hinted),
            Self::Grpc(code) => code == GRPC_RESOURCE_EXHAUSTED,
        }
    }
}

/// What to tell the machines that learn from calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Record this.
    Record(Outcome),
    /// Cancel the permit: the result says nothing about the instance.
    Ignore,
}

/// Judges results by the `failure` and `ignore` lists of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classifier {
    failure: ResultSet,
    ignore: ResultSet,
}

impl Classifier {
    /// Reads the two lists; `None` stands for a list that was not written.
    ///
    /// `failure` is `["5xx", "timeout", "connect", "congestion"]` unless given. gRPC codes 2, 4, 8,
    /// 13, 14 and 15 fail as well, until the list names a gRPC code itself. `ignore` is empty
    /// unless given, and wins over `failure`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] naming the entry that is no word, status or code.
    pub fn new(failure: Option<&[String]>, ignore: Option<&[String]>) -> Result<Self, Invalid> {
        let mut failures = match failure {
            Some(words) => ResultSet::parse("failure", words)?,
            None => ResultSet::FAILURES,
        };
        if failures.grpc == 0 {
            failures.grpc = GRPC_FAILURES;
        }
        let ignore = ResultSet::parse("ignore", ignore.unwrap_or_default())?;
        Ok(Self { failure: failures, ignore })
    }

    /// Takes no complete answer for a failure.
    pub const fn of_nothing() -> Self {
        Self { failure: ResultSet::EMPTY, ignore: ResultSet::EMPTY }
    }

    /// Judges a complete answer.
    ///
    /// A refusal (429, gRPC 8) is [`Outcome::Refused`] whatever the lists say, unless it is
    /// ignored: it is no failure of the service, but no success either. A 503 with `Retry-After`
    /// is a refusal for the retry policy only; to a circuit it is the 503 it says it is.
    pub fn judge(&self, answer: Answer) -> Verdict {
        let refused = answer.is_refusal(false);
        if self.ignore.has_answer(answer) || (refused && self.ignore.has(Word::Refused)) {
            Verdict::Ignore
        } else if refused {
            Verdict::Record(Outcome::Refused)
        } else if self.failure.has_answer(answer) {
            Verdict::Record(Outcome::Failure)
        } else {
            Verdict::Record(Outcome::Success)
        }
    }

    /// Judges an attempt that brought no answer.
    ///
    /// A deadline that passed says how patient the caller was, and nothing of the instance: it is
    /// ignored, or a few hurried callers could open a circuit for all. Whoever cuts an attempt off
    /// at a deadline after a time in which an answer was due calls that a request timeout instead.
    /// A timeout that this process slept through says nothing of it either.
    ///
    /// A truncated or malformed answer always fails; no word can make it anything else.
    pub fn judge_failure(&self, failure: Failure) -> Verdict {
        let (word, outcome) = match failure {
            Failure::RequestTimeout => (Word::Timeout, Outcome::RequestTimeout),
            Failure::ConnectTimeout => (Word::Connect, Outcome::ConnectTimeout),
            Failure::ConnectFailed { .. } => (Word::Connect, Outcome::Failure),
            Failure::Congestion(_) => (Word::Congestion, Outcome::Failure),
            Failure::Unprocessed => (Word::RefusedStream, Outcome::Failure),
            Failure::Truncated | Failure::Malformed => return Verdict::Record(Outcome::Failure),
            Failure::Deadline { .. } | Failure::Overslept { .. } | Failure::Cancelled => {
                return Verdict::Ignore;
            }
        };
        if self.failure.has(word) && !self.ignore.has(word) {
            Verdict::Record(outcome)
        } else {
            Verdict::Ignore
        }
    }
}

impl Default for Classifier {
    fn default() -> Self {
        let mut failure = ResultSet::FAILURES;
        failure.grpc = GRPC_FAILURES;
        Self { failure, ignore: ResultSet::EMPTY }
    }
}

/// A set of results: words, HTTP statuses and gRPC codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultSet {
    /// One bit a [`Word`].
    words: u8,
    /// One bit a code, 1 to 16.
    grpc: u32,
    /// One bit a status, the first bit being status 200.
    http: [u64; HTTP_WORDS],
}

impl ResultSet {
    /// Nothing.
    pub const EMPTY: Self = Self { words: 0, grpc: 0, http: [0; HTTP_WORDS] };

    /// `["5xx", "timeout", "connect", "congestion"]`
    const FAILURES: Self =
        Self::EMPTY.with(Word::Timeout).with(Word::Connect).with(Word::Congestion).with_5xx();

    /// What is tried again unless the user says otherwise:
    /// `["connect", "refused-stream", "refused", "congestion", "timeout", "502", "503", "504"]`.
    pub const RETRY_ON: Self = Self::EMPTY
        .with(Word::Connect)
        .with(Word::RefusedStream)
        .with(Word::Refused)
        .with(Word::Congestion)
        .with(Word::Timeout)
        .with_status(502)
        .with_status(503)
        .with_status(504);

    /// Reads a list; spaces around an entry are of no account.
    ///
    /// # Errors
    ///
    /// [`Invalid`] naming the entry, as `path[index]`.
    pub fn parse(path: &str, words: &[String]) -> Result<Self, Invalid> {
        let mut set = Self::EMPTY;
        for (index, text) in words.iter().enumerate() {
            set = set.with_entry(text.trim()).ok_or_else(|| {
                Invalid::range(format!("{path}[{index}]"), format!("{EXPECTED}, found {text:?}"))
            })?;
        }
        Ok(set)
    }

    /// Whether the set holds nothing.
    pub const fn is_empty(&self) -> bool {
        let mut http = 0;
        let mut index = 0;
        while index < HTTP_WORDS {
            http |= self.http[index];
            index += 1;
        }
        self.words == 0 && self.grpc == 0 && http == 0
    }

    /// Whether `word` is in the set.
    pub const fn has(&self, word: Word) -> bool {
        self.words & word.bit() != 0
    }

    /// Whether the set names the status or code of `answer`. A gRPC code above 16 is read as 2,
    /// `unknown`, as gRPC's own libraries do.
    pub fn has_answer(&self, answer: Answer) -> bool {
        match answer {
            Answer::Http(status) => {
                let bit = usize::from(status).wrapping_sub(HTTP_FIRST);
                self.http.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
            }
            Answer::Grpc(code) => {
                let code = if code > GRPC_LAST { GRPC_UNKNOWN } else { code };
                self.grpc >> code & 1 == 1
            }
        }
    }

    /// Whether the set names `failure` by its word. A failure without a word is in no set.
    pub const fn has_failure(&self, failure: Failure) -> bool {
        match Word::of(failure) {
            Some(word) => self.has(word),
            None => false,
        }
    }

    fn with_entry(self, text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("5xx") {
            return Some(self.with_5xx());
        }
        if let Some((_, word)) = WORDS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
            return Some(self.with(*word));
        }
        if let Some(number) = text.strip_prefix("grpc:") {
            let code = number.parse().ok().filter(|code| (1..=GRPC_LAST).contains(code))?;
            return Some(self.with_code(code));
        }
        if let Some(code) = grpc_code(text) {
            return Some(self.with_code(code));
        }
        let status = text.parse().ok().filter(|status| (200..=599).contains(status))?;
        Some(self.with_status(status))
    }

    const fn with(mut self, word: Word) -> Self {
        self.words |= word.bit();
        self
    }

    /// Adds a gRPC code, 1 to 16.
    pub(crate) const fn with_code(mut self, code: u32) -> Self {
        self.grpc |= 1 << code;
        self
    }

    const fn with_status(mut self, status: usize) -> Self {
        let bit = status - HTTP_FIRST;
        self.http[bit / 64] |= 1 << (bit % 64);
        self
    }

    const fn with_5xx(mut self) -> Self {
        let mut status = 500;
        while status < 600 {
            self = self.with_status(status);
            status += 1;
        }
        self
    }
}

/// A kind of result that has no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Sent, no complete head in time.
    Timeout,
    /// No connection.
    Connect,
    /// Lost, stalled, no free connection.
    Congestion,
    /// The peer said "too much".
    Refused,
    /// The peer provably did not process the stream.
    RefusedStream,
}

impl Word {
    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The word for `failure`. The deadline, a caller that went away and a broken answer have
    /// none: sending again could not help, so no list can ask for it.
    const fn of(failure: Failure) -> Option<Self> {
        match failure {
            Failure::RequestTimeout | Failure::Overslept { connecting: false } => {
                Some(Self::Timeout)
            }
            Failure::ConnectTimeout
            | Failure::Overslept { connecting: true }
            | Failure::ConnectFailed { .. } => Some(Self::Connect),
            Failure::Congestion(_) => Some(Self::Congestion),
            Failure::Unprocessed => Some(Self::RefusedStream),
            Failure::Truncated
            | Failure::Malformed
            | Failure::Deadline { .. }
            | Failure::Cancelled => None,
        }
    }
}

/// The gRPC code called `name`, in any case, with `_` or `-` between words.
pub(crate) fn grpc_code(name: &str) -> Option<u32> {
    let same = |known: &str| {
        let fold = |b: u8| if b == b'-' { b'_' } else { b.to_ascii_lowercase() };
        name.len() == known.len() && name.bytes().map(fold).eq(known.bytes())
    };
    GRPC_NAMES.iter().find(|(known, _)| same(known)).map(|&(_, code)| code)
}

const WORDS: [(&str, Word); 5] = [
    ("timeout", Word::Timeout),
    ("connect", Word::Connect),
    ("congestion", Word::Congestion),
    ("refused", Word::Refused),
    ("refused-stream", Word::RefusedStream),
];

/// The codes of gRPC's `statuscodes.md`, and the second spelling of the first.
const GRPC_NAMES: [(&str, u32); 17] = [
    ("cancelled", 1),
    ("canceled", 1),
    ("unknown", GRPC_UNKNOWN),
    ("invalid_argument", 3),
    ("deadline_exceeded", 4),
    ("not_found", 5),
    ("already_exists", 6),
    ("permission_denied", 7),
    ("resource_exhausted", GRPC_RESOURCE_EXHAUSTED),
    ("failed_precondition", 9),
    ("aborted", 10),
    ("out_of_range", 11),
    ("unimplemented", 12),
    ("internal", 13),
    ("unavailable", 14),
    ("data_loss", 15),
    ("unauthenticated", GRPC_LAST),
];

const EXPECTED: &str = "must be one of `5xx`, `timeout`, `connect`, `congestion`, `refused`, \
    `refused-stream`, an HTTP status 200 to 599, or a gRPC code as `grpc:14` or `unavailable`";

const GRPC_UNKNOWN: u32 = 2;
const GRPC_RESOURCE_EXHAUSTED: u32 = 8;
const GRPC_LAST: u32 = 16;

/// Codes that say the service is at fault. Those that blame the request (3, 5, 6, 7, 9, …) are
/// gRPC's 4xx.
const GRPC_FAILURES: u32 =
    1 << GRPC_UNKNOWN | 1 << 4 | 1 << GRPC_RESOURCE_EXHAUSTED | 1 << 13 | 1 << 14 | 1 << 15;

const HTTP_FIRST: usize = 200;
/// 200 to 599 is 400 bits, which is seven words of 64.
const HTTP_WORDS: usize = 7;

#[cfg(test)]
mod tests;
