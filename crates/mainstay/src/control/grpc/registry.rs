//! Services and their instances over gRPC.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use mainstay_api::grpc::registry_server::Registry;
use mainstay_api::grpc::registry_watch_response::Item as Sent;
use mainstay_api::grpc::service_change::What;
use mainstay_api::grpc::{
    self as proto, FollowedService, RegisterRequest, RegisterResponse, Registration,
    RegistrySessionRequest, RegistrySessionResponse, RegistryWatchRequest, RegistryWatchResponse,
    WatchMode,
};
use mainstay_api::registry::{self as document, STORE_HEADER};
use mainstay_coord::registry::Registered;
use mainstay_store::Revision;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::keeping::kept;
use super::{Agreed, Messages, ended, namespace};
use crate::control::answer::Refused;
use crate::control::author::author;
use crate::control::items::Item;
use crate::control::registry::watch::{
    self, Following, Mode, ServiceChange, ServiceList, Told, Wanted,
};
use crate::control::registry::{service, write};

#[tonic::async_trait]
impl Registry for Agreed {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let RegisterRequest { namespace: within, service: name, registration } =
            request.into_inner();
        let at = service((namespace(within), name))?;
        let ask = write::checked(&self.cluster, asked(registration.unwrap_or_default())?)?;
        let done = self.cluster.registry.register(&at, &ask).await.map_err(Refused::from)?;
        Ok(Response::new(registered(done)))
    }

    type SessionStream = Messages<RegistrySessionResponse>;

    async fn session(
        &self,
        request: Request<Streaming<RegistrySessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let author = author(request.metadata().as_ref(), request.extensions());
        let kept = kept(Arc::clone(&self.cluster), author, request.into_inner()).await?;
        Ok(Response::new(self.until_the_end(kept)))
    }

    type WatchStream = Messages<RegistryWatchResponse>;

    async fn watch(
        &self,
        request: Request<RegistryWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let RegistryWatchRequest { services, store, mode, healthy } = request.into_inner();
        watch::counted(services.len())?;
        let wanted: Vec<Wanted> =
            services.into_iter().map(wanted).collect::<Result<_, Refused>>()?;
        let mode = match WatchMode::try_from(mode) {
            Ok(WatchMode::Unspecified | WatchMode::View) => Mode::View,
            Ok(WatchMode::Events) => Mode::Events,
            Err(unknown) => {
                return Err(Refused::invalid(format!("`mode`: {unknown}")).into());
            }
        };
        let store = Some(store).filter(|store| !store.is_empty());
        let following = Following { wanted, mode, healthy, store };
        let (store, told) = watch::follow(&self.cluster, following).await?;
        let parts = told.flat_map(|item| {
            let parts = match message(item) {
                Ok(message) => message.in_parts(PART_BYTES).into_iter().map(Ok).collect(),
                Err(ended) => vec![Err(ended)],
            };
            stream::iter(parts)
        });
        let mut answer = Response::new(self.until_the_end(parts));
        if let Some(store) = store.and_then(|store| AsciiMetadataValue::try_from(store).ok()) {
            answer.metadata_mut().insert(STORE_HEADER, store);
        }
        Ok(answer)
    }
}

/// Largest part of a list, in bytes: less than the 4 MiB a client takes by itself, with room for
/// what stands beside the instances.
const PART_BYTES: usize = 3 << 20;

/// What a program is told of its registration.
pub(super) fn registered(done: Registered) -> RegisterResponse {
    RegisterResponse {
        revision: done.revision.get(),
        registration: done.registration,
        ttl_seconds: done.ttl_seconds,
        beat_every_seconds: done.beat_every_seconds,
    }
}

fn wanted(followed: FollowedService) -> Result<Wanted, Refused> {
    let FollowedService { namespace: within, service: name, revision } = followed;
    let service = service((namespace(within), name))?;
    Ok(Wanted { service, has: revision.map(Revision::new), last: None, is_lost: false })
}

