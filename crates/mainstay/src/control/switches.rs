//! Switches over HTTP. What is the same for every object with a history stands in
//! [`objects`], how they are followed in [`watch`].

pub(super) mod watch;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::moment::Moment;
use mainstay_coord::switch::{SWITCHES, SwitchError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Document, Refused};
use super::objects::{self, Of, Put};
use super::revisions::{Back, How, tagged};
use crate::cluster::Cluster;
use crate::report::causes;
use crate::role::Shared;

/// The calls that need nothing but what is agreed.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    let one = |rest: &str| format!("/switches/{{namespace}}/{{name}}{rest}");
    objects::reads(&SWITCHES)
        .route("/switches/{namespace}/watch", get(watch::watch).put(reserved))
        .route(&one(""), get(show).put(set_content))
        .route(&one("/value"), put(set_value))
        .route(&one("/rollback"), post(roll_back))
}

/// The call that has to know who refers to a switch.
pub(super) fn removal() -> Router<Arc<Shared>> {
    Router::new().route("/switches/{namespace}/{name}", delete(remove))
}

/// A switch, by its path.
fn switch(of: Of) -> RuleRef {
    of.kind(RuleKind::SWITCH)
}

/// `GET …/{name}`
async fn show(State(cluster): State<Arc<Cluster>>, of: Of) -> Result<Response, Refused> {
    let object = cluster.rules.get(&switch(of)).await?;
    Ok(tagged(object.revision, json!(object)))
}

/// `PUT …/{name}`
async fn set_content(
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    how: How,
    Document(Put { content, reason }): Document<Put>,
) -> Answer {
    let terms = how.terms(reason)?;
    let written = cluster.switches.put(&switch(of), content, &terms).await?;
    Ok(Json(json!(written)))
}

/// `PUT /switches/{namespace}/watch`
async fn reserved() -> Refused {
    Refused::invalid("a switch cannot be called `watch`: that path is where switches are followed")
}

/// What a switch is turned to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SwitchTurn)]
pub(super) struct Turn {
    /// Its value.
    value: Value,
    /// Only so long; then it is its default.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Moment>,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    reason: Option<String>,
}

/// `PUT …/{name}/value`: all else stays as it is.
async fn set_value(
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    how: How,
    Document(Turn { value, until, reason }): Document<Turn>,
) -> Answer {
    let terms = how.terms(reason)?;
    let written = cluster.switches.set(&switch(of), &value, until, &terms).await?;
    Ok(Json(json!(written)))
}

/// `POST …/{name}/rollback`
async fn roll_back(
    State(cluster): State<Arc<Cluster>>,
    of: Of,
    how: How,
    Document(Back { to, reason }): Document<Back>,
) -> Answer {
    let terms = how.reasoned(reason)?;
    Ok(Json(json!(cluster.switches.rollback(&switch(of), to, &terms).await?)))
}

/// `DELETE …/{name}`
async fn remove(State(shared): State<Arc<Shared>>, of: Of, how: How) -> Answer {
    let terms = how.reasoned(None)?;
    let switch = switch(of);
    let Some(cluster) = &shared.cluster else { return Err(Refused::missing("switch", "here")) };
    let used = shared
        .gateway
        .running()
        .plane
        .uses_of_switch(switch.namespace.as_str(), switch.name.as_str());
    Ok(Json(json!(cluster.switches.remove(&switch, &used, &terms).await?)))
}

impl From<SwitchError> for Refused {
    fn from(error: SwitchError) -> Self {
        let code = error.code();
        match error {
            SwitchError::Rule(error) => error.into(),
            SwitchError::InUse { ref references, .. } => {
                Self::new(code, causes(&error)).with("references", json!(references))
            }
            SwitchError::Type { ref faults, .. } => {
                Self::new(code, causes(&error)).with("errors", json!(faults))
            }
        }
    }
}
