//! What was published: listing, reading, comparing, wrapping anew.

use std::collections::BTreeMap;

use mainstay_store::{Compare, Entry, Error, Get, Put, Range};
use serde::Serialize;
use serde_json::{Value, json};

use super::Centre;
use super::change::{Action, Change};
use super::contents::secret_error;
use super::diff::{self, Diff};
use super::error::CentreError;
use super::item::{Format, Item};
use super::read::{each, parse};
use super::record::{self, Draft, Head, Release};
use super::shared::Shared;
use super::subscription::Delivered;
use crate::audit::Author;
use crate::keyring::{KeyringError, Label, Sealed};
use crate::keys::{self, CentreKey, GroupRef, parse_centre};
use crate::name::Namespace;

/// Most releases in one answer.
pub const HISTORY_PAGE_MAX: u64 = 1_000;

/// An item of a release, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigItemShown)]
pub struct ItemShown {
    /// What its content is written in.
    pub format: Format,
    /// Whether it is a secret.
    pub secret: bool,
    /// How long its content is.
    pub bytes: usize,
    /// The release that brought it.
    pub since: u64,
}

/// A release, without its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigReleaseShown)]
pub struct ReleaseShown {
    /// Which release.
    pub release: u64,
    /// Who published it.
    pub who: String,
    /// When, by the wall clock.
    pub unix_ms: u64,
    /// Why.
    pub note: String,
    /// The release it was made of; 0 for none.
    pub base: u64,
    /// The release whose content it brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// Its items, by name.
    pub items: BTreeMap<String, ItemShown>,
}

/// A group, as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigGroup)]
pub struct GroupShown {
    /// Its name.
    pub group: String,
    /// The release in force.
    pub release: u64,
    /// How many items it has.
    pub items: usize,
    /// The release under way as a canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<u64>,
}

impl From<&Release> for ReleaseShown {
    fn from(record: &Release) -> Self {
        let items = record.items.iter().map(|(name, row)| {
            let (format, secret) = (row.format, row.secret);
            let shown = ItemShown { format, secret, bytes: row.bytes, since: row.since };
            (name.clone(), shown)
        });
        Self {
            release: record.number,
            who: record.who.clone(),
            unix_ms: record.unix_ms,
            note: record.note.clone(),
            base: record.base,
            rollback_of: record.rollback_of,
            items: items.collect(),
        }
    }
}

impl Centre {
    /// The groups of a namespace, by name.
    ///
    /// # Errors
    ///
    /// [`CentreError::Loading`].
    pub fn groups(&self, namespace: &Namespace) -> Result<Vec<GroupShown>, CentreError> {
        let local = self.shared.loaded()?;
        let of_namespace = local.copy.groups().filter(|(group, _)| group.namespace == *namespace);
        let shown = of_namespace.map(|(group, state)| GroupShown {
            group: group.name.as_str().to_owned(),
            release: state.head.release,
            items: state.release(state.head.release).map_or(0, |release| release.items.len()),
            canary: state.head.canary.as_ref().map(|canary| canary.release),
        });
        Ok(shown.collect())
    }

    /// Which release of a group is in force, and the canary.
    ///
    /// # Errors
    ///
    /// [`CentreError::Loading`], [`CentreError::GroupNotFound`].
    pub fn head(&self, group: &GroupRef) -> Result<Head, CentreError> {
        let local = self.shared.loaded()?;
        let missing = || CentreError::GroupNotFound { group: group.clone() };
        local.copy.group(group).map(|known| known.head.clone()).ok_or_else(missing)
    }

