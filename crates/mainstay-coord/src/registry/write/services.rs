//! Settings of a service, and its end.

use mainstay_store::{Batch, Compare, Get, Op, Put, Revision};
use serde_json::{Value, json};

use super::deed::{Before, Deed};
use super::{Written, nothing_in, read_settings, service_name_fits};
use crate::audit::Author;
use crate::keys::{RegistryArea, ServiceRef};
use crate::patience::Patience;
use crate::registry::service::Settings;
use crate::registry::{Registry, RegistryError};
use crate::terms::Terms;

impl Registry {
    /// Sets what holds for a service. `expected` is the revision the caller had read
    /// ([`Revision::NEVER`] when there was none); `None` overwrites whatever is there.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Changed`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn set_settings(
        &self,
        service: &ServiceRef,
        settings: &Settings,
        expected: Option<Revision>,
        author: &Author,
    ) -> Result<Written, RegistryError> {
        let shared = &*self.shared;
        service_name_fits(&service.name)?;
        shared.outbox.admit(author)?;
        let deed = Deed { action: "service:settings", terms: author.into() };
        let mut patience = Patience::new(shared.now(), Patience::FOR_CALLERS);
        loop {
            let (found, read_at) = match shared.store.get(Get::new(service.settings())).await {
                Ok(got) => (got.entry, got.revision),
                Err(error) => {
                    patience.bear(&*shared.timer, error).await?;
                    continue;
                }
            };
            let at = found.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision);
            let before = read_settings(service, found.as_ref())?;
            let was = before.as_ref().map_or(Value::Null, |before| json!(before));
            let raw = settings.raw().clone().over(&before.unwrap_or_default());
            let value = raw.write();
            if let Some(entry) = found.filter(|entry| *entry.value == *value) {
                return shared.written(RegistryArea::Settings, entry.mod_revision).await;
            }
            if let Some(expected) = expected.filter(|expected| *expected != at) {
                let service = service.clone();
                return Err(RegistryError::Changed { service, expected, found: at });
            }
            let ground = Before { written: at, read_at };
            let target = ("service", service.to_string());
            let batch = Batch::new()
                .when(Compare::unchanged_since(&service.settings(), at))
                .then(Put::new(service.settings(), value))
                .then(deed.told(shared, target, ground, (was, json!(raw))));
            match shared.store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    return shared.written(RegistryArea::Settings, applied.revision).await;
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*shared.timer, error).await?,
            }
        }
    }

    /// Deletes a service that has no instances. What the terms expect is a revision of its settings.
    ///
    /// # Errors
    ///
    /// [`RegistryError::ServiceInUse`], [`RegistryError::ServiceNotFound`],
    /// [`RegistryError::Changed`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn delete_service<'a>(
        &self,
        service: &ServiceRef,
        terms: impl Into<Terms<'a>>,
    ) -> Result<Written, RegistryError> {
        let (shared, terms) = (&*self.shared, terms.into());
        shared.outbox.admit(terms.author)?;
        let deed = Deed { action: "service:remove", terms };
        let mut patience = Patience::new(shared.now(), Patience::FOR_CALLERS);
        loop {
            let got = match shared.store.get(Get::new(service.settings())).await {
                Ok(got) => got,
                Err(error) => {
                    patience.bear(&*shared.timer, error).await?;
                    continue;
                }
            };
            let Some(entry) = got.entry else {
                if patience.is_uncertain() {
                    return Ok(Written::at(got.revision));
                }
                return Err(RegistryError::ServiceNotFound { service: service.clone() });
            };
            let was = json!(read_settings(service, Some(&entry))?);
            let found = entry.mod_revision;
            if let Some(expected) = terms.expected.filter(|expected| *expected != found) {
                return Err(RegistryError::Changed { service: service.clone(), expected, found });
            }
            if terms.dry_run {
                return match shared.count(service).await? {
                    0 => Ok(Written::tried(found, (was, Value::Null))),
                    instances => {
                        let service = service.clone();
                        Err(RegistryError::ServiceInUse { service, instances })
                    }
                };
            }
            let ground = Before { written: found, read_at: got.revision };
            let target = ("service", service.to_string());
            let batch = Batch::new()
                .when(nothing_in(service.instances()))
                .when(Compare::unchanged_since(&service.settings(), found))
                .then(Op::delete(&service.settings()))
                .then(Op::delete(&service.gone()))
                .then(deed.told(shared, target, ground, (was, Value::Null)));
            match shared.store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    return shared.written(RegistryArea::Settings, applied.revision).await;
                }
                Ok(_refused) => match shared.count(service).await? {
                    0 => {}
                    instances => {
                        let service = service.clone();
                        return Err(RegistryError::ServiceInUse { service, instances });
                    }
                },
                Err(error) => patience.bear(&*shared.timer, error).await?,
            }
        }
    }
}
