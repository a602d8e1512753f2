//! What initiators and operators ask for.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use mainstay_coord::audit::Author;
use mainstay_txn::error::Refused;
use mainstay_txn::run::{Seen, Until, Verb, VerbError};
use mainstay_txn::{
    By as Word, Coordinator, Decision, Dialect, Gid, Mode, Resolution, Submit, Transaction,
};
use serde_json::{Value, json};

use super::answer::{Answer, Said, success};
use super::begin::{amendment, begin, joining};
use super::documents::{rollback_reason, status};
use super::of;
use super::words::{Fields, TransBase};
use crate::cluster::Cluster;
use crate::control::author::{By, Principal};
use crate::control::transactions::operate::operate as operated;
use crate::transaction::NotAdmitted;
use crate::transaction::request::trans_type;
use crate::transaction::settings::DtmConfig;

/// How much longer than a call of a branch an answer waits for a pass to end.
const PASS_MARGIN: Duration = Duration::from_secs(2);

/// `POST prepare`
pub(super) async fn prepare(
    State(cluster): State<Arc<Cluster>>,
    Extension(who): Extension<Principal>,
    sent: HeaderMap,
    body: Bytes,
) -> Answer {
    let (transactions, coordinator) = of(&cluster)?;
    let config = &transactions.config().dtm;
    let base = said(&body, sent, who, config)?;
    match base.mode {
        Mode::Saga => return Err(Said::wrong("a saga is submitted; it is not prepared before")),
        Mode::Message if base.query_prepared.is_none() => {
            return Err(Said::wrong(
                "query_prepared must say whom to ask whether a prepared msg may be delivered",
            ));
        }
        Mode::Message | Mode::Tcc | Mode::Xa => {}
    }
    let begin = begin(&base, false, config)?;
    transactions.admit(&begin).map_err(denied)?;
    let state = match coordinator.begin(begin).await {
        Ok(seen) => seen.transaction.state(),
        // Clients repeat it, and need not say the same.
        Err(VerbError::Refused(Refused::GidTaken { state, .. })) => state,
        Err(error) => return Err(error.into()),
    };
    if state.is_undecided() {
        return Ok(success());
    }
    Err(Said::Failure(format!("gid {} is {state}, and cannot be prepared", base.gid)))
}

/// What a client says of a transaction. The token that let it in here is passed on to nobody.
fn said(
    body: &[u8],
    mut sent: HeaderMap,
    who: Principal,
    config: &DtmConfig,
) -> Result<TransBase, Said> {
    if who == Principal::Operator {
        sent.remove(header::AUTHORIZATION);
    }
    TransBase::read(body, &sent, config)
}

