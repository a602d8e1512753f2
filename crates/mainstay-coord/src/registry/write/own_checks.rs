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
        let mut is_full = false;
        let put = |record: &mut Instance| {
            is_full = !record.take_in(new, unix_ms);
            !is_full
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

impl Instance {
    /// Takes in a check: one of the same name is replaced, and goes on standing as it stood.
    /// `false` when there is no room.
    fn take_in(&mut self, new: &NewCheck, unix_ms: u64) -> bool {
        let (id, is_full) = (&new.check.id, CHECKS_MAX <= self.own_checks.len());
        match self.own_checks.iter_mut().find(|check| check.id == *id) {
            Some(known) => *known = new.check.clone(),
            None if is_full => return false,
            None => {
                self.own_checks.push(new.check.clone());
                self.checks.insert(id.clone(), new.status(unix_ms));
            }
        }
        true
    }

    /// The same of one that stands as it is said to.
    pub(super) fn say(&mut self, new: &NewCheck, unix_ms: u64) -> Result<(), Invalid> {
        if !self.take_in(new, unix_ms) {
            return Err(Invalid::new("checks", "must be at most 16"));
        }
        let known = self.checks.get(&new.check.id).filter(|status| status.health == new.health);
        let since = known.map_or(unix_ms, |status| status.changed_unix_ms);
        self.checks.insert(new.check.id.clone(), new.status(since));
        Ok(())
    }
}
