//! `[upstream.N.outlier]`, as written and resolved.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Invalid;
use crate::invalid::{span, within};

/// `[upstream.N.outlier]` as written: every field optional, nothing checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawOutlier {
    /// Time between two looks at all instances, in seconds, 0.1 to 3600. Default 10.
    pub interval_seconds: Option<f64>,
    /// Failures in a row that eject at once; 0 turns the rule off, which the instance's circuit
    /// has as well. Default 0.
    pub consecutive: Option<u32>,
    /// Whether an instance is ejected whose success rate is more than 1.9 standard deviations
    /// below the mean, among at least 5 instances with 100 calls. Default true.
    pub success_rate: Option<bool>,
    /// Failures of at least 50 calls that eject, in percent, 0 to 100; 0 turns the rule off.
    /// Default 85.
    pub failure_percent: Option<u32>,
    /// Whether an instance is ejected whose median latency is at least three times the median of
    /// all and 10 ms above it, among at least 3 instances with 50 calls. Default true.
    pub latency: Option<bool>,
    /// Length of the first ejection, in seconds, 0.1 to 3600; the next ones take two times, three
    /// times as long. Default 30.
    pub base_seconds: Option<f64>,
    /// Longest ejection, in seconds, `base_seconds` to 86400. Default 300.
    pub max_seconds: Option<f64>,
    /// Share of the instances that may be ejected together, in percent, 0 to 100. Default 50.
    pub max_ejected_percent: Option<u32>,
    /// Healthy instances that must remain. Default 1.
    pub min_healthy: Option<u32>,
}

/// `[upstream.N.outlier]`, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierPolicy {
    /// Time between two looks at all instances.
    pub interval: Duration,
    /// Failures in a row that eject; 0 is off.
    pub consecutive: u32,
    /// Whether success rates are compared.
    pub success_rate: bool,
    /// Failures that eject, in percent; 0 is off.
    pub failure_percent: u32,
    /// Whether latencies are compared.
    pub latency: bool,
    /// Length of the first ejection.
    pub base: Duration,
    /// Longest ejection; not below `base`.
    pub max: Duration,
    /// Share that may be ejected, in percent.
    pub max_ejected_percent: u32,
    /// Healthy instances that must remain.
    pub min_healthy: u32,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self::try_from(RawOutlier::default()).expect("the defaults are in range")
    }
}

impl TryFrom<RawOutlier> for OutlierPolicy {
    type Error = Invalid;

    fn try_from(raw: RawOutlier) -> Result<Self, Invalid> {
        let base = span("base_seconds", raw.base_seconds.unwrap_or(30.0), 0.1, 3_600.0)?;
        let max = span("max_seconds", raw.max_seconds.unwrap_or(300.0), 0.1, 86_400.0)?;
        if max < base {
            let (max, base) = (max.as_secs_f64(), base.as_secs_f64());
            let problem = format!("must be at least `base_seconds`, which is {base}, found {max}");
            return Err(Invalid::contradiction("max_seconds", problem));
        }
        Ok(Self {
            interval: span("interval_seconds", raw.interval_seconds.unwrap_or(10.0), 0.1, 3_600.0)?,
            consecutive: raw.consecutive.unwrap_or(0),
            success_rate: raw.success_rate.unwrap_or(true),
            failure_percent: within("failure_percent", raw.failure_percent.unwrap_or(85), 0, 100)?,
            latency: raw.latency.unwrap_or(true),
            base,
            max,
            max_ejected_percent: within(
                "max_ejected_percent",
                raw.max_ejected_percent.unwrap_or(50),
                0,
                100,
            )?,
            min_healthy: raw.min_healthy.unwrap_or(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<OutlierPolicy, Invalid> {
        OutlierPolicy::try_from(toml::from_str::<RawOutlier>(text).unwrap())
    }

    #[test]
    fn an_empty_table_means_the_documented_defaults() {
        let seconds = Duration::from_secs;
        let want = OutlierPolicy {
            interval: seconds(10),
            consecutive: 0,
            success_rate: true,
            failure_percent: 85,
            latency: true,
            base: seconds(30),
            max: seconds(300),
            max_ejected_percent: 50,
            min_healthy: 1,
        };
        assert_eq!(parse(""), Ok(want));
    }

    #[test]
    fn wrong_values_are_named() {
        let cases = [
            ("interval_seconds = 0", "interval_seconds", "0.1 to 3600"),
            ("failure_percent = 101", "failure_percent", "0 to 100"),
            ("base_seconds = 0", "base_seconds", "0.1 to 3600"),
            ("max_seconds = 29", "max_seconds", "`base_seconds`, which is 30"),
            ("base_seconds = 301", "max_seconds", "`base_seconds`, which is 301"),
            ("max_ejected_percent = 101", "max_ejected_percent", "0 to 100"),
        ];
        for (text, path, problem) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!(error.path, path, "{text}");
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
        assert!(toml::from_str::<RawOutlier>("enforcing = 100").is_err());
    }
}
