//! Values of the log: one byte of format, then protobuf.
//!
//! Words are written as text, so a dump can be read and a word that a later version adds is told
//! apart from damage. Numbers of fields are for ever.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::target::Target;
use crate::transaction::{
    Begin, Branch, NewBranch, Note, OpRecord, Part, Payload, Reason, Register, Transaction,
};
use crate::word::{Decision, Dialect, Mode, Op, OpState, Prepare, State, Vote, Why};

/// The format of this version.
const FORMAT: u8 = 1;

/// A record that cannot be read. The shard it lies in stays closed: whoever goes on without it
/// may undo what was decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer version wrote it.
    #[error("record has format {found}, and this version knows {FORMAT}")]
    Newer {
        /// Its format.
        found: u8,
    },
    /// It is no such record.
    #[error("record is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
}

impl Unreadable {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "log-format-newer",
            Self::Damaged { .. } => "store-corrupt",
        }
    }
}

fn damaged(what: impl ToString) -> Unreadable {
    Unreadable::Damaged { what: what.to_string() }
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(FORMAT);
    message.encode(&mut bytes).expect("a vector grows");
    bytes.into()
}

fn unframed<M: Message + Default>(bytes: &[u8]) -> Result<M, Unreadable> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => M::decode(rest).map_err(damaged),
        Some((&found, _)) if FORMAT < found => Err(Unreadable::Newer { found }),
        Some(_) => Err(damaged("its format is none")),
        None => Err(damaged("it is empty")),
    }
}

#[derive(Clone, PartialEq, Message)]
struct TargetRecord {
    #[prost(string, tag = "1")]
    op: String,
    #[prost(string, optional, tag = "2")]
    url: Option<String>,
    #[prost(string, tag = "3")]
    service: String,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, optional, tag = "5")]
    method: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct OpMessage {
    #[prost(string, tag = "1")]
    op: String,
    #[prost(string, tag = "2")]
    state: String,
    #[prost(uint32, tag = "3")]
    attempts: u32,
    #[prost(uint64, tag = "4")]
    next_at: u64,
    #[prost(string, optional, tag = "5")]
    last_error: Option<String>,
    #[prost(bool, tag = "6")]
    by_hand: bool,
}

/// A branch. Of one that stands in the body, or of history, only what changes is written.
#[derive(Clone, PartialEq, Message)]
struct BranchMessage {
    #[prost(string, tag = "1")]
    id: String,
    /// Its place in the order of registration.
    #[prost(uint32, tag = "2")]
    place: u32,
    #[prost(string, optional, tag = "3")]
    resource: Option<String>,
    #[prost(message, repeated, tag = "4")]
    targets: Vec<TargetRecord>,
    #[prost(string, tag = "5")]
    prepare: String,
    #[prost(uint32, repeated, tag = "6")]
    after: Vec<u32>,
    #[prost(bytes = "bytes", tag = "7")]
    payload: Bytes,
    #[prost(string, optional, tag = "8")]
    content_type: Option<String>,
    #[prost(message, repeated, tag = "9")]
    headers: Vec<Pair>,
    #[prost(string, optional, tag = "10")]
    vote: Option<String>,
    #[prost(string, optional, tag = "11")]
    session_id: Option<String>,
    #[prost(bool, tag = "12")]
    heuristic: bool,
    #[prost(message, repeated, tag = "13")]
    ops: Vec<OpMessage>,
    /// What it is stands in the body.
    #[prost(bool, tag = "14")]
    in_body: bool,
}

