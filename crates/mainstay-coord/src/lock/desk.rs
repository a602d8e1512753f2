//! What is done to one queue, each a conditional batch that is sent until its outcome is known.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_store::limits::PAGE_ENTRIES_MAX;
use mainstay_store::{
    Batch, Compare, Error, Get, Key, Op, Page, Put, RangeRequest, Revision, Select,
};

use super::error::LockError;
use super::line::{Line, Waiter};
use super::record::{Past, Reason, Record, Token};
use super::request::{Request, Want};
use crate::audit::{self, Outbox};
use crate::coordination::Coordination;
use crate::keys::{Area, Place};
use crate::name::{Gid, RequestId};
use crate::patience::Patience;

/// One queue, as this process works on it.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) ground: Coordination,
    pub(super) place: Place,
    /// What is recorded with each change, where somebody else than the holder makes it.
    told: Option<(Outbox, Box<audit::Record>)>,
}

/// What shall become of a place.
pub(super) enum Amend<T> {
    /// Nothing.
    Leave(T),
    /// This record; detached from its session where a transaction has it.
    Put(Box<Record>, Option<Past>, T),
    /// Its end.
    Delete(Option<Past>, T),
}

impl Desk {
    pub(super) const fn new(ground: Coordination, place: Place) -> Self {
        Self { ground, place, told: None }
    }

    /// Whatever it changes is recorded so.
    pub(super) fn telling(mut self, outbox: &Outbox, record: audit::Record) -> Self {
        self.told = Some((outbox.clone(), Box::new(record)));
        self
    }

    /// The queue as it is.
    pub(super) async fn read(&self) -> Result<Line, Error> {
        let first = self.ground.store().range(RangeRequest::new(whole(&self.place))).await?;
        self.line(first).await
    }

    /// The queue whose first page is `page`.
    pub(super) async fn line(&self, mut page: Page) -> Result<Line, Error> {
        let revision = page.revision;
        let mut entries = Vec::new();
        loop {
            let more = page.more;
            entries.append(&mut page.entries);
            let Some(last) = entries.last().filter(|_| more) else { break };
            let range = self.place.all().after(&last.key);
            let rest = RangeRequest::new(Select::new(range).limit(PAGE)).at(revision);
            page = self.ground.store().range(rest).await?;
        }
        Ok(Line::new(&self.place, &entries, revision))
    }

    /// Changes the place at `key` as `decide` says of what it is, until that is done. `decide` gets
    /// `None` once the life of the place that began at `created` is over, and whether some earlier
    /// change of this call may be the reason. A note of the past is written in the same batch.
    pub(super) async fn amend<T>(
        &self,
        key: &Key,
        created: Revision,
        total: Duration,
        mut decide: impl FnMut(Option<&Waiter>, bool) -> Result<Amend<T>, LockError> + Send,
    ) -> Result<T, LockError> {
        let mut patience = Patience::new(self.ground.now(), total);
        loop {
            let (current, read_at) = match self.ground.store().get(Get::new(key.clone())).await {
                Ok(got) => (got.entry.as_ref().and_then(Waiter::read), got.revision),
                Err(error) => {
                    self.ground.bear(&mut patience, error).await?;
                    continue;
                }
            };
            let current = current.filter(|waiter| waiter.created == created);
            let modified = current.as_ref().map_or(Revision::NEVER, |waiter| waiter.modified);
            let (op, past, answer) = match decide(current.as_ref(), patience.is_uncertain())? {
                Amend::Leave(answer) => return Ok(answer),
                Amend::Put(record, past, answer) => {
                    let put = Put::new(key.clone(), record.write());
                    let bound = record.bound_gid.is_some();
                    (Op::Put(if bound { put } else { put.keep_lease() }), past, answer)
                }
                Amend::Delete(past, answer) => (Op::delete(key), past, answer),
            };
            let mut batch = Batch::new().when(Compare::unchanged_since(key, modified)).then(op);
            if let Some(past) = past {
                batch = batch.then(Put::new(self.place.last(), past.write()));
            }
            if let Some((outbox, record)) = &self.told {
                batch = batch.then(outbox.put(read_at, record));
            }
            match self.ground.store().apply(batch).await {
                Ok(applied) if applied.succeeded => return Ok(answer),
                Ok(_changed_meanwhile) => {}
                Err(error) => self.ground.bear(&mut patience, error).await?,
            }
        }
    }

