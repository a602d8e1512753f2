//! What a call that did not come back well may have done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of the effect of a call on the other side.
///
/// "Unknown" never becomes "done" or "none" without evidence: a caller who is told `none` may send
/// again without thought, one who is told `unknown` may only do so when the call is idempotent.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing happened: the call provably never reached the code that acts.
    None,
    /// It may have happened.
    Unknown,
    /// It happened: a complete answer came back.
    Done,
}

impl Effect {
    /// The word used in documents, headers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Done => "done",
        }
    }
}