#[derive(Clone, PartialEq, Message)]
struct BodyMessage {
    #[prost(string, tag = "1")]
    gid: String,
    #[prost(string, tag = "2")]
    mode: String,
    #[prost(string, tag = "3")]
    dialect: String,
    #[prost(string, optional, tag = "4")]
    name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    labels: Vec<Pair>,
    #[prost(uint64, optional, tag = "6")]
    deadline_millis: Option<u64>,
    #[prost(bool, tag = "7")]
    concurrent: bool,
    #[prost(bool, tag = "8")]
    ordered: bool,
    #[prost(message, optional, tag = "9")]
    check: Option<TargetRecord>,
    #[prost(uint64, tag = "10")]
    delay_millis: u64,
    #[prost(uint64, optional, tag = "11")]
    give_up_millis: Option<u64>,
    #[prost(uint32, optional, tag = "12")]
    retry_limit: Option<u32>,
    #[prost(uint64, optional, tag = "13")]
    retry_interval_millis: Option<u64>,
    #[prost(uint64, optional, tag = "14")]
    call_timeout_millis: Option<u64>,
    #[prost(bool, tag = "15")]
    submit: bool,
    #[prost(message, repeated, tag = "16")]
    steps: Vec<BranchMessage>,
    #[prost(uint64, tag = "17")]
    created_at: u64,
    #[prost(uint64, optional, tag = "18")]
    deadline_at: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct VoteMessage {
    #[prost(string, tag = "1")]
    branch: String,
    #[prost(uint32, tag = "2")]
    place: u32,
    #[prost(string, optional, tag = "3")]
    resource: Option<String>,
    #[prost(string, optional, tag = "4")]
    vote: Option<String>,
    #[prost(string, optional, tag = "5")]
    session_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RegisterMessage {
    #[prost(string, tag = "1")]
    state: String,
    #[prost(string, optional, tag = "2")]
    decision: Option<String>,
    #[prost(string, optional, tag = "3")]
    why: Option<String>,
    #[prost(string, tag = "4")]
    detail: String,
    #[prost(uint64, optional, tag = "5")]
    decided_at: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    finished_at: Option<u64>,
    #[prost(bool, tag = "7")]
    stuck: bool,
    #[prost(bool, tag = "8")]
    paused: bool,
    #[prost(bool, tag = "9")]
    heuristic: bool,
    #[prost(uint32, repeated, tag = "10")]
    undo: Vec<u32>,
    #[prost(message, repeated, tag = "11")]
    votes: Vec<VoteMessage>,
    #[prost(uint64, tag = "12")]
    epoch: u64,
}

#[derive(Clone, PartialEq, Message)]
struct NoteMessage {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(string, tag = "2")]
    what: String,
    #[prost(string, tag = "3")]
    by: String,
}

#[derive(Clone, PartialEq, Message)]
struct HistoryMessage {
    #[prost(message, optional, tag = "1")]
    register: Option<RegisterMessage>,
    #[prost(message, repeated, tag = "2")]
    branches: Vec<BranchMessage>,
    #[prost(message, repeated, tag = "3")]
    timeline: Vec<NoteMessage>,
    /// Its deadline, which history must outlive.
    #[prost(uint64, optional, tag = "4")]
    deadline_at: Option<u64>,
}

pub(super) fn body(transaction: &Transaction) -> Bytes {
    let begin = &*transaction.begin;
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let step = |(at, step): (usize, &NewBranch)| {
        let id = step.branch.clone().unwrap_or_else(|| BranchId::number(at + 1));
        write_branch(at, &Branch::new(id, step.clone()), Wanted::Whole)
    };
    framed(&BodyMessage {
        gid: begin.gid.as_str().to_owned(),
        mode: begin.mode.as_str().to_owned(),
        dialect: begin.dialect.as_str().to_owned(),
        name: begin.name.clone(),
        labels: begin.labels.iter().map(pair).collect(),
        deadline_millis: begin.deadline.map(millis),
        concurrent: begin.concurrent,
        ordered: begin.ordered,
        check: begin.check.as_ref().map(|target| write_target(Op::Check, target)),
        delay_millis: millis(begin.delay),
        give_up_millis: begin.give_up_after.map(millis),
        retry_limit: begin.retry_limit,
        retry_interval_millis: begin.retry_interval.map(millis),
        call_timeout_millis: begin.call_timeout.map(millis),
        submit: begin.submit,
        steps: begin.steps.iter().enumerate().map(step).collect(),
        created_at: transaction.created_at.unix_millis(),
        deadline_at: transaction.deadline_at.map(Moment::unix_millis),
    })
}

pub(super) fn read_body(bytes: &[u8]) -> Result<(Begin, Moment, Option<Moment>), Unreadable> {
    let body: BodyMessage = unframed(bytes)?;
    let steps = body.steps.into_iter().map(|step| {
        let branch = read_branch(step, None)?;
        let Branch { id, part, after, payload, .. } = branch;
        Ok(NewBranch { branch: Some(id), part, after, payload })
    });
    let check = body.check.map(read_target).transpose()?;
    let begin = Begin {
        gid: Gid::new(&body.gid).map_err(damaged)?,
        mode: word(&body.mode, Mode::parse)?,
        dialect: word(&body.dialect, Dialect::parse)?,
        name: body.name,
        labels: body.labels.into_iter().map(|pair| (pair.name, pair.value)).collect(),
        deadline: body.deadline_millis.map(Duration::from_millis),
        concurrent: body.concurrent,
        ordered: body.ordered,
        check: check.map(|(_, target)| target),
        delay: Duration::from_millis(body.delay_millis),
        give_up_after: body.give_up_millis.map(Duration::from_millis),
        retry_limit: body.retry_limit,
        retry_interval: body.retry_interval_millis.map(Duration::from_millis),
        call_timeout: body.call_timeout_millis.map(Duration::from_millis),
        submit: body.submit,
        steps: steps.collect::<Result<_, Unreadable>>()?,
    };
    let deadline_at = body.deadline_at.map(Moment::from_unix_millis);
    Ok((begin, Moment::from_unix_millis(body.created_at), deadline_at))
}

pub(super) fn register(transaction: &Transaction, epoch: u64) -> Bytes {
    framed(&write_register(transaction, epoch))
}

fn write_register(transaction: &Transaction, epoch: u64) -> RegisterMessage {
    let register = &transaction.register;
    // What a vote list says of branches that never joined stands nowhere else.
    let vote = |(at, branch): (usize, &Branch)| {
        let resource = match &branch.part {
            Part::Resource(resource) => Some(resource.as_str().to_owned()),
            Part::Endpoint { .. } => None,
        };
        branch.vote.map(|vote| VoteMessage {
            branch: branch.id.as_str().to_owned(),
            place: place(at),
            resource,
            vote: Some(vote.as_str().to_owned()),
            session_id: branch.session_id.clone(),
        })
    };
    let durable = if register.state.is_undecided() { State::Active } else { register.state };
    RegisterMessage {
        state: durable.as_str().to_owned(),
        decision: register.decision.map(|decision| decision.as_str().to_owned()),
        why: register.reason.as_ref().map(|reason| reason.why.as_str().to_owned()),
        detail: register.reason.as_ref().map(|reason| reason.detail.clone()).unwrap_or_default(),
        decided_at: register.decided_at.map(Moment::unix_millis),
        finished_at: register.finished_at.map(Moment::unix_millis),
        stuck: register.stuck,
        paused: register.paused,
        heuristic: register.heuristic,
        undo: register.undo.iter().map(|at| u32::from(*at)).collect(),
        votes: transaction.branches.iter().enumerate().filter_map(vote).collect(),
        epoch,
    }
}

/// A register as it was read, with what belongs to branches.
pub(super) struct ReadRegister {
    pub(super) register: Register,
    pub(super) epoch: u64,
    votes: Vec<VoteMessage>,
}

pub(super) fn read_register(bytes: &[u8]) -> Result<ReadRegister, Unreadable> {
    take_register(unframed(bytes)?)
}

fn take_register(message: RegisterMessage) -> Result<ReadRegister, Unreadable> {
    let why = message.why.map(|why| word(&why, Why::parse)).transpose()?;
    let decision = message.decision.map(|decision| word(&decision, Decision::parse)).transpose()?;
    let register = Register {
        state: word(&message.state, State::parse)?,
        decision,
        reason: why.map(|why| Reason { why, detail: message.detail }),
        decided_at: message.decided_at.map(Moment::from_unix_millis),
        finished_at: message.finished_at.map(Moment::from_unix_millis),
        stuck: message.stuck,
        paused: message.paused,
        heuristic: message.heuristic,
        undo: message.undo.into_iter().map(narrow).collect::<Result<_, _>>()?,
    };
    Ok(ReadRegister { register, epoch: message.epoch, votes: message.votes })
}

pub(super) fn branch(transaction: &Transaction, at: usize, branch: &Branch) -> Bytes {
    let in_body = at < transaction.begin.steps.len();
    let wanted = if in_body { Wanted::Progress } else { Wanted::Whole };
    framed(&write_branch(at, branch, wanted))
}

/// Branches of a live transaction: steps of its body, branches of the vote list, and over them
/// what their own records say.
pub(super) fn read_branches<'a>(
    begin: &Begin,
    register: &ReadRegister,
    records: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Branch>, Unreadable> {
    let mut places: BTreeMap<u32, Branch> = steps_of(begin);
    let mut messages = HashMap::new();
    for record in records {
        let message: BranchMessage = unframed(record)?;
        messages.insert(message.place, message);
    }
    for vote in &register.votes {
        let Some(resource) = &vote.resource else { continue };
        let part = Part::Resource(ResourceName::new(resource).map_err(damaged)?);
        let (after, payload) = (Vec::new(), Payload::default());
        let new = NewBranch { branch: None, part, after, payload };
        let id = BranchId::new(&vote.branch).map_err(damaged)?;
        places.insert(vote.place, Branch::new(id, new));
    }
    let mut found: Vec<BranchMessage> = messages.into_values().collect();
    found.sort_unstable_by_key(|message| message.place);
    for message in found {
        let place = message.place;
        let branch = read_branch(message, places.get(&place))?;
        places.insert(place, branch);
    }
    for vote in &register.votes {
        let Some(branch) = places.get_mut(&vote.place) else {
            return Err(damaged(format!("branch {} voted and is not there", vote.branch)));
        };
        branch.vote = vote.vote.as_deref().map(|vote| word(vote, Vote::parse)).transpose()?;
        branch.session_id.clone_from(&vote.session_id);
    }
    Ok(places.into_values().collect())
}

fn steps_of(begin: &Begin) -> BTreeMap<u32, Branch> {
    let step = |(at, step): (usize, &NewBranch)| {
        let id = step.branch.clone().unwrap_or_else(|| BranchId::number(at + 1));
        (place(at), Branch::new(id, step.clone()))
    };
    begin.steps.iter().enumerate().map(step).collect()
}

pub(super) fn history(transaction: &Transaction, epoch: u64) -> Bytes {
    let in_body = |at: usize| at < transaction.begin.steps.len();
    let branch = |(at, branch): (usize, &Branch)| {
        write_branch(at, branch, if in_body(at) { Wanted::Progress } else { Wanted::Outline })
    };
    let note = |note: &Note| NoteMessage {
        at: note.at.unix_millis(),
        what: note.what.clone(),
        by: note.by.clone(),
    };
    framed(&HistoryMessage {
        register: Some(write_register(transaction, epoch)),
        branches: transaction.branches.iter().enumerate().map(branch).collect(),
        timeline: transaction.timeline.iter().map(note).collect(),
        deadline_at: transaction.deadline_at.map(Moment::unix_millis),
    })
}

pub(super) fn read_history(
    begin: &Begin,
    bytes: &[u8],
) -> Result<(Register, Vec<Branch>, Vec<Note>), Unreadable> {
    let history: HistoryMessage = unframed(bytes)?;
    let register = history.register.ok_or_else(|| damaged("it has no register"))?;
    let register = take_register(register)?.register;
    let steps = steps_of(begin);
    let branch = |message: BranchMessage| {
        let known = steps.get(&message.place);
        read_branch(message, known)
    };
    let branches = history.branches.into_iter().map(branch).collect::<Result<_, _>>()?;
    let note = |note: NoteMessage| {
        let NoteMessage { at, what, by } = note;
        Note { at: Moment::from_unix_millis(at), what, by }
    };
    Ok((register, branches, history.timeline.into_iter().map(note).collect()))
}

pub(super) fn read_span(bytes: &[u8]) -> Result<(Moment, Moment), Unreadable> {
    let history: HistoryMessage = unframed(bytes)?;
    let finished_at = history.register.and_then(|register| register.finished_at);
    let finished_at = finished_at.ok_or_else(|| damaged("it has no end"))?;
    let kept_until = history.deadline_at.unwrap_or(finished_at);
    Ok((Moment::from_unix_millis(finished_at), Moment::from_unix_millis(kept_until)))
}

/// How much of a branch is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All of it.
    Whole,
    /// All but its payload, which nobody will be sent again.
    Outline,
    /// What changes; the rest stands in the body.
    Progress,
}

