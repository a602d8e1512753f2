//! What the audit log counts, in Prometheus' words.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::log::Added;

/// Most actions that are counted apart; there are a third as many. What a door would make up is
/// counted as `other`.
const ACTIONS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    action: String,
    outcome: String,
}

/// Counters of the audit log of this node.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    records: Family<Labels, Counter>,
    actions: Arc<Mutex<BTreeSet<String>>>,
    entries: Gauge<u64, AtomicU64>,
    unsigned: Gauge<u64, AtomicU64>,
    heads: Counter,
    failures: Counter,
    uncopied: Counter,
    tampered: Counter,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("audit");
        own.register(
            "records",
            "Audit records this node took over into its log",
            self.records.clone(),
        );
        own.register("log_entries", "Records in the log of this node", self.entries.clone());
        own.register(
            "log_unsigned",
            "Records in the log of this node that no signed head covers yet",
            self.unsigned.clone(),
        );
        own.register("log_heads", "Heads this node signed", self.heads.clone());
        own.register(
            "log_failures",
            "Times that records could not be taken over or a head not be signed",
            self.failures.clone(),
        );
        own.register(
            "log_copy_failures",
            "Copies of heads that could not be kept",
            self.uncopied.clone(),
        );
        own.register(
            "log_tampered",
            "Logs that were not what they were when they were opened",
            self.tampered.clone(),
        );
    }

    pub(super) fn added(&self, added: &[Added]) {
        for Added { action, outcome } in added {
            let mut actions = self.actions.lock();
            let is_known = actions.contains(action) || actions.len() < ACTIONS_MAX;
            let action = if is_known { action.clone() } else { "other".to_owned() };
            actions.insert(action.clone());
            drop(actions);
            let outcome = outcome.clone();
            self.records.get_or_create(&Labels { action, outcome }).inc();
        }
    }

    pub(super) fn has(&self, size: u64, unsigned: u64) {
        self.entries.set(size);
        self.unsigned.set(unsigned);
    }

    pub(super) fn signed(&self) {
        self.heads.inc();
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn not_copied(&self) {
        self.uncopied.inc();
    }

    pub(super) fn tampered(&self) {
        self.tampered.inc();
    }

    /// Shows what is counted apart, for whoever lists the metrics.
    pub fn exercise(&self) {
        let added = Added { action: "switch:write".to_owned(), outcome: "done".to_owned() };
        self.added(&[added]);
    }
}
