//! Changes of the registry.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use mainstay_api::registry::{
    self as wire, CheckReport, Drain, Heartbeats, InstanceName, Maintenance, Missing, Observed,
    Register, Weight, Written,
};
use mainstay_coord::audit::Author;
use mainstay_coord::health::Health;
use mainstay_coord::name::Reporter;
use mainstay_coord::registry::{
    Kind, RawRegistration, RawSettings, Registration, RegistryError, Settings, State as Meant,
    Tried, Written as Changes,
};
use mainstay_coord::{InstanceRef, Terms};
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
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct How {
    /// Say what would be done or refused, and change nothing.
    dry_run: bool,
}

/// On what terms somebody wants a change: `dry_run`, `If-Match`, who asks and why.
#[derive(Debug)]
pub(super) struct Wanted {
    author: Author,
    expected: Option<Revision>,
    dry_run: bool,
}

impl Wanted {
    fn new(author: Author, headers: &HeaderMap, dry_run: bool) -> Result<Self, Refused> {
        Ok(Self { author, expected: if_match(headers)?.map(Revision::new), dry_run })
    }

    fn terms(&self) -> Terms<'_> {
        let Self { author, expected, dry_run } = self;
        Terms { author, expected: *expected, dry_run: *dry_run }
    }

    /// What the change came to, which is logged unless it was only tried.
    fn answer(
        &self,
        what: &'static str,
        subject: &impl ToString,
        after: Value,
        written: Changes,
    ) -> Json<Value> {
        if !self.dry_run {
            noted(what, subject, after, &self.author);
        }
        came_to(written)
    }
}

/// What a change came to, or would have.
fn came_to(written: Changes) -> Json<Value> {
    let revision = written.revision.get();
    let Some(Tried { before, after }) = written.tried else {
        return Json(json!(Written { revision }));
    };
    let tried = json!({ "revision": revision, "dry_run": true, "before": before, "after": after });
    Json(tried)
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Asked(How { dry_run }) = Asked::from_request_parts(parts, state).await?;
        let By(author) = By::from_request_parts(parts, state).await?;
        Self::new(author, &parts.headers, dry_run)
    }
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
    wanted: Wanted,
) -> Answer {
    let service = service(path)?;
    let written = cluster.registry.delete_service(&service, wanted.terms()).await?;
    Ok(wanted.answer("service.remove", &service, Value::Null, written))
}

/// `PUT …/instances/{id}`
pub(super) async fn register(
    State(cluster): State<Arc<Cluster>>,
    Path((namespace, name, id)): InstancePath,
    Asked(how): Asked<How>,
    headers: HeaderMap,
    Document(mut ask): Document<Register>,
) -> Result<Response, Refused> {
    let service = service((namespace, name))?;
    if ask.id.as_ref().is_some_and(|given| *given != id) {
        return Err(Refused::invalid("`id` must be that of the path"));
    }
    ask.id = Some(id);
    let expected = if_match(&headers)?.map(Revision::new);
    let registration = checked(&cluster, ask)?.only_if(expected);
    if how.dry_run {
        cluster.registry.may_register(&service, &registration).await?;
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
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct Whose {
    /// Only while it stands by this registration, as registering told: one made since stays.
    registration: Option<String>,
    /// Say what would be done or refused, and change nothing.
    dry_run: bool,
}

/// `DELETE …/instances/{id}`
pub(super) async fn deregister(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    Asked(Whose { registration, dry_run }): Asked<Whose>,
    By(author): By,
    headers: HeaderMap,
) -> Answer {
    let (at, wanted) = (instance(path)?, Wanted::new(author, &headers, dry_run)?);
    let registration = registration.as_deref();
    let written = cluster.registry.remove(&at, registration, wanted.terms()).await?;
    // Most go by themselves, which is no deed of an administrator.
    Ok(came_to(written))
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
    wanted: Wanted,
    Document(Drain { seconds }): Document<Drain>,
) -> Answer {
    let at = instance(path)?;
    let written = cluster.registry.drain(&at, seconds, wanted.terms()).await?;
    Ok(wanted.answer("instance.drain", &at, json!({ "seconds": seconds }), written))
}

/// `POST …/instances/{id}/undrain`
pub(super) async fn undrain(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    wanted: Wanted,
) -> Answer {
    let at = instance(path)?;
    let written = cluster.registry.bring_up(&at, wanted.terms()).await?;
    Ok(wanted.answer("instance.enable", &at, Value::Null, written))
}

/// `POST …/instances/{id}/maintenance`
pub(super) async fn maintenance(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    wanted: Wanted,
    Document(Maintenance { enable, reason }): Document<Maintenance>,
) -> Answer {
    let at = instance(path)?;
    let wanted = Wanted { author: By(wanted.author).because(Some(reason.clone()))?, ..wanted };
    let written = if enable {
        cluster.registry.maintain(&at, &reason, wanted.terms()).await?
    } else {
        cluster.registry.bring_up(&at, wanted.terms()).await?
    };
    Ok(wanted.answer("instance.maintenance", &at, json!({ "enabled": enable }), written))
}

/// `POST …/instances/{id}/weight`
pub(super) async fn weight(
    State(cluster): State<Arc<Cluster>>,
    Path(path): InstancePath,
    wanted: Wanted,
    Document(Weight { weight }): Document<Weight>,
) -> Answer {
    let at = instance(path)?;
    let written = cluster.registry.weigh(&at, weight, wanted.terms()).await?;
    Ok(wanted.answer("instance.weight", &at, json!({ "weight": weight }), written))
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