fn write_branch(at: usize, branch: &Branch, wanted: Wanted) -> BranchMessage {
    let mut message = BranchMessage {
        id: branch.id.as_str().to_owned(),
        place: place(at),
        vote: branch.vote.map(|vote| vote.as_str().to_owned()),
        session_id: branch.session_id.clone(),
        heuristic: branch.heuristic,
        ops: branch.ops.iter().map(write_op).collect(),
        in_body: wanted == Wanted::Progress,
        ..BranchMessage::default()
    };
    if wanted == Wanted::Progress {
        return message;
    }
    match &branch.part {
        Part::Resource(resource) => message.resource = Some(resource.as_str().to_owned()),
        Part::Endpoint { targets, prepare } => {
            message.targets = targets.iter().map(|(op, to)| write_target(*op, to)).collect();
            prepare.as_str().clone_into(&mut message.prepare);
        }
    }
    message.after = branch.after.iter().map(|at| u32::from(*at)).collect();
    message.content_type.clone_from(&branch.payload.content_type);
    message.headers =
        branch.payload.headers.iter().map(|(name, value)| pair((name, value))).collect();
    if wanted == Wanted::Whole {
        message.payload = branch.payload.bytes.clone();
    }
    message
}

/// A branch; of one that stands in the body, `known` says what it is.
fn read_branch(message: BranchMessage, known: Option<&Branch>) -> Result<Branch, Unreadable> {
    let id = BranchId::new(&message.id).map_err(damaged)?;
    let new = match known.filter(|_| message.in_body) {
        Some(known) => {
            let Branch { part, after, payload, .. } = known.clone();
            NewBranch { branch: None, part, after, payload }
        }
        None if message.in_body => return Err(damaged(format!("branch {id} has no step"))),
        None => NewBranch {
            branch: None,
            part: match &message.resource {
                Some(resource) => Part::Resource(ResourceName::new(resource).map_err(damaged)?),
                None => Part::Endpoint {
                    targets: message.targets.into_iter().map(read_target).collect::<Result<
                        BTreeMap<_, _>,
                        _,
                    >>(
                    )?,
                    prepare: word(&message.prepare, Prepare::parse)?,
                },
            },
            after: message.after.into_iter().map(narrow).collect::<Result<_, _>>()?,
            payload: Payload {
                bytes: message.payload,
                content_type: message.content_type,
                headers: message.headers.into_iter().map(|pair| (pair.name, pair.value)).collect(),
            },
        },
    };
    let mut branch = Branch::new(id, new);
    branch.vote = message.vote.map(|vote| word(&vote, Vote::parse)).transpose()?;
    branch.session_id = message.session_id;
    branch.heuristic = message.heuristic;
    branch.ops = message.ops.into_iter().map(read_op).collect::<Result<_, _>>()?;
    Ok(branch)
}

