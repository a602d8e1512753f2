//! One service, as the copy keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::Instant;
use mainstay_store::{LeaseId, Revision};

use crate::health::Health;
use crate::keys::ServiceRef;
use crate::name::{InstanceId, Reporter};
use crate::registry::budget::{Budget, Census};
use crate::registry::instance::{Gone, GoneReason, Instance, Kind, State};
use crate::registry::observation::Observation;
use crate::registry::protection::{Counts, Protection};
use crate::registry::service::Settings;
use crate::registry::view::{EmptyBecause, Listed, Protected, View};

/// One service.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) settings: Option<(Arc<Settings>, Revision)>,
    instances: BTreeMap<InstanceId, Row>,
    /// Ephemeral instances, by zone. Removals are budgeted by them, and a service that lost 10,000
    /// at once asks as many times a second.
    ephemeral: BTreeMap<String, u32>,
    ephemeral_total: u32,
    pub(super) gone: Option<(Gone, Revision)>,
    pub(super) observations: BTreeMap<InstanceId, BTreeMap<Reporter, Observed>>,
    pub(super) revision: Revision,
    pub(super) resync: bool,
    pub(super) budget: Budget,
    pub(super) protection: Protection,
    pub(super) protected_unix_ms: u64,
    /// Protection ended after the last revision that changed the service.
    pub(super) has_turned: bool,
    /// Whether protection was judged since the last change.
    pub(super) is_judged: bool,
    /// What it looks like, made when somebody asked and kept until the next change.
    view: Option<Arc<View>>,
}

/// What a caller reports, and the lease it lives by.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) observation: Observation,
    pub(super) lease: Option<LeaseId>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) record: Arc<Instance>,
    pub(super) written: Revision,
    /// When what lists show of it last changed.
    pub(super) shown: Revision,
}

impl Kept {
    pub(super) const fn instances(&self) -> &BTreeMap<InstanceId, Row> {
        &self.instances
    }

    /// Puts an instance into its place; `true` when there was none of its id.
    pub(super) fn put(&mut self, id: InstanceId, row: Row) -> bool {
        if row.record.kind == Kind::Ephemeral {
            *self.ephemeral.entry(row.record.zone.clone()).or_default() += 1;
            self.ephemeral_total += 1;
        }
        let before = self.instances.insert(id, row);
        if let Some(before) = &before {
            self.uncount(&before.record);
        }
        before.is_none()
    }

    /// Takes an instance out; `true` when it was there.
    pub(super) fn take(&mut self, id: &InstanceId) -> bool {
        let before = self.instances.remove(id);
        if let Some(before) = &before {
            self.uncount(&before.record);
        }
        before.is_some()
    }

    fn uncount(&mut self, record: &Instance) {
        if record.kind == Kind::Ephemeral
            && let Some(count) = self.ephemeral.get_mut(&record.zone)
        {
            (*count, self.ephemeral_total) = (*count - 1, self.ephemeral_total - 1);
            if *count == 0 {
                self.ephemeral.remove(&record.zone);
            }
        }
    }

    /// What lists show has changed.
    pub(super) fn changed(&mut self) {
        (self.view, self.is_judged, self.has_turned) = (None, false, false);
    }

    /// A list of it is to be made anew, though it says the same of who can be called.
    pub(super) fn outdate(&mut self) {
        self.view = None;
    }

    /// Whether judging protection at `now` could say something new.
    pub(super) fn is_to_be_judged(&self, now: Instant) -> bool {
        !self.is_judged || self.protection.next().is_some_and(|at| at <= now)
    }

    pub(super) fn view(
        &mut self,
        service: &ServiceRef,
        quorum: u32,
        stale_since_unix_ms: Option<u64>,
    ) -> Arc<View> {
        let known = self.view.as_ref();
        if let Some(view) = known.filter(|view| view.stale_since_unix_ms == stale_since_unix_ms) {
            return Arc::clone(view);
        }
        let view = Arc::new(self.made(service, quorum, stale_since_unix_ms));
        self.view = Some(Arc::clone(&view));
        view
    }

    fn made(&self, service: &ServiceRef, quorum: u32, stale_since_unix_ms: Option<u64>) -> View {
        let instances: Vec<Listed> = self.listed(quorum).collect();
        let empty_because = instances.is_empty().then(|| match &self.gone {
            None => EmptyBecause::NeverRegistered,
            Some((gone, _)) if gone.reason == GoneReason::Expired => EmptyBecause::Expired,
            Some(_) => EmptyBecause::Deregistered,
        });
        let protected = self.protection.since().map(|_| {
            let Counts { total, healthy } = self.counts(quorum);
            Protected {
                since_unix_ms: self.protected_unix_ms,
                reason: format!("only {healthy} of {total} instances are healthy"),
                healthy,
                total,
            }
        });
        View {
            service: service.clone(),
            revision: self.revision,
            instances,
            protected,
            stale_since_unix_ms,
            resync: self.resync,
            empty_because,
        }
    }

    pub(super) fn listed(&self, quorum: u32) -> impl Iterator<Item = Listed> {
        self.instances.iter().map(move |(id, row)| {
            let observed = self.observations.get(id);
            let observed = observed.is_some_and(|by| {
                Observation::are_enough(by.values().map(|report| &report.observation), quorum)
            });
            Listed {
                id: id.clone(),
                health: effective(&row.record, observed),
                instance: Arc::clone(&row.record),
                revision: row.shown,
            }
        })
    }

    pub(super) fn counts(&self, quorum: u32) -> Counts {
        let mut counts = Counts::default();
        for listed in self.listed(quorum).filter(Listed::is_counted) {
            counts.total += 1;
            counts.healthy += u32::from(listed.health.is_healthy());
        }
        counts
    }

    pub(super) fn census(&self, zone: &str) -> Census {
        let in_zone = self.ephemeral.get(zone).copied().unwrap_or(0);
        Census { service: self.ephemeral_total, zone: in_zone }
    }
}

/// How an instance is, all things considered. What callers report makes it warning, never
/// critical: their network may be what fails.
pub(in crate::registry) fn effective(record: &Instance, observed: bool) -> Health {
    match (record.state, record.health) {
        (State::Down, _) => Health::Critical,
        (_, Health::Passing) if observed => Health::Warning,
        (_, health) => health,
    }
}

#[cfg(test)]
mod tests;
