//! Drafts: items edited one by one, then published together.

use std::num::NonZeroU32;

use mainstay_store::{Compare, Entry, Get, Op, Put, RangeRequest, Revision, Select};
use serde::Serialize;
use serde_json::{Value, json};

use super::Centre;
use super::change::{Action, Change};
use super::contents::SecretAt;
use super::error::CentreError;
use super::item::{Format, ITEMS_MAX, Item, RawItem};
use super::plan::{plain, row};
use super::read::{each, parse};
use super::record::{self, Draft};
use super::shared::Shared;
use crate::audit::Author;
use crate::keys::{CentreKey, GroupRef, parse_centre};
use crate::name::ItemName;
use crate::patience::Patience;
use crate::terms::Terms;

/// What a secret of a draft is bound to, where one of a release has its number.
const SINCE_DRAFT: &str = "draft";

/// A draft, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigDraft)]
pub struct Drafted {
    /// Which item.
    pub item: String,
    /// Whether publishing removes the item.
    pub removes: bool,
    /// What its content is written in.
    pub format: Format,
    /// Whether it is a secret.
    pub secret: bool,
    /// How long its content is.
    pub bytes: usize,
    /// The store's revision that has it: what `If-Match` compares.
    pub revision: u64,
    /// Who edited it last.
    pub who: String,
    /// When, by the wall clock.
    pub unix_ms: u64,
}

impl Centre {
    /// Keeps a draft of an item; without `raw` publishing it will remove the item. Syntax and
    /// schema are checked when it is published: a draft may be half done.
    ///
    /// # Errors
    ///
    /// [`CentreError::Name`], [`CentreError::TooLarge`], [`CentreError::Invalid`],
    /// [`CentreError::DraftMoved`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happens is open; calling again does no harm.
    pub async fn edit_draft<'a>(
        &self,
        group: &GroupRef,
        item: &str,
        raw: Option<RawItem>,
        terms: impl Into<Terms<'a>>,
    ) -> Result<Revision, CentreError> {
        let (shared, terms) = (&*self.shared, terms.into());
        let author = terms.author;
        shared.outbox.admit(author)?;
        let name = ItemName::new(item)?;
        let item = raw.map(|raw| Item::new(item, raw)).transpose()?;
        shared.has_room_for_draft(group, &name).await?;
        let (mut blobs, mut key, mut kept) = (Vec::new(), None, None);
        if let Some(item) = &item {
            let blob = if item.secret {
                let data_key = shared.data_key(&group.draft(&name).to_string());
                let blob =
                    shared.sealed(group, name.as_str(), SINCE_DRAFT, &data_key, &item.content);
                key = Some(data_key.sealed);
                blob
            } else {
                plain(&item.content)
            };
            kept = Some(row(item, &blob.name, 0));
            blobs.push(blob);
            blobs.extend(item.schema.as_deref().map(plain));
        }
        if !terms.dry_run {
            shared.put_blobs(blobs).await?;
        }
        let unix_ms = shared.timer.unix_millis();
        let rest = serde_json::Map::new();
        let who = author.actor.principal.clone();
        let draft = Draft { v: 1, who, unix_ms, row: kept, key, rest };
        let change = draft_change(Action::EditDraft, group, author, &name);
        let value = record::write(&draft);
        let missing = missing(group, name.as_str());
        shared.write_draft(&change, &name, terms, Some(value)).await?.ok_or(missing)
    }

    /// Forgets a draft; what is published stays as it is.
    ///
    /// # Errors
    ///
    /// [`CentreError::DraftNotFound`], [`CentreError::DraftMoved`], or what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`edit_draft`](Centre::edit_draft).
    pub async fn remove_draft<'a>(
        &self,
        group: &GroupRef,
        item: &str,
        terms: impl Into<Terms<'a>>,
    ) -> Result<Revision, CentreError> {
        let terms = terms.into();
        self.shared.outbox.admit(terms.author)?;
        let name = ItemName::new(item)?;
        let change = draft_change(Action::RemoveDraft, group, terms.author, &name);
        let missing = missing(group, item);
        self.shared.write_draft(&change, &name, terms, None).await?.ok_or(missing)
    }

    /// The drafts of a group, by name.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn drafts(&self, group: &GroupRef) -> Result<Vec<Drafted>, CentreError> {
        let mut entries: Vec<Entry> = Vec::new();
        let store = &*self.shared.store;
        each(store, group.drafts(), false, None, |entry| entries.push(entry)).await?;
        let mut drafts = Vec::new();
        for entry in entries {
            let Some(CentreKey::Draft(_, name)) = parse_centre(&entry.key) else { continue };
            let draft: Draft = parse(&entry, || format!("draft {name} of group {group}"))?;
            let row = draft.row.as_ref();
            drafts.push(Drafted {
                item: name.as_str().to_owned(),
                removes: row.is_none(),
                format: row.map_or(Format::Text, |row| row.format),
                secret: row.is_some_and(|row| row.secret),
                bytes: row.map_or(0, |row| row.bytes),
                revision: entry.mod_revision.get(),
                who: draft.who,
                unix_ms: draft.unix_ms,
            });
        }
        Ok(drafts)
    }
}

