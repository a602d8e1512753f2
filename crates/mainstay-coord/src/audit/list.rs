//! Reading the outbox, newest first.
//!
//! The store reads upwards only, and ids begin with a revision; so a window of revisions below the
//! place reached is read and turned round. It grows where records are rare and shrinks where they
//! are many.

use std::num::NonZeroU32;

use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{Entry, Get, Range, RangeRequest, Revision, Select};
use serde::Serialize;

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
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditPage)]
pub struct Page {
    /// The records.
    pub items: Vec<Listed>,
    /// Where to go on; `None` at the oldest.
    pub next: Option<String>,
    /// How many records were trimmed for want of a log, ever.
    pub trimmed: u64,
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
                    return Ok(Page { items, next, trimmed });
                }
            }
            before = reached;
            if reached.decided_at() == Revision::NEVER {
                return Ok(Page { items, next: None, trimmed });
            }
        }
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
        let entry = self.shared.store.get(Get::new(keys::audit(id))).await?.entry;
        Ok(entry.and_then(|entry| Some(listed(id, &entry, Record::read(&entry.value)?))))
    }

    /// The records of a window below `before`, and the lower end of it.
    async fn below(
        &self,
        before: AuditId,
        window: &mut u64,
    ) -> Result<(Vec<Entry>, AuditId), AuditError> {
        let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
        loop {
            let lowest = before.decided_at().get().saturating_sub(*window);
            let from = AuditId::first_at(Revision::new(lowest));
            let range = Range::between(
                keys::audit(from).into_bytes(),
                Some(keys::audit(before).into_bytes()),
            );
            let select = Select::new(range.clone()).limit(limit);
            let page = self.shared.store.range(RangeRequest::new(select)).await?;
            if !page.more {
                if page.entries.len() < 100 {
                    *window = window.saturating_mul(2);
                }
                return Ok((page.entries, from));
            }
            if *window == 1 {
                return Ok((list_all(&*self.shared.store, range).await?.1, from));
            }
            *window = (*window / 8).max(1);
        }
    }
}

fn listed(id: AuditId, entry: &Entry, record: Record) -> Listed {
    Listed { id: id.to_string(), store_revision: entry.create_revision.get(), record }
}
