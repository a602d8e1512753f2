//! Everything of a range at one revision.

use std::num::NonZeroU32;

use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{Entry, Error, Range, RangeRequest, Revision, Select, Store};

/// Every entry of `range` at one revision, page by page.
///
/// # Errors
///
/// What the store said; [`Error::Compacted`] when that revision was compacted between two pages.
///
/// # Cancel safety
///
/// Safe: it only reads.
pub(crate) async fn list_all(
    store: &dyn Store,
    mut range: Range,
) -> Result<(Revision, Vec<Entry>), Error> {
    let limit = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("10,000");
    let (mut at, mut entries) = (None, Vec::new());
    loop {
        let mut request = RangeRequest::new(Select::new(range.clone()).limit(limit));
        request.at = at;
        let page = store.range(request).await?;
        let revision = *at.get_or_insert(page.revision);
        entries.extend(page.entries);
        match entries.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => return Ok((revision, entries)),
        }
    }
}
