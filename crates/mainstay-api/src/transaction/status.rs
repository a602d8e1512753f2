//! How transactions stand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A transaction as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transaction {
    /// What lists show of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// Epoch of the node that owns it.
    pub epoch: u64,
    /// Its part of the log.
    pub shard: u8,
    /// Its branches, in order of registration.
    pub branches: Vec<TransactionBranch>,
    /// What happened, the last 64.
    pub timeline: Vec<Note>,
    /// How many were dropped.
    #[serde(default)]
    pub timeline_dropped: u32,
}

/// What lists show of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TransactionSummary)]
pub struct Summary {
    /// Its name.
    pub gid: String,
    /// `xa`, `tcc`, `saga` or `message`.
    pub mode: String,
    /// Whose rules hold: `native` or `dtm`.
    pub dialect: String,
    /// What kind of transaction it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it can be found by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `active`, `preparing`, `querying`, `committing`, `aborting`, `committed`, `aborted`, `mixed`.
    pub state: String,
    /// `commit`, `abort`; none while it is open.
    pub decision: Option<String>,
    /// Why it was decided so.
    pub reason: Option<Reason>,
    /// When it was begun.
    pub created_at: String,
    /// When it has to be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// It does not get on, and somebody should look.
    pub stuck: bool,
    /// An operator stopped it from calling anybody.
    pub paused: bool,
    /// An operator, or a database by itself, ended some of it.
    pub heuristic: bool,
    /// How many branches it has.
    pub branch_count: usize,
}

/// Why something was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TransactionReason)]
pub struct Reason {
    /// `asked`, `vote-no`, `vote-missing`, `deadline`, `step-failed`, `retry-limit`,
    /// `check-refused`, `gave-up`, `operator`, `orphan`.
    pub why: String,
    /// For people.
    pub detail: String,
}

/// A branch as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionBranch {
    /// Its name.
    pub branch: String,
    /// `resource` or `endpoint`.
    pub kind: String,
    /// The database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What it is called there, as [`Registered`] has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<String>,
    /// Where it is called, by operation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, String>,
    /// Steps that have to be done before it, by their place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u16>,
    /// `yes`, `no` or `read-only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote: Option<String>,
    /// It ended against the decision.
    pub heuristic: bool,
    /// What is seen of what it is sent.
    pub payload: PayloadSeen,
    /// What it was asked to do.
    pub ops: Vec<Operation>,
}

/// What is seen of a payload: never itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PayloadSeen {
    /// Its size.
    pub bytes: usize,
    /// SHA-256 of it; none of nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// One operation on one branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BranchOperation)]
pub struct Operation {
    /// Which.
    pub op: String,
    /// `waiting`, `running`, `unknown`, `failed` or `done`.
    pub state: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// Not before this moment is it asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// What was wrong last; absent once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Ended by an operator, not by the branch.
    #[serde(default)]
    pub by_hand: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TransactionNote)]
pub struct Note {
    /// When.
    pub at: String,
    /// What.
    pub what: String,
    /// Who did it.
    pub by: String,
}

/// A branch that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BranchRegistered)]
pub struct Registered {
    /// Its name.
    pub branch: String,
    /// What it is to be called in its database, `ms:CLUSTER:GID:BRANCH`: `PostgreSQL` calls it so, and
    /// `MariaDB` knows it by the gtrid `CLUSTER|GID`, the bqual `BRANCH` and the format 19795. None of
    /// an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<String>,
}

/// A page of transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TransactionPage)]
pub struct Transactions {
    /// Those that are live, the newest first; then those that have ended, the last to end first.
    pub items: Vec<Summary>,
    /// Where the next page begins; none at the end. A page may be short and have a next one.
    pub next: Option<String>,
    /// Whether some may be missing, since this node has not read all it owns yet.
    pub partial: bool,
}

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MessageAccepted)]
pub struct Accepted {
    /// Its name.
    pub gid: String,
}
