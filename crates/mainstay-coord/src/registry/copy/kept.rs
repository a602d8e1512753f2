//! One service, as the copy keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_store::Revision;

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
    pub(super) instances: BTreeMap<InstanceId, Row>,
    pub(super) gone: Option<(Gone, Revision)>,
    pub(super) observations: BTreeMap<InstanceId, BTreeMap<Reporter, Observation>>,
    pub(super) revision: Revision,
    pub(super) resync: bool,
    pub(super) budget: Budget,
    pub(super) protection: Protection,
    pub(super) protected_unix_ms: u64,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) record: Arc<Instance>,
    pub(super) written: Revision,
    /// When what lists show of it last changed.
    pub(super) shown: Revision,
}

impl Kept {
    pub(super) fn view(
        &self,
        service: &ServiceRef,
        quorum: u32,
        stale_since_unix_ms: Option<u64>,
    ) -> View {
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
            let observed = observed.is_some_and(|by| Observation::are_enough(by.values(), quorum));
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
        let ephemeral = self.instances.values().filter(|row| row.record.kind == Kind::Ephemeral);
        let (mut service, mut in_zone) = (0, 0);
        for row in ephemeral {
            service += 1;
            in_zone += u32::from(row.record.zone == zone);
        }
        Census { service, zone: in_zone }
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
