//! Contents: putting them before a release names them, and reading them.
//!
//! A plain content lies under its SHA-256, so that releases share what they have in common. A
//! secret lies sealed under a keyed hash, which tells nobody whether two secrets are the same. In
//! front of either are eight bytes: when it was last put. Whatever is put anew is safe from the
//! sweep for a day, long enough for any release that is about to name it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use mainstay_store::{Batch, Error, Get, Put};
use sha2::{Digest, Sha256};

use super::error::CentreError;
use super::item::Item;
use super::record::{Release, Row};
use super::shared::Shared;
use crate::keyring::{self, KeyringError, Label, Sealed, Secret};
use crate::keys::{GroupRef, blob};
use crate::patience::Patience;
use crate::random;

/// Bytes in front of a content: milliseconds since 1970, big endian.
pub(super) const STAMP_BYTES: usize = 8;

/// Bytes and number of contents put in one batch, below what a batch may have.
const PUT_BYTES_MAX: usize = 1_000_000;
const PUT_OPERATIONS_MAX: usize = 100;

/// Contents read at once.
const READS_MAX: usize = 16;

/// Longest content kept in memory, and most bytes of them: what is pushed to a thousand
/// subscribers is read once.
const KEPT_BYTES_MAX: usize = 65_536;
const KEPT_TOTAL_BYTES_MAX: usize = 8 << 20;

/// What a content, or a schema, is called.
pub(super) fn plain_name(content: &str) -> String {
    random::to_hex(&Sha256::digest(content))
}

/// A data key: it seals the secrets that one release, or one draft, brings.
pub(super) struct DataKey {
    secret: Secret,
    /// Of this key and no other: two tries of one release never share a name.
    salt: String,
    /// Wrapped.
    pub(super) sealed: Sealed,
}

/// What a secret and its data key are bound to.
#[derive(Clone, Copy)]
pub(super) struct SecretAt<'a> {
    pub(super) group: &'a GroupRef,
    pub(super) item: &'a str,
    /// The release that brought it, or that it is a draft.
    pub(super) since: &'a str,
    /// The key of the record its data key was wrapped for.
    pub(super) record: &'a str,
}

/// A content ready to be put.
pub(super) struct Blob {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Contents in memory, by name; the first to come is the first to go.
#[derive(Debug, Default)]
pub(super) struct Kept {
    contents: BTreeMap<String, Arc<str>>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Kept {
    fn get(&self, name: &str) -> Option<Arc<str>> {
        self.contents.get(name).cloned()
    }

    fn keep(&mut self, name: &str, content: &Arc<str>) {
        if KEPT_BYTES_MAX < content.len() || self.contents.contains_key(name) {
            return;
        }
        self.bytes += content.len();
        self.contents.insert(name.to_owned(), Arc::clone(content));
        self.order.push_back(name.to_owned());
        while KEPT_TOTAL_BYTES_MAX < self.bytes
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.contents.remove(&oldest).map_or(0, |content| content.len());
        }
    }
}

impl Shared {
    /// A fresh data key, wrapped for the record at `place`.
    pub(super) fn data_key(&self, place: &str) -> DataKey {
        let secret = keyring::secret();
        let sealed = self.keyring().seal(Label::Config, place, &*secret);
        DataKey { secret, salt: random::hex::<16>(), sealed }
    }

    /// Seals a secret content; `since` is the release that brings it, or a draft.
    pub(super) fn sealed(
        &self,
        group: &GroupRef,
        item: &str,
        since: &str,
        key: &DataKey,
        content: &str,
    ) -> Blob {
        let place = secret_place(group, item, since);
        let parts = [place.as_bytes(), key.salt.as_bytes(), content.as_bytes()];
        let name = self.keyring().mac(Label::ConfigName, &parts);
        Blob { name, bytes: keyring::seal(&key.secret, place.as_bytes(), content.as_bytes()) }
    }

    /// Puts contents, so that a release may name them. Putting again does no harm.
    pub(super) async fn put_blobs(&self, blobs: Vec<Blob>) -> Result<(), CentreError> {
        let stamp = self.timer.unix_millis().to_be_bytes();
        let mut blobs = blobs.into_iter().peekable();
        while blobs.peek().is_some() {
            let (mut batch, mut names, mut bytes) = (Batch::new(), Vec::new(), 0);
            while let Some(next) = blobs.next_if(|next: &Blob| {
                names.is_empty()
                    || names.len() < PUT_OPERATIONS_MAX && bytes + next.bytes.len() <= PUT_BYTES_MAX
            }) {
                if names.contains(&next.name) {
                    continue;
                }
                bytes += next.bytes.len();
                let value = [&stamp[..], &next.bytes].concat();
                batch = batch.then(Put::new(blob(&next.name), value));
                names.push(next.name);
            }
            let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
            while let Err(error) = self.store.apply(batch.clone()).await {
                patience.bear(&*self.timer, error).await?;
            }
        }
        Ok(())
    }

