//! Writes to the registry.
//!
//! Each is one batch that compares what it was based on, so of two that collide one tries again
//! from what the other left. When the outcome of a batch is unknown it is read: a registration is
//! found by its own id, and every other change is made again only if it is not there. A batch that
//! arrives late all the same fails its compare.

mod beside;
mod deed;
mod edit;
mod own_checks;
mod reports;
mod services;
mod tried;

use std::future::ready;

use mainstay_core::name::ServiceName;
use mainstay_store::{
    Batch, Compare, Entry, Get, Operator, Put, Range, RangeRequest, Revision, Select, Target,
};

use serde_json::Value;

use super::error::{INSTANCES_MAX, SERVICE_INSTANCES_MAX};
use super::instance::{GoneReason, Instance, State};
use super::service::{RawSettings, Settings};
use super::{Invalid, Registration, Registry, RegistryError, Shared};
use crate::audit::Author;
use crate::keys::{InstanceRef, RegistryArea, ServiceRef};
use crate::patience::Patience;
use crate::random;
use crate::terms::Terms;

pub use beside::Beside;
use deed::Deed;
pub(super) use edit::Removal;
pub use tried::Tried;

/// Longest drain, in seconds.
const DRAIN_SECONDS_MAX: u32 = 3_600;

/// Longest text of a reason or an output that comes from a caller, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// What a write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The revision that holds it; of what was only tried, the one it was tried on.
    pub revision: Revision,
    /// What it would have come to, if it was only tried.
    pub tried: Option<Tried>,
}

impl Written {
    pub(super) const fn at(revision: Revision) -> Self {
        Self { revision, tried: None }
    }

    fn tried(revision: Revision, (before, after): (Value, Value)) -> Self {
        Self { revision, tried: Some(Tried { before, after }) }
    }
}

/// What a registration came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The revision that holds it.
    pub revision: Revision,
    /// Names this registration of the instance.
    pub registration: String,
    /// Whether the instance was not there before.
    pub is_new: bool,
    /// How long it lives from one heartbeat to the next.
    pub ttl_seconds: u32,
    /// How often it should beat: three chances within a ttl.
    pub beat_every_seconds: u32,
}

impl Registry {
    /// Registers an instance, durably, under this node's care. One that is there is replaced; sent
    /// again under the same registration id it changes nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError::KindConflict`], [`RegistryError::Full`], [`RegistryError::Loading`], or
    /// what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; registering again under the same id does no harm.
    pub async fn register(
        &self,
        service: &ServiceRef,
        registration: &Registration,
    ) -> Result<Registered, RegistryError> {
        self.register_beside(service, registration, || ready(Ok(Beside::default()))).await
    }

