//! Locks for holders elsewhere, and for those who look after them.

use mainstay_store::{Key, Page, Range, RangeRequest, Select};
use serde_json::{Value, json};

use super::acquire::acquire;
use super::bound::{BoundPage, BoundPlace};
use super::desk::{Desk, PAGE, not_held};
use super::error::LockError;
use super::line::{Line, Waiter};
use super::record::{Past, Reason, Token};
use super::request::{Grant, Released, Request, checked_value};
use crate::audit::{Author, Outbox, Target};
use crate::coordination::Coordination;
use crate::events;
use crate::keys::{self, Area, Place};
use crate::name::{Gid, Namespace, RequestId};
use crate::patience::Patience;
use crate::session::Credential;

/// Locks, semaphores and elections on behalf of holders elsewhere. Whoever holds must judge by its
/// own clock how long: its session's ttl less a margin, from the moment it last sent a renewal.
#[derive(Clone, Debug)]
pub struct Locks {
    ground: Coordination,
}

/// A lock, semaphore or election as it stands.
#[derive(Clone, Debug)]
pub struct LockStatus {
    /// Holders and waiters, soonest first.
    pub line: Line,
    /// How it was last held, if that is known.
    pub past: Option<Past>,
    /// Whether nobody is granted it because a holder has vanished.
    pub is_delayed: bool,
}

/// Some of the places of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacePage {
    /// In the order of their keys.
    pub places: Vec<Place>,
    /// Whether there may be more after the last one.
    pub more: bool,
}

impl Locks {
    pub(crate) const fn new(ground: Coordination) -> Self {
        Self { ground }
    }

    /// Asks for something, and waits for its turn as long as the request says.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    ///
    /// # Cancel safety
    ///
    /// Safe: the place in the queue is given up in the background, and so is the lock if it had
    /// been granted just then.
    pub async fn acquire(
        &self,
        credential: &Credential,
        request: Request,
    ) -> Result<Grant, LockError> {
        self.ground.sessions().authenticate(credential).await?;
        acquire(&self.ground, credential.session, request).await
    }

    /// Gives back one count of what a session holds with `token`. `op` names this call: however
    /// often it is repeated, it counts once, as long as anything is left to count.
    ///
    /// # Errors
    ///
    /// [`LockError::NotHeld`]; a wrong session or secret; what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it was given back is open; repeating it with the same `op` does no harm.
    pub async fn release(
        &self,
        credential: &Credential,
        place: &Place,
        token: Token,
        op: &RequestId,
    ) -> Result<Released, LockError> {
        let (desk, held) = match place.area {
            // Its queue can be as long as its holders are many, and whoever gives back permits
            // that are not granted yet gives up its place: that takes nothing from anybody.
            Area::Semaphore => self.find_own(credential, place, token).await?,
            Area::Lock | Area::Election | Area::Duty => self.find(credential, place, token).await?,
        };
        let at = (&held.key, held.created);
        let count = desk.release(at, token, op, Patience::FOR_CALLERS).await?;
        Ok(Released { count })
    }

    /// Lets others read what a session holds alone.
    ///
    /// # Errors
    ///
    /// As [`Held::downgrade`](super::Held::downgrade), and a wrong session or secret.
    ///
    /// # Cancel safety
    ///
    /// Whether it happened is open; repeating it does no harm.
    pub async fn downgrade(
        &self,
        credential: &Credential,
        place: &Place,
        token: Token,
    ) -> Result<(), LockError> {
        let (desk, held) = self.find(credential, place, token).await?;
        desk.downgrade((&held.key, held.created), token).await
    }

    /// Hands over what a session holds to the global transaction `gid`.
    ///
    /// # Errors
    ///
    /// [`LockError::NotHeld`], [`LockError::AlreadyHeld`], a wrong session or secret, what the
    /// store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happened is open; repeating it does no harm.
    pub async fn bind(
        &self,
        credential: &Credential,
        place: &Place,
        token: Token,
        gid: &Gid,
    ) -> Result<BoundPlace, LockError> {
        let (desk, held) = self.find(credential, place, token).await?;
        desk.bind((&held.key, held.created), token, gid).await?;
        Ok(BoundPlace::new(place, &held.key, held.created, token, gid.clone()))
    }

    /// Ends a place that a transaction held, whose outcome is final. One that is gone already is
    /// as good.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happened is open; repeating it does no harm.
    pub async fn finish(&self, bound: &BoundPlace) -> Result<(), LockError> {
        let desk = Desk::new(self.ground.clone(), bound.place.clone());
        let is_bound = |waiter: &Waiter| waiter.bound_gid() == Some(bound.gid.as_str());
        let at = (&bound.key, bound.created);
        match desk.end(at, bound.token, Reason::Finished, is_bound).await {
            Err(LockError::NotHeld { .. }) => Ok(()),
            ended => ended,
        }
    }

