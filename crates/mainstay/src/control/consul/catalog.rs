//! `catalog/…`: nodes and services, and registering what has no agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use mainstay_coord::InstanceRef;
use mainstay_coord::consul::{NodeRecord, Part};
use mainstay_coord::health::Health;
use mainstay_coord::registry::{Beside, NewCheck, OwnCheck, RegistryError};
use serde::Serialize;
use serde_json::Value;

use super::answer::{Text, json};
use super::body::{Fields, undecodable};
use super::documents::{AgentService, FlatService, NodeDocument, agent_service, flat, node};
use super::query::Asked;
use super::registration::{self, refused};
use super::scope::Scope;
use super::{Said, fields};
use crate::cluster::Cluster;
use crate::control::author::By;

/// `GET catalog/nodes`
pub(super) async fn nodes(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::NODE)?;
    let found = scope.browse(&Part::Nodes).await?;
    let nodes = found.catalog.nodes.iter().filter(|(_, node)| scope.has_meta(node));
    let list: Vec<NodeDocument> = nodes.map(|(name, at)| node(scope.door, name, at)).collect();
    scope.list(found.index, &filter, list)
}

/// `GET catalog/services`
pub(super) async fn services(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::NAMED)?;
    let found = scope.browse(&scope.all()).await?;
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    if !scope.is_elsewhere() {
        let consul = Named { service_name: "consul".to_owned(), service_tags: Vec::new() };
        if filter.holds(&consul)? {
            names.entry(consul.service_name).or_default();
        }
        for service in &found.catalog.services {
            let is_there = found.catalog.nodes.get(&service.node);
            let named = Named {
                service_name: service.name().to_owned(),
                service_tags: service.instance.tags.clone(),
            };
            if is_there.is_some_and(|node| scope.has_meta(node)) && filter.holds(&named)? {
                names.entry(named.service_name).or_default().extend(named.service_tags);
            }
        }
    }
    Ok(scope.one(found.index, &names))
}

/// What of a service is asked about before services become names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    service_name: String,
    service_tags: Vec<String>,
}

/// `GET catalog/service/:s`
pub(super) async fn service(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::FLAT)?;
    let found = scope.browse(&Part::Service(scope.service(&name)?)).await?;
    let catalog = &found.catalog;
    let mut list: Vec<FlatService> = Vec::new();
    for service in catalog.services.iter().filter(|service| scope.has_tags(service)) {
        let node = catalog.nodes.get(&service.node).filter(|node| scope.has_meta(node));
        list.extend(node.map(|node| flat(scope.door, node, service)));
    }
    scope.list(found.index, &filter, list)
}

