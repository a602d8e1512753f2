//! What of a limit outlives a restart.
//!
//! A quota of a hundred a day that begins anew with every restart is none. So what was used is
//! written down, with spans instead of moments, since the next process counts its own time. A
//! limit that counts in the same way takes it over exactly: its windows stay where they were. One
//! whose measure has changed meanwhile begins with as much used as there was.

use std::time::Duration;

use mainstay_core::Instant;
use serde::{Deserialize, Serialize};

use super::limiter::spend_all_but;
use super::machine::{Level, Rule};

/// What was used of one quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaLeft {
    /// How it is counted: windows, their parts, rates.
    pub(super) measure: [u64; 3],
    /// Units used.
    pub used: u64,
    /// Units there were to use.
    pub capacity: u64,
    pub(super) left: Left,
}

/// The state of a quota, in spans before or after the moment at which it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Left {
    /// Counts of windows; the first began so many nanoseconds ago. Zeros at the end are left out.
    Windows { begun_nanoseconds: u64, counts: Vec<u32> },
    /// Nanoseconds until it is as if nobody had asked.
    Full { in_nanoseconds: u64 },
}

impl QuotaLeft {
    /// What is worth keeping of `state`; nothing of one that nobody uses, or of a kind that says
    /// nothing of the past.
    pub(super) fn of<R: Rule>(rule: &R, state: &R::State, now: Instant) -> Option<Self> {
        let Level { used, capacity, .. } = rule.level(state, now);
        let left = rule.save(state, now)?;
        (used > 0).then(|| Self { measure: rule.measure(), used, capacity, left })
    }

    /// The state it comes to under `rule`, when it was taken `elapsed` ago.
    pub(super) fn state<R: Rule>(&self, rule: &R, now: Instant, elapsed: Duration) -> R::State {
        if self.measure == rule.measure()
            && let Some(state) = rule.load(&self.left, now, elapsed)
        {
            return state;
        }
        let mut state = rule.fresh(now);
        let before = Level { used: self.used, capacity: self.capacity, reset: Duration::ZERO };
        spend_all_but(rule, &mut state, now, before);
        state
    }

    /// Share of the quota that is used, in 65,536ths, to tell what is worth more.
    pub fn share(&self) -> u64 {
        self.used.min(self.capacity).saturating_mul(1 << 16) / self.capacity.max(1)
    }
}

impl Left {
    /// Counts whose first window began at `start`.
    pub(super) fn windows(counts: &[u32], start: u64, now: Instant) -> Self {
        let in_use = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        Self::Windows {
            begun_nanoseconds: now.as_nanos().saturating_sub(start),
            counts: counts[..in_use].to_vec(),
        }
    }

    /// Start and counts as they are for a process at `now`.
    pub(super) fn to_windows<const N: usize>(
        &self,
        now: Instant,
        elapsed: Duration,
    ) -> Option<(u64, [u32; N])> {
        let Self::Windows { begun_nanoseconds, counts } = self else { return None };
        let ago = Duration::from_nanos(*begun_nanoseconds).saturating_add(elapsed);
        let mut used = [0; N];
        for (slot, &count) in used.iter_mut().zip(counts) {
            *slot = count;
        }
        Some((now.as_nanos().saturating_sub(super::machine::nanos(ago)), used))
    }
}

#[cfg(test)]
mod tests {
    use crate::limit::{Cost, Decision, LimitPolicy, Limiter, RawLimit};

    use super::*;

    fn at(seconds: f64) -> Instant {
        // Far from zero, as the clock of a process is.
        Instant::ZERO.plus(Duration::from_hours(2)).plus(Duration::from_secs_f64(seconds))
    }

    fn limiter(text: &str) -> Limiter {
        let raw: RawLimit = toml::from_str(text).unwrap();
        Limiter::new(&LimitPolicy::try_from(raw).unwrap(), at(0.0)).unwrap()
    }

    fn ask(limiter: &mut Limiter, now: f64) -> String {
        match limiter.ask(at(now), Cost::ONE) {
            Decision::Granted { .. } => "yes".to_owned(),
            Decision::Wait { until, .. } => format!("+{}", until.since(at(now)).as_secs_f64()),
            Decision::Denied(denied) => format!("{}", denied.retry_after.as_secs_f64()),
            Decision::CostExceedsQuota { .. } => "never".to_owned(),
        }
    }

    /// Asks a limit at `before`, restarts it at 20 s under `after`, for which two seconds pass in
    /// between, and asks it at `asked`.
    #[track_caller]
    fn check(text: &str, before: &[f64], after: &str, asked: &[f64], want: &str) {
        let mut old = limiter(text);
        for &now in before {
            assert_eq!(ask(&mut old, now), "yes", "{text}");
        }
        let kept = old.snapshot(at(20.0)).expect("something was used");
        let text = serde_json::to_string(&kept).unwrap();
        let kept: QuotaLeft = serde_json::from_str(&text).unwrap();
        let mut new = limiter(after);
        // The clock of the new process shows another time.
        let shift = 100.0;
        new.restore(at(22.0 + shift), &kept, Duration::from_secs(2));
        let got: Vec<String> = asked.iter().map(|&now| ask(&mut new, now + shift)).collect();
        assert_eq!(got.join(" "), want, "{text} then {after}");
        let never_stopped: Vec<String> = asked.iter().map(|&now| ask(&mut old, now)).collect();
        if text == after {
            assert_eq!(got, never_stopped, "as if it had never stopped");
        }
    }

    #[test]
    fn a_quota_goes_on_where_it_was() {
        let counter = "kind = 'counter'\nmax = 3\nwindow_seconds = 60";
        check(counter, &[1.0, 2.0, 3.0], counter, &[22.0, 59.5, 60.0], "38 0.5 yes");
        check(counter, &[1.0], counter, &[22.0, 22.0, 22.0], "yes yes 38");
        let sliding = "kind = 'sliding'\nmax = 3\nwindow_seconds = 60\nedge = 'full'";
        check(sliding, &[1.0, 8.0, 19.0], sliding, &[22.0, 66.0, 66.0], "44 yes 6");
        let bucket = "max = 6\nwindow_seconds = 60\nburst = 2";
        check(bucket, &[19.0, 19.0], bucket, &[22.0, 29.0, 29.5], "7 yes 9.5");
        check(bucket, &[5.0, 16.0], bucket, &[22.0, 22.0, 22.0], "yes 4 4");
    }

    #[test]
    fn a_quota_that_is_counted_otherwise_begins_with_what_was_used() {
        let counter = "kind = 'counter'\nmax = 3\nwindow_seconds = 60";
        let long = "kind = 'counter'\nmax = 3\nwindow_seconds = 600";
        check(counter, &[1.0, 2.0], long, &[22.0, 22.0], "yes 600");
        let bucket = "max = 3\nwindow_seconds = 60";
        check(counter, &[1.0, 2.0, 3.0], bucket, &[22.0, 42.0], "20 yes");
        check(bucket, &[19.0, 19.0], counter, &[22.0, 22.0], "yes 60");
    }

    #[test]
    fn what_says_nothing_of_the_past_is_not_kept() {
        for text in ["kind = 'pacing'\nmax = 1\nwindow_seconds = 60", "max = 5"] {
            let mut limiter = limiter(text);
            assert_eq!(limiter.snapshot(at(0.0)), None, "{text}");
            ask(&mut limiter, 0.0);
            assert_eq!(limiter.snapshot(at(100.0)), None, "{text}");
        }
    }
}
