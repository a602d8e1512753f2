//! Events of the API's streams (server-sent events).
//!
//! Every stream speaks these five, each with a document as its data. The event's `id` is the
//! revision it is as of; sent back as `Last-Event-ID` it resumes there. A comment line comes every
//! [`COMMENT_EVERY_SECONDS`], so silence means that the connection hangs.

/// How things stand, whole: the first event, and the one after a [`RESYNC`].
pub const SNAPSHOT: &str = "snapshot";

/// What changed at one revision.
pub const CHANGE: &str = "change";

/// Nothing up to this revision is missing; without a change.
pub const BOOKMARK: &str = "bookmark";

/// History is gone; a [`SNAPSHOT`] follows.
pub const RESYNC: &str = "resync";

/// The stream ends, and this is why: a [`Problem`](crate::problem::Problem).
pub const PROBLEM: &str = "problem";

/// A comment line comes this often, in seconds.
pub const COMMENT_EVERY_SECONDS: u64 = 15;

/// Data of a [`RESYNC`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Resync {
    /// Why history cannot be gone on with: `compacted`, `store-restored`.
    pub reason: String,
}
