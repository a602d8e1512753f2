//! Everything of one handle, and how it asks etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_core::Clock;
use mainstay_store::{Error, LeaseId, Revision};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::connection::{Connection, Dialler};
use crate::draw;
use crate::events::{Regressed, VersionUntested};
use crate::figures::Figures;
use crate::hub::Areas;
use crate::identity::{Freshness, Identity, Mark};
use crate::link::Link;
use crate::options::{Endpoint, Options};
use crate::refusal::Refusal;
use crate::rpc::{Answer as _, Rpc};
use crate::stub::ResponseHeader;
use crate::version::Version;
use crate::wire::Space;

/// Everything of one handle.
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) space: Space,
    pub(crate) clock: Arc<dyn Clock>,
    dialler: Dialler,
    pub(crate) calls: Link,
    pub(crate) watches: Link,
    pub(crate) leases: Link,
    identity: Mutex<Identity>,
    version: Mutex<Option<Version>>,
    /// The highest revision known to be compacted.
    compacted: AtomicU64,
    pub(crate) figures: Figures,
    pub(crate) areas: Areas,
    pub(crate) watchers: AtomicUsize,
    /// Watches that may have a stream of their own.
    pub(crate) own_streams: Arc<Semaphore>,
    in_flight: Semaphore,
    /// The lease of the one who compacts, if that is this handle.
    pub(crate) office: Mutex<Option<LeaseId>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
}

/// How a call is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) freshness: Freshness,
    /// Whether to ask again when the first asking may have been heard.
    pub(crate) repeat: bool,
    /// On the connection for leases.
    pub(crate) of_lease: bool,
}

impl How {
    /// A read through the leader.
    pub(crate) const READ: Self =
        Self { freshness: Freshness::Linearizable, repeat: true, of_lease: false };
    /// A read of what a member knows.
    pub(crate) const LOCAL: Self = Self { freshness: Freshness::Local, ..Self::READ };
    /// A write.
    pub(crate) const WRITE: Self = Self { repeat: false, ..Self::READ };
    /// Something about a lease that can be repeated without harm.
    pub(crate) const LEASE: Self =
        Self { freshness: Freshness::Local, repeat: true, of_lease: true };
    /// Something about a lease that cannot.
    pub(crate) const LEASE_WRITE: Self = Self { repeat: false, ..Self::LEASE };
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing was done.
    Away(String),
    /// It may have been done.
    Open,
    /// It was refused; nothing was done.
    Refused(Refusal),
    Busy,
    Closed,
    Regressed {
        seen: Revision,
        found: Revision,
    },
}

impl Fault {
    /// As the port has it, where a refusal says nothing more.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Away(why) => Error::Unavailable { why },
            Self::Open => Error::OutcomeUnknown,
            Self::Busy | Self::Refused(Refusal::Busy) => Error::Busy { retry_after: BUSY_FOR },
            Self::Closed => Error::Closed,
            Self::Regressed { seen, found } => Error::Regressed { seen, found },
            Self::Refused(Refusal::Full) => {
                Error::Full { why: "the quota of etcd's database is used up".to_owned() }
            }
            Self::Refused(Refusal::Never(why) | Refusal::NotHere(why) | Refusal::Open(why)) => {
                Error::Unavailable { why }
            }
            Self::Refused(other) => Error::Unavailable { why: format!("refused: {other:?}") },
        }
    }
}

/// What is known of a call when its time is up.
#[derive(Debug, Default)]
struct Trail {
    /// It may have been heard.
    sent: bool,
    why: Option<String>,
}

