//! The sweep: what databases hold prepared is held against the log, and ended as that says.
//!
//! Most branches are ended by whoever decided. The sweep is for the rest: begun and never heard of
//! again, since the coordinator that knew them died before it had written that down; prepared and
//! not among the votes; restored with a backup. What is to be done with one is decided by
//! [`verdict`](crate::receipt::verdict) over the log; here it is done. What is not ours is never
//! touched, only told of when it has held its locks for long.
//!
//! Receipts are deleted here too, once they are old and nothing that lives can ask for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::events::{Lingers, SweepFailed, Unvoted};
use super::failure::Failure;
use super::mark::{Covered, LogStanding, Standings};
use super::{Prepared, Resources};
use crate::commit::LogError;
use crate::database::{Listed, Xid};
use crate::machine::Outcome;
use crate::moment::Moment;
use crate::name::ResourceName;
use crate::port::Surroundings;
use crate::receipt::{ORPHAN_GRACE, Verdict};
use crate::run::{Coordinator, VerbError};
use crate::word::Decision;

/// A branch that holds its locks for longer is told of: ours after the first, others' after the
/// second.
const LINGERS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));

/// What a sweep goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepSettings {
    /// Between two sweeps of a database, give or take a fifth.
    pub interval: Duration,
    /// How long a branch that no record speaks of is left alone.
    pub orphan_grace: Duration,
    /// How long receipts are kept; no shorter than history is.
    pub receipt_retention: Duration,
}

impl Default for SweepSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            orphan_grace: ORPHAN_GRACE,
            receipt_retention: Duration::from_hours(24 * 7),
        }
    }
}

/// A prepared branch, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What the database lists.
    pub prepared: Prepared,
    /// How long it has been prepared, or has been seen here.
    pub seen_for: Duration,
    /// What was made of it.
    pub judged: Judged,
}

/// What a sweep makes of a prepared branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Another coordinator's, or somebody else's.
    Foreign,
    /// Another node owns its transaction, and judges it.
    Elsewhere,
    /// What the log says; `None` of the outcome where nothing was done about it here.
    Verdict(Verdict, Option<Outcome>),
    /// The log could not be asked.
    Unknown(String),
}

