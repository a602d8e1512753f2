//! From what a caller wants to the release that says so.

use std::collections::BTreeMap;

use mainstay_store::{Compare, Entry, Op, Revision};
use serde::Deserialize;

use super::canary::RawCanary;
use super::check::check;
use super::contents::{Blob, plain_name};
use super::diff::{self, Diff, ItemChange};
use super::error::CentreError;
use super::item::{ITEMS_MAX, Item, RawItem};
use super::read::{Ground, each, parse};
use super::record::{Draft, Release, Row};
use super::shared::Shared;
use crate::keyring::Sealed;
use crate::keys::{CentreKey, GroupRef, parse_centre};

/// Longest note.
pub const NOTE_BYTES_MAX: usize = 1_024;

/// What to publish.
#[derive(Clone, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ConfigPublication)]
pub struct Publication {
    /// Items to add or change; `null` removes one.
    #[schema(value_type = BTreeMap<String, RawItem>, default = json!({}))]
    pub items: BTreeMap<String, Option<RawItem>>,
    /// Whether `items` is all there shall be, so that whatever it does not name is removed.
    pub complete: bool,
    /// Whether to publish the drafts as well, and put them away. What `items` says of an item goes
    /// before its draft.
    pub from_drafts: bool,
    /// Why, up to 1,024 bytes; kept in the history.
    pub note: String,
    /// Who shall get it first; everybody when left out.
    pub canary: Option<RawCanary>,
}

/// A publication, checked for itself.
pub(super) struct Wanted {
    pub(super) items: BTreeMap<String, Option<Item>>,
    pub(super) complete: bool,
    pub(super) from_drafts: bool,
}

impl Wanted {
    pub(super) fn new(publication: &Publication) -> Result<Self, CentreError> {
        check_note(&publication.note)?;
        let mut items = BTreeMap::new();
        for (name, raw) in &publication.items {
            let item = raw.clone().map(|raw| Item::new(name, raw)).transpose()?;
            items.insert(name.clone(), item);
        }
        let Publication { complete, from_drafts, .. } = *publication;
        if items.is_empty() && !from_drafts && !complete {
            return Err(CentreError::invalid("items", "must not be empty without `from_drafts`"));
        }
        Ok(Self { items, complete, from_drafts })
    }
}

pub(super) fn check_note(note: &str) -> Result<(), CentreError> {
    if note.len() <= NOTE_BYTES_MAX {
        return Ok(());
    }
    Err(CentreError::invalid("note", "must be at most 1024 bytes"))
}

/// An item of the release to come.
enum Planned {
    /// As it is in the base.
    Kept(Row),
    /// This, which differs from the base.
    New(Item),
}

impl Planned {
    const fn fresh(&self) -> Option<&Item> {
        match self {
            Self::Kept(_) => None,
            Self::New(item) => Some(item),
        }
    }
}

/// The release to come.
pub(super) struct Plan {
    items: BTreeMap<String, Planned>,
    pub(super) changed: Vec<ItemChange>,
    /// What was read of the drafts must still be so.
    pub(super) compares: Vec<Compare>,
    /// Drafts are put away.
    pub(super) ops: Vec<Op>,
}

impl Plan {
    /// The release as it stands when the next one is made of `base`; with it the contents to be
    /// put before.
    pub(super) fn write(
        self,
        shared: &Shared,
        group: &GroupRef,
        number: u64,
        base: &Release,
    ) -> (BTreeMap<String, Row>, BTreeMap<u64, Sealed>, Vec<Blob>) {
        let (mut rows, mut blobs, mut data_key) = (BTreeMap::new(), Vec::new(), None);
        for (name, planned) in self.items {
            let row = match planned {
                Planned::Kept(row) => row,
                Planned::New(item) => {
                    let blob = if item.secret {
                        let place = group.release(number).to_string();
                        let key = data_key.get_or_insert_with(|| shared.data_key(&place));
                        shared.sealed(group, &name, &number.to_string(), key, &item.content)
                    } else {
                        plain(&item.content)
                    };
                    let row = row(&item, &blob.name, number);
                    blobs.push(blob);
                    blobs.extend(item.schema.as_deref().map(plain));
                    row
                }
            };
            rows.insert(name, row);
        }
        let used = |since: &u64| rows.values().any(|row| row.secret && row.since == *since);
        let mut keys = base.keys.clone();
        keys.retain(|since, _| used(since));
        keys.extend(data_key.map(|key| (number, key.sealed)));
        (rows, keys, blobs)
    }
}

