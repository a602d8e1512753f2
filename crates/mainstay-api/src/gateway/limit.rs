//! Limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How much of a limit is used. Figures of one quota are absent where there is one for each key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `counter`, `sliding`, `bucket`, `pacing`, `warm_up`, `concurrency`, `adaptive`.
    pub kind: String,
    /// Whether it refuses, or only counts what it would refuse.
    pub mode: String,
    /// Units in use.
    pub used: Option<f64>,
    /// Units there are.
    pub capacity: Option<f64>,
    /// Units left.
    pub remaining: Option<f64>,
    /// When all of them are back.
    pub reset_seconds: Option<f64>,
    /// Calls that wait.
    pub queue: Option<u64>,
    /// Calls granted.
    pub granted: u64,
    /// Calls that had to wait.
    pub waited: u64,
    /// Calls refused.
    pub denied: u64,
    /// Calls that would have been refused.
    pub would_reject: u64,
    /// Keys known.
    pub keys: Option<u64>,
    /// Keys there is room for.
    pub keys_max: Option<u64>,
    /// Keys forgotten for want of room.
    pub evictions: Option<u64>,
    /// The keys that ask most.
    pub top: Vec<LimitKey>,
}

/// A key of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitKey {
    /// The key.
    pub key: String,
    /// How often it asked.
    pub asked: u64,
}
