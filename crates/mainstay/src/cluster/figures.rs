//! What the store counts about itself, in Prometheus' words.
//!
//! It is read off the store when somebody asks. Of times and sizes the store keeps sums and counts,
//! which is a histogram of one bucket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use mainstay_store::{Embedded, Status, Store as _, embedded};
use mainstay_store_etcd::{Counted, Etcd};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::opening::Opened;

/// Puts what `store` counts into `registry`, whose prefix is `mainstay`.
pub(super) fn register(store: &Opened, registry: &mut Registry) {
    let own = registry.sub_registry_with_prefix("store");
    match store {
        Opened::Embedded(store) => {
            own.register_collector(Box::new(OfEmbedded(Arc::clone(store))));
        }
        Opened::Etcd(etcd) => own.register_collector(Box::new(OfEtcd(Arc::clone(etcd)))),
    }
}

/// What an embedded store tells, with every figure at nothing: for the reference.
pub(crate) fn register_embedded_at_nothing(registry: &mut Registry) {
    registry.sub_registry_with_prefix("store").register_collector(Box::new(NewEmbedded));
}

/// The same of a store on etcd.
pub(crate) fn register_etcd_at_nothing(registry: &mut Registry) {
    registry.sub_registry_with_prefix("store").register_collector(Box::new(NewEtcd));
}

#[derive(Debug)]
struct NewEmbedded;

impl Collector for NewEmbedded {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut exposition = Exposition(encoder);
        exposition.of_embedded(&embedded::Counted::default())?;
        exposition.standing(&Standing::default())
    }
}

#[derive(Debug)]
struct NewEtcd;

impl Collector for NewEtcd {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Exposition(encoder).of_etcd(&Counted::default())
    }
}

#[derive(Debug)]
struct OfEmbedded(Arc<Embedded>);

impl Collector for OfEmbedded {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut exposition = Exposition(encoder);
        exposition.of_embedded(&self.0.counted())?;
        // It has the answer at hand.
        match self.0.status().now_or_never() {
            Some(Ok(status)) => exposition.standing(&Standing::from(&status)),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct OfEtcd(Arc<Etcd>);

impl Collector for OfEtcd {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Exposition(encoder).of_etcd(&self.0.counted())
    }
}

const BEHIND: &str = "Watches that lost their place and had to read again";

/// How a store stands, as far as it is told.
#[derive(Debug, Default)]
struct Standing {
    revision: u64,
    compacted: u64,
    bytes: u64,
    leases: u64,
    watchers: u64,
}

impl From<&Status> for Standing {
    fn from(status: &Status) -> Self {
        let Status { revision, compacted, bytes, leases, watchers, .. } = *status;
        Self { revision: revision.get(), compacted: compacted.get(), bytes, leases, watchers }
    }
}

/// What is written of one store.
struct Exposition<'e>(DescriptorEncoder<'e>);

impl Exposition<'_> {
    fn of_embedded(&mut self, counted: &embedded::Counted) -> fmt::Result {
        self.operations(&[("answered", counted.batches), ("refused", counted.refused)])?;
        self.sum(
            "commit",
            "Time of commits",
            Some(Unit::Seconds),
            counted.commit_time.as_secs_f64(),
            counted.commits,
        )?;
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
        let batches = counted.batches as f64;
        self.sum("commit_batches", "Writes of one commit", None, batches, counted.commits)?;
        self.gauge("queue_batches", "Writes that wait for a commit", counted.queued)?;
        self.counter("leases_expired", "Leases whose time was up", counted.leases_expired)?;
        self.seconds(
            "lease_extension",
            "Time given back to leases since the process had stood still",
            counted.lease_extension,
        )?;
        self.counter("watch_resyncs", BEHIND, counted.watch_resyncs)
    }

    fn standing(&mut self, standing: &Standing) -> fmt::Result {
        self.gauge("revision", "The current revision", standing.revision)?;
        let oldest = "The oldest revision that can be read";
        self.gauge("compacted_revision", oldest, standing.compacted)?;
        self.gauge("bytes", "Bytes on disk", standing.bytes)?;
        self.gauge("leases", "Live leases", standing.leases)?;
        self.gauge("watchers", "Watches of this process", standing.watchers)
    }

    fn of_etcd(&mut self, counted: &Counted) -> fmt::Result {
        self.operations(&[
            ("answered", counted.calls_answered),
            ("refused", counted.calls_refused),
            ("unanswered", counted.calls_unanswered),
            ("unknown", counted.outcomes_unknown),
        ])?;
        self.counter("repeats", "Calls of etcd made again", counted.calls_repeated)?;
        self.counter(
            "dials_failed",
            "Connections to etcd that could not be made",
            counted.dials_failed,
        )?;
        self.counter("watch_resyncs", BEHIND, counted.watch_resyncs)?;
        self.counter(
            "watch_mismatches",
            "Comparisons of what is watched with what etcd holds that found a difference",
            counted.watch_mismatches,
        )?;
        self.counter("compactions", "Compactions this node made", counted.compactions)
    }

    fn operations(&mut self, outcomes: &[(&str, u64)]) -> fmt::Result {
        let help = "Writes or calls by what became of them";
        let kind = MetricType::Counter;
        let mut family = self.0.encode_descriptor("operations", help, None, kind)?;
        for (outcome, count) in outcomes {
            let of = [("outcome", *outcome)];
            ConstCounter::new(*count).encode(family.encode_family(&of)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let kind = MetricType::Counter;
        ConstCounter::new(count).encode(self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn seconds(&mut self, name: &str, help: &str, time: Duration) -> fmt::Result {
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Counter);
        let encoder = self.0.encode_descriptor(name, help, unit, kind)?;
        ConstCounter::new(time.as_secs_f64()).encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let kind = MetricType::Gauge;
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn sum(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        sum: f64,
        count: u64,
    ) -> fmt::Result {
        let kind = MetricType::Histogram;
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &[(f64::MAX, count)], None)
    }
}

#[cfg(test)]
mod tests {
    use mainstay_call::clock::MonotonicClock;
    use mainstay_store::embedded::Options;
    use mainstay_store::{Batch, Key, Put};
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[tokio::test]
    async fn metrics_have_the_names_of_the_reference() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(Options::new(folder.path()), MonotonicClock).unwrap();
        let store = Arc::new(store);
        let mut registry = Registry::with_prefix("mainstay");
        register(&Opened::Embedded(Arc::clone(&store)), &mut registry);
        let put = Put::new(Key::new("a").unwrap(), "1");
        store.apply(Batch::new().then(put)).await.unwrap();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "mainstay_store_revision ",
            "mainstay_store_compacted_revision ",
            "mainstay_store_bytes ",
            "mainstay_store_operations_total{outcome=\"answered\"} 1",
            "mainstay_store_commit_seconds_count 1",
            "mainstay_store_commit_batches_sum 1.0",
            "mainstay_store_queue_batches 0",
            "mainstay_store_leases 0",
            "mainstay_store_leases_expired_total 0",
            "mainstay_store_lease_extension_seconds_total 0.0",
            "mainstay_store_watchers 0",
            "mainstay_store_watch_resyncs_total 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        store.close().await.unwrap();
    }
}
