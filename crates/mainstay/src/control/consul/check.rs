//! `agent/check…`: checks of this process and of what is registered with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use mainstay_coord::consul::{CatalogCheck, Part};
use mainstay_coord::health::Health;
use mainstay_coord::registry::Stands;

use super::answer::{Text, empty, json};
use super::body::Fields;
use super::documents::check;
use super::query::Asked;
use super::registration::{self, refused};
use super::scope::Scope;
use super::service::{enables, own, reason, with_check};
use super::{NODE_CHECK, Said, fields};
use crate::cluster::Cluster;

fn unknown(id: &str) -> Text {
    let line =
        format!("Unknown check ID {id:?}. Ensure that the check ID is passed, not the check name.");
    Text(StatusCode::NOT_FOUND, line)
}

/// The checks of this node that clients registered, and its maintenance, as they stand now.
pub(super) async fn of_node(scope: &Scope<'_>) -> Result<Vec<CatalogCheck>, Text> {
    let mut found = scope.look(&Part::Nodes).await?.catalog;
    let mut checks = found.nodes.remove(scope.node()).map(|node| node.checks).unwrap_or_default();
    checks.retain(|check| check.id != NODE_CHECK);
    for check in checks.iter_mut().filter(|check| check.kind == "ttl") {
        if let Some(stands) = scope.door.recipes.stands(&check.id) {
            (check.status, check.output) = (stands.health, stands.output);
        }
    }
    Ok(checks)
}

/// `GET agent/checks`
pub(super) async fn list(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::CHECK)?;
    let name = scope.node();
    let mut all: Vec<_> =
        of_node(&scope).await?.iter().map(|one| check(name, None, one, (0, 0))).collect();
    for service in own(&scope)? {
        all.extend(service.checks.iter().map(|one| check(name, Some(&service), one, (0, 0))));
    }
    let kept = filter.keep(all)?;
    let map: BTreeMap<String, _> =
        kept.into_iter().map(|check| (check.check_id.clone(), check)).collect();
    Ok(json(&asked, &map))
}

/// `PUT agent/check/register`
pub(super) async fn register(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    body: Said,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let mut said = Fields::read(&body.0)?;
    if said.look("Name").and_then(|name| name.as_str()).is_none_or(str::is_empty) {
        return Err(Text::bad("Missing check name"));
    }
    let service = said.text("ServiceID")?.filter(|id| !id.is_empty());
    let new = registration::check(&mut said, "", "")?;
    let node = scope.node();
    let Some(service) = service else {
        if new.check.id == NODE_CHECK {
            return Err(Text::bad(format!("check {NODE_CHECK:?} is made by this process")));
        }
        scope.door.recipes.put_node_check(node, &new).await?;
        return Ok(empty(StatusCode::OK));
    };
    let missing = || Text(StatusCode::NOT_FOUND, format!("ServiceID {service:?} does not exist"));
    let at = registration::find(&scope, node, &service)?.ok_or_else(missing)?;
    cluster.registry.put_check(&at, &new).await.map_err(|error| refused(&error))?;
    Ok(empty(StatusCode::OK))
}

/// `PUT agent/check/deregister/:c`
pub(super) async fn deregister(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    if scope.door.recipes.drop_node_check(scope.node(), &id).await? {
        return Ok(empty(StatusCode::OK));
    }
    let (at, _) = with_check(&scope, &id)?.ok_or_else(|| unknown(&id))?;
    cluster.registry.drop_check(&at, &id).await.map_err(|error| refused(&error))?;
    Ok(empty(StatusCode::OK))
}

/// `PUT agent/check/pass/:c`
pub(super) async fn pass(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    noted(&cluster, &asked, &id, Health::Passing).await
}

/// `PUT agent/check/warn/:c`
pub(super) async fn warn(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    noted(&cluster, &asked, &id, Health::Warning).await
}

/// `PUT agent/check/fail/:c`
pub(super) async fn fail(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    noted(&cluster, &asked, &id, Health::Critical).await
}

async fn noted(
    cluster: &Cluster,
    asked: &Asked,
    id: &str,
    health: Health,
) -> Result<Response, Text> {
    let output = asked.get("note").unwrap_or_default().to_owned();
    told(cluster, asked, id, Stands { health, output }).await
}

/// `PUT agent/check/update/:c`
pub(super) async fn update(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
    body: Said,
) -> Result<Response, Text> {
    let mut said = Fields::read(&body.0)?;
    let health = registration::status(&said.text("Status")?.unwrap_or_default())?;
    let output = said.text("Output")?.unwrap_or_default();
    told(&cluster, &asked, &id, Stands { health, output }).await
}

/// Longest output of a report, in bytes; the rest is cut.
const OUTPUT_BYTES_MAX: usize = 4_096;

async fn told(
    cluster: &Cluster,
    asked: &Asked,
    id: &str,
    mut said: Stands,
) -> Result<Response, Text> {
    let scope = Scope::new(cluster, asked)?;
    said.output.truncate(said.output.floor_char_boundary(OUTPUT_BYTES_MAX));
    let no_ttl = || Text::failed(format!("CheckID {id:?} does not have associated TTL"));
    if let Some((at, instance)) = with_check(&scope, id)? {
        if instance.own_checks.iter().any(|check| check.id == id && check.kind() != "ttl") {
            return Err(no_ttl());
        }
        let reported = cluster.registry.report(&at, id, said.health, &said.output).await;
        reported.map_err(|error| refused(&error))?;
        return Ok(empty(StatusCode::OK));
    }
    let known = of_node(&scope).await?;
    let known = known.iter().find(|check| check.id == id).ok_or_else(|| unknown(id))?;
    if known.kind != "ttl" {
        return Err(no_ttl());
    }
    scope.door.recipes.report(id, said).await?;
    Ok(empty(StatusCode::OK))
}

/// `PUT agent/maintenance`
pub(super) async fn maintenance(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let default = "Maintenance mode is enabled for this node, but no reason was provided. \
         This is a default message.";
    let reason = enables(&asked)?.then(|| reason(&asked, default));
    scope.door.recipes.maintain_node(reason).await?;
    Ok(empty(StatusCode::OK))
}
