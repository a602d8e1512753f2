//! Handing records over to the log that makes them tamper-evident, and what is agreed about logs.
//!
//! A record is deleted only once the log says that it is durable there. Whoever asks again before
//! that, another process after a crash above all, is handed it again: its id says that it is the
//! same.

use std::num::NonZeroU32;

use bytes::Bytes;
use mainstay_store::limits::{BATCH_BYTES_MAX, OPERATIONS_MAX, PAGE_ENTRIES_MAX};
use mainstay_store::{Batch, Get, Op, Put, Range, RangeRequest, Revision, Select};
use serde::{Deserialize, Serialize};

use super::Outbox;
use super::error::AuditError;
use crate::keys::{self, AuditId};
use crate::patience::Patience;
use crate::registry::listing::list_all;

/// Bytes of the two keys of a record that is moved.
const KEYS_BYTES: usize = 128;

/// A record that no log has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its id.
    pub id: AuditId,
    /// The revision that put it, and the change it tells of.
    pub revision: Revision,
    /// What it says, as JSON.
    pub value: Bytes,
}

/// Which node takes records over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    v: u32,
    /// The node.
    pub node: String,
    /// Where its control port is.
    pub address: String,
}

impl Holder {
    /// `node`, whose control port is at `address`.
    pub const fn new(node: String, address: String) -> Self {
        Self { v: 1, node, address }
    }
}

impl Outbox {
    /// Waits until this node knows of records.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn filled(&self) {
        let mut tally = self.shared.tally.subscribe();
        // The outbox has the sender.
        drop(tally.wait_for(|tally| 0 < tally.records).await);
    }

    /// Up to 10,000 records, in the order in which they were put.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    #[expect(clippy::missing_panics_doc, reason = "10,000 is not zero")]
    pub async fn waiting(&self) -> Result<Vec<Waiting>, AuditError> {
        let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
        let select = Select::new(keys::audit_records()).limit(limit);
        let page = self.shared.store.range(RangeRequest::new(select)).await?;
        let waiting = page.entries.into_iter().filter_map(|entry| {
            let (id, revision) = (keys::parse_audit(&entry.key)?, entry.create_revision);
            Some(Waiting { id, revision, value: entry.value })
        });
        let mut waiting: Vec<Waiting> = waiting.collect();
        waiting.sort_by_key(|waiting| (waiting.revision, waiting.id));
        Ok(waiting)
    }

    /// Deletes records that are durable in the log. With `keep` so many of the newest stay where
    /// every node finds them, whichever one has the log.
    ///
    /// # Errors
    ///
    /// What the store said; some may be deleted.
    ///
    /// # Cancel safety
    ///
    /// Which are deleted is open; calling again does no harm.
    pub async fn taken(&self, taken: &[Waiting], keep: Option<u64>) -> Result<(), AuditError> {
        let mut batch = Batch::new();
        let (mut operations, mut bytes) = (0, 0);
        for waiting in taken {
            let (moved, size) = match keep {
                Some(_) => (2, waiting.value.len() + KEYS_BYTES),
                None => (1, KEYS_BYTES),
            };
            if OPERATIONS_MAX < operations + moved || BATCH_BYTES_MAX < bytes + size {
                self.apply(std::mem::take(&mut batch)).await?;
                (operations, bytes) = (0, 0);
            }
            batch = batch.then(Op::delete(&keys::audit(waiting.id)));
            if keep.is_some() {
                batch = batch.then(Put::new(keys::audit_logged(waiting.id), waiting.value.clone()));
            }
            (operations, bytes) = (operations + moved, bytes + size);
        }
        if 0 < operations {
            self.apply(batch).await?;
        }
        Ok(())
    }

    /// Deletes the oldest of the records that a log has taken over and that were kept, once they are
    /// a tenth more than `keep`.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: one batch does it.
    #[expect(clippy::missing_panics_doc, reason = "10,000 is not zero")]
    pub async fn sweep(&self, keep: u64) -> Result<(), AuditError> {
        let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
        let select = Select::new(keys::audit_all_logged()).limit(limit).keys_only();
        let page = self.shared.store.range(RangeRequest::new(select)).await?;
        if page.count <= keep + keep / 10 {
            return Ok(());
        }
        let excess = usize::try_from(page.count - keep).unwrap_or(usize::MAX);
        let last = page.entries.get(..excess.min(page.entries.len())).and_then(<[_]>::last);
        let Some(last) = last else { return Ok(()) };
        let end = Range::key(&last.key).to().cloned();
        let range = Range::between(keys::audit_all_logged().from().clone(), end);
        self.apply(Batch::new().then(Op::delete_range(range))).await
    }

    /// The oldest of the records that a log has taken over and that were kept.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn kept_from(&self) -> Result<Option<AuditId>, AuditError> {
        let one = Select::new(keys::audit_all_logged()).limit(NonZeroU32::MIN);
        let page = self.shared.store.range(RangeRequest::new(one)).await?;
        Ok(page.entries.first().and_then(|entry| keys::parse_audit(&entry.key)))
    }

    /// Writes down for all nodes which one takes records over.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it is written is open.
    #[expect(clippy::missing_panics_doc, reason = "text is JSON")]
    pub async fn hold(&self, holder: &Holder) -> Result<(), AuditError> {
        let value = serde_json::to_vec(holder).expect("text is JSON");
        self.apply(Batch::new().then(Put::new(keys::audit_holder(), value))).await
    }

    /// Which node takes records over, or did last.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn holder(&self) -> Result<Option<Holder>, AuditError> {
        let entry = self.shared.store.get(Get::new(keys::audit_holder())).await?.entry;
        Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
    }

    /// Keeps the newest head of `log`, which verifiers compare.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it is kept is open.
    pub async fn put_head(&self, log: &str, head: &str) -> Result<(), AuditError> {
        let put = Put::new(keys::audit_head(log), head.as_bytes().to_vec());
        self.apply(Batch::new().then(put)).await
    }

    /// The newest heads that were kept, by log.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn heads(&self) -> Result<Vec<(String, String)>, AuditError> {
        let (_, entries) = list_all(&*self.shared.store, keys::audit_heads()).await?;
        let head = |entry: &mainstay_store::Entry| {
            let text = String::from_utf8(entry.value.to_vec()).ok()?;
            Some((keys::parse_audit_head(&entry.key)?, text))
        };
        Ok(entries.iter().filter_map(head).collect())
    }

    /// Applies what may be applied twice.
    async fn apply(&self, batch: Batch) -> Result<(), AuditError> {
        let timer = &*self.shared.timer;
        let mut patience = Patience::new(timer.now(), Patience::FOR_CALLERS);
        loop {
            match self.shared.store.apply(batch.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => patience.bear(timer, error).await?,
            }
        }
    }
}
