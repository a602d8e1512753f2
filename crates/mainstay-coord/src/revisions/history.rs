//! Reading what there is, and what there was.

use std::num::NonZeroU32;

use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{Entry, RangeRequest, Select};
use serde::Serialize;
use serde_json::Value;

use super::Revisions;
use super::diff::Diff;
use super::edition::{Edition, Object};
use super::error::{RuleError, What};
use super::terms::Kind;
use crate::keys::RuleRef;
use crate::moment::Moment;
use crate::name::Namespace;

/// Most entries of one answer.
pub const PAGE_MAX: usize = 1_000;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct HistoryItem {
    /// The number.
    pub revision: u64,
    /// When.
    pub at: Moment,
    /// Who.
    pub who: String,
    /// Why.
    pub why: Option<String>,
    /// Through which door.
    pub from: String,
    /// Size of the content.
    pub bytes: usize,
    /// Whether this revision removed the object.
    pub removed: bool,
    /// The revision whose content this one brought back.
    pub rollback_of: Option<u64>,
}

/// Some of a history, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct HistoryPage {
    /// The revisions.
    pub items: Vec<HistoryItem>,
    /// The newest that is not among them; `None` at the oldest that is kept.
    pub next: Option<u64>,
}

/// Some objects, by name.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ObjectPage {
    /// The objects.
    pub items: Vec<Object>,
    /// The last name of them, if there are more.
    pub next: Option<String>,
    /// The revision of the store they were read at.
    pub store_revision: u64,
}

impl Revisions {
    /// Up to `limit` objects of a kind (at most 1,000), of one namespace or all, by namespace and
    /// name, after `after`.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&Namespace>,
        after: Option<&RuleRef>,
        limit: usize,
    ) -> Result<ObjectPage, RuleError> {
        let limit = limit.clamp(1, PAGE_MAX);
        // One more tells whether there is a next page.
        let at_once =
            u32::try_from(limit + 1).ok().and_then(NonZeroU32::new).unwrap_or_else(page_limit);
        let mut range = kind.key.heads(namespace);
        if let Some(after) = after {
            range = range.after(&after.head());
        }
        let (mut items, mut store_revision) = (Vec::new(), None);
        loop {
            let select = Select::new(range.clone()).limit(at_once);
            let mut request = RangeRequest::new(select);
            request.at = store_revision;
            let page = self.store().range(request).await?;
            let at = *store_revision.get_or_insert(page.revision);
            for object in page.entries.iter().filter_map(|entry| object(kind, entry)) {
                if items.len() == limit {
                    let next = items.last().map(|last: &Object| match namespace {
                        Some(_) => last.name.clone(),
                        None => format!("{}/{}", last.namespace, last.name),
                    });
                    return Ok(ObjectPage { items, next, store_revision: at.get() });
                }
                items.push(object);
            }
            match page.entries.last() {
                Some(last) if page.more => range = range.after(&last.key),
                _ => return Ok(ObjectPage { items, next: None, store_revision: at.get() }),
            }
        }
    }

    /// Up to `limit` revisions of an object (at most 1,000), newest first; from revision `from`
    /// down, the `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`RuleError::NotFound`] when it never was, what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn history(
        &self,
        rule: &RuleRef,
        from: Option<u64>,
        limit: usize,
    ) -> Result<HistoryPage, RuleError> {
        let newest = self.head(rule).await?.edition.map(|edition| edition.revision);
        let newest = newest.ok_or_else(|| RuleError::not_found(rule, What::Object))?;
        let last = from.unwrap_or(newest).min(newest);
        // Numbers have no gaps, but for what was swept at the lower end.
        let limit = u64::try_from(limit.clamp(1, PAGE_MAX)).unwrap_or(1);
        let mut first = last.saturating_sub(limit - 1).max(1);
        let mut items = Vec::new();
        let mut range = rule.revisions(first, last);
        loop {
            let select = Select::new(range.clone()).limit(page_limit());
            let page = self.store().range(RangeRequest::new(select)).await?;
            items.extend(page.entries.iter().filter_map(item));
            match page.entries.last() {
                Some(entry) if page.more => range = range.after(&entry.key),
                _ => break,
            }
        }
        let is_swept = items.first().is_none_or(|oldest| first < oldest.revision);
        first = if is_swept { 1 } else { first };
        items.reverse();
        Ok(HistoryPage { items, next: Some(first - 1).filter(|next| *next > 0) })
    }

    /// An object as it was at revision `number`.
    ///
    /// # Errors
    ///
    /// [`RuleError::NotFound`] when that revision was swept, was never written, or removed the
    /// object; what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn at(&self, rule: &RuleRef, number: u64) -> Result<Object, RuleError> {
        let edition = self.edition(rule, number).await?.filter(|edition| !edition.removed);
        let edition = edition.ok_or_else(|| RuleError::not_found(rule, What::Revision(number)))?;
        Ok(Object::new(rule, &edition))
    }

    /// What differs between two revisions of an object; 0 is "not there".
    ///
    /// # Errors
    ///
    /// [`RuleError::NotFound`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn diff(
        &self,
        kind: &Kind,
        rule: &RuleRef,
        from: u64,
        to: u64,
    ) -> Result<Diff, RuleError> {
        let (before, after) = (self.content(kind, rule, from), self.content(kind, rule, to));
        Ok(Diff::between((from, &before.await?), (to, &after.await?)))
    }

    async fn content(&self, kind: &Kind, rule: &RuleRef, number: u64) -> Result<Value, RuleError> {
        if number == 0 {
            return Ok(Value::Null);
        }
        let edition = self.edition(rule, number).await?;
        let edition = edition.ok_or_else(|| RuleError::not_found(rule, What::Revision(number)))?;
        Ok((kind.shown)(&self.outbox().mask(), edition.content))
    }
}

fn page_limit() -> NonZeroU32 {
    NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000")
}

fn object(kind: &Kind, entry: &Entry) -> Option<Object> {
    let rule = kind.key.parse(&entry.key)?;
    let edition = Edition::read(&entry.value).filter(|edition| !edition.removed)?;
    Some(Object::new(&rule, &edition))
}

fn item(entry: &Entry) -> Option<HistoryItem> {
    let Edition { revision, at, who, why, from, content, removed, rollback_of, .. } =
        Edition::read(&entry.value)?;
    let bytes = if removed { 0 } else { content.to_string().len() };
    Some(HistoryItem { revision, at, who, why, from, bytes, removed, rollback_of })
}
