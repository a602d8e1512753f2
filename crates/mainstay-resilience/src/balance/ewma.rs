//! Peak EWMA: an estimate of latency that believes bad news at once and good news slowly.
//!
//! The idea is Finagle's (`PeakEwma.scala`, 2015): a sample above the estimate replaces it, one
//! below moves it by the time that has passed. A plain average needs many slow calls before it
//! notices that an instance has stalled; this one needs one.
//!
//! Two additions, both because latency alone is a bad guide to failure. A failed call counts as a
//! slow one, or an instance that answers 503 in a millisecond would look like the best of all. And
//! a `Retry-After` raises the estimate for as long as it says.

use std::time::Duration;

use mainstay_core::Instant;

/// Time after which a sample has lost all but 1/e of its weight, in nanoseconds. Finagle's.
const TAU_NANOS: f64 = 10e9;

/// Longest latency that is told from longer ones: 31 years, far from where a cost would overflow.
const NANOS_MAX: f64 = 1e18;

/// Cost of an instance that has calls in flight but no sample: it is tried with one call at a
/// time until the first has come back.
const UNKNOWN_BUSY_NANOS: f64 = 1e9;

/// Longest `Retry-After` that is believed: no peer can ban itself for longer by a slip of a digit.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// What is known of the latency of one instance.
///
/// A small value to be kept per instance. [`Estimate::to_words`] and [`Estimate::from_words`] fit
/// it to three relaxed atomics: a torn read mixes two neighbouring states, and a lost update
/// loses one sample; both are within what an estimate is for. The default knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Nanoseconds, 0 to `NANOS_MAX`. Zero means that there was no sample yet.
    nanos: f64,
    /// When `nanos` was true.
    at: Instant,
    hint: Hint,
}

impl Estimate {
    /// The estimate after a call that took `sample` and ended at `now`.
    ///
    /// For a failed call give [`Estimate::failed_sample`].
    #[must_use]
    pub fn observe(self, now: Instant, sample: Duration) -> Self {
        // Zero is reserved for "no sample".
        let sample = nanos(sample).clamp(1.0, NANOS_MAX);
        let now = now.max(self.at);
        let nanos = if sample >= self.nanos {
            sample
        } else {
            sample + (self.nanos - sample) * decay(now.since(self.at))
        };
        Self { nanos, at: now, hint: self.hint }
    }

    /// The estimate after a call whose circuit had sent it to find out how the instance is, and
    /// which succeeded: what it took is what is known now. The failures before it have been judged
    /// by the circuit; were they remembered here as well, an instance that is well again would
    /// idle until they have faded, about a minute and a half later.
    #[must_use]
    pub fn relearn(self, now: Instant, sample: Duration) -> Self {
        Self { nanos: 0.0, ..self }.observe(now, sample)
    }

    /// The estimate after the instance asked at `now` to be left alone for `after`, of which at
    /// most [`RETRY_AFTER_MAX`] is believed. A hint that ends later than this one stays.
    #[must_use]
    pub fn retry_after(self, now: Instant, after: Duration) -> Self {
        let hint = Hint::new(now.max(self.at), after.min(RETRY_AFTER_MAX));
        Self { hint: if self.hint.until_ms < hint.until_ms { hint } else { self.hint }, ..self }
    }

    /// How much longer at `now` the instance wants to be left alone.
    pub fn asked_to_wait(self, now: Instant) -> Option<Duration> {
        let until = Instant::from_nanos(self.hint.until_ms.saturating_mul(1_000_000));
        (now < until).then(|| until.since(now))
    }

    /// What a failed call counts as: `latency`, but at least `penalty`.
    pub fn failed_sample(latency: Duration, penalty: Duration) -> Duration {
        latency.max(penalty)
    }

    /// The estimate at `now`, decayed as if a sample of zero had just arrived; `None` before the
    /// first sample, unless there is a `Retry-After` to go by.
    pub fn read(self, now: Instant) -> Option<Duration> {
        let nanos = self.nanos_at(now);
        (nanos > 0.0).then(|| Duration::from_secs_f64(nanos / 1e9))
    }

    /// What one more call costs here: estimate × (calls in flight + 1), in nanoseconds. Never
    /// negative, never NaN.
    ///
    /// Without a sample it is 0 when idle and one second when busy, so that a newcomer is tried
    /// soon, and with one call at a time.
    pub fn cost(self, now: Instant, in_flight: u32) -> f64 {
        let nanos = self.nanos_at(now);
        if nanos > 0.0 {
            nanos * (f64::from(in_flight) + 1.0)
        } else if in_flight == 0 {
            0.0
        } else {
            UNKNOWN_BUSY_NANOS
        }
    }

    /// The same value as three words, all zero for the default.
    pub const fn to_words(self) -> [u64; 3] {
        [self.nanos.to_bits(), self.at.as_nanos(), self.hint.to_word()]
    }

    /// The value that [`Estimate::to_words`] was called on. Words from elsewhere give some
    /// estimate, never one that breaks the promises of [`Estimate::cost`].
    pub fn from_words([nanos, at, hint]: [u64; 3]) -> Self {
        let nanos = f64::from_bits(nanos);
        Self {
            nanos: if nanos.is_nan() { 0.0 } else { nanos.clamp(0.0, NANOS_MAX) },
            at: Instant::from_nanos(at),
            hint: Hint::from_word(hint),
        }
    }

    fn nanos_at(self, now: Instant) -> f64 {
        // Decay can underflow to zero after two hours of silence; it is then tried like a newcomer.
        let nanos = self.nanos * decay(now.since(self.at));
        nanos.max(self.hint.nanos_at(now))
    }
}

/// A `Retry-After` being honoured: milliseconds, so that both numbers fit one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hint {
    /// End, in milliseconds since the clock was started; 44 bits are 557 years.
    until_ms: u64,
    /// What the estimate is raised to; at most 300,000, which is below 2²⁰.
    raised_ms: u32,
}

const RAISED_BITS: u32 = 20;

impl Hint {
    fn new(now: Instant, after: Duration) -> Self {
        Self {
            until_ms: (now.plus(after).as_nanos() / 1_000_000).min((1 << 44) - 1),
            raised_ms: u32::try_from(after.as_millis()).expect("at most 300 s"),
        }
    }

    fn nanos_at(self, now: Instant) -> f64 {
        if self.until_ms > now.as_nanos() / 1_000_000 {
            f64::from(self.raised_ms) * 1e6
        } else {
            0.0
        }
    }

    const fn to_word(self) -> u64 {
        self.until_ms << RAISED_BITS | self.raised_ms as u64
    }

    const fn from_word(word: u64) -> Self {
        let raised_ms = (word & ((1 << RAISED_BITS) - 1)) as u32;
        Self { until_ms: word >> RAISED_BITS, raised_ms }
    }
}

fn decay(span: Duration) -> f64 {
    if span.is_zero() { 1.0 } else { (-nanos(span) / TAU_NANOS).exp() }
}

fn nanos(span: Duration) -> f64 {
    span.as_secs_f64() * 1e9
}