    /// The content of an item; a secret is opened.
    pub(super) async fn content(
        &self,
        group: &GroupRef,
        item: &str,
        row: &Row,
        keys: &BTreeMap<u64, Sealed>,
    ) -> Result<Arc<str>, CentreError> {
        if !row.secret {
            return self.plain(&row.blob).await;
        }
        let at = SecretAt {
            group,
            item,
            since: &row.since.to_string(),
            record: &group.release(row.since).to_string(),
        };
        let missing = || secret_error(group, item, KeyringError::Forged);
        let key = keys.get(&row.since).ok_or_else(missing)?;
        self.secret(at, row, key).await
    }

    /// A secret content, whose data key is `key`.
    pub(super) async fn secret(
        &self,
        at: SecretAt<'_>,
        row: &Row,
        key: &Sealed,
    ) -> Result<Arc<str>, CentreError> {
        let SecretAt { group, item, since, record } = at;
        let sealed = self.blob(&row.blob).await?;
        let open = || {
            let data_key = self.keyring().open(Label::Config, record, key)?;
            let data_key: [u8; 32] =
                data_key.as_slice().try_into().map_err(|_length| KeyringError::Forged)?;
            let bound = secret_place(group, item, since);
            let plain = keyring::open(&data_key.into(), bound.as_bytes(), sealed.to_vec());
            let plain = plain.ok_or(KeyringError::Forged)?;
            let text = std::str::from_utf8(&plain).map_err(|_utf8| KeyringError::Forged)?;
            Ok(Arc::from(text))
        };
        open().map_err(|source| secret_error(group, item, source))
    }

    /// A plain content, or a schema.
    pub(super) async fn plain(&self, name: &str) -> Result<Arc<str>, CentreError> {
        if let Some(content) = self.contents.lock().get(name) {
            return Ok(content);
        }
        let bytes = self.blob(name).await?;
        let unreadable = || CentreError::Unreadable { what: format!("content {name}") };
        let content = std::str::from_utf8(&bytes).map_err(|_utf8| unreadable())?;
        if plain_name(content) != name {
            return Err(unreadable());
        }
        let content = Arc::from(content);
        self.contents.lock().keep(name, &content);
        Ok(content)
    }

    /// Everything of a release, secrets opened.
    pub(super) async fn items(
        &self,
        group: &GroupRef,
        release: &Release,
    ) -> Result<BTreeMap<String, Item>, CentreError> {
        let reads = release.items.iter().map(|(name, row)| -> Read<'_> {
            Box::pin(async move {
                Ok((name.clone(), self.item(group, name, row, &release.keys).await?))
            })
        });
        // Named, or the compiler takes it for one that cannot go to another thread.
        let reads: Vec<Read<'_>> = reads.collect();
        stream::iter(reads).buffered(READS_MAX).try_collect().await
    }

    pub(super) async fn item(
        &self,
        group: &GroupRef,
        name: &str,
        row: &Row,
        keys: &BTreeMap<u64, Sealed>,
    ) -> Result<Item, CentreError> {
        let content = self.content(group, name, row, keys).await?;
        let schema = self.schema(row).await?;
        Ok(Item { format: row.format, content, secret: row.secret, schema })
    }

    pub(super) async fn schema(&self, row: &Row) -> Result<Option<Arc<str>>, CentreError> {
        match &row.schema {
            None => Ok(None),
            Some(name) => self.plain(name).await.map(Some),
        }
    }

    async fn blob(&self, name: &str) -> Result<Bytes, CentreError> {
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        let entry = loop {
            match self.store.get(Get::new(blob(name))).await {
                Ok(got) => break got.entry,
                Err(error @ Error::Closed) => return Err(error.into()),
                Err(error) => patience.bear(&*self.timer, error).await?,
            }
        };
        let bytes = entry.map(|entry| entry.value).filter(|value| STAMP_BYTES <= value.len());
        let unreadable = || CentreError::Unreadable { what: format!("content {name}") };
        bytes.map(|value| value.slice(STAMP_BYTES..)).ok_or_else(unreadable)
    }
}

/// What a secret is bound to.
fn secret_place(group: &GroupRef, item: &str, since: &str) -> String {
    format!("{group}/{item}/{since}")
}

pub(super) fn secret_error(group: &GroupRef, item: &str, source: KeyringError) -> CentreError {
    CentreError::Secret { group: group.clone(), item: item.to_owned(), source }
}

/// The reading of one item, on its way.
type Read<'a> = Pin<Box<dyn Future<Output = Result<(String, Item), CentreError>> + Send + 'a>>;
