//! Requests that were taken on and are made later.
//!
//! Below `/api/v1`; `RECEIPT` is the id that the caller was given.
//!
//! | call | document | answer |
//! |---|---|---|
//! | `GET /deferred` | – | 200 [`DeferredQueues`], as the node asked sees them |
//! | `GET /deferred/QUEUE` | – | 200 [`DeferredRequests`]: `state`, `limit`, `cursor` |
//! | `GET /deferred/QUEUE/RECEIPT` | – | 200 [`DeferredRequest`] |
//! | `POST /deferred/QUEUE/RECEIPT/replay` | [`Operate`](crate::transaction::Operate) | 200 [`DeferredRequest`], queued again under the same receipt; 409 unless it is dead |
//! | `POST /deferred/QUEUE/RECEIPT/discard` | [`Operate`](crate::transaction::Operate) | 204: what waited is given up, what was dead is forgotten |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A queue of deferred requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeferredQueue {
    /// What `defer` steps call it.
    pub queue: String,
    /// Requests that wait.
    pub queued: u64,
    /// Requests that are being sent.
    pub delivering: u64,
    /// Bytes of both, with their headers.
    pub bytes: u64,
    /// Requests there may be.
    pub items_max: u64,
    /// Bytes there may be.
    pub bytes_max: u64,
    /// Requests that may be under way at once.
    pub concurrency: u32,
}

/// The queues of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeferredQueues {
    /// By name.
    pub items: Vec<DeferredQueue>,
}

/// A deferred request. What it says is not shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeferredRequest {
    /// The receipt its caller was given.
    pub receipt: String,
    /// Its queue.
    pub queue: String,
    /// `queued`, `delivering`, `done` or `dead`.
    pub state: String,
    /// The service it is for.
    pub service: String,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Bytes of its body.
    pub bytes: u64,
    /// When it was taken on.
    pub queued_at: String,
    /// How often it was sent.
    pub tries: u32,
    /// When it is sent next, if it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Status of the last answer of one that is dead, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_status: Option<u16>,
    /// What was wrong with the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The transaction that it is.
    pub gid: String,
}

/// Deferred requests of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeferredRequests {
    /// What waits comes first, the newest first; then what has ended, the last to end first.
    pub items: Vec<DeferredRequest>,
    /// Where the next page begins.
    pub next: Option<String>,
    /// Some may be missing: the node has not read all it owns yet.
    #[serde(default)]
    pub partial: bool,
}
