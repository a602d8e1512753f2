//! What is counted of calls of branches.

use std::time::Duration;

use mainstay_txn::{Op, Outcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds: from a service beside us to the longest call.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    op: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOp {
    op: &'static str,
}

/// Counters of calls of branches.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    calls: Family<Called, Counter>,
    took: Family<ByOp, Histogram, fn() -> Histogram>,
}

impl Default for Figures {
    fn default() -> Self {
        let took: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self { calls: Family::default(), took: Family::new_with_constructor(took) }
    }
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Calls of branches, by what came of them";
        registry.register("branch_calls", help, self.calls.clone());
        let help = "Time a call of a branch took";
        registry.register_with_unit("branch_call", help, Unit::Seconds, self.took.clone());
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub(crate) fn show_all(&self) {
        drop(self.calls.get_or_create(&Called::default()));
        drop(self.took.get_or_create(&ByOp::default()));
    }

    /// A call ended.
    pub(super) fn ended(&self, op: Op, outcome: &Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Done => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Ongoing => "ongoing",
            Outcome::Unknown(_) => "unknown",
            Outcome::Unsent { .. } => "unsent",
            Outcome::Held(_) => "held",
            Outcome::Denied(_) => "denied",
            Outcome::Contradicted(_) => "contradicted",
        };
        let op = op.as_str();
        self.calls.get_or_create(&Called { op, result }).inc();
        self.took.get_or_create(&ByOp { op }).observe(took.as_secs_f64());
    }
}
