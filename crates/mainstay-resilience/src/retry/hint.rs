//! What callers and peers say about retries in their headers.

use std::time::{Duration, SystemTime};

use crate::deadline::{Digits, digits};

/// A peer's order about retries, `grpc-retry-pushback-ms` (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Wait exactly so long.
    After(Duration),
    /// Do not retry.
    Never,
}

/// Reads `grpc-retry-pushback-ms`. Whatever is not a number of up to ten digits, a negative one
/// above all, means no retry.
pub fn parse_pushback(value: &[u8]) -> Pushback {
    digits(value, 10).map_or(Pushback::Never, |n| Pushback::After(Duration::from_millis(n)))
}

/// Reads `Retry-After`: seconds, or a date in any of HTTP's three forms, counted from `wall_now`;
/// a date that has passed is no wait. `None` when it is neither.
///
/// Source: RFC 9110, section 10.2.3.
pub fn parse_retry_after(value: &[u8], wall_now: SystemTime) -> Option<Duration> {
    let text = value.trim_ascii();
    if let Some(seconds) = digits(text, RETRY_AFTER_DIGITS_MAX) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    Some(date.duration_since(wall_now).unwrap_or_default())
}

/// Whether a call of this method may be made twice by its nature (RFC 9110, section 9.2.2). Names
/// of methods are case-sensitive.
pub fn method_is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

/// The attempt of somebody above that a call arrives as: the larger of `mainstay-attempt` and
/// `grpc-previous-rpc-attempts` + 1. At 2 or above that somebody is retrying.
///
/// 1 when neither is there, or neither can be read: these headers can only restrain, and nobody is
/// held to what cannot be read.
pub fn arriving_attempt(attempt: Option<&[u8]>, grpc_previous: Option<&[u8]>) -> u32 {
    let read = |value: Option<&[u8]>| {
        value
            .and_then(|value| digits(value, ATTEMPT_DIGITS_MAX))
            .and_then(|n| u32::try_from(n).ok())
    };
    let above = read(attempt).unwrap_or(1);
    let above_grpc = read(grpc_previous).map_or(1, |previous| previous + 1);
    above.max(above_grpc).max(1)
}

/// The value of `mainstay-attempt` for attempt `number` of a call that arrived as attempt
/// `arriving`, or `None` when the header stays away. What somebody above said is handed on, so
/// that every tier below restrains itself too.
pub fn outgoing_attempt(number: u32, arriving: u32) -> Option<Digits> {
    let attempt = number.max(arriving);
    (1 < attempt).then(|| Digits::of(attempt))
}

/// The value of `grpc-previous-rpc-attempts`: one less than [`outgoing_attempt`].
pub fn outgoing_grpc_attempts(number: u32, arriving: u32) -> Option<Digits> {
    let attempt = number.max(arriving);
    (1 < attempt).then(|| Digits::of(attempt - 1))
}

/// A hint of 18 digits is longer than the universe is old, and still fits.
const RETRY_AFTER_DIGITS_MAX: usize = 18;
/// Nine digits fit a `u32`, and one more than they say does too.
const ATTEMPT_DIGITS_MAX: usize = 9;
