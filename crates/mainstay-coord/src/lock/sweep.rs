//! Forgetting how things were held that nobody uses any more.
//!
//! Each release leaves a note, `…/last`, so that a lock shows who had it last. Locks are named after
//! what they protect, orders for instance, so there is no end to names; a note is removed a day
//! after it was written, if nobody holds the thing or waits for it.
//!
//! Nothing rests on a note but what is shown and the lock delay. Tokens do not: they are revisions,
//! and rise whatever is removed. A note that says `granted` is never removed: where its holder has
//! vanished and nobody has asked since, it is all that tells the next one to wait. The sweep lets
//! that wait begin instead, as the next one would have.

use std::collections::HashSet;
use std::time::Duration;

use mainstay_store::limits::COMPARES_MAX;
use mainstay_store::{Batch, Compare, Entry, Op, Select};

use super::desk::Desk;
use super::enter::nobody_in;
use super::record::{Past, Reason};
use super::{LockError, Locks};
use crate::duty::{self, Duty};
use crate::events::{NotesSwept, SweepFailed};
use crate::keys::{self, Area, Place};
use crate::session::Owner;

/// How long a note stands at least, by the wall clock: it says no more than how long something is
/// shown. A day is enough to look into what happened last night.
const KEPT: Duration = Duration::from_hours(24);

/// When a node that has just got the duty sweeps: not while it starts.
const FIRST: Duration = Duration::from_mins(10);

/// How often is swept. At a thousand new names a second that is 3.6 million notes at most beside
/// those of the day.
const EVERY: Duration = Duration::from_hours(1);

/// Notes removed by one batch, each with three compares.
const AT_ONCE: usize = COMPARES_MAX / 3;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Notes removed.
    pub notes: usize,
    /// Lock delays begun, after holders whom nobody saw vanish.
    pub delays: usize,
}

/// A note nobody needs, as it was read.
struct Old<'a> {
    place: Place,
    entry: &'a Entry,
}

impl Locks {
    /// Stands for the duty of sweeping, as `owner`, until [`Coordination::shutdown`]. Must be called
    /// within a tokio runtime.
    ///
    /// [`Coordination::shutdown`]: crate::Coordination::shutdown
    pub fn keep_swept(&self, owner: Owner) {
        let locks = self.clone();
        self.ground().tasks().spawn("lock sweeper", move |stop| async move {
            let work = || sweep_for_ever(locks.clone());
            duty::run(locks.ground(), Duty::Locks, owner, stop, work).await;
        });
    }

    /// Removes the notes that are a day old at `unix_ms` by the wall clock, and of which nobody
    /// holds the thing or waits for it. One node does so by itself once an hour.
    ///
    /// # Errors
    ///
    /// What the store said; what was removed before stays removed.
    ///
    /// # Cancel safety
    ///
    /// As on an error.
    pub async fn sweep(&self, unix_ms: u64) -> Result<Swept, LockError> {
        let mut swept = Swept::default();
        for area in Area::ALL {
            let mut range = keys::area(area, None);
            loop {
                let page = self.page(Select::new(range.clone())).await?;
                self.sweep_some(&page.entries, unix_ms, &mut swept).await?;
                match page.entries.last() {
                    Some(last) if page.more => range = range.after(&last.key),
                    _ => break,
                }
            }
        }
        Ok(swept)
    }

    /// Sweeps one page. Whether a queue that begins on the next one is empty is left to the
    /// compares.
    async fn sweep_some(
        &self,
        entries: &[Entry],
        unix_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), LockError> {
        let slots = entries.iter().filter_map(|entry| keys::parse_slot(&entry.key));
        let used: HashSet<Place> = slots.map(|(place, _)| place).collect();
        let mut old = Vec::new();
        for entry in entries {
            let Some(place) = keys::parse_last(&entry.key) else { continue };
            // What a newer version wrote is left alone.
            let Some(past) = Past::read(entry).filter(|_| !used.contains(&place)) else { continue };
            if past.reason == Reason::Granted {
                swept.delays += usize::from(self.follow_up(place).await?);
            } else if KEPT.as_millis() <= unix_ms.saturating_sub(past.unix_ms).into() {
                old.push(Old { place, entry });
            }
        }
        for some in old.chunks(AT_ONCE) {
            if self.remove(some).await? {
                swept.notes += some.len();
                continue;
            }
            // Of one of them somebody makes use again.
            for one in some.chunks(1) {
                swept.notes += usize::from(self.remove(one).await?);
            }
        }
        Ok(())
    }

    /// Removes `notes`, if all of them are as they were read and nobody makes use of them.
    async fn remove(&self, notes: &[Old<'_>]) -> Result<bool, LockError> {
        let mut batch = Batch::new();
        for Old { place, entry } in notes {
            batch = batch
                .when(Compare::unchanged_since(&entry.key, entry.mod_revision))
                .when(Compare::missing(&place.delay()))
                .when(nobody_in(place.queue()))
                .then(Op::delete(&entry.key));
        }
        Ok(self.ground().store().apply(batch).await?.succeeded)
    }

    /// Lets the lock delay of `place` begin if its holder has vanished; returns whether it has.
    async fn follow_up(&self, place: Place) -> Result<bool, LockError> {
        let desk = Desk::new(self.ground().clone(), place);
        let line = desk.read().await?;
        let Some(vanished) = line.vanished() else { return Ok(false) };
        desk.begin_delay(&line, vanished).await?;
        Ok(true)
    }
}

async fn sweep_for_ever(locks: Locks) {
    let timer = locks.ground().timer();
    let mut wait = FIRST;
    loop {
        timer.sleep_until(timer.now().plus(wait)).await;
        wait = EVERY;
        match locks.sweep(timer.unix_millis()).await {
            Ok(Swept { notes: 0, delays: 0 }) => {}
            Ok(Swept { notes, delays }) => NotesSwept { notes, delays }.emit(),
            Err(error) => {
                SweepFailed { error: &error }.emit();
                wait = FIRST;
            }
        }
    }
}
