//! A circuit as others see it: the whole for a console, one refusal for a caller.

use mainstay_core::Instant;

use super::state::Phase;
use super::{Cause, Circuit, Refused, SubWindowView, View, Why};
use crate::window::Tally;

impl Circuit {
    /// Everything there is to see at `now`.
    pub fn view(&mut self, now: Instant) -> View {
        let now = self.catch_up(now);
        let core = &self.core;
        let half_open = matches!(core.phase, Phase::HalfOpen { .. });
        let probes_free = if half_open { self.probes.free(now) } else { 0 };
        let reported = usize::try_from(self.probes.results().calls).unwrap_or(usize::MAX);
        let in_flight = self.probes.len().saturating_sub(reported).saturating_sub(probes_free);
        let step = match core.phase {
            Phase::Ramp(step) => Some(step),
            _ => None,
        };
        let trip = u64::from(self.policy.sub_window_failures);
        let windows = self.window.sub_windows().into_iter().map(|sub| SubWindowView {
            start: sub.start,
            tally: sub.tally,
            tripped: trip > 0 && sub.tally.failures >= trip,
        });
        let total = *self.window.total();
        let min_calls = self.judge.min_calls(step.is_some());
        View {
            state: core.state(),
            mode: core.mode,
            mode_until: Some(core.mode_until).filter(|&at| at < Instant::MAX),
            enforced: !core.observes(&self.policy),
            cause: core.cause,
            since: core.since,
            next_change: core.until(&self.policy),
            window: windows.collect(),
            total,
            failure_rate_percent: total.failure_percent(min_calls),
            slow_rate_percent: total.slow_percent(min_calls),
            probes_free: u32::try_from(probes_free).unwrap_or(u32::MAX),
            probes_in_flight: if half_open { u32::try_from(in_flight).unwrap_or(0) } else { 0 },
            probes: if half_open { *self.probes.results() } else { Tally::default() },
            ramp_percent: step.map(|step| step.percent(&self.policy)),
            opened_total: core.opened_total,
            would_trip_total: core.would_trip_total,
            refused_total: self.refused_total,
            would_reject_total: self.would_reject_total,
        }
    }

    /// Why a call at `now` does not pass.
    pub(super) fn refusal(&self, now: Instant) -> Refused {
        let Cause { reason, observed, threshold } = self.core.cause;
        let since = now.since(self.core.since);
        let refused = |why, until: Instant, observed, threshold| Refused {
            why,
            since,
            retry_after: until.since(now),
            observed,
            threshold,
        };
        match self.core.phase {
            Phase::Open { until: Instant::MAX, .. } => {
                let end = self.core.mode_until;
                let end = if end < Instant::MAX { end } else { now.plus(self.policy.cooldown_max) };
                refused(Why::ForcedOpen, end, 0.0, 0.0)
            }
            Phase::HalfOpen { ends, .. } => {
                let free = self.probes.next_free().map_or(ends, |at| at.min(ends));
                let places = f64::from(u32::try_from(self.probes.len()).unwrap_or(u32::MAX));
                refused(Why::HalfOpen, free, places, places)
            }
            Phase::Ramp(step) => {
                let percent = f64::from(step.percent(&self.policy));
                refused(Why::Ramp, step.ends(&self.policy), percent, 100.0)
            }
            Phase::Open { until, .. } => refused(Why::Open(reason), until, observed, threshold),
            Phase::Closed => refused(Why::Open(reason), now, observed, threshold),
        }
    }
}
