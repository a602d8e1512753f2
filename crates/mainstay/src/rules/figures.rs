//! What is counted of rules, in Prometheus' words.

use std::time::Duration;

use mainstay_coord::keys::RuleKind;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::KINDS;
use super::book::{Book, State};

/// Counters of rules.
#[derive(Clone, Debug)]
pub struct Figures {
    rules: Family<Of, Gauge>,
    applied: Family<Outcome, Counter>,
    simulated: Family<Simulated, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    kind: &'static str,
    state: &'static str,
}

/// Upper bounds in seconds: from nothing to replay to 200,000 calls on a busy machine.
const SIMULATE_BUCKETS: [f64; 6] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0];

impl Default for Figures {
    fn default() -> Self {
        let new: fn() -> Histogram = || Histogram::new(SIMULATE_BUCKETS);
        let simulated = Family::new_with_constructor(new);
        Self { rules: Family::default(), applied: Family::default(), simulated }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Simulated {
    kind: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: Applied,
}

/// What became of a change of rules that arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "labels are written so")]
pub(super) enum Applied {
    /// All of it is in force.
    #[default]
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
        registry.register_with_unit(
            "simulate_duration",
            "Time it took to play a proposed rule through with recorded calls",
            Unit::Seconds,
            self.simulated.clone(),
        );
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        drop(self.rules.get_or_create(&Of::default()));
        drop(self.applied.get_or_create(&Outcome::default()));
        drop(self.simulated.get_or_create(&Simulated::default()));
    }

    /// A proposal of `kind` was played through.
    pub fn simulated(&self, kind: RuleKind, took: Duration) {
        let of = Simulated { kind: kind.as_str() };
        self.simulated.get_or_create(&of).observe(took.as_secs_f64());
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
