//! Holds a lock whose session somebody else keeps: it renews by asking, and judges by its own clock
//! and what it was told, as a client of the control API does.

use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::keys::Slot;
use mainstay_coord::name::RequestId;
use mainstay_coord::{Credential, Grant, LockError, Locks, Request, SessionError, Timer as _};
use mainstay_core::belief::{Belief, Loss, Step, Terms};
use mainstay_core::{Clock as _, Instant};
use mainstay_store::{Compare, Error, Revision};
use parking_lot::Mutex;

use super::holder::{owner, request, send, wait};
use super::{Believer, EXCLUSIVE, Granted, Seen, UNSEEN};
use crate::check::locks::What;
use crate::clock::spawn;
use crate::mutant::Mutant;
use crate::node::Node;

/// A holder elsewhere.
#[derive(Clone)]
struct Remote {
    node: Node,
    credential: Credential,
    belief: Arc<Mutex<Belief>>,
    /// It renews no more.
    gone: Arc<std::sync::atomic::AtomicBool>,
}

/// Holds and gives back until it is told to stop.
pub async fn run(node: Node, seen: Seen) {
    let client = seen.client();
    while !node.is_over() {
        node.sleep(node.draw.millis(20, 500)).await;
        let ttl = Duration::from_secs(2 + node.draw.below(7));
        let sent = node.clock.now();
        let Ok(opened) = node.ground.sessions().open(owner(&node), ttl).await else { continue };
        let belief = Arc::new(Mutex::new(Belief::granted(sent, Terms::new(opened.ttl))));
        let (gone, credential) = (Arc::default(), opened.credential);
        let remote = Remote { node: node.clone(), credential, belief, gone };
        spawn(remote.clone().renew());
        for _ in 0..=node.draw.below(3) {
            // After some endings the session may still stand in a queue.
            if !remote.believes() || !remote.once(&seen, client).await {
                break;
            }
        }
        remote.gone.store(true, std::sync::atomic::Ordering::SeqCst);
        if node.draw.once_in(2) {
            drop(node.ground.sessions().end(&remote.credential).await);
        }
    }
}

impl Remote {
    fn believes(&self) -> bool {
        !self.gone.load(std::sync::atomic::Ordering::SeqCst)
            && self.belief.lock().check(self.node.clock.now()).is_ok()
    }

    /// Does what the belief says.
    async fn renew(self) {
        let clock = &self.node.clock;
        while self.believes() {
            let now = clock.now();
            let step = self.belief.lock().poll(now);
            match step {
                Step::End(_) => return,
                Step::Wait(until) => clock.sleep_until(until).await,
                Step::Renew => self.try_once(now).await,
            }
        }
    }

    async fn try_once(&self, sent: Instant) {
        let clock = &self.node.clock;
        let timeout = sent.plus(self.belief.lock().terms().try_timeout());
        let sessions = self.node.ground.sessions();
        // The mistake waits as long as it takes: what comes late counts for it all the same.
        let is_wrong = self.node.server.mutant() == Some(Mutant::ValidityFromReply);
        let timeout = if is_wrong { Instant::MAX } else { timeout };
        let answer = tokio::select! {
            biased;
            answer = sessions.renew(&self.credential) => answer,
            () = clock.sleep_until(timeout) => return,
        };
        let now = clock.now();
        let mut belief = self.belief.lock();
        match answer {
            Ok(ttl) => belief.renewed(if is_wrong { now } else { sent }, now, ttl),
            Err(SessionError::NotFound { .. } | SessionError::SecretWrong { .. }) => {
                belief.lost(Loss::SessionGone);
            }
            Err(_) => belief.failed(now),
        }
    }

    /// Asks, holds, works, ends; whether the session can be used again.
    async fn once(&self, seen: &Seen, client: u32) -> bool {
        let node = &self.node;
        let exclusive = !node.draw.once_in(3);
        let asked = request(node, exclusive).wait(wait(node));
        let (place, locks) = (asked.place().clone(), node.ground.locks());
        let called = node.server.order();
        let grant = match self.ask(&locks, asked).await {
            Ok(grant) => grant,
            Err(can_go_on) => return can_go_on,
        };
        let (token, granted_at) = (grant.token.get(), node.server.order());
        let is_x = place.name.as_str() == EXCLUSIVE;
        let call = |what, called, returned| {
            if is_x {
                seen.lock_call(client, what, called, returned);
            }
        };
        call(What::Acquire(token), called, granted_at);
        let slot = Slot { session: self.credential.session, request: None };
        let key = place.slot(&slot);
        let lock = if is_x { EXCLUSIVE } else { super::SHARED };
        let (believer, over) = (self.clone(), Arc::new(Mutex::new(false)));
        let ended = Arc::clone(&over);
        let believes = Arc::new(move || !*ended.lock() && believer.believes());
        let granted = Granted { key: key.clone(), token, revision: grant.revision };
        seen.granted(granted, Believer { node: node.clone(), lock, exclusive, token, believes });
        // Now and then for so long that a lease ends under it, if it is not renewed.
        let writes = if node.draw.once_in(4) { 12 } else { 1 + node.draw.below(4) };
        for _ in 0..writes {
            node.sleep(node.draw.millis(20, 900)).await;
            if is_x && self.believes() {
                send(node, seen, token, Compare::created_at(&key, Revision::new(token))).await;
            }
        }
        let held = self.believes();
        *over.lock() = true;
        let returning = node.server.order();
        let op = RequestId::random();
        let mut released = locks.release(&self.credential, &place, grant.token, &op).await;
        if matches!(released, Err(LockError::Store(_))) {
            released = locks.release(&self.credential, &place, grant.token, &op).await;
        }
        match released {
            Ok(_) if held => {
                call(What::Release(token), returning, node.server.order());
                seen.progress(node, "locks held from elsewhere");
                true
            }
            _ => {
                call(What::Release(token), granted_at, UNSEEN);
                false
            }
        }
    }

    /// Asks, and again under the same name when nobody knows what came of it. Without a grant it
    /// says whether the session stands in no queue.
    async fn ask(&self, locks: &Locks, asked: Request) -> Result<Grant, bool> {
        for _ in 0..3 {
            match locks.acquire(&self.credential, asked.clone()).await {
                Ok(grant) if self.believes() => return Ok(grant),
                Err(LockError::Store(Error::OutcomeUnknown | Error::Unavailable { .. })) => {}
                Err(LockError::Busy { .. } | LockError::WaitTimeout { .. }) => return Err(true),
                Ok(_) | Err(_) => return Err(false),
            }
        }
        Err(false)
    }
}