/// A registration as documents have it.
pub(super) fn asked(registration: Registration) -> Result<document::Register, Refused> {
    let Registration {
        id,
        address,
        port,
        ports,
        kind,
        weight,
        zone,
        version,
        tags,
        metadata,
        state,
        status,
        ttl_seconds,
        remove_after_seconds,
        registration,
    } = registration;
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let ports = ports.into_iter().map(|(name, port)| {
        let port = narrow("ports", port)?;
        Ok((name, port))
    });
    Ok(document::Register {
        id: text(id),
        address: text(address),
        port: Some(port).filter(|port| 0 < *port).map(|port| narrow("port", port)).transpose()?,
        ports: ports.collect::<Result<_, Refused>>()?,
        kind: word("kind", kind)?,
        weight: weight.map(|weight| narrow("weight", weight)).transpose()?,
        zone: text(zone),
        version: text(version),
        tags,
        metadata,
        state: word("state", state)?,
        status: word("status", status)?,
        ttl_seconds,
        remove_after_seconds,
        registration: text(registration),
    })
}

fn narrow(field: &str, number: u32) -> Result<u16, Refused> {
    let wrong = |_| Refused::invalid(format!("`{field}`: {number} is more than 65,535"));
    u16::try_from(number).map_err(wrong)
}

/// A word that documents know; none when it is empty.
pub(super) fn word<T: DeserializeOwned>(field: &str, word: String) -> Result<Option<T>, Refused> {
    if word.is_empty() {
        return Ok(None);
    }
    let read = serde_json::from_value(Value::String(word));
    read.map(Some).map_err(|error| Refused::invalid(format!("`{field}`: {error}")))
}

fn message(item: watch::Item) -> Result<RegistryWatchResponse, Status> {
    let (revision, item) = match item {
        Item::Snapshot(revision, told) => (revision, sent(told, Sent::Snapshot)),
        Item::Change(revision, told) => (revision, sent(told, Sent::Change)),
        Item::Bookmark(revision, at) => {
            let document::ServiceAt { namespace, service, revision: at } = at;
            let at = proto::ServiceAt { namespace, service, revision: at };
            (Some(revision), Sent::Bookmark(at))
        }
        Item::Resync(reason) => (None, Sent::Resync(proto::Resync { reason: reason.to_owned() })),
        Item::Problem(code, detail) => return Err(ended(code, detail)),
    };
    Ok(RegistryWatchResponse { revision: revision.map(Revision::get), item: Some(item) })
}

fn sent(told: Told, whole: fn(proto::ServiceView) -> Sent) -> Sent {
    match told {
        Told::View(told) => whole(view(*told)),
        Told::List(ServiceList { namespace, service, revision, instances }) => {
            let instances = instances.into_iter().map(instance).collect();
            whole(proto::ServiceView {
                namespace,
                service,
                revision,
                instances,
                ..proto::ServiceView::default()
            })
        }
        Told::Change(change) => {
            let ServiceChange { namespace, service, revision, what } = *change;
            let what = match what {
                watch::What::Put(put) => What::Put(instance(*put)),
                watch::What::Removed(id) => What::Removed(id),
            };
            Sent::Event(proto::ServiceChange { namespace, service, revision, what: Some(what) })
        }
    }
}

fn view(view: document::ServiceView) -> proto::ServiceView {
    proto::ServiceView {
        namespace: view.namespace,
        service: view.service,
        revision: view.revision,
        protected: view.protected.map(|protected| proto::Protected {
            since: protected.since,
            reason: protected.reason,
            healthy: protected.healthy,
            total: protected.total,
        }),
        stale: view.stale,
        stale_seconds: view.stale_seconds,
        resync: view.resync,
        empty_because: view.empty_because,
        instances: view.instances.into_iter().map(instance).collect(),
        more: false,
    }
}

fn instance(instance: document::Instance) -> proto::Instance {
    proto::Instance {
        id: instance.id,
        address: instance.address,
        port: instance.port.into(),
        ports: instance.ports.into_iter().map(|(name, port)| (name, port.into())).collect(),
        kind: instance.kind,
        weight: instance.weight.into(),
        zone: instance.zone,
        version: instance.version,
        tags: instance.tags,
        metadata: instance.metadata,
        state: instance.state,
        health: instance.health,
        reason: instance.reason,
        checks: instance.checks.into_iter().map(check).collect(),
        drain_seconds: instance.drain_seconds,
        removal_held: instance.removal_held,
        ttl_seconds: instance.ttl_seconds,
        remove_after_seconds: instance.remove_after_seconds,
        owner: instance.owner,
        registered_at: instance.registered_at,
        changed_at: instance.changed_at,
        revision: instance.revision,
    }
}

fn check(check: document::CheckState) -> proto::CheckState {
    let document::CheckState { name, health, output, changed_at } = check;
    proto::CheckState { name, health, output, changed_at }
}