fn write_op(record: &OpRecord) -> OpMessage {
    OpMessage {
        op: record.op.as_str().to_owned(),
        state: record.state.as_str().to_owned(),
        attempts: record.attempts,
        next_at: record.next_at.unix_millis(),
        last_error: record.last_error.clone(),
        by_hand: record.by_hand,
    }
}

fn read_op(message: OpMessage) -> Result<OpRecord, Unreadable> {
    Ok(OpRecord {
        state: word(&message.state, OpState::parse)?,
        attempts: message.attempts,
        next_at: Moment::from_unix_millis(message.next_at),
        last_error: message.last_error,
        by_hand: message.by_hand,
        ..OpRecord::new(word(&message.op, Op::parse)?)
    })
}

fn write_target(op: Op, target: &Target) -> TargetRecord {
    let op = op.as_str().to_owned();
    match target {
        Target::Url(url) => TargetRecord { op, url: Some(url.clone()), ..TargetRecord::default() },
        Target::Service { service, path, method } => TargetRecord {
            op,
            url: None,
            service: service.clone(),
            path: path.clone(),
            method: method.clone(),
        },
    }
}

fn read_target(record: TargetRecord) -> Result<(Op, Target), Unreadable> {
    let TargetRecord { op, url, service, path, method } = record;
    let target = url.map_or(Target::Service { service, path, method }, Target::Url);
    Ok((word(&op, Op::parse)?, target))
}

