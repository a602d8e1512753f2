//! How long a call may still take, and what the next hop is told.
//!
//! A deadline is a moment, a timeout a duration. What travels between processes is always a
//! duration, what remains, so clocks need not agree; inside a process it is always a moment, so
//! nothing that waits has to be subtracted anywhere.
//!
//! Anyone may shorten a route's own timeout: patience is the caller's to give. Only a trusted
//! caller may lengthen it, and never beyond the route's maximum: what a stranger can prolong, a
//! stranger can fill.
//!
//! What a deadline [covers](Covers) depends on where it came from. One given by the caller covers
//! the whole exchange. The route's own default covers no more than the way to the response head;
//! then the body has to keep moving. That is why event streams, long polls, gRPC streams and
//! WebSocket need no list of exceptions. Mind the consequence when sending: a peer holds whatever
//! timeout it is sent for the caller's, good for the whole exchange.

mod text;

use std::time::Duration;

use mainstay_core::Instant;

pub use text::Digits;

/// Until when a call may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The moment. At it, time is up.
    pub at: Instant,
    /// How much of the exchange must be over by then.
    pub covers: Covers,
}

/// How much of an exchange a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// All of it, to the last byte of the body.
    Exchange,
    /// The way to the response head.
    Head,
}

/// What a route says about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// `timeout_seconds`: for a caller who says nothing, and the most a stranger can have.
    pub timeout: Duration,
    /// `deadline_max_seconds`: the most a trusted caller can have.
    pub max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(15), max: Duration::from_mins(5) }
    }
}

/// A timeout field that does not say what it should: `malformed-request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header `{header}` must be {expected}")]
pub struct Malformed {
    /// Name of the header.
    pub header: &'static str,
    /// What it may hold.
    pub expected: &'static str,
}

impl Deadline {
    /// The deadline of a call that arrives at `now`, asking for `arriving` if for anything.
    ///
    /// A stranger who asks for more than the route gives gets what the route gives, as if nothing
    /// had been asked. A trusted caller who asks for more than the route's maximum gets that.
    pub fn resolve(
        now: Instant,
        arriving: Option<Duration>,
        trusted: bool,
        patience: Patience,
    ) -> Self {
        let Patience { timeout, max } = patience;
        match arriving {
            Some(asked) if asked <= timeout => {
                Self { at: now.plus(asked), covers: Covers::Exchange }
            }
            Some(asked) if trusted => {
                Self { at: now.plus(asked.min(max.max(timeout))), covers: Covers::Exchange }
            }
            Some(_) | None => Self { at: now.plus(timeout), covers: Covers::Head },
        }
    }

    /// Time left at `now`; zero once it has passed.
    pub const fn remaining(self, now: Instant) -> Duration {
        self.at.since(now)
    }

    /// Whether the deadline has passed: the call is answered at once and nothing is sent.
    pub fn has_passed(self, now: Instant) -> bool {
        self.at <= now
    }

    /// How long an attempt begun at `now` may wait for its response head: `try_timeout`, if there
    /// is one, but not beyond the deadline.
    pub fn attempt_timeout(self, now: Instant, try_timeout: Option<Duration>) -> Duration {
        let remaining = self.remaining(now);
        try_timeout.map_or(remaining, |limit| limit.min(remaining))
    }

    /// What an attempt begun at `now` tells the peer: what remains, less `hop` for the way there
    /// and back, so that the peer gives up before we do. Never below 1 ms: zero would mean "do not
    /// begin", and that is for us to say.
    pub fn outgoing(self, now: Instant, hop: Duration) -> Duration {
        self.remaining(now).saturating_sub(hop).max(OUTGOING_MIN)
    }
}

/// Reads `grpc-timeout`: 1 to 8 digits and one of `H M S m u n`.
///
/// Source: gRPC over HTTP/2, "Timeout". Zero is accepted and has passed already.
///
/// # Errors
///
/// [`Malformed`] for anything else.
pub fn parse_grpc_timeout(value: &[u8]) -> Result<Duration, Malformed> {
    let malformed =
        Malformed { header: "grpc-timeout", expected: "1 to 8 digits and one of H, M, S, m, u, n" };
    let (unit, number) = value.split_last().ok_or(malformed)?;
    let number = digits(number, 8).ok_or(malformed)?;
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3_600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(malformed),
    }
}

/// Reads `mainstay-timeout-ms`: 1 to 9 digits.
///
/// # Errors
///
/// [`Malformed`] for anything else.
pub fn parse_timeout_ms(value: &[u8]) -> Result<Duration, Malformed> {
    digits(value, 9)
        .map(Duration::from_millis)
        .ok_or(Malformed { header: "mainstay-timeout-ms", expected: "1 to 9 digits" })
}

/// The number written in `text`, if that is 1 to `max` digits and nothing else.
pub(crate) fn digits(text: &[u8], max: usize) -> Option<u64> {
    if text.is_empty() || max < text.len() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

const OUTGOING_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