/// `GET catalog/connect/:s`, `catalog/gateway-services/:g`, `health/connect/:s`,
/// `health/ingress/:s`: there is no mesh, so there is nobody in it.
pub(super) async fn nobody(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let found = scope.browse(&Part::Instances(scope.service(&name)?)).await?;
    scope.list::<()>(found.index, &scope.filter(&fields::FLAT)?, Vec::new())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct OnNode<S> {
    node: NodeDocument,
    services: S,
}

/// `GET catalog/node/:n`
pub(super) async fn on_node(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let map = |list: Vec<(String, AgentService)>| list.into_iter().collect::<BTreeMap<_, _>>();
    with_services(&cluster, &asked, &name, map).await
}

/// `GET catalog/node-services/:n`
pub(super) async fn services_on_node(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let bare = |list: Vec<(String, AgentService)>| -> Vec<AgentService> {
        list.into_iter().map(|(_, service)| service).collect()
    };
    with_services(&cluster, &asked, &name, bare).await
}

async fn with_services<S: Serialize>(
    cluster: &Cluster,
    asked: &Asked,
    name: &str,
    shape: impl Fn(Vec<(String, AgentService)>) -> S,
) -> Result<Response, Text> {
    let scope = Scope::new(cluster, asked)?;
    let filter = scope.filter(&fields::SERVICE)?;
    let found = scope.browse(&scope.all()).await?;
    let known = found.catalog.nodes.get(name).filter(|_| !scope.is_elsewhere());
    let Some(known) = known else { return Ok(scope.one(found.index, &Value::Null)) };
    let mut list = Vec::new();
    for service in found.catalog.services.iter().filter(|service| service.node == name) {
        let document = agent_service(scope.door, service);
        if filter.holds(&document)? {
            list.push((service.id.clone(), document));
        }
    }
    let document = OnNode { node: node(scope.door, name, known), services: shape(list) };
    Ok(scope.one(found.index, &document))
}

/// `PUT catalog/register`
pub(super) async fn register(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    body: Said,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let mut said = Fields::read(&body.0)?;
    let name = said.text("Node")?.unwrap_or_default();
    let address = said.text("Address")?.unwrap_or_default();
    let skips = said.flag("SkipNodeUpdate")?.unwrap_or(false);
    if name.is_empty() || (address.is_empty() && !skips) {
        return Err(Text::bad("Must provide node and address"));
    }
    let service = said.take("Service");
    let one = said.take("Check").into_iter();
    let many = match said.take("Checks") {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Text::bad(format!("Checks must be a list, found {other}"))),
    };
    let checks: Vec<Static> = one.chain(many).map(Static::read).collect::<Result<_, _>>()?;
    let id = service.as_ref().map(registration::id).transpose()?;
    let (of_node, of_services): (Vec<Static>, Vec<Static>) =
        checks.into_iter().partition(|check| check.service.is_empty());
    let known = scope.door.recipes.node(&name).await?;
    let new = (!skips || known.is_none()).then(|| node_record(&mut said, address)).transpose()?;
    let is_agent = known.as_ref().is_some_and(|known| known.is_agent);
    // The check that a process is there says so by itself.
    let is_its = |check: &NewCheck| is_agent && check.check.id == super::NODE_CHECK;
    let of_node = of_node.into_iter().map(|check| check.new).filter(|check| !is_its(check));
    let (own, others): (Vec<Static>, Vec<Static>) =
        of_services.into_iter().partition(|check| Some(&check.service) == id.as_ref());
    let mut batch = Together {
        scope: &scope,
        node: &name,
        new,
        of_node: of_node.collect(),
        others: of_others(&scope, &name, others)?,
        before: None,
    };
    // Refused in the door's own words, before anything is written.
    scope.door.recipes.plan_node(&name, batch.new.as_ref(), &batch.of_node).await?;
    let Some(service) = service else {
        let done = cluster.registry.write_planned(|| batch.plan()).await;
        done.map_err(|error| refused(&error))?;
        return Ok(json(&asked, &true));
    };
    let mut said = Fields::of(service)?;
    let called = said.text("Service")?.filter(|name| !name.is_empty());
    let called = called.ok_or_else(|| Text::bad("Must provide service name"))?;
    let reached = match &batch.new {
        Some(new) => new.address.clone(),
        None => registration::address_of(&scope, &name).await?,
    };
    let own = own.into_iter().map(|check| check.new).collect();
    let meant = registration::meant(&scope, (&name, &reached), called, said, (own, false))?;
    batch.before = meant.before;
    let registry = &cluster.registry;
    let done = registry.register_beside(&meant.at, &meant.registration, || batch.plan()).await;
    done.map_err(|error| refused(&error))?;
    Ok(json(&asked, &true))
}

/// Checks of services that are there already, by service.
fn of_others(
    scope: &Scope<'_>,
    node: &str,
    checks: Vec<Static>,
) -> Result<BTreeMap<InstanceRef, Vec<NewCheck>>, Text> {
    let mut all: BTreeMap<InstanceRef, Vec<NewCheck>> = BTreeMap::new();
    for check in checks {
        let at = registration::find(scope, node, &check.service)?;
        let at = at.ok_or_else(|| {
            Text::failed(format!("ServiceID '{}' does not exist on {node}", check.service))
        })?;
        all.entry(at).or_default().push(check.new);
    }
    Ok(all)
}

