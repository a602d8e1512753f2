//! Leader election: a lock whose holder says something.
//!
//! A candidate stands in a queue like one for a lock; the first is the leader, its token is the
//! *term*, and what it proclaims is read by whoever observes. A leader of this process is a
//! [`Leader`]: it steps down by its own clock before anybody else can be elected, and each of its
//! writes can carry the term.

use mainstay_core::belief::Loss;
use mainstay_store::{Error, WatchItem, WatchRequest};

use crate::coordination::Coordination;
use crate::keys::{Area, Place};
use crate::lock::line::{Line, Waiter};
use crate::lock::{Held, LockError, Locks, Released, Request, Token};
use crate::name::{LockName, Namespace};
use crate::session::{Owner, Session};

impl Session {
    /// Stands for election, and waits until elected, as long as `request` says.
    ///
    /// # Errors
    ///
    /// [`LockError::RequestInvalid`] unless the request is a
    /// [`Request::candidate`]; else as [`Session::acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe: the candidate withdraws in the background.
    pub async fn stand(&self, request: Request) -> Result<Leader, LockError> {
        if !matches!(request.place().area, Area::Election | Area::Duty) {
            return Err(LockError::RequestInvalid { why: "it is not for an election" });
        }
        Ok(Leader { held: self.acquire(request.not_reentrant()).await? })
    }
}

/// Proof of having been elected. Dropping it resigns in the background.
#[derive(Debug)]
#[must_use = "dropping it resigns"]
pub struct Leader {
    held: Held,
}

impl Leader {
    /// The term: larger than every one before it. Send it along with everything done as leader.
    pub fn term(&self) -> Token {
        self.held.token()
    }

    /// Whether this is still the leader.
    ///
    /// # Errors
    ///
    /// [`LockError::Lost`].
    pub fn check(&self) -> Result<(), LockError> {
        self.held.check()
    }

    /// Waits until it is the leader no longer, and says why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn deposed(&self) -> Loss {
        self.held.lost().await
    }

    /// Proclaims something else, up to 4,096 bytes.
    ///
    /// # Errors
    ///
    /// [`LockError::RequestInvalid`] when it is longer, [`LockError::Lost`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it is proclaimed is open.
    pub async fn proclaim(&self, value: impl Into<String>) -> Result<(), LockError> {
        self.held.proclaim(&crate::lock::checked_value(value.into())?).await
    }

    /// The proof as one of a lock: for guards, and whatever takes `&Held`.
    pub const fn held(&self) -> &Held {
        &self.held
    }

    /// Steps down, and waits until that is done.
    ///
    /// # Errors
    ///
    /// As [`Held::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on in the background.
    pub async fn resign(self) -> Result<Released, LockError> {
        self.held.release().await
    }
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: Token,
    /// Whose session it is; `None` when its record was written by a newer version.
    pub owner: Option<Owner>,
    /// What the leader proclaims.
    pub value: String,
}

impl Leadership {
    fn of(waiter: &Waiter) -> Self {
        Self {
            term: waiter.token(),
            owner: waiter.owner().cloned(),
            value: waiter.value().unwrap_or_default().to_owned(),
        }
    }
}

impl Locks {
    /// Observes an election.
    pub fn observe(&self, namespace: Namespace, name: LockName) -> Observer {
        let place = Place { area: Area::Election, namespace, name };
        Observer { ground: self.ground().clone(), place, seen: Seen::Nothing, watch: None }
    }
}

/// Yields who leads, at first and at every change.
#[derive(Debug)]
pub struct Observer {
    ground: Coordination,
    place: Place,
    /// What was yielded last.
    seen: Seen,
    watch: Option<mainstay_store::Watch>,
}

/// What an observer has yielded last.
#[derive(Debug, PartialEq)]
enum Seen {
    /// It has not yielded yet.
    Nothing,
    /// This one leads, or nobody.
    Yielded(Option<Leadership>),
}

impl Observer {
    /// The next that differs from the one before; `None` is "nobody". Of changes faster than this
    /// is called, only the last is seen.
    ///
    /// # Errors
    ///
    /// What the store said. Calling again goes on.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<Option<Leadership>, LockError> {
        loop {
            if self.watch.is_none() {
                let line = self.ground.locks().status(&self.place).await?.line;
                let request = WatchRequest::new(self.place.queue()).from(line.revision().next());
                self.watch = Some(self.ground.store().watch(request.quiet())?);
                let leader = leader(&line);
                let seen = Seen::Yielded(leader.clone());
                if self.seen != seen {
                    self.seen = seen;
                    return Ok(leader);
                }
            }
            let Some(watch) = &mut self.watch else { continue };
            match watch.next().await {
                Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => {}
                // Read the queue again, and watch from there.
                Some(WatchItem::Changes { .. } | WatchItem::Compacted { .. }) => self.watch = None,
                Some(WatchItem::Closed | WatchItem::Denied) | None => {
                    self.watch = None;
                    return Err(Error::Closed.into());
                }
            }
        }
    }
}

fn leader(line: &Line) -> Option<Leadership> {
    line.holders().first().map(Leadership::of)
}
