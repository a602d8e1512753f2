//! Searching the log and the outbox as one, newest first.
//!
//! A page begins in the outbox, and goes on in the log where that ends. What was in the outbox when
//! a page was given may be in the log when the next one is asked for; so a cursor says how many
//! records the log had then. Of those that came since, the ones that were seen already are left
//! out: all whose id is not below the one the page ended at.

use std::collections::BTreeSet;

use mainstay_coord::Moment;
use mainstay_coord::audit::list::LISTED_MAX;
use mainstay_coord::audit::{AuditError, Elsewhere, Filter, Listed, Page};
use mainstay_coord::keys::AuditId;
use mainstay_security::audit::Note;
use mainstay_security::audit::tile::WIDTH;
use mainstay_store::Revision;

use super::{AuditLog, LogError};

/// Records of the log looked at for one answer: 10,000 are read in some 100 ms.
const LOOKED_AT_MAX: u64 = 10_000;

/// Where a page goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    /// The outbox below this id.
    before: AuditId,
    /// How many records the log had when the first page was given.
    size: Option<u64>,
    /// The log below this number; the outbox is done with.
    below: Option<u64>,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let before = AuditId::parse(parts.next()?)?;
        let mut number = || parts.next().map(|text| text.parse().ok());
        let (size, below) = (number(), number());
        let is_whole = parts.next().is_none() && size != Some(None) && below != Some(None);
        is_whole.then_some(Self { before, size: size.flatten(), below: below.flatten() })
    }

    fn write(self) -> String {
        let rest = [self.size, self.below].into_iter().flatten();
        rest.fold(self.before.to_string(), |text, number| format!("{text}.{number}"))
    }
}

