//! Old rows of barriers: participants write one for each operation, and nothing else deletes them.
//!
//! A row stops what comes twice, or after its undo, so it may go only once nothing can come any
//! more: its transaction is over, as the log says, and it is old. The table has no index by age, so
//! it is gone through by its key, a thousand rows a statement, from where the last round ended.

use std::time::Duration;

use mainstay_api::transaction::BarrierKey;

use super::failure::Failure;
use super::mark::NotAttested;
use super::sweep::{PAGE, Sweeper};
use crate::name::{Gid, ResourceName};
use crate::run::VerbError;

/// The least age of rows that may go: a call that was under way when its transaction ended has
/// arrived by then, or never will.
pub const PURGE_AGE_MIN: Duration = Duration::from_hours(1);

/// A round goes on for this long, and ends with the page it is at: an answer is waited for 10 s.
const ROUND: Duration = Duration::from_secs(3);

/// A row, and whether it is old.
#[derive(Clone, Debug)]
pub(super) struct BarrierRow {
    pub(super) key: BarrierKey,
    pub(super) is_old: bool,
}

/// What one round has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Rows looked at, of whatever age.
    pub rows: u64,
    /// Those that are gone.
    pub deleted: u64,
    /// Old ones that stay: of a transaction that is live, or that this node does not own, or of a
    /// gid that is not ours.
    pub kept: u64,
    /// Behind which row to go on; none when all were looked at.
    pub next: Option<BarrierKey>,
}

/// Why nothing more was deleted.
#[derive(Debug, thiserror::Error)]
pub enum NotPurged {
    /// It is not known whether the log knows all that lives.
    #[error(transparent)]
    NotAttested(NotAttested),
    /// It does not: it is behind what databases were told.
    #[error(transparent)]
    Behind(VerbError),
    /// The table could not be read, or not be written.
    #[error("barrier's rows cannot be purged")]
    Table(#[source] Failure),
}

impl Sweeper {
    /// Deletes rows of the barrier of `resource` that are older than `age`, and whose transaction
    /// this node owns and knows to be over, for a few seconds. What comes in the way after the first
    /// page ends the round, and the next one says what it is.
    ///
    /// # Errors
    ///
    /// [`NotPurged`]; nothing was deleted, unless the connection was lost meanwhile.
    ///
    /// # Cancel safety
    ///
    /// How many were deleted is open; what was not is found by another round.
    pub async fn purge_barrier(
        &self,
        resource: &ResourceName,
        age: Duration,
        after: BarrierKey,
    ) -> Result<Purged, NotPurged> {
        // Who lives is asked of the log, so that must know all that there is.
        self.attest(resource).await.map_err(NotPurged::NotAttested)?;
        let until = self.surroundings.now().plus(ROUND);
        let mut purged = Purged { next: Some(after), ..Purged::default() };
        while let Some(after) = &purged.next {
            let page = match self.purge_page(resource, age, after).await {
                Ok(page) => page,
                Err(error) if purged.rows == 0 => return Err(error),
                Err(_) => break,
            };
            purged.rows += page.rows;
            purged.deleted += page.deleted;
            purged.kept += page.kept;
            purged.next = page.next;
            if until <= self.surroundings.now() {
                break;
            }
        }
        Ok(purged)
    }

    async fn purge_page(
        &self,
        resource: &ResourceName,
        age: Duration,
        after: &BarrierKey,
    ) -> Result<Purged, NotPurged> {
        self.coordinator.is_up_to_date().map_err(NotPurged::Behind)?;
        let found = self.resources.barrier_rows(resource, age, after).await;
        let rows = found.map_err(NotPurged::Table)?;
        let is_last = rows.len() < PAGE;
        let next = rows.last().filter(|_| !is_last).map(|row| row.key.clone());
        let seen = count(rows.len());
        let old = rows.into_iter().filter(|row| row.is_old).map(|row| row.key);
        let (over, kept): (Vec<_>, Vec<_>) =
            old.partition(|key| Gid::new(&key.gid).is_ok_and(|gid| self.coordinator.is_over(&gid)));
        let deleted = self.resources.delete_barrier_rows(resource, age, &over).await;
        let deleted = deleted.map_err(NotPurged::Table)?;
        Ok(Purged { rows: seen, deleted, kept: count(kept.len()), next })
    }
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
