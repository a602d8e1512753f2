//! The registry over HTTP: services, their instances, and what happens to them.
//!
//! | calls | module |
//! |---|---|
//! | what is asked | this one |
//! | what is changed | [`write`](mod@write) |
//! | what is followed | [`watch`] |
//! | what an instance looks like in a document | [`document`] |

pub(super) mod document;
pub(super) mod watch;
pub(super) mod write;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use mainstay_coord::name::{InstanceId, Namespace};
use mainstay_coord::registry::{Filter, RegistryError, View};
use mainstay_coord::{InstanceRef, ServiceRef};
use mainstay_core::name::ServiceName;
use mainstay_core::problem::Code;
use mainstay_store::Revision;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Refused, items};
use crate::cluster::Cluster;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    let service = "/registry/{namespace}/services/{service}";
    let instance = format!("{service}/instances/{{id}}");
    let of = |verb: &str| format!("{instance}/{verb}");
    Router::new()
        .route("/registry/watch", get(watch::watch))
        .route("/registry/heartbeats", post(write::heartbeats))
        .route("/registry/observations", post(write::observe))
        .route("/registry/services", get(all_services))
        .route("/registry/{namespace}/services", get(services))
        .route(service, get(show).put(write::settings).delete(write::delete))
        .route(&format!("{service}/explain"), get(explain))
        .route(&instance, put(write::register).delete(write::deregister))
        .route(&of("heartbeat"), post(write::heartbeat))
        .route(&of("drain"), post(write::drain))
        .route(&of("undrain"), post(write::undrain))
        .route(&of("maintenance"), post(write::maintenance))
        .route(&of("weight"), post(write::weight))
        .route(&of("check"), post(write::check))
}

/// `GET /registry/services`: those of every namespace.
async fn all_services(State(cluster): State<Arc<Cluster>>) -> Answer {
    listed(&cluster, |_any| true)
}

/// `GET /registry/{namespace}/services`
async fn services(State(cluster): State<Arc<Cluster>>, Path(namespace): Path<String>) -> Answer {
    let namespace = named(Namespace::new(namespace))?;
    listed(&cluster, |service| service.namespace == namespace)
}

fn listed(cluster: &Cluster, wanted: impl Fn(&ServiceRef) -> bool) -> Answer {
    let services = cluster.registry.services()?.into_iter();
    let each = services.filter(|(service, _)| wanted(service)).map(|(service, instances)| {
        let view = cluster.registry.view(&service)?;
        let healthy = view.instances.iter().filter(|listed| listed.is_healthy()).count();
        Ok(json!({
            "namespace": service.namespace.as_str(),
            "name": service.name.as_str(),
            "instances": instances,
            "healthy": healthy,
            "protected": view.protected.is_some(),
            "revision": view.revision.get(),
        }))
    });
    let each: Result<Vec<Value>, RegistryError> = each.collect();
    Ok(items(each?))
}

/// Which instances, and how fresh an answer must be.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those that pass their checks, unless the service is protected.
    healthy: bool,
    /// Only those that run there.
    zone: Option<String>,
    /// Only those with all of these labels, joined by commas.
    tag: Option<String>,
    /// Only those of this build.
    version: Option<String>,
    /// As of this revision or later; waits for it.
    min_revision: Option<u64>,
    /// As of whatever was written before the request came.
    consistent: bool,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            healthy: self.healthy,
            zone: self.zone.clone(),
            tags: self.tag.iter().flat_map(|tags| tags.split(',')).map(str::to_owned).collect(),
            version: self.version.clone(),
        }
    }

    /// The service as of the revision that is asked for, or later.
    async fn view(&self, cluster: &Cluster, service: &ServiceRef) -> Result<Arc<View>, Refused> {
        if self.consistent {
            cluster.registry.caught_up(service).await?;
        }
        if let Some(revision) = self.min_revision {
            cluster.registry.reached(service, Revision::new(revision)).await?;
        }
        Ok(cluster.registry.view(service)?)
    }
}

/// `GET /registry/{namespace}/services/{service}`
async fn show(
    State(cluster): State<Arc<Cluster>>,
    Path(path): Path<(String, String)>,
    Asked(which): Asked<Which>,
) -> Answer {
    let service = service(path)?;
    let view = which.view(&cluster, &service).await?;
    let (settings, settings_revision) = cluster.registry.settings(&service)?;
    let mut document = json!(document::view(&view, &which.filter(), cluster.unix_millis()));
    if let Some(fields) = document.as_object_mut() {
        fields.insert("settings".to_owned(), json!(settings.raw()));
        fields.insert("settings_revision".to_owned(), settings_revision.get().into());
    }
    Ok(Json(document))
}

/// `GET /registry/{namespace}/services/{service}/explain`
async fn explain(
    State(cluster): State<Arc<Cluster>>,
    Path(path): Path<(String, String)>,
    Asked(mut which): Asked<Which>,
) -> Answer {
    let service = service(path)?;
    which.healthy = true;
    let view = which.view(&cluster, &service).await?;
    // Nobody registered it: there is nothing to explain.
    cluster.registry.settings(&service)?;
    let filter = which.filter();
    let each = view.explain(&filter).map(|(listed, why)| {
        json!({
            "id": listed.id.as_str(),
            "answered": why.is_none(),
            "why": why.map(|why| why.to_string()),
            "health": listed.health.as_str(),
            "reason": listed.instance.reason,
            "state": listed.instance.state,
            "weight": listed.instance.effective_weight(),
            "removal_held": listed.instance.removal_held,
        })
    });
    let each: Vec<Value> = each.collect();
    Ok(Json(json!({
        "namespace": service.namespace.as_str(),
        "service": service.name.as_str(),
        "revision": view.revision.get(),
        "protected": view.protected,
        "empty_because": view.empty_because(),
        "instances": each,
    })))
}

/// A service by its path.
pub(super) fn service((namespace, name): (String, String)) -> Result<ServiceRef, Refused> {
    let name = ServiceName::new(&name).map_err(|error| Refused::invalid(error.to_string()))?;
    Ok(ServiceRef { namespace: named(Namespace::new(namespace))?, name })
}

/// An instance by its path.
fn instance((namespace, name, id): (String, String, String)) -> Result<InstanceRef, Refused> {
    let service = service((namespace, name))?;
    Ok(service.instance(&named(InstanceId::new(id))?))
}

/// A name, or why it is none.
pub(super) fn named<T>(name: Result<T, mainstay_coord::name::NameInvalid>) -> Result<T, Refused> {
    name.map_err(|error| Refused::invalid(error.to_string()))
}

/// How long a caller waits before it asks a node again that is loading.
const LOADING: Duration = Duration::from_secs(1);

impl From<RegistryError> for Refused {
    fn from(error: RegistryError) -> Self {
        let refused = Self::caused(error.code(), error.effect(), &error);
        if error.code() == Code::RegistryLoading { refused.retry_after(LOADING) } else { refused }
    }
}