impl AuditLog {
    /// Up to `limit` records (at most 1,000), newest first; from `cursor`, the `next` of the page
    /// before.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, LogError> {
        let limit = limit.clamp(1, LISTED_MAX);
        let cursor = match cursor {
            Some(text) => Some(Cursor::parse(text).ok_or(AuditError::CursorInvalid)?),
            None => None,
        };
        let mut page = Page { elsewhere: self.others().await?, ..Page::default() };
        let (mut below, size) = match cursor {
            Some(Cursor { below: Some(below), size, .. }) => {
                page.trimmed = self.shared.outbox.trimmed().await?;
                (below, size)
            }
            _ => {
                let _still = self.shared.moving.read().await;
                let size = self.size().await?;
                let from = cursor.map(|cursor| cursor.before.to_string());
                let found = self.shared.outbox.list(filter, from.as_deref(), limit).await?;
                (page.items, page.trimmed) = (found.items, found.trimmed);
                if self.shared.is_alone {
                    self.without_logged(&mut page.items).await?;
                }
                let since = cursor.and_then(|cursor| cursor.size).unwrap_or(size);
                if let Some(before) = found.next.as_deref().and_then(AuditId::parse) {
                    let next = Cursor { before, size: Some(since), below: None };
                    page.next = Some(next.write());
                    return Ok(page);
                }
                (size, cursor.and_then(|cursor| cursor.size))
            }
        };
        // Nothing was seen before: nothing is left out.
        let nothing = AuditId::first_at(Revision::new(u64::MAX));
        let before = cursor.map_or(nothing, |cursor| cursor.before);
        let kept_from =
            if self.shared.is_alone { None } else { self.shared.outbox.kept_from().await? };
        let seen = Seen { before, since: size, kept_from };
        let mut looked_at = 0;
        while 0 < below {
            let bundle = (below - 1) / WIDTH;
            for (seq, listed) in self.bundle(bundle, below, filter).await? {
                below = seq;
                looked_at += 1;
                page.items.extend(listed.filter(|listed| seen.is_new(seq, listed)));
                if page.items.len() == limit || looked_at == LOOKED_AT_MAX {
                    let size = seen.since.or(Some(below));
                    let next = Cursor { before, size, below: Some(below) };
                    page.next = (0 < below).then(|| next.write());
                    return Ok(page);
                }
            }
            below = bundle * WIDTH;
        }
        Ok(page)
    }

    /// One record; `None` when there is none of that id.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn get(&self, id: &str) -> Result<Option<Listed>, LogError> {
        let Some(wanted) = AuditId::parse(id) else { return Ok(None) };
        let _still = self.shared.moving.read().await;
        if let Some(listed) = self.shared.outbox.get(id).await? {
            return Ok(Some(listed));
        }
        match self.blocking(move |log| log.find(wanted)).await {
            Ok(record) => Ok(record.and_then(|record| serde_json::from_slice(&record).ok())),
            Err(LogError::Closed) if !self.shared.is_alone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Logs of other nodes, which this one cannot look through.
    async fn others(&self) -> Result<Vec<Elsewhere>, LogError> {
        if self.shared.is_alone {
            return Ok(Vec::new());
        }
        let heads = self.shared.outbox.heads().await?;
        let others = heads.into_iter().filter(|(node, _)| *node != self.shared.node.0);
        let records = |text: &str| Note::parse(text).map_or(0, |note| note.unproven().size);
        Ok(others.map(|(node, text)| Elsewhere { records: records(&text), node }).collect())
    }

    /// How many records the log has. A node of several that never took any over has no log.
    async fn size(&self) -> Result<u64, LogError> {
        match self.blocking(|log| Ok(log.size())).await {
            Err(LogError::Closed) if !self.shared.is_alone => Ok(0),
            size => size,
        }
    }

    /// Leaves out of what the outbox has what is in the log already: a crash, or a store that did
    /// not answer, came between.
    async fn without_logged(&self, items: &mut Vec<Listed>) -> Result<(), LogError> {
        let ids: Vec<AuditId> = items.iter().filter_map(|item| AuditId::parse(&item.id)).collect();
        let logged = self.blocking(move |log| {
            let mut logged = BTreeSet::new();
            for id in ids {
                if log.has(id)? {
                    logged.insert(id.to_string());
                }
            }
            Ok(logged)
        });
        let logged = logged.await?;
        items.retain(|item| !logged.contains(&item.id));
        Ok(())
    }

    /// The records of a bundle below number `below`, newest first; `None` for those that are not
    /// meant.
    async fn bundle(
        &self,
        bundle: u64,
        below: u64,
        filter: &Filter,
    ) -> Result<Vec<(u64, Option<Listed>)>, LogError> {
        let times = (filter.from, filter.to);
        let records = self.blocking(move |log| {
            let span = usize::try_from(bundle).ok().and_then(|at| log.spans.get(at));
            if span.is_some_and(|span| is_outside(times, span.times)) {
                return Ok(Vec::new());
            }
            Ok(log.bundle(bundle)?.unwrap_or_default())
        });
        let numbered = (bundle * WIDTH..below).zip(records.await?);
        let listed = numbered.map(|(seq, record)| {
            let listed = serde_json::from_slice::<Listed>(&record).ok();
            (seq, listed.filter(|listed| filter.means(&listed.record)))
        });
        let mut listed: Vec<_> = listed.collect();
        listed.reverse();
        Ok(listed)
    }
}

/// What was on pages before.
struct Seen {
    before: AuditId,
    /// Of records with this number or a higher one; `None` when there was no page before.
    since: Option<u64>,
    /// From this id on the store has what the log has, and gave it.
    kept_from: Option<AuditId>,
}

impl Seen {
    fn is_new(&self, seq: u64, listed: &Listed) -> bool {
        let is_late = self.since.is_some_and(|since| since <= seq);
        let id = AuditId::parse(&listed.id).unwrap_or(self.before);
        let is_kept = self.kept_from.is_some_and(|kept| kept <= id);
        !is_kept && (!is_late || id < self.before)
    }
}

/// Whether nothing of a bundle can be meant.
fn is_outside(wanted: (Option<Moment>, Option<Moment>), has: (Moment, Moment)) -> bool {
    wanted.0.is_some_and(|from| has.1 < from) || wanted.1.is_some_and(|to| to < has.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let before = AuditId::draw(Revision::new(7));
        for (size, below) in [(None, None), (Some(3), None), (Some(3), Some(0))] {
            let cursor = Cursor { before, size, below };
            assert_eq!(Cursor::parse(&cursor.write()), Some(cursor));
        }
        for bad in ["", "x", ".1", "0000000000000001-0000000000000001.x"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
        assert_eq!(Cursor::parse(&format!("{before}.1.2.3")), None);
    }
}
