//! Databases that take part in transactions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A database, as the node that is asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TransactionResource)]
pub struct Resource {
    /// What transactions call it.
    pub name: String,
    /// `postgresql` or `mariadb`.
    pub kind: String,
    /// Where it is: `host:port/database`, or the socket in place of host and port.
    pub place: String,
    /// As whom the coordinator comes.
    pub user: String,
    /// `ready`; `cannot-prepare`: what is wrong stands in `faults`; `log-behind`: it knows a newer
    /// log; `unreachable`; `unknown`: it was not asked yet.
    pub state: String,
    /// What keeps it from taking part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ResourceFault>,
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<String>,
    /// Since when it cannot be reached, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_since: Option<String>,
    /// Sessions of the coordinator that are being used.
    pub sessions_in_use: usize,
    /// Sessions there may be.
    pub sessions_max: usize,
}

/// Something that keeps a database from taking part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceFault {
    /// What is wrong.
    pub what: String,
    /// What to do: a line of its settings, or a statement.
    pub fix: String,
}

/// The databases of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TransactionResources)]
pub struct Resources {
    /// By name.
    pub items: Vec<Resource>,
}

/// What a database holds prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreparedBranches {
    /// The database.
    pub resource: String,
    /// In the order in which the database lists them.
    pub items: Vec<PreparedBranch>,
}

/// A branch that a database lists as prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreparedBranch {
    /// What it is called there.
    pub xid: String,
    /// Its transaction; none of what is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// Its name in that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Who prepared it, where the database knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How long it has been prepared, or, where the database does not know, was seen.
    pub age_seconds: f64,
    /// What the log says of it: `commit`, `rollback`, `rollback-unvoted` (prepared, and not among
    /// the votes), `orphan` (no record, for long enough), `leave`; or `foreign`: not ours;
    /// `elsewhere`: another node owns it; `unknown`: the log could not be asked.
    pub verdict: String,
    /// What was done about it: `done`, or why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// The log is gone by as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogAccepted {
    /// The number it has now.
    pub sequence: u64,
    /// Databases that did not answer, and may object again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
}

/// Asks for a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SweepResource {
    /// Only says what it would do.
    pub report_only: bool,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks for a round of deleting old rows of a barrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgeBarrier {
    /// Rows that are older than this; 3600 at least.
    #[schema(minimum = 3600)]
    pub older_than_seconds: u64,
    /// `next` of the round before; none begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<BarrierKey>,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a round of a few seconds has deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BarrierPurged {
    /// The database.
    pub resource: String,
    /// Rows looked at, of whatever age.
    pub rows: u64,
    /// Those that are gone.
    pub deleted: u64,
    /// Old ones that stay: of transactions that are live, or that the node asked does not own.
    pub kept: u64,
    /// Where the next round goes on; none when all were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<BarrierKey>,
}

/// The key of a row of a barrier. The empty one stands before all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BarrierKey {
    /// Which transaction.
    pub gid: String,
    /// Which branch.
    pub branch: String,
    /// Which operation.
    pub op: String,
    /// Which call of one handler.
    pub seq: String,
}
