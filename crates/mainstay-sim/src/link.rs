//! The way from a process to the store, on which messages are late, lost, and cut off.
//!
//! It does what a session layer does: a request whose answer does not come is given up after a
//! while, with an unknown outcome if it may have done something; a watch whose connection ends is
//! resumed after the last revision it delivered, so that its reader hears of nothing but changes.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::unfold;
use mainstay_coord::Timer as _;
use mainstay_core::Clock as _;
use mainstay_store::{
    Applied, Batch, Embedded, Error, Get, Got, Granted, LeaseId, LeaseStatus, Page, Pending,
    RangeRequest, Revision, Snapshot, Status, Store, Watch, WatchItem, WatchRequest,
};
use tokio::sync::oneshot;

use crate::clock::{SkewedClock, spawn};
use crate::draw::Draw;
use crate::mutant::Mutant;
use crate::server::{Alive, Server};

/// The way of one process.
#[derive(Debug)]
pub struct Link {
    name: Arc<str>,
    server: Server,
    clock: SkewedClock,
    draw: Draw,
    cut: Arc<AtomicBool>,
    slow: AtomicBool,
}

/// What becomes of one exchange.
#[derive(Clone, Copy, Debug)]
struct Trip {
    there: Duration,
    back: Duration,
    lost_there: bool,
    lost_back: bool,
}

type Answer<T> = Result<T, Error>;

impl Link {
    pub(crate) fn new(name: Arc<str>, server: Server, clock: SkewedClock, draw: Draw) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        Self { name, server, clock, draw, cut, slow: AtomicBool::new(false) }
    }

    /// Nothing gets through any more, in either direction, until `cut(false)`.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    /// Answers take the better part of a second, until `slow(false)`.
    pub fn slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::SeqCst);
    }

    fn trip(&self) -> Trip {
        let draw = &self.draw;
        let delay = || match draw.below(100) {
            0 => draw.millis(500, 6_000),
            1..6 => draw.millis(20, 300),
            _ => draw.millis(0, 3),
        };
        let (there, mut back) = (delay(), delay());
        if self.slow.load(Ordering::SeqCst) {
            back += draw.millis(250, 900);
        }
        Trip { there, back, lost_there: draw.once_in(150), lost_back: draw.once_in(150) }
    }

    /// Sends something to the store and waits for its answer. What has left goes on, whatever
    /// becomes of whoever asked.
    async fn exchange<T, F>(
        &self,
        what: &'static str,
        silence: Error,
        act: impl FnOnce(Arc<Embedded>) -> F + Send + 'static,
    ) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let trip = self.trip();
        let (tell, told) = oneshot::channel();
        let (server, clock, cut) = (self.server.clone(), self.clock.clone(), Arc::clone(&self.cut));
        spawn(async move {
            tokio::time::sleep(trip.there).await;
            if trip.lost_there || cut.load(Ordering::SeqCst) {
                return;
            }
            server.clock().running().await;
            let answer = match server.alive() {
                None => Err(Error::Unavailable { why: "refused".to_owned() }),
                Some(Alive { store, life }) => tokio::select! {
                    biased;
                    () = server.over(life) => return,
                    answer = act(store) => answer,
                },
            };
            tokio::time::sleep(trip.back).await;
            if trip.lost_back || cut.load(Ordering::SeqCst) {
                return;
            }
            clock.running().await;
            // Nobody may wait for it any more.
            drop(tell.send(answer));
        });
        let patience = self.clock.now().plus(PATIENCE);
        let told = async {
            match told.await {
                Ok(answer) => answer,
                // It was lost, which shows only by nothing coming.
                Err(_lost) => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = told => answer,
            () = self.clock.sleep_until(patience) => Err(silence),
        };
        if let Err(error) = &answer {
            self.server.note(|| format!("{}: {what}: {error}", self.name));
        }
        answer
    }
}

macro_rules! ask {
    ($self:ident, $silence:expr, $method:ident $(, $arg:expr)*) => {
        Box::pin($self.exchange(stringify!($method), $silence, move |store| async move {
            store.$method($($arg),*).await
        }))
    };
}

