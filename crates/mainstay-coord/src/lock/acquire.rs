//! Waiting for one's turn.
//!
//! Each request runs in a task of its own; whoever asked only waits for its answer. So a request
//! that is given up, at whatever moment, still finishes the batch that was under way and then
//! puts its place away, and a grant that nobody is there to take is given back.

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::{
    Batch, Compare, Error, LeaseId, Put, Revision, Watch, WatchItem, WatchRequest,
};
use tokio::sync::oneshot::{self, Sender};
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::enter::Entered;
use super::error::LockError;
use super::held::Held;
use super::line::{Hurdle, Line, Turn, Waiter};
use super::record::{Past, Reason};
use super::request::{Grant, Request, Wait, Want};
use crate::coordination::Coordination;
use crate::name::RequestId;
use crate::patience::Patience;
use crate::session::{Session, SessionError};
use crate::{events, presence};

impl Session {
    /// Asks for something, and waits for its turn as long as the request says.
    ///
    /// # Errors
    ///
    /// [`LockError`]. Unless it is [`LockError::Store`] with an unknown outcome, nothing is left
    /// in the queue; and then it is put away in the background.
    ///
    /// # Cancel safety
    ///
    /// Safe: the place in the queue is given up in the background, and so is the lock if it had
    /// been granted just then.
    pub async fn acquire(&self, request: Request) -> Result<Held, LockError> {
        self.check().map_err(LockError::Lost)?;
        let ground = self.ground();
        let want = request.want;
        let place = request.place.clone();
        let grant = tokio::select! {
            biased;
            grant = acquire(ground, self.id(), request) => grant?,
            loss = self.lost() => return Err(LockError::Lost(loss)),
        };
        Held::new(self, Desk::new(ground.clone(), place), grant, want)
    }
}

/// Asks on behalf of a session, whoever renews it.
pub(super) async fn acquire(
    ground: &Coordination,
    session: LeaseId,
    mut request: Request,
) -> Result<Grant, LockError> {
    request.attempt = RequestId::random();
    let (tell, told) = oneshot::channel();
    let desk = Desk::new(ground.clone(), request.place.clone());
    let abandoned = CancellationToken::new();
    let caller = abandoned.clone().drop_guard();
    ground.tasks().spawn("lock-acquire", |stop| async move {
        Acquiring { desk, session, request, abandoned, stop }.run(tell).await;
    });
    let answer = told.await.unwrap_or(Err(LockError::Stopped));
    drop(caller);
    answer.map(Offer::take)
}

/// A grant on its way to whoever asked for it. If it does not arrive it is given back.
struct Offer {
    desk: Desk,
    request: Request,
    grant: Option<Grant>,
}

impl Offer {
    fn take(mut self) -> Grant {
        self.grant.take().expect("an offer is made with a grant and taken once")
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let (desk, request) = (self.desk.clone(), self.request.clone());
        self.desk.ground.tasks().spawn("lock-return", |_finishes| async move {
            let past = desk.past(grant.token, Reason::Released);
            let (place, total) = ((&grant.key, grant.created), Patience::FOR_CLEANING);
            let undone = desk.withdraw(place, &request, Some(past), total).await;
            report(&desk, undone);
        });
    }
}

/// One request on its way.
struct Acquiring {
    desk: Desk,
    session: LeaseId,
    request: Request,
    /// Nobody waits for the answer any more.
    abandoned: CancellationToken,
    stop: CancellationToken,
}

/// Why a wait ended.
enum Woken {
    /// Something changed.
    News,
    /// Its time is over.
    Late,
    /// Nobody waits for the answer any more, or this process is shutting down.
    Stopped,
}

impl Acquiring {
    async fn run(self, tell: Sender<Result<Offer, LockError>>) {
        let Self { desk, request, .. } = &self;
        let started = desk.ground.now();
        let answer = match desk.enter(self.session, request).await {
            Ok(entered) => self.wait_for_turn(started, entered).await,
            Err(error) => Err(error),
        };
        let outcome = answer.as_ref().map_or_else(LockError::outcome, |_| events::GRANTED);
        let waited = desk.ground.now().since(started);
        events::Acquired { kind: kind(request), place: &request.place, outcome, waited }
            .emit(desk.ground.figures());
        // What the store said last may leave the place in the queue.
        let is_unclear = matches!(answer, Err(LockError::Store(_)));
        let offer =
            |grant| Offer { desk: desk.clone(), request: request.clone(), grant: Some(grant) };
        drop(tell.send(answer.map(offer)));
        // At shutdown nobody waits for a store that is away.
        if is_unclear && !self.stop.is_cancelled() {
            report(desk, desk.sweep(self.session, request).await);
        }
    }