/// `POST submit`
pub(super) async fn submit(
    State(cluster): State<Arc<Cluster>>,
    Extension(who): Extension<Principal>,
    sent: HeaderMap,
    body: Bytes,
) -> Answer {
    let (transactions, coordinator) = of(&cluster)?;
    let config = &transactions.config().dtm;
    let base = said(&body, sent, who, config)?;
    let prepared = match base.mode {
        Mode::Saga => None,
        Mode::Message | Mode::Tcc | Mode::Xa => {
            submit_prepared(&coordinator, &base, &cluster).await?
        }
    };
    let seen = match (prepared, base.mode) {
        (Some(seen), _) => seen,
        (None, Mode::Saga | Mode::Message) => {
            let begin = begin(&base, true, config)?;
            transactions.admit(&begin).map_err(denied)?;
            match coordinator.begin(begin).await {
                Ok(seen) if seen.begun => seen,
                Ok(seen) => again(&coordinator, &base.gid, &seen.transaction).await?,
                Err(VerbError::Refused(Refused::GidTaken { .. })) => {
                    let seen = coordinator.get(&base.gid).await?;
                    again(&coordinator, &base.gid, &seen.transaction).await?
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Whoever is not known was aborted.
        (None, Mode::Tcc | Mode::Xa) => {
            let text = format!("gid {} is not known, and cannot be submitted", base.gid);
            return Err(Said::Failure(text));
        }
    };
    if !base.options.wait_result {
        return Ok(success());
    }
    let call = seen.transaction.begin.call_timeout.unwrap_or(config.request_timeout);
    let seen = coordinator.wait(&base.gid, Until::Tried, call + PASS_MARGIN).await?;
    passed(&seen.transaction)
}

/// Submits what was prepared, with the options it now has; `None` if there is no such transaction.
async fn submit_prepared(
    coordinator: &Coordinator,
    base: &TransBase,
    cluster: &Cluster,
) -> Result<Option<Seen>, Said> {
    let (transactions, _) = of(cluster)?;
    let amendment = amendment(base, &transactions.config().dtm)?;
    match coordinator.amend(&base.gid, amendment).await {
        Ok(_) => {}
        Err(VerbError::Unknown { .. }) => return Ok(None),
        Err(VerbError::Refused(Refused::NotAllowed { .. })) => {
            let seen = coordinator.get(&base.gid).await?;
            return again(coordinator, &base.gid, &seen.transaction).await.map(Some);
        }
        Err(error) => return Err(error.into()),
    }
    match coordinator.submit(&base.gid, Submit::default(), None).await {
        Ok(seen) => Ok(Some(seen)),
        // Its deadline came between.
        Err(VerbError::Refused(Refused::Aborted(_) | Refused::Mixed)) => {
            Err(Said::Failure(format!("gid {} is aborting, and cannot be submitted", base.gid)))
        }
        Err(error) => Err(error.into()),
    }
}

/// A submit of what was submitted: it is processed again, unless it has ended or turned round.
async fn again(
    coordinator: &Coordinator,
    gid: &Gid,
    transaction: &Transaction,
) -> Result<Seen, Said> {
    match status(transaction) {
        "submitted" => {
            let word = Word::Initiator("submitted again".to_owned());
            match coordinator.operate(gid, Verb::Retry(word), None).await {
                Ok(seen) => Ok(seen),
                // It ended between.
                Err(VerbError::Refused(_)) => Ok(coordinator.get(gid).await?),
                Err(error) => Err(error.into()),
            }
        }
        status => Err(Said::Failure(format!("gid {gid} is {status}, and cannot be submitted"))),
    }
}

/// What one pass came to.
fn passed(transaction: &Transaction) -> Answer {
    let gid = transaction.gid();
    match status(transaction) {
        "succeed" => return Ok(success()),
        "aborting" | "failed" => {
            let reason = rollback_reason(transaction);
            return Err(Said::Failure(reason.unwrap_or_else(|| format!("gid {gid} failed"))));
        }
        _ => {}
    }
    let ops = transaction.branches.iter().flat_map(|branch| &branch.ops);
    let mut open = ops.filter(|record| !record.state.is_settled());
    let error = open.find_map(|record| record.last_error.clone().filter(|_| !record.is_ongoing()));
    match error {
        Some(error) if transaction.begin.mode != Mode::Saga => {
            Err(Said::Wrong(format!("a branch of gid {gid} failed, and is tried again: {error}")))
        }
        Some(error) => Err(Said::Ongoing(format!("gid {gid} is tried again: {error}"))),
        None => Err(Said::Ongoing(format!("gid {gid} goes on"))),
    }
}

/// `POST abort`
pub(super) async fn abort(State(cluster): State<Arc<Cluster>>, body: Bytes) -> Answer {
    let (_, coordinator) = of(&cluster)?;
    let fields = Fields::read(&body)?;
    let gid = fields.gid()?;
    let reason = fields.text("rollback_reason")?.unwrap_or_default();
    let known = own(&coordinator, &gid).await?;
    let (mode, state) = (known.begin.mode, status(&known));
    let possible = matches!(
        (mode, state),
        (Mode::Tcc | Mode::Xa, "prepared" | "aborting") | (Mode::Message, "prepared")
    );
    let refused = || {
        let kind = trans_type(mode);
        Said::Failure(format!("{kind} {gid} is {state}, and cannot be aborted"))
    };
    if !possible {
        return Err(refused());
    }
    match coordinator.abort(&gid, Word::Initiator(reason)).await {
        Ok(_) => Ok(success()),
        Err(VerbError::Refused(Refused::Committed)) => Err(refused()),
        Err(error) => Err(error.into()),
    }
}

/// `POST registerBranch`
pub(super) async fn register(State(cluster): State<Arc<Cluster>>, body: Bytes) -> Answer {
    join(&cluster, &body, None).await
}

/// `POST registerTccBranch`
pub(super) async fn register_tcc(State(cluster): State<Arc<Cluster>>, body: Bytes) -> Answer {
    join(&cluster, &body, Some(Mode::Tcc)).await
}

/// `POST registerXaBranch`
pub(super) async fn register_xa(State(cluster): State<Arc<Cluster>>, body: Bytes) -> Answer {
    join(&cluster, &body, Some(Mode::Xa)).await
}

async fn join(cluster: &Cluster, body: &[u8], mode: Option<Mode>) -> Answer {
    let (transactions, coordinator) = of(cluster)?;
    let fields = Fields::read(body)?;
    let gid = fields.gid()?;
    let named = fields.text("trans_type")?;
    let mode = match (named.as_deref(), mode) {
        (Some("tcc"), _) => Mode::Tcc,
        (Some("xa"), _) => Mode::Xa,
        (None | Some(""), Some(mode)) => mode,
        (other, _) => {
            let other = other.unwrap_or_default();
            let text =
                format!("trans_type must be tcc or xa for a branch to join, found {other:?}");
            return Err(Said::Wrong(text));
        }
    };
    let branch = joining(&fields, mode)?;
    transactions.admit_branch(&branch).map_err(denied)?;
    match coordinator.register(&gid, branch).await {
        Ok(_) => Ok(success()),
        Err(
            VerbError::Unknown { .. }
            | VerbError::Refused(Refused::NotActive { .. } | Refused::DeadlinePassed),
        ) => Err(Said::Failure(format!("no trans with gid: {gid} status: prepared found"))),
        Err(error) => Err(error.into()),
    }
}

/// `POST forceStop`
pub(super) async fn stop(State(cluster): State<Arc<Cluster>>, by: By, body: Bytes) -> Answer {
    let gid = Fields::read(&body)?.gid()?;
    let because = "stopped by force through the API of DTM";
    let what = ("transaction.resolve", json!({ "as": "aborted" }));
    let verb = |by| Verb::Resolve(Resolution { by, decision: Decision::Abort, branch: None });
    operate(&cluster, &gid, by.or_because(because), what, verb).await
}

/// `POST resetNextCronTime`
pub(super) async fn hurry(State(cluster): State<Arc<Cluster>>, by: By, body: Bytes) -> Answer {
    let gid = Fields::read(&body)?.gid()?;
    retry(&cluster, &gid, by).await
}

/// Has everything of `gid` tried now.
pub(super) async fn retry(cluster: &Cluster, gid: &Gid, by: By) -> Answer {
    let because = "tried at once through the API of DTM";
    let what = ("transaction.retry", json!({}));
    operate(cluster, gid, by.or_because(because), what, Verb::Retry).await
}

async fn operate(
    cluster: &Cluster,
    gid: &Gid,
    author: Author,
    what: (&'static str, Value),
    verb: impl FnOnce(Word) -> Verb,
) -> Answer {
    let (_, coordinator) = of(cluster)?;
    let known = own(&coordinator, gid).await?;
    if known.state().is_final() {
        return Err(Said::Failure(format!("gid {gid} is {}: it has ended", status(&known))));
    }
    let _shown = operated(cluster, gid, author, what, verb).await?;
    Ok(success())
}

/// The transaction `gid`, if it is of this dialect: of others clients of DTM know too little.
async fn own(coordinator: &Coordinator, gid: &Gid) -> Result<Transaction, Said> {
    let transaction = coordinator.get(gid).await?.transaction;
    if transaction.begin.dialect == Dialect::Dtm {
        return Ok(transaction);
    }
    Err(Said::Wrong(format!("gid {gid} was not begun through the API of DTM")))
}

/// Whoever may not be called is refused, and nothing is recorded.
fn denied(error: NotAdmitted) -> Said {
    Said::Failure(error.to_string())
}
