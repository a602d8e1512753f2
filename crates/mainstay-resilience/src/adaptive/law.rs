//! The three laws, each from one window to the next limit. Bounds are applied by the caller.

use super::policy::{AdaptivePolicy, Algorithm, Decrease, VegasBounds};

/// What one window showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) limit: f64,
    /// Most calls in flight.
    pub(super) in_flight: u32,
    /// Nanoseconds, as are the next two.
    pub(super) median: u64,
    /// The baseline before this window, if there was one.
    pub(super) known: Option<u64>,
    /// The baseline with this window.
    pub(super) baseline: u64,
    /// Whether any call was lost.
    pub(super) dropped: bool,
}

impl Measured {
    /// Whether the limit was in reach. A limit that nobody needs must not grow: it would be no
    /// limit when it is needed.
    fn is_used(&self) -> bool {
        f64::from(self.in_flight) * 2.0 >= self.limit
    }

    /// Latency of an idle peer over that of now.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of latency are below 2^52")]
    fn ratio(&self) -> f64 {
        self.baseline as f64 / self.median.max(1) as f64
    }
}

pub(super) fn next(policy: &AdaptivePolicy, measured: &Measured) -> f64 {
    let too_slow =
        || policy.timeout.is_some_and(|timeout| u128::from(measured.median) > timeout.as_nanos());
    match policy.algorithm {
        _ if measured.dropped => after_loss(policy, measured.limit),
        Algorithm::Gradient => gradient(measured, policy.tolerance),
        Algorithm::Vegas => vegas(measured, &policy.vegas),
        Algorithm::Aimd if too_slow() => after_loss(policy, measured.limit),
        Algorithm::Aimd => measured.limit + f64::from(u8::from(measured.is_used())),
    }
}

/// The limit after a window in which calls were lost.
pub(super) fn after_loss(policy: &AdaptivePolicy, limit: f64) -> f64 {
    match policy.algorithm {
        Algorithm::Gradient | Algorithm::Aimd => limit * 0.9,
        Algorithm::Vegas => {
            let less = match policy.vegas.decrease {
                Decrease::Log10 => limit - log10(limit),
                Decrease::Halve => limit / 2.0,
            };
            smooth(limit, less, policy.vegas.smoothing)
        }
    }
}

/// Follows the ratio of latencies, never below a half; grows by √limit only while nothing queues
/// and the limit is in use. A fifth of the way each window.
fn gradient(measured: &Measured, tolerance: f64) -> f64 {
    let limit = measured.limit;
    let gradient = (measured.ratio() * tolerance).clamp(0.5, 1.0);
    let grows = gradient >= 1.0 && measured.is_used();
    let target = gradient * limit + if grows { limit.sqrt() } else { 0.0 };
    smooth(limit, target, 0.2)
}

/// Keeps the estimated queue between alpha and beta calls.
fn vegas(measured: &Measured, bounds: &VegasBounds) -> f64 {
    let limit = measured.limit;
    // A latency lower than any before says where the ground is, not how long the queue is.
    let lowest = measured.known.is_none_or(|known| measured.median < known);
    if lowest || !measured.is_used() {
        return limit;
    }
    let step = log10(limit);
    let alpha = bounds.alpha.map_or(3.0 * step, f64::from);
    let beta = bounds.beta.map_or(6.0 * step, f64::from);
    let queue = (limit * (1.0 - measured.ratio())).ceil();
    let target = if queue <= step {
        limit + beta
    } else if queue < alpha {
        limit + step
    } else if queue > beta {
        match bounds.decrease {
            Decrease::Log10 => limit - step,
            Decrease::Halve => limit / 2.0,
        }
    } else {
        return limit;
    };
    smooth(limit, target, bounds.smoothing)
}

/// The whole part of the decimal logarithm, at least 1.
fn log10(limit: f64) -> f64 {
    limit.log10().floor().max(1.0)
}

fn smooth(from: f64, to: f64, share: f64) -> f64 {
    from * (1.0 - share) + to * share
}
