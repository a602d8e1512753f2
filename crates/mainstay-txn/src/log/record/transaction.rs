//! A transaction: its body, its register, how it ended.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mainstay_store::limits::VALUE_BYTES_MAX;

use super::branch::{Wanted, read_branch, read_target, write_branch, write_target};
use super::message::{
    BodyMessage, BranchMessage, HistoryMessage, NoteMessage, RegisterMessage, VoteMessage,
};
use super::{Unreadable, damaged, framed, narrow, pair, place, unframed, word};
use crate::moment::Moment;
use crate::name::{BranchId, Gid, ResourceName};
use crate::transaction::{
    Begin, Branch, NewBranch, Note, Part, Payload, Reason, Register, Transaction,
};
use crate::word::{Decision, Dialect, Mode, Op, State, Vote, Why};

pub(in crate::log) fn body(transaction: &Transaction) -> Bytes {
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
        headers: begin.headers.iter().map(|(name, value)| pair((name, value))).collect(),
        words: begin.words.clone(),
    })
}

pub(in crate::log) fn read_body(
    bytes: &[u8],
) -> Result<(Begin, Moment, Option<Moment>), Unreadable> {
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
        headers: body.headers.into_iter().map(|pair| (pair.name, pair.value)).collect(),
        words: body.words,
        submit: body.submit,
        steps: steps.collect::<Result<_, Unreadable>>()?,
    };
    let deadline_at = body.deadline_at.map(Moment::from_unix_millis);
    Ok((begin, Moment::from_unix_millis(body.created_at), deadline_at))
}

pub(in crate::log) fn register(transaction: &Transaction, epoch: u64) -> Bytes {
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
pub(in crate::log) struct ReadRegister {
    pub(in crate::log) register: Register,
    pub(in crate::log) epoch: u64,
    votes: Vec<VoteMessage>,
}

pub(in crate::log) fn read_register(bytes: &[u8]) -> Result<ReadRegister, Unreadable> {
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

/// Branches of a live transaction: steps of its body, branches of the vote list, and over them
/// what their own records say. A branch is told by its id: its place is where it stands, and two
/// records may name the same one, when a branch between them was lost before it was written.
pub(in crate::log) fn read_branches<'a>(
    begin: &Begin,
    register: &ReadRegister,
    records: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Branch>, Unreadable> {
    let steps = steps_of(begin).into_iter();
    let mut known: BTreeMap<String, (u32, Branch)> =
        steps.map(|(place, step)| (step.id.as_str().to_owned(), (place, step))).collect();
    for vote in &register.votes {
        let Some(resource) = &vote.resource else { continue };
        let part = Part::Resource(ResourceName::new(resource).map_err(damaged)?);
        let (after, payload) = (Vec::new(), Payload::default());
        let new = NewBranch { branch: None, part, after, payload };
        let id = BranchId::new(&vote.branch).map_err(damaged)?;
        known.insert(vote.branch.clone(), (vote.place, Branch::new(id, new)));
    }
    for record in records {
        let message: BranchMessage = unframed(record)?;
        let (id, place) = (message.id.clone(), message.place);
        let branch = read_branch(message, known.get(&id).map(|(_, branch)| branch))?;
        known.insert(id, (place, branch));
    }
    for vote in &register.votes {
        let Some((_, branch)) = known.get_mut(&vote.branch) else {
            return Err(damaged(format!("branch {} voted and is not there", vote.branch)));
        };
        branch.vote = vote.vote.as_deref().map(|vote| word(vote, Vote::parse)).transpose()?;
        branch.session_id.clone_from(&vote.session_id);
    }
    let mut placed: Vec<(u32, Branch)> = known.into_values().collect();
    placed.sort_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, branch)| branch).collect())
}

fn steps_of(begin: &Begin) -> BTreeMap<u32, Branch> {
    let step = |(at, step): (usize, &NewBranch)| {
        let id = step.branch.clone().unwrap_or_else(|| BranchId::number(at + 1));
        (place(at), Branch::new(id, step.clone()))
    };
    begin.steps.iter().enumerate().map(step).collect()
}

pub(in crate::log) fn history(transaction: &Transaction, epoch: u64) -> Bytes {
    let in_body = |at: usize| at < transaction.begin.steps.len();
    let branch = |(at, branch): (usize, &Branch)| {
        write_branch(at, branch, if in_body(at) { Wanted::Progress } else { Wanted::Outline })
    };
    let note = |note: &Note| NoteMessage {
        at: note.at.unix_millis(),
        what: note.what.clone(),
        by: note.by.clone(),
    };
    let mut history = HistoryMessage {
        register: Some(write_register(transaction, epoch)),
        branches: transaction.branches.iter().enumerate().map(branch).collect(),
        timeline: transaction.timeline.iter().map(note).collect(),
        deadline_at: transaction.deadline_at.map(Moment::unix_millis),
    };
    let whole = framed(&history);
    if whole.len() <= VALUE_BYTES_MAX {
        return whole;
    }
    // A thousand branches with an error each: the end is the truth, and goes before the evidence.
    history.timeline.clear();
    for op in history.branches.iter_mut().flat_map(|branch| &mut branch.ops) {
        op.last_error = None;
    }
    framed(&history)
}

pub(in crate::log) fn read_history(
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

pub(in crate::log) fn read_span(bytes: &[u8]) -> Result<(Moment, Moment), Unreadable> {
    let history: HistoryMessage = unframed(bytes)?;
    let finished_at = history.register.and_then(|register| register.finished_at);
    let finished_at = finished_at.ok_or_else(|| damaged("it has no end"))?;
    let kept_until = history.deadline_at.unwrap_or(finished_at);
    Ok((Moment::from_unix_millis(finished_at), Moment::from_unix_millis(kept_until)))
}
