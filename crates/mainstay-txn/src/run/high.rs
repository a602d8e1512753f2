//! How far the log has come, as databases were told: what tells a log that was put back from an old
//! backup.
//!
//! `txn/high` holds a number that grows when something was decided to commit. Databases that take
//! part are told it afterwards. A log that is put back has an older number than they have, and then
//! nothing that it does not know may be taken for something that was never decided. What was begun
//! and not decided needs no number: it is aborted by either log. Revisions of the store do not serve
//! here: putting a backup back raises them.

use std::sync::atomic::Ordering;

use mainstay_store::{Batch, Compare, Error, Get, Put};

use super::{Coordinator, VerbError};
use crate::log::{self, High};

impl Coordinator {
    /// How much of what this node knows no number may cover yet: it grows with each decision to
    /// commit, once that is durable, and with each shard that is taken over.
    pub(crate) fn growth(&self) -> u64 {
        self.shared.growth.load(Ordering::Acquire)
    }

    /// The number of the log.
    ///
    /// # Errors
    ///
    /// [`VerbError`] when the log cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn high(&self) -> Result<u64, VerbError> {
        let entry = self.shared.ports.store.get(Get::new(log::high())).await?.entry;
        Ok(entry.map(|entry| High::read(&entry.value)).transpose()?.unwrap_or_default().sequence)
    }

    /// Makes the number of the log greater than it is, and than `above`; durable when this returns
    /// what it is now. `record` is put by the same batch.
    ///
    /// # Errors
    ///
    /// [`VerbError`]; it may be greater all the same.
    ///
    /// # Cancel safety
    ///
    /// Whether it was raised is open; raising it again does no harm.
    pub(crate) async fn raise_high(
        &self,
        above: u64,
        record: Option<Put>,
    ) -> Result<u64, VerbError> {
        let (store, key) = (&self.shared.ports.store, log::high());
        loop {
            let entry = store.get(Get::new(key.clone())).await?.entry;
            let (now, unchanged) = match &entry {
                Some(entry) => {
                    let unchanged = Compare::unchanged_since(&key, entry.mod_revision);
                    (High::read(&entry.value)?.sequence, unchanged)
                }
                None => (0, Compare::missing(&key)),
            };
            let sequence = now.max(above).saturating_add(1);
            let put = Put::new(key.clone(), High { sequence }.write());
            let mut batch = Batch::new().when(unchanged).then(put);
            if let Some(record) = record.clone() {
                batch = batch.then(record);
            }
            match store.apply(batch).await {
                Ok(applied) if applied.succeeded => return Ok(sequence),
                Ok(_) => {} // Another node was faster.
                // To raise it once more is as good; a record is not written twice.
                Err(Error::OutcomeUnknown) if record.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins nothing, submits nothing and calls no branch from now on, since the log is behind what
    /// databases were told; or does again.
    pub(crate) fn fall_behind(&self, why: Option<String>) {
        *self.shared.behind.write() = why;
    }

    /// Whether nothing is in the way of what begins or is submitted.
    ///
    /// # Errors
    ///
    /// [`VerbError::Behind`], while the log is behind what a database was told.
    pub fn is_up_to_date(&self) -> Result<(), VerbError> {
        match &*self.shared.behind.read() {
            Some(why) => Err(VerbError::Behind { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Whether the log is behind what a database was told.
    pub(crate) fn is_behind(&self) -> bool {
        self.shared.behind.read().is_some()
    }

    /// There is more than a number may cover.
    pub(super) fn grows(&self) {
        self.shared.growth.fetch_add(1, Ordering::AcqRel);
    }
}