fn missing(group: &GroupRef, item: &str) -> CentreError {
    CentreError::DraftNotFound { group: group.clone(), item: item.to_owned() }
}

fn draft_change<'a>(
    action: Action,
    group: &'a GroupRef,
    author: &'a Author,
    item: &ItemName,
) -> Change<'a> {
    let item = json!({ "item": item.as_str() });
    let shown = match action {
        Action::RemoveDraft => (item, Value::Null),
        _ => (Value::Null, item),
    };
    Change { action, group, author, note: "", before: 0, after: 0, shown }
}

impl Shared {
    /// The item as a draft has it; `None` when it removes the item.
    pub(super) async fn drafted_item(
        &self,
        group: &GroupRef,
        name: &str,
        draft: &Draft,
    ) -> Result<Option<Item>, CentreError> {
        let Some(row) = &draft.row else { return Ok(None) };
        let content = match &draft.key {
            None => self.plain(&row.blob).await?,
            Some(key) => {
                let record = &group.draft(&ItemName::new(name)?).to_string();
                let at = SecretAt { group, item: name, since: SINCE_DRAFT, record };
                self.secret(at, row, key).await?
            }
        };
        let schema = self.schema(row).await?;
        Ok(Some(Item { format: row.format, content, secret: row.secret, schema }))
    }

    async fn has_room_for_draft(
        &self,
        group: &GroupRef,
        name: &ItemName,
    ) -> Result<(), CentreError> {
        let limit = NonZeroU32::new(1).expect("1");
        let select = Select::new(group.drafts()).limit(limit).count_only();
        let count = self.store.range(RangeRequest::new(select)).await?.count;
        let found = usize::try_from(count).unwrap_or(usize::MAX);
        let is_new = || self.store.get(Get::new(group.draft(name)));
        if found < ITEMS_MAX || is_new().await?.entry.is_some() {
            return Ok(());
        }
        let what = format!("group {group}");
        Err(CentreError::TooLarge { what, found: found + 1, unit: "drafts", max: ITEMS_MAX })
    }

    /// Writes `value` as the draft `name`, or removes it, and says that drafts were edited, so that
    /// whoever is publishing them reads again. `None` when there is nothing to remove.
    async fn write_draft(
        &self,
        change: &Change<'_>,
        name: &ItemName,
        terms: Terms<'_>,
        value: Option<Vec<u8>>,
    ) -> Result<Option<Revision>, CentreError> {
        let key = &change.group.draft(name);
        let mark = Put::new(change.group.drafts_mark(), r#"{"v":1}"#);
        let mut patience = Patience::new(self.now(), Patience::FOR_CALLERS);
        loop {
            let got = match self.store.get(Get::new(key.clone())).await {
                Ok(got) => got,
                Err(error) => {
                    patience.bear(&*self.timer, error).await?;
                    continue;
                }
            };
            let there = got.entry.as_ref().map(|entry| &*entry.value);
            if patience.is_uncertain() && there == value.as_deref() {
                change.made();
                return Ok(Some(got.revision));
            }
            let known = got.entry.as_ref().map_or(Revision::NEVER, |entry| entry.mod_revision);
            if let Some(expected) = terms.expected.filter(|expected| *expected != known) {
                // What moved it may be what was tried before.
                if patience.is_uncertain() {
                    return Err(mainstay_store::Error::OutcomeUnknown.into());
                }
                let (group, item) = (change.group.clone(), name.as_str().to_owned());
                return Err(CentreError::DraftMoved { group, item, expected, found: known });
            }
            if terms.dry_run {
                let is_something = value.is_some() || there.is_some();
                return Ok(is_something.then_some(known));
            }
            let op = match &value {
                Some(value) => Put::new(key.clone(), value.clone()).into(),
                None if there.is_none() => return Ok(None),
                None => Op::delete(key),
            };
            let when = vec![Compare::unchanged_since(key, known)];
            let ops = vec![op, mark.clone().into()];
            match self.store.apply(change.batch(self, got.revision, when, ops)).await {
                Ok(applied) if applied.succeeded => {
                    change.made();
                    return Ok(Some(applied.revision));
                }
                Ok(_beaten) => {}
                Err(error) => patience.bear(&*self.timer, error).await?,
            }
        }
    }
}
