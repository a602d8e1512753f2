//! Deferred requests, for operators: what waits in a queue, what lies among the dead letters.
//!
//! Each is a message of the coordinator, so this is the transactions' API in the words of
//! receipts. A list shows what the node that is asked owns; a request about one receipt is passed
//! on to its owner.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use mainstay_api::deferred::{DeferredQueue, DeferredQueues, DeferredRequest, DeferredRequests};
use mainstay_api::transaction::Operate;
use mainstay_call::deferred::{Receipt, ReceiptState};
use mainstay_coord::audit::Author;
use mainstay_core::problem::Code;
use mainstay_txn::run::{Glance, Seen, Verb, VerbError};
use mainstay_txn::{
    By as Word, Coordinator, Decision, Gid, Op, Part, Resolution, Target, Transaction,
};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Asked, Document, Refused};
use super::author::{By, needed};
use super::transactions::list::LIMIT_MAX;
use super::transactions::of;
use super::transactions::operate::{forget, operate, recorded, told};
use super::transactions::walk::{Picks, Place, Walked, walk};
use crate::cluster::Cluster;
use crate::deferred::{self, Deferrals};

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    let one = |rest: &str| format!("/deferred/{{queue}}/{{receipt}}{rest}");
    Router::new()
        .route("/deferred", get(queues))
        .route("/deferred/{queue}", get(list))
        .route(&one(""), get(show))
        .route(&one("/replay"), post(replay))
        .route(&one("/discard"), post(discard))
}

/// What keeps requests here, and who coordinates that.
fn kept(cluster: &Cluster) -> Result<(&Deferrals, Coordinator), Refused> {
    let (_, coordinator) = of(cluster)?;
    match &cluster.deferrals {
        Some(deferrals) => Ok((deferrals, coordinator)),
        None => Err(Refused::new(Code::NotFound, "this node keeps no deferred requests")),
    }
}

/// `GET /deferred`
async fn queues(State(cluster): State<Arc<Cluster>>) -> Result<Json<DeferredQueues>, Refused> {
    let (deferrals, coordinator) = kept(&cluster)?;
    let shown = |deferred::Standing { queue, queued, delivering, bytes, policy }| DeferredQueue {
        queue,
        queued,
        delivering,
        bytes,
        items_max: policy.items_max.into(),
        bytes_max: policy.bytes_max,
        concurrency: policy.concurrency,
    };
    let items = deferrals.queues(&coordinator).into_iter().map(shown).collect();
    Ok(Json(DeferredQueues { items }))
}

/// Which requests of a queue.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// `queued`, `delivering`, `done` or `dead`; all, unless told.
    state: Option<String>,
    /// Most of a page, 1 to 500. Default 100.
    limit: Option<usize>,
    /// Where the page begins: `next` of the one before.
    cursor: Option<String>,
}

/// `GET /deferred/{queue}`
async fn list(
    State(cluster): State<Arc<Cluster>>,
    Path(queue): Path<String>,
    Asked(Wanted { state, limit, cursor }): Asked<Wanted>,
) -> Result<Json<DeferredRequests>, Refused> {
    let (_, coordinator) = kept(&cluster)?;
    let state = state.map(|word| match ReceiptState::parse(&word) {
        Some(state) => Ok(state),
        None => Err(Refused::invalid("`state` must be queued, delivering, done or dead")),
    });
    let state = state.transpose()?;
    let is_live = |state| matches!(state, ReceiptState::Queued | ReceiptState::Delivering);
    let limit @ 1..=LIMIT_MAX = limit.unwrap_or(100) else {
        return Err(Refused::invalid("`limit` must be 1 to 500"));
    };
    let first = match state {
        Some(state) if !is_live(state) => Place::Ended(None),
        _ => Place::Live(None),
    };
    let place = match cursor {
        Some(text) => Place::read(&text)
            .ok_or_else(|| Refused::invalid("`cursor` must be `next` of the page before"))?,
        None => first,
    };
    let wanted = Picks {
        might: |glance: &Glance| deferred::is_of(&glance.begin, &queue),
        takes: |found: &Transaction| {
            deferred::is_of(&found.begin, &queue)
                && state.is_none_or(|state| receipt_state(found) == Some(state))
        },
        also_ended: !state.is_some_and(is_live),
    };
    let Walked { items: found, next, partial } = walk(&coordinator, place, limit, wanted).await?;
    let mut items = Vec::with_capacity(found.len());
    for transaction in found {
        // One that was replayed is shown as what became of it last.
        if !deferred::is_replayed(&coordinator, &transaction).await {
            items.extend(document(&transaction));
        }
    }
    Ok(Json(DeferredRequests { items, next: next.map(|place| place.text()), partial }))
}

/// `GET /deferred/{queue}/{receipt}`
async fn show(
    State(cluster): State<Arc<Cluster>>,
    Path((queue, receipt)): Path<(String, String)>,
) -> Result<Json<DeferredRequest>, Refused> {
    let (_, coordinator) = kept(&cluster)?;
    let found = find(&coordinator, &queue, &receipt).await?;
    shown(&found.transaction, &receipt)
}

