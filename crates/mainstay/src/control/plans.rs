//! Plans over HTTP: many switches at once, there and back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::plan::{PLANS, PlanError};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, Document, Refused};
use super::objects::{self, Of, Put};
use super::revisions::{Back, How, tagged};
use crate::cluster::Cluster;
use crate::report::causes;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    let one = |rest: &str| format!("/plans/{{namespace}}/{{name}}{rest}");
    objects::reads(&PLANS)
        .route(&one(""), get(show).put(set).delete(remove))
        .route(&one("/rollback"), post(roll_back))
        .route(&one("/activate"), post(activate))
        .route(&one("/deactivate"), post(deactivate))
        .route(&one("/rehearse"), post(rehearse))
}

fn plan(of: Of) -> RuleRef {
    of.kind(RuleKind::PLAN)
}

/// `GET …/{name}`: the plan, and whether it is active.
async fn show(State(cluster): State<Arc<Cluster>>, of: Of) -> Result<Response, Refused> {
    let plan = plan(of);
    let (object, status) = (cluster.rules.get(&plan).await?, cluster.plans.status(&plan).await?);
    let mut document = json!(object);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("active".to_owned(), json!(status.state.active));
        fields.insert("last".to_owned(), json!(status.state.last));
    }
    Ok(tagged(object.revision, document))
}

/// `PUT …/{name}`
async fn set(
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    how: How,
    Document(Put { content, reason }): Document<Put>,
) -> Answer {
    let terms = how.terms(reason)?;
    Ok(Json(json!(cluster.plans.put(&plan(of), content, &terms).await?)))
}

/// `DELETE …/{name}`
async fn remove(State(cluster): State<Arc<Cluster>>, of: Of, how: How) -> Answer {
    let terms = how.reasoned(None)?;
    Ok(Json(json!(cluster.plans.remove(&plan(of), &terms).await?)))
}

/// `POST …/{name}/rollback`
async fn roll_back(
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    how: How,
    Document(Back { to, reason }): Document<Back>,
) -> Answer {
    let terms = how.reasoned(reason)?;
    Ok(Json(json!(cluster.rules.rollback(&PLANS, &plan(of), to, &terms).await?)))
}

/// Why a plan is turned; and whether switches that somebody changed go back as well.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PlanTurn)]
pub(super) struct Turn {
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    reason: Option<String>,
    /// Of a deactivation: give back switches that somebody changed meanwhile, too.
    force: bool,
}

/// `POST …/{name}/activate`
async fn activate(
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    how: How,
    Document(turn): Document<Turn>,
) -> Answer {
    if turn.force {
        return Err(Refused::invalid("`force` is for deactivating"));
    }
    let terms = how.reasoned(turn.reason)?;
    Ok(Json(json!(cluster.plans.activate(&plan(of), &terms).await?)))
}

/// `POST …/{name}/deactivate`
async fn deactivate(
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    how: How,
    Document(turn): Document<Turn>,
) -> Answer {
    let terms = how.reasoned(turn.reason)?;
    Ok(Json(json!(cluster.plans.deactivate(&plan(of), turn.force, &terms).await?)))
}

/// `POST …/{name}/rehearse`: shows what activating would do.
async fn rehearse(State(cluster): State<Arc<Cluster>>, of: Of, how: How) -> Answer {
    let terms = how.terms(None)?;
    Ok(Json(json!(cluster.plans.rehearse(&plan(of), &terms).await?)))
}

impl From<PlanError> for Refused {
    fn from(error: PlanError) -> Self {
        let code = error.code();
        match error {
            PlanError::Rule(error) => error.into(),
            PlanError::Conflict { ref other, ref switches, .. } => Self::new(code, causes(&error))
                .with("other", json!(other.to_string()))
                .with("switches", json!(switches)),
            PlanError::Type { ref faults, .. } => {
                Self::new(code, causes(&error)).with("errors", json!(faults))
            }
            PlanError::Active { .. } | PlanError::Inactive { .. } => {
                Self::new(code, causes(&error))
            }
        }
    }
}