/// What is kept of an item.
pub(super) fn row(item: &Item, blob: &str, since: u64) -> Row {
    Row {
        format: item.format,
        secret: item.secret,
        blob: blob.to_owned(),
        bytes: item.content.len(),
        since,
        schema: item.schema.as_deref().map(plain_name),
        rest: serde_json::Map::new(),
    }
}

pub(super) fn plain(content: &str) -> Blob {
    Blob { name: plain_name(content), bytes: content.as_bytes().to_vec() }
}

impl Shared {
    /// What becomes of `ground` if `wanted` is published.
    pub(super) async fn plan(
        &self,
        group: &GroupRef,
        ground: &Ground,
        wanted: &Wanted,
    ) -> Result<Plan, CentreError> {
        let mut asked = BTreeMap::new();
        let (mut compares, mut ops) = (Vec::new(), Vec::new());
        if wanted.from_drafts {
            let mark = group.drafts_mark();
            compares.push(Compare::unchanged_since(&mark, self.written(&mark, ground.at).await?));
            asked = self.drafted(group, ground.at).await?;
            if !asked.is_empty() {
                ops.push(Op::delete_range(group.drafts()));
            }
        }
        asked.extend(wanted.items.iter().map(|(name, item)| (name.clone(), item.clone())));
        let rows = &ground.base.items;
        let mut items: BTreeMap<String, Planned> = BTreeMap::new();
        if !wanted.complete {
            items.extend(rows.iter().map(|(name, row)| (name.clone(), Planned::Kept(row.clone()))));
        }
        for (name, item) in asked {
            let Some(item) = item else {
                items.remove(&name);
                continue;
            };
            let planned = match rows.get(&name) {
                Some(row) if self.is_same(group, &name, row, &ground.base, &item).await => {
                    Planned::Kept(row.clone())
                }
                _ => Planned::New(item),
            };
            items.insert(name, planned);
        }
        if ITEMS_MAX < items.len() {
            let (what, found) = (format!("group {group}"), items.len());
            return Err(CentreError::TooLarge { what, found, unit: "items", max: ITEMS_MAX });
        }
        let new = items.iter().map(|(name, planned)| (name.clone(), planned.fresh())).collect();
        let old = rows.keys().map(|name| (name.clone(), None)).collect();
        let changed = diff::changes(&old, &new, |_old, new| new.is_none());
        check(&new.into_iter().filter_map(|(name, item)| Some((name, item?))).collect())?;
        Ok(Plan { items, changed, compares, ops })
    }

    /// What would differ if `plan` were made the next release.
    pub(super) async fn preview(
        &self,
        group: &GroupRef,
        ground: &Ground,
        plan: Plan,
    ) -> Result<Diff, CentreError> {
        let base = &ground.base;
        let old = self.items(group, base).await?;
        let new = plan.items.into_iter().filter_map(|(name, planned)| match planned {
            Planned::Kept(_) => old.get(&name).cloned().map(|item| (name, item)),
            Planned::New(item) => Some((name, item)),
        });
        let to = if plan.changed.is_empty() { base.number } else { ground.head.last + 1 };
        Ok(diff::diff((base.number, &old), (to, &new.collect())))
    }

    /// Whether `item` is what the base has. A secret that no longer opens is another.
    async fn is_same(
        &self,
        group: &GroupRef,
        name: &str,
        known: &Row,
        base: &Release,
        item: &Item,
    ) -> bool {
        let shape = row(item, &known.blob, known.since);
        if !shape.is_same(known) || shape.bytes != known.bytes {
            return false;
        }
        if !item.secret {
            return plain_name(&item.content) == known.blob;
        }
        let content = self.content(group, name, known, &base.keys).await;
        content.is_ok_and(|content| content == item.content)
    }

    /// The items as the drafts have them, at one revision.
    async fn drafted(
        &self,
        group: &GroupRef,
        at: Revision,
    ) -> Result<BTreeMap<String, Option<Item>>, CentreError> {
        let mut entries: Vec<Entry> = Vec::new();
        each(&*self.store, group.drafts(), false, Some(at), |entry| entries.push(entry)).await?;
        let mut items = BTreeMap::new();
        for entry in entries {
            let Some(CentreKey::Draft(_, name)) = parse_centre(&entry.key) else { continue };
            let draft: Draft = parse(&entry, || format!("draft {name} of group {group}"))?;
            let item = self.drafted_item(group, name.as_str(), &draft).await?;
            items.insert(name.as_str().to_owned(), item);
        }
        Ok(items)
    }
}
