//! What a session asks for and gives back.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for a lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcquireLock {
    /// The session to hold it.
    pub session: String,
    /// Alone, or together with other readers.
    #[serde(default)]
    pub mode: Mode,
    /// How long to wait for it, 0 to 600 s. 0 tries, and never overtakes whoever waits.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 600)]
    pub wait_seconds: f64,
    /// Names this request, 1 to 64 bytes: the same one counts once.
    pub request_id: String,
    /// Whether what the session holds already is counted once more, instead of refused
    /// (`lock-already-held`).
    #[serde(default = "yes")]
    pub reentrant: bool,
    /// How long the next holder waits if this one vanishes without giving back, 0 to 60 s.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 60)]
    pub lock_delay_seconds: f64,
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Alone.
    #[default]
    Exclusive,
    /// Together with others who hold it so.
    Shared,
}

/// Asks for permits of a semaphore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcquirePermits {
    /// The session to hold them.
    pub session: String,
    /// How many, 1 to `limit`.
    #[schema(minimum = 1)]
    pub permits: u32,
    /// How many there are, 1 to 10,000; everybody who asks must agree.
    #[schema(minimum = 1, maximum = 10000)]
    pub limit: u32,
    /// As for a lock.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 600)]
    pub wait_seconds: f64,
    /// As for a lock; each request of a session takes permits of its own.
    pub request_id: String,
}

/// Stands in an election.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StandForElection {
    /// The session to lead.
    pub session: String,
    /// What is proclaimed from the first moment, at most 4,096 bytes.
    #[serde(default)]
    pub value: String,
    /// As for a lock.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 600)]
    pub wait_seconds: f64,
    /// As for a lock.
    pub request_id: String,
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Granted {
    /// The fencing token: larger than every one before it of the same lock. The term of a leader.
    /// Those of semaphores tell holders apart and fence nothing.
    pub token: u64,
    /// The state of the store in which it was granted.
    pub revision: u64,
    /// How long it is good for without a renewal, counted from when the request was **sent**: the
    /// server renews the session at the grant, and adds what the request waited before that. A
    /// margin is taken off already.
    pub valid_seconds: f64,
    /// How often the session holds it now.
    pub count: u32,
}

/// Gives back one count of what a session holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The session that holds it.
    pub session: String,
    /// The token it was granted with.
    pub token: u64,
    /// Names this giving back, 1 to 64 bytes: the same one counts once.
    pub request_id: String,
}

/// What giving back left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Released {
    /// How often the session still holds it.
    pub count: u32,
}

/// Hands over what a session holds to a global transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// The session that holds it.
    pub session: String,
    /// The token it was granted with.
    pub token: u64,
    /// The transaction, 1 to 128 bytes.
    pub gid: String,
}

/// Something a transaction holds now, until it is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bound {
    /// The token it keeps.
    pub token: u64,
    /// The transaction.
    pub gid: String,
}

/// Lets others read what a session holds alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Downgrade {
    /// The session that holds it.
    pub session: String,
    /// The token it was granted with.
    pub token: u64,
}

/// Changes what a leader proclaims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proclaim {
    /// The session that leads.
    pub session: String,
    /// Its term.
    pub token: u64,
    /// At most 4,096 bytes.
    pub value: String,
}

/// Takes something from whoever holds it; needs the right `lock:force`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForceRelease {
    /// The token shown, so that nobody else is hit.
    pub token: u64,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    #[serde(default)]
    pub reason: Option<String>,
}

const fn yes() -> bool {
    true
}
