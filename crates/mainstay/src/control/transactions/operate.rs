//! Verbs of operators. Each says why, and is recorded by the batch that writes what it changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mainstay_api::transaction::Outcome;
use mainstay_api::transaction::{AbortTransaction, Operate, ResolveTransaction, Transaction};
use mainstay_coord::audit::{Author, Target};
use mainstay_store::Put;
use mainstay_txn::run::Verb;
use mainstay_txn::{BranchId, By as Word, Coordinator, Decision, Gid, Resolution};
use serde_json::{Value, json};

use super::show::{document, summary};
use super::{Named, named, of};
use crate::cluster::Cluster;
use crate::control::answer::{Document, Refused};
use crate::control::author::{By, needed};
use crate::control::events::Changed;

type Answered = Result<Json<Transaction>, Refused>;

/// `POST /transactions/{gid}/abort`: of its initiator; with a reason, of an operator.
pub(super) async fn abort(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    by: By,
    Document(AbortTransaction { detail, reason }): Document<AbortTransaction>,
) -> Answered {
    let author = by.because(reason)?;
    if author.reason.is_some() {
        return operate(&cluster, &gid, author, ("transaction.abort", json!({})), Verb::Abort)
            .await;
    }
    let (_, coordinator) = of(&cluster)?;
    let word = Word::Initiator(detail.unwrap_or_default());
    Ok(Json(document(&coordinator.abort(&gid, word).await?)))
}

/// `POST /transactions/{gid}/retry`
pub(super) async fn retry(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Answered {
    let author = needed(by.because(reason)?)?;
    operate(&cluster, &gid, author, ("transaction.retry", json!({})), Verb::Retry).await
}

/// `POST /transactions/{gid}/pause`
pub(super) async fn pause(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Answered {
    let author = needed(by.because(reason)?)?;
    let after = json!({ "paused": true });
    operate(&cluster, &gid, author, ("transaction.pause", after), Verb::Pause).await
}

/// `POST /transactions/{gid}/resume`
pub(super) async fn resume(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Answered {
    let author = needed(by.because(reason)?)?;
    let after = json!({ "paused": false });
    operate(&cluster, &gid, author, ("transaction.resume", after), Verb::Resume).await
}

/// `POST /transactions/{gid}/resolve`
pub(super) async fn resolve(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    by: By,
    Document(ResolveTransaction { outcome, branch, reason }): Document<ResolveTransaction>,
) -> Answered {
    let author = needed(by.because(reason)?)?;
    let after = json!({ "as": outcome, "branch": branch });
    let branch = named(branch.as_deref().map(BranchId::new).transpose())?;
    let decision = match outcome {
        Outcome::Committed => Decision::Commit,
        Outcome::Aborted => Decision::Abort,
    };
    let verb = move |by| Verb::Resolve(Resolution { by, decision, branch });
    operate(&cluster, &gid, author, ("transaction.resolve", after), verb).await
}

/// `POST /transactions/{gid}/redeliver`
pub(super) async fn redeliver(
    State(cluster): State<Arc<Cluster>>,
    Named(gid): Named,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Answered {
    let author = needed(by.because(reason)?)?;
    let (_, coordinator) = of(&cluster)?;
    let what = "transaction.redeliver";
    let (before, record) =
        recorded(&cluster, &coordinator, &gid, &author, (what, &json!({}))).await?;
    let seen = coordinator.redeliver(&gid, &word(&author), Some(record)).await?;
    let after = json!({ "gid": seen.transaction.gid().as_str() });
    told(what, &gid, (&before, &after), &author);
    Ok(Json(document(&seen)))
}

/// Forgets what has ended, with a record of it under the name `what`.
pub(in crate::control) async fn forget(
    cluster: &Cluster,
    gid: &Gid,
    author: &Author,
    what: &'static str,
) -> Result<(), Refused> {
    let (_, coordinator) = of(cluster)?;
    let (before, record) =
        recorded(cluster, &coordinator, gid, author, (what, &Value::Null)).await?;
    coordinator.forget_ended(gid, record).await?;
    told(what, gid, (&before, &Value::Null), author);
    Ok(())
}

/// Does as an operator says, with a record of it.
pub(in crate::control) async fn operate(
    cluster: &Cluster,
    gid: &Gid,
    author: Author,
    (what, after): (&'static str, Value),
    verb: impl FnOnce(Word) -> Verb,
) -> Answered {
    let (_, coordinator) = of(cluster)?;
    let (before, record) = recorded(cluster, &coordinator, gid, &author, (what, &after)).await?;
    let seen = coordinator.operate(gid, verb(word(&author)), Some(record)).await?;
    told(what, gid, (&before, &after), &author);
    Ok(Json(document(&seen)))
}

/// How the transaction was, and the record of what is done to it.
pub(in crate::control) async fn recorded(
    cluster: &Cluster,
    coordinator: &Coordinator,
    gid: &Gid,
    author: &Author,
    (what, after): (&str, &Value),
) -> Result<(Value, Put), Refused> {
    cluster.outbox.admit(author)?;
    let was = coordinator.get(gid).await?.transaction;
    let shown = summary(&was);
    let before = json!({
        "state": shown.state,
        "decision": shown.decision,
        "stuck": shown.stuck,
        "paused": shown.paused,
    });
    let target = Target {
        kind: "transaction".to_owned(),
        id: gid.to_string(),
        revision_before: None,
        revision_after: None,
    };
    let action = what.replacen('.', ":", 1);
    let record = cluster.outbox.record(&action, target, author);
    let record = record.changed(before.clone(), after.clone());
    let revision = cluster.store.status().await?.revision;
    Ok((before, cluster.outbox.put(revision, &record)))
}

fn word(author: &Author) -> Word {
    let reason = author.reason.clone().unwrap_or_default();
    Word::Operator { name: author.actor.principal.clone(), reason }
}

/// Tells the log what was done to it.
pub(in crate::control) fn told(
    what: &'static str,
    gid: &Gid,
    (before, after): (&Value, &Value),
    author: &Author,
) {
    let (subject, reason) = (gid.as_str(), author.reason.as_deref());
    Changed { what, subject, before, after, reason }.emit();
}
