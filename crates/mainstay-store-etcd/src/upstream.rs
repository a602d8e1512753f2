//! One watch of etcd, until it ends.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Error, Event, Range, Revision};
use tonic::codec::Streaming;

use crate::connection::{Asking, Connection};
use crate::identity::{Freshness, Identity, revision};
use crate::reader::{Read, Reader};
use crate::refusal::Refusal;
use crate::rpc::Answer as _;
use crate::session::{Fault, How, Session};
use crate::stub::{
    RangeRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request,
};
use crate::wire::{Span, signed};

/// A watch that stands.
pub(crate) struct Upstream {
    connection: Arc<Connection>,
    asking: Asking<WatchRequest>,
    messages: Streaming<WatchResponse>,
    reader: Reader,
    /// Made of a message, and not yet taken.
    read: std::vec::IntoIter<Read>,
}

/// What a watch that stands yields.
#[derive(Debug)]
pub(crate) enum News {
    Changes(Revision, Vec<Event>),
    /// Nothing at or before it follows.
    Progress(Revision),
}

/// Why a watch does not, or no longer, stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// What was to come next is compacted.
    Compacted(Revision),
    /// It can go on elsewhere.
    Lost(String),
    /// The cluster is another one.
    Replaced(Revision),
    Closed,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Closed => Self::Closed,
            Fault::Regressed { found, .. } => Self::Replaced(found),
            other => Self::Lost(other.into_error().to_string()),
        }
    }
}

impl Upstream {
    /// Watches `range` from `from` on, and makes sure that nothing from there on is compacted.
    pub(crate) async fn open(
        session: &Session,
        range: &Range,
        from: Revision,
    ) -> Result<Self, End> {
        let mut why = None;
        let connection = session.watches.connection(session, &mut why).await?;
        let opened = tokio::time::timeout(
            session.options.request_timeout,
            Self::open_on(session, &connection, session.space.span(range), from),
        );
        let opened =
            opened.await.unwrap_or_else(|_late| Err(End::Lost("no answer in time".into())));
        if let Err(End::Lost(_)) = &opened {
            session.watches.give_up(&connection);
        }
        let upstream = opened?;
        // Created first, then this: an etcd before 3.4.36 and 3.5.18 serves a watch that begins
        // at the compacted revision, and leaves out its deletes (etcd#19179).
        match session.readable(from.before()).await? {
            Readable::Compacted(compacted) => Err(End::Compacted(compacted)),
            Readable::Yes(_) | Readable::Future(_) => Ok(upstream),
        }
    }

    async fn open_on(
        session: &Session,
        connection: &Arc<Connection>,
        span: Span,
        from: Revision,
    ) -> Result<Self, End> {
        let mark = session.mark()?;
        let Span { key, range_end } = span;
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: signed(from.get()),
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let first = request(watch_request::RequestUnion::CreateRequest(create));
        let lost = |status: tonic::Status| End::Lost(status.message().to_owned());
        let (asking, messages) = connection.stream(first).await.map_err(lost)?;
        let mut upstream = Self {
            connection: Arc::clone(connection),
            asking,
            messages,
            reader: Reader::new(from),
            read: Vec::new().into_iter(),
        };
        let Some(message) = upstream.messages.message().await.map_err(lost)? else {
            return Err(End::Lost("ended at once".to_owned()));
        };
        session.judge(mark, message.header(), Freshness::Local)?;
        let first = upstream.reader.take(&session.space, message);
        match first.into_iter().next() {
            Some(Read::Created(_)) => Ok(upstream),
            Some(Read::Compacted(compacted)) => {
                session.compacted_at(compacted);
                Err(End::Compacted(compacted))
            }
            other => Err(End::Lost(format!("began with {other:?}"))),
        }
    }

    /// Waits for news.
    ///
    /// Safe to drop: what was received stays.
    pub(crate) async fn next(&mut self, session: &Session) -> Result<News, End> {
        loop {
            for read in self.read.by_ref() {
                match read {
                    Read::Changes(at, events) => {
                        session.saw(at);
                        return Ok(News::Changes(at, events));
                    }
                    Read::Progress(at) => return Ok(News::Progress(at)),
                    Read::Created(_) => (),
                    Read::Dropped => session.figures.event_dropped(),
                    Read::Foreign => session.figures.event_foreign(),
                    Read::Compacted(compacted) => {
                        session.compacted_at(compacted);
                        return Err(End::Compacted(compacted));
                    }
                    Read::Ended(why) => return Err(self.lost(session, why)),
                }
            }
            let message = match self.messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(self.lost(session, "ended".to_owned())),
                Err(status) => return Err(self.lost(session, status.message().to_owned())),
            };
            self.read = self.reader.take(&session.space, message).into_iter();
        }
    }

    /// Asks how far the watch is; the answer comes as news.
    pub(crate) fn ask_progress(&self) {
        if self.connection.version.tells_progress() {
            let progress = watch_request::RequestUnion::ProgressRequest(WatchProgressRequest {});
            self.asking.ask(request(progress));
        }
    }

    fn lost(&self, session: &Session, why: String) -> End {
        session.watches.give_up(&self.connection);
        if session.closing.is_cancelled() { End::Closed } else { End::Lost(why) }
    }
}

