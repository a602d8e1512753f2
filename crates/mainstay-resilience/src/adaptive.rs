//! A concurrency limit that finds itself.
//!
//! No one knows how many calls a peer can carry at once, and the number changes. But latency
//! tells: while a peer keeps up, one more call in flight costs the others nothing; once it queues,
//! it does (Little 1961). So the limit follows the ratio of the latency of an idle peer to that of
//! now, by one of three laws:
//!
//! | [`Algorithm`] | idea | after |
//! |---|---|---|
//! | [`Gradient`](Algorithm::Gradient) | shrink by the ratio, grow by √limit while nothing queues | Netflix concurrency-limits, `Gradient2Limit` |
//! | [`Vegas`](Algorithm::Vegas) | estimate the queue in calls, keep it between two bounds | Brakmo and Peterson 1995; `VegasLimit` |
//! | [`Aimd`](Algorithm::Aimd) | one more while all is well, a tenth less after a loss | Chiu and Jain 1989; `AIMDLimit` |
//!
//! What differs from the ancestors: the latency of an idle peer is not found by pinning the limit
//! low now and then, which hurts every time; it is the least window median of the last five
//! minutes, and may rise by no more than a twentieth each half minute, so that an overload cannot
//! pass for the new normal before it is over.
//!
//! What this costs: a peer that becomes slower than `tolerance` times its baseline *without* being
//! overloaded is taken for an overloaded one. `gradient` then shrinks towards its floor and finds
//! back only as the baseline rises, after five to ten minutes. Where latency is known to vary so
//! much, `tolerance` belongs higher. `vegas` bounds the queue in calls, not in shares, and so suits
//! peers of steady latency; `aimd` needs a timeout or losses to see anything at all.
//!
//! Only calls that began after the limit last changed count. What began before says how the peer
//! fared under another limit.

use std::time::Duration;

use mainstay_core::Instant;

use crate::Outcome;

mod baseline;
mod law;
mod policy;
#[cfg(test)]
mod tests;

use self::baseline::Baseline;
use self::law::Measured;
pub use self::policy::{AdaptivePolicy, Algorithm, Decrease, RawAdaptive, VegasBounds};

/// One adaptive limit. It says how many; counting what is in flight is the caller's.
#[derive(Clone, Debug)]
pub struct Adaptive {
    policy: AdaptivePolicy,
    /// With its fraction: growth of a tenth a second must not be lost to rounding.
    limit: f64,
    changed_at: Instant,
    now: Instant,
    /// Start of the sample window.
    began: Instant,
    latencies: Latencies,
    dropped: u64,
    in_flight_max: u32,
    baseline: Baseline,
}

/// How a call ended, as far as load is concerned. Any other failure says nothing about load, and
/// a fast one would pass for a fast peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Answered.
    Success,
    /// Not answered in time: its latency counts, and it is a drop.
    Timeout,
    /// Refused by the peer, or lost to congestion: a drop without a latency.
    Dropped,
}

impl Ended {
    /// The same for an outcome; congestion, which an [`Outcome`] does not tell from other
    /// failures, is for the caller to add.
    pub const fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Success => Some(Self::Success),
            Outcome::RequestTimeout | Outcome::ConnectTimeout => Some(Self::Timeout),
            Outcome::Refused => Some(Self::Dropped),
            Outcome::Failure => None,
        }
    }
}

impl Adaptive {
    /// A limit at its initial value.
    pub fn new(policy: AdaptivePolicy, now: Instant) -> Self {
        Self {
            limit: f64::from(policy.initial),
            policy,
            changed_at: now,
            now,
            began: now,
            latencies: Latencies::new(),
            dropped: 0,
            in_flight_max: 0,
            baseline: Baseline::new(now),
        }
    }

    /// Calls that may be in flight; `floor` to `ceiling`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to u32")]
    pub fn limit(&self) -> u32 {
        self.limit.round() as u32
    }

    /// Median latency of an idle peer, as far as known.
    pub fn baseline(&self) -> Option<Duration> {
        self.baseline.get().map(Duration::from_nanos)
    }

