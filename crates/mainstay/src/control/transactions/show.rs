//! Transactions as documents.

use mainstay_api::transaction as api;
use mainstay_txn::run::Seen;
use mainstay_txn::{Branch, Moment, OpState, Part, Payload, Transaction};
use sha2::{Digest as _, Sha256};

use crate::control::moment::unix_time;
use crate::output::hex;

/// A transaction as it stands.
pub(super) fn document(seen: &Seen) -> api::Transaction {
    let transaction = &seen.transaction;
    let note = |note: &mainstay_txn::transaction::Note| api::Note {
        at: text(note.at),
        what: note.what.clone(),
        by: note.by.clone(),
    };
    api::Transaction {
        summary: summary(transaction),
        epoch: seen.epoch,
        shard: seen.shard.get(),
        branches: transaction.branches.iter().map(|one| branch(seen, one)).collect(),
        timeline: transaction.timeline.iter().map(note).collect(),
        timeline_dropped: transaction.timeline_dropped,
    }
}

/// What lists show of it.
pub(super) fn summary(transaction: &Transaction) -> api::Summary {
    let (begin, register) = (&transaction.begin, &transaction.register);
    api::Summary {
        gid: begin.gid.to_string(),
        mode: begin.mode.to_string(),
        dialect: begin.dialect.to_string(),
        name: begin.name.clone(),
        labels: begin.labels.clone(),
        state: register.state.to_string(),
        decision: register.decision.map(|decision| decision.to_string()),
        reason: register.reason.as_ref().map(|reason| api::Reason {
            why: reason.why.to_string(),
            detail: reason.detail.clone(),
        }),
        created_at: text(transaction.created_at),
        deadline_at: transaction.deadline_at.map(text),
        decided_at: register.decided_at.map(text),
        finished_at: register.finished_at.map(text),
        stuck: register.stuck,
        paused: register.paused,
        heuristic: register.heuristic,
        branch_count: transaction.branches.len(),
    }
}

fn branch(seen: &Seen, branch: &Branch) -> api::TransactionBranch {
    let (kind, resource, targets) = match &branch.part {
        Part::Resource(resource) => ("resource", Some(resource.to_string()), None),
        Part::Endpoint { targets, .. } => ("endpoint", None, Some(targets)),
    };
    let targets = targets.into_iter().flat_map(|targets| &**targets);
    let op = |record: &mainstay_txn::transaction::OpRecord| api::Operation {
        op: record.op.to_string(),
        state: record.shown().to_string(),
        attempts: record.attempts,
        next_at: Some(record.next_at)
            .filter(|at| !record.state.is_settled() && *at != Moment::default())
            .map(text),
        // What was wrong once is no news of what is done.
        last_error: record.last_error.clone().filter(|_| record.state != OpState::Done),
        by_hand: record.by_hand,
    };
    api::TransactionBranch {
        branch: branch.id.to_string(),
        kind: kind.to_owned(),
        resource,
        xid: xid(seen, branch),
        targets: targets.map(|(op, target)| (op.to_string(), target.to_string())).collect(),
        after: branch.after.clone(),
        vote: branch.vote.map(|vote| vote.to_string()),
        heuristic: branch.heuristic,
        payload: payload(&branch.payload),
        ops: branch.ops.iter().map(op).collect(),
    }
}

/// What databases call `branch` if it lies in one.
pub(super) fn xid(seen: &Seen, branch: &Branch) -> Option<String> {
    let in_database = matches!(branch.part, Part::Resource(_));
    seen.xid(&branch.id).filter(|_| in_database).map(|xid| xid.postgres())
}

/// What is seen of a payload: what it says is between its sender and its receiver.
fn payload(payload: &Payload) -> api::PayloadSeen {
    let Payload { bytes, content_type, .. } = payload;
    let sha256 = (!bytes.is_empty()).then(|| hex(&Sha256::digest(bytes)));
    api::PayloadSeen { bytes: bytes.len(), sha256, content_type: content_type.clone() }
}

pub(super) fn text(at: Moment) -> String {
    unix_time(at.unix_millis())
}