fn pair((name, value): (&String, &String)) -> Pair {
    Pair { name: name.clone(), value: value.clone() }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn narrow(at: u32) -> Result<u16, Unreadable> {
    u16::try_from(at).map_err(damaged)
}

fn word<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Unreadable> {
    parse(text).ok_or_else(|| damaged(format!("`{text}` is no word of it")))
}

macro_rules! impl_value {
    ($($name:ident)*) => {
        $(impl $name {
            /// As a value of the store.
            pub fn write(&self) -> Bytes {
                framed(self)
            }

            /// Reads a value of the store.
            ///
            /// # Errors
            ///
            /// [`Unreadable`].
            pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
                unframed(bytes)
            }
        })*
    };
}

/// What a log says about itself; written once.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Meta {
    /// Eight of `a-z` and `0-9`: part of the names of prepared branches.
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// A UUID: another log of the same cluster is told apart by it.
    #[prost(string, tag = "2")]
    pub log_id: String,
    /// How many shards it has.
    #[prost(uint32, tag = "3")]
    pub shards: u32,
}

/// A node that may own shards.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Node {
    /// Where its control port is.
    #[prost(string, tag = "1")]
    pub address: String,
}

/// How far a lane is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Lane {
    /// The session it belongs to.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// Number of its last batch.
    #[prost(uint64, tag = "2")]
    pub batch: u64,
}

/// Who owns a shard.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Owner {
    /// The node.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Where its control port is.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Its session.
    #[prost(uint64, tag = "3")]
    pub session: u64,
}

impl_value!(Meta Node Lane Owner);
