//! Tells holders elsewhere what they lost.
//!
//! A holder elsewhere judges by its own clock and is right without being told; being told is only
//! earlier. One watch of all queues serves every session that is followed here: what vanishes
//! from a queue is looked up by its session, so a session costs an entry in a map, and a release
//! costs one look.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_core::belief::Loss;
use mainstay_store::{Change, Event, LeaseId, Revision, WatchItem, WatchRequest};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::record::{Past, Reason};
use super::{LockError, Locks, Token};
use crate::coordination::Coordination;
use crate::keys::{self, Area, Place};
use crate::session::{Credential, SessionError};

/// News kept for one slow reader. One that is behind by more is told to look anew, which costs it
/// one reading; a session seldom holds more than a few locks.
const NEWS_MAX: usize = 64;

/// What a session holds, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// The revision.
    pub revision: Revision,
    /// Everything granted to it.
    pub held: Vec<(Place, Token)>,
}

/// What a followed session is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// This is what it holds: at first, and whenever something may have been missed.
    Holds(Holdings),
    /// It holds this no longer, and did not give it back itself.
    Lost {
        /// The revision in which it vanished.
        revision: Revision,
        /// What.
        place: Place,
        /// Its token.
        token: Token,
        /// Why.
        loss: Loss,
    },
    /// The session is gone, and all it held with it. Nothing follows.
    Ended,
}

/// Something that vanished, on its way to who held it.
#[derive(Clone, Debug)]
enum Told {
    Lost {
        revision: Revision,
        place: Place,
        token: Token,
        loss: Loss,
    },
    Ended,
    /// The watch was interrupted.
    LookAnew,
}

/// Who is told of which session.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    followed: Mutex<Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    is_watching: bool,
    sessions: HashMap<LeaseId, Vec<Reader>>,
}

/// Who is told.
#[derive(Debug)]
struct Reader {
    tell: Sender<Told>,
    /// It was too far behind for something.
    missed: Arc<AtomicBool>,
}

/// One session as it is followed. Dropping it ends that.
#[derive(Debug)]
pub struct Following {
    ground: Coordination,
    session: LeaseId,
    told: Receiver<Told>,
    missed: Arc<AtomicBool>,
    /// What it holds is to be read before anything else.
    is_due: bool,
    has_ended: bool,
}

impl Locks {
    /// Follows the session of `credential`: what it holds, and then what it loses.
    ///
    /// # Errors
    ///
    /// [`LockError::Session`] when there is no such session or the secret is wrong, and what the
    /// store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn follow(&self, credential: &Credential) -> Result<Following, LockError> {
        let ground = self.ground().clone();
        ground.sessions().authenticate(credential).await?;
        let (tell, told) = mpsc::channel(NEWS_MAX);
        let (session, missed) = (credential.session, Arc::<AtomicBool>::default());
        let reader = Reader { tell, missed: Arc::clone(&missed) };
        ground.losses().follow(&ground, session, reader);
        Ok(Following { ground, session, told, missed, is_due: true, has_ended: false })
    }
}

impl Following {
    /// Waits for the next news; `None` after [`News::Ended`], and when this process shuts down.
    ///
    /// # Errors
    ///
    /// What the store said. Calling again goes on.
    ///
    /// # Cancel safety
    ///
    /// Safe: news counts as told only when it is returned.
    pub async fn next(&mut self) -> Result<Option<News>, LockError> {
        loop {
            if self.has_ended {
                return Ok(None);
            }
            self.is_due |= self.missed.swap(false, Ordering::Relaxed);
            if self.is_due {
                let holds = match self.holdings().await {
                    Ok(holds) => holds,
                    Err(LockError::Session(SessionError::NotFound { .. })) => {
                        self.has_ended = true;
                        return Ok(Some(News::Ended));
                    }
                    Err(error) => return Err(error),
                };
                self.is_due = false;
                return Ok(Some(News::Holds(holds)));
            }
            match self.told.recv().await {
                None => self.has_ended = true,
                Some(Told::LookAnew) => self.is_due = true,
                Some(Told::Ended) => {
                    self.has_ended = true;
                    return Ok(Some(News::Ended));
                }
                Some(Told::Lost { revision, place, token, loss }) => {
                    return Ok(Some(News::Lost { revision, place, token, loss }));
                }
            }
        }
    }

