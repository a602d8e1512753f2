//! The rules that compare instances at the end of an interval. Pure functions of the tallies.

use std::time::Duration;

use super::{OutlierPolicy, Tally};

/// A rule that can eject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Failures in a row.
    Consecutive,
    /// Success rate far below the mean.
    SuccessRate,
    /// Too many failures, whatever the others do.
    FailurePercent,
    /// Median latency far above the others'.
    Latency,
}

impl Rule {
    /// As in labels of metrics: `success_rate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::SuccessRate => "success_rate",
            Self::FailurePercent => "failure_percent",
            Self::Latency => "latency",
        }
    }
}

/// What was seen, and what it was compared with: failures in a row, percent of successes,
/// percent of failures, or seconds, by rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// The rule.
    pub rule: Rule,
    /// What was seen of the instance.
    pub observed: f64,
    /// Where the rule fires.
    pub threshold: f64,
}

/// Standard deviations below the mean that are no longer chance; Envoy's factor.
const DEVIATIONS: f64 = 1.9;
const SUCCESS_RATE_INSTANCES: usize = 5;
const SUCCESS_RATE_CALLS: u32 = 100;
const FAILURE_PERCENT_CALLS: u32 = 50;
const LATENCY_INSTANCES: usize = 3;
const LATENCY_CALLS: u32 = 50;
const LATENCY_TIMES: f64 = 3.0;
/// Three times a tenth of a millisecond is nothing to eject an instance for.
const LATENCY_ABOVE: Duration = Duration::from_millis(10);

/// Those who broke a rule, by rule, the worst first. An instance can be in it more than once.
pub(super) fn judge(policy: &OutlierPolicy, peers: &[(u64, &Tally)]) -> Vec<(u64, Evidence)> {
    let mut found = Vec::new();
    if policy.success_rate {
        found.extend(by_success_rate(peers));
    }
    if policy.failure_percent > 0 {
        found.extend(by_failures(peers, f64::from(policy.failure_percent)));
    }
    if policy.latency {
        found.extend(by_latency(peers));
    }
    found
}

/// Those with at least `calls`, and what `of` says of them.
fn measured<T>(peers: &[(u64, &Tally)], calls: u32, of: impl Fn(&Tally) -> T) -> Vec<(u64, T)> {
    let enough = peers.iter().filter(|(_, tally)| tally.calls() >= calls);
    enough.map(|&(id, tally)| (id, of(tally))).collect()
}

fn by_success_rate(peers: &[(u64, &Tally)]) -> Vec<(u64, Evidence)> {
    let rates = measured(peers, SUCCESS_RATE_CALLS, Tally::success_percent);
    if rates.len() < SUCCESS_RATE_INSTANCES {
        return Vec::new();
    }
    let threshold = success_rate_threshold(rates.iter().map(|&(_, rate)| rate));
    let low = rates.into_iter().filter(|&(_, rate)| rate < threshold);
    let mut found = evidence(low, Rule::SuccessRate, threshold);
    found.sort_by(|a, b| a.1.observed.total_cmp(&b.1.observed));
    found
}

/// Mean − 1.9 σ over the whole population.
fn success_rate_threshold(rates: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = rates.clone().fold(0.0, |n, _| n + 1.0);
    let mean = rates.clone().sum::<f64>() / n;
    let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / n;
    DEVIATIONS.mul_add(-variance.sqrt(), mean)
}

fn by_failures(peers: &[(u64, &Tally)], threshold: f64) -> Vec<(u64, Evidence)> {
    // Not 100 − successes: the difference of two rounded numbers could miss the threshold.
    let percent = |t: &Tally| 100.0 * f64::from(t.failures()) / f64::from(t.calls());
    let failures = measured(peers, FAILURE_PERCENT_CALLS, percent);
    let high = failures.into_iter().filter(|&(_, percent)| percent >= threshold);
    worst_first(evidence(high, Rule::FailurePercent, threshold))
}

fn by_latency(peers: &[(u64, &Tally)]) -> Vec<(u64, Evidence)> {
    let mut medians = measured(peers, LATENCY_CALLS, |tally| tally.median().as_secs_f64());
    if medians.len() < LATENCY_INSTANCES {
        return Vec::new();
    }
    medians.sort_by(|a, b| a.1.total_cmp(&b.1));
    let middle = f64::midpoint(medians[(medians.len() - 1) / 2].1, medians[medians.len() / 2].1);
    let threshold = (LATENCY_TIMES * middle).max(middle + LATENCY_ABOVE.as_secs_f64());
    let high = medians.into_iter().filter(|&(_, median)| median >= threshold);
    worst_first(evidence(high, Rule::Latency, threshold))
}

fn evidence(
    found: impl Iterator<Item = (u64, f64)>,
    rule: Rule,
    threshold: f64,
) -> Vec<(u64, Evidence)> {
    found.map(|(id, observed)| (id, Evidence { rule, observed, threshold })).collect()
}

fn worst_first(mut found: Vec<(u64, Evidence)>) -> Vec<(u64, Evidence)> {
    found.sort_by(|a, b| b.1.observed.total_cmp(&a.1.observed));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_the_worked_one() {
        let threshold = success_rate_threshold([99.0, 98.0, 99.0, 97.0, 60.0].into_iter());
        assert!((threshold - 61.5).abs() < 0.05, "{threshold}");
        let same = success_rate_threshold([90.0; 7].into_iter());
        assert!((same - 90.0).abs() < 1e-9, "{same}");
    }
}
