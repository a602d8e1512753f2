//! Coming into a queue, and leaving it when nobody knows whether one came in.

use std::time::Duration;

use mainstay_store::{
    Answer, Applied, Batch, Compare, Error, Get, Key, LeaseId, Op, Page, Put, Range, Revision,
};

use super::desk::{Desk, whole};
use super::error::LockError;
use super::line::{Line, Waiter};
use super::record::Record;
use super::request::{Request, Wait, Want};
use super::{COUNT_MAX, QUEUE_MAX};
use crate::keys::{self, Area, Slot};
use crate::patience::Patience;
use crate::session::{Owner, SessionError};

/// Tries that somebody else's writes may beat one right after the other. That happens when the base
/// of tokens is not known yet, and when another request of the session is settled.
const BEATEN_MAX: u32 = 3;

/// A request that stands in the queue.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) line: Line,
    pub(super) key: Key,
    pub(super) created: Revision,
}

impl Desk {
    /// Puts `request` into the queue, or counts it once more where its session is already.
    pub(super) async fn enter(
        &self,
        session: LeaseId,
        request: &Request,
    ) -> Result<Entered, LockError> {
        let key = self.slot(session, request);
        let sessions = self.ground.sessions();
        let mut patience = Patience::new(self.ground.now(), Patience::FOR_CALLERS);
        let (owner, mut settled) = sessions.owner(session).await?;
        let mut beaten = 0;
        loop {
            let applied = self.first(&key, session, settled, &owner, request).await;
            let applied = match applied {
                Ok(applied) => applied,
                Err(Error::OutcomeUnknown) => {
                    settled = sessions.settle(session).await?;
                    continue;
                }
                Err(error @ Error::LeaseNotFound { .. }) => {
                    return Err(SessionError::of(session, error).into());
                }
                Err(error) => {
                    self.ground.bear(&mut patience, error).await?;
                    continue;
                }
            };
            let (succeeded, created) = (applied.succeeded, applied.revision);
            let line = self.line(page_of(applied)?).await?;
            if succeeded && QUEUE_MAX < line.waiters().len() {
                let total = Patience::FOR_CALLERS;
                self.withdraw((&key, created), request, None, total).await?;
                return Err(LockError::busy(&line, None));
            }
            if succeeded {
                return Ok(Entered { line, key, created });
            }
            if let Some(own) = line.find(&key) {
                let created = own.created;
                match self.again(own, (session, settled), request).await {
                    // Read anew: what was counted shows, and so does whose turn it is.
                    Ok(true) => return Ok(Entered { line: self.read().await?, key, created }),
                    Ok(false) => {}
                    Err(LockError::Store(error)) => self.ground.bear(&mut patience, error).await?,
                    Err(error) => return Err(error),
                }
            } else if only_if_free(request) && !line.waiters().is_empty() {
                return Err(LockError::busy(&line, None));
            }
            // Somebody wrote the session or the base of tokens, or the queue emptied meanwhile.
            beaten += 1;
            if BEATEN_MAX < beaten {
                let busy = Error::Busy { retry_after: Duration::ZERO };
                self.ground.bear(&mut patience, busy).await?;
            }
            (_, settled) = sessions.owner(session).await?;
            self.ground.read_fence().await?;
        }
    }

    /// Puts a first place into the queue, and reads the queue in the same batch.
    async fn first(
        &self,
        key: &Key,
        session: LeaseId,
        settled: Revision,
        owner: &Owner,
        request: &Request,
    ) -> Result<Applied, Error> {
        let fence = self.ground.fence();
        let record =
            Record::new(request, owner.clone(), fence.base, self.ground.timer().unix_millis());
        let mut batch = Batch::new()
            .when(Compare::missing(key))
            .when(Compare::unchanged_since(&keys::session(session), settled))
            .when(fence.guard())
            .then(Put::new(key.clone(), record.write()).lease(session))
            .then(Op::Range(whole(&self.place)))
            .otherwise(Op::Range(whole(&self.place)));
        if only_if_free(request) {
            batch = batch.when(nobody_in(self.place.queue()));
        }
        self.ground.store().apply(batch).await
    }

