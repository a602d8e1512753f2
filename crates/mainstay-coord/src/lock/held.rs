//! Proof that something is held.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::belief::{Loss, Standing};
use mainstay_store::{Answer, Applied, Batch, Compare, Get, Key, Op, Revision};
use tokio::sync::oneshot;

use super::acquire::report;
use super::bound::{Bound, BoundPlace};
use super::desk::Desk;
use super::error::LockError;
use super::record::{Past, Reason, Token};
use super::request::{Grant, Released, Want};
use crate::coordination::Coordination;
use crate::keys::{self, Place};
use crate::name::{Gid, RequestId};
use crate::patience::Patience;
use crate::session::{Hold, HoldState, Session};
use crate::{events, presence};

/// Proof that something was granted to this process, and how long it is worth something.
///
/// Only a grant by the store makes one, so a function that takes `&Held` cannot be called without
/// the lock. It cannot be cloned. It ends with its session, judged by this process' clock and told
/// by the store, whichever is first: ask [`Held::check`] before each step that matters, or race the
/// work against [`Held::lost`]; and send [`Held::token`] along with every write, since a check is
/// old as soon as it is made.
///
/// Dropping it gives the lock back in the background; [`Held::release`] waits for that.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct Held {
    session: Session,
    desk: Desk,
    hold: Arc<Hold>,
    want: Want,
    count: u32,
    granted: Revision,
    /// Names the giving back, so that it counts once.
    op: RequestId,
}

