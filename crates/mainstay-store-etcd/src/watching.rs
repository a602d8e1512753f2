//! A local watch: reads what its area has, and history from etcd where that is too far back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_store::limits::{BOOKMARK_EVERY, WATCHERS_MAX};
use mainstay_store::{Error, Event, Revision, Watch, WatchItem, WatchRequest};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use crate::area;
use crate::backoff::Backoff;
use crate::draw;
use crate::hub::{Area, Reading};
use crate::identity::Identity;
use crate::options::FanOut;
use crate::ring::Ahead;
use crate::session::{Fault, Session};
use crate::upstream::{End, News, PROGRESS_EVERY, Readable, Upstream};
use crate::version::Version;

/// A watch on its way.
struct Watching {
    session: Arc<Session>,
    request: WatchRequest,
    joined: Option<Joined>,
    /// Read history on a stream of its own, until the area has what follows.
    own: Option<Box<Own>>,
    /// The next revision it wants.
    next: Revision,
    /// Nothing above this is known of.
    known: Revision,
}

struct Joined {
    area: Arc<Area>,
    reading: Arc<Reading>,
}

struct Own {
    upstream: Upstream,
    _permit: OwnedSemaphorePermit,
}

/// Starts a watch.
///
/// # Errors
///
/// [`Error::Busy`] at 100,000 watches; [`Error::Closed`], [`Error::Regressed`].
pub(crate) fn start(session: &Arc<Session>, request: WatchRequest) -> Result<Watch, Error> {
    if session.closing.is_cancelled() {
        return Err(Error::Closed);
    }
    session.mark().map_err(Fault::into_error).map(drop)?;
    if WATCHERS_MAX <= session.watchers.fetch_add(1, Ordering::SeqCst) {
        session.watchers.fetch_sub(1, Ordering::SeqCst);
        return Err(Error::Busy { retry_after: BOOKMARK_EVERY });
    }
    let watching = Watching {
        session: Arc::clone(session),
        request,
        joined: None,
        own: None,
        next: Revision::NEVER,
        known: Revision::NEVER,
    };
    Ok(Watch::new(futures_util::stream::unfold(watching, |mut watching| async move {
        let item = watching.item().await;
        Some((item, watching))
    })))
}

/// How often a watch that does not stand is looked at.
const STAND_LOOK_EVERY: Duration = Duration::from_secs(1);

impl Watching {
    async fn item(&mut self) -> WatchItem {
        let session = Arc::clone(&self.session);
        tokio::select! {
            biased;
            () = session.closing.cancelled() => WatchItem::Closed,
            item = self.next_item() => item,
        }
    }

    async fn next_item(&mut self) -> WatchItem {
        if self.joined.is_none() {
            return Box::pin(self.begin()).await;
        }
        let mut idle = Box::pin(tokio::time::sleep(BOOKMARK_EVERY));
        loop {
            let step = if self.own.is_some() {
                Box::pin(self.read_history(idle.as_mut())).await
            } else {
                self.read_area(idle.as_mut()).await
            };
            if let Some(item) = step {
                return item;
            }
        }
    }

    /// Finds out where it stands, and joins its area.
    async fn begin(&mut self) -> WatchItem {
        let mut backoff = Backoff::default();
        loop {
            let begun = self.try_begin().await;
            match begun {
                Ok(item) => return item,
                Err(Fault::Closed) => return WatchItem::Closed,
                Err(Fault::Regressed { found, .. }) => return self.list_again(found),
                Err(_away) => self.session.pause(backoff.failed(draw::next())).await,
            }
        }
    }

    async fn try_begin(&mut self) -> Result<WatchItem, Fault> {
        let (next, now) = match self.request.from {
            None => {
                let now = self.session.revision().await?;
                (now.next(), now)
            }
            Some(Revision::NEVER) => {
                let compacted = match self.session.readable(Revision::FIRST).await? {
                    Readable::Compacted(compacted) => compacted,
                    Readable::Yes(_) | Readable::Future(_) => self.session.compacted(),
                };
                return Ok(WatchItem::Compacted { compacted });
            }
            Some(from) => match self.session.readable(from.before()).await? {
                Readable::Compacted(compacted) => return Ok(WatchItem::Compacted { compacted }),
                Readable::Yes(now) | Readable::Future(now) => (from, now),
            },
        };
        let whole = match self.session.options.fan_out {
            FanOut::Whole => true,
            FanOut::Areas => false,
            FanOut::Auto => !self.session.version().is_some_and(Version::tells_progress),
        };
        let (area, reading, is_new) = self.session.areas.join(self.request.clone(), whole);
        if is_new {
            let task = area::watch(Arc::clone(&self.session), Arc::clone(&area), now);
            self.session.tasks.spawn(task);
        }
        self.joined = Some(Joined { area, reading });
        (self.next, self.known) = (next, now);
        Ok(WatchItem::Created { revision: now })
    }