/// `POST /deferred/{queue}/{receipt}/replay`
async fn replay(
    State(cluster): State<Arc<Cluster>>,
    Path((queue, receipt)): Path<(String, String)>,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Result<Json<DeferredRequest>, Refused> {
    let (_, coordinator) = kept(&cluster)?;
    let author = needed(by.because(reason)?)?;
    let found = find(&coordinator, &queue, &receipt).await?;
    if receipt_state(&found.transaction) != Some(ReceiptState::Dead) {
        let detail = "only what is dead is replayed; this has not ended, or was done";
        return Err(Refused::new(Code::TransactionVerbNotAllowed, detail));
    }
    let again = begun_again(&cluster, &coordinator, &found.transaction, &author).await?;
    shown(&again.transaction, &receipt)
}

/// Begins the generation after `dead`, or finds that somebody else has: two replays at once make one
/// request.
async fn begun_again(
    cluster: &Cluster,
    coordinator: &Coordinator,
    dead: &Transaction,
    author: &Author,
) -> Result<Seen, Refused> {
    let begin = deferred::again(dead).map_err(VerbError::from)?;
    let (what, after) = ("deferred.replay", json!({ "gid": begin.gid.as_str() }));
    let (before, record) =
        recorded(cluster, coordinator, dead.gid(), author, (what, &after)).await?;
    let seen = coordinator.begin_recorded(begin, Some(record)).await?;
    told(what, dead.gid(), (&before, &after), author);
    Ok(seen)
}

/// `POST /deferred/{queue}/{receipt}/discard`
async fn discard(
    State(cluster): State<Arc<Cluster>>,
    Path((queue, receipt)): Path<(String, String)>,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Result<StatusCode, Refused> {
    let (_, coordinator) = kept(&cluster)?;
    let author = needed(by.because(reason)?)?;
    let found = find(&coordinator, &queue, &receipt).await?;
    let gid = found.transaction.gid().clone();
    match receipt_state(&found.transaction) {
        Some(ReceiptState::Queued | ReceiptState::Delivering) => {
            let given_up = |by: Word| {
                Verb::Resolve(Resolution { by, decision: Decision::Abort, branch: None })
            };
            let after = json!({ "state": "dead" });
            drop(operate(&cluster, &gid, author, ("deferred.discard", after), given_up).await?);
        }
        Some(ReceiptState::Dead) => {
            // Those before it, too: one of them would be found in its place.
            for gid in deferred::generations(&base(&receipt)?, &gid) {
                forget(&cluster, &gid, &author, "deferred.discard").await?;
            }
        }
        Some(ReceiptState::Done) | None => {
            let detail = "it was done; there is nothing to discard";
            return Err(Refused::new(Code::TransactionVerbNotAllowed, detail));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

fn missing(receipt: &str) -> Refused {
    Refused::missing("deferred request", receipt)
}

fn base(receipt: &str) -> Result<Gid, Refused> {
    deferred::gid(receipt).ok_or_else(|| missing(receipt))
}

/// What became last of the request with this receipt.
async fn find(coordinator: &Coordinator, queue: &str, receipt: &str) -> Result<Seen, Refused> {
    let found = match deferred::latest(coordinator, &base(receipt)?).await {
        Err(VerbError::Unknown { .. }) => return Err(missing(receipt)),
        found => found?,
    };
    let is_there = deferred::queue(&found.transaction) == Some(queue);
    is_there.then_some(found).ok_or_else(|| missing(receipt))
}

fn shown(transaction: &Transaction, receipt: &str) -> Result<Json<DeferredRequest>, Refused> {
    document(transaction).map(Json).ok_or_else(|| missing(receipt))
}

/// How far a deferred request is; `None` of what is none.
fn receipt_state(transaction: &Transaction) -> Option<ReceiptState> {
    deferred::receipt(transaction).map(|receipt| receipt.state)
}

/// A deferred request as it stands; `None` of what is none.
fn document(transaction: &Transaction) -> Option<DeferredRequest> {
    let branch = transaction.branches.first()?;
    let Part::Endpoint { targets, .. } = &branch.part else { return None };
    let Target::Service { service, path, method } = targets.get(&Op::Action)? else { return None };
    let gid = transaction.gid();
    let Receipt { id, state, queued_at, tries, next_try_at, ended_at, status } =
        deferred::receipt(transaction)?;
    let last_error = branch.op(Op::Action).and_then(|record| record.last_error.clone());
    Some(DeferredRequest {
        receipt: id.to_string(),
        queue: deferred::queue(transaction)?.to_owned(),
        state: state.as_str().to_owned(),
        service: service.clone(),
        method: method.clone().unwrap_or_else(|| "POST".to_owned()),
        path: path.split('?').next().unwrap_or_default().to_owned(),
        bytes: branch.payload.bytes.len().try_into().unwrap_or(u64::MAX),
        queued_at: queued_at.to_string(),
        tries,
        next_try_at: next_try_at.map(|at| at.to_string()),
        ended_at: ended_at.map(|at| at.to_string()),
        final_status: status,
        last_error,
        gid: gid.to_string(),
    })
}
