//! Changing and removing one instance.

use mainstay_store::{Batch, Compare, Get, Got, Op, Put, Revision};
use serde_json::Value;

use super::Written;
use super::deed::{Before, Deed, shown};
use crate::keys::{InstanceRef, RegistryArea};
use crate::patience::Patience;
use crate::registry::error::RegistryError;
use crate::registry::instance::{Gone, GoneReason, Instance};
use crate::registry::shared::Shared;

/// Which instance is to go.
pub(in crate::registry) struct Removal<'a> {
    pub(in crate::registry) reason: GoneReason,
    /// Only by this registration; by whichever it stands, if `None`.
    pub(in crate::registry) registration: Option<&'a str>,
    /// Only as it was at this revision; whatever it is now, if somebody asked for it.
    pub(in crate::registry) decided: Option<Revision>,
    /// Only if no other went since.
    pub(in crate::registry) mark: Option<Revision>,
    /// Who removes it; `None` where it goes by itself, or by time.
    pub(in crate::registry) by: Option<Deed<'a>>,
}

impl Shared {
    /// Changes the record of an instance; `change` says `false` when it no longer wants to. Nothing
    /// is written when the record is as it should be, so doing it again does no harm. What is done
    /// `by` somebody is recorded in the same batch.
    pub(in crate::registry) async fn edit(
        &self,
        at: &InstanceRef,
        by: Option<Deed<'_>>,
        mut change: impl FnMut(&mut Instance) -> bool,
    ) -> Result<Written, RegistryError> {
        by.map_or(Ok(()), |deed| self.outbox.admit(deed.terms.author))?;
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        // The copy is nearly always right, and spares a read; the compare tells when it is not.
        // Only a record has to say when it was decided.
        let copied = self.loaded()?.copy.instance(at).map(|(record, at)| (record.clone(), at));
        let copied = copied.filter(|_| by.is_none());
        let mut found = copied
            .map(|(record, written)| ((*record).clone(), Before { written, read_at: written }));
        loop {
            let ((before, ground), is_copied) = match found.take() {
                Some(found) => (found, true),
                None => match self.store.get(Get::new(at.key())).await {
                    Ok(got) => (read_instance(at, got)?, false),
                    Err(error) => {
                        patience.bear(&*self.timer, error).await?;
                        continue;
                    }
                },
            };
            let mut after = before.clone();
            let is_wanted = change(&mut after);
            after.settle(self.timer.unix_millis());
            if !is_wanted || after == before {
                // No compare tells here whether the copy is right, so the store is asked.
                if is_copied {
                    continue;
                }
                if let Some(deed) = by {
                    let (expected, uncertain) = (deed.terms.expected, patience.is_uncertain());
                    if !uncertain {
                        self.is_as_read(at, expected, ground.written, uncertain).await?;
                    }
                    if deed.terms.dry_run {
                        let both = (shown(&before), shown(&after));
                        return Ok(Written::tried(ground.written, both));
                    }
                }
                return self.written(RegistryArea::Instances, ground.written).await;
            }
            let mut batch = Batch::new()
                .when(Compare::unchanged_since(&at.key(), ground.written))
                .then(Put::new(at.key(), after.write()));
            if let Some(deed) = by {
                let both = (shown(&before), shown(&after));
                let (expected, uncertain) = (deed.terms.expected, patience.is_uncertain());
                self.is_as_read(at, expected, ground.written, uncertain).await?;
                if deed.terms.dry_run {
                    return Ok(Written::tried(ground.written, both));
                }
                batch = batch.then(deed.told(self, ("instance", at.to_string()), ground, both));
            }
            match self.store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    return self.written(RegistryArea::Instances, applied.revision).await;
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*self.timer, error).await?,
            }
        }
    }

    /// Removes an instance; `None` when it is not there, or changed or another went since that was
    /// decided.
    pub(in crate::registry) async fn remove(
        &self,
        at: &InstanceRef,
        removal: Removal<'_>,
    ) -> Result<Option<Written>, RegistryError> {
        let Removal { reason, registration, decided, mark, by } = removal;
        by.map_or(Ok(()), |deed| self.outbox.admit(deed.terms.author))?;
        let mut registration = registration.map(str::to_owned);
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        loop {
            let got = match self.store.get(Get::new(at.key())).await {
                Ok(got) => got,
                Err(error) => {
                    patience.bear(&*self.timer, error).await?;
                    continue;
                }
            };
            let record = got.entry.as_ref().and_then(|entry| Instance::read(&entry.value));
            let is_other = record.as_ref().is_some_and(|record| {
                registration.as_ref().is_some_and(|wanted| *wanted != record.registration)
            });
            let Some(entry) = got.entry.filter(|_| !is_other) else {
                let by_us = patience.is_uncertain().then_some(Written::at(got.revision));
                return Ok(by_us);
            };
            if decided.is_some_and(|at| at != entry.mod_revision) {
                return Ok(None);
            }
            let zone = record.as_ref().map(|record| record.zone.clone()).unwrap_or_default();
            // Tried again, it is this registration that goes, and none that came since.
            let was = record.as_ref().map_or(Value::Null, shown);
            if let Some(deed) = by {
                let (expected, uncertain) = (deed.terms.expected, patience.is_uncertain());
                self.is_as_read(at, expected, entry.mod_revision, uncertain).await?;
                if deed.terms.dry_run {
                    return Ok(Some(Written::tried(entry.mod_revision, (was, Value::Null))));
                }
            }
            registration = registration.or_else(|| record.map(|record| record.registration));
            let id = at.id.as_str().to_owned();
            let gone = Gone::new(id, zone, reason, self.timer.unix_millis());
            let mut batch =
                Batch::new().when(Compare::unchanged_since(&at.key(), entry.mod_revision));
            if let Some(mark) = mark {
                batch = batch.when(Compare::unchanged_since(&at.service.gone(), mark));
            }
            // The mark comes first, so that whoever counts still counts the one that goes.
            let mut batch =
                batch.then(Put::new(at.service.gone(), gone.write())).then(Op::delete(&at.key()));
            if let Some(deed) = by {
                let ground = Before { written: entry.mod_revision, read_at: got.revision };
                let both = (was, Value::Null);
                batch = batch.then(deed.told(self, ("instance", at.to_string()), ground, both));
            }
            match self.store.apply(batch).await {
                Ok(applied) if applied.succeeded => {
                    return self.written(RegistryArea::Instances, applied.revision).await.map(Some);
                }
                Ok(_beaten) if mark.is_some() => return Ok(None),
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*self.timer, error).await?,
            }
        }
    }

    /// An instance beats: it is not late, and looked after here.
    pub(in crate::registry) async fn is_back(&self, at: &InstanceRef) -> Result<(), RegistryError> {
        let node = self.options.node.as_str();
        let change = |record: &mut Instance| {
            node.clone_into(&mut record.owner);
            record.is_late = false;
            true
        };
        self.edit(at, None, change).await.map(drop)
    }
}

pub(super) fn read_instance(
    at: &InstanceRef,
    got: Got,
) -> Result<(Instance, Before), RegistryError> {
    let missing = || RegistryError::InstanceNotFound { instance: at.clone() };
    let entry = got.entry.ok_or_else(missing)?;
    let unreadable = || RegistryError::Unreadable { what: format!("instance {at}") };
    let record = Instance::read(&entry.value).ok_or_else(unreadable)?;
    Ok((record, Before { written: entry.mod_revision, read_at: got.revision }))
}
