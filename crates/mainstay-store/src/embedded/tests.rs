//! The embedded store under its exam, beside the reference, on disks that fail, and killed.

mod exam;
mod faults;
mod kill;
mod offline;
mod power;
mod property;
mod reopening;

use std::sync::Arc;

use mainstay_core::ManualClock;

use super::simulated::Simulated;
use super::{Embedded, OpenError, Options, Ticks};
use crate::batch::{Applied, Batch, Put};
use crate::entry::Entry;
use crate::error::Error;
use crate::key::{Key, Range};
use crate::store::Store;

/// Options for a clock that is turned by hand.
fn by_hand() -> Options {
    let commit_linger = std::time::Duration::ZERO;
    Options { ticks: Ticks::ByHand, commit_linger, ..Options::new("unused") }
}

/// The embedded store on `media`.
fn try_start(
    media: &Simulated,
    clock: &ManualClock,
    options: Options,
) -> Result<Arc<Embedded>, OpenError> {
    let (media, clock) = (Arc::new(media.clone()), Arc::new(clock.clone()));
    Embedded::start(media, options, clock, None).map(Arc::new)
}

fn start(media: &Simulated, clock: &ManualClock, options: Options) -> Arc<Embedded> {
    try_start(media, clock, options).unwrap_or_else(|error| panic!("{error:?}"))
}

fn key(text: &str) -> Key {
    text.try_into().unwrap()
}

fn put(text: &str, value: impl Into<bytes::Bytes>) -> Put {
    Put::new(key(text), value)
}

async fn write(store: &dyn Store, name: &str, value: &'static str) -> Result<Applied, Error> {
    store.apply(Batch::new().then(put(name, value))).await
}

async fn everything(store: &dyn Store) -> Vec<Entry> {
    store.range(Range::all().into()).await.unwrap().entries
}
