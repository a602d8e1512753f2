//! What of a store outlives a restore, and filling another store with it.
//!
//! What belongs to a living process is left out: the process comes back and registers, stands in
//! line, opens a session anew. Restored, it would be a promise nobody keeps. Everything else is
//! restored, with leases of full ttl.
//!
//! On a backend whose revisions go on above the old ones (embedded) nothing else is to be done. On
//! one where they begin anew (etcd) a [`Filling`] raises what is added to fencing tokens, so that
//! those go on above all that were ever given.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_store::hash::{Hashed, Hasher, Take};
use mainstay_store::limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, OPERATIONS_MAX};
use mainstay_store::{
    Batch, Compare, Entry, Error, LeaseId, Put, Range, RangeRequest, Revision, Select,
    SnapshotItem, Store,
};

use crate::format::FORMAT;
use crate::keys::{self, RegistryKey};
use crate::lock;
use crate::registry::instance::{Instance, Kind};

/// What fencing tokens leap by where revisions begin anew: no store writes a thousand million
/// revisions after its last backup without taking another.
pub const LEAP: u64 = 1_000_000_000;

/// Whether `entry` is restored.
///
/// Not so: sessions and the places they hold or wait for (those bound to a transaction stay, with
/// the token written in them), ephemeral instances and what callers saw of instances, processes of
/// Mainstay and which clients they serve; which keys they had, which the first node says anew; how far
/// logs of audit records were, and what they have, which they say themselves.
pub fn outlives(entry: &Entry) -> bool {
    let key = &entry.key;
    if keys::parse_slot(key).is_some() {
        return lock::is_bound(entry);
    }
    let is_of_a_log =
        [keys::audit_heads(), keys::audit_all_logged()].iter().any(|all| all.contains(key))
            || *key == keys::audit_holder();
    if keys::sessions().contains(key) || keys::holds().contains(key) || *key == keys::keyring() {
        return false;
    }
    if is_of_a_log {
        return false;
    }
    match keys::parse_registry(key) {
        Some(RegistryKey::Instance(_)) => {
            // One that cannot be read is not ours to judge.
            Instance::read(&entry.value).is_none_or(|instance| instance.kind == Kind::Persistent)
        }
        Some(RegistryKey::Observation(..) | RegistryKey::Node(_)) => false,
        Some(RegistryKey::Settings(_) | RegistryKey::Gone(_)) | None => true,
    }
}

/// Whether `entry` is content: what a copy has to agree in. What a store says of itself, and what
/// ends with a lease, need not be equal.
fn is_content(entry: &Entry) -> bool {
    entry.lease.is_none() && !keys::meta().contains(&entry.key)
}

/// Why a store was not filled. It says no format, so no node uses it.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is something in it.
    #[error("the store to be filled holds {keys} keys")]
    NotEmpty {
        /// How many.
        keys: u64,
    },
    /// It could not be read or written.
    #[error("the store cannot be filled")]
    Store(#[from] Error),
    /// Somebody else wrote into it meanwhile.
    #[error("the store was written to by somebody else while it was filled")]
    Disturbed,
    /// It does not hold what was put there.
    #[error("the store does not hold what was put there: {expected} was, {found} is")]
    Differs {
        /// Hash of what was put.
        expected: String,
        /// Hash of what is there.
        found: String,
    },
}

/// What was put into a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Entries put.
    pub entries: u64,
    /// Entries that were left out.
    pub left_out: u64,
    /// Leases granted.
    pub leases: u64,
    /// What is added to every fencing token now.
    pub fence_base: u64,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
}

/// An empty store that is being filled from a snapshot.
pub struct Filling<'a> {
    store: &'a dyn Store,
    leases: BTreeMap<LeaseId, Duration>,
    /// Entries that hang on leases: put last, so that no lease ends while the rest is written.
    leased: Vec<Entry>,
    batch: Batch,
    hasher: Hasher,
    fence_base: u64,
    entries: u64,
    left_out: u64,
}

