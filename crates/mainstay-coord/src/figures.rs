//! What coordination counts, in Prometheus' words.
//!
//! Names of locks, instances and keys are never labels: there is no end to them.

use std::time::Duration;

use mainstay_core::belief::Loss;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds: from a lock nobody else wants to the longest wait that is allowed.
const WAIT_BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 600.0];

/// Upper bounds in seconds: from one guarded write to a leader of weeks.
const HELD_BUCKETS: [f64; 10] =
    [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0, 604_800.0];

/// What was asked for, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Acquired {
    kind: &'static str,
    outcome: &'static str,
}

/// Why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Counters of coordination.
#[derive(Clone, Debug)]
pub struct Figures {
    acquires: Family<Acquired, Counter>,
    waited: Histogram,
    held: Histogram,
    lost: Family<Reason, Counter>,
    fencing_rejections: Counter,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            acquires: Family::default(),
            waited: Histogram::new(WAIT_BUCKETS),
            held: Histogram::new(HELD_BUCKETS),
            lost: Family::default(),
            fencing_rejections: Counter::default(),
        }
    }
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "lock_acquires",
            "Requests for locks, semaphores and elections, by what came of them",
            self.acquires.clone(),
        );
        registry.register_with_unit(
            "lock_wait",
            "Time from request to grant",
            Unit::Seconds,
            self.waited.clone(),
        );
        registry.register_with_unit(
            "lock_held",
            "Time from grant to release or loss",
            Unit::Seconds,
            self.held.clone(),
        );
        registry.register("lock_lost", "Locks lost by their holder, by why", self.lost.clone());
        registry.register(
            "fencing_rejections",
            "Writes refused because their lock had been lost",
            self.fencing_rejections.clone(),
        );
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        drop(self.acquires.get_or_create(&Acquired::default()));
        drop(self.lost.get_or_create(&Reason::default()));
    }

    pub(crate) fn acquired(&self, kind: &'static str, outcome: &'static str) {
        self.acquires.get_or_create(&Acquired { kind, outcome }).inc();
    }

    pub(crate) fn waited(&self, span: Duration) {
        self.waited.observe(span.as_secs_f64());
    }

    pub(crate) fn held(&self, span: Duration) {
        self.held.observe(span.as_secs_f64());
    }

    pub(crate) fn lost(&self, loss: Loss) {
        self.lost.get_or_create(&Reason { reason: loss.as_str() }).inc();
    }

    pub(crate) fn fencing_rejected(&self) {
        self.fencing_rejections.inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn metrics_have_the_names_of_the_reference() {
        let figures = Figures::default();
        let mut registry = Registry::with_prefix("mainstay");
        figures.register(&mut registry);
        figures.acquired("exclusive", "granted");
        figures.waited(Duration::from_millis(2));
        figures.held(Duration::from_secs(2));
        figures.lost(Loss::SessionGone);
        figures.fencing_rejected();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "mainstay_lock_acquires_total{kind=\"exclusive\",outcome=\"granted\"} 1",
            "mainstay_lock_wait_seconds_count 1",
            "mainstay_lock_held_seconds_count 1",
            "mainstay_lock_lost_total{reason=\"session-gone\"} 1",
            "mainstay_fencing_rejections_total 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