    /// Undoes `request`, unless it was asked for again since: it is counted no longer, and if it
    /// was the only one its place is gone; `past` is noted then, if it had been granted.
    pub(super) async fn withdraw(
        &self,
        (key, created): (&Key, Revision),
        request: &Request,
        past: Option<Past>,
        total: Duration,
    ) -> Result<(), LockError> {
        let undo = |waiter: Option<&Waiter>, _| {
            let record = waiter.and_then(|waiter| waiter.record.as_ref());
            let counted = |record: &&Record| record.bound_gid.is_none() && record.is_of(request);
            Ok(match record.filter(counted) {
                None => Amend::Leave(()),
                Some(record) if record.count <= 1 => Amend::Delete(past.clone(), ()),
                Some(record) => {
                    let mut next = record.clone();
                    next.undo(&request.id);
                    Amend::Put(Box::new(next), None, ())
                }
            })
        };
        self.amend(key, created, total, undo).await
    }

    /// Gives back one count of the place at `key`; returns how many are left. `op` names this
    /// giving back: however often it is repeated, it counts once.
    pub(super) async fn release(
        &self,
        (key, created): (&Key, Revision),
        token: Token,
        op: &RequestId,
        total: Duration,
    ) -> Result<u32, LockError> {
        let past = self.past(token, Reason::Released);
        let mut is_unsure = false;
        let give_back = |waiter: Option<&Waiter>, uncertain: bool| {
            let Some(waiter) = waiter else {
                // It is gone: by this call, or before it.
                is_unsure = uncertain;
                return Err(not_held(token));
            };
            let record = self.readable(waiter)?;
            if record.bound_gid.is_some() {
                return Err(not_held(token));
            }
            Ok(match record.count {
                count if record.was_given_back_by(op) => Amend::Leave(count),
                0 | 1 => Amend::Delete(Some(past.clone()), 0),
                count => {
                    let mut next = record.clone();
                    next.give_back(op);
                    Amend::Put(Box::new(next), None, count - 1)
                }
            })
        };
        let released = self.amend(key, created, total, give_back).await;
        if is_unsure { self.resolve_release(token, total).await } else { released }
    }

    /// What became of a release that may have ended the place: it has if that is noted, since both
    /// are one batch. If not, the place ended otherwise, or a later note hides this one, which
    /// nobody can tell apart.
    async fn resolve_release(&self, token: Token, total: Duration) -> Result<u32, LockError> {
        let mut patience = Patience::new(self.ground.now(), total);
        let last = loop {
            match self.ground.store().get(Get::new(self.place.last())).await {
                Ok(got) => break got.entry,
                Err(error) => self.ground.bear(&mut patience, error).await?,
            }
        };
        match last.as_ref().and_then(Past::read).filter(|past| past.token == token) {
            Some(past) if past.reason == Reason::Released => Ok(0),
            Some(_other_end) => Err(not_held(token)),
            None => Err(Error::OutcomeUnknown.into()),
        }
    }

    /// Lets others read what was held alone; returns whether that is a change.
    pub(super) async fn downgrade(
        &self,
        (key, created): (&Key, Revision),
        token: Token,
    ) -> Result<(), LockError> {
        let past = self.past(token, Reason::Downgraded);
        let share = |waiter: Option<&Waiter>, _| {
            let waiter = waiter.ok_or_else(|| not_held(token))?;
            let record = self.single(waiter, token)?;
            if self.place.area != Area::Lock {
                return Err(LockError::RequestInvalid { why: "only a lock can be held shared" });
            }
            if waiter.want() == Want::Shared {
                return Ok(Amend::Leave(()));
            }
            let mut next = record.clone();
            next.share();
            Ok(Amend::Put(Box::new(next), Some(past.clone()), ()))
        };
        self.amend(key, created, Patience::FOR_CALLERS, share).await
    }

