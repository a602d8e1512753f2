//! Short numbers as text, written without asking for memory.

use std::fmt;
use std::time::Duration;

/// A header value of at most ten bytes: digits, and for `grpc-timeout` a unit after them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digits {
    /// Right-aligned.
    bytes: [u8; BYTES],
    start: usize,
}

impl Digits {
    /// `number` as it is written.
    pub const fn of(number: u32) -> Self {
        Self { bytes: [0; BYTES], start: BYTES }.before(number)
    }

    /// The value of `mainstay-timeout-ms` for `span`: whole milliseconds, at most nine digits.
    pub fn timeout_ms(span: Duration) -> Self {
        Self::of(clamp(span.as_millis(), 999_999_999))
    }

    /// The value of `grpc-timeout` for `span`: milliseconds, or from 100,000 s on (eight digits
    /// hold no more milliseconds) whole seconds, then minutes, then hours.
    pub fn grpc_timeout(span: Duration) -> Self {
        let seconds = u128::from(span.as_secs());
        let (number, unit) = [(span.as_millis(), b'm'), (seconds, b'S'), (seconds / 60, b'M')]
            .into_iter()
            .find(|(number, _)| *number <= GRPC_MAX)
            .unwrap_or((seconds / 3_600, b'H'));
        let mut bytes = [0; BYTES];
        bytes[BYTES - 1] = unit;
        Self { bytes, start: BYTES - 1 }.before(clamp(number, 99_999_999))
    }

    /// The text.
    ///
    /// # Panics
    ///
    /// Never: only ASCII is ever written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("digits and a unit are ASCII")
    }

    /// The text, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Writes `number` before what is there; the callers leave room for all its digits.
    const fn before(mut self, mut number: u32) -> Self {
        loop {
            self.start -= 1;
            self.bytes[self.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return self;
            }
        }
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// `number`, or `max` when it is larger.
fn clamp(number: u128, max: u32) -> u32 {
    u32::try_from(number).map_or(max, |number| number.min(max))
}

/// `u32::MAX` has ten digits; a timeout has at most nine, or eight and a unit.
const BYTES: usize = 10;
const GRPC_MAX: u128 = 99_999_999;
