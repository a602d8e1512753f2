//! `health/…`: checks, and services with them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use mainstay_coord::consul::{Catalog, CatalogService, Part};
use mainstay_coord::health::Health;
use serde::Serialize;

use super::answer::Text;
use super::documents::{
    CheckDocument, ListedService, NodeDocument, checks_of_node, checks_of_service, listed_service,
    node,
};
use super::fields;
use super::query::Asked;
use super::scope::Scope;
use crate::cluster::Cluster;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    node: NodeDocument,
    service: ListedService,
    checks: Vec<CheckDocument>,
}

/// `GET health/service/:s`
pub(super) async fn service(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::HEALTH)?;
    let wants_passing = match asked.get("passing") {
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => false,
        Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => true,
        Some(_) => return Err(Text::bad("Invalid value for ?passing")),
    };
    let service = scope.service(&name)?;
    let found = scope.browse(&Part::Service(service.clone())).await?;
    // Rather those that fail than next to nobody.
    let is_protected = || {
        let view = cluster.registry.view(&service);
        view.is_ok_and(|view| view.protected.is_some())
    };
    let wants_passing = wants_passing && !(scope.door.config.protect && is_protected());
    let mut list = Vec::new();
    for service in found.catalog.services.iter().filter(|service| scope.has_tags(service)) {
        let Some(on) = found.catalog.nodes.get(&service.node) else { continue };
        let mut all = on.checks.iter().chain(&service.checks);
        let is_passing = all.all(|check| check.status == Health::Passing);
        if !scope.has_meta(on) || (wants_passing && !is_passing) {
            continue;
        }
        let mut checks = checks_of_node(&service.node, on);
        checks.extend(checks_of_service(service));
        list.push(Listed {
            node: node(scope.door, &service.node, on),
            service: listed_service(scope.door, service),
            checks,
        });
    }
    scope.list(found.index, &filter, list)
}

/// `GET health/checks/:s`
pub(super) async fn checks(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::CHECK)?;
    let part = Part::Service(scope.service(&name)?);
    let found = scope.browse(&part).await?;
    let on = |service: &&CatalogService| {
        found.catalog.nodes.get(&service.node).is_some_and(|node| scope.has_meta(node))
    };
    let services = found.catalog.services.iter().filter(on);
    let list: Vec<CheckDocument> = services.flat_map(checks_of_service).collect();
    scope.list(found.index, &filter, list)
}

/// `GET health/node/:n`
pub(super) async fn of_node(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::CHECK)?;
    let found = scope.browse(&scope.all()).await?;
    let list = all_checks(&found.catalog, |node| node == name);
    scope.list(found.index, &filter, list)
}

/// `GET health/state/:s`
pub(super) async fn in_state(
    State(cluster): State<Arc<Cluster>>,
    Path(state): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::CHECK)?;
    let found = scope.browse(&scope.all()).await?;
    let has_meta =
        |name: &str| found.catalog.nodes.get(name).is_some_and(|node| scope.has_meta(node));
    let mut list = all_checks(&found.catalog, has_meta);
    list.retain(|check| state == "any" || check.status == state);
    scope.list(found.index, &filter, list)
}

/// Checks of the nodes that are `wanted`, and of their services: by node, service and check.
fn all_checks(catalog: &Catalog, wanted: impl Fn(&str) -> bool) -> Vec<CheckDocument> {
    let mut list = Vec::new();
    // Both are in the order of nodes, and every service has its node.
    let mut services = catalog.services.iter().peekable();
    for (name, node) in &catalog.nodes {
        let is_wanted = wanted(name);
        if is_wanted {
            list.extend(checks_of_node(name, node));
        }
        while let Some(service) = services.next_if(|service| service.node == *name) {
            if is_wanted {
                list.extend(checks_of_service(service));
            }
        }
    }
    list
}