/// What a registration writes beside its service, all or nothing.
struct Together<'a> {
    scope: &'a Scope<'a>,
    node: &'a str,
    new: Option<NodeRecord>,
    of_node: Vec<NewCheck>,
    others: BTreeMap<InstanceRef, Vec<NewCheck>>,
    before: Option<InstanceRef>,
}

impl Together<'_> {
    async fn plan(&self) -> Result<Beside, RegistryError> {
        let (registry, recipes) = (&self.scope.cluster.registry, &self.scope.door.recipes);
        let mut all = recipes.plan_node(self.node, self.new.as_ref(), &self.of_node).await?;
        for (at, checks) in &self.others {
            all = all.and(registry.plan_checks(at, checks).await?);
        }
        if let Some(before) = &self.before {
            all = all.and(registry.plan_removal(before).await?);
        }
        Ok(all)
    }
}

pub(super) fn node_record(said: &mut Fields, address: String) -> Result<NodeRecord, Text> {
    let mut record = NodeRecord::at(address);
    record.id = said.text("ID")?.unwrap_or_default();
    record.tagged_addresses = said.pairs("TaggedAddresses")?;
    record.meta = said.pairs("NodeMeta")?;
    Ok(record)
}

/// A check of which whoever registered it says how it stands.
struct Static {
    service: String,
    new: NewCheck,
}

impl Static {
    fn read(value: Value) -> Result<Self, Text> {
        let mut said = Fields::of(value)?;
        let title = said.text("Name")?.unwrap_or_default();
        let id = said.text("CheckID")?.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| title.clone());
        if id.is_empty() {
            return Err(Text::bad("Must provide CheckID or Name of a check"));
        }
        let health = match said.text("Status")?.as_deref() {
            None | Some("") => Health::Critical,
            Some(text) => registration::status(text)?,
        };
        let definition = match said.take("Definition") {
            None => serde_json::Map::new(),
            Some(value) => serde_json::from_value(value).map_err(|error| undecodable(&error))?,
        };
        let notes = said.text("Notes")?.unwrap_or_default();
        let check = OwnCheck { id, title, notes, definition, ..OwnCheck::default() };
        let output = said.text("Output")?.unwrap_or_default();
        let service = said.text("ServiceID")?.unwrap_or_default();
        Ok(Self { service, new: NewCheck { check, health, output } })
    }
}

/// `PUT catalog/deregister`
pub(super) async fn deregister(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    By(author): By,
    body: Said,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let mut said = Fields::read(&body.0)?;
    let name = said.text("Node")?.unwrap_or_default();
    if name.is_empty() {
        return Err(Text::bad("Must provide node"));
    }
    let service = said.text("ServiceID")?.filter(|id| !id.is_empty());
    let check = said.text("CheckID")?.filter(|id| !id.is_empty());
    let recipes = &scope.door.recipes;
    if let Some(id) = service {
        if let Some(at) = registration::find(&scope, &name, &id)? {
            registration::gone(&scope, &at, Some(&author)).await?;
        }
        return Ok(json(&asked, &true));
    }
    let services = scope.look(&scope.all()).await?.catalog.services;
    let services = services.iter().filter(|service| service.node == name);
    if let Some(id) = check {
        if !recipes.drop_node_check(&name, &id).await? {
            for service in services.filter(|one| one.checks.iter().any(|check| check.id == id)) {
                let dropped = cluster.registry.drop_check(&service.at, &id).await;
                dropped.map_err(|error| refused(&error))?;
            }
        }
        return Ok(json(&asked, &true));
    }
    for service in services.filter(|service| service.instance.consul.is_some()) {
        registration::gone(&scope, &service.at, Some(&author)).await?;
    }
    // The process that answers here is there, whatever is said of it.
    if name != scope.node() {
        recipes.forget_node(&name).await?;
    }
    Ok(json(&asked, &true))
}
