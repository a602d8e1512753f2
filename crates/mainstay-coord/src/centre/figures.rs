//! What the config centre counts, in Prometheus' words.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::holders::State;
use crate::keys::GroupRef;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Group {
    namespace: String,
    group: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    state: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Counters of the config centre.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    release_number: Family<Group, Gauge<u64, AtomicU64>>,
    listeners: Family<Listener, Gauge<u64, AtomicU64>>,
    publishes: Family<Outcome, Counter>,
    resyncs: Counter,
    untracked: Counter,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("config");
        own.register("release_number", "Release in force, by group", self.release_number.clone());
        own.register("listeners", "Clients of this node, by state", self.listeners.clone());
        own.register("publishes", "Publications, by outcome", self.publishes.clone());
        own.register("resyncs", "Lists read anew since history was lost", self.resyncs.clone());
        own.register(
            "listeners_untracked",
            "Clients that are served but not listed, since too many are",
            self.untracked.clone(),
        );
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        drop(self.release_number.get_or_create(&Group::default()));
        drop(self.listeners.get_or_create(&Listener::default()));
        drop(self.publishes.get_or_create(&Outcome::default()));
    }

    pub(super) fn in_force(&self, group: &GroupRef, release: Option<u64>) {
        let namespace = group.namespace.as_str().to_owned();
        let labels = Group { namespace, group: group.name.as_str().to_owned() };
        match release {
            Some(release) => drop(self.release_number.get_or_create(&labels).set(release)),
            None => drop(self.release_number.remove(&labels)),
        }
    }

    pub(super) fn listeners(&self, counts: [(State, u64); 4]) {
        for (state, count) in counts {
            self.listeners.get_or_create(&Listener { state: state.as_str() }).set(count);
        }
    }

    pub(super) fn published(&self, outcome: &'static str) {
        self.publishes.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn resynced(&self) {
        self.resyncs.inc();
    }

    pub(super) fn untracked(&self) {
        self.untracked.inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::name::{GroupName, Namespace};

    #[test]
    fn metrics_have_the_names_of_the_reference() {
        let figures = Figures::default();
        let mut registry = Registry::with_prefix("mainstay");
        figures.register(&mut registry);
        let namespace = Namespace::new("shop").unwrap();
        let group = GroupRef { namespace, name: GroupName::new("payment").unwrap() };
        figures.in_force(&group, Some(7));
        figures.listeners(State::ALL.map(|state| (state, 2)));
        figures.published("published");
        figures.resynced();
        figures.untracked();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "mainstay_config_release_number{namespace=\"shop\",group=\"payment\"} 7",
            "mainstay_config_listeners{state=\"behind\"} 2",
            "mainstay_config_publishes_total{outcome=\"published\"} 1",
            "mainstay_config_resyncs_total 1",
            "mainstay_config_listeners_untracked_total 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
