//! How long to wait before each retry.

use std::time::Duration;

/// Intervals between attempts, and how they are blurred.
///
/// Without jitter, all calls that failed in one instant come back in one instant. Full jitter
/// spreads them over the whole interval, and of the usual kinds does the least work for the same
/// outcome (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// How intervals grow.
    pub shape: Shape,
    /// The first interval, at least 1 ms.
    pub base: Duration,
    /// What an exponential interval is multiplied with each time, above 0.
    pub multiplier: f64,
    /// The longest interval, before jitter.
    pub max: Duration,
    /// How an interval becomes a delay.
    pub jitter: Jitter,
}

/// How intervals grow from one retry to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// base, base, base
    Constant,
    /// base, 2·base, 3·base
    Linear,
    /// base, base·multiplier, base·multiplier²
    Exponential,
}

/// How an interval becomes a delay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// The delay is the interval.
    None,
    /// Anything below the interval, in whole milliseconds.
    Full,
    /// The interval, give or take so many percent of it, 0 to 100.
    Percent(f64),
}

impl Backoff {
    /// The delay before retry number `n`, of which the first is 1.
    ///
    /// Full jitter takes `draw` modulo the interval in milliseconds. A percentage takes the upper
    /// 53 bits of `draw` as a number from 0 to 1, both included: 0 is the shortest delay,
    /// `u64::MAX` the longest. Without jitter `draw` is of no account.
    ///
    /// The delay exceeds [`Backoff::max`] only by the jitter's percentage, and is exact to 1 µs.
    pub fn delay(&self, n: u32, draw: u64) -> Duration {
        let interval = self.interval_ms(n);
        match self.jitter {
            Jitter::None => from_ms(interval),
            Jitter::Full => Duration::from_millis(draw % whole(interval).max(1)),
            Jitter::Percent(percent) => {
                let share = percent / 100.0;
                from_ms(interval * (1.0 - share + unit(draw) * 2.0 * share))
            }
        }
    }

    /// Interval `n` in milliseconds. What overflows is infinite, and an infinite interval is the
    /// longest one.
    fn interval_ms(&self, n: u32) -> f64 {
        let n = n.max(1);
        let factor = match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => f64::from(n),
            Shape::Exponential => self.multiplier.powi(i32::try_from(n - 1).unwrap_or(i32::MAX)),
        };
        (ms(self.base) * factor).min(ms(self.max))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            shape: Shape::Exponential,
            base: Duration::from_millis(25),
            multiplier: 2.0,
            max: Duration::from_millis(250),
            jitter: Jitter::Full,
        }
    }
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

fn from_ms(millis: f64) -> Duration {
    Duration::from_micros(whole((millis * 1_000.0).round()))
}

/// `draw` as a number from 0 to 1, both included.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (u64::MAX >> 11) as f64
}

/// The whole part; what is too large becomes the largest there is, what is negative becomes 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, which is what is wanted"
)]
fn whole(number: f64) -> u64 {
    number as u64
}
