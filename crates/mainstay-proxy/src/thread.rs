//! The number of a thread that serves, so that what all of them write to can lie apart for each.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of this thread, counted from zero in the order in which they ask first.
#[inline]
pub(crate) fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}
