//! `agent/service…`: what is registered with this process, and how it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use mainstay_coord::InstanceRef;
use mainstay_coord::consul::{CatalogCheck, CatalogService};
use mainstay_coord::health::Health;
use mainstay_coord::registry::{Instance, NewCheck};
use mainstay_store::{Range, Revision};
use serde::Serialize;
use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

use super::answer::{Text, empty, json, with_status};
use super::body::Fields;
use super::documents::{AgentService, CheckDocument, agent_service, check};
use super::query::Asked;
use super::registration::{self, refused};
use super::scope::Scope;
use super::{Said, fields};
use crate::cluster::Cluster;
use crate::cluster::consul::Known;
use crate::control::author::By;

/// Ports of proxies that name none, as Consul gives them.
const PROXY_PORTS: std::ops::RangeInclusive<u16> = 21_000..=21_255;

/// How long one look at a service lasts whose change is waited for.
const WATCHED: Duration = Duration::from_mins(10);

pub(super) fn unknown(id: &str) -> Text {
    let line = format!(
        "Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name."
    );
    Text(StatusCode::NOT_FOUND, line)
}

/// `PUT agent/service/register`
pub(super) async fn register(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
    body: Said,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let mut said = Fields::read(&body.0)?;
    let name = said.text("Name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Text::bad("Missing service name"))?;
    let id = said.look("ID").and_then(Value::as_str).filter(|id| !id.is_empty());
    let id = id.unwrap_or(&name).to_owned();
    let checks = checks(&mut said, &id, &name)?;
    let sidecar = match said.look("Connect").cloned().map(Fields::of).transpose()? {
        Some(mut connect) => connect.take("SidecarService"),
        None => None,
    };
    if sidecar.is_some() {
        // Registered beside the service, not shown as a part of it.
        drop(said.take("Connect"));
    }
    let port = said.look("Port").cloned();
    let replaces = asked.has("replace-existing-checks");
    let node = scope.node();
    registration::put(&scope, node, name.clone(), said, (checks, replaces)).await?;
    if let Some(sidecar) = sidecar {
        let mut sidecar = Fields::of(sidecar)?;
        let own = format!("{name}-sidecar-proxy");
        sidecar.put("ID", format!("{id}-sidecar-proxy"));
        sidecar.put("Kind", "connect-proxy");
        if sidecar.look("Port").and_then(Value::as_u64).unwrap_or(0) == 0 {
            sidecar.put("Port", free_port(&scope, &format!("{id}-sidecar-proxy"))?);
        }
        let proxy = serde_json::json!({
            "DestinationServiceName": name,
            "DestinationServiceID": id,
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": port,
        });
        sidecar.put("Proxy", proxy);
        registration::put(&scope, node, own, sidecar, (Vec::new(), false)).await?;
    }
    Ok(empty(StatusCode::OK))
}

/// The checks of a service, each with an id of its own.
pub(super) fn checks(said: &mut Fields, id: &str, name: &str) -> Result<Vec<NewCheck>, Text> {
    let mut all: Vec<Value> = said.take("Check").into_iter().collect();
    match said.take("Checks") {
        None => {}
        Some(Value::Array(list)) => all.extend(list),
        Some(other) => return Err(Text::bad(format!("Checks must be a list, found {other}"))),
    }
    all.retain(|check| check.as_object().is_none_or(|check| !check.is_empty()));
    if mainstay_coord::health::check::CHECKS_MAX < all.len() {
        return Err(Text::bad("a service has at most 16 checks"));
    }
    let is_many = 1 < all.len();
    let title = format!("Service '{name}' check");
    let read = |(at, value): (usize, Value)| {
        let own =
            if is_many { format!("service:{id}:{}", at + 1) } else { format!("service:{id}") };
        registration::check(&mut Fields::of(value)?, &own, &title)
    };
    all.into_iter().enumerate().map(read).collect()
}

fn free_port(scope: &Scope<'_>, id: &str) -> Result<u16, Text> {
    let own = own(scope)?;
    if let Some(known) = own.iter().find(|service| service.id == id) {
        return Ok(known.instance.port);
    }
    let is_free = |port: &u16| own.iter().all(|service| service.instance.port != *port);
    let mut ports = PROXY_PORTS;
    ports.find(is_free).ok_or_else(|| Text::failed("no port is free for the proxy: name one"))
}

/// `PUT agent/service/deregister/:id`
pub(super) async fn deregister(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
    By(author): By,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let at = registration::find(&scope, scope.node(), &id)?.ok_or_else(|| unknown(&id))?;
    registration::gone(&scope, &at, Some(&author)).await?;
    let sidecar = format!("{id}-sidecar-proxy");
    if let Some(sidecar) = registration::find(&scope, scope.node(), &sidecar)? {
        registration::gone(&scope, &sidecar, Some(&author)).await?;
    }
    Ok(empty(StatusCode::OK))
}

/// Whether maintenance begins, and why.
pub(super) fn enables(asked: &Asked) -> Result<bool, Text> {
    match asked.get("enable") {
        None | Some("") => Err(Text::bad("Missing value for enable")),
        Some("true" | "1" | "t" | "T" | "True" | "TRUE") => Ok(true),
        Some("false" | "0" | "f" | "F" | "False" | "FALSE") => Ok(false),
        Some(other) => Err(Text::bad(format!("Invalid value for enable: {other:?}"))),
    }
}

pub(super) fn reason<'a>(asked: &'a Asked, default: &'a str) -> &'a str {
    asked.get("reason").filter(|reason| !reason.is_empty()).unwrap_or(default)
}

/// `PUT agent/service/maintenance/:id`
pub(super) async fn maintenance(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
    By(author): By,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let enables = enables(&asked)?;
    let at = registration::find(&scope, scope.node(), &id)?.ok_or_else(|| unknown(&id))?;
    let default = "Maintenance mode is enabled for this service, but no reason was provided. \
         This is a default message.";
    let registry = &cluster.registry;
    let done = if enables {
        registry.maintain(&at, reason(&asked, default), &author).await
    } else {
        registry.bring_up(&at, &author).await
    };
    done.map_err(|error| refused(&error))?;
    Ok(empty(StatusCode::OK))
}

/// The services registered with this process, by id, as its memory has them.
pub(super) fn own(scope: &Scope<'_>) -> Result<Vec<CatalogService>, Text> {
    let known = registration::known(scope)?;
    Ok(each(scope, &known).map(|(at, instance)| now(scope, at.clone(), instance)).collect())
}

/// The service registered with this process that has a check `id`.
pub(super) fn with_check(
    scope: &Scope<'_>,
    id: &str,
) -> Result<Option<(InstanceRef, Arc<Instance>)>, Text> {
    let known = registration::known(scope)?;
    let mut own = each(scope, &known);
    let found = own.find(|(_, instance)| instance.own_checks.iter().any(|check| check.id == id));
    Ok(found.map(|(at, instance)| (at.clone(), Arc::clone(instance))))
}

/// They lie together in the order of their ids.
fn each<'k>(
    scope: &Scope<'_>,
    known: &'k Known,
) -> impl Iterator<Item = (&'k InstanceRef, &'k Arc<Instance>)> {
    let (namespace, node) = (scope.namespace.clone(), scope.node().to_owned());
    let first = (namespace.clone(), node.clone(), String::new());
    let own =
        known.range(first..).take_while(move |((ns, on, _), _)| *ns == namespace && *on == node);
    own.map(|(_, (at, instance))| (at, instance))
}

