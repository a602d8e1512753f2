//! What initiators and operators ask for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Begins a transaction.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginTransaction {
    /// Its name, 1 to 128 bytes; of a two-phase commit 1 to 48 of `A-Z`, `a-z`, `0-9`, `.`, `_`,
    /// `-`. Absent: one that nobody has used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// How its branches hold together: `xa`, `tcc`, `saga`, `message`.
    pub mode: String,
    /// What kind of transaction it is, for people; at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it can be found by; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long it may stay undecided; of a saga, how long it may go forward. Absent: what the
    /// configuration says, and of a saga for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<f64>,
    /// Steps do not wait for those before them, unless they say so.
    #[serde(default)]
    pub concurrent: bool,
    /// The second phase goes branch by branch.
    #[serde(default)]
    pub ordered: bool,
    /// Who tells whether the local part of a message was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Target>,
    /// How long after its creation a message is delivered.
    #[serde(default)]
    pub delay_seconds: f64,
    /// How long after its creation a message of one step is given up. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after_seconds: Option<f64>,
    /// Retries of one step of a saga before it is compensated. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_limit: Option<u32>,
    /// How long a call of a branch may take. Absent: what the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_timeout_seconds: Option<f64>,
    /// Steps of a saga or message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Whether it is submitted at once. Absent: a saga is, and a message without `check`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submit: Option<bool>,
    /// How far the answer waits. Absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitFor>,
    /// How long at most, 0 to 60 s. Absent: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 60)]
    pub wait_seconds: Option<f64>,
}

/// How far an answer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = TransactionWait)]
pub enum WaitFor {
    /// It is decided.
    Decided,
    /// Every branch has heard, or an operator is needed.
    Done,
}

/// A step of a saga or message.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TransactionStep)]
pub struct Step {
    /// Its name. Absent: its number, `01` and on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What does it.
    pub action: Target,
    /// What undoes it; of sagas only. Absent: nothing needs to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Target>,
    /// Steps that have to be done before it, by their place from 0. Absent: the one before it,
    /// unless they are concurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u16>,
    /// What it is sent: JSON, as it is written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub payload: Option<Box<RawValue>>,
    /// The same as any bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Its content type. Absent: `application/json`, of bytes `application/octet-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Headers it is sent with besides; at most 32, none of a connection, none `mainstay-`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// Where a branch is called: a registered service, or a URL that the configuration allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a target is `{\"service\", \"path\"}` or `{\"url\"}`")]
#[schema(as = BranchTarget)]
pub enum Target {
    /// Whichever instance of a service can answer.
    Service {
        /// The service.
        service: String,
        /// Path and query, beginning with `/`.
        path: String,
        /// Absent: `POST`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<String>,
    },
    /// A fixed place.
    Url {
        /// `http://…` or `https://…`.
        url: String,
    },
}

/// Of which kind a branch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BranchKind {
    /// A database that the coordinator ends branches at by itself.
    Resource,
    /// A service that is called.
    Endpoint,
}

/// Where a branch is called, for each operation. One that is missing counts as done at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BranchTargets {
    /// Makes a reservation good (`tcc`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Target>,
    /// Gives it up (`tcc`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Target>,
    /// Promises to be able to commit (`xa`, when the coordinator asks for it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Target>,
    /// Commits (`xa`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Target>,
    /// Rolls back (`xa`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Target>,
}

/// When an endpoint branch of a two-phase commit prepares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenPrepared {
    /// As part of its business call; its vote comes with the submit.
    #[default]
    #[serde(rename = "self")]
    Own,
    /// When the coordinator calls it.
    Called,
}

/// Takes a branch in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterBranch {
    /// Its name. Absent: the next number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Of which kind it is.
    pub kind: BranchKind,
    /// The database, as the configuration names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Where it is called.
    #[serde(default)]
    pub targets: BranchTargets,
    /// When it prepares.
    #[serde(default)]
    pub prepare: WhenPrepared,
    /// What it is sent: JSON, as it is written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub payload: Option<Box<RawValue>>,
    /// The same as any bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Its content type. Absent: `application/json`, of bytes `application/octet-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Headers it is sent with besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// Asks for the commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubmitTransaction {
    /// What branches of a two-phase commit voted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<BranchVote>,
    /// When a two-phase commit was begun, as its begin was answered: with it a submit also counts if
    /// a failover has forgotten the begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<String>,
    /// Its deadline, as its begin was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// How far the answer waits. Absent: until it is decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitFor>,
    /// How long at most, 0 to 60 s. Absent: 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 60)]
    pub wait_seconds: Option<f64>,
}

/// The vote of one branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchVote {
    /// Which.
    pub branch: String,
    /// The database, if the branch lies in one; then it need not have joined before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What it said.
    pub vote: VoteWord,
    /// What shows that it is prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The session that prepared it, at most 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
}

/// A branch's word on the first phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = BranchVoteWord)]
pub enum VoteWord {
    /// Prepared.
    Yes,
    /// Not prepared, and never will be.
    No,
    /// Nothing was written.
    ReadOnly,
}

/// What shows that a branch is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = BranchEvidence)]
pub enum Evidence {
    /// The database listed it.
    Listed,
}

/// Asks for the abort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AbortTransaction {
    /// What went wrong, for people, as the initiator saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why an operator ends it, 3 to 500 characters: the verb of a person, which is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A verb of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = OperateTransaction)]
pub struct Operate {
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = TransactionOutcome)]
pub enum Outcome {
    /// It took effect.
    Committed,
    /// It did not.
    Aborted,
}

/// Says how something ended that cannot be ended otherwise. No branch is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveTransaction {
    /// How.
    #[serde(rename = "as")]
    pub outcome: Outcome,
    /// Which branch. Absent: all that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Sends a message to one receiver, at least once. It is durable when it is answered; the receiver
/// tells a repetition by the gid.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Its name. Absent: one that nobody has used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// Who receives it.
    pub target: Target,
    /// Headers it is sent with besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What it says: JSON, as it is written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub payload: Option<Box<RawValue>>,
    /// The same as any bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Its content type. Absent: `application/json`, of bytes `application/octet-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How long after its creation it is delivered.
    #[serde(default)]
    pub delay_seconds: f64,
    /// How long after its creation it is given up. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after_seconds: Option<f64>,
}
