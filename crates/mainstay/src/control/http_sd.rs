//! Targets for Prometheus (`http_sd_configs`): every instance of the registry, in one list.
//!
//! Prometheus takes each answer as the whole truth and keeps what it has when there is none. So an
//! answer is complete or refused, and those that are unhealthy are in it: they are to be seen as
//! down, not as gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use mainstay_coord::ServiceRef;
use mainstay_coord::registry::{Filter, Listed};
use serde::Serialize;

use super::answer::{Asked, Refused};
use crate::cluster::Cluster;

/// The call.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    Router::new().route("/sd/prometheus", get(targets))
}

/// One instance, as Prometheus wants it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Which instances are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Which {
    namespace: Option<String>,
    service: Option<String>,
    port: Option<String>,
    filter: Filter,
}

impl Which {
    /// Reads a query. `tag` may be repeated: an instance has to have all of them.
    fn read(query: Vec<(String, String)>) -> Result<Self, Refused> {
        let mut which = Self::default();
        for (name, value) in query {
            match &*name {
                "namespace" => which.namespace = Some(value),
                "service" => which.service = Some(value),
                "port" => which.port = Some(value),
                "tag" => which.filter.tags.push(value),
                "healthy" => {
                    which.filter.healthy = value.parse().map_err(|_no_flag| {
                        Refused::invalid(format!(
                            "`healthy` must be true or false, found `{value}`"
                        ))
                    })?;
                }
                _ => {
                    let known = "namespace, service, tag, healthy and port";
                    let told = format!("there is no parameter `{name}`; there are {known}");
                    return Err(Refused::invalid(told));
                }
            }
        }
        Ok(which)
    }

    fn has(&self, service: &ServiceRef) -> bool {
        self.namespace.as_ref().is_none_or(|name| name == service.namespace.as_str())
            && self.service.as_ref().is_none_or(|name| name == service.name.as_str())
    }
}

/// `GET /sd/prometheus`
async fn targets(
    State(cluster): State<Arc<Cluster>>,
    Asked(query): Asked<Vec<(String, String)>>,
) -> Result<Json<Vec<Group>>, Refused> {
    let which = Which::read(query)?;
    let mut groups = Vec::new();
    // Services come by namespace and name, instances by id.
    for (service, _) in cluster.registry.services()? {
        if which.has(&service) {
            let view = cluster.registry.view(&service)?;
            let asked = view.answer(&which.filter);
            groups
                .extend(asked.filter_map(|listed| group(&service, listed, which.port.as_deref())));
        }
    }
    Ok(Json(groups))
}

/// `listed` as a group; `None` when it has no port to be asked on.
fn group(service: &ServiceRef, listed: &Listed, port: Option<&str>) -> Option<Group> {
    let instance = &listed.instance;
    let metadata = |key: &str| instance.metadata.get(key).map(String::as_str);
    let port = match port {
        Some(name) => *instance.ports.get(name)?,
        None => {
            metadata("metrics_port").and_then(|port| port.parse().ok()).unwrap_or(instance.port)
        }
    };
    if port == 0 {
        return None;
    }
    let address = &instance.address;
    let target = if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    };
    let mut labels = BTreeMap::new();
    let mut own = |name: &str, value: &str| {
        labels.insert(format!("__meta_mainstay_{name}"), value.to_owned());
    };
    own("namespace", service.namespace.as_str());
    own("service", service.name.as_str());
    own("instance", listed.id.as_str());
    own("zone", &instance.zone);
    own("health", listed.health.as_str());
    own("state", instance.state.as_str());
    own("version", &instance.version);
    own("weight", &instance.weight.to_string());
    own("tags", &tags(&instance.tags));
    for (key, value) in &instance.metadata {
        own(&format!("metadata_{}", label_part(key)), value);
    }
    for (key, label) in [("metrics_path", "__metrics_path__"), ("metrics_scheme", "__scheme__")] {
        if let Some(value) = metadata(key) {
            labels.insert(label.to_owned(), value.to_owned());
        }
    }
    Some(Group { targets: [target], labels })
}

/// `,a,b,`: a comma on both sides, so that `.*,a,.*` finds a tag and no part of one.
fn tags(tags: &[String]) -> String {
    if tags.is_empty() { String::new() } else { format!(",{},", tags.join(",")) }
}

/// `key` with what a label's name cannot hold as `_`.
fn label_part(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use mainstay_coord::name::{InstanceId, Namespace};
    use mainstay_coord::registry::Instance;
    use mainstay_core::name::ServiceName;
    use mainstay_store::Revision;
    use serde_json::{Value, json};

    use super::*;

    fn made(more: &Value, port: Option<&str>) -> Option<Value> {
        let mut record = json!({
            "v": 1, "address": "10.0.0.7", "port": 8080, "kind": "ephemeral", "weight": 3,
            "state": "up", "health": "warning", "own": "warning", "ttl_seconds": 15, "owner": "n",
            "registration": "r", "registered_unix_ms": 0, "changed_unix_ms": 0,
        });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let instance = Instance::read(record.to_string().as_bytes()).unwrap();
        let listed = Listed {
            id: InstanceId::new("i").unwrap(),
            health: instance.health,
            instance: instance.into(),
            revision: Revision::new(1),
        };
        let service = ServiceRef {
            namespace: Namespace::new("shop").unwrap(),
            name: ServiceName::new("web").unwrap(),
        };
        group(&service, &listed, port).map(|group| serde_json::to_value(group).unwrap())
    }

    #[test]
    fn a_group_has_all_labels_and_what_metadata_overrule() {
        let more = json!({
            "zone": "z1", "version": "1.2", "tags": ["a", "b"], "ports": { "admin": 9100 },
            "metadata": { "team-name": "订单", "metrics_path": "/m", "metrics_scheme": "https",
                          "metrics_port": "9000" },
        });
        let want = json!({
            "targets": ["10.0.0.7:9000"],
            "labels": {
                "__meta_mainstay_namespace": "shop", "__meta_mainstay_service": "web",
                "__meta_mainstay_instance": "i", "__meta_mainstay_zone": "z1",
                "__meta_mainstay_health": "warning", "__meta_mainstay_state": "up",
                "__meta_mainstay_version": "1.2", "__meta_mainstay_weight": "3",
                "__meta_mainstay_tags": ",a,b,", "__meta_mainstay_metadata_team_name": "订单",
                "__meta_mainstay_metadata_metrics_path": "/m",
                "__meta_mainstay_metadata_metrics_scheme": "https",
                "__meta_mainstay_metadata_metrics_port": "9000",
                "__metrics_path__": "/m", "__scheme__": "https",
            },
        });
        assert_eq!(made(&more, None), Some(want));
        let target = |more: &Value, port| Some(made(more, port)?["targets"][0].clone());
        assert_eq!(target(&more, Some("admin")), Some(json!("10.0.0.7:9100")));
        assert_eq!(target(&more, Some("none")), None);
        assert_eq!(target(&json!({ "address": "fd00::7" }), None), Some(json!("[fd00::7]:8080")));
        assert_eq!(target(&json!({ "port": 0 }), None), None);
    }

    #[test]
    fn a_query_is_read_whole_or_refused() {
        let read = |pairs: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            Which::read(pairs.iter().map(own).collect())
        };
        let which = read(&[("tag", "a"), ("tag", "b"), ("healthy", "true")]).unwrap();
        assert_eq!((which.filter.tags.len(), which.filter.healthy), (2, true));
        assert!(read(&[("healthy", "1")]).is_err() && read(&[("tags", "a")]).is_err());
    }
}
