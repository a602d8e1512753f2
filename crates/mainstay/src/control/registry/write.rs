//! Changes of the registry.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use mainstay_api::registry::{
    self as wire, CheckReport, Drain, Heartbeats, InstanceName, Maintenance, Missing, Observed,
    Register, Weight, Written,
};
use mainstay_coord::InstanceRef;
use mainstay_coord::audit::Author;
use mainstay_coord::health::Health;
use mainstay_coord::name::Reporter;
use mainstay_coord::registry::{
    Kind, RawRegistration, RawSettings, Registration, RegistryError, Settings, State as Meant,
};
use mainstay_store::Revision;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{instance, named, service};
use crate::cluster::Cluster;
use crate::control::answer::{Answer, Asked, Document, Refused, if_match};
use crate::control::author::By;
use crate::control::events::Changed;

type ServicePath = Path<(String, String)>;
type InstancePath = Path<(String, String, String)>;

/// What every change takes beside its document.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct How {
    /// Say what would be refused, and change nothing.
    dry_run: bool,
}

/// `PUT …/services/{service}`: what holds for it.
pub(super) async fn settings(
    State(cluster): State<Arc<Cluster>>,
    Path(path): ServicePath,
    Asked(how): Asked<How>,
    By(author): By,
    headers: HeaderMap,
    Document(raw): Document<RawSettings>,
) -> Answer {
    let service = service(path)?;
    let expected = if_match(&headers)?.map(Revision::new);
    let settings =
        Settings::new(raw, cluster.registry_config.shares).map_err(RegistryError::from)?;
    if how.dry_run {
        let found = match cluster.registry.settings(&service) {
            Ok((_, found)) => found,
            Err(RegistryError::ServiceNotFound { .. }) => Revision::NEVER,
            Err(error) => return Err(error.into()),
        };
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(RegistryError::Changed { service, expected, found }.into());
        }
        return Ok(Json(json!({ "settings": settings.raw(), "dry_run": true })));
    }
    let written = cluster.registry.set_settings(&service, &settings, expected, &author).await?;
    noted("service.settings", &service, json!(settings.raw()), &author);
    Ok(Json(json!({ "revision": written.revision.get() })))
}

/// `DELETE …/services/{service}`
pub(super) async fn delete(
    State(cluster): State<Arc<Cluster>>,
    Path(path): ServicePath,
    By(author): By,
) -> Result<Json<Written>, Refused> {
    let service = service(path)?;
    let written = cluster.registry.delete_service(&service, &author).await?;
    noted("service.remove", &service, Value::Null, &author);
    Ok(Json(Written { revision: written.revision.get() }))
}

/// `PUT …/instances/{id}`
pub(super) async fn register(
    State(cluster): State<Arc<Cluster>>,
    Path((namespace, name, id)): InstancePath,
    Asked(how): Asked<How>,
    Document(mut ask): Document<Register>,
) -> Result<Response, Refused> {
    let service = service((namespace, name))?;
    if ask.id.as_ref().is_some_and(|given| *given != id) {
        return Err(Refused::invalid("`id` must be that of the path"));
    }
    ask.id = Some(id);
    let registration = checked(&cluster, ask)?;
    if how.dry_run {
        let document = json!({ "ttl_seconds": registration.ttl_seconds(), "dry_run": true });
        return Ok(Json(document).into_response());
    }
    let done = cluster.registry.register(&service, &registration).await?;
    let status = if done.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let document = wire::Registered {
        revision: done.revision.get(),
        registration: done.registration,
        ttl_seconds: done.ttl_seconds,
        beat_every_seconds: done.beat_every_seconds,
    };
    Ok((status, Json(document)).into_response())
}

/// A registration that can be made.
pub(in crate::control) fn checked(
    cluster: &Cluster,
    ask: Register,
) -> Result<Registration, Refused> {
    let config = &cluster.registry_config;
    let registration = Registration::new(raw(ask), config.ttl_seconds, &config.addresses());
    Ok(registration.map_err(RegistryError::from)?)
}

/// A registration as the registry takes it.
fn raw(ask: Register) -> RawRegistration {
    RawRegistration {
        id: ask.id,
        address: ask.address,
        port: ask.port,
        ports: ask.ports,
        kind: ask.kind.map(|kind| match kind {
            wire::Kind::Ephemeral => Kind::Ephemeral,
            wire::Kind::Persistent => Kind::Persistent,
        }),
        weight: ask.weight,
        zone: ask.zone,
        version: ask.version,
        tags: ask.tags,
        metadata: ask.metadata,
        state: ask.state.map(|state| match state {
            wire::State::Up => Meant::Up,
            wire::State::Starting => Meant::Starting,
            wire::State::Draining => Meant::Draining,
            wire::State::Down => Meant::Down,
        }),
        status: ask.status.map(health),
        ttl_seconds: ask.ttl_seconds,
        remove_after_seconds: ask.remove_after_seconds,
        registration: ask.registration,
    }
}

