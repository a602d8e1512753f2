//! Databases that take part in transactions, as this node sees them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use mainstay_api::transaction::{
    BarrierPurged, LogAccepted, Operate, PreparedBranch, PreparedBranches, PurgeBarrier, Resource,
    ResourceFault, Resources, SweepResource,
};
use mainstay_coord::audit::{Author, Target};
use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_txn::database::Listed;
use mainstay_txn::resource::{
    Failure, Fault, Host, Judged, LogStanding, NotAttested, NotPurged, PURGE_AGE_MIN, Purged,
    ResourceSettings, Sighting, barrier_grant,
};
use mainstay_txn::{Outcome, ResourceName};
use serde_json::{Value, json};

use super::of;
use super::show::text;
use crate::cluster::Cluster;
use crate::control::answer::{Document, Refused};
use crate::control::author::{By, needed};
use crate::control::events::{Changed, recorded};
use crate::transaction::databases::{Checked, Databases, Shown};

/// When it makes sense to ask a database again that does not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// The database that a path names.
#[derive(Clone, Debug)]
pub(super) struct Named(ResourceName);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection| Refused::invalid(rejection.body_text()))?;
        let named = ResourceName::new(&name);
        Ok(Self(named.map_err(|_illegal| Refused::missing("database", &name))?))
    }
}

/// `GET /transaction-resources`
pub(super) async fn list(State(cluster): State<Arc<Cluster>>) -> Result<Json<Resources>, Refused> {
    let (transactions, _) = of(&cluster)?;
    let items = transactions.databases().all().iter().map(document).collect();
    Ok(Json(Resources { items }))
}

/// `GET /transaction-resources/{name}`
pub(super) async fn show(
    State(cluster): State<Arc<Cluster>>,
    Named(name): Named,
) -> Result<Json<Resource>, Refused> {
    let (transactions, _) = of(&cluster)?;
    Ok(Json(document(&known(transactions.databases(), &name)?)))
}

/// `GET /transaction-resources/{name}/prepared`
pub(super) async fn prepared(
    State(cluster): State<Arc<Cluster>>,
    Named(name): Named,
) -> Result<Json<PreparedBranches>, Refused> {
    let (transactions, _) = of(&cluster)?;
    Ok(Json(swept(transactions.databases(), &name, true).await?))
}

/// `POST /transaction-resources/{name}/check`
pub(super) async fn check(
    State(cluster): State<Arc<Cluster>>,
    Named(name): Named,
) -> Result<Json<Resource>, Refused> {
    let (transactions, _) = of(&cluster)?;
    let databases = transactions.databases();
    known(databases, &name)?;
    match databases.check(&name).await {
        Some(Checked { found, .. }) => found_well(&name, found)?,
        None => return Err(unknown(&name)),
    }
    Ok(Json(document(&known(databases, &name)?)))
}

/// `POST /transaction-resources/{name}/sweep`
pub(super) async fn sweep(
    State(cluster): State<Arc<Cluster>>,
    Named(name): Named,
    by: By,
    Document(SweepResource { report_only, reason }): Document<SweepResource>,
) -> Result<Json<PreparedBranches>, Refused> {
    let (transactions, _) = of(&cluster)?;
    let databases = transactions.databases();
    known(databases, &name)?;
    if report_only {
        let found = swept(databases, &name, true).await;
        return found.map(Json).map_err(Refused::without_record);
    }
    let author = needed(by.because(reason)?)?;
    let work = swept(databases, &name, false);
    let found =
        Box::pin(recorded(&cluster, "transaction:sweep", target(&name), &author, work)).await?;
    let ended = found.items.iter().filter(|item| item.outcome.as_deref() == Some("done")).count();
    told("transaction.sweep", &name, &json!({ "ended": ended }), &author);
    Ok(Json(found))
}