    /// Ties the place at `key` to transaction `gid`, instead of its session.
    pub(super) async fn bind(
        &self,
        (key, created): (&Key, Revision),
        token: Token,
        gid: &Gid,
    ) -> Result<(), LockError> {
        let tie = |waiter: Option<&Waiter>, _| {
            let waiter = waiter.ok_or_else(|| not_held(token))?;
            let record = self.readable(waiter)?;
            if record.bound_gid.as_deref() == Some(gid.as_str()) {
                return Ok(Amend::Leave(()));
            }
            let mut next = self.single(waiter, token)?.clone();
            next.bind(gid.as_str(), created);
            Ok(Amend::Put(Box::new(next), None, ()))
        };
        self.amend(key, created, Patience::FOR_CALLERS, tie).await
    }

    /// Proclaims `value` from the place at `key`.
    pub(super) async fn proclaim(
        &self,
        (key, created): (&Key, Revision),
        token: Token,
        value: &str,
    ) -> Result<(), LockError> {
        let say = |waiter: Option<&Waiter>, _| {
            let waiter = waiter.ok_or_else(|| not_held(token))?;
            let mut next = self.readable(waiter)?.clone();
            next.value = Some(value.to_owned());
            Ok(Amend::Put(Box::new(next), None, ()))
        };
        self.amend(key, created, Patience::FOR_CALLERS, say).await
    }

    /// Ends the place at `key` whatever its count, if `may` allows it; writes why.
    pub(super) async fn end(
        &self,
        (key, created): (&Key, Revision),
        token: Token,
        reason: Reason,
        may: impl Fn(&Waiter) -> bool + Send + Sync,
    ) -> Result<(), LockError> {
        let past = self.past(token, reason);
        let end = |waiter: Option<&Waiter>, uncertain: bool| match waiter {
            Some(waiter) if may(waiter) => Ok(Amend::Delete(Some(past.clone()), ())),
            None if uncertain => Ok(Amend::Leave(())),
            None | Some(_) => Err(not_held(token)),
        };
        self.amend(key, created, Patience::FOR_CALLERS, end).await
    }

    /// The record of a place.
    pub(super) fn readable<'a>(&self, waiter: &'a Waiter) -> Result<&'a Record, LockError> {
        let unreadable = || LockError::Unreadable { key: waiter.key.clone() };
        waiter.record.as_ref().ok_or_else(unreadable)
    }

    /// The record of a place that its session holds once.
    fn single<'a>(&self, waiter: &'a Waiter, token: Token) -> Result<&'a Record, LockError> {
        let record = self.readable(waiter)?;
        if record.bound_gid.is_some() {
            return Err(not_held(token));
        }
        if record.count > 1 {
            return Err(LockError::AlreadyHeld { count: record.count });
        }
        Ok(record)
    }

    /// A note that a holder with `token` came to `reason` just now.
    pub(super) fn past(&self, token: Token, reason: Reason) -> Past {
        Past::new(token, reason, self.ground.timer().unix_millis())
    }
}

/// The session does not hold it with that token.
pub(super) const fn not_held(token: Token) -> LockError {
    LockError::NotHeld { token }
}

/// Everything about a place, a page at a time.
pub(super) fn whole(place: &Place) -> Select {
    Select::new(place.all()).limit(PAGE)
}

/// Entries of a page: as many as there may be, since nobody can use a part of a queue.
pub(super) const PAGE: NonZeroU32 = NonZeroU32::new(PAGE_ENTRIES_MAX).expect("not zero");