    /// One step in what the area has.
    async fn read_area(&mut self, mut idle: std::pin::Pin<&mut Sleep>) -> Option<WatchItem> {
        let Joined { area, reading } = self.joined.as_ref()?;
        let (ahead, reading) = (area.ahead(self.next), Arc::clone(reading));
        match ahead {
            Ahead::Changes((at, events)) => self.changes(at, &events),
            Ahead::Gone(compacted) => Some(self.list_again(compacted)),
            Ahead::Behind => self.open_own().await,
            Ahead::Nothing(_) | Ahead::Unknown => {
                tokio::select! {
                    () = reading.news.notified() => None,
                    () = idle.as_mut(), if self.request.bookmarks => {
                        if area.stands() {
                            return Some(self.bookmark());
                        }
                        // A reader that hears nothing takes the store to be away, as it is.
                        let again = idle.deadline() + STAND_LOOK_EVERY;
                        idle.reset(again);
                        None
                    }
                }
            }
        }
    }

    /// All that is asked for of one revision.
    fn changes(&mut self, at: Revision, events: &[Event]) -> Option<WatchItem> {
        self.next = at.next();
        self.known = self.known.max(at);
        let events: Vec<Event> =
            events.iter().filter_map(|event| self.request.select(event)).collect();
        (!events.is_empty()).then_some(WatchItem::Changes { revision: at, events })
    }

    /// How far it is: whatever is below the revision it wants has been delivered, as has whatever
    /// the area knows of if nothing waits there.
    fn bookmark(&mut self) -> WatchItem {
        let told = match &self.joined {
            Some(joined) if self.own.is_none() => match joined.area.ahead(self.next) {
                Ahead::Nothing(sure) => sure,
                _ => Revision::NEVER,
            },
            _ => Revision::NEVER,
        };
        self.known = self.known.max(told);
        let revision = told.max(self.next.before().min(self.known));
        WatchItem::Bookmark { revision }
    }

    fn list_again(&self, compacted: Revision) -> WatchItem {
        self.session.figures.resynced();
        WatchItem::Compacted { compacted }
    }

    async fn open_own(&mut self) -> Option<WatchItem> {
        let Ok(permit) = Arc::clone(&self.session.own_streams).try_acquire_owned() else {
            // Whoever lists again goes on in the area at once.
            self.session.figures.stream_refused();
            return Some(self.list_again(self.session.with_identity(Identity::seen)));
        };
        self.session.figures.own_stream();
        let mut backoff = Backoff::default();
        loop {
            match Upstream::open(&self.session, &self.request.range, self.next).await {
                Ok(upstream) => {
                    self.own = Some(Box::new(Own { upstream, _permit: permit }));
                    return None;
                }
                Err(End::Lost(_)) => self.session.pause(backoff.failed(draw::next())).await,
                Err(end) => return self.end(&end),
            }
        }
    }

    /// One step in history, on a stream of its own.
    async fn read_history(&mut self, idle: std::pin::Pin<&mut Sleep>) -> Option<WatchItem> {
        let own = self.own.as_mut()?;
        let news = tokio::select! {
            news = own.upstream.next(&self.session) => news,
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                own.upstream.ask_progress();
                return None;
            }
            () = idle, if self.request.bookmarks => return Some(self.bookmark()),
        };
        let item = match news {
            Ok(News::Changes(at, events)) => self.changes(at, &events),
            Ok(News::Progress(at)) => {
                self.known = self.known.max(at);
                self.next = self.next.max(at.next());
                None
            }
            Err(End::Lost(_)) => {
                // Its place is kept in `next`.
                self.own = None;
                self.session.figures.watch_resumed();
                self.session.pause(PAUSE_AFTER_LOSS).await;
                None
            }
            Err(end) => return self.end(&end),
        };
        let goes_on = self.joined.as_ref().is_some_and(|joined| joined.area.covers(self.next));
        if goes_on {
            self.own = None;
        }
        item
    }

    fn end(&self, end: &End) -> Option<WatchItem> {
        match end {
            End::Compacted(gone) | End::Replaced(gone) => Some(self.list_again(*gone)),
            End::Closed => Some(WatchItem::Closed),
            End::Lost(_) => None,
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(Joined { area, reading }) = &self.joined {
            area.leave(reading);
        }
        self.session.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Before history is read on elsewhere; opening waits for a connection by itself.
const PAUSE_AFTER_LOSS: Duration = Duration::from_millis(100);
