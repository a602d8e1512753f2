//! What the registry counts, in Prometheus' words.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::instance::Instance;
use crate::health::Health;
use crate::keys::InstanceRef;

/// Upper bounds in seconds: from one change to a whole service of 10,000.
const PUSH_BUCKETS: [f64; 8] = [0.000_1, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Upper bounds in seconds: from the same machine to a day's patience.
const CHECK_BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 3.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    namespace: String,
    state: &'static str,
    health: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    kind: &'static str,
    status: &'static str,
}

/// Counters of the registry.
#[derive(Clone, Debug)]
pub struct Figures {
    instances: Family<Place, Gauge<u64, AtomicU64>>,
    heartbeats: Family<Outcome, Counter>,
    expiries_held: Counter,
    protected: Gauge,
    resyncs: Counter,
    push: Histogram,
    check_runs: Family<Run, Counter>,
    check: Histogram,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            instances: Family::default(),
            heartbeats: Family::default(),
            expiries_held: Counter::default(),
            protected: Gauge::default(),
            resyncs: Counter::default(),
            push: Histogram::new(PUSH_BUCKETS),
            check_runs: Family::default(),
            check: Histogram::new(CHECK_BUCKETS),
        }
    }
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("registry");
        own.register(
            "instances",
            "Instances, by namespace, state and health",
            self.instances.clone(),
        );
        own.register("heartbeats", "Heartbeats, by what they found", self.heartbeats.clone());
        own.register(
            "expiries_held",
            "Removals held back since too many instances went at once",
            self.expiries_held.clone(),
        );
        own.register("services_protected", "Services under protection", self.protected.clone());
        own.register("resyncs", "Lists read anew since history was lost", self.resyncs.clone());
        own.register_with_unit(
            "push",
            "Time to tell whoever watches of what changed",
            Unit::Seconds,
            self.push.clone(),
        );
        registry.register(
            "check_runs",
            "Health checks sent, by kind and result",
            self.check_runs.clone(),
        );
        registry.register_with_unit(
            "check",
            "Time of a health check",
            Unit::Seconds,
            self.check.clone(),
        );
    }

    /// Counts the instances there are.
    pub(super) fn count<'a>(
        &self,
        instances: impl Iterator<Item = (InstanceRef, &'a std::sync::Arc<Instance>)>,
    ) {
        let mut counted = std::collections::BTreeMap::<_, u64>::new();
        for (at, instance) in instances {
            let namespace = at.service.namespace.as_str().to_owned();
            let key = (namespace, instance.state.as_str(), instance.health.as_str());
            *counted.entry(key).or_default() += 1;
        }
        self.instances.clear();
        for ((namespace, state, health), count) in counted {
            self.instances.get_or_create(&Place { namespace, state, health }).set(count);
        }
    }

    pub(super) fn heartbeat(&self, outcome: &'static str) {
        self.heartbeats.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn expiry_held(&self) {
        self.expiries_held.inc();
    }

    pub(super) fn protected(&self, began: bool) {
        if began {
            self.protected.inc()
        } else {
            self.protected.dec()
        };
    }

    pub(crate) fn resynced(&self) {
        self.resyncs.inc();
    }

    pub(super) fn pushed(&self, took: Duration) {
        self.push.observe(took.as_secs_f64());
    }

    pub(super) fn checked(&self, kind: &'static str, health: Health, took: Duration) {
        self.check_runs.get_or_create(&Run { kind, status: health.as_str() }).inc();
        self.check.observe(took.as_secs_f64());
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
        figures.heartbeat("fresh");
        figures.expiry_held();
        figures.protected(true);
        figures.resynced();
        figures.pushed(Duration::from_millis(2));
        figures.checked("http", Health::Passing, Duration::from_millis(2));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "mainstay_registry_heartbeats_total{outcome=\"fresh\"} 1",
            "mainstay_registry_expiries_held_total 1",
            "mainstay_registry_services_protected 1",
            "mainstay_registry_resyncs_total 1",
            "mainstay_registry_push_seconds_count 1",
            "mainstay_check_runs_total{kind=\"http\",status=\"passing\"} 1",
            "mainstay_check_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
