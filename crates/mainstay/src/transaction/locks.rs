//! Locks that transactions hold: released when their transaction has ended.
//!
//! Which locks a transaction holds is told by the locks alone, so they are all looked through; once
//! for all transactions that ended meanwhile, however many those are. A sweep finds what was bound
//! to a transaction after its end, or whose end was missed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_coord::lock::{BoundPlace, LockError, Locks};
use mainstay_txn::Gid;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Coordinators;
use super::events::SweepFailed;
use crate::report::causes;
use mainstay_core::Instant;

/// Ends that may wait: as many as the log takes in four seconds.
const WAITING_MAX: usize = 8_192;

/// How often locks are looked through for ends that were missed.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

type Told = oneshot::Sender<Result<(), String>>;

/// Hands over transactions that have ended.
#[derive(Clone, Debug)]
pub(super) struct Ends(mpsc::Sender<(String, Told)>);

/// Takes them.
#[derive(Debug)]
pub(super) struct Ended(mpsc::Receiver<(String, Told)>);

pub(super) fn ends() -> (Ends, Ended) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Ends(sender), Ended(receiver))
}

impl Ends {
    /// Releases what `gid` holds.
    ///
    /// # Errors
    ///
    /// What was in the way: it is asked for again.
    ///
    /// # Cancel safety
    ///
    /// It goes on, and doing it twice does no harm.
    pub(super) async fn release(&self, gid: &Gid) -> Result<(), String> {
        let gone = || "the process is ending".to_owned();
        let (told, answer) = oneshot::channel();
        self.0.send((gid.as_str().to_owned(), told)).await.map_err(|_ended| gone())?;
        answer.await.map_err(|_ended| gone())?
    }
}

/// Releases what ended transactions hold, until told to stop.
pub(super) async fn run(mut ended: Ended, locks: Locks, stop: CancellationToken) {
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            _some = ended.0.recv_many(&mut waiting, WAITING_MAX) => {}
            () = stop.cancelled() => return,
        }
        if waiting.is_empty() {
            return;
        }
        let gids: BTreeSet<&str> = waiting.iter().map(|(gid, _)| gid.as_str()).collect();
        let done = release(&locks, |place| gids.contains(place.gid.as_str())).await;
        let done = done.map_err(|error| causes(&error));
        for (_, told) in waiting {
            drop(told.send(done.clone())); // Whoever went away asks again.
        }
    }
}

/// Ends all places that `is_over` says so of.
async fn release(locks: &Locks, is_over: impl Fn(&BoundPlace) -> bool) -> Result<(), LockError> {
    let mut after = None;
    loop {
        let page = locks.bound(after.as_ref()).await?;
        for place in page.places.iter().filter(|place| is_over(place)) {
            locks.finish(place).await?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Looks through all locks from time to time, until told to stop. A transaction that is not known
/// may still be about to begin: its locks go when it could not any more, after `patience`.
pub(super) async fn sweep(
    locks: Locks,
    coordinators: Coordinators,
    patience: Duration,
    now: impl Fn() -> Instant,
    stop: CancellationToken,
) {
    let mut unknown: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = swept(&locks, &coordinators, (patience, now()), &mut unknown).await {
            SweepFailed { error: &causes(&error) }.emit();
        }
    }
}

async fn swept(
    locks: &Locks,
    coordinators: &Coordinators,
    (patience, now): (Duration, Instant),
    unknown: &mut BTreeMap<String, Instant>,
) -> Result<(), LockError> {
    let Some(coordinator) = coordinators.get() else { return Ok(()) };
    let mut after = None;
    let mut bound = BTreeSet::new();
    loop {
        let page = locks.bound(after.as_ref()).await?;
        bound.extend(page.places.iter().map(|place| place.gid.as_str().to_owned()));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    unknown.retain(|gid, _| bound.contains(gid));
    let mut over = BTreeSet::new();
    for gid in bound {
        let is_over = match Gid::new(&gid) {
            // No transaction is called so, nor ever will be.
            Err(_no_gid) => true,
            Ok(named) => match coordinator.get(&named).await {
                Ok(seen) => seen.transaction.state().is_final(),
                Err(mainstay_txn::run::VerbError::Unknown { .. }) => {
                    let since = *unknown.entry(gid.clone()).or_insert(now);
                    patience <= now.since(since)
                }
                // Another node's, or nobody knows at the moment.
                Err(_) => false,
            },
        };
        if is_over {
            over.insert(gid);
        }
    }
    if over.is_empty() {
        return Ok(());
    }
    release(locks, |place| over.contains(place.gid.as_str())).await
}