const fn health(told: wire::Health) -> Health {
    match told {
        wire::Health::Passing => Health::Passing,
        wire::Health::Warning => Health::Warning,
        wire::Health::Critical => Health::Critical,
        wire::Health::Unknown => Health::Unknown,
    }
}

/// Which registration of an instance is meant.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct Whose {
    /// Only while it stands by this registration, as registering told: one made since stays.
    registration: Option<String>,
}

/// `DELETE …/instances/{id}`
pub(super) async fn deregister(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    Asked(Whose { registration }): Asked<Whose>,
    By(author): By,
) -> Result<Json<Written>, Refused> {
    let at = instance(path)?;
    let written = match registration {
        Some(made) => cluster.registry.withdraw(&at, &made, Some(&author)).await?,
        None => cluster.registry.deregister(&at, Some(&author)).await?,
    };
    Ok(Json(Written { revision: written.revision.get() }))
}

/// `POST …/instances/{id}/heartbeat`
pub(super) async fn heartbeat(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
) -> Result<StatusCode, Refused> {
    cluster.registry.heartbeat(&instance(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An instance by its names.
fn read(name: InstanceName) -> Result<InstanceRef, Refused> {
    instance((name.namespace, name.service, name.id))
}

/// `POST /registry/heartbeats`
pub(super) async fn heartbeats(
    State(cluster): State<Arc<Cluster>>,
    Document(Heartbeats { instances }): Document<Heartbeats>,
) -> Result<Json<Missing>, Refused> {
    let of: Result<Vec<InstanceRef>, Refused> = instances.into_iter().map(read).collect();
    let missing =
        cluster.registry.heartbeats(&of?).await?.into_iter().map(|missing| InstanceName {
            namespace: missing.service.namespace.to_string(),
            service: missing.service.name.to_string(),
            id: missing.id.to_string(),
        });
    Ok(Json(Missing { missing: missing.collect() }))
}

/// `POST …/instances/{id}/drain`
pub(super) async fn drain(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    By(author): By,
    Document(Drain { seconds }): Document<Drain>,
) -> Result<Json<Written>, Refused> {
    let at = instance(path)?;
    let written = cluster.registry.drain(&at, seconds, &author).await?;
    noted("instance.drain", &at, json!({ "seconds": seconds }), &author);
    Ok(Json(Written { revision: written.revision.get() }))
}

/// `POST …/instances/{id}/undrain`
pub(super) async fn undrain(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    By(author): By,
) -> Result<Json<Written>, Refused> {
    let at = instance(path)?;
    let written = cluster.registry.bring_up(&at, &author).await?;
    noted("instance.enable", &at, Value::Null, &author);
    Ok(Json(Written { revision: written.revision.get() }))
}

/// `POST …/instances/{id}/maintenance`
pub(super) async fn maintenance(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    by: By,
    Document(Maintenance { enable, reason }): Document<Maintenance>,
) -> Result<Json<Written>, Refused> {
    let (at, author) = (instance(path)?, by.because(Some(reason.clone()))?);
    let written = if enable {
        cluster.registry.maintain(&at, &reason, &author).await?
    } else {
        cluster.registry.bring_up(&at, &author).await?
    };
    noted("instance.maintenance", &at, json!({ "enabled": enable }), &author);
    Ok(Json(Written { revision: written.revision.get() }))
}

/// `POST …/instances/{id}/weight`
pub(super) async fn weight(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    By(author): By,
    Document(Weight { weight }): Document<Weight>,
) -> Result<Json<Written>, Refused> {
    let at = instance(path)?;
    let written = cluster.registry.weigh(&at, weight, &author).await?;
    noted("instance.weight", &at, json!({ "weight": weight }), &author);
    Ok(Json(Written { revision: written.revision.get() }))
}

/// `POST …/instances/{id}/check`
pub(super) async fn check(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    Document(CheckReport { name, status, output }): Document<CheckReport>,
) -> Result<StatusCode, Refused> {
    cluster.registry.report(&instance(path)?, &name, health(status), &output).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /registry/observations`
pub(super) async fn observe(
    State(cluster): State<Arc<Cluster>>,
    Document(observed): Document<Observed>,
) -> Result<StatusCode, Refused> {
    let Observed { instance, reporter, callers, why } = observed;
    let (at, reporter) = (read(instance)?, named(Reporter::new(reporter))?);
    cluster.registry.observe(&at, &reporter, callers.max(1), &why).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Logs a change that a person makes. What was before stands in its audit record.
fn noted(what: &'static str, subject: &impl ToString, after: Value, author: &Author) {
    let reason = author.reason.as_deref();
    let (subject, before, after) = (&*subject.to_string(), &Value::Null, &after);
    Changed { what, subject, before, after, reason }.emit();
}