/// `POST /transaction-resources/{name}/init`
pub(super) async fn init(
    State(cluster): State<Arc<Cluster>>,
    Named(name): Named,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Result<Json<Resource>, Refused> {
    let (transactions, _) = of(&cluster)?;
    let databases = transactions.databases();
    known(databases, &name)?;
    let author = needed(by.because(reason)?)?;
    let work = async {
        match databases.init(&name).await {
            Some(Ok(_checked)) => Ok(()),
            // Which tables were made is open.
            Some(Err(failure)) => Err(failed(&name, failure).with_effect(Effect::Unknown)),
            None => Err(unknown(&name)),
        }
    };
    Box::pin(recorded(&cluster, "transaction:resource-init", target(&name), &author, work)).await?;
    told("transaction.resource-init", &name, &json!({ "tables": "there" }), &author);
    Ok(Json(document(&known(databases, &name)?)))
}

/// `POST /transaction-resources/{name}/purge-barrier`
pub(super) async fn purge_barrier(
    State(cluster): State<Arc<Cluster>>,
    Named(name): Named,
    by: By,
    Document(PurgeBarrier { older_than_seconds, after, reason }): Document<PurgeBarrier>,
) -> Result<Json<BarrierPurged>, Refused> {
    let (transactions, _) = of(&cluster)?;
    let databases = transactions.databases();
    let Shown { settings, .. } = known(databases, &name)?;
    let age = Duration::from_secs(older_than_seconds);
    if age < PURGE_AGE_MIN {
        let least = PURGE_AGE_MIN.as_secs();
        return Err(Refused::invalid(format!(
            "older_than_seconds: must be at least {least}: a younger row may still stop a call that \
             is under way"
        )));
    }
    let author = needed(by.because(reason)?)?;
    let work = async {
        match databases.purge_barrier(&name, age, after.unwrap_or_default()).await {
            Some(purged) => purged.map_err(|error| not_purged(&settings, error)),
            None => Err(unknown(&name)),
        }
    };
    let action = "transaction:purge-barrier";
    let Purged { rows, deleted, kept, next } =
        Box::pin(recorded(&cluster, action, target(&name), &author, work)).await?;
    told("transaction.purge-barrier", &name, &json!({ "deleted": deleted }), &author);
    Ok(Json(BarrierPurged { resource: name.to_string(), rows, deleted, kept, next }))
}

/// Why nothing more was deleted, and what mends that.
fn not_purged(settings: &ResourceSettings, error: NotPurged) -> Refused {
    let ResourceSettings { name, address, .. } = settings;
    let cannot = |why: &str, fix: &str| {
        let detail = format!("database `{name}`: {why}");
        Refused::new(Code::ResourceCannotPurge, detail).with("fix", json!(fix))
    };
    match error {
        NotPurged::NotAttested(NotAttested::Database(failure)) => failed(name, failure),
        NotPurged::NotAttested(NotAttested::Log(error)) | NotPurged::Behind(error) => error.into(),
        NotPurged::Table(Failure::Denied(why)) => {
            cannot(&why, &barrier_grant(address.kind, &address.user))
        }
        NotPurged::Table(Failure::NoTable(why)) => cannot(
            &why,
            "name a database whose participants keep a barrier, or put its schema into the \
             `search_path` of the coordinator's role",
        ),
        // The connection may have been lost after rows were deleted.
        NotPurged::Table(failure) => failed(name, failure).with_effect(Effect::Unknown),
    }
}

/// `POST /transaction-log/accept`
pub(super) async fn accept_log(
    State(cluster): State<Arc<Cluster>>,
    by: By,
    Document(Operate { reason }): Document<Operate>,
) -> Result<Json<LogAccepted>, Refused> {
    let (transactions, coordinator) = of(&cluster)?;
    let author = needed(by.because(reason)?)?;
    let outbox = &cluster.outbox;
    outbox.admit(&author)?;
    let before = json!({ "sequence": coordinator.high().await? });
    let (kind, id) = ("transaction-log".to_owned(), coordinator.identity().log_id.clone());
    let target = Target { kind, id, revision_before: None, revision_after: None };
    let record = outbox.record("transaction:accept-log", target, &author);
    let record = record.changed(before.clone(), Value::Null);
    let revision = cluster.store.status().await?.revision;
    let put = outbox.put(revision, &record);
    let Some(accepted) = transactions.databases().accept_log(put).await else {
        let detail = "databases are not spoken to yet";
        return Err(Refused::new(Code::TransactionLogUnavailable, detail).retry_after(AGAIN));
    };
    let (sequence, silent) = accepted?;
    let (after, reason) = (json!({ "sequence": sequence }), author.reason.as_deref());
    let (what, subject) = ("transaction.accept-log", "transaction log");
    Changed { what, subject, before: &before, after: &after, reason }.emit();
    let unreachable = silent.iter().map(ToString::to_string).collect();
    Ok(Json(LogAccepted { sequence, unreachable }))
}

/// What records say was acted upon.
fn target(name: &ResourceName) -> Target {
    let (kind, id) = ("transaction-resource".to_owned(), name.to_string());
    Target { kind, id, ..Target::default() }
}

fn told(what: &'static str, name: &ResourceName, after: &Value, author: &Author) {
    let (subject, reason) = (name.as_str(), author.reason.as_deref());
    Changed { what, subject, before: &Value::Null, after, reason }.emit();
}

fn known(databases: &Databases, name: &ResourceName) -> Result<Shown, Refused> {
    databases.get(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &ResourceName) -> Refused {
    Refused::missing("database", name.as_str())
}

fn failed(name: &ResourceName, failure: Failure) -> Refused {
    let detail = format!("database `{name}`: {failure}");
    match failure {
        Failure::Denied(_) | Failure::NoTable(_) => {
            Refused::new(Code::ResourceCannotPrepare, detail)
        }
        Failure::Lost(_) | Failure::Busy(_) | Failure::Said(_) | Failure::NoSuchBranch(_) => {
            Refused::new(Code::ResourceUnreachable, detail).retry_after(AGAIN)
        }
    }
}

/// Whether nothing speaks against a database that says this of itself.
fn found_well(name: &ResourceName, found: Result<Vec<Fault>, Failure>) -> Result<(), Refused> {
    let faults = found.map_err(|failure| failed(name, failure))?;
    if faults.is_empty() {
        return Ok(());
    }
    let whats: Vec<&str> = faults.iter().map(|fault| fault.what.as_str()).collect();
    let detail = format!("database `{name}` cannot take part: {}", whats.join("; "));
    let faults: Vec<ResourceFault> = faults.iter().map(fault).collect();
    Err(Refused::new(Code::ResourceCannotPrepare, detail).with("faults", json!(faults)))
}

/// What a database holds prepared, and what is or would be made of it.
async fn swept(
    databases: &Databases,
    name: &ResourceName,
    report_only: bool,
) -> Result<PreparedBranches, Refused> {
    known(databases, name)?;
    let sightings = match databases.sweep(name, report_only).await {
        Some(sightings) => sightings.map_err(|failure| failed(name, failure))?,
        None => return Err(unknown(name)),
    };
    let items = sightings.iter().map(sighting).collect();
    Ok(PreparedBranches { resource: name.to_string(), items })
}

fn sighting(Sighting { prepared, seen_for, judged }: &Sighting) -> PreparedBranch {
    let (gid, branch) = match &prepared.listed {
        Listed::Ours(xid) => (Some(xid.gid.to_string()), Some(xid.branch.to_string())),
        Listed::Foreign => (None, None),
    };
    let (verdict, outcome) = match judged {
        Judged::Foreign => ("foreign", None),
        Judged::Elsewhere => ("elsewhere", None),
        Judged::Verdict(verdict, outcome) => (verdict.as_str(), outcome.as_ref().map(said)),
        Judged::Unknown(why) => ("unknown", Some(why.clone())),
    };
    PreparedBranch {
        xid: prepared.name.clone(),
        gid,
        branch,
        owner: prepared.owner.clone(),
        age_seconds: (seen_for.as_secs_f64() * 1_000.0).round() / 1_000.0,
        verdict: verdict.to_owned(),
        outcome,
    }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Ongoing => "still at it".to_owned(),
        Outcome::Refused(why)
        | Outcome::Unknown(why)
        | Outcome::Unsent { why, .. }
        | Outcome::Held(why)
        | Outcome::Denied(why)
        | Outcome::Contradicted(why) => why.clone(),
    }
}

fn fault(Fault { what, fix }: &Fault) -> ResourceFault {
    ResourceFault { what: what.clone(), fix: fix.clone() }
}

fn document(Shown { settings, checked, standing, log }: &Shown) -> Resource {
    let ResourceSettings { name, address, connections, .. } = settings;
    let (state, faults) = match checked.as_ref().map(|checked| &checked.found) {
        None => ("unknown", Vec::new()),
        Some(Ok(faults)) if faults.is_empty() => match log {
            Some(LogStanding::UpToDate) => ("ready", Vec::new()),
            Some(_) => ("log-behind", Vec::new()),
            None => ("unknown", Vec::new()),
        },
        Some(Ok(faults)) => ("cannot-prepare", faults.iter().map(fault).collect()),
        Some(Err(Failure::Denied(why))) => {
            let fix = "give the coordinator a user, a password and rights that the server takes";
            let denied = ResourceFault { what: why.clone(), fix: fix.to_owned() };
            ("cannot-prepare", vec![denied])
        }
        Some(Err(_)) => ("unreachable", Vec::new()),
    };
    let server = match &address.host {
        Host::Tcp { host, port } => format!("{host}:{port}"),
        Host::Socket(path) => path.display().to_string(),
    };
    let down = standing.as_ref().and_then(|standing| standing.down.as_ref());
    Resource {
        name: name.to_string(),
        kind: address.kind.as_str().to_owned(),
        place: format!("{server}/{}", address.database),
        user: address.user.clone(),
        state: state.to_owned(),
        faults,
        checked_at: checked.as_ref().map(|checked| text(checked.at)),
        down_since: down.map(|(since, _)| text(*since)),
        sessions_in_use: standing.as_ref().map_or(0, |standing| standing.in_use),
        sessions_max: *connections,
    }
}