    /// Places that transactions hold, in the order of keys, from `after` on: for the sweep of
    /// those whose transaction is over.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn bound(&self, after: Option<&Key>) -> Result<BoundPage, LockError> {
        // The page before may have ended at a key of any kind.
        let from = after.and_then(|key| Some((Area::of(key)?, key)));
        let areas =
            Area::ALL.into_iter().skip_while(|area| from.is_some_and(|(at, _)| *area != at));
        let mut places = Vec::new();
        for area in areas {
            let whole = keys::area(area, None);
            let range = match from {
                Some((at, key)) if at == area => whole.after(key),
                _ => whole,
            };
            let page = self.page(Select::new(range)).await?;
            places.extend(page.entries.iter().filter_map(|entry| {
                let (place, _) = keys::parse_slot(&entry.key)?;
                let waiter = Waiter::read(entry)?;
                let gid = Gid::new(waiter.bound_gid()?).ok()?;
                Some(BoundPlace::new(&place, &entry.key, waiter.created, waiter.token(), gid))
            }));
            if page.more {
                let next = page.entries.last().map(|entry| entry.key.clone());
                return Ok(BoundPage { places, next });
            }
        }
        Ok(BoundPage { places, next: None })
    }

    /// Changes what the leader of `place` proclaims, whose term is `token`.
    ///
    /// # Errors
    ///
    /// [`LockError::RequestInvalid`] when the value is longer than 4,096 bytes;
    /// [`LockError::NotHeld`], [`LockError::Session`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it is proclaimed is open; repeating it does no harm.
    pub async fn proclaim(
        &self,
        credential: &Credential,
        place: &Place,
        token: Token,
        value: String,
    ) -> Result<(), LockError> {
        let value = checked_value(value)?;
        let (desk, held) = self.find(credential, place, token).await?;
        desk.proclaim((&held.key, held.created), token, &value).await
    }

    /// Takes something from whoever holds it with `token`; a holder who can be reached is told.
    /// For those with the right to; recorded in `outbox`, of the same store.
    ///
    /// # Errors
    ///
    /// [`LockError::NotHeld`], what the store said.
    ///
    /// # Cancel safety
    ///
    /// Whether it happened is open; repeating it does no harm.
    pub async fn force_release(
        &self,
        place: &Place,
        token: Token,
        outbox: &Outbox,
        author: &Author,
    ) -> Result<(), LockError> {
        outbox.admit(author)?;
        let desk = Desk::new(self.ground.clone(), place.clone());
        let line = desk.read().await?;
        let held = line.holders().iter().find(|waiter| waiter.token() == token);
        let held = held.ok_or_else(|| not_held(token))?;
        let target = Target {
            kind: place.area.as_str().to_owned(),
            id: place.to_string(),
            revision_before: Some(held.modified.get()),
            revision_after: None,
        };
        let was = json!({ "token": token.get(), "owner": held.owner(), "gid": held.bound_gid() });
        let record = outbox.record("lock:force-release", target, author).changed(was, Value::Null);
        let desk = desk.telling(outbox, record);
        desk.end((&held.key, held.created), token, Reason::Forced, |_| true).await?;
        events::Forced { place, token: token.get() }.emit();
        Ok(())
    }

    /// How something stands.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn status(&self, place: &Place) -> Result<LockStatus, LockError> {
        let line = Desk::new(self.ground.clone(), place.clone()).read().await?;
        let past = line.past.as_ref().map(|(past, _)| past.clone());
        let is_delayed = line.delay.is_some() || line.vanished().is_some();
        Ok(LockStatus { line, past, is_delayed })
    }

    /// What is held or waited for in a namespace, from `after` on: some of it, if there is any.
    /// Names that were used lately are passed over, however many they are.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn list(
        &self,
        area: Area,
        namespace: &Namespace,
        after: Option<&Place>,
    ) -> Result<PlacePage, LockError> {
        let whole = keys::area(area, Some(namespace));
        let range = match after.and_then(|place| place.all().to().cloned()) {
            Some(from) => Range::between(from, whole.to().cloned()),
            None => whole,
        };
        self.places(range).await
    }

    /// The same in all namespaces, from the first on.
    ///
    /// # Errors
    ///
    /// What the store said.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn list_all(&self, area: Area) -> Result<PlacePage, LockError> {
        self.places(keys::area(area, None)).await
    }

    async fn places(&self, mut range: Range) -> Result<PlacePage, LockError> {
        loop {
            let page = self.page(Select::new(range.clone()).keys_only()).await?;
            let slots = page.entries.iter().filter_map(|entry| keys::parse_slot(&entry.key));
            let mut places: Vec<Place> = slots.map(|(place, _)| place).collect();
            places.dedup();
            match page.entries.last() {
                Some(last) if page.more && places.is_empty() => range = range.after(&last.key),
                _ => return Ok(PlacePage { places, more: page.more }),
            }
        }
    }

    pub(crate) const fn ground(&self) -> &Coordination {
        &self.ground
    }

    pub(super) async fn page(&self, select: Select) -> Result<Page, LockError> {
        Ok(self.ground.store().range(RangeRequest::new(select)).await?)
    }

    /// What the session of `credential` has in the queue with `token`, granted or not.
    async fn find_own(
        &self,
        credential: &Credential,
        place: &Place,
        token: Token,
    ) -> Result<(Desk, Waiter), LockError> {
        self.ground.sessions().authenticate(credential).await?;
        let page = self.page(Select::new(place.slots(credential.session)).limit(PAGE)).await?;
        let own = page.entries.iter().filter_map(Waiter::read).find(|own| own.token() == token);
        let desk = Desk::new(self.ground.clone(), place.clone());
        own.map(|own| (desk, own)).ok_or_else(|| not_held(token))
    }

    /// What the session of `credential` holds with `token`.
    async fn find(
        &self,
        credential: &Credential,
        place: &Place,
        token: Token,
    ) -> Result<(Desk, Waiter), LockError> {
        self.ground.sessions().authenticate(credential).await?;
        let desk = Desk::new(self.ground.clone(), place.clone());
        let line = desk.read().await?;
        let is_it =
            |waiter: &&Waiter| waiter.session() == credential.session && waiter.token() == token;
        let held = line.holders().iter().find(is_it).cloned();
        held.map(|held| (desk, held)).ok_or_else(|| not_held(token))
    }
}
