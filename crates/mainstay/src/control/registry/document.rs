//! A service and its instances as documents.

use std::time::Duration;

use mainstay_coord::registry::{Filter, Instance, Listed, View};
use serde_json::{Map, Value, json};

use crate::control::moment::unix_time;

/// A service with those of its instances that `filter` asks for, at `now_unix_ms`.
pub(super) fn view(view: &View, filter: &Filter, now_unix_ms: u64) -> Value {
    let instances: Vec<Value> = view.answer(filter).map(listed).collect();
    let stale = view.stale_since_unix_ms;
    let mut document = json!({
        "namespace": view.service.namespace.as_str(),
        "service": view.service.name.as_str(),
        "revision": view.revision.get(),
        "protected": view.protected.as_ref().map(|protected| json!({
            "since": unix_time(protected.since_unix_ms),
            "reason": protected.reason,
            "healthy": protected.healthy,
            "total": protected.total,
        })),
        "stale": stale.is_some(),
        "instances": instances,
    });
    if let Some(fields) = document.as_object_mut() {
        if let Some(since) = stale {
            let age = Duration::from_millis(now_unix_ms.saturating_sub(since));
            fields.insert("stale_seconds".to_owned(), age.as_secs_f64().into());
        }
        if let Some(why) = view.empty_because() {
            fields.insert("empty_because".to_owned(), why.into());
        }
    }
    document
}

/// One instance.
pub(super) fn listed(listed: &Listed) -> Value {
    let Listed { id, instance, health, revision } = listed;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("id", id.as_str().into());
    put("address", instance.address.as_str().into());
    put("port", instance.port.into());
    if !instance.ports.is_empty() {
        put("ports", json!(instance.ports));
    }
    put("kind", instance.kind.as_str().into());
    put("weight", instance.weight.into());
    put("zone", instance.zone.as_str().into());
    put("version", instance.version.as_str().into());
    put("tags", json!(instance.tags));
    put("metadata", json!(instance.metadata));
    put("state", instance.state.as_str().into());
    put("health", health.as_str().into());
    put("reason", json!(instance.reason));
    put("checks", checks(instance));
    if let Some(seconds) = instance.drain_seconds {
        put("drain_seconds", seconds.into());
    }
    if instance.removal_held {
        put("removal_held", true.into());
    }
    put("ttl_seconds", instance.ttl_seconds.into());
    put("remove_after_seconds", json!(instance.remove_after_seconds));
    put("owner", instance.owner.as_str().into());
    put("registered_at", unix_time(instance.registered_unix_ms).into());
    put("changed_at", unix_time(instance.changed_unix_ms).into());
    put("revision", revision.get().into());
    Value::Object(fields)
}

fn checks(instance: &Instance) -> Value {
    let each = instance.checks.iter().map(|(name, check)| {
        let status = json!({
            "name": name,
            "health": check.health.as_str(),
            "output": check.output,
            "changed_at": unix_time(check.changed_unix_ms),
        });
        status
    });
    each.collect()
}
