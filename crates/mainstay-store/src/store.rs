//! The port.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use crate::batch::{Applied, Batch};
use crate::entry::{LeaseId, Revision};
use crate::error::Error;
use crate::lease::{Granted, LeaseStatus};
use crate::read::{Get, Got, Page, RangeRequest};
use crate::snapshot::Snapshot;
use crate::watch::{Watch, WatchRequest};

/// An answer on its way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A key-value store with one history.
///
/// [`apply`](Store::apply) and linearizable reads are strictly serialisable; all readers of one
/// revision see one state; nothing is visible before it is durable. Each method is one round trip.
/// Every method can fail with [`Error::Unavailable`] and [`Error::Closed`]; what else is said at
/// each.
///
/// # Cancel safety
///
/// Nothing is sent before the future is polled. Dropping one of a read loses only the answer.
/// Dropping one of `apply`, `grant`, `keep_alive`, `revoke` or `compact` leaves it open whether it
/// happens, as [`Error::OutcomeUnknown`] does: it is all or nothing, but may still be under way
/// when `drop` returns. Whoever must know reads what the batch wrote.
pub trait Store: Send + Sync {
    /// The entry of one key.
    ///
    /// # Errors
    ///
    /// [`Error::Compacted`] and [`Error::FutureRevision`] when `at` lies outside what can be read.
    fn get(&self, get: Get) -> Pending<'_, Got>;

    /// A page of a range, in byte order of the keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    fn range(&self, request: RangeRequest) -> Pending<'_, Page>;

    /// Compares, then applies one of two branches: all or nothing, at one revision.
    ///
    /// # Errors
    ///
    /// What [`Batch::check`] finds; [`Error::LeaseNotFound`] and [`Error::LeaseFull`] when the
    /// branch that would run names such a lease; [`Error::Full`], [`Error::Failed`],
    /// [`Error::Busy`]; and [`Error::OutcomeUnknown`], the only one after which it may have been
    /// applied.
    fn apply(&self, batch: Batch) -> Pending<'_, Applied>;

    /// Watches a range.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] at 100,000 watchers. All that happens later, the watch says itself.
    fn watch(&self, request: WatchRequest) -> Result<Watch, Error>;

    /// Grants a lease of at least `ttl`, under `id` or one the store chooses.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseExists`], [`Error::TtlInvalid`].
    fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Pending<'_, Granted>;

    /// Lets a lease live for its whole ttl again; returns that ttl. Writes nothing to disk.
    ///
    /// Whoever holds the lease counts from the moment this was **sent**, never from its answer.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseNotFound`], as soon as its end is decided, even if its keys are still there.
    fn keep_alive(&self, id: LeaseId) -> Pending<'_, Duration>;

    /// Ends a lease; all its keys go in one revision, which is returned.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseNotFound`].
    fn revoke(&self, id: LeaseId) -> Pending<'_, Revision>;

    /// A lease as it stands.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseNotFound`].
    fn lease(&self, id: LeaseId) -> Pending<'_, LeaseStatus>;

    /// Forgets history before `revision`: what can be read and watched begins there.
    ///
    /// # Errors
    ///
    /// [`Error::Compacted`] when that is done already, [`Error::FutureRevision`].
    fn compact(&self, revision: Revision) -> Pending<'_, ()>;

    /// Everything there is at one revision. Writes go on meanwhile.
    ///
    /// # Errors
    ///
    /// Those every method has.
    fn snapshot(&self) -> Pending<'_, Snapshot>;

    /// How the store stands.
    ///
    /// # Errors
    ///
    /// Those every method has, but a failed or closed store that can still tell does.
    fn status(&self) -> Pending<'_, Status>;

    /// Closes this handle: what is under way ends, watches end with
    /// [`WatchItem::Closed`](crate::watch::WatchItem::Closed), all else gets [`Error::Closed`].
    /// Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// What the last write to disk met.
    fn close(&self) -> Pending<'_, ()>;
}

/// Names one history. A store that was restored keeps it, since its revisions go on; a fresh one
/// has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(u64);

impl StoreId {
    /// The id numbered `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StoreId {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How a store stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `memory`, `embedded` or `etcd`.
    pub backend: &'static str,
    /// Which history.
    pub store: StoreId,
    /// The current revision.
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub compacted: Revision,
    /// Bytes kept: on disk where there is one, else of keys and values.
    pub bytes: u64,
    /// Live leases.
    pub leases: u64,
    /// Watches of this handle.
    pub watchers: u64,
    /// What it can do now.
    pub state: State,
}

/// What a store can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything.
    Ready,
    /// All but puts: quota or disk is used up.
    Full,
    /// Reads only, until it is restarted: a write to the disk failed.
    Failed,
    /// Nothing: it could not be reached lately.
    Away,
    /// Nothing, until an operator accepts it: another history answers in place of the known one.
    Regressed,
    /// Nothing more.
    Closed,
}

impl State {
    /// The word used in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Away => "away",
            Self::Regressed => "regressed",
            Self::Closed => "closed",
        }
    }
}
