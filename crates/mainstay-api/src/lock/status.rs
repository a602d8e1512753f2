//! How locks, semaphores and elections stand.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::session::Owner;

/// What kind of thing is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// A lock.
    Lock,
    /// Permits of a semaphore.
    Semaphore,
    /// Leadership.
    Election,
}

impl Area {
    /// The segment of paths: `locks`, `semaphores`, `elections`.
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Lock => "locks",
            Self::Semaphore => "semaphores",
            Self::Election => "elections",
        }
    }
}

/// A page of what is held or waited for in a namespace, in the order of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Places {
    /// The places.
    pub items: Vec<Place>,
    /// What to send as `after` for the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A lock, semaphore or election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// What kind of thing.
    pub area: Area,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A lock, semaphore or election as it stands at one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Which one.
    #[serde(flatten)]
    pub place: Place,
    /// The revision.
    pub revision: u64,
    /// Those who hold it, soonest first.
    pub holders: Vec<Holder>,
    /// Those who wait, soonest first.
    pub queue: Vec<Waiter>,
    /// Whether nobody is granted it for now, because a holder has vanished.
    pub is_delayed: bool,
    /// How it was last held, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// Who holds something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// Whose session it is; absent when a newer version wrote the record, or a transaction holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its fencing token.
    pub token: u64,
    /// `exclusive`, `shared` or `semaphore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// How often it holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Permits it has, of a semaphore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    /// When it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How long its session lives without a renewal, as far as the node that answers knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<f64>,
    /// The transaction it is held for, instead of a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_gid: Option<String>,
    /// What it proclaims, in an election.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Who waits for something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Waiter {
    /// 1 for the next.
    pub position: u32,
    /// Whose session it is; absent when a newer version wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The token it will have.
    pub token: u64,
    /// `exclusive`, `shared` or `semaphore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Permits it wants, of a semaphore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    /// When it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The token of the first whom it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<u64>,
}

/// How something was last held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Last {
    /// The token of the holder this is about.
    pub token: u64,
    /// What became of it: `granted`, `released`, `downgraded`, `forced`, `lost`, `finished`.
    pub reason: String,
    /// When.
    pub at: String,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Leadership {
    /// The leader; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
}

/// A leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Leader {
    /// Its term: larger than every one before.
    pub term: u64,
    /// Whose session it is; absent when a newer version wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// What it proclaims.
    pub value: String,
}