const fn request(union: watch_request::RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

/// Whether a revision can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    /// It can; this is the current one.
    Yes(Revision),
    /// History begins at this one.
    Compacted(Revision),
    /// It is yet to come; this is the current one.
    Future(Revision),
}

impl Session {
    /// The current revision, through the leader.
    pub(crate) async fn revision(&self) -> Result<Revision, Fault> {
        let Span { key, range_end } = self.space.span(&Range::between("z", Some("a".into())));
        let nothing = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
        let answer = self.call(nothing, How::READ).await?;
        Ok(answer.header.map(|header| revision(header.revision)).unwrap_or_default())
    }

    /// Reads nothing, as of `at`; returns the current revision.
    async fn touch(&self, at: Revision) -> Result<Revision, Fault> {
        let (key, at) = (self.space.own(""), signed(at.get()));
        let count = RangeRequest { key, count_only: true, revision: at, ..RangeRequest::default() };
        let answer = self.call(count, How::READ).await?;
        Ok(answer.header.map(|header| revision(header.revision)).unwrap_or_default())
    }

    /// Whether `at` can be read.
    pub(crate) async fn readable(&self, at: Revision) -> Result<Readable, Fault> {
        // To etcd 0 means the newest. Nothing ever happened at 1, so whether it can be read tells
        // whether anything was compacted.
        let at = at.max(Revision::FIRST);
        match self.touch(at).await {
            Ok(now) => Ok(Readable::Yes(now)),
            Err(Fault::Refused(Refusal::Compacted)) => {
                Ok(Readable::Compacted(self.learn_compacted(at).await?))
            }
            Err(Fault::Refused(Refusal::Future)) => Ok(Readable::Future(self.revision().await?)),
            Err(other) => Err(other),
        }
    }

    /// The compacted revision, given one before it.
    ///
    /// etcd tells it to watches only: one that begins at `before` ends at once, and names it.
    pub(crate) async fn learn_compacted(&self, before: Revision) -> Result<Revision, Fault> {
        let known = self.compacted();
        if before < known {
            // A later one may be in force by now. As a place to list again from, this one is as
            // good, but the port names the oldest revision that can be read.
            if self.touch(known).await.is_ok() {
                return Ok(known);
            }
        }
        let mut why = None;
        let learning = async {
            let connection = self.watches.connection(self, &mut why).await?;
            let span = self.space.span(&Range::between("z", Some("a".into())));
            match Upstream::open_on(self, &connection, span, before.max(Revision::FIRST)).await {
                Ok(mut upstream) => match upstream.next(self).await {
                    Ok(_) => Ok(self.compacted()),
                    Err(end) => Err(end),
                },
                Err(end) => Err(end),
            }
        };
        let learned = tokio::time::timeout(self.options.request_timeout, learning).await;
        match learned {
            Ok(Err(End::Compacted(compacted))) => Ok(compacted),
            Ok(Err(End::Closed)) => Err(Fault::Closed),
            Ok(Err(End::Replaced(found))) => {
                Err(Fault::Regressed { seen: self.with_identity(Identity::seen), found })
            }
            Ok(Err(End::Lost(why))) => Err(Fault::Away(why)),
            Ok(Ok(known)) => Ok(known),
            Err(_elapsed) => Err(Fault::Away("no answer in time".to_owned())),
        }
    }

    /// Turns a refused read at `at` into what the port says.
    pub(crate) async fn read_error(&self, fault: Fault, at: Option<Revision>) -> Error {
        let at = at.unwrap_or(Revision::FIRST);
        let found = match fault {
            Fault::Refused(Refusal::Compacted) => {
                self.learn_compacted(at).await.map(|compacted| Error::Compacted { compacted })
            }
            Fault::Refused(Refusal::Future) => {
                self.revision().await.map(|revision| Error::FutureRevision { revision })
            }
            other => Err(other),
        };
        found.unwrap_or_else(Fault::into_error)
    }
}

/// How often an idle watch is asked how far it is, where etcd can tell.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_secs(5);