impl Session {
    pub(crate) fn new(options: Options, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let dialler = Dialler {
            tls: options.tls.clone(),
            credentials: options.credentials.clone(),
            tasks: tasks.clone(),
            closing: closing.clone(),
        };
        Arc::new(Self {
            space: Space::new(&options.prefix),
            identity: Mutex::new(Identity::known(options.known)),
            options,
            clock,
            dialler,
            calls: Link::new("calls"),
            watches: Link::new("watches"),
            leases: Link::new("leases"),
            version: Mutex::new(None),
            compacted: AtomicU64::new(0),
            figures: Figures::default(),
            areas: Areas::default(),
            watchers: AtomicUsize::new(0),
            own_streams: Arc::new(Semaphore::new(OWN_STREAMS_MAX)),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            office: Mutex::new(None),
            tasks,
            closing,
        })
    }

    /// Asks etcd, within the time a call may take.
    ///
    /// # Errors
    ///
    /// [`Fault`]; [`Fault::Open`] only for what is not to be repeated.
    pub(crate) async fn call<Q: Rpc>(&self, request: Q, how: How) -> Result<Q::Answer, Fault> {
        if self.closing.is_cancelled() {
            return Err(Fault::Closed);
        }
        let Ok(_permit) = self.in_flight.try_acquire() else {
            self.figures.refused();
            return Err(Fault::Busy);
        };
        let mut trail = Trail::default();
        let limit = self.options.request_timeout;
        let asked = tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(Fault::Closed),
            asked = tokio::time::timeout(limit, self.attempts(&request, how, &mut trail)) => {
                asked.unwrap_or_else(|_elapsed| Err(Fault::Away("no answer in time".to_owned())))
            }
        };
        let may_have_happened = trail.sent && !how.repeat;
        let judged = asked.map_err(|fault| match fault {
            Fault::Away(_) | Fault::Closed if may_have_happened => Fault::Open,
            Fault::Away(why) => Fault::Away(trail.why.unwrap_or(why)),
            other => other,
        });
        self.note(&judged);
        judged
    }

    async fn attempts<Q: Rpc>(
        &self,
        request: &Q,
        how: How,
        trail: &mut Trail,
    ) -> Result<Q::Answer, Fault> {
        let link = if how.of_lease { &self.leases } else { &self.calls };
        let leader = how.freshness == Freshness::Linearizable || !how.repeat;
        let mut backoff = Backoff::default();
        loop {
            let connection = link.connection(self, &mut trail.why).await?;
            let mark = self.mark()?;
            trail.sent = true;
            let asking = connection.unary(request.clone(), leader);
            let refusal = match tokio::time::timeout(self.patience(how), asking).await {
                Ok(Ok(answer)) => {
                    let judged = self.judge(mark, answer.header(), how.freshness);
                    // A write was done, if in another history.
                    judged.map_err(|fault| if how.repeat { fault } else { Fault::Open })?;
                    return Ok(answer);
                }
                Ok(Err(status)) => Refusal::of(&status),
                Err(_elapsed) => Refusal::Open("no answer in time".to_owned()),
            };
            match refusal {
                Refusal::Token if self.options.credentials.is_none() => {
                    let why = "etcd asks for a user, and none is set".to_owned();
                    return Err(Fault::Refused(Refusal::Never(why)));
                }
                Refusal::Token => trail.why = Some("signed out by etcd".to_owned()),
                Refusal::NotHere(why) => trail.why = Some(why),
                Refusal::Open(why) if how.repeat => trail.why = Some(why),
                // An answer too large to take is one all the same.
                Refusal::AnswerTooLarge if !how.repeat => return Err(Fault::Open),
                Refusal::Open(_) => {
                    link.give_up(&connection);
                    return Err(Fault::Open);
                }
                refused => return Err(Fault::Refused(refused)),
            }
            // Nothing was done, or it can be done twice: again, elsewhere.
            trail.sent = false;
            link.give_up(&connection);
            self.figures.repeated();
            tokio::time::sleep(backoff.failed(draw::next())).await;
        }
    }

    /// How long one attempt waits: all the time there is if only one may be made; half of it if
    /// another member can be asked instead.
    fn patience(&self, how: How) -> Duration {
        let whole = self.options.request_timeout;
        if how.repeat && 1 < self.options.endpoints.len() { whole / 2 } else { whole }
    }

    /// Connects to a member; the inner error is what waiting may mend.
    pub(crate) async fn dial(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Result<Connection, String>, Fault> {
        let mark = self.mark()?;
        let (connection, status) = match self.dialler.dial(endpoint).await {
            Ok(dialled) => dialled,
            Err(why) => return Ok(Err(why)),
        };
        self.judge(mark, status.header.as_ref(), Freshness::Local)?;
        let version = connection.version;
        let before = self.version.lock().replace(version);
        if before != Some(version) && !version.is_tested() {
            VersionUntested { version }.emit();
        }
        Ok(Ok(connection))
    }

    /// Before something is sent.
    pub(crate) fn mark(&self) -> Result<Mark, Fault> {
        self.identity.lock().mark().map_err(Self::regressed)
    }

    /// Judges what an answer tells of the cluster.
    pub(crate) fn judge(
        &self,
        mark: Mark,
        header: Option<&ResponseHeader>,
        freshness: Freshness,
    ) -> Result<(), Fault> {
        let Some(header) = header else {
            return Err(Fault::Away("an answer without a header".to_owned()));
        };
        let (judged, news) = {
            let mut identity = self.identity.lock();
            let before = identity.regressed();
            let judged = identity.answered(mark, header, freshness);
            (judged, if before.is_none() { identity.regressed() } else { None })
        };
        if let Some((seen, found)) = news {
            Regressed { seen, found }.emit();
            self.areas.replaced(found);
        }
        judged.map_err(Self::regressed)
    }

    fn regressed(error: Error) -> Fault {
        match error {
            Error::Regressed { seen, found } => Fault::Regressed { seen, found },
            other => Fault::Away(other.to_string()),
        }
    }

    /// An event told that `revision` is committed.
    pub(crate) fn saw(&self, revision: Revision) {
        self.identity.lock().saw(revision);
    }

    pub(crate) fn with_identity<T>(&self, look: impl FnOnce(&Identity) -> T) -> T {
        look(&self.identity.lock())
    }

    /// Goes on with whatever cluster answers next.
    pub(crate) fn accept(&self) {
        self.identity.lock().accept();
        self.compacted.store(0, Ordering::SeqCst);
        self.calls.close();
        self.watches.close();
        self.leases.close();
    }

    pub(crate) fn version(&self) -> Option<Version> {
        *self.version.lock()
    }

    /// The highest revision known to be compacted.
    pub(crate) fn compacted(&self) -> Revision {
        Revision::new(self.compacted.load(Ordering::SeqCst))
    }

    pub(crate) fn compacted_at(&self, revision: Revision) {
        self.compacted.fetch_max(revision.get(), Ordering::SeqCst);
    }

    /// Waits `span`, or until the handle is closed.
    pub(crate) async fn pause(&self, span: Duration) {
        tokio::select! {
            () = self.closing.cancelled() => (),
            () = tokio::time::sleep(span) => (),
        }
    }

    fn note<T>(&self, judged: &Result<T, Fault>) {
        match judged {
            Ok(_) | Err(Fault::Refused(_)) => self.figures.answered(),
            Err(Fault::Away(_)) => self.figures.unanswered(),
            Err(Fault::Open) => self.figures.left_open(),
            Err(Fault::Busy | Fault::Closed | Fault::Regressed { .. }) => (),
        }
    }
}

/// A lease id nobody has chosen before.
pub(crate) fn new_lease() -> LeaseId {
    loop {
        if let Some(id) = LeaseId::new(draw::next() >> 1) {
            return id;
        }
    }
}

/// Calls under way at once, as many as the store on one node queues.
const IN_FLIGHT_MAX: usize = 8_192;

/// Streams for watches that resume far back. A node that comes back after a long time lists rather
/// than resumes; what is above this is told to.
const OWN_STREAMS_MAX: usize = 256;

const BUSY_FOR: Duration = Duration::from_millis(100);