    /// Releases of a group, the newest first: `count` (1 to 1,000) of those before release
    /// `before`, or of all.
    ///
    /// # Errors
    ///
    /// [`CentreError::GroupNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn history(
        &self,
        group: &GroupRef,
        before: Option<u64>,
        count: u64,
    ) -> Result<Vec<ReleaseShown>, CentreError> {
        let shared = &*self.shared;
        let last = shared.published(group).await?.head.last;
        let end = before.unwrap_or(u64::MAX).min(last + 1);
        // Numbers have no gaps but those the sweep made at the old end.
        let start = end.saturating_sub(count.clamp(1, HISTORY_PAGE_MAX));
        let (from, to) = (group.release(start), group.release(end));
        let range = Range::between(from.into_bytes(), Some(to.into_bytes()));
        let mut entries: Vec<Entry> = Vec::new();
        each(&*shared.store, range, false, None, |entry| entries.push(entry)).await?;
        let read = |entry: &Entry| {
            let record: Release = parse(entry, || format!("a release of group {group}"))?;
            Ok(ReleaseShown::from(&record))
        };
        entries.iter().rev().map(read).collect()
    }

    /// A release with its contents; of secrets only with `secrets`.
    ///
    /// # Errors
    ///
    /// [`CentreError::ReleaseNotFound`], [`CentreError::Secret`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn release(
        &self,
        group: &GroupRef,
        release: u64,
        secrets: bool,
    ) -> Result<(ReleaseShown, BTreeMap<String, Delivered>), CentreError> {
        let shared = &*self.shared;
        let (record, _) = shared.release(group, release, None).await?;
        let items = shared.delivered(group, &record, record.items.keys(), secrets).await?;
        Ok((ReleaseShown::from(&record), items))
    }

    /// What differs between two releases; release 0 is nothing. Of secrets only that they differ.
    ///
    /// # Errors
    ///
    /// [`CentreError::ReleaseNotFound`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn diff(&self, group: &GroupRef, from: u64, to: u64) -> Result<Diff, CentreError> {
        let shared = &*self.shared;
        let read = |number: u64| async move {
            if number == 0 {
                return Ok(BTreeMap::new());
            }
            let (record, _) = shared.release(group, number, None).await?;
            shared.compared(group, &record).await
        };
        let (old, new) = (read(from).await?, read(to).await?);
        Ok(diff::diff((from, &old), (to, &new)))
    }

    /// Wraps every data key that is not wrapped by the newest key of the keyring anew; returns how
    /// many records it wrote. Contents stay as they are. Once it returns 0 on a quiet store, older
    /// keys of the keyring can be forgotten, when what else they seal has moved as well.
    ///
    /// # Errors
    ///
    /// [`CentreError::Secret`] where a key is missing, or what the store said. What was written
    /// before stays; calling again goes on.
    ///
    /// # Cancel safety
    ///
    /// As on an error.
    pub async fn rewrap(&self, author: &Author) -> Result<usize, CentreError> {
        let shared = &*self.shared;
        shared.outbox.admit(author)?;
        let current = shared.keyring().current().to_owned();
        let is_old = |sealed: &Sealed| sealed.key != current;
        let mut found = Vec::new();
        let take = |entry: Entry| {
            let has_old = match parse_centre(&entry.key) {
                Some(CentreKey::Release(..)) => record::read::<Release>(&entry.value)
                    .is_some_and(|record| record.keys.values().any(is_old)),
                Some(CentreKey::Draft(..)) => record::read::<Draft>(&entry.value)
                    .is_some_and(|record| record.key.as_ref().is_some_and(is_old)),
                _ => false,
            };
            if has_old {
                found.push(entry.key);
            }
        };
        each(&*shared.store, keys::configuration(), false, None, take).await?;
        let mut written = 0;
        for key in found {
            written += usize::from(shared.rewrap(&key, author).await?);
        }
        Ok(written)
    }

    /// How many data keys each key of the keyring wraps, by its id. Reads every release.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn wrapped(&self) -> Result<BTreeMap<String, u64>, CentreError> {
        let mut wrapped = BTreeMap::new();
        let mut count = |sealed: &Sealed| *wrapped.entry(sealed.key.clone()).or_default() += 1;
        let take = |entry: Entry| match parse_centre(&entry.key) {
            Some(CentreKey::Release(..)) => {
                let record = record::read::<Release>(&entry.value);
                record.iter().flat_map(|record| record.keys.values()).for_each(&mut count);
            }
            Some(CentreKey::Draft(..)) => {
                let record = record::read::<Draft>(&entry.value);
                record.iter().filter_map(|record| record.key.as_ref()).for_each(&mut count);
            }
            _ => {}
        };
        each(&*self.shared.store, keys::configuration(), false, None, take).await?;
        Ok(wrapped)
    }
}

impl Shared {
    /// The items of a release, to be compared. A secret stands for itself as the release that
    /// brought it: whether two differ is seen without opening either.
    async fn compared(
        &self,
        group: &GroupRef,
        record: &Release,
    ) -> Result<BTreeMap<String, Item>, CentreError> {
        let mut items = BTreeMap::new();
        for (name, row) in &record.items {
            let item = if row.secret {
                let schema = self.schema(row).await?;
                Item { format: row.format, content: row.blob.as_str().into(), secret: true, schema }
            } else {
                self.item(group, name, row, &record.keys).await?
            };
            items.insert(name.clone(), item);
        }
        Ok(items)
    }

    /// Wraps the data keys of one record anew; `false` when it was written or removed meanwhile.
    async fn rewrap(
        &self,
        key: &mainstay_store::Key,
        author: &Author,
    ) -> Result<bool, CentreError> {
        let got = self.store.get(Get::new(key.clone())).await?;
        let (Some(entry), read_at) = (got.entry, got.revision) else { return Ok(false) };
        let keyring = self.keyring();
        let anew = |place: &str, sealed: &Sealed| -> Result<Sealed, KeyringError> {
            let plain = keyring.open(Label::Config, place, sealed)?;
            Ok(keyring.seal(Label::Config, place, &plain))
        };
        let (group, number, value) = match parse_centre(key) {
            Some(CentreKey::Release(group, number)) => {
                let mut record: Release = parse(&entry, || format!("release {number} of {group}"))?;
                for (since, sealed) in &mut record.keys {
                    let place = group.release(*since).to_string();
                    let told = |source| secret_error(&group, "(data key)", source);
                    *sealed = anew(&place, sealed).map_err(told)?;
                }
                let value = record::write(&record);
                (group, number, value)
            }
            Some(CentreKey::Draft(group, item)) => {
                let mut record: Draft = parse(&entry, || format!("draft {item} of {group}"))?;
                let told = |source| secret_error(&group, item.as_str(), source);
                let key = record.key.map(|sealed| anew(&key.to_string(), &sealed)).transpose();
                record.key = key.map_err(told)?;
                let value = record::write(&record);
                (group, 0, value)
            }
            _ => return Ok(false),
        };
        let (action, group) = (Action::Rewrap, &group);
        let (shown, note) = ((Value::Null, json!({ "key": keyring.current() })), "");
        let (before, after) = (number, number);
        let change = Change { action, group, author, note, before, after, shown };
        let when = vec![Compare::unchanged_since(key, entry.mod_revision)];
        let ops = vec![Put::new(key.clone(), value).into()];
        let batch = change.batch(self, read_at, when, ops);
        match self.store.apply(batch).await {
            Ok(applied) => {
                if applied.succeeded {
                    change.made();
                }
                // Whoever forgets the old key now still serves what is in force.
                self.reached(applied.revision).await;
                Ok(applied.succeeded)
            }
            // Either way the record opens; the next run finds out which.
            Err(Error::OutcomeUnknown) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
