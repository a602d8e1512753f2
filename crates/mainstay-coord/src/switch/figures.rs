//! What switches and plans count, in Prometheus' words.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of switches and plans.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    changes: Counter,
    plans_active: Gauge,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "switch_changes",
            "Changes of switches made through this node, by hand, plan or time",
            self.changes.clone(),
        );
        registry.register("plans_active", "Plans that are active", self.plans_active.clone());
    }

    pub(crate) fn changed(&self) {
        self.changes.inc();
    }

    pub(crate) fn changed_by_plan(&self, switches: usize) {
        self.changes.inc_by(switches as u64);
    }

    pub(crate) fn active(&self, plans: usize) {
        self.plans_active.set(i64::try_from(plans).unwrap_or(i64::MAX));
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
        figures.changed();
        figures.changed_by_plan(2);
        figures.active(1);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in ["mainstay_switch_changes_total 3", "mainstay_plans_active 1"] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
