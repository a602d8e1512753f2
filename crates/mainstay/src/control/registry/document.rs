//! A service and its instances as documents.

use std::time::Duration;

use mainstay_api::registry::{CheckState, Instance as Document, Protected, ServiceView};
use mainstay_coord::registry::{Filter, Instance, Listed, View};

use crate::control::moment::unix_time;

/// A service with those of its instances that `filter` asks for, at `now_unix_ms`.
pub(super) fn view(view: &View, filter: &Filter, now_unix_ms: u64) -> ServiceView {
    let stale_since = view.stale_since_unix_ms;
    ServiceView {
        namespace: view.service.namespace.to_string(),
        service: view.service.name.to_string(),
        revision: view.revision.get(),
        protected: view.protected.as_ref().map(|protected| Protected {
            since: unix_time(protected.since_unix_ms),
            reason: protected.reason.clone(),
            healthy: protected.healthy,
            total: protected.total,
        }),
        stale: stale_since.is_some(),
        stale_seconds: stale_since
            .map(|since| Duration::from_millis(now_unix_ms.saturating_sub(since)).as_secs_f64()),
        resync: view.resync,
        empty_because: view.empty_because().map(str::to_owned),
        instances: view.answer(filter).map(listed).collect(),
    }
}

/// One instance.
pub(super) fn listed(listed: &Listed) -> Document {
    let Listed { id, instance, health, revision } = listed;
    Document {
        id: id.to_string(),
        address: instance.address.clone(),
        port: instance.port,
        ports: instance.ports.clone(),
        kind: instance.kind.as_str().to_owned(),
        weight: instance.weight,
        zone: instance.zone.clone(),
        version: instance.version.clone(),
        tags: instance.tags.clone(),
        metadata: instance.metadata.clone(),
        state: instance.state.as_str().to_owned(),
        health: health.as_str().to_owned(),
        reason: instance.reason.clone(),
        checks: checks(instance),
        drain_seconds: instance.drain_seconds,
        removal_held: instance.removal_held,
        ttl_seconds: instance.ttl_seconds,
        remove_after_seconds: instance.remove_after_seconds,
        owner: instance.owner.clone(),
        registered_at: unix_time(instance.registered_unix_ms),
        changed_at: unix_time(instance.changed_unix_ms),
        revision: revision.get(),
    }
}

fn checks(instance: &Instance) -> Vec<CheckState> {
    let each = instance.checks.iter().map(|(name, check)| CheckState {
        name: name.clone(),
        health: check.health.as_str().to_owned(),
        output: check.output.clone(),
        changed_at: unix_time(check.changed_unix_ms),
    });
    each.collect()
}