    /// Waits until it is its turn, or there is no use in waiting; then its place is put away.
    async fn wait_for_turn(&self, started: Instant, entered: Entered) -> Result<Grant, LockError> {
        let Entered { line, key, created } = entered;
        let own = Own { key: &key, created };
        let answer = self.turn_comes(started, line, own).await;
        let is_gone = matches!(&answer, Ok(_) | Err(LockError::Lost(_) | LockError::Session(_)));
        if !is_gone {
            let total = Patience::FOR_CALLERS;
            self.desk.withdraw((&key, created), &self.request, None, total).await?;
        }
        answer
    }

    async fn turn_comes(
        &self,
        started: Instant,
        mut line: Line,
        own: Own<'_>,
    ) -> Result<Grant, LockError> {
        // As long as somebody waits, a store that is away is waited for too: the place in the queue
        // is kept.
        let total = match self.request.wait {
            Wait::AtMost(span) => span,
            Wait::Try => Patience::FOR_CALLERS,
            Wait::Forever => Patience::FOR_CLEANING,
        };
        let mut patience = Patience::new(started, total);
        loop {
            if let Some(limit) = line.other_limit(self.request.want, own.created) {
                return Err(LockError::LimitDiffers { limit });
            }
            let result = match line.turn(&self.desk.place, own.key, own.created) {
                Turn::Gone => return Err(self.why_gone().await),
                Turn::Behind(hurdle) => self.sit_out(started, line, own, hurdle).await,
                Turn::Held => match self.take(started, line, own).await {
                    Ok(Some(grant)) => return Ok(grant),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(()) if self.request.wait == Wait::Forever => {
                    patience = Patience::new(self.desk.ground.now(), total);
                }
                Ok(()) => {}
                Err(LockError::Store(error)) => {
                    self.bear(&mut patience, error).await?;
                }
                Err(error) => return Err(error),
            }
            line = loop {
                match self.desk.read().await {
                    Ok(line) => break line,
                    Err(error) => self.bear(&mut patience, error).await?,
                }
            };
        }
    }

    /// Bears `error` as `patience` does, as long as somebody waits for the answer.
    async fn bear(&self, patience: &mut Patience, error: Error) -> Result<(), LockError> {
        tokio::select! {
            biased;
            () = self.abandoned.cancelled() => Err(LockError::Stopped),
            () = self.stop.cancelled() => Err(LockError::Stopped),
            borne = patience.bear(self.desk.ground.timer(), error) => Ok(borne?),
        }
    }

    /// It is its turn: takes it, unless a holder that vanished is still to be waited for. `None`
    /// when the queue has to be read again.
    async fn take(
        &self,
        started: Instant,
        line: Line,
        own: Own<'_>,
    ) -> Result<Option<Grant>, LockError> {
        let Some(waiter) = line.find(own.key) else { return Ok(None) };
        let (token, count) = (waiter.token(), waiter.count());
        let grant = |revision| {
            let (key, created) = (own.key.clone(), own.created);
            Some(Grant { token, revision, count, key, created })
        };
        let is_noted = line.past.as_ref().is_some_and(|(past, _)| past.token == token);
        if !is_noted {
            if let Some(past) = line.vanished() {
                self.desk.begin_delay(&line, past).await?;
                return Ok(None);
            }
            if line.delay.is_some() {
                let delay = Hurdle::Key(self.desk.place.delay());
                return self.sit_out(started, line, own, delay).await.map(|()| None);
            }
        }
        let delay = delay_of(waiter);
        if is_noted || delay == 0 {
            return Ok(grant(line.revision));
        }
        let now = self.desk.ground.timer().unix_millis();
        let batch = Batch::new()
            .when(Compare::created_at(own.key, own.created))
            .when(Compare::missing(&self.desk.place.delay()))
            .when(self.desk.past_as_read(&line))
            .then(Put::new(self.desk.place.last(), Past::granted(token, now, delay).write()));
        let applied = self.desk.ground.store().apply(batch).await?;
        Ok(if applied.succeeded { grant(applied.revision) } else { None })
    }

    /// Waits until `hurdle` falls. The queue as it was read is let go of before: it may be long,
    /// and so may be the wait.
    async fn sit_out(
        &self,
        started: Instant,
        line: Line,
        own: Own<'_>,
        hurdle: Hurdle,
    ) -> Result<(), LockError> {
        if self.request.wait == Wait::Try {
            return Err(LockError::busy(&line, self.holder_lives(&line).await));
        }
        let (read, late) = (line.revision, LockError::timeout(&line));
        drop(line);
        match self.news(started, read, own, hurdle).await? {
            Woken::News => Ok(()),
            Woken::Late => Err(late),
            Woken::Stopped => Err(LockError::Stopped),
        }
    }

    /// Waits until `hurdle` falls, as seen from the queue as of `read`.
    async fn news(
        &self,
        started: Instant,
        read: Revision,
        own: Own<'_>,
        hurdle: Hurdle,
    ) -> Result<Woken, Error> {
        let ground = &self.desk.ground;
        let mut request = WatchRequest::new(hurdle.range()).from(read.next()).previous().quiet();
        // Only a reader gains by what a writer before it becomes without going.
        request.puts = self.request.want == Want::Shared;
        let watch = ground.store().watch(request)?;
        let late = match self.request.wait {
            Wait::Try => started,
            Wait::AtMost(span) => started.plus(span),
            Wait::Forever => Instant::MAX,
        };
        tokio::select! {
            biased;
            () = self.abandoned.cancelled() => Ok(Woken::Stopped),
            () = self.stop.cancelled() => Ok(Woken::Stopped),
            news = fallen(watch, hurdle) => news.map(|()| Woken::News),
            () = presence::gone(ground, own.key, own.created) => Ok(Woken::News),
            () = ground.timer().sleep_until(late) => Ok(Woken::Late),
        }
    }

    /// How long the first holder lives if it is not renewed any more.
    async fn holder_lives(&self, line: &Line) -> Option<Duration> {
        let lease = line.holders().first()?.lease?;
        self.desk.ground.store().lease(lease).await.ok().map(|lease| lease.remaining)
    }

    /// Why its place went without its doing.
    async fn why_gone(&self) -> LockError {
        match self.desk.ground.sessions().entry(self.session).await {
            Err(error @ SessionError::NotFound { .. }) => error.into(),
            Ok(_) | Err(_) => LockError::Lost(mainstay_core::belief::Loss::Revoked),
        }
    }
}

/// The place of the request.
#[derive(Clone, Copy)]
struct Own<'a> {
    key: &'a mainstay_store::Key,
    created: Revision,
}

