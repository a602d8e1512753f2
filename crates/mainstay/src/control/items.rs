//! What streams tell, before it is decided how it is sent.
//!
//! [`sse`](super::sse) and [`grpc`](super::grpc) are two encodings of the same items, so neither
//! can know more than the other.

use mainstay_core::problem::Code;
use mainstay_store::Revision;
use serde::Serialize;

use crate::report::causes;

/// One item of a stream whose documents are `T`. The revision of an item is what a reader comes
/// back with.
#[derive(Debug)]
pub(super) enum Item<T, B = At> {
    /// How things stand, whole.
    Snapshot(Option<Revision>, T),
    /// What became of them.
    Change(Option<Revision>, T),
    /// Nothing up to this revision is missing; without a change.
    Bookmark(Revision, B),
    /// History was lost, and why; a snapshot follows.
    Resync(&'static str),
    /// The stream ends, and why.
    Problem(Code, String),
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct At {
    revision: u64,
}

impl<T> Item<T> {
    /// Nothing up to `revision` is missing.
    pub(super) const fn bookmark(revision: Revision) -> Self {
        Self::Bookmark(revision, At { revision: revision.get() })
    }
}

impl<T, B> Item<T, B> {
    /// The stream ends with `error`.
    pub(super) fn problem(code: Code, error: &dyn std::error::Error) -> Self {
        Self::Problem(code, causes(error))
    }
}
