//! Reading the outbox, newest first.
//!
//! The store reads upwards only, and ids begin with a revision; so a window of revisions below the
//! place reached is read and turned round. It grows where records are rare and shrinks where they
//! are many.

use std::num::NonZeroU32;

use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{Entry, Get, Key, Range, RangeRequest, Revision, Select};
use serde::{Deserialize, Serialize};

use super::Outbox;
use super::error::AuditError;
use super::keep::Trimmed;
use super::record::{Outcome, Record};
use crate::keys::{self, AuditId};
use crate::moment::Moment;
use crate::registry::listing::list_all;

/// Most records of one answer.
pub const LISTED_MAX: usize = 1_000;

/// Records looked at for one answer; if too few of them are meant, the answer is short and says
/// where to go on. 10,000 are read in some 50 ms.
const LOOKED_AT_MAX: usize = 10_000;

/// First window, in revisions.
const WINDOW: u64 = 1_024;

/// Which records are meant; what is `None` excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// By this principal.
    pub actor: Option<String>,
    /// With this action, or, written `switch:*`, one that begins so.
    pub action: Option<String>,
    /// Upon this target: its id, or `kind/id`.
    pub target: Option<String>,
    /// That came to this.
    pub outcome: Option<Outcome>,
    /// From this address.
    pub source: Option<String>,
    /// With these words somewhere in it, in whatever case.
    pub words: Option<String>,
    /// Made at this moment or later.
    pub from: Option<Moment>,
    /// Made at this moment or before.
    pub to: Option<Moment>,
}

impl Filter {
    /// Whether `record` is meant.
    pub fn means(&self, record: &Record) -> bool {
        let action = |action: &String| match action.strip_suffix('*') {
            Some(start) => record.action.starts_with(start),
            None => record.action == *action,
        };
        let target = |target: &String| {
            let (kind, id) = (&record.target.kind, &record.target.id);
            target == id
                || target.strip_prefix(&**kind).and_then(|at| at.strip_prefix('/')) == Some(id)
        };
        let words = |words: &String| {
            String::from_utf8_lossy(&record.write()).to_lowercase().contains(&words.to_lowercase())
        };
        self.actor.as_ref().is_none_or(|actor| record.actor.principal == *actor)
            && self.action.as_ref().is_none_or(action)
            && self.target.as_ref().is_none_or(target)
            && self.outcome.is_none_or(|outcome| record.outcome == outcome)
            && self.source.as_ref().is_none_or(|at| record.actor.address.as_ref() == Some(at))
            && self.from.is_none_or(|from| from <= record.time)
            && self.to.is_none_or(|to| record.time <= to)
            && self.words.as_ref().is_none_or(words)
    }
}

/// A record, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditRecord)]
pub struct Listed {
    /// Its id, for good.
    pub id: String,
    /// The revision of the store that holds it, and the change it tells of.
    pub store_revision: u64,
    /// What it says.
    #[serde(flatten)]
    pub record: Record,
}

/// Some records, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditPage)]
pub struct Page {
    /// The records.
    pub items: Vec<Listed>,
    /// Where to go on; `None` at the oldest.
    pub next: Option<String>,
    /// How many records were trimmed since no log took them over, ever.
    pub trimmed: u64,
    /// Logs of other nodes of the store, which were not looked through: ask these nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
}

/// The log of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditElsewhere)]
pub struct Elsewhere {
    /// Which node.
    pub node: String,
    /// How many records it has, by its newest head.
    pub records: u64,
}

impl Outbox {
    /// Up to `limit` records (at most 1,000), newest first; from `cursor`, the `next` of the page
    /// before.
    ///
    /// # Errors
    ///
    /// [`AuditError::CursorInvalid`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, AuditError> {
        let limit = limit.clamp(1, LISTED_MAX);
        let elsewhere = Vec::new();
        let got = self.shared.store.get(Get::new(keys::audit_trimmed())).await?;
        let trimmed = Trimmed::read(got.entry.as_ref()).records;
        let mut before = match cursor {
            None => AuditId::first_at(got.revision.next()),
            Some(text) => AuditId::parse(text).ok_or(AuditError::CursorInvalid)?,
        };
        let (mut items, mut looked_at, mut window) = (Vec::new(), 0, WINDOW);
        loop {
            let (entries, reached) = self.below(before, &mut window).await?;
            for entry in entries.iter().rev() {
                looked_at += 1;
                let Some(id) = keys::parse_audit(&entry.key) else { continue };
                before = id;
                let record = Record::read(&entry.value).filter(|record| filter.means(record));
                items.extend(record.map(|record| listed(id, entry, record)));
                if items.len() == limit || looked_at == LOOKED_AT_MAX {
                    let next = Some(before.to_string());
                    return Ok(Page { items, next, trimmed, elsewhere });
                }
            }
            before = reached;
            if reached.decided_at() == Revision::NEVER {
                return Ok(Page { items, next: None, trimmed, elsewhere });
            }
        }
    }

    /// How many records were trimmed since no log took them over, ever.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn trimmed(&self) -> Result<u64, AuditError> {
        let got = self.shared.store.get(Get::new(keys::audit_trimmed())).await?;
        Ok(Trimmed::read(got.entry.as_ref()).records)
    }

    /// One record; `None` when there is none of that id, or it was trimmed.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn get(&self, id: &str) -> Result<Option<Listed>, AuditError> {
        let Some(id) = AuditId::parse(id) else { return Ok(None) };
        let mut entry = self.shared.store.get(Get::new(keys::audit(id))).await?.entry;
        if entry.is_none() {
            entry = self.shared.store.get(Get::new(keys::audit_logged(id))).await?.entry;
        }
        Ok(entry.and_then(|entry| Some(listed(id, &entry, Record::read(&entry.value)?))))
    }

    /// The records of a window below `before`, logged or not, and the lower end of it.
    async fn below(
        &self,
        before: AuditId,
        window: &mut u64,
    ) -> Result<(Vec<Entry>, AuditId), AuditError> {
        let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
        loop {
            let lowest = before.decided_at().get().saturating_sub(*window);
            let from = AuditId::first_at(Revision::new(lowest));
            let between = |key: fn(AuditId) -> Key| {
                Range::between(key(from).into_bytes(), Some(key(before).into_bytes()))
            };
            // Those that wait first: what is moved meanwhile is met twice, and not missed.
            let (logged, waiting) = (between(keys::audit_logged), between(keys::audit));
            let page = |range: &Range| RangeRequest::new(Select::new(range.clone()).limit(limit));
            let store = &*self.shared.store;
            let waits = store.range(page(&waiting)).await?;
            let seen = store.range(page(&logged)).await?;
            if !waits.more && !seen.more {
                if waits.entries.len() + seen.entries.len() < 100 {
                    *window = window.saturating_mul(2);
                }
                return Ok((merged(waits.entries, seen.entries), from));
            }
            if *window == 1 {
                let waits = list_all(store, waiting).await?.1;
                return Ok((merged(waits, list_all(store, logged).await?.1), from));
            }
            *window = (*window / 8).max(1);
        }
    }
}

/// Both by id, each record once.
fn merged(mut one: Vec<Entry>, other: Vec<Entry>) -> Vec<Entry> {
    one.extend(other);
    one.sort_by_key(|entry| keys::parse_audit(&entry.key));
    one.dedup_by_key(|entry| keys::parse_audit(&entry.key));
    one
}

fn listed(id: AuditId, entry: &Entry, record: Record) -> Listed {
    Listed { id: id.to_string(), store_revision: entry.create_revision.get(), record }
}
