//! Rules of the data plane, and switches, as those who follow them hear of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A rule or switch by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Named {
    /// What it is: `route`, `upstream`, `circuit`, `limit`, `fallback`, `switch`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A rule or switch, as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Object {
    /// Which it is.
    #[serde(flatten)]
    pub named: Named,
    /// Its own revision: 1, 2, 3 …
    pub revision: u64,
    /// When that was made.
    pub at: String,
    /// By whom.
    pub who: String,
    /// Why.
    pub why: Option<String>,
    /// What it holds: the text of its table, or the document of a switch.
    pub content: Value,
}

/// What became of those that are followed: an event of the stream. A `snapshot` begins with nothing;
/// a `change` goes on from what was told before. What is told is whole again, and to be used, once
/// an event comes without `more`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Update {
    /// The revision of the store it is as of.
    pub revision: u64,
    /// Those that are new, or other than before.
    #[serde(default)]
    pub put: Vec<Object>,
    /// Those that are no more.
    #[serde(default)]
    pub removed: Vec<Named>,
    /// Another event belongs to it.
    #[serde(default)]
    pub more: bool,
}