/// A service with its checks as they stand at this moment.
fn now(scope: &Scope<'_>, at: InstanceRef, instance: &Instance) -> CatalogService {
    let never = Revision::NEVER;
    let mut service = CatalogService::of(at, instance.clone(), never, never);
    for check in service.checks.iter_mut().filter(|check| check.kind == "ttl") {
        if let Some(stands) = scope.cluster.registry.stands(&service.at, &check.id) {
            (check.status, check.output) = (stands.health, stands.output);
        }
    }
    service
}

/// `GET agent/services`
pub(super) async fn list(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let filter = scope.filter(&fields::SERVICE)?;
    let mut map = BTreeMap::new();
    for service in own(&scope)? {
        let document = agent_service(scope.door, &service);
        if filter.holds(&document)? {
            map.insert(service.id, document);
        }
    }
    Ok(json(&asked, &map))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Hashed {
    #[serde(flatten)]
    service: AgentService,
    content_hash: String,
}

/// `GET agent/service/:id`
pub(super) async fn one(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let (_, wait) = asked.blocking()?;
    let known = asked.get("hash").unwrap_or_default();
    let recipes = &scope.door.recipes;
    let find = || registration::find(&scope, scope.node(), &id)?.ok_or_else(|| unknown(&id));
    let hashed = |at: InstanceRef| {
        let found = cluster.registry.instance(&at).map_err(|error| refused(&error))?;
        let instance = found.ok_or_else(|| unknown(&id))?;
        let service = agent_service(scope.door, &now(&scope, at, &instance));
        let text = serde_json::to_vec(&service).unwrap_or_default();
        let content_hash = format!("{:016x}", xxh64(&text, 0));
        Ok::<_, Text>(Hashed { service, content_hash })
    };
    let work = async {
        loop {
            let at = find()?;
            let range = [Range::key(&at.key())];
            let read = recipes.find(&range).await?.read;
            cluster.registry.reached(&at.service, read).await.map_err(|error| refused(&error))?;
            let now = hashed(at)?;
            if known.is_empty() || known != now.content_hash {
                return Ok::<_, Text>(now);
            }
            recipes.changed(&range, read, WATCHED).await?;
        }
    };
    let document = match tokio::time::timeout(wait, work).await {
        Ok(document) => document?,
        Err(_elapsed) => hashed(find()?)?,
    };
    let mut response = json(&asked, &document);
    let hash = document.content_hash.parse().map_err(|_wrong| Text::bad("Invalid hash"))?;
    response.headers_mut().insert("x-consul-contenthash", hash);
    Ok(response)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceHealth {
    aggregated_status: &'static str,
    service: AgentService,
    checks: Vec<CheckDocument>,
}

/// A service with the checks of it and of its node, and the worst of them.
async fn aggregated(
    scope: &Scope<'_>,
    service: &CatalogService,
) -> Result<(StatusCode, ServiceHealth), Text> {
    let of_node = super::check::of_node(scope).await?;
    let name = scope.node();
    let document = |service, check| self::check(name, service, check, (0, 0));
    let checks = service.checks.iter().map(|check| document(Some(service), check));
    let checks = checks.chain(of_node.iter().map(|check| document(None, check))).collect();
    let all = || service.checks.iter().chain(&of_node);
    let worst = all().map(|check| check.status).reduce(Health::worse).unwrap_or(Health::Passing);
    let is_maintained = |check: &CatalogCheck| check.kind == "maintenance";
    let (status, word) = match worst {
        _ if all().any(is_maintained) => (StatusCode::SERVICE_UNAVAILABLE, "maintenance"),
        Health::Passing => (StatusCode::OK, "passing"),
        Health::Warning => (StatusCode::TOO_MANY_REQUESTS, "warning"),
        Health::Critical | Health::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "critical"),
    };
    let service = agent_service(scope.door, service);
    Ok((status, ServiceHealth { aggregated_status: word, service, checks }))
}

/// `GET agent/health/service/id/:id`
pub(super) async fn health_by_id(
    State(cluster): State<Arc<Cluster>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let own = own(&scope)?;
    let line = || Text(StatusCode::NOT_FOUND, format!("ServiceId {id} not found"));
    let service = own.iter().find(|service| service.id == id).ok_or_else(line)?;
    let (status, document) = aggregated(&scope, service).await?;
    if asked.get("format") == Some("text") {
        return Err(Text(status, document.aggregated_status.to_owned()));
    }
    Ok(with_status(&asked, status, &document))
}

/// `GET agent/health/service/name/:s`
pub(super) async fn health_by_name(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let own = own(&scope)?;
    let (mut worst, mut word, mut list) = (StatusCode::NOT_FOUND, "critical", Vec::new());
    for service in own.iter().filter(|service| service.name() == name) {
        let (status, document) = aggregated(&scope, service).await?;
        // 404 only where there is none; beyond that 200, 429, 503 rise with what is wrong.
        if worst == StatusCode::NOT_FOUND || worst < status {
            (worst, word) = (status, document.aggregated_status);
        }
        list.push(document);
    }
    if asked.get("format") == Some("text") {
        return Err(Text(worst, word.to_owned()));
    }
    Ok(with_status(&asked, worst, &list))
}