    /// The same, together with what `beside` says, or not at all; it is asked again when somebody
    /// else was quicker.
    ///
    /// # Errors
    ///
    /// As [`register`](Registry::register), and what `beside` said.
    ///
    /// # Cancel safety
    ///
    /// As [`register`](Registry::register).
    pub async fn register_beside<F>(
        &self,
        service: &ServiceRef,
        registration: &Registration,
        beside: impl Fn() -> F,
    ) -> Result<Registered, RegistryError>
    where
        F: Future<Output = Result<Beside, RegistryError>>,
    {
        let shared = &*self.shared;
        service_name_fits(&service.name)?;
        let at = service.instance(&registration.id);
        let token = registration.token.clone().unwrap_or_else(random::hex::<16>);
        let mut patience = Patience::new(shared.now(), Patience::FOR_CALLERS);
        let mut is_new = None;
        loop {
            let read = async {
                let settings = shared.store.get(Get::new(service.settings())).await?.entry;
                Ok((settings, shared.store.get(Get::new(at.key())).await?.entry))
            };
            let (settings, before) = match read.await {
                Ok(read) => read,
                Err(error) => {
                    patience.bear(&*shared.timer, error).await?;
                    continue;
                }
            };
            // Whether it is new is what the first look found: a later one may find our own.
            let is_new = *is_new.get_or_insert_with(|| before.is_none());
            let known = before.as_ref().and_then(|entry| Instance::read(&entry.value));
            let done = known.as_ref().filter(|record| record.registration == token);
            if let (Some(_), Some(entry)) = (done, &before) {
                return shared.registered(registration, token, entry.mod_revision, is_new).await;
            }
            let written = before.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision);
            let uncertain = patience.is_uncertain();
            shared.is_as_read(&at, registration.expected, written, uncertain).await?;
            shared.has_room(service, before.is_none())?;
            let raw = read_settings(service, settings.as_ref())?;
            let other = !shared.is_of_its_kind(service, registration, raw.as_ref()).await?;
            let batch = shared.registering(
                service,
                registration,
                &token,
                Found { settings, raw, before, known, other },
            );
            let beside = match beside().await {
                Ok(beside) => beside,
                Err(RegistryError::Store(error)) => {
                    patience.bear(&*shared.timer, error).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match shared.store.apply(beside.with(batch)).await {
                Ok(applied) if applied.succeeded => {
                    return shared.registered(registration, token, applied.revision, is_new).await;
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*shared.timer, error).await?,
            }
        }
    }

    /// Whether [`register`](Registry::register) would be refused now; writes nothing.
    ///
    /// # Errors
    ///
    /// As [`register`](Registry::register).
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn may_register(
        &self,
        service: &ServiceRef,
        registration: &Registration,
    ) -> Result<(), RegistryError> {
        let shared = &*self.shared;
        service_name_fits(&service.name)?;
        let at = service.instance(&registration.id);
        let settings = shared.store.get(Get::new(service.settings())).await?.entry;
        let before = shared.store.get(Get::new(at.key())).await?.entry;
        let written = before.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision);
        shared.is_as_read(&at, registration.expected, written, false).await?;
        shared.has_room(service, before.is_none())?;
        let raw = read_settings(service, settings.as_ref())?;
        shared.is_of_its_kind(service, registration, raw.as_ref()).await.map(drop)
    }

    /// Removes an instance at once; it is never held back. It goes by itself, or `by` somebody:
    /// then it is recorded.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; calling again does no harm.
    pub async fn deregister(
        &self,
        at: &InstanceRef,
        by: Option<&Author>,
    ) -> Result<Written, RegistryError> {
        let removed = self.shared.remove(at, deregistering(None, by.map(Terms::from))).await?;
        removed.ok_or_else(|| RegistryError::InstanceNotFound { instance: at.clone() })
    }

