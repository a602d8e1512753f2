//! Reading records at one revision.

use std::num::NonZeroU32;

use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{Entry, Error, Get, Key, Range, RangeRequest, Revision, Select, Store};
use serde::de::DeserializeOwned;

use super::error::CentreError;
use super::record::{self, Head, Release};
use super::shared::Shared;
use crate::keys::GroupRef;

/// A group as the store has it at one revision.
#[derive(Debug)]
pub(super) struct Ground {
    /// The revision of all this.
    pub(super) at: Revision,
    pub(super) head: Head,
    /// When the head was written; [`Revision::NEVER`] when nothing was published.
    pub(super) written: Revision,
    /// The release in force.
    pub(super) base: Release,
}

impl Shared {
    /// Reads a group; one that nobody published is empty.
    pub(super) async fn ground(&self, group: &GroupRef) -> Result<Ground, CentreError> {
        let got = self.store.get(Get::new(group.head())).await?;
        let at = got.revision;
        let Some(entry) = got.entry else {
            let (head, base) = (Head::default(), Release::default());
            return Ok(Ground { at, head, written: Revision::NEVER, base });
        };
        let head: Head = parse(&entry, || format!("head of group {group}"))?;
        let (base, _) = self.release(group, head.release, Some(at)).await?;
        Ok(Ground { at, head, written: entry.mod_revision, base })
    }

    /// A group that somebody published.
    pub(super) async fn published(&self, group: &GroupRef) -> Result<Ground, CentreError> {
        let ground = self.ground(group).await?;
        if ground.written == Revision::NEVER {
            return Err(CentreError::GroupNotFound { group: group.clone() });
        }
        Ok(ground)
    }

    /// A release, and when its record was written.
    pub(super) async fn release(
        &self,
        group: &GroupRef,
        release: u64,
        at: Option<Revision>,
    ) -> Result<(Release, Revision), CentreError> {
        let mut get = Get::new(group.release(release));
        get.at = at;
        let missing = || CentreError::ReleaseNotFound { group: group.clone(), release };
        let entry = self.store.get(get).await?.entry.ok_or_else(missing)?;
        let record = parse(&entry, || format!("release {release} of group {group}"))?;
        Ok((record, entry.mod_revision))
    }

    /// When `key` was written, as of `at`.
    pub(super) async fn written(&self, key: &Key, at: Revision) -> Result<Revision, CentreError> {
        let mut get = Get::new(key.clone());
        get.at = Some(at);
        let entry = self.store.get(get).await?.entry;
        Ok(entry.map_or(Revision::NEVER, |entry| entry.mod_revision))
    }
}

/// The record in `entry`.
pub(super) fn parse<T: DeserializeOwned>(
    entry: &Entry,
    what: impl Fn() -> String,
) -> Result<T, CentreError> {
    record::read(&entry.value).ok_or_else(|| CentreError::Unreadable { what: what() })
}

/// Shows every entry of `range` at one revision to `take`, page by page, so that no more than a
/// page is held; returns that revision.
///
/// # Cancel safety
///
/// Safe: it only reads.
pub(super) async fn each(
    store: &dyn Store,
    mut range: Range,
    keys_only: bool,
    at: Option<Revision>,
    mut take: impl FnMut(Entry),
) -> Result<Revision, Error> {
    let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
    let mut at = at;
    loop {
        let mut select = Select::new(range.clone()).limit(limit);
        select.keys_only = keys_only;
        let mut request = RangeRequest::new(select);
        request.at = at;
        let page = store.range(request).await?;
        let revision = *at.get_or_insert(page.revision);
        let last = page.entries.last().map(|entry| entry.key.clone());
        page.entries.into_iter().for_each(&mut take);
        match last {
            Some(last) if page.more => range = range.after(&last),
            _ => return Ok(revision),
        }
    }
}
