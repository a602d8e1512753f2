//! Records of a transaction as they are encoded.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct TargetRecord {
    #[prost(string, tag = "1")]
    pub(super) op: String,
    #[prost(string, optional, tag = "2")]
    pub(super) url: Option<String>,
    #[prost(string, tag = "3")]
    pub(super) service: String,
    #[prost(string, tag = "4")]
    pub(super) path: String,
    #[prost(string, optional, tag = "5")]
    pub(super) method: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pair {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OpMessage {
    #[prost(string, tag = "1")]
    pub(super) op: String,
    #[prost(string, tag = "2")]
    pub(super) state: String,
    #[prost(uint32, tag = "3")]
    pub(super) attempts: u32,
    #[prost(uint64, tag = "4")]
    pub(super) next_at: u64,
    #[prost(string, optional, tag = "5")]
    pub(super) last_error: Option<String>,
    #[prost(bool, tag = "6")]
    pub(super) by_hand: bool,
}

/// A branch. Of one that stands in the body, or of history, only what changes is written.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BranchMessage {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    /// Its place in the order of registration.
    #[prost(uint32, tag = "2")]
    pub(super) place: u32,
    #[prost(string, optional, tag = "3")]
    pub(super) resource: Option<String>,
    #[prost(message, repeated, tag = "4")]
    pub(super) targets: Vec<TargetRecord>,
    #[prost(string, tag = "5")]
    pub(super) prepare: String,
    #[prost(uint32, repeated, tag = "6")]
    pub(super) after: Vec<u32>,
    #[prost(bytes = "bytes", tag = "7")]
    pub(super) payload: Bytes,
    #[prost(string, optional, tag = "8")]
    pub(super) content_type: Option<String>,
    #[prost(message, repeated, tag = "9")]
    pub(super) headers: Vec<Pair>,
    #[prost(string, optional, tag = "10")]
    pub(super) vote: Option<String>,
    #[prost(string, optional, tag = "11")]
    pub(super) session_id: Option<String>,
    #[prost(bool, tag = "12")]
    pub(super) heuristic: bool,
    #[prost(message, repeated, tag = "13")]
    pub(super) ops: Vec<OpMessage>,
    /// What it is stands in the body.
    #[prost(bool, tag = "14")]
    pub(super) in_body: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BodyMessage {
    #[prost(string, tag = "1")]
    pub(super) gid: String,
    #[prost(string, tag = "2")]
    pub(super) mode: String,
    #[prost(string, tag = "3")]
    pub(super) dialect: String,
    #[prost(string, optional, tag = "4")]
    pub(super) name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) labels: Vec<Pair>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) deadline_millis: Option<u64>,
    #[prost(bool, tag = "7")]
    pub(super) concurrent: bool,
    #[prost(bool, tag = "8")]
    pub(super) ordered: bool,
    #[prost(message, optional, tag = "9")]
    pub(super) check: Option<TargetRecord>,
    #[prost(uint64, tag = "10")]
    pub(super) delay_millis: u64,
    #[prost(uint64, optional, tag = "11")]
    pub(super) give_up_millis: Option<u64>,
    #[prost(uint32, optional, tag = "12")]
    pub(super) retry_limit: Option<u32>,
    #[prost(uint64, optional, tag = "13")]
    pub(super) retry_interval_millis: Option<u64>,
    #[prost(uint64, optional, tag = "14")]
    pub(super) call_timeout_millis: Option<u64>,
    #[prost(bool, tag = "15")]
    pub(super) submit: bool,
    #[prost(message, repeated, tag = "16")]
    pub(super) steps: Vec<BranchMessage>,
    #[prost(uint64, tag = "17")]
    pub(super) created_at: u64,
    #[prost(uint64, optional, tag = "18")]
    pub(super) deadline_at: Option<u64>,
    #[prost(message, repeated, tag = "19")]
    pub(super) headers: Vec<Pair>,
    #[prost(bytes = "bytes", optional, tag = "20")]
    pub(super) words: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VoteMessage {
    #[prost(string, tag = "1")]
    pub(super) branch: String,
    #[prost(uint32, tag = "2")]
    pub(super) place: u32,
    #[prost(string, optional, tag = "3")]
    pub(super) resource: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) vote: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(super) session_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RegisterMessage {
    #[prost(string, tag = "1")]
    pub(super) state: String,
    #[prost(string, optional, tag = "2")]
    pub(super) decision: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) why: Option<String>,
    #[prost(string, tag = "4")]
    pub(super) detail: String,
    #[prost(uint64, optional, tag = "5")]
    pub(super) decided_at: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) finished_at: Option<u64>,
    #[prost(bool, tag = "7")]
    pub(super) stuck: bool,
    #[prost(bool, tag = "8")]
    pub(super) paused: bool,
    #[prost(bool, tag = "9")]
    pub(super) heuristic: bool,
    #[prost(uint32, repeated, tag = "10")]
    pub(super) undo: Vec<u32>,
    #[prost(message, repeated, tag = "11")]
    pub(super) votes: Vec<VoteMessage>,
    #[prost(uint64, tag = "12")]
    pub(super) epoch: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NoteMessage {
    #[prost(uint64, tag = "1")]
    pub(super) at: u64,
    #[prost(string, tag = "2")]
    pub(super) what: String,
    #[prost(string, tag = "3")]
    pub(super) by: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HistoryMessage {
    #[prost(message, optional, tag = "1")]
    pub(super) register: Option<RegisterMessage>,
    #[prost(message, repeated, tag = "2")]
    pub(super) branches: Vec<BranchMessage>,
    #[prost(message, repeated, tag = "3")]
    pub(super) timeline: Vec<NoteMessage>,
    /// Its deadline, which history must outlive.
    #[prost(uint64, optional, tag = "4")]
    pub(super) deadline_at: Option<u64>,
}