    /// The same of the instance as it was registered under the id `registration`: whoever registered
    /// it anew meanwhile, maybe somebody else, keeps it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::RegistrationGone`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn withdraw(
        &self,
        at: &InstanceRef,
        registration: &str,
        by: Option<&Author>,
    ) -> Result<Written, RegistryError> {
        let by = by.map(Terms::from);
        let removed = self.shared.remove(at, deregistering(Some(registration), by)).await?;
        removed.ok_or_else(|| RegistryError::RegistrationGone {
            instance: at.clone(),
            registration: registration.to_owned(),
        })
    }

    /// The same on `terms`: by somebody, who may only want to see what would happen, or that nothing
    /// has moved.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], [`RegistryError::InstanceChanged`],
    /// [`RegistryError::RegistrationGone`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn remove(
        &self,
        at: &InstanceRef,
        registration: Option<&str>,
        terms: Terms<'_>,
    ) -> Result<Written, RegistryError> {
        let removed = self.shared.remove(at, deregistering(registration, Some(terms))).await?;
        removed.ok_or_else(|| match registration {
            None => RegistryError::InstanceNotFound { instance: at.clone() },
            Some(registration) => RegistryError::RegistrationGone {
                instance: at.clone(),
                registration: registration.to_owned(),
            },
        })
    }

    /// Takes an instance out of use over `seconds` (0 to 3,600): it gets no new calls, then it is
    /// removed; a persistent one is taken down.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], [`RegistryError::Invalid`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn drain<'a>(
        &self,
        at: &InstanceRef,
        seconds: u32,
        terms: impl Into<Terms<'a>>,
    ) -> Result<Written, RegistryError> {
        if seconds > DRAIN_SECONDS_MAX {
            return Err(Invalid::new("seconds", "must be 0 to 3600").into());
        }
        let deed = Deed { action: "instance:drain", terms: terms.into() };
        self.shared
            .edit(at, Some(deed), |record| {
                record.state = State::Draining;
                record.drain_seconds = Some(seconds);
                true
            })
            .await
    }

    /// Puts an instance that drains, starts, or is down to use. Maintenance is ended as well.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn bring_up<'a>(
        &self,
        at: &InstanceRef,
        terms: impl Into<Terms<'a>>,
    ) -> Result<Written, RegistryError> {
        let deed = Deed { action: "instance:enable", terms: terms.into() };
        self.shared
            .edit(at, Some(deed), |record| {
                record.state = State::Up;
                (record.drain_seconds, record.maintenance) = (None, None);
                true
            })
            .await
    }

    /// Takes an instance into maintenance for `reason`: it is down, and counts as critical.
    /// [`bring_up`](Registry::bring_up) ends it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], [`RegistryError::Invalid`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn maintain<'a>(
        &self,
        at: &InstanceRef,
        reason: &str,
        terms: impl Into<Terms<'a>>,
    ) -> Result<Written, RegistryError> {
        if reason.len() > TEXT_BYTES_MAX {
            return Err(Invalid::new("reason", "must be at most 512 bytes").into());
        }
        let deed = Deed { action: "instance:maintenance", terms: terms.into() };
        self.shared
            .edit(at, Some(deed), |record| {
                record.state = State::Down;
                record.drain_seconds = None;
                record.maintenance = Some(reason.to_owned());
                true
            })
            .await
    }

    /// Sets an instance's share of the calls.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn weigh<'a>(
        &self,
        at: &InstanceRef,
        weight: u16,
        terms: impl Into<Terms<'a>>,
    ) -> Result<Written, RegistryError> {
        let set = |record: &mut Instance| {
            record.weight = weight;
            true
        };
        let deed = Deed { action: "instance:weight", terms: terms.into() };
        self.shared.edit(at, Some(deed), set).await
    }
}

/// What a registration found.
struct Found {
    settings: Option<Entry>,
    raw: Option<RawSettings>,
    before: Option<Entry>,
    known: Option<Instance>,
    /// The service is of the other kind, and has no instances.
    other: bool,
}

