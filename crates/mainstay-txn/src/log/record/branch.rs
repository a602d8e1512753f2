//! Branches, with their operations and targets.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::{BranchMessage, OpMessage, TargetRecord};
use super::{Unreadable, damaged, framed, narrow, pair, place, word};
use crate::moment::Moment;
use crate::name::{BranchId, ResourceName};
use crate::target::Target;
use crate::transaction::{Branch, NewBranch, OpRecord, Part, Payload, Transaction};
use crate::word::{Op, OpState, Prepare, Vote};

pub(in crate::log) fn branch(transaction: &Transaction, at: usize, branch: &Branch) -> Bytes {
    let in_body = at < transaction.begin.steps.len();
    let wanted = if in_body { Wanted::Progress } else { Wanted::Whole };
    framed(&write_branch(at, branch, wanted))
}

/// How much of a branch is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// All but its payload, which nobody will be sent again.
    Outline,
    /// What changes; the rest stands in the body.
    Progress,
}

pub(super) fn write_branch(at: usize, branch: &Branch, wanted: Wanted) -> BranchMessage {
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
pub(super) fn read_branch(
    message: BranchMessage,
    known: Option<&Branch>,
) -> Result<Branch, Unreadable> {
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
                None => {
                    let targets = message.targets.into_iter().map(read_target);
                    let targets: BTreeMap<_, _> = targets.collect::<Result<_, _>>()?;
                    let prepare = word(&message.prepare, Prepare::parse)?;
                    Part::Endpoint { targets: targets.into(), prepare }
                }
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

pub(super) fn write_target(op: Op, target: &Target) -> TargetRecord {
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

pub(super) fn read_target(record: TargetRecord) -> Result<(Op, Target), Unreadable> {
    let TargetRecord { op, url, service, path, method } = record;
    let target = url.map_or(Target::Service { service, path, method }, Target::Url);
    Ok((word(&op, Op::parse)?, target))
}