impl Store for Link {
    fn get(&self, get: Get) -> Pending<'_, Got> {
        if self.server.mutant() == Some(Mutant::StaleReads) {
            return Box::pin(self.exchange("get", silent(), move |store| async move {
                let revision = store.status().await?.revision;
                let stale = Revision::new(revision.get().saturating_sub(2).max(1));
                store.get(get.at(stale)).await
            }));
        }
        ask!(self, silent(), get, get)
    }

    fn range(&self, request: RangeRequest) -> Pending<'_, Page> {
        ask!(self, silent(), range, request)
    }

    fn apply(&self, batch: Batch) -> Pending<'_, Applied> {
        if self.server.mutant() == Some(Mutant::AnswerBeforeCommit) && is_plain(&batch) {
            return Box::pin(self.exchange("apply", Error::OutcomeUnknown, |store| async move {
                spawn(async move { drop(store.apply(batch).await) });
                let revision = Revision::NEVER;
                Ok(Applied { succeeded: true, revision, answers: Vec::new() })
            }));
        }
        ask!(self, Error::OutcomeUnknown, apply, batch)
    }

    fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        let resuming = Resuming {
            server: self.server.clone(),
            clock: self.clock.clone(),
            draw: self.draw.clone(),
            cut: Arc::clone(&self.cut),
            next: request.from,
            request,
            created: false,
            connection: None,
            ended: false,
        };
        Ok(Watch::new(unfold(resuming, |mut resuming| async move {
            let item = resuming.next().await?;
            Some((item, resuming))
        })))
    }

    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted> {
        ask!(self, Error::OutcomeUnknown, grant, ttl, id)
    }

    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration> {
        ask!(self, silent(), keep_alive, id)
    }

    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision> {
        ask!(self, Error::OutcomeUnknown, revoke, id)
    }

    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus> {
        ask!(self, silent(), lease, id)
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        ask!(self, Error::OutcomeUnknown, compact, revision)
    }

    fn snapshot(&self) -> Pending<'_, Snapshot> {
        Box::pin(ready(Err(silent())))
    }

    fn status(&self) -> Pending<'_, Status> {
        ask!(self, silent(), status)
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(ready(Ok(())))
    }
}

/// Whether a batch only puts, whatever is there.
fn is_plain(batch: &Batch) -> bool {
    batch.compares.is_empty()
        && batch.then.iter().all(|op| matches!(op, mainstay_store::Op::Put(_)))
}

/// What a read becomes whose answer does not come.
fn silent() -> Error {
    Error::Unavailable { why: "no answer".to_owned() }
}

/// A watch that outlives its connections.
struct Resuming {
    server: Server,
    clock: SkewedClock,
    draw: Draw,
    cut: Arc<AtomicBool>,
    request: WatchRequest,
    /// The next revision to deliver; `None` while it is not known where "now" was.
    next: Option<Revision>,
    created: bool,
    connection: Option<(Watch, u64)>,
    ended: bool,
}

impl Resuming {
    async fn next(&mut self) -> Option<WatchItem> {
        if self.ended {
            return None;
        }
        loop {
            let Some((watch, life)) = &mut self.connection else {
                self.connect().await;
                continue;
            };
            let life = *life;
            let item = tokio::select! {
                biased;
                () = self.server.over(life) => None,
                () = is_cut(&self.cut) => None,
                item = watch.next() => item,
            };
            let Some(item) = item.filter(|item| *item != WatchItem::Closed) else {
                self.connection = None;
                continue;
            };
            // In order, on one connection: each item waits for those before it.
            let late =
                if self.draw.once_in(40) { self.draw.millis(20, 800) } else { Duration::ZERO };
            tokio::time::sleep(late).await;
            if self.cut.load(Ordering::SeqCst) {
                self.connection = None;
                continue;
            }
            self.clock.running().await;
            match &item {
                WatchItem::Created { revision } => {
                    let next = self.next.unwrap_or_else(|| revision.next());
                    self.next = Some(next);
                    if std::mem::replace(&mut self.created, true) {
                        continue;
                    }
                }
                WatchItem::Changes { revision, .. } => self.next = Some(self.after(*revision)),
                WatchItem::Bookmark { revision } => {
                    self.next = self.next.max(Some(revision.next()));
                }
                _ => self.ended = true,
            }
            return Some(item);
        }
    }

    /// Where a new connection goes on after `revision` was delivered.
    fn after(&self, revision: Revision) -> Revision {
        match self.server.mutant() {
            Some(Mutant::ResumeAtLast) => revision,
            Some(Mutant::ResumeTooLate) => revision.next().next(),
            _ => revision.next(),
        }
    }

    async fn connect(&mut self) {
        tokio::time::sleep(self.draw.millis(1, 100)).await;
        self.clock.running().await;
        let Some(Alive { store, life }) = self.server.alive() else { return };
        if self.cut.load(Ordering::SeqCst) || self.server.clock().is_paused() {
            return;
        }
        let request = WatchRequest { from: self.next, ..self.request.clone() };
        self.connection = store.watch(request).ok().map(|watch| (watch, life));
    }
}

async fn is_cut(cut: &AtomicBool) {
    while !cut.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
