//! The reduced weight of an instance that has just come, or come back.
//!
//! A cold process (empty caches, code not yet compiled, pools not yet filled) that gets its full
//! share at once fails at once. The formula is Envoy's (`slow_start_config`): the weight grows as
//! a power of the age, and starts above zero, for an instance without traffic never warms up.

use std::time::Duration;

/// How fast a newcomer's weight grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// Age at which the weight is whole; more than zero.
    pub window: Duration,
    /// Share of the weight that an instance has at least, in percent, 1 to 100.
    pub min_percent: u32,
    /// Exponent of the curve, more than zero: 1 is a straight line, 2 rises fast at first.
    pub aggression: f64,
}

impl SlowStart {
    /// The part of its weight that an instance of `age` has, above 0 and at most 1.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let part = age.div_duration_f64(self.window);
        #[expect(clippy::float_cmp, reason = "1 is the default, and saves the power")]
        let part = if self.aggression == 1.0 { part } else { part.powf(1.0 / self.aggression) };
        part.max(f64::from(self.min_percent) / 100.0).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_grows_as_the_table_says() {
        let cases = [
            (1.0, 0.0, 10.0),
            (1.0, 6.0, 10.0),
            (1.0, 15.0, 25.0),
            (1.0, 30.0, 50.0),
            (1.0, 60.0, 100.0),
            (1.0, 1e9, 100.0),
            (2.0, 0.0, 10.0),
            (2.0, 6.0, 31.6),
            (2.0, 15.0, 50.0),
            (2.0, 30.0, 70.7),
            (2.0, 60.0, 100.0),
        ];
        for (aggression, age, want) in cases {
            let window = Duration::from_mins(1);
            let policy = SlowStart { window, min_percent: 10, aggression };
            let got = 100.0 * policy.factor(Duration::from_secs_f64(age));
            assert!((got - want).abs() < 0.05, "aggression {aggression}, {age} s: {got} %");
        }
    }
}
