//! Global transactions over HTTP: `mainstay_api::transaction` has the documents.
//!
//! | calls | module |
//! |---|---|
//! | what initiators ask for | this one; documents are read in [`ask`] |
//! | what operators ask for, each with its record | [`operate`] |
//! | how things stand | [`show`], [`list`], [`walk`](mod@walk) |
//! | databases that take part | [`resources`] |
//! | what another node owns | [`forward`] |

mod ask;
pub(super) mod forward;
pub(super) mod list;
pub(super) mod operate;
mod resources;
mod show;
pub(super) mod walk;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{Json, Router};
use mainstay_api::transaction::{
    Accepted, BeginTransaction, RegisterBranch, Registered, SendMessage, SubmitTransaction,
    Transaction, WaitFor,
};
use mainstay_core::problem::Code;
use mainstay_txn::error::Refused as Refusal;
use mainstay_txn::run::{Seen, Until, VerbError};
use mainstay_txn::transaction::Reason;
use mainstay_txn::{Coordinator, Decision, Gid, Submit};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Asked, Document, Refused};
use crate::cluster::Cluster;
use crate::report::causes;
use crate::transaction::{NotAdmitted, Transactions};
use show::document;

/// How long an answer waits where the caller does not say.
const WAIT: Duration = Duration::from_secs(30);

/// How long it may be asked to wait, in seconds.
const WAIT_SECONDS_MAX: f64 = 60.0;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    let one = |rest: &str| format!("/transactions/{{gid}}{rest}");
    let resource = |rest: &str| format!("/transaction-resources/{{name}}{rest}");
    Router::new()
        .route("/transactions", get(list::list).post(begin))
        .route(&one(""), get(look))
        .route(&one("/branches"), post(register))
        .route(&one("/submit"), post(submit))
        .route(&one("/abort"), post(operate::abort))
        .route(&one("/retry"), post(operate::retry))
        .route(&one("/pause"), post(operate::pause))
        .route(&one("/resume"), post(operate::resume))
        .route(&one("/resolve"), post(operate::resolve))
        .route(&one("/redeliver"), post(operate::redeliver))
        .route("/messages", post(send))
        .route("/transaction-log/accept", post(resources::accept_log))
        .route("/transaction-resources", get(resources::list))
        .route(&resource(""), get(resources::show))
        .route(&resource("/prepared"), get(resources::prepared))
        .route(&resource("/check"), post(resources::check))
        .route(&resource("/sweep"), post(resources::sweep))
        .route(&resource("/init"), post(resources::init))
        .route(&resource("/purge-barrier"), post(resources::purge_barrier))
}

/// Which transaction a path names.
#[derive(Clone, Debug)]
struct Named(Gid);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(gid) = path.map_err(|rejection| Refused::invalid(rejection.body_text()))?;
        Ok(Self(Gid::new(&gid).map_err(Refusal::from)?))
    }
}

/// What coordinates transactions here.
pub(super) fn of(cluster: &Cluster) -> Result<(&Transactions, Coordinator), Refused> {
    let Some(transactions) = &cluster.transactions else {
        let detail = "this node coordinates no transactions (`transaction.enabled`)";
        return Err(Refused::new(Code::NotFound, detail));
    };
    match transactions.coordinator() {
        Some(coordinator) => Ok((transactions, coordinator)),
        None => {
            let detail = "the coordinator has not started yet";
            let refused = Refused::new(Code::TransactionLogUnavailable, detail);
            Err(refused.retry_after(Duration::from_secs(1)))
        }
    }
}

/// `POST /transactions`
async fn begin(
    State(cluster): State<Arc<Cluster>>,
    Document(asked): Document<BeginTransaction>,
) -> Result<(StatusCode, Json<Transaction>), Refused> {
    let (transactions, coordinator) = of(&cluster)?;
    let patience = patience(asked.wait, asked.wait_seconds)?;
    let begin = ask::begin(asked, || transactions.generate())?;
    transactions.admit(&begin)?;
    let gid = begin.gid.clone();
    let mut seen = coordinator.begin(begin).await?;
    let is_new = seen.begun;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let Some((until, patience)) = patience else { return Ok((status, Json(document(&seen)))) };
    seen = coordinator.wait(&gid, until, patience).await?;
    let status = if is_reached(until, &seen) { status } else { StatusCode::ACCEPTED };
    Ok((status, Json(document(&seen))))
}

/// `POST /messages`
async fn send(
    State(cluster): State<Arc<Cluster>>,
    Document(asked): Document<SendMessage>,
) -> Result<(StatusCode, Json<Accepted>), Refused> {
    let (transactions, coordinator) = of(&cluster)?;
    let begin = ask::message(asked, || transactions.generate())?;
    transactions.admit(&begin)?;
    let gid = begin.gid.to_string();
    coordinator.begin(begin).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { gid })))
}

