//! A session of this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_core::belief::{Belief, Loss, Standing, Terms};
use mainstay_store::{Compare, Key, LeaseId, Revision};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Fresh, SessionError, renewal};
use crate::coordination::Coordination;
use crate::events;
use crate::keys::{self, Place};
use crate::lock::Token;

/// A session of this process, renewed by a task and judged by this process' clock.
///
/// Clones stand for the same session, and so does everything held under it. When the last of them
/// is gone the session is ended in the background; [`Session::end`] waits for that.
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

/// Ends the renewal when the last clone is gone.
struct Handle {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the renewing task, the session and everything held under it share.
pub(super) struct Shared {
    pub(super) ground: Coordination,
    pub(super) id: LeaseId,
    /// The revision that wrote the session's key.
    pub(super) created: Revision,
    pub(super) belief: Mutex<Belief>,
    standing: watch::Sender<Standing>,
    holds: Mutex<Holds>,
}

#[derive(Default)]
struct Holds {
    last: u64,
    by_number: BTreeMap<u64, Arc<Hold>>,
}

impl Session {
    pub(super) fn start(ground: Coordination, fresh: &Fresh) -> Self {
        let belief = Belief::granted(fresh.sent, Terms::new(fresh.opened.ttl));
        let shared = Arc::new(Shared {
            ground,
            id: fresh.opened.credential.session,
            created: fresh.created,
            standing: watch::Sender::new(belief.standing()),
            belief: Mutex::new(belief),
            holds: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (task, wanted) = (Arc::clone(&shared), stop.clone());
        shared.ground.tasks().spawn("session-renewal", |shutdown| async move {
            renewal::run(&task, &wanted, &shutdown).await;
        });
        Self { handle: Arc::new(Handle { shared, stop }) }
    }

    /// Its id.
    pub fn id(&self) -> LeaseId {
        self.handle.shared.id
    }

    /// Whether it is believed in now, by this process' clock.
    ///
    /// # Errors
    ///
    /// Why not; it never is again.
    pub fn check(&self) -> Result<(), Loss> {
        self.handle.shared.check().map(|_until| ())
    }

    /// How long it is still believed in; `None` once it is lost.
    pub fn remaining(&self) -> Option<Duration> {
        let shared = &self.handle.shared;
        let until = shared.check().ok()?;
        Some(until.since(shared.ground.now()))
    }

    /// How it stands: held, in jeopardy since a renewal failed, or lost.
    pub fn standing(&self) -> Standing {
        self.handle.shared.standing_now()
    }

    /// Waits until it is lost, and says why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost(&self) -> Loss {
        let mut standing = self.handle.shared.standing.subscribe();
        loop {
            if let Err(loss) = self.handle.shared.check() {
                return loss;
            }
            // The sender lives as long as `self`.
            drop(standing.changed().await);
        }
    }

    /// Ends it, with everything that hangs on it, also for its clones.
    ///
    /// # Errors
    ///
    /// What the store said; the session then ends when its ttl is over.
    ///
    /// # Cancel safety
    ///
    /// Nothing is held any longer from the first poll on; the end in the store may come later.
    pub async fn end(self) -> Result<(), SessionError> {
        let shared = Arc::clone(&self.handle.shared);
        shared.close();
        self.handle.stop.cancel();
        drop(self);
        match shared.ground.sessions().end_trusted(shared.id).await {
            Ok(()) | Err(SessionError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn ground(&self) -> &Coordination {
        &self.handle.shared.ground
    }

    /// Takes up something that was granted; it is lost with the session.
    pub(crate) fn hold(&self, hold: Hold) -> Arc<Hold> {
        let shared = &self.handle.shared;
        let hold = Arc::new(hold);
        {
            let mut holds = shared.holds.lock();
            holds.last += 1;
            let number = holds.last;
            holds.by_number.insert(number, Arc::clone(&hold));
        }
        if let Err(loss) = shared.check() {
            hold.lose(&shared.ground, loss);
        }
        hold
    }

    /// Forgets something that was held.
    pub(crate) fn forget(&self, hold: &Arc<Hold>) {
        let mut holds = self.handle.shared.holds.lock();
        holds.by_number.retain(|_, other| !Arc::ptr_eq(other, hold));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.handle.shared;
        f.debug_struct("Session")
            .field("id", &shared.id)
            .field("standing", &*shared.standing.borrow())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Until when the session is believed in; tells everybody when it no longer is.
    pub(super) fn check(&self) -> Result<Instant, Loss> {
        let checked = self.belief.lock().check(self.ground.now());
        if let Err(loss) = checked {
            self.tell(loss);
        }
        checked
    }

    /// Tells everybody how the session stands.
    pub(super) fn report(&self, why: Option<&str>) {
        let standing = self.standing_now();
        let before = *self.standing.borrow();
        if standing != before {
            match standing {
                Standing::Lost(loss) => self.tell(loss),
                Standing::Held | Standing::Jeopardy => {
                    events::Jeopardy { session: self.id, why }.emit();
                    self.standing.send_replace(standing);
                }
            }
        }
    }

    /// The session is lost: tells whoever relies on it, once.
    fn tell(&self, loss: Loss) {
        let lost = Standing::Lost(loss);
        let is_news = self.standing.send_if_modified(|standing| {
            let is_news = !matches!(standing, Standing::Lost(_));
            if is_news {
                *standing = lost;
            }
            is_news
        });
        if is_news {
            events::SessionLost { session: self.id, loss }.emit();
        }
        for hold in self.holds() {
            hold.lose(&self.ground, loss);
        }
    }

    /// This process ends the session: nothing is held any longer.
    pub(super) fn close(&self) {
        self.belief.lock().lost(Loss::SessionGone);
        self.standing.send_replace(Standing::Lost(Loss::SessionGone));
        for hold in self.holds() {
            hold.lose(&self.ground, Loss::SessionGone);
        }
    }

    /// Everything held under it.
    pub(super) fn holds(&self) -> Vec<Arc<Hold>> {
        self.holds.lock().by_number.values().cloned().collect()
    }

    /// A compare that holds as long as the session does.
    pub(super) fn guard(&self) -> Compare {
        Compare::created_at(&keys::session(self.id), self.created)
    }

    fn standing_now(&self) -> Standing {
        let mut belief = self.belief.lock();
        match belief.check(self.ground.now()) {
            Ok(_until) => belief.standing(),
            Err(loss) => Standing::Lost(loss),
        }
    }
}

/// One thing held under a session.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) place: Place,
    pub(crate) key: Key,
    /// The life of the key that is the hold.
    pub(crate) created: Revision,
    pub(crate) token: Token,
    /// When it was granted.
    pub(crate) since: Instant,
    state: watch::Sender<HoldState>,
}

/// Whether something is still held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldState {
    /// As far as is known.
    Held,
    /// No longer, against the holder's will.
    Lost(Loss),
    /// No longer, since the holder gave it back.
    Over,
}

impl Hold {
    pub(crate) fn new(
        place: Place,
        key: Key,
        created: Revision,
        token: Token,
        since: Instant,
    ) -> Self {
        let state = watch::Sender::new(HoldState::Held);
        Self { place, key, created, token, since, state }
    }

    pub(crate) fn state(&self) -> HoldState {
        *self.state.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<HoldState> {
        self.state.subscribe()
    }

    /// A compare that holds as long as the hold does.
    pub(crate) fn guard(&self) -> Compare {
        Compare::created_at(&self.key, self.created)
    }

    /// It is lost; whoever holds it is told, once.
    pub(crate) fn lose(&self, ground: &Coordination, loss: Loss) {
        if self.leave(HoldState::Lost(loss)) {
            let held = ground.now().since(self.since);
            let token = self.token.get();
            let lost = events::LockLost { place: &self.place, token, loss, held };
            lost.emit(ground.figures());
        }
    }

    /// The holder gives it back; returns whether it was still held.
    pub(crate) fn end(&self, ground: &Coordination) -> bool {
        let ended = self.leave(HoldState::Over);
        if ended {
            events::Released { held: ground.now().since(self.since) }.emit(ground.figures());
        }
        ended
    }

    fn leave(&self, to: HoldState) -> bool {
        self.state.send_if_modified(|state| {
            let was_held = *state == HoldState::Held;
            if was_held {
                *state = to;
            }
            was_held
        })
    }
}
