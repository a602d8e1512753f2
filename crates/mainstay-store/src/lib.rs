//! Everything agreed upon, behind one port.
//!
//! Registry, config centre, locks, elections, switches, policies and the transaction log are
//! recipes over [`Store`]: a key-value store with one history, in etcd's words. A *revision* names
//! one state of all keys; a *lease* ties keys to a living process; a *watch* yields every change
//! from a revision on, once and in order, or says that history is gone; a *batch* compares and
//! then applies, all or nothing. A batch is never called a transaction: that word belongs to
//! `mainstay-txn`.
//!
//! | what | module |
//! |---|---|
//! | the port | [`store`] |
//! | its words: keys and ranges, entries and revisions, batches, reads, leases, watches | [`key`], [`entry`], [`batch`], [`read`], [`lease`], [`watch`] |
//! | why it did not do as asked | [`error`] |
//! | sizes, and why they are so | [`limits`] |
//! | how much history is kept | [`retention`] |
//! | everything as of one revision, as a stream, a file, one number | [`snapshot`], [`snapshot::file`], [`hash`](mod@hash) |
//! | the backend of one node, durable | [`embedded`] |
//! | the reference backend, for tests | [`memory`] |
//! | the exam of every backend (feature `conformance`) | `conformance` |
//!
//! The port is object-safe, since only the product knows which backend runs: recipes hold an
//! `Arc<dyn Store>`. The boxed future costs one allocation, next to nothing beside a commit.

pub mod batch;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
pub mod entry;
pub mod error;
mod events;
pub mod hash;
pub mod key;
pub mod lease;
mod leases;
pub mod limits;
pub mod memory;
pub mod read;
pub mod retention;
pub mod snapshot;
pub mod store;
mod stream;
pub mod watch;

pub use batch::{Answer, Applied, Attach, Batch, Compare, Op, Operator, Put, Target};
pub use embedded::Embedded;
pub use entry::{Entry, LeaseId, Revision};
pub use error::{Error, Retry};
pub use key::{Key, Range};
pub use lease::{Granted, LeaseStatus};
pub use memory::Memory;
pub use read::{Consistency, Get, Got, Page, RangeRequest, Select};
pub use snapshot::{Snapshot, SnapshotHead, SnapshotItem};
pub use store::{Pending, State, Status, Store, StoreId};
pub use watch::{Change, Event, Watch, WatchItem, WatchRequest};