/// Sweeps the databases of a node.
pub struct Sweeper {
    pub(super) resources: Arc<Resources>,
    pub(super) coordinator: Coordinator,
    pub(super) surroundings: Arc<dyn Surroundings>,
    settings: SweepSettings,
    /// When a branch was first listed, and whether it was told of. Only what is still listed stays.
    seen: Mutex<BTreeMap<ResourceName, BTreeMap<String, Seen>>>,
    /// How the log stands beside what each was told.
    pub(super) standings: Mutex<Standings>,
    /// Held while the number of the log is raised.
    pub(super) covered: tokio::sync::Mutex<Covered>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Moment,
    is_told: bool,
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Sweeper {
    /// Of `resources`, by what `coordinator` knows.
    pub fn new(
        resources: Arc<Resources>,
        coordinator: Coordinator,
        surroundings: Arc<dyn Surroundings>,
        settings: SweepSettings,
    ) -> Self {
        Self {
            resources,
            coordinator,
            surroundings,
            settings,
            seen: Mutex::default(),
            standings: Mutex::default(),
            covered: tokio::sync::Mutex::default(),
        }
    }

    /// Sweeps `resource` again and again until it is told to stop. One loop a database, so that one
    /// that hangs keeps none of the others waiting.
    ///
    /// # Cancel safety
    ///
    /// Safe: whatever was under way is found by the next sweep.
    pub async fn keep_sweeping(&self, resource: &ResourceName, stop: CancellationToken) {
        loop {
            let nap = blurred(self.settings.interval, self.surroundings.draw());
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                () = stop.cancelled() => return,
            }
            let swept = async {
                self.sweep(resource, false).await?;
                self.forget_receipts(resource).await
            };
            tokio::select! {
                swept = swept => if let Err(error) = swept {
                    SweepFailed { resource: resource.as_str(), error: &error }.emit();
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks at what `resource` holds prepared and ends what the log says has ended; with
    /// `report_only`, or while the log is behind what any database was told, it only says what it
    /// would do.
    ///
    /// # Errors
    ///
    /// [`Failure`], when the database cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Safe: whatever was under way is found by the next sweep.
    pub async fn sweep(
        &self,
        resource: &ResourceName,
        report_only: bool,
    ) -> Result<Vec<Sighting>, Failure> {
        if report_only {
            return self.look_through(resource, true).await;
        }
        // Nobody is ended by a log that may lack what it speaks of.
        let is_held = !matches!(self.attest(resource).await, Ok(LogStanding::UpToDate));
        let swept = self.look_through(resource, is_held).await;
        self.resources.figures.saw(resource, swept.as_deref().ok());
        swept
    }

    async fn look_through(
        &self,
        resource: &ResourceName,
        report_only: bool,
    ) -> Result<Vec<Sighting>, Failure> {
        let listed = self.resources.prepared(resource).await?;
        let now = self.surroundings.now();
        self.note(resource, &listed, now);
        let mut sightings = Vec::with_capacity(listed.len());
        for prepared in listed {
            let seen_for = prepared.age.unwrap_or_else(|| self.seen_for(resource, &prepared, now));
            let judged = match &prepared.listed {
                Listed::Foreign => Judged::Foreign,
                Listed::Ours(xid) => self.judge(resource, xid, seen_for, report_only).await,
            };
            self.tell(resource, &prepared, seen_for, &judged);
            sightings.push(Sighting { prepared, seen_for, judged });
        }
        Ok(sightings)
    }

    async fn judge(
        &self,
        resource: &ResourceName,
        xid: &Xid,
        seen_for: Duration,
        report_only: bool,
    ) -> Judged {
        let found = (resource.clone(), xid.branch.clone());
        // Another database may have objected since the sweep began.
        let report_only = report_only || self.coordinator.is_behind();
        // Nobody may be taken for an orphan by a look: that is a decision, and written down.
        let is_orphan = report_only && self.settings.orphan_grace <= seen_for;
        // Nor while a database has not been heard that may have been told more than the log says.
        let is_sure = !report_only && self.all_up_to_date();
        let grace = if is_sure { self.settings.orphan_grace } else { Duration::MAX };
        let verdict = match self.coordinator.found_prepared(&xid.gid, found, seen_for, grace).await
        {
            Ok(verdict) => verdict,
            Err(VerbError::Log(LogError::NotOwner)) => return Judged::Elsewhere,
            Err(error) => return Judged::Unknown(error.to_string()),
        };
        if report_only {
            let is_absent = is_orphan && verdict == Verdict::Leave && self.is_absent(xid).await;
            return Judged::Verdict(if is_absent { Verdict::Orphan } else { verdict }, None);
        }
        let decision = match verdict {
            Verdict::Commit => Decision::Commit,
            Verdict::Rollback | Verdict::RollbackUnvoted => Decision::Abort,
            // The coordinator rolls back what it has just decided about.
            Verdict::Leave | Verdict::Orphan => return Judged::Verdict(verdict, None),
        };
        let outcome = self.resources.end(resource, xid, decision).await;
        Judged::Verdict(verdict, Some(outcome))
    }

    async fn is_absent(&self, xid: &Xid) -> bool {
        matches!(self.coordinator.get(&xid.gid).await, Err(VerbError::Unknown { .. }))
    }

    /// Notes what is listed for the first time, and forgets what is no longer.
    fn note(&self, resource: &ResourceName, listed: &[Prepared], now: Moment) {
        let mut seen = self.seen.lock();
        let before = seen.remove(resource).unwrap_or_default();
        let keep = |prepared: &Prepared| {
            let first = Seen { first: now, is_told: false };
            let known = before.get(&prepared.name).copied().unwrap_or(first);
            (prepared.name.clone(), known)
        };
        seen.insert(resource.clone(), listed.iter().map(keep).collect());
    }

    fn seen_for(&self, resource: &ResourceName, prepared: &Prepared, now: Moment) -> Duration {
        let seen = self.seen.lock();
        let known = seen.get(resource).and_then(|seen| seen.get(&prepared.name));
        known.map_or(Duration::ZERO, |known| now.since(known.first))
    }

    /// Tells the operator once of what holds its locks for long, or was not voted for.
    fn tell(&self, resource: &ResourceName, prepared: &Prepared, held: Duration, judged: &Judged) {
        let is_foreign = *judged == Judged::Foreign;
        let limit = if is_foreign { LINGERS.1 } else { LINGERS.0 };
        let unvoted = matches!(judged, Judged::Verdict(Verdict::RollbackUnvoted, _));
        if held < limit && !unvoted {
            return;
        }
        let mut seen = self.seen.lock();
        let known = seen.get_mut(resource).and_then(|seen| seen.get_mut(&prepared.name));
        let Some(known) = known.filter(|known| !known.is_told) else { return };
        known.is_told = true;
        let (resource, branch) = (resource.as_str(), prepared.name.as_str());
        if unvoted {
            Unvoted { resource, branch }.emit();
        } else {
            Lingers { resource, branch, held, is_foreign }.emit();
        }
    }

    /// Deletes receipts that are old, and whose transaction this node owns and knows to be over,
    /// until there are none or half of the time between two sweeps has gone by. Returns how many.
    /// None goes before the database has said that the log is up to date: one that is behind knows
    /// nothing of what lives, and an operator has to read the receipts.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    ///
    /// # Cancel safety
    ///
    /// Safe: what is not deleted is found by the next sweep.
    pub async fn forget_receipts(&self, resource: &ResourceName) -> Result<u64, Failure> {
        let is_fine = self.standing(resource) == Some(LogStanding::UpToDate);
        if !is_fine || self.coordinator.is_behind() {
            return Ok(0);
        }
        let until = self.surroundings.now().plus(self.settings.interval / 2);
        let (mut deleted, mut kept) = (0, 0);
        loop {
            let age = self.settings.receipt_retention;
            let old = self.resources.old_receipts(resource, age, kept).await?;
            let is_last = old.len() < PAGE;
            let (over, live): (Vec<_>, Vec<_>) = old.into_iter().partition(|(gid, _)| {
                crate::name::Gid::new(gid).is_ok_and(|gid| self.coordinator.is_over(&gid))
            });
            kept += live.len();
            deleted += self.resources.delete_receipts(resource, &over).await?;
            if is_last || until <= self.surroundings.now() {
                return Ok(deleted);
            }
        }
    }
}

/// Rows that one statement asks for.
pub(super) const PAGE: usize = 1_000;

/// `interval`, give or take a fifth: nodes that start together do not stay together.
fn blurred(interval: Duration, draw: u32) -> Duration {
    let part = f64::from(draw) / f64::from(u32::MAX);
    interval.mul_f64(0.8 + 0.4 * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_a_fifth_early_or_late_at_most() {
        let interval = Duration::from_secs(30);
        let [least, most] = [0, u32::MAX].map(|draw| blurred(interval, draw).as_millis());
        assert_eq!((least, most), (24_000, 36_000));
    }
}
