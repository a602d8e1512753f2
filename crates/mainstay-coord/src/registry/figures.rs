//! What the registry counts, in Prometheus' words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::instance::Instance;
use crate::health::Health;
use crate::name::Namespace;

/// Upper bounds in seconds: from one change to a whole service of 10,000.
const PUSH_BUCKETS: [f64; 8] = [0.000_1, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Upper bounds in seconds: from the same machine to a day's patience.
const CHECK_BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 3.0, 10.0];

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Place {
    namespace: String,
    state: &'static str,
    health: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    kind: &'static str,
    status: &'static str,
}

/// Counters of the registry.
#[derive(Clone, Debug)]
pub struct Figures {
    instances: Family<Place, Gauge<u64, AtomicU64>>,
    /// Those of `instances` that are told.
    places: Arc<Mutex<BTreeSet<Place>>>,
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
            places: Arc::default(),
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

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        drop(self.instances.get_or_create(&Place::default()));
        drop(self.heartbeats.get_or_create(&Outcome::default()));
        drop(self.check_runs.get_or_create(&Run::default()));
    }

    /// Counts the instances there are. What a namespace has no more of is told as 0; one without
    /// instances is not told.
    pub(super) fn count<'a>(&self, instances: impl Iterator<Item = (&'a Namespace, &'a Instance)>) {
        let mut counted = BTreeMap::<_, BTreeMap<_, u64>>::new();
        for (namespace, instance) in instances {
            let of_namespace = counted.entry(namespace.as_str()).or_default();
            let place = (instance.state.as_str(), instance.health.as_str());
            *of_namespace.entry(place).or_default() += 1;
        }
        let mut places = self.places.lock();
        places.retain(|place| {
            let Some(of_namespace) = counted.get_mut(&*place.namespace) else {
                self.instances.remove(place);
                return false;
            };
            of_namespace.entry((place.state, place.health)).or_default();
            true
        });
        for (namespace, of_namespace) in counted {
            for ((state, health), count) in of_namespace {
                let place = Place { namespace: namespace.to_owned(), state, health };
                self.instances.get_or_create(&place).set(count);
                places.insert(place);
            }
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
    fn a_place_that_empties_is_told_as_zero_and_a_namespace_that_does_not_at_all() {
        let figures = Figures::default();
        let mut registry = Registry::with_prefix("mainstay");
        figures.register(&mut registry);
        let told = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let lines =
                text.lines().filter(|line| line.starts_with("mainstay_registry_instances{"));
            let values = lines.map(|line| line.rsplit_once(' ').unwrap().1.to_owned());
            values.collect::<Vec<_>>()
        };
        let (shop, mut one) = (Namespace::new("shop").unwrap(), Instance::blank("n", "r", 0));
        figures.count([(&shop, &one)].into_iter());
        assert_eq!(told(), ["1"]);
        one.health = Health::Critical;
        figures.count([(&shop, &one)].into_iter());
        let mut values = told();
        values.sort_unstable();
        assert_eq!(values, ["0", "1"]);
        figures.count(std::iter::empty());
        assert!(told().is_empty());
    }

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
