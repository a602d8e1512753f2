//! What the outbox counts, in Prometheus' words.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::tally::Tally;

/// Counters of the audit outbox.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    records: Gauge<u64, AtomicU64>,
    size: Gauge<u64, AtomicU64>,
    trimmed: Counter,
    refused: Counter,
    lost: Counter,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("audit_outbox");
        own.register("records", "Audit records no log has taken over", self.records.clone());
        own.register_with_unit("size", "Bytes of these records", Unit::Bytes, self.size.clone());
        own.register(
            "trimmed",
            "Audit records this node dropped since the outbox was full",
            self.trimmed.clone(),
        );
        own.register(
            "refusals",
            "Changes refused since the outbox overran its limit",
            self.refused.clone(),
        );
        own.register(
            "lost",
            "Records of refusals that found no room or could not be put",
            self.lost.clone(),
        );
    }

    pub(super) fn holds(&self, tally: Tally) {
        self.records.set(tally.records);
        self.size.set(tally.bytes);
    }

    pub(super) fn trimmed(&self, records: u64) {
        self.trimmed.inc_by(records);
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn lost(&self, records: u64) {
        self.lost.inc_by(records);
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
        figures.holds(Tally { records: 2, bytes: 700 });
        figures.trimmed(3);
        figures.refused();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "mainstay_audit_outbox_records 2",
            "mainstay_audit_outbox_size_bytes 700",
            "mainstay_audit_outbox_trimmed_total 3",
            "mainstay_audit_outbox_refusals_total 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
