//! What others say of an instance: its own reports of ttl checks, and callers' observations.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Batch, Compare, Error, Put};

use crate::health::Health;
use crate::keys::{InstanceRef, RegistryArea};
use crate::name::Reporter;
use crate::registry::instance::{CheckStatus, Instance};
use crate::registry::local::checks;
use crate::registry::observation::{Observation, REPORTERS_MAX};
use crate::registry::owned::Stands;
use crate::registry::shared::Shared;
use crate::registry::{Registry, RegistryError};

use super::TEXT_BYTES_MAX;

/// How long a caller's report counts.
const OBSERVED_FOR: Duration = Duration::from_secs(30);

impl Registry {
    /// Takes a report of a ttl check. Its output is written when the status changes, else at most
    /// every 30 s; one that says what the last one said writes nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError::CheckNotFound`], [`RegistryError::InstanceNotFound`], or what the store
    /// said.
    ///
    /// # Cancel safety
    ///
    /// As [`deregister`](Registry::deregister).
    pub async fn report(
        &self,
        at: &InstanceRef,
        check: &str,
        health: Health,
        output: &str,
    ) -> Result<(), RegistryError> {
        let shared = &*self.shared;
        let known = {
            let mut local = shared.loaded()?;
            let said = Stands { health, output: output.to_owned() };
            let known = local.owned.report(shared.now(), at, (check, said));
            if known.is_none() && !shared.known(&local, at)? {
                return Err(RegistryError::InstanceNotFound { instance: at.clone() });
            }
            let (settings, _) = local.copy.settings(&at.service);
            let record = local.copy.instance(at).map(|(record, _)| Arc::clone(record));
            let checks = match &record {
                Some(record) => checks(&settings, record),
                None => settings.checks().into(),
            };
            if !checks.iter().any(|known| !known.kind.is_active() && known.name == check) {
                return Err(RegistryError::CheckNotFound {
                    instance: at.clone(),
                    check: check.to_owned(),
                });
            }
            known
        };
        if known.is_some_and(|reported| !reported.is_news) {
            return Ok(());
        }
        shared.set_check(at, (check, health, output), true).await
    }

    /// Takes a caller's report that `at` fails its calls. `callers` is how many callers there are as
    /// far as it knows; those who follow the service at this node count as well. It counts for 30 s;
    /// sent again within them it only lives longer.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: sending it again does no harm.
    pub async fn observe(
        &self,
        at: &InstanceRef,
        reporter: &Reporter,
        callers: u32,
        why: &str,
    ) -> Result<(), RegistryError> {
        let shared = &*self.shared;
        let (lease, callers) = {
            let local = shared.loaded()?;
            if !shared.known(&local, at)? {
                return Err(RegistryError::InstanceNotFound { instance: at.clone() });
            }
            // The key may have been put by another node since: what holds is the lease it has now.
            let lease = local.copy.observed_by(at, reporter);
            if lease.is_none() && REPORTERS_MAX <= local.copy.reporters(at) {
                return Ok(());
            }
            let followers = local.followers(&at.service);
            (lease, callers.max(u32::try_from(followers).unwrap_or(u32::MAX)))
        };
        if let Some(lease) = lease {
            match shared.store.keep_alive(lease).await {
                Ok(_ttl) => return Ok(()),
                Err(Error::LeaseNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let lease = shared.store.grant(OBSERVED_FOR, None).await?.id;
        let mut why = why.to_owned();
        why.truncate(why.floor_char_boundary(TEXT_BYTES_MAX));
        let observation = Observation::new(callers, why, shared.timer.unix_millis());
        let put = Put::new(at.observation(reporter), observation.write()).lease(lease);
        let batch = Batch::new().when(Compare::present(&at.key())).then(put);
        let applied = shared.store.apply(batch).await?;
        if applied.succeeded {
            shared.applied(RegistryArea::Observations, applied.revision).await;
        }
        Ok(())
    }
}

impl Shared {
    /// A check of an instance came to a result; `takes_over` when it was told to this node, not
    /// found out by it.
    pub(in crate::registry) async fn set_check(
        &self,
        at: &InstanceRef,
        (check, health, output): (&str, Health, &str),
        takes_over: bool,
    ) -> Result<(), RegistryError> {
        let unix_ms = self.timer.unix_millis();
        let node = self.options.node.as_str();
        let change = |record: &mut Instance| {
            if !takes_over && *record.owner != *node {
                return false;
            }
            node.clone_into(&mut record.owner);
            let status = record.checks.entry(check.to_owned()).or_insert_with(|| CheckStatus {
                health,
                output: String::new(),
                changed_unix_ms: unix_ms,
            });
            if status.health != health {
                (status.health, status.changed_unix_ms) = (health, unix_ms);
            }
            output.clone_into(&mut status.output);
            true
        };
        self.edit(at, None, change).await.map(drop)
    }
}
