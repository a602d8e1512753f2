//! Writes that are made together with a registration, or not at all.

use mainstay_store::{Batch, Compare, Get, Op, Put};

use super::edit::read_instance;
use crate::keys::{InstanceRef, RegistryArea};
use crate::patience::Patience;
use crate::registry::instance::{Gone, GoneReason, Instance};
use crate::registry::{NewCheck, Registry, RegistryError};

/// What else a batch writes, each on top of what was read for it.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    when: Vec<Compare>,
    then: Vec<Op>,
}

impl Beside {
    pub(crate) fn one(compare: Compare, op: impl Into<Op>) -> Self {
        Self { when: vec![compare], then: vec![op.into()] }
    }

    /// This and `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.when.extend(other.when);
        self.then.extend(other.then);
        self
    }

    pub(super) fn with(self, batch: Batch) -> Batch {
        let batch = self.when.into_iter().fold(batch, Batch::when);
        self.then.into_iter().fold(batch, Batch::then)
    }
}

impl Registry {
    /// What says how checks of an instance stand that nobody here finds out, as
    /// [`say_check`](Registry::say_check) does.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], [`RegistryError::Invalid`] above 16 checks, or what the
    /// store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn plan_checks(
        &self,
        at: &InstanceRef,
        said: &[NewCheck],
    ) -> Result<Beside, RegistryError> {
        let shared = &*self.shared;
        let (before, ground) = read_instance(at, shared.store.get(Get::new(at.key())).await?)?;
        let mut after = before.clone();
        let unix_ms = shared.timer.unix_millis();
        for new in said {
            after.say(new, unix_ms)?;
        }
        shared.options.node.as_str().clone_into(&mut after.owner);
        after.settle(unix_ms);
        if after == before {
            return Ok(Beside::default());
        }
        let compare = Compare::unchanged_since(&at.key(), ground.written);
        Ok(Beside::one(compare, Put::new(at.key(), after.write())))
    }

    /// What removes an instance, as [`deregister`](Registry::deregister) does; nothing when it is
    /// gone.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn plan_removal(&self, at: &InstanceRef) -> Result<Beside, RegistryError> {
        let shared = &*self.shared;
        let Some(entry) = shared.store.get(Get::new(at.key())).await?.entry else {
            return Ok(Beside::default());
        };
        let zone = Instance::read(&entry.value).map(|record| record.zone).unwrap_or_default();
        let (id, reason) = (at.id.as_str().to_owned(), GoneReason::Deregistered);
        let gone = Gone::new(id, zone, reason, shared.timer.unix_millis());
        let compare = Compare::unchanged_since(&at.key(), entry.mod_revision);
        let mut beside = Beside::one(compare, Put::new(at.service.gone(), gone.write()));
        beside.then.push(Op::delete(&at.key()));
        Ok(beside)
    }

    /// Writes what `plan` says, all or nothing; it is asked again when somebody else was quicker.
    ///
    /// # Errors
    ///
    /// What `plan` or the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; calling again does no harm.
    pub async fn write_planned<F>(&self, plan: impl Fn() -> F) -> Result<(), RegistryError>
    where
        F: Future<Output = Result<Beside, RegistryError>>,
    {
        let shared = &*self.shared;
        let mut patience = Patience::new(shared.now(), Patience::FOR_CALLERS);
        loop {
            let beside = match plan().await {
                Ok(beside) => beside,
                Err(RegistryError::Store(error)) => {
                    patience.bear(&*shared.timer, error).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if beside.then.is_empty() {
                return Ok(());
            }
            match shared.store.apply(beside.with(Batch::new())).await {
                Ok(applied) if applied.succeeded => {
                    shared.written(RegistryArea::Instances, applied.revision).await?;
                    return Ok(());
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*shared.timer, error).await?,
            }
        }
    }
}