/// Waits until `hurdle` falls by what `watch` yields, or the watch has to begin anew.
async fn fallen(mut watch: Watch, mut hurdle: Hurdle) -> Result<(), Error> {
    loop {
        match watch.next().await {
            Some(WatchItem::Changes { events, .. }) => {
                if events.iter().any(|event| hurdle.falls(event)) {
                    return Ok(());
                }
            }
            Some(WatchItem::Compacted { .. }) => return Ok(()),
            Some(WatchItem::Created { .. } | WatchItem::Bookmark { .. }) => {}
            Some(WatchItem::Closed | WatchItem::Denied) | None => return Err(Error::Closed),
        }
    }
}

/// Whole seconds the next holder is to wait if `waiter`, which holds, vanishes.
fn delay_of(waiter: &Waiter) -> u64 {
    match waiter.want() {
        Want::Exclusive => waiter.record.as_ref().map_or(0, |record| record.lock_delay_seconds),
        Want::Shared | Want::Permits { .. } => 0,
    }
}

/// The kind of request, as it is counted.
fn kind(request: &Request) -> &'static str {
    match request.place.area {
        crate::keys::Area::Election | crate::keys::Area::Duty => "election",
        _ => request.want.as_str(),
    }
}

/// Tells when something was left in the queue.
pub(super) fn report(desk: &Desk, tidied: Result<(), LockError>) {
    match tidied {
        // Gone with its session, or before.
        Ok(()) | Err(LockError::NotHeld { .. } | LockError::Session(_)) => {}
        Err(error) => {
            let why = &error.to_string();
            events::LeftBehind { place: &desk.place, why }.emit();
        }
    }
}
