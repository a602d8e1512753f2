//! Waiting for the copy: until it has what was asked for, and until it changes.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Batch, Compare, Error, Operator, Range, Revision, Target};

use super::local::Local;
use super::shared::APPLIED_WITHIN;
use super::{Registry, RegistryError, View};
use crate::keys::{RegistryArea, ServiceRef};

/// Longest long poll of a service that may have changed without a revision: its protection ended,
/// or the store is away. Whoever asks for what is newer cannot say whether it knows.
const UNLIKE_WAIT_MAX: Duration = Duration::from_secs(10);

impl Registry {
    /// What a service looks like once it has changed after `index`, or after `wait`, whichever
    /// comes first: a long poll. An `index` above all this node has seen is of another history, or
    /// of a node that is ahead, and is answered at once.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn view_after(
        &self,
        service: &ServiceRef,
        index: Revision,
        wait: Duration,
    ) -> Result<Arc<View>, RegistryError> {
        let shared = &self.shared;
        let (mut views, newest, is_unlike) = {
            let mut local = shared.loaded()?;
            let unix_ms = shared.timer.unix_millis();
            let views = local.subscribe(shared.now(), unix_ms, service, &shared.figures);
            (views, local.copy.newest(), local.is_unlike_its_revision(service))
        };
        let now = Arc::clone(&views.borrow_and_update());
        if index < now.revision || newest < index {
            return Ok(now);
        }
        let wait = if is_unlike { wait.min(UNLIKE_WAIT_MAX) } else { wait };
        let until = shared.now().plus(wait);
        tokio::select! {
            _changed = views.changed() => {}
            () = shared.timer.sleep_until(until) => {}
        }
        let view = Arc::clone(&views.borrow());
        Ok(view)
    }

    /// Waits until this node's copy of `service` is as of `revision` or later.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`] when it is not within 5 s, or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn reached(
        &self,
        service: &ServiceRef,
        revision: Revision,
    ) -> Result<(), RegistryError> {
        let of_service = [RegistryArea::Instances, RegistryArea::Settings];
        let is_there = {
            let local = self.shared.loaded()?;
            of_service.into_iter().all(|area| revision <= local.copy.revision(area))
        };
        // A copy hears nothing of what is written elsewhere, so a lower revision does not say that
        // it is behind.
        if is_there || revision <= self.caught_up(service).await? {
            return Ok(());
        }
        let is_there = self.shared.applied(RegistryArea::Instances, revision).await;
        if is_there { Ok(()) } else { Err(RegistryError::Loading) }
    }

    /// Whether the store, as far as it can be asked within 5 s, has not come to `revision`: whoever
    /// was told of it knows of a history that is no more.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn is_ahead(&self, service: &ServiceRef, revision: Revision) -> bool {
        if revision <= self.shared.local.lock().copy.newest() {
            return false;
        }
        self.caught_up(service).await.is_ok_and(|at| at < revision)
    }

    /// Waits until this node's copy of `service` holds all that the store holds; returns the
    /// revision the store was at. What callers observed of its instances is not waited for.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`] when it does not within 5 s, or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn caught_up(&self, service: &ServiceRef) -> Result<Revision, RegistryError> {
        self.until_none_is_newer(|local| nothing_newer(local, service)).await
    }

    /// How long it takes until this node's copy holds what the store holds at this moment: how far
    /// the watches that feed it lag behind.
    ///
    /// # Errors
    ///
    /// As [`caught_up`](Self::caught_up).
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lag(&self) -> Result<Duration, RegistryError> {
        let began = self.shared.now();
        self.until_none_is_newer(nothing_newer_at_all).await?;
        Ok(self.shared.now().since(began))
    }

    /// Waits until the batch that `nothing_newer` makes of the copy succeeds.
    async fn until_none_is_newer(
        &self,
        nothing_newer: impl Fn(&Local) -> Batch,
    ) -> Result<Revision, RegistryError> {
        let shared = &self.shared;
        let until = shared.now().plus(APPLIED_WITHIN);
        let mut taken = shared.taken.subscribe();
        loop {
            let nothing_newer = nothing_newer(&*shared.loaded()?);
            match shared.store.apply(nothing_newer).await {
                Ok(applied) if applied.succeeded => return Ok(applied.revision),
                // It would have written nothing.
                Ok(_) | Err(Error::OutcomeUnknown) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                biased;
                Ok(()) = taken.changed() => {}
                () = shared.timer.sleep_until(until) => return Err(RegistryError::Loading),
            }
        }
    }
}

/// A batch without operations that succeeds when the store has nothing of `service` that the copy
/// does not have. It is one round trip and brings no records.
///
/// What was written since has a higher revision. An instance that went left a mark in the same
/// revision; a service that went, with its mark and after all its instances, is missing.
fn nothing_newer(local: &Local, service: &ServiceRef) -> Batch {
    let copy = &local.copy;
    let older = |range, area| older(local, range, area);
    let there = |range| {
        let target = Target::CreateRevision(Revision::NEVER);
        Compare { range, target, operator: Operator::NotEqual }
    };
    let (instances, mark) = (service.instances(), Range::key(&service.gone()));
    let settings = Range::key(&service.settings());
    let known = [
        (copy.counts(service).0 > 0, &instances),
        (copy.mark(service) != Revision::NEVER, &mark),
        (copy.settings(service).1 != Revision::NEVER, &settings),
    ];
    let known = known.into_iter().filter(|(is_known, _)| *is_known);
    let batch = known.fold(Batch::new(), |batch, (_, range)| batch.when(there(range.clone())));
    batch
        .when(older(instances.clone(), RegistryArea::Instances))
        .when(older(mark.clone(), RegistryArea::Instances))
        .when(older(settings.clone(), RegistryArea::Settings))
}

/// The same of all services; what went without a mark of its own is not noticed.
fn nothing_newer_at_all(local: &Local) -> Batch {
    let areas = [RegistryArea::Instances, RegistryArea::Settings];
    areas.into_iter().fold(Batch::new(), |batch, area| batch.when(older(local, area.range(), area)))
}

/// Nothing in `range` was written after what the copy has of `area`.
fn older(local: &Local, range: Range, area: RegistryArea) -> Compare {
    let target = Target::ModRevision(local.copy.revision(area).next());
    Compare { range, target, operator: Operator::Less }
}