/// `POST /transactions/{gid}/branches`
async fn register(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    Document(asked): Document<RegisterBranch>,
) -> Result<(StatusCode, Json<Registered>), Refused> {
    let (transactions, coordinator) = of(&cluster)?;
    let branch = ask::branch(asked)?;
    transactions.admit_branch(&branch)?;
    let known = match &branch.branch {
        // Only then can it be the same again.
        Some(id) => coordinator.get(&gid).await?.transaction.branch(id).is_some(),
        None => false,
    };
    let named = branch.branch.clone();
    let seen = coordinator.register(&gid, branch).await?;
    let last = seen.transaction.branches.last().map(|branch| branch.id.clone());
    let Some(branch) = named.or(last) else {
        return Err(Refused::new(Code::Internal, "the branch has joined without a name"));
    };
    let status = if known { StatusCode::OK } else { StatusCode::CREATED };
    let xid = seen.transaction.branch(&branch).and_then(|branch| show::xid(&seen, branch));
    Ok((status, Json(Registered { branch: branch.to_string(), xid })))
}

/// `POST /transactions/{gid}/submit`
async fn submit(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    Document(asked): Document<SubmitTransaction>,
) -> Result<(StatusCode, Json<Transaction>), Refused> {
    let (transactions, coordinator) = of(&cluster)?;
    let patience = patience(asked.wait.or(Some(WaitFor::Decided)), asked.wait_seconds)?;
    let (submit, lost) = ask::submit(&gid, asked)?;
    transactions.admit_votes(&submit)?;
    coordinator.submit(&gid, Submit::clone(&submit), lost).await?;
    let (until, patience) = patience.unwrap_or((Until::Decided, WAIT));
    let seen = coordinator.wait(&gid, until, patience).await?;
    let register = &seen.transaction.register;
    if register.state == mainstay_txn::State::Mixed {
        return Err(refused_with(Refusal::Mixed.into(), &seen));
    }
    if register.decision == Some(Decision::Abort) {
        return Err(refused_with(Refusal::Aborted(register.reason.clone()).into(), &seen));
    }
    let status = if is_reached(until, &seen) { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(document(&seen))))
}

/// Whether one waits, and how long.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Waiting {
    /// `decided` or `done`: how far the answer waits.
    #[param(value_type = Option<String>)]
    wait: Option<WaitFor>,
    /// How long at most, 0 to 60 s. Default 30.
    wait_seconds: Option<f64>,
}

/// `GET /transactions/{gid}`
async fn look(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    Asked(Waiting { wait, wait_seconds }): Asked<Waiting>,
) -> Result<Json<Transaction>, Refused> {
    let (_, coordinator) = of(&cluster)?;
    let seen = match patience(wait, wait_seconds)? {
        Some((until, patience)) => coordinator.wait(&gid, until, patience).await?,
        None => coordinator.get(&gid).await?,
    };
    Ok(Json(document(&seen)))
}

/// Until when an answer waits.
fn patience(
    wait: Option<WaitFor>,
    seconds: Option<f64>,
) -> Result<Option<(Until, Duration)>, Refused> {
    let patience = match seconds {
        None => WAIT,
        Some(seconds) if (0.0..=WAIT_SECONDS_MAX).contains(&seconds) => {
            Duration::from_secs_f64(seconds)
        }
        Some(seconds) => {
            let detail = format!("`wait_seconds` must be 0 to 60, found {seconds}");
            return Err(Refused::invalid(detail));
        }
    };
    Ok(wait.map(|wait| match wait {
        WaitFor::Decided => (Until::Decided, patience),
        WaitFor::Done => (Until::Done, patience),
    }))
}

fn is_reached(until: Until, seen: &Seen) -> bool {
    let state = seen.transaction.state();
    match until {
        Until::Decided | Until::Tried => !state.is_undecided(),
        Until::Done => state.is_final(),
    }
}

/// A refusal that shows the transaction it is about.
fn refused_with(error: VerbError, seen: &Seen) -> Refused {
    Refused::from(error).with("transaction", json!(document(seen)))
}

impl From<VerbError> for Refused {
    fn from(error: VerbError) -> Self {
        // Damage travels over no wire under the code that a start says it by.
        let code = Code::parse(error.code()).filter(|code| code.http() != 0);
        let mut refused =
            Self::new(code.unwrap_or(Code::Internal), causes(&error)).with_effect(error.effect());
        if let Some(after) = error.retry_after() {
            refused = refused.retry_after(after);
        }
        match error {
            VerbError::Refused(Refusal::Aborted(Some(reason))) => {
                refused.with("reason", reason_of(&reason))
            }
            _ => refused,
        }
    }
}

fn reason_of(Reason { why, detail }: &Reason) -> Value {
    json!({ "why": why.as_str(), "detail": detail })
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        VerbError::from(refusal).into()
    }
}

impl From<NotAdmitted> for Refused {
    fn from(error: NotAdmitted) -> Self {
        let refused = Self::new(error.code(), error.to_string());
        match error.retry_after() {
            Some(after) => refused.retry_after(after),
            None => refused,
        }
    }
}

/// Reads a name of a transaction, a branch or a database.
fn named<T, E: Into<Refusal>>(read: Result<T, E>) -> Result<T, Refused> {
    read.map_err(|error| error.into().into())
}

/// A moment as it was written.
fn moment(field: &str, text: &str) -> Result<mainstay_txn::Moment, Refused> {
    let read = mainstay_core::Moment::parse(text);
    let read = read.map_err(|error| Refused::invalid(format!("`{field}`: {error}")))?;
    Ok(mainstay_txn::Moment::from_unix_millis(read.unix_millis()))
}