impl Shared {
    fn registering(
        &self,
        service: &ServiceRef,
        registration: &Registration,
        token: &str,
        found: Found,
    ) -> Batch {
        let Found { settings, raw, before, known, other } = found;
        let at = service.instance(&registration.id);
        let revision = |entry: &Option<Entry>| {
            entry.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision)
        };
        let resolved = raw.clone().and_then(|raw| Settings::stored(raw, self.options.shares).ok());
        let resolved = resolved.unwrap_or_else(|| Settings::absent(self.options.shares));
        let node = self.options.node.as_str();
        let unix_ms = self.timer.unix_millis();
        let record = registration.record(node, token, unix_ms, &resolved, known.as_ref());
        let mut batch = Batch::new()
            .when(Compare::unchanged_since(&service.settings(), revision(&settings)))
            .when(Compare::unchanged_since(&at.key(), revision(&before)));
        if other {
            batch = batch.when(nothing_in(service.instances()));
        }
        if other || settings.is_none() {
            let kind = RawSettings::of_kind(registration.kind());
            let value = match raw {
                Some(raw) => raw.over(&kind),
                None => kind,
            };
            batch = batch.then(Put::new(service.settings(), value.write()));
        }
        batch.then(Put::new(at.key(), record.write()))
    }

    /// Whether the service, whose settings are `raw`, is of the kind of `registration` already;
    /// refused when it is of the other, and has instances.
    async fn is_of_its_kind(
        &self,
        service: &ServiceRef,
        registration: &Registration,
        raw: Option<&RawSettings>,
    ) -> Result<bool, RegistryError> {
        let Some(raw) = raw.filter(|raw| raw.kind != registration.kind()) else { return Ok(true) };
        if self.count(service).await? > 0 {
            let (service, kind) = (service.clone(), raw.kind);
            return Err(RegistryError::KindConflict { service, kind });
        }
        Ok(false)
    }

    async fn registered(
        &self,
        registration: &Registration,
        token: String,
        revision: Revision,
        is_new: bool,
    ) -> Result<Registered, RegistryError> {
        self.applied(RegistryArea::Instances, revision).await;
        let ttl_seconds = registration.ttl_seconds();
        let beat_every_seconds = (ttl_seconds / 3).max(1);
        Ok(Registered { revision, registration: token, is_new, ttl_seconds, beat_every_seconds })
    }

    /// Whether another instance may come. Told by the copy, so that several nodes at once may
    /// exceed the limit by what is under way.
    fn has_room(&self, service: &ServiceRef, is_new: bool) -> Result<(), RegistryError> {
        let (of_service, of_all) = self.loaded()?.copy.counts(service);
        if is_new && SERVICE_INSTANCES_MAX <= of_service {
            let what = format!("service {service}");
            return Err(RegistryError::Full { what, max: SERVICE_INSTANCES_MAX });
        }
        if is_new && INSTANCES_MAX <= of_all {
            let what = "the registry".to_owned();
            return Err(RegistryError::Full { what, max: INSTANCES_MAX });
        }
        Ok(())
    }

    /// What holds for a service, as the store has it; `None` when it cannot be read.
    pub(super) async fn stored_settings(
        &self,
        service: &ServiceRef,
    ) -> Result<Option<Settings>, RegistryError> {
        let shares = self.options.shares;
        let Some(entry) = self.store.get(Get::new(service.settings())).await?.entry else {
            return Ok(Some(Settings::absent(shares)));
        };
        let raw = RawSettings::read(&entry.value);
        Ok(raw.and_then(|raw| Settings::stored(raw, shares).ok()))
    }

    pub(super) async fn count(&self, service: &ServiceRef) -> Result<u64, RegistryError> {
        let request = RangeRequest::new(Select::new(service.instances()).count_only());
        Ok(self.store.range(request).await?.count)
    }

    pub(super) async fn written(
        &self,
        area: RegistryArea,
        revision: Revision,
    ) -> Result<Written, RegistryError> {
        self.applied(area, revision).await;
        Ok(Written::at(revision))
    }
}

/// What somebody asks for who says that an instance is gone.
fn deregistering<'a>(registration: Option<&'a str>, by: Option<Terms<'a>>) -> Removal<'a> {
    Removal {
        reason: GoneReason::Deregistered,
        registration,
        decided: None,
        mark: None,
        by: by.map(|terms| Deed { action: "instance:deregister", terms }),
    }
}

/// Holds when there is no key in `range`.
fn nothing_in(range: Range) -> Compare {
    let target = Target::CreateRevision(Revision::NEVER);
    Compare { range, target, operator: Operator::Equal }
}

fn read_settings(
    service: &ServiceRef,
    entry: Option<&Entry>,
) -> Result<Option<RawSettings>, RegistryError> {
    let Some(entry) = entry else { return Ok(None) };
    let unreadable = || RegistryError::Unreadable { what: format!("service {service}") };
    RawSettings::read(&entry.value).map(Some).ok_or_else(unreadable)
}

/// A name of 128 bytes is a name, but not one of a service: 127 is what the limits say, two DNS
/// labels and a dot.
fn service_name_fits(name: &ServiceName) -> Result<(), Invalid> {
    if name.as_str().len() <= 127 {
        return Ok(());
    }
    Err(Invalid::new("service", "must be at most 127 bytes"))
}
