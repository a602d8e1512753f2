//! What is counted of rules, in Prometheus' words.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::KINDS;
use super::book::{Book, State};

/// Counters of rules.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    rules: Family<Of, Gauge>,
    applied: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: Applied,
}

/// What became of a change of rules that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "labels are written so")]
pub(super) enum Applied {
    /// All of it is in force.
    whole,
    /// Some of it does not fit.
    partly,
    /// None of it could be served by.
    refused,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "rules",
            "Rules of the store, by whether this process serves by them",
            self.rules.clone(),
        );
        registry.register(
            "rules_applied",
            "Changes of rules of the store that arrived at this process, by what became of them",
            self.applied.clone(),
        );
    }

    pub(super) fn applied(&self, outcome: Applied) {
        self.applied.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn count(&self, book: &Book) {
        for kind in KINDS {
            for state in State::ALL {
                let of = Of { kind: kind.key.as_str(), state: state.as_str() };
                let count = book.count(kind.key, state);
                self.rules.get_or_create(&of).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}