impl Held {
    /// Takes up a grant.
    pub(super) fn new(
        session: &Session,
        desk: Desk,
        grant: Grant,
        want: Want,
    ) -> Result<Self, LockError> {
        let since = desk.ground.now();
        let Grant { token, revision, count, key, created } = grant;
        let hold = session.hold(Hold::new(desk.place.clone(), key, created, token, since));
        let (ground, watched) = (desk.ground.clone(), Arc::clone(&hold));
        desk.ground.tasks().spawn("lock-watch", |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = over(&watched) => {}
                () = presence::gone(&ground, &watched.key, watched.created) => {
                    lost_entry(&ground, &watched).await;
                }
            }
        });
        let session = session.clone();
        let (granted, op) = (revision, RequestId::random());
        let held = Self { session, desk, hold, want, count, granted, op };
        held.check()?;
        Ok(held)
    }

    /// What is held.
    pub fn place(&self) -> &Place {
        &self.desk.place
    }

    /// The fencing token: larger than every one before it of the same lock. Send it along with
    /// every write made under the lock. Tokens of semaphores tell holders apart and fence nothing.
    pub fn token(&self) -> Token {
        self.hold.token
    }

    /// How often its session held it when this was granted, itself included.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The state of the store in which it was granted.
    pub const fn revision(&self) -> Revision {
        self.granted
    }

    /// How it is held.
    pub const fn want(&self) -> Want {
        self.want
    }

    /// Whether it is held now.
    ///
    /// # Errors
    ///
    /// [`LockError::Lost`], from the first moment that this process' clock or the store says so,
    /// and ever after.
    pub fn check(&self) -> Result<(), LockError> {
        self.valid().map(drop).map_err(LockError::Lost)
    }

    /// How long it is held if nothing is heard of the store any more; `None` once it is lost.
    pub fn remaining(&self) -> Option<Duration> {
        self.valid().ok()
    }

    /// Whether the session is in jeopardy, and with it this: its last renewal failed.
    pub fn is_in_jeopardy(&self) -> bool {
        self.session.standing() == Standing::Jeopardy
    }

    /// Waits until it is lost, and says why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost(&self) -> Loss {
        let told = async {
            over(&self.hold).await;
            match self.hold.state() {
                HoldState::Lost(loss) => loss,
                // Only a call that consumes `self` ends it otherwise.
                HoldState::Held | HoldState::Over => std::future::pending().await,
            }
        };
        tokio::select! { biased; loss = told => loss, loss = self.session.lost() => loss }
    }

    /// A compare for any batch: it holds as long as this does, in the store's eyes.
    pub fn guard(&self) -> Compare {
        self.hold.guard()
    }

    /// Applies `batch` to the store only if this is still held there.
    ///
    /// # Errors
    ///
    /// [`LockError::Lost`] when it is not, and nothing was applied; what the store said.
    ///
    /// # Cancel safety
    ///
    /// As [`Store::apply`](mainstay_store::Store::apply).
    pub async fn apply(&self, batch: Batch) -> Result<Applied, LockError> {
        self.check()?;
        let batch = batch.when(self.guard()).otherwise(Op::get(&self.hold.key));
        let mut applied = self.desk.ground.store().apply(batch).await?;
        if applied.succeeded {
            return Ok(applied);
        }
        let is_there = match applied.answers.pop() {
            Some(Answer::Range(page)) => {
                page.entries.iter().any(|entry| entry.create_revision == self.hold.created)
            }
            _ => false,
        };
        if is_there {
            return Ok(applied);
        }
        let (place, token) = (&self.desk.place, self.hold.token.get());
        events::StaleToken { place, token }.emit(self.desk.ground.figures());
        lost_entry(&self.desk.ground, &self.hold).await;
        Err(LockError::Lost(self.valid().err().unwrap_or(Loss::Revoked)))
    }

    /// Gives it back, and waits until that is done.
    ///
    /// # Errors
    ///
    /// [`LockError::Lost`] when it was lost before; what the store said, after which it ends with
    /// its session.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on in the background, as long as the session lives.
    pub async fn release(self) -> Result<Released, LockError> {
        self.check()?;
        let session = self.session.clone();
        let Some(done) = self.give_back() else { return Err(LockError::Lost(Loss::SessionGone)) };
        tokio::select! {
            biased;
            count = done => count.unwrap_or(Err(LockError::Stopped)).map(|count| Released { count }),
            loss = session.lost() => Err(LockError::Lost(loss)),
        }
    }

    /// Lets others read what was held alone, without anybody writing in between. The token stays.
    ///
    /// # Errors
    ///
    /// [`LockError::AlreadyHeld`] when the session holds it more than once,
    /// [`LockError::RequestInvalid`] for what is not a lock, [`LockError::Lost`], what the store
    /// said.
    ///
    /// # Cancel safety
    ///
    /// Whether others may read is open; that nobody writes is not.
    pub async fn downgrade(&mut self) -> Result<(), LockError> {
        self.check()?;
        self.desk.downgrade((&self.hold.key, self.hold.created), self.hold.token).await?;
        self.want = Want::Shared;
        Ok(())
    }

    /// Hands it over to the global transaction `gid`: from now on it ends when the coordinator of
    /// that transaction says so, and not with the session or this process.
    ///
    /// # Errors
    ///
    /// [`LockError::AlreadyHeld`] when the session holds it more than once, [`LockError::Lost`],
    /// what the store said. It is then given back.
    ///
    /// # Cancel safety
    ///
    /// Whether it is handed over is open. If it was, the coordinator ends it; if not, it is given
    /// back.
    pub async fn bind(self, gid: &Gid) -> Result<Bound, LockError> {
        self.check()?;
        let (key, created) = (&self.hold.key, self.hold.created);
        self.desk.bind((key, created), self.hold.token, gid).await?;
        self.session.forget(&self.hold);
        self.hold.end(&self.desk.ground);
        let place = BoundPlace::new(&self.desk.place, key, created, self.hold.token, gid.clone());
        Ok(Bound::new(place))
    }

    pub(crate) async fn proclaim(&self, value: &str) -> Result<(), LockError> {
        self.check()?;
        let place = (&self.hold.key, self.hold.created);
        self.desk.proclaim(place, self.hold.token, value).await
    }

    /// How long it is held, if it is.
    fn valid(&self) -> Result<Duration, Loss> {
        match self.hold.state() {
            HoldState::Held => {}
            HoldState::Lost(loss) => return Err(loss),
            HoldState::Over => return Err(Loss::SessionGone),
        }
        self.session.check()?;
        self.session.remaining().ok_or(Loss::Expired)
    }

    /// Gives it back in the background, if it is still held; how many counts are left comes in the
    /// end.
    fn give_back(&self) -> Option<oneshot::Receiver<Result<u32, LockError>>> {
        self.session.forget(&self.hold);
        if !self.hold.end(&self.desk.ground) {
            return None;
        }
        let (tell, told) = oneshot::channel();
        let (desk, hold) = (self.desk.clone(), Arc::clone(&self.hold));
        // The session lives on until this is done: its end would be as good, but later.
        let (session, op) = (self.session.clone(), self.op.clone());
        self.desk.ground.tasks().spawn("lock-release", |_finishes| async move {
            let place = (&hold.key, hold.created);
            let total = Patience::FOR_CLEANING;
            let released = tokio::select! {
                biased;
                released = desk.release(place, hold.token, &op, total) => released,
                loss = session.lost() => Err(LockError::Lost(loss)),
            };
            if let Err(Err(error)) = tell.send(released) {
                report(&desk, Err(error));
            }
        });
        Some(told)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever drops it does not wait for the end.
        drop(self.give_back());
    }
}

/// Waits until something is held no longer, for whatever reason.
async fn over(hold: &Hold) {
    // The sender lives in `hold`.
    drop(hold.subscribe().wait_for(|state| *state != HoldState::Held).await);
}

/// The place of something held is gone from the store: finds why, and tells its holder.
pub(crate) async fn lost_entry(ground: &Coordination, hold: &Hold) {
    if hold.state() != HoldState::Held {
        return;
    }
    let loss = why_lost(ground, &hold.place, &hold.key, hold.token).await;
    hold.lose(ground, loss);
}

async fn why_lost(ground: &Coordination, place: &Place, key: &Key, token: Token) -> Loss {
    let last = ground.store().get(Get::new(place.last())).await.ok();
    let past = last.and_then(|got| Past::read(&got.entry?));
    if past.is_some_and(|past| past.token == token && past.reason == Reason::Forced) {
        return Loss::Revoked;
    }
    let Some((_, slot)) = keys::parse_slot(key) else { return Loss::Revoked };
    match ground.sessions().entry(slot.session).await {
        Ok(_is_there) => Loss::Revoked,
        Err(_gone_or_unknown) => Loss::SessionGone,
    }
}
