//! Old rows of barriers: participants write one for each operation, and nothing else deletes them.
//!
//! A row stops what comes twice, or after its undo, so it may go only once nothing can come any
//! more: its transaction is over, as the log says, and it is old. The table has no index by age, so
//! it is gone through by its key, a thousand rows a statement, from where the last round ended.
//!
//! Rows are deleted in parts, each committed before the next begins. `MariaDB` deletes row by row,
//! and may be far away: how many rows a part has follows from how long the last one took, so that a
//! round ends in time, and what it has done stays done, whoever gives up on it.

use std::time::Duration;

use mainstay_api::transaction::BarrierKey;

use super::failure::Failure;
use super::mark::NotAttested;
use super::sweep::{PAGE, Sweeper};
use crate::moment::Moment;
use crate::name::{Gid, ResourceName};
use crate::run::VerbError;

/// The least age of rows that may go: a call that was under way when its transaction ended has
/// arrived by then, or never will.
pub const PURGE_AGE_MIN: Duration = Duration::from_hours(1);

/// A round goes on for this long, and ends with the part it is at: an answer is waited for 10 s.
const ROUND: Duration = Duration::from_secs(3);

/// Rows of the first part: 5 s of them where a statement takes half a second.
const FIRST_PART: usize = 8;

/// What a part may take before the next one is smaller; in less than half of that it is larger.
const PART: Duration = Duration::from_millis(500);

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
    /// part ends the round, and the next one says what it is.
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
        self.coordinator.is_up_to_date().map_err(NotPurged::Behind)?;
        let mut round = Round {
            resource,
            age,
            until: self.surroundings.now().plus(ROUND),
            part: FIRST_PART,
            purged: Purged { next: Some(after), ..Purged::default() },
        };
        while let Some(after) = round.purged.next.clone() {
            match self.purge_page(&mut round, &after).await {
                Ok(()) => {}
                Err(error) if round.purged.rows == 0 => return Err(error),
                Err(_) => break,
            }
            if round.until <= self.surroundings.now() {
                break;
            }
        }
        Ok(round.purged)
    }

    /// Goes through the page behind `after`, as far as there is time; `round` says how far that was,
    /// also after an error.
    async fn purge_page(&self, round: &mut Round<'_>, after: &BarrierKey) -> Result<(), NotPurged> {
        let found = self.resources.barrier_rows(round.resource, round.age, after).await;
        let rows = found.map_err(NotPurged::Table)?;
        let is_last_page = rows.len() < PAGE;
        let mut rest = rows.as_slice();
        if rest.is_empty() {
            round.purged.next = None;
        }
        while !rest.is_empty() {
            let began = self.surroundings.now();
            let (part, others) = rest.split_at(round.part.min(rest.len()));
            self.purge_part(round, part).await?;
            rest = others;
            let is_last = is_last_page && rest.is_empty();
            round.purged.next = part.last().filter(|_| !is_last).map(|row| row.key.clone());
            let now = self.surroundings.now();
            round.part = next_part(round.part, now.since(began));
            if round.until <= now {
                break;
            }
        }
        Ok(())
    }

    async fn purge_part(
        &self,
        round: &mut Round<'_>,
        part: &[BarrierRow],
    ) -> Result<(), NotPurged> {
        self.coordinator.is_up_to_date().map_err(NotPurged::Behind)?;
        let old = part.iter().filter(|row| row.is_old).map(|row| row.key.clone());
        let (over, kept): (Vec<_>, Vec<_>) =
            old.partition(|key| Gid::new(&key.gid).is_ok_and(|gid| self.coordinator.is_over(&gid)));
        let deleted = self.resources.delete_barrier_rows(round.resource, round.age, &over).await;
        round.purged.deleted += deleted.map_err(NotPurged::Table)?;
        round.purged.rows += count(part.len());
        round.purged.kept += count(kept.len());
        Ok(())
    }
}

/// A round under way.
struct Round<'a> {
    resource: &'a ResourceName,
    age: Duration,
    until: Moment,
    /// Rows of the next part.
    part: usize,
    purged: Purged,
}

/// How many rows the next part has, after one of `rows` took so long.
fn next_part(rows: usize, took: Duration) -> usize {
    if PART < took {
        (rows / 2).max(1)
    } else if took < PART / 2 {
        (rows * 2).min(PAGE)
    } else {
        rows
    }
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farther_the_database_the_smaller_the_parts() {
        // Milliseconds of a row, and how many rows are deleted at once in the end.
        for (each, settles) in [(0, 1_000), (1, 256), (20, 16), (100, 4), (2_000, 1)] {
            let took = |rows: usize| Duration::from_millis(each * count(rows));
            let part = (0..20).fold(FIRST_PART, |rows, _| next_part(rows, took(rows)));
            assert_eq!(part, settles, "{each} ms a row");
        }
    }
}
