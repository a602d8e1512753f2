//! Checks of one instance alone.

use crate::health::check::CHECKS_MAX;
use crate::keys::InstanceRef;
use crate::registry::instance::Instance;
use crate::registry::{Invalid, NewCheck, Registry, RegistryError, Written};

impl Registry {
    /// Has one more check done of an instance. One of the same name is replaced, and goes on
    /// standing as it stood.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], [`RegistryError::Invalid`] above 16 checks, or what the
    /// store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn put_check(
        &self,
        at: &InstanceRef,
        new: &NewCheck,
    ) -> Result<Written, RegistryError> {
        let shared = &*self.shared;
        let unix_ms = shared.timer.unix_millis();
        let id = &new.check.id;
        let mut is_full = false;
        let put = |record: &mut Instance| {
            match record.own_checks.iter_mut().find(|check| check.id == *id) {
                Some(known) => *known = new.check.clone(),
                None => {
                    is_full = CHECKS_MAX <= record.own_checks.len();
                    if is_full {
                        return false;
                    }
                    record.own_checks.push(new.check.clone());
                    record.checks.insert(id.clone(), new.status(unix_ms));
                }
            }
            true
        };
        let written = shared.edit(at, None, put).await?;
        if is_full {
            return Err(Invalid::new("checks", "must be at most 16").into());
        }
        Ok(written)
    }

    /// Has a check of an instance done no longer; `false` when there was none of this name.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn drop_check(&self, at: &InstanceRef, id: &str) -> Result<bool, RegistryError> {
        let mut was_there = false;
        let drop = |record: &mut Instance| {
            was_there = record.own_checks.iter().any(|check| check.id == id);
            record.own_checks.retain(|check| check.id != id);
            if was_there {
                record.checks.remove(id);
            }
            was_there
        };
        self.shared.edit(at, None, drop).await?;
        Ok(was_there)
    }

    /// Sets how a check of an instance stands that nobody here finds out: whoever registered it
    /// says so.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn say_check(&self, at: &InstanceRef, new: &NewCheck) -> Result<(), RegistryError> {
        self.put_check(at, new).await?;
        self.shared.set_check(at, (&new.check.id, new.health, &new.output), true).await
    }
}