    /// Counts `request` once more at the place its session has, or takes over what was counted when
    /// it was asked for before; `false` when that place changed meanwhile, or the key of the
    /// session, last written at `settled`.
    async fn again(
        &self,
        own: &Waiter,
        (session, settled): (LeaseId, Revision),
        request: &Request,
    ) -> Result<bool, LockError> {
        let record = self.readable(own)?;
        if record.knows(&request.id) {
            if record.is_of(request) || record.bound_gid.is_some() {
                return Ok(true);
            }
            // Whatever is still to be put away of the time before finds that it is not its own.
            let mut next = record.clone();
            next.claim(request);
            return self.write(own, (session, settled), &next).await;
        }
        if let Some(gid) = &record.bound_gid {
            return Err(LockError::Bound { gid: gid.clone() });
        }
        let count = record.count;
        if !request.reentrant || COUNT_MAX <= count || matches!(request.want, Want::Permits { .. })
        {
            return Err(LockError::AlreadyHeld { count });
        }
        if own.want() == Want::Shared && request.want == Want::Exclusive {
            return Err(LockError::UpgradeRefused);
        }
        let mut next = record.clone();
        next.take(&request.id);
        next.claim(request);
        self.write(own, (session, settled), &next).await
    }

    /// Writes `next` where `own` stands, if it stands there as it was read.
    async fn write(
        &self,
        own: &Waiter,
        (session, settled): (LeaseId, Revision),
        next: &Record,
    ) -> Result<bool, LockError> {
        let batch = Batch::new()
            .when(Compare::unchanged_since(&own.key, own.modified))
            .when(Compare::unchanged_since(&keys::session(session), settled))
            .then(Put::new(own.key.clone(), next.write()).keep_lease());
        // Should the outcome be unknown: whoever reads again sees what was written, or sends this
        // very batch again, of whose copies only one can be applied.
        Ok(self.ground.store().apply(batch).await?.succeeded)
    }

    /// Undoes a request of which nothing is known: whether it came into the queue, or was counted.
    pub(super) async fn sweep(&self, session: LeaseId, request: &Request) -> Result<(), LockError> {
        let mut patience = Patience::new(self.ground.now(), Patience::FOR_CLEANING);
        let key = self.slot(session, request);
        loop {
            // From here on no batch of the request can be applied any more.
            let error = match self.ground.sessions().settle(session).await {
                Ok(_revision) => match self.ground.store().get(Get::new(key.clone())).await {
                    Ok(got) => {
                        let Some(entry) = got.entry else { return Ok(()) };
                        let created = entry.create_revision;
                        let total = Patience::FOR_CLEANING;
                        return self.withdraw((&key, created), request, None, total).await;
                    }
                    Err(error) => error,
                },
                Err(SessionError::Store(error)) => error,
                // Its places went with it.
                Err(SessionError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.ground.bear(&mut patience, error).await?;
        }
    }

    /// The key of the place `request` has, or would have.
    pub(super) fn slot(&self, session: LeaseId, request: &Request) -> Key {
        let of_request = self.place.area == Area::Semaphore;
        let request = of_request.then(|| request.id.clone());
        self.place.slot(&Slot { session, request })
    }
}

/// Whether the request is written at all only when the queue is empty: one who tries for something
/// exclusive leaves nothing behind, not even a revision, when it is busy.
const fn only_if_free(request: &Request) -> bool {
    matches!((request.wait, request.want), (Wait::Try, Want::Exclusive))
}

/// Holds while no key lies in `range`: an empty range compares as a missing key.
pub(super) fn nobody_in(range: Range) -> Compare {
    let target = mainstay_store::Target::CreateRevision(Revision::NEVER);
    Compare { range, target, operator: mainstay_store::Operator::Equal }
}

/// The page a batch has read last.
fn page_of(applied: Applied) -> Result<Page, Error> {
    let page = applied.answers.into_iter().next_back().and_then(|answer| match answer {
        Answer::Range(page) => Some(page),
        Answer::Put { .. } | Answer::Delete { .. } => None,
    });
    page.ok_or_else(|| Error::Unavailable { why: "a batch was not answered in full".to_owned() })
}
