//! What the coordinator of a node counts, in Prometheus' words.
//!
//! A gid or branch is never a label: there is no end to them.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::transaction::Transaction;
use crate::word::{Decision, Mode, State};

/// Upper bounds in seconds: from one sync of a disk to the longest deadline.
const SPAN_BUCKETS: [f64; 11] =
    [0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0, 3_600.0];

/// Upper bounds of records in a batch, of which 120 operations are the most.
const RECORD_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0];

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByMode {
    mode: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    mode: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    mode: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

fn span_histogram() -> Histogram {
    Histogram::new(SPAN_BUCKETS)
}

/// Counters of a coordinator. Clones count together.
#[derive(Clone, Debug)]
pub struct Figures {
    begun: Family<ByMode, Counter>,
    decided: Family<Decided, Counter>,
    finished: Family<Finished, Counter>,
    decision: Family<ByMode, Histogram, fn() -> Histogram>,
    phase_two: Family<ByMode, Histogram, fn() -> Histogram>,
    live: Family<ByState, Gauge>,
    stuck: Gauge,
    mixed: Gauge,
    oldest: Gauge<f64, std::sync::atomic::AtomicU64>,
    batches: Counter,
    records: Histogram,
    commit: Histogram,
    queued: Gauge,
    fenced: Counter,
    shards: Gauge,
    takeovers: Counter,
    history: Gauge,
    history_bytes: Gauge,
    forgotten: Counter,
}

/// What is live at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Live {
    /// Of each state, in the order of [`State::ALL`].
    pub(crate) states: [i64; State::ALL.len()],
    pub(crate) stuck: i64,
    /// Age of the oldest.
    pub(crate) oldest: Duration,
    /// Records that wait for the log.
    pub(crate) queued: usize,
    /// Shards this node owns.
    pub(crate) shards: usize,
    /// How many ended ones are remembered, and in how many bytes.
    pub(crate) history: (usize, u64),
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            begun: Family::default(),
            decided: Family::default(),
            finished: Family::default(),
            decision: Family::new_with_constructor(span_histogram),
            phase_two: Family::new_with_constructor(span_histogram),
            live: Family::default(),
            stuck: Gauge::default(),
            mixed: Gauge::default(),
            oldest: Gauge::default(),
            batches: Counter::default(),
            records: Histogram::new(RECORD_BUCKETS),
            commit: Histogram::new(SPAN_BUCKETS),
            queued: Gauge::default(),
            fenced: Counter::default(),
            shards: Gauge::default(),
            takeovers: Counter::default(),
            history: Gauge::default(),
            history_bytes: Gauge::default(),
            forgotten: Counter::default(),
        }
    }
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("transaction_begun", "Transactions begun", self.begun.clone());
        registry.register("transaction_decided", "Decisions made durable", self.decided.clone());
        registry.register(
            "transaction_finished",
            "Transactions that ended, by how",
            self.finished.clone(),
        );
        let seconds = |registry: &mut Registry, name, help, family: &Family<_, _, fn() -> _>| {
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        };
        let help = "Time from a transaction's begin to its decision";
        seconds(registry, "transaction_decision", help, &self.decision);
        let help = "Time from a transaction's decision to its end";
        seconds(registry, "transaction_phase_two", help, &self.phase_two);
        registry.register("transaction_live_count", "Live transactions", self.live.clone());
        let help = "Transactions that do not get on";
        registry.register("transaction_stuck_count", help, self.stuck.clone());
        let help = "Transactions that ended mixed and wait for an operator";
        registry.register("transaction_mixed_count", help, self.mixed.clone());
        let help = "Age of the oldest live transaction";
        let oldest = self.oldest.clone();
        registry.register_with_unit("transaction_oldest_live", help, Unit::Seconds, oldest);
        self.register_log(registry);
    }

    fn register_log(&self, registry: &mut Registry) {
        let help = "Batches of the transaction log that were applied";
        registry.register("transaction_log_batches", help, self.batches.clone());
        let help = "Records in a batch of the transaction log";
        registry.register("transaction_log_batch_records", help, self.records.clone());
        let help = "Time until a batch of the transaction log was durable";
        let commit = self.commit.clone();
        registry.register_with_unit("transaction_log_commit", help, Unit::Seconds, commit);
        let help = "Records that wait for the transaction log";
        registry.register("transaction_log_queue_records", help, self.queued.clone());
        let help = "Batches refused since another node owned a shard, or the session had ended";
        registry.register("transaction_log_fenced_writes", help, self.fenced.clone());
        registry.register("shard_owned_count", "Shards this node owns", self.shards.clone());
        registry.register("shard_takeovers", "Shards this node claimed", self.takeovers.clone());
        let help = "Ended transactions that this node remembers";
        registry.register("transaction_history_count", help, self.history.clone());
        let help = "Size of the records of ended transactions, about";
        let bytes = self.history_bytes.clone();
        registry.register_with_unit("transaction_history", help, Unit::Bytes, bytes);
        let help = "Ended transactions forgotten since they were too old or too many";
        registry.register("transaction_history_forgotten", help, self.forgotten.clone());
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        drop(self.begun.get_or_create(&ByMode::default()));
        drop(self.decided.get_or_create(&Decided::default()));
        drop(self.finished.get_or_create(&Finished::default()));
        drop(self.decision.get_or_create(&ByMode::default()));
        drop(self.phase_two.get_or_create(&ByMode::default()));
        drop(self.live.get_or_create(&ByState::default()));
    }

    /// Batches of the log that were applied.
    pub fn batches(&self) -> u64 {
        self.batches.get()
    }

    /// A transaction went on from `before`, `None` if it has just begun, and that is durable or
    /// needs not be.
    pub(crate) fn went_on(&self, before: Option<&Transaction>, after: &Transaction) {
        let mode = after.begin.mode.as_str();
        if before.is_none() {
            self.begun.get_or_create(&ByMode { mode }).inc();
        }
        let decision = after.register.decision;
        if let Some(now) = decision
            && before.and_then(|before| before.register.decision) != decision
        {
            self.decided(after.begin.mode, now);
            if let Some(at) = after.register.decided_at {
                let took = at.since(after.created_at).as_secs_f64();
                self.decision.get_or_create(&ByMode { mode }).observe(took);
            }
        }
        let was_final = before.is_some_and(|before| before.state().is_final());
        if after.state().is_final() && !was_final {
            let outcome = after.state().as_str();
            self.finished.get_or_create(&Finished { mode, outcome }).inc();
            if let Some((from, to)) = after.register.decided_at.zip(after.register.finished_at) {
                let took = to.since(from).as_secs_f64();
                self.phase_two.get_or_create(&ByMode { mode }).observe(took);
            }
        }
    }

    fn decided(&self, mode: Mode, decision: Decision) {
        let label = Decided { mode: mode.as_str(), decision: decision.as_str() };
        self.decided.get_or_create(&label).inc();
    }

    /// A batch of `records` was applied after `took`.
    pub(crate) fn committed(&self, records: usize, took: Duration) {
        self.batches.inc();
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        self.records.observe(f64::from(records));
        self.commit.observe(took.as_secs_f64());
    }

    /// A batch was refused by its compares.
    pub(crate) fn fenced(&self) {
        self.fenced.inc();
    }

    /// The records of so many ended transactions were deleted.
    pub(crate) fn forgot(&self, count: usize) {
        self.forgotten.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A shard was claimed.
    pub(crate) fn took_over(&self) {
        self.takeovers.inc();
    }

    /// How it stands at this moment.
    pub(crate) fn look(&self, live: &Live) {
        for (state, count) in State::ALL.iter().zip(live.states) {
            if !state.is_final() {
                self.live.get_or_create(&ByState { state: state.as_str() }).set(count);
            }
            if *state == State::Mixed {
                self.mixed.set(count);
            }
        }
        self.stuck.set(live.stuck);
        self.oldest.set(live.oldest.as_secs_f64());
        let (count, bytes) = live.history;
        self.queued.set(i64::try_from(live.queued).unwrap_or(i64::MAX));
        self.shards.set(i64::try_from(live.shards).unwrap_or(i64::MAX));
        self.history.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.history_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
