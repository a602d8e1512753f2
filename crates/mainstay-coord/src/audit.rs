//! The audit outbox: who did what, put by the batch that does it.
//!
//! A change and its record are one batch, so there is no change without a record and no record
//! without a change, whatever fails in between. A record is a key of its own ([`AuditId`]), and
//! its id is drawn before the batch is first sent: sent again, it is the same record.
//!
//! The outbox is where records wait for the tamper-evident log, which takes them over in order
//! ([`waiting`](Outbox::waiting)) and has them deleted once they are durable there
//! ([`taken`](Outbox::taken)). Every node counts. At 100,000 records or 64 MiB nothing is changed
//! any more: [`Outbox::admit`]. Where records are not required the newest so many are kept instead,
//! and the first node to find a hundredth too much trims the oldest, which is counted for all to see.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | a record; what is shown of a secret | [`record`], [`mask`] | – |
//! | how full the outbox is | [`tally`] | decides |
//! | floods of equal refusals | `fold` | decides |
//! | counting and trimming; reading newest first; putting refusals | `keep`, [`list`], `refusals` | act |
//! | handing over to the log; heads of logs | [`hand_over`] | acts |

pub mod error;
pub mod figures;
mod fold;
pub mod hand_over;
mod keep;
pub mod list;
pub mod mask;
pub mod record;
mod refusals;
pub mod tally;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Batch, Put, Revision, Store};
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use crate::clock::Timer;
use crate::keys::{self, AuditId};
use crate::moment::Moment;
use crate::patience::Patience;
use crate::tasks::Tasks;
use figures::Figures;
use tally::{Limits, Tally};

pub use error::AuditError;
pub use hand_over::{Holder, Waiting};
pub use list::{Elsewhere, Filter, Listed, Page};
pub use mask::Mask;
pub use record::{Actor, Author, Outcome, ReasonInvalid, Record, Target};

/// Where audit records wait for the log. Clones share everything.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    timer: Arc<dyn Timer>,
    limits: Limits,
    mask: RwLock<Arc<Mask>>,
    tasks: Tasks,
    figures: Figures,
    tally: watch::Sender<Tally>,
    /// Records that nobody waits for.
    refusals: mpsc::Sender<Record>,
}

impl Shared {
    fn counted(&self, tally: Tally) {
        self.tally.send_replace(tally);
        self.figures.holds(tally);
    }

    fn moment(&self) -> Moment {
        Moment::from_unix_millis(self.timer.unix_millis())
    }
}

impl Outbox {
    /// The outbox of `store`, counted and trimmed until [`shutdown`](Outbox::shutdown). Secrets
    /// are masked by `mask`. Must be called within a tokio runtime.
    pub fn start(store: Arc<dyn Store>, timer: Arc<dyn Timer>, mask: Mask, limits: Limits) -> Self {
        let (tasks, figures) = (Tasks::default(), Figures::default());
        let (refusals, came) = mpsc::channel(refusals::WAITING_MAX);
        let (tally, mask) = (watch::Sender::default(), RwLock::new(Arc::new(mask)));
        let shared = Shared { store, timer, limits, mask, tasks, figures, tally, refusals };
        let shared = Arc::new(shared);
        let (keeper, putter) = (Arc::clone(&shared), Arc::clone(&shared));
        shared.tasks.spawn("audit outbox", move |stop| keep::run(keeper, stop));
        shared.tasks.spawn("audit refusals", move |stop| refusals::run(putter, came, stop));
        Self { shared }
    }

    /// Whether `author` may make a change now: whoever makes one asks first.
    ///
    /// # Errors
    ///
    /// [`AuditError::Reason`] when the reason is none; [`AuditError::Unavailable`] when records
    /// pile up.
    pub fn admit(&self, author: &Author) -> Result<(), AuditError> {
        author.check()?;
        let found = self.tally();
        if found.is_overrun(self.shared.limits) {
            self.shared.figures.refused();
            return Err(AuditError::Unavailable { found });
        }
        Ok(())
    }

    /// The record of what `author` does to `target` now.
    pub fn record(&self, action: &str, target: Target, author: &Author) -> Record {
        Record::done(self.shared.moment(), action, target, author)
    }

    /// The operation that puts `record`, for the batch that makes the change it tells of. `decided`
    /// is the revision of the store the change was decided at.
    pub fn put(&self, decided: Revision, record: &Record) -> Put {
        put(decided, record)
    }

    /// Puts a record of something that changes nothing in the store: a refusal, a login. Sent
    /// again after an unknown outcome it is the same record.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether the record is put is open.
    pub async fn note(&self, record: &Record) -> Result<(), AuditError> {
        note(&*self.shared.store, &*self.shared.timer, record).await
    }

    /// Keeps a record of something that no batch of the store is part of (what was refused or did
    /// not work, what was read, what one process does to itself), within a second and as well as can
    /// be: nobody waits for it. More than 100 equal ones within a minute become one record. What
    /// finds no room is counted.
    pub fn tell(&self, record: Record) {
        let Shared { limits, refusals, figures, .. } = &*self.shared;
        if self.tally().is_overrun(*limits) || refusals.try_send(record).is_err() {
            figures.lost(1);
        }
    }

    /// What is shown of secrets.
    pub fn mask(&self) -> Arc<Mask> {
        Arc::clone(&self.shared.mask.read())
    }

    /// Goes on with another mask: that of a keyring that was rotated.
    pub fn use_mask(&self, mask: Mask) {
        *self.shared.mask.write() = Arc::new(mask);
    }

    /// What there is, as this node knows it.
    pub fn tally(&self) -> Tally {
        *self.shared.tally.borrow()
    }

    /// What has been counted.
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Stops counting and trimming. Waits up to `grace`; returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }
}

pub(crate) fn put(decided: Revision, record: &Record) -> Put {
    Put::new(keys::audit(AuditId::draw(decided)), record.write())
}

/// As [`Outbox::note`], for whoever has a store and no node of it: what is done while it is stopped.
///
/// # Errors
///
/// What the store said.
///
/// # Cancel safety
///
/// Whether the record is put is open.
pub async fn note(store: &dyn Store, timer: &dyn Timer, record: &Record) -> Result<(), AuditError> {
    let mut patience = Patience::new(timer.now(), Patience::FOR_CALLERS);
    let mut drawn = None;
    loop {
        let done = async {
            let put = match &drawn {
                Some(put) => put,
                None => &*drawn.insert(put(store.status().await?.revision, record)),
            };
            store.apply(Batch::new().then(put.clone())).await
        };
        match done.await {
            Ok(_) => return Ok(()),
            Err(error) => patience.bear(timer, error).await?,
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("tally", &self.tally()).finish_non_exhaustive()
    }
}