impl<'a> Filling<'a> {
    /// Begins to fill `store`.
    ///
    /// # Errors
    ///
    /// [`TransferError::NotEmpty`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn begin(store: &'a dyn Store) -> Result<Self, TransferError> {
        match count(store).await? {
            0 => Ok(Self {
                store,
                leases: BTreeMap::new(),
                leased: Vec::new(),
                batch: guarded(),
                hasher: Hasher::new(Take::Content),
                fence_base: 0,
                entries: 0,
                left_out: 0,
            }),
            keys => Err(TransferError::NotEmpty { keys }),
        }
    }

    /// Puts the next part of a snapshot.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    ///
    /// # Cancel safety
    ///
    /// Not safe: what is under way may be put. The store is then of no use.
    pub async fn push(&mut self, item: SnapshotItem) -> Result<(), TransferError> {
        match item {
            SnapshotItem::Lease { id, ttl } => {
                self.leases.insert(id, ttl);
            }
            SnapshotItem::Entry(entry) if entry.key == keys::fence_base() => {
                let text = std::str::from_utf8(&entry.value).unwrap_or_default();
                self.fence_base = text.trim().parse().unwrap_or(0);
            }
            SnapshotItem::Entry(entry) if keys::meta().contains(&entry.key) => {}
            SnapshotItem::Entry(entry) if !outlives(&entry) => self.left_out += 1,
            SnapshotItem::Entry(entry) if entry.lease.is_some() => self.leased.push(entry),
            SnapshotItem::Entry(entry) => {
                self.hasher.feed(&entry);
                self.put(Put::new(entry.key, entry.value)).await?;
            }
        }
        Ok(())
    }

    /// Finishes: raises what is added to fencing tokens above all that a store at `revision` gave,
    /// reads everything back, and only then lets nodes use the store.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    ///
    /// # Cancel safety
    ///
    /// Not safe, as [`push`](Filling::push).
    pub async fn finish(mut self, revision: Revision) -> Result<Filled, TransferError> {
        let fence_base = self.fence_base.saturating_add(revision.get()).saturating_add(LEAP);
        self.put(Put::new(keys::fence_base(), fence_base.to_string())).await?;
        self.flush().await?;
        let expected = self.hasher.clone().finish(revision);
        let found = content(self.store, None).await?;
        if expected.sha256 != found.sha256 {
            let (expected, found) = (hex(&expected.sha256), hex(&found.sha256));
            return Err(TransferError::Differs { expected, found });
        }
        let mut granted = BTreeMap::new();
        for entry in std::mem::take(&mut self.leased) {
            let old = entry.lease.filter(|lease| self.leases.contains_key(lease));
            let Some(old) = old else { continue };
            let lease = match granted.get(&old) {
                Some(lease) => *lease,
                None => {
                    let ttl = self.leases.get(&old).copied().unwrap_or_default();
                    let lease = self.store.grant(ttl, None).await?.id;
                    granted.insert(old, lease);
                    lease
                }
            };
            self.put(Put::new(entry.key, entry.value).lease(lease)).await?;
        }
        self.put(Put::new(keys::format(), FORMAT.to_string())).await?;
        self.flush().await?;
        let Self { entries, left_out, .. } = self;
        let leases = granted.len() as u64;
        Ok(Filled { entries, left_out, leases, fence_base, sha256: hex(&expected.sha256) })
    }

    async fn put(&mut self, put: Put) -> Result<(), TransferError> {
        let bytes = self.batch.bytes() + put.key.len() + put.value.len();
        if OPERATIONS_MAX <= self.batch.then.len() || BATCH_BYTES_MAX - KEY_BYTES_MAX < bytes {
            self.flush().await?;
        }
        self.batch = std::mem::take(&mut self.batch).then(put);
        self.entries += 1;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), TransferError> {
        let batch = std::mem::replace(&mut self.batch, guarded());
        if batch.then.is_empty() {
            return Ok(());
        }
        let applied = self.store.apply(batch).await?;
        if applied.succeeded { Ok(()) } else { Err(TransferError::Disturbed) }
    }
}

impl std::fmt::Debug for Filling<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filling").field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// A batch that is applied only as long as no node has begun to use the store.
fn guarded() -> Batch {
    Batch::new().when(Compare::missing(&keys::format()))
}

async fn count(store: &dyn Store) -> Result<u64, Error> {
    let all = RangeRequest::new(Select::new(Range::all()).count_only());
    Ok(store.range(all).await?.count)
}

/// The hash of what a copy of `store` as of `at`, `None` for the newest, has to agree in.
///
/// # Errors
///
/// Those of [`Store::range`].
///
/// # Cancel safety
///
/// Safe: it only reads.
pub async fn content(store: &dyn Store, at: Option<Revision>) -> Result<Hashed, Error> {
    let mut hasher = Hasher::new(Take::Content);
    let (mut rest, mut at) = (Range::all(), at);
    loop {
        let request = RangeRequest { at, ..RangeRequest::new(Select::new(rest.clone())) };
        let page = store.range(request).await?;
        let revision = *at.get_or_insert(page.revision);
        for entry in page.entries.iter().filter(|entry| is_content(entry) && outlives(entry)) {
            hasher.feed(entry);
        }
        match page.entries.last() {
            Some(last) if page.more => rest = rest.after(&last.key),
            _ => return Ok(hasher.finish(revision)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    crate::random::to_hex(bytes)
}