    async fn holdings(&self) -> Result<Holdings, LockError> {
        let status = self.ground.sessions().status(self.session).await?;
        let slots = status.lease.keys.iter().filter_map(keys::parse_slot);
        let mut places: Vec<Place> = slots.map(|(place, _)| place).collect();
        places.sort_unstable();
        places.dedup();
        let mut holdings = Holdings { revision: Revision::NEVER, held: Vec::new() };
        for place in places {
            let line = self.ground.locks().status(&place).await?.line;
            holdings.revision = holdings.revision.max(line.revision());
            let ours = line.holders().iter().filter(|waiter| waiter.session() == self.session);
            holdings.held.extend(ours.map(|waiter| (place.clone(), waiter.token())));
        }
        Ok(holdings)
    }
}

impl Losses {
    fn follow(self: &Arc<Self>, ground: &Coordination, session: LeaseId, reader: Reader) {
        let mut followed = self.followed.lock();
        let readers = followed.sessions.entry(session).or_default();
        readers.retain(|reader| !reader.tell.is_closed());
        readers.push(reader);
        if !followed.is_watching {
            followed.is_watching = true;
            let (losses, of) = (Arc::clone(self), ground.clone());
            ground.tasks().spawn("lock losses", move |stop| losses.watch(of, stop));
        }
    }

    async fn watch(self: Arc<Self>, ground: Coordination, stop: CancellationToken) {
        let areas = Area::ALL.map(|area| self.watch_area(&ground, keys::area(area, None)));
        let [locks, semaphores, elections, duties] = areas;
        let sessions = self.watch_area(&ground, keys::sessions());
        let all = async { tokio::join!(locks, semaphores, elections, duties, sessions) };
        let (Some(_) | None) = stop.run_until_cancelled(all).await;
        // Their streams end with their senders.
        self.followed.lock().sessions.clear();
    }

    async fn watch_area(&self, ground: &Coordination, range: mainstay_store::Range) {
        loop {
            let request = WatchRequest::new(range.clone()).previous().quiet();
            if let Ok(mut watch) = ground.store().watch(request) {
                while let Some(item) = watch.next().await {
                    match item {
                        WatchItem::Created { .. } => self.look_anew(),
                        WatchItem::Changes { revision, events } => self.tell(revision, &events),
                        WatchItem::Bookmark { .. } => {}
                        WatchItem::Compacted { .. } | WatchItem::Closed | WatchItem::Denied => {
                            break;
                        }
                    }
                }
            }
            ground.timer().sleep_until(ground.now().plus(AGAIN)).await;
        }
    }

    /// What is followed was not watched for a while, or not from its beginning.
    fn look_anew(&self) {
        let mut followed = self.followed.lock();
        followed.sessions.values_mut().for_each(|readers| tell_all(readers, &Told::LookAnew));
    }

    fn tell(&self, revision: Revision, events: &[Event]) {
        let puts = events.iter().filter_map(Event::entry);
        let ends: Vec<(Place, Past)> = puts
            .filter_map(|entry| Some((keys::parse_last(&entry.key)?, Past::read(entry)?)))
            .collect();
        for event in events {
            let Change::Delete(key) = &event.change else { continue };
            if let Some(session) = keys::parse_session_key(key) {
                let readers = self.followed.lock().sessions.remove(&session);
                tell_all(&mut readers.unwrap_or_default(), &Told::Ended);
                continue;
            }
            let Some((place, slot)) = keys::parse_slot(key) else { continue };
            let mut followed = self.followed.lock();
            let Some(readers) = followed.sessions.get_mut(&slot.session) else { continue };
            let waiter = event.previous.as_ref().and_then(super::line::Waiter::read);
            let Some(token) = waiter.map(|waiter| waiter.token()) else { continue };
            let end = ends.iter().find(|(of, past)| *of == place && past.token == token);
            // What it gave back itself is no loss, and what its session lost comes with the end
            // of that.
            if end.is_some_and(|(_, past)| past.reason == Reason::Forced) {
                tell_all(readers, &Told::Lost { revision, place, token, loss: Loss::Revoked });
            }
        }
    }
}

/// How long a watch that was refused waits before it is asked for again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// Tells every reader; one that is too far behind will look anew.
fn tell_all(readers: &mut Vec<Reader>, news: &Told) {
    readers.retain(|reader| match reader.tell.try_send(news.clone()) {
        Ok(()) => true,
        Err(TrySendError::Full(_)) => {
            reader.missed.store(true, Ordering::Relaxed);
            true
        }
        Err(TrySendError::Closed(_)) => false,
    });
}
