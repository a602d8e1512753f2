//! Points of the commit path at which a test can end the process.
//!
//! Compiled to nothing unless this crate is built for its tests or with the feature `crash-points`.
//! The variable `MAINSTAY_STORE_CRASH` names a point and how often it is passed first:
//! `committed:17`.

/// A step of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Batches were taken from the queue.
    Taken,
    /// They were evaluated.
    Evaluated,
    /// The engine has their changes, and has committed nothing.
    Written,
    /// The commit has returned, and nobody knows.
    Committed,
    /// It can be seen, and nobody was answered.
    Published,
    /// Everybody was answered.
    Answered,
}

#[cfg(not(any(test, feature = "crash-points")))]
pub(super) const fn point(_: Point) {}

/// Ends the process here, when that is what the test wants.
#[cfg(any(test, feature = "crash-points"))]
pub(super) fn point(point: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static WANTED: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("MAINSTAY_STORE_CRASH").ok()?;
        let (name, times) = text.split_once(':')?;
        Some((name.to_owned(), AtomicI64::new(times.parse().ok()?)))
    });
    if let Some((name, left)) = wanted
        && *name == format!("{point:?}").to_lowercase()
        && left.fetch_sub(1, Ordering::SeqCst) == 0
    {
        std::process::abort();
    }
}