    /// Records a call that began at `started`, with `in_flight` calls on their way at that time,
    /// itself included. Returns the new limit if it changed.
    pub fn record(
        &mut self,
        now: Instant,
        started: Instant,
        in_flight: u32,
        ended: Ended,
        latency: Duration,
    ) -> Option<u32> {
        let changed = self.poll(now);
        if started < self.changed_at {
            return changed;
        }
        self.in_flight_max = self.in_flight_max.max(in_flight);
        self.dropped += u64::from(ended != Ended::Success);
        if ended != Ended::Dropped {
            self.latencies.add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
        self.poll(self.now).or(changed)
    }

    /// Ends the sample window if it is over; returns the new limit if it changed.
    pub fn poll(&mut self, now: Instant) -> Option<u32> {
        self.now = self.now.max(now);
        if self.now < self.window_ends() || !self.has_enough() {
            return None;
        }
        let before = self.limit();
        let next = self.judge();
        self.limit = next.clamp(f64::from(self.policy.floor), f64::from(self.policy.ceiling));
        self.begin();
        (self.limit() != before).then(|| {
            self.changed_at = self.now;
            self.limit()
        })
    }

    /// When [`Adaptive::poll`] will do something, as things stand.
    pub fn next_wake(&self) -> Option<Instant> {
        self.has_enough().then(|| self.window_ends())
    }

    /// Takes another policy and keeps limit and baseline, as far as the new bounds allow.
    pub fn set_policy(&mut self, now: Instant, policy: AdaptivePolicy) {
        self.now = self.now.max(now);
        let before = self.limit();
        self.limit = self.limit.clamp(f64::from(policy.floor), f64::from(policy.ceiling));
        self.policy = policy;
        if self.limit() != before {
            self.changed_at = self.now;
            self.begin();
        }
    }

    /// The limit that follows from the window.
    fn judge(&mut self) -> f64 {
        let dropped = self.dropped > 0;
        let Some(median) = self.latencies.median() else {
            // Nothing but losses: there is no latency to reason about.
            return law::after_loss(&self.policy, self.limit);
        };
        let known = self.baseline.observe(self.now, median);
        let measured = Measured {
            limit: self.limit,
            in_flight: self.in_flight_max,
            median,
            known,
            baseline: self.baseline.get().unwrap_or(median),
            dropped,
        };
        law::next(&self.policy, &measured)
    }

    fn begin(&mut self) {
        self.began = self.now;
        self.latencies.clear();
        (self.dropped, self.in_flight_max) = (0, 0);
    }

    fn window_ends(&self) -> Instant {
        self.began.plus(self.policy.sample)
    }

    fn has_enough(&self) -> bool {
        self.latencies.seen.max(self.dropped) >= SAMPLES_MIN
    }
}

/// Fewer samples say more about the calls than about the peer.
const SAMPLES_MIN: u64 = 10;

/// Latencies of one window, thinned out evenly when there are too many: of every 2^k the first is
/// kept, and k grows as the room fills. The median is exact up to [`LATENCIES_KEPT`] samples and
/// that of an even sample beyond.
#[derive(Clone, Debug)]
struct Latencies {
    kept: Vec<u64>,
    seen: u64,
    /// One less than a power of two.
    skip_mask: u64,
}

/// 4 KiB a limit; the median of 256 to 512 samples is off by less than 3 ranks in 100.
const LATENCIES_KEPT: usize = 512;

impl Latencies {
    fn new() -> Self {
        Self { kept: Vec::with_capacity(LATENCIES_KEPT), seen: 0, skip_mask: 0 }
    }

    fn add(&mut self, nanos: u64) {
        if self.seen & self.skip_mask == 0 {
            if self.kept.len() == LATENCIES_KEPT {
                self.thin_out();
            }
            if self.seen & self.skip_mask == 0 {
                self.kept.push(nanos);
            }
        }
        self.seen += 1;
    }

    fn thin_out(&mut self) {
        let mut i = 0;
        self.kept.retain(|_| {
            i += 1;
            i % 2 == 1
        });
        self.skip_mask = self.skip_mask * 2 + 1;
    }

    /// The middle one; of an even number the lower of the two.
    fn median(&mut self) -> Option<u64> {
        let middle = self.kept.len().checked_sub(1)? / 2;
        Some(*self.kept.select_nth_unstable(middle).1)
    }

    fn clear(&mut self) {
        self.kept.clear();
        (self.seen, self.skip_mask) = (0, 0);
    }
}
