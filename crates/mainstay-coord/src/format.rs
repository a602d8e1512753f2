//! Which format the records of a store have, and who may use them.
//!
//! `meta/format` is the first key of a store, and the last that a copy writes. So a store with other
//! keys but without this one is either the half of a copy, or older than the key itself (format 0).
//! A store of one node cannot be the half of a copy, since its file gets its name when it is whole;
//! what can only be told where the backend is known is left to whoever knows it.

use mainstay_core::problem::Code;
use mainstay_store::{Batch, Compare, Error, Get, Operator, Put, Range, Revision, Store, Target};

use crate::keys;

/// The format this version writes.
pub const FORMAT: u64 = 1;

/// How a store stands to this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has the format of this version; one that was empty has been given it.
    Current,
    /// It has an older one: [`upgrade`] it before anything else reads it.
    Older(u64),
    /// It has keys and says no format.
    Unmarked,
}

/// Why a store cannot be used by this version.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A newer version wrote it.
    #[error("the records of the store have format {found}, and this version knows {FORMAT}")]
    Newer {
        /// Their format.
        found: u64,
    },
    /// `meta/format` holds something else than a number.
    #[error("`meta/format` holds no number")]
    Unreadable,
    /// The store could not be asked or changed.
    #[error("the format of the store cannot be settled")]
    Store(#[from] Error),
}

impl FormatError {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Newer { .. } => Code::StoreFormatNewer,
            Self::Unreadable => Code::StoreCorrupt,
            Self::Store(error) => error.code(),
        }
    }
}

/// Looks which format `store` has. An empty store gets the one of this version.
///
/// # Errors
///
/// [`FormatError`].
///
/// # Cancel safety
///
/// Whether an empty store gets its format is open; calling again does no harm.
pub async fn look(store: &dyn Store) -> Result<Found, FormatError> {
    if let Some(format) = read(store).await? {
        return judged(format);
    }
    // Only when no key at all is there: not while a copy fills it, or another node has been here.
    let mark = Batch::new().when(nothing()).then(Put::new(keys::format(), FORMAT.to_string()));
    match store.apply(mark).await {
        // What became of it is read.
        Ok(_) | Err(Error::OutcomeUnknown) => {}
        Err(error) => return Err(error.into()),
    }
    read(store).await?.map_or(Ok(Found::Unmarked), judged)
}

const fn judged(format: u64) -> Result<Found, FormatError> {
    match format {
        FORMAT => Ok(Found::Current),
        newer if FORMAT < newer => Err(FormatError::Newer { found: newer }),
        older => Ok(Found::Older(older)),
    }
}

/// Brings `store` from format `from` to that of this version, one batch a kind of record, each of
/// which compares the format it was made for. Take a snapshot first: there is no way back.
///
/// # Errors
///
/// [`FormatError`]; what was brought forward stays so, and calling again goes on.
///
/// # Cancel safety
///
/// As after an error.
pub async fn upgrade(store: &dyn Store, from: u64) -> Result<(), FormatError> {
    // Format 1 has the records of format 0; it only says so. A later format adds its batches here.
    let expected = match from {
        0 => Compare::missing(&keys::format()),
        older => Compare::value(&keys::format(), older.to_string()),
    };
    let mark = Batch::new().when(expected).then(Put::new(keys::format(), FORMAT.to_string()));
    match store.apply(mark).await {
        Ok(_) | Err(Error::OutcomeUnknown) => {}
        Err(error) => return Err(error.into()),
    }
    match read(store).await? {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(FormatError::Newer { found }),
        None => Err(Error::OutcomeUnknown.into()),
    }
}

async fn read(store: &dyn Store) -> Result<Option<u64>, FormatError> {
    let entry = store.get(Get::new(keys::format())).await?.entry;
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.trim().parse().ok();
    entry.map(|entry| number(&entry.value).ok_or(FormatError::Unreadable)).transpose()
}

/// Holds in a store without a key.
fn nothing() -> Compare {
    let target = Target::CreateRevision(Revision::NEVER);
    Compare { range: Range::all(), target, operator: Operator::Equal }
}

#[cfg(test)]
mod tests {
    use mainstay_core::ManualClock;
    use mainstay_store::Memory;

    use super::*;

    /// A store with `keys`, each with a value.
    async fn with(keys: &[(&str, &str)]) -> Memory {
        let store = Memory::new(ManualClock::default());
        for (key, value) in keys {
            let put = Put::new((*key).try_into().unwrap(), (*value).to_owned());
            store.apply(Batch::new().then(put)).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn only_an_empty_store_is_given_the_format_unasked() {
        let empty = with(&[]).await;
        assert_eq!(look(&empty).await.unwrap(), Found::Current);
        assert_eq!(look(&empty).await.unwrap(), Found::Current, "it stays");
        let half = with(&[("svc/default/web", "{}")]).await;
        assert_eq!(look(&half).await.unwrap(), Found::Unmarked);
        assert_eq!(read(&half).await.unwrap(), None, "nothing was written");
    }

    #[tokio::test]
    async fn a_newer_store_is_refused_and_an_older_one_brought_forward() {
        let newer = with(&[("meta/format", "2")]).await;
        let refused = look(&newer).await.unwrap_err();
        assert_eq!(refused.code(), Code::StoreFormatNewer);
        let (older, unmarked) = (with(&[("meta/format", "0")]).await, with(&[("a", "1")]).await);
        assert_eq!(look(&older).await.unwrap(), Found::Older(0));
        assert!(upgrade(&older, 0).await.is_err(), "0 is a store without the key");
        upgrade(&unmarked, 0).await.unwrap();
        assert_eq!(look(&unmarked).await.unwrap(), Found::Current);
        let damaged = with(&[("meta/format", "one")]).await;
        assert_eq!(look(&damaged).await.unwrap_err().code(), Code::StoreCorrupt);
    }
}
