//! The exam every backend passes: one case a rule of the port.
//!
//! A backend's test makes [`Exam`]s and runs [`all`]; or takes [`CASES`] one by one. Revisions are
//! counted from where the store stood when a case began, since a store on etcd shares its
//! revisions with others.
//!
//! The cases panic when a promise is broken, and say which.

mod batches;
mod closing;
mod leases;
mod reads;
pub mod scripts;
pub mod validators;
mod watches;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Applied, Batch, Op, Put};
use crate::entry::{Entry, Revision};
use crate::error::Error;
use crate::key::Key;
use crate::read::Get;
use crate::store::Store;

/// Something that will be done.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An empty store to be examined.
pub struct Exam {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Another handle of the same store; may be the same handle.
    pub second: Arc<dyn Store>,
    /// How time is let pass.
    pub time: Arc<dyn Time>,
    /// How long after its ttl a lease may still be there.
    pub slack: Duration,
}

/// Lets time pass: turns a clock, or waits.
pub trait Time: Send + Sync {
    /// Returns when `span` has passed and what was due in it has been done.
    fn pass(&self, span: Duration) -> Doing<'_, ()>;
}

/// One case: a name, and what is done with an empty store.
pub type Case = (&'static str, for<'a> fn(&'a Exam) -> Doing<'a, ()>);

/// Every case.
pub const CASES: &[Case] = &[
    ("the worked table of revisions", batches::worked_table),
    ("every compare, operator and target", batches::compares),
    ("a compare of a range", batches::range_compares),
    ("a branch sees its own writes, and is all or nothing", batches::branches),
    ("limits hold at n and break at one more", batches::limits),
    ("a batch that changes nothing takes no revision", batches::no_change),
    ("pages of one revision while others write", reads::pages),
    ("reads name a revision that can be read", reads::at_revisions),
    ("keys only, counts and limits", reads::selections),
    ("a snapshot is of one revision", reads::snapshots),
    ("keys are attached, kept and detached", leases::attaching),
    ("a lease ends no earlier than its ttl, and soon after", leases::expiry),
    ("keeping alive keeps alive", leases::keeping_alive),
    ("the keys of a lease go in one revision and in order", leases::revoking),
    ("leases that are not there", leases::missing),
    ("a watch from any revision", watches::beginnings),
    ("every stream of a busy store is what it should be", watches::validated),
    ("a watch that is left alone for 100,000 events", watches::slow),
    ("a watch is ended by compaction, never cut short", watches::compaction),
    ("an idle watch is told how far it is", watches::bookmarks),
    ("what one handle writes the other sees", watches::two_handles),
    ("everything ends with the store", closing::ends),
];

/// Runs every case, each on a store of its own.
///
/// # Panics
///
/// When the store breaks a promise; the message says which.
pub async fn all<'a>(mut fresh: impl FnMut() -> Doing<'a, Exam>) {
    for (name, case) in CASES {
        let exam = fresh().await;
        tracing::info!(case = name, "conformance");
        case(&exam).await;
    }
}

impl Exam {
    /// The current revision.
    async fn revision(&self) -> Revision {
        self.store.status().await.expect("a store can tell how it stands").revision
    }

    async fn put(&self, key: &str, value: &'static str) -> Revision {
        self.apply(Batch::new().then(put(key, value))).await.revision
    }

    async fn delete(&self, key: &str) -> Revision {
        self.apply(Batch::new().then(Op::delete(&self::key(key)))).await.revision
    }

    async fn apply(&self, batch: Batch) -> Applied {
        let told = format!("{batch:?}");
        self.store.apply(batch).await.unwrap_or_else(|error| fail(&told, &error))
    }

    async fn refused(&self, batch: Batch) -> Error {
        let told = format!("{batch:?}");
        match self.store.apply(batch).await {
            Ok(applied) => fail(&told, &applied),
            Err(error) => error,
        }
    }

    async fn entry(&self, key: &str) -> Option<Entry> {
        let got = self.store.get(Get::new(self::key(key))).await;
        got.unwrap_or_else(|error| fail(key, &error)).entry
    }

    async fn value(&self, key: &str) -> Option<String> {
        let entry = self.entry(key).await?;
        Some(String::from_utf8_lossy(&entry.value).into_owned())
    }

    async fn pass(&self, span: Duration) {
        self.time.pass(span).await;
    }
}

impl fmt::Debug for Exam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exam").field("slack", &self.slack).finish_non_exhaustive()
    }
}

fn key(text: &str) -> Key {
    text.try_into().expect("a key of the exam is valid")
}

fn put(text: &str, value: &'static str) -> Put {
    Put::new(key(text), value)
}

/// The revision `count` after `base`.
fn after(base: Revision, count: u64) -> Revision {
    Revision::new(base.get() + count)
}

#[expect(clippy::panic, reason = "an exam says loudly what went wrong")]
#[track_caller]
fn fail<T>(told: &str, found: &dyn fmt::Debug) -> T {
    panic!("{told}: {found:?}")
}
