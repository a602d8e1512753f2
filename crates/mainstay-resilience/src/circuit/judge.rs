//! Thresholds, in the form in which a record can be judged without a branch too many.

use std::time::Duration;

use super::policy::{CircuitPolicy, Compare, ProbeRule, Share};
use super::report::{Cause, Reason};
use crate::window::{Tally, Window};

/// The conditions of a policy. A condition that is off has a threshold that nothing reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    /// Nanoseconds from which on a call is slow.
    pub(super) slow_from: u64,
    min_calls: u64,
    /// The same while the ramp lets only a part of the calls through.
    min_calls_ramp: u64,
    consecutive: u64,
    unavailable: u64,
    failure_rate: Rate,
    slow_rate: Rate,
    failures: u64,
    sub_windows: u32,
    probe_failure_rate: Rate,
    probe_rule: ProbeRule,
}

impl Judge {
    pub(super) fn new(policy: &CircuitPolicy) -> Self {
        let above = policy.compare == Compare::Above;
        let min_calls = u64::from(policy.min_calls);
        let slow_rate =
            if policy.slow_call.is_some() { policy.slow_rate } else { Share::default() };
        Self {
            slow_from: slow_from(policy.slow_call, above),
            min_calls,
            min_calls_ramp: min_calls.min(u64::from(policy.probes)),
            consecutive: or_never(policy.consecutive_failures),
            unavailable: or_never(policy.unavailable_calls),
            failure_rate: Rate::new(policy.failure_rate, above),
            slow_rate: Rate::new(slow_rate, above),
            failures: or_never(policy.failures).saturating_add(u64::from(above)),
            sub_windows: match policy.sub_windows_tripped {
                0 => u32::MAX,
                needed => needed,
            },
            probe_failure_rate: Rate::new(probe_failure_share(policy), above),
            probe_rule: policy.probe_rule,
        }
    }

    /// The first condition that holds, in the order in which reasons are given.
    #[inline]
    pub(super) fn verdict(&self, window: &Window, run: u64, ramp: bool) -> Option<Cause> {
        if run >= self.consecutive {
            return Some(Cause::counts(Reason::Consecutive, run, self.consecutive));
        }
        if let Some(full) = window.filled()
            && let Some(cause) = self.unavailable(&full.tally)
        {
            return Some(cause);
        }
        let total = window.total();
        let min_calls = if ramp { self.min_calls_ramp } else { self.min_calls };
        if total.calls >= min_calls {
            if self.failure_rate.fires(total.failures, total.calls) {
                return Some(self.failure_rate.cause(Reason::FailureRate, total.failures, total));
            }
            if self.slow_rate.fires(total.slow, total.calls) {
                return Some(self.slow_rate.cause(Reason::SlowRate, total.slow, total));
            }
        }
        if total.failures >= self.failures {
            return Some(Cause::counts(Reason::Failures, total.failures, self.failures));
        }
        (window.tripped() >= self.sub_windows).then(|| {
            let tripped = u64::from(window.tripped());
            Cause::counts(Reason::SubWindows, tripped, u64::from(self.sub_windows))
        })
    }

    /// Whether no number of plain successes can open a closed circuit, now or by time alone: no
    /// condition holds, and each depends on figures that successes can only better.
    #[inline]
    pub(super) fn only_improves(&self, window: &Window) -> bool {
        let total = window.total();
        if total.failures == 0 && total.slow == 0 {
            return true;
        }
        total.calls >= self.min_calls
            && self.verdict(window, 0, false).is_none()
            && self.unavailable(&window.current().tally).is_none()
    }

    /// The cause, if `tally` is that of an ended sub-window in which nobody answered.
    pub(super) fn unavailable(&self, tally: &Tally) -> Option<Cause> {
        (tally.calls >= self.unavailable && tally.is_all_timeouts())
            .then(|| Cause::counts(Reason::Unavailable, tally.timeouts, self.unavailable))
    }

    /// Why probes with the results in `tally` open the circuit again, if they do. `all_in`: there
    /// will be no more of them.
    pub(super) fn probes(&self, tally: &Tally, all_in: bool) -> Option<Cause> {
        if self.probe_rule == ProbeRule::All {
            let slow = if self.slow_rate.is_off() { 0 } else { tally.slow };
            let bad = tally.failures.max(slow);
            return (bad > 0).then(|| Cause::counts(Reason::ProbeFailed, bad, 1));
        }
        if !all_in {
            return None;
        }
        if self.probe_failure_rate.fires(tally.failures, tally.calls) {
            let cause = self.probe_failure_rate.cause(Reason::FailureRate, tally.failures, tally);
            return Some(cause);
        }
        (self.slow_rate.fires(tally.slow, tally.calls))
            .then(|| self.slow_rate.cause(Reason::SlowRate, tally.slow, tally))
    }

    /// Calls from which on rates are judged.
    pub(super) fn min_calls(&self, ramp: bool) -> u64 {
        if ramp { self.min_calls_ramp } else { self.min_calls }
    }
}

/// Probes must fail by something when failures opened the circuit by another condition than the
/// rate: then half of them decide. A circuit about slow calls only does not mind failed probes.
fn probe_failure_share(policy: &CircuitPolicy) -> Share {
    let others = [
        policy.consecutive_failures,
        policy.unavailable_calls,
        policy.failures,
        policy.sub_windows_tripped,
    ];
    if policy.failure_rate.is_off() && others.iter().any(|&threshold| threshold > 0) {
        Share::HALF
    } else {
        policy.failure_rate
    }
}

fn slow_from(slow_call: Option<Duration>, above: bool) -> u64 {
    slow_call.map_or(u64::MAX, |latency| {
        u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).saturating_add(u64::from(above))
    })
}

fn or_never(threshold: u32) -> u64 {
    if threshold == 0 { u64::MAX } else { u64::from(threshold) }
}

/// `part ≥ share of whole` as one comparison of products: `part · 10,000 ≥ points · whole +
/// strict`.
#[derive(Clone, Copy, Debug)]
struct Rate {
    points: u64,
    strict: u64,
}

impl Rate {
    fn new(share: Share, above: bool) -> Self {
        let points = if share.is_off() { OFF } else { u64::from(share.basis_points()) };
        Self { points, strict: u64::from(above && points < WHOLE) }
    }

    const fn is_off(self) -> bool {
        self.points == OFF
    }

    #[inline]
    const fn fires(self, part: u64, whole: u64) -> bool {
        whole > 0 && part * WHOLE >= self.points * whole + self.strict
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 10,001")]
    fn cause(self, reason: Reason, part: u64, of: &Tally) -> Cause {
        #[expect(clippy::cast_precision_loss, reason = "call counts stay far below 2^52")]
        let observed = part as f64 * 100.0 / of.calls.max(1) as f64;
        Cause { reason, observed, threshold: self.points as f64 / 100.0 }
    }
}

/// All of the whole, in hundredths of a percent.
const WHOLE: u64 = 10_000;
/// More than all of it.
const OFF: u64 = WHOLE + 1;
