//! What a node counts of its databases, in Prometheus' words.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::sweep::{Judged, Sighting};
use crate::name::ResourceName;
use crate::word::Decision;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResource {
    resource: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resolved {
    resource: String,
    how: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Swept {
    resource: String,
    result: &'static str,
}

/// Counters of databases. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    prepared: Family<ByResource, Gauge>,
    oldest: Family<ByResource, Gauge<f64, AtomicU64>>,
    resolved: Family<Resolved, Counter>,
    sweeps: Family<Swept, Counter>,
}

impl Figures {
    /// Puts them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("resource");
        let help = "Branches of ours that a database listed as prepared when it was swept last";
        own.register("prepared_count", help, self.prepared.clone());
        let help = "How long the oldest of them had been prepared";
        own.register_with_unit("oldest_prepared", help, Unit::Seconds, self.oldest.clone());
        let help = "Branches ended in a database, by decision and who took care of it";
        own.register("resolved", help, self.resolved.clone());
        own.register("sweeps", "Sweeps of a database", self.sweeps.clone());
    }

    /// Makes every family show, with labels of nothing: the reference is printed from the
    /// exposition, and an empty family is not in that.
    pub fn show_all(&self) {
        drop(self.prepared.get_or_create(&ByResource::default()));
        drop(self.oldest.get_or_create(&ByResource::default()));
        drop(self.resolved.get_or_create(&Resolved::default()));
        drop(self.sweeps.get_or_create(&Swept::default()));
    }

    /// A branch was ended as its transaction's calls say.
    pub(super) fn called(&self, resource: &ResourceName, decision: Decision) {
        self.resolved(
            resource,
            match decision {
                Decision::Commit => "commit",
                Decision::Abort => "rollback",
            },
        );
    }

    /// A branch was ended since a sweep had found it.
    pub(super) fn swept_up(&self, resource: &ResourceName, decision: Decision) {
        self.resolved(
            resource,
            match decision {
                Decision::Commit => "sweep-commit",
                Decision::Abort => "sweep-rollback",
            },
        );
    }

    fn resolved(&self, resource: &ResourceName, how: &'static str) {
        let resource = resource.to_string();
        self.resolved.get_or_create(&Resolved { resource, how }).inc();
    }

    /// A database was swept; `sightings` is what it listed.
    pub(super) fn saw(&self, resource: &ResourceName, sightings: Option<&[Sighting]>) {
        let result = if sightings.is_some() { "done" } else { "failed" };
        let resource = resource.to_string();
        self.sweeps.get_or_create(&Swept { resource: resource.clone(), result }).inc();
        let Some(sightings) = sightings else { return };
        let ours = || sightings.iter().filter(|seen| seen.judged != Judged::Foreign);
        let count = i64::try_from(ours().count()).unwrap_or(i64::MAX);
        let oldest = ours().map(|seen| seen.seen_for).max().unwrap_or(Duration::ZERO);
        let label = ByResource { resource };
        self.prepared.get_or_create(&label).set(count);
        self.oldest.get_or_create(&label).set(oldest.as_secs_f64());
    }

    /// A database is no longer there.
    pub(super) fn forget(&self, resource: &ResourceName) {
        let label = ByResource { resource: resource.to_string() };
        self.prepared.remove(&label);
        self.oldest.remove(&label);
    }
}
