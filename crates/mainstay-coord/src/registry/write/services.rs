//! Settings of a service, and its end.

use mainstay_store::{Batch, Compare, Get, Op, Put, Revision};

use super::{Written, nothing_in, read_settings, service_name_fits};
use crate::keys::{RegistryArea, ServiceRef};
use crate::patience::Patience;
use crate::registry::service::Settings;
use crate::registry::{Registry, RegistryError};

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
    ) -> Result<Written, RegistryError> {
        let shared = &*self.shared;
        service_name_fits(&service.name)?;
        let mut patience = Patience::new(shared.now(), Patience::FOR_CALLERS);
        loop {
            let found = match shared.store.get(Get::new(service.settings())).await {
                Ok(got) => got.entry,
                Err(error) => {
                    patience.bear(&*shared.timer, error).await?;
                    continue;
                }
            };
            let at = found.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision);
            let before = read_settings(service, found.as_ref())?.unwrap_or_default();
            let value = settings.raw().clone().over(&before).write();
            if let Some(entry) = found.filter(|entry| *entry.value == *value) {
                return shared.written(RegistryArea::Settings, entry.mod_revision).await;
            }
            if let Some(expected) = expected.filter(|expected| *expected != at) {
                let service = service.clone();
                return Err(RegistryError::Changed { service, expected, found: at });
            }
            let batch = Batch::new()
                .when(Compare::unchanged_since(&service.settings(), at))
                .then(Put::new(service.settings(), value));
            match shared.store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    return shared.written(RegistryArea::Settings, applied.revision).await;
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*shared.timer, error).await?,
            }
        }
    }

    /// Deletes a service that has no instances.
    ///
    /// # Errors
    ///
    /// [`RegistryError::ServiceInUse`], [`RegistryError::ServiceNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn delete_service(&self, service: &ServiceRef) -> Result<Written, RegistryError> {
        let shared = &*self.shared;
        let mut patience = Patience::new(shared.now(), Patience::FOR_CALLERS);
        loop {
            let batch = Batch::new()
                .when(nothing_in(service.instances()))
                .when(Compare::present(&service.settings()))
                .then(Op::delete(&service.settings()))
                .then(Op::delete(&service.gone()));
            match shared.store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    return shared.written(RegistryArea::Settings, applied.revision).await;
                }
                Ok(refused) => {
                    let instances = shared.count(service).await?;
                    let service = service.clone();
                    return match instances {
                        0 if patience.is_uncertain() => Ok(Written { revision: refused.revision }),
                        0 => Err(RegistryError::ServiceNotFound { service }),
                        _ => Err(RegistryError::ServiceInUse { service, instances }),
                    };
                }
                Err(error) => patience.bear(&*shared.timer, error).await?,
            }
        }
    }
}
