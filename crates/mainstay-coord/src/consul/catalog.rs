//! What Consul's catalog shows: nodes, services, checks, made from records.
//!
//! Services are the instances of the native registry, whoever registered them. One that a client of
//! Consul registered belongs to the node it named; every other belongs to the process that looks
//! after it, and has one check, which says how the registry finds it.

use std::collections::BTreeMap;

use mainstay_store::{Entry, Revision};
use serde_json::{Map, Value};

use super::node::{NodeRecord, listed};
use super::{ConsulError, NODE_CHECK};
use crate::health::Health;
use crate::keys::{InstanceRef, RegistryKey, parse_registry};
use crate::registry::{Instance, OwnCheck, State};

/// The check of a service, or of a node, that is in maintenance.
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
const NODE_MAINTENANCE: &str = "_node_maintenance";

/// Nodes and services, in the order of their names and ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// Nodes by name: all that were read, and those that services belong to.
    pub nodes: BTreeMap<String, CatalogNode>,
    /// Services by node and id.
    pub services: Vec<CatalogService>,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogNode {
    /// What is recorded of it. Of a process without this door only its address is known.
    pub record: NodeRecord,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that changed it last, that it came or went included.
    pub modified: Revision,
    /// Its checks, by id.
    pub checks: Vec<CatalogCheck>,
}

/// A service on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogService {
    /// The node it belongs to.
    pub node: String,
    /// Its id, unique on its node.
    pub id: String,
    /// Where the registry has it.
    pub at: InstanceRef,
    /// What the registry knows of it.
    pub instance: Instance,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that changed it last.
    pub modified: Revision,
    /// Its own checks, by id.
    pub checks: Vec<CatalogCheck>,
}

/// A check of a node or a service.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogCheck {
    /// Its id, unique on its node.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// How it stands: passing, warning or critical.
    pub status: Health,
    /// What people should know of it.
    pub notes: String,
    /// What its last result said.
    pub output: String,
    /// `http`, `tcp`, `grpc`, `ttl`, or nothing.
    pub kind: String,
    /// What it does, as its client wrote it.
    pub definition: Map<String, Value>,
}

impl CatalogService {
    /// The service's name.
    pub fn name(&self) -> &str {
        self.at.service.name.as_str()
    }

    /// Its node, its id, and its instance, read from the instance's record; `None` for every other
    /// key.
    fn read(entry: &Entry) -> Option<Self> {
        let Some(RegistryKey::Instance(at)) = parse_registry(&entry.key) else { return None };
        let instance = Instance::read(&entry.value)?;
        let (created, modified) = (entry.create_revision, entry.mod_revision);
        Some(Self::of(at, instance, created, modified))
    }

    /// An instance, as the catalog shows it.
    pub fn of(at: InstanceRef, instance: Instance, created: Revision, modified: Revision) -> Self {
        let (node, id) = match &instance.consul {
            Some(consul) => (consul.node.clone(), consul.id.clone()),
            None => (instance.owner.clone(), at.id.as_str().to_owned()),
        };
        let checks = service_checks(&id, &instance);
        Self { node, id, at, instance, created, modified, checks }
    }
}

impl Catalog {
    /// The catalog `instances`, records of nodes and marks of living processes come to.
    ///
    /// # Errors
    ///
    /// [`ConsulError::Unreadable`] for a node's record. Instances that cannot be read are left out,
    /// as the registry does.
    pub(super) fn read(
        instances: &[Entry],
        records: &[Entry],
        living: &[Entry],
    ) -> Result<Self, ConsulError> {
        let mut alive: BTreeMap<String, &Entry> = BTreeMap::new();
        for entry in living {
            if let Some(RegistryKey::Node(name)) = parse_registry(&entry.key) {
                alive.insert(name.as_str().to_owned(), entry);
            }
        }
        let mut nodes = BTreeMap::new();
        for entry in records {
            let (name, record) = listed(entry)?;
            let modified = alive.get(&name).filter(|_| record.is_agent);
            let modified = modified.map_or(Revision::NEVER, |entry| entry.mod_revision);
            let checks = node_checks(&record, alive.contains_key(&name));
            let modified = entry.mod_revision.max(modified);
            let node = CatalogNode { record, created: entry.create_revision, modified, checks };
            nodes.insert(name, node);
        }
        for (name, entry) in &alive {
            nodes.entry(name.clone()).or_insert_with(|| process(entry));
        }
        let mut services: Vec<_> = instances.iter().filter_map(CatalogService::read).collect();
        services.sort_by(|a, b| (&a.node, &a.id, &a.at).cmp(&(&b.node, &b.id, &b.at)));
        for service in &services {
            nodes.entry(service.node.clone()).or_insert_with(|| unknown(service));
        }
        Ok(Self { nodes, services })
    }
}

/// A process without this door.
fn process(entry: &Entry) -> CatalogNode {
    let known: Option<Map<String, Value>> = serde_json::from_slice(&entry.value).ok();
    let address = known.and_then(|known| Some(known.get("address")?.as_str()?.to_owned()));
    let address = address.unwrap_or_default();
    let host = address.parse::<std::net::SocketAddr>().map(|at| at.ip().to_string());
    let mut record = NodeRecord::at(host.unwrap_or(address));
    record.is_agent = true;
    let checks = node_checks(&record, true);
    let (created, modified) = (entry.create_revision, entry.mod_revision);
    CatalogNode { record, created, modified, checks }
}

/// A node that nobody knows, but for a service that belongs to it: where the service is, it is.
fn unknown(service: &CatalogService) -> CatalogNode {
    let record = NodeRecord::at(service.instance.address.clone());
    let (created, modified) = (service.created, service.modified);
    CatalogNode { record, created, modified, checks: Vec::new() }
}

/// A status as Consul has it: what is not known is not passing.
fn status(health: Health) -> Health {
    if health == Health::Unknown { Health::Critical } else { health }
}

fn made(id: String, name: &str, health: Health) -> CatalogCheck {
    CatalogCheck {
        id,
        name: name.to_owned(),
        status: status(health),
        notes: String::new(),
        output: String::new(),
        kind: String::new(),
        definition: Map::new(),
    }
}

fn maintained(id: String, name: &str, reason: &str) -> CatalogCheck {
    let kind = "maintenance".to_owned();
    CatalogCheck { notes: reason.to_owned(), kind, ..made(id, name, Health::Critical) }
}

fn own(check: &OwnCheck, status: Option<&crate::registry::CheckStatus>) -> CatalogCheck {
    let health = status.map_or(Health::Critical, |status| status.health);
    CatalogCheck {
        notes: check.notes.clone(),
        output: status.map(|status| status.output.clone()).unwrap_or_default(),
        kind: check.kind().to_owned(),
        definition: check.definition.clone(),
        ..made(check.id.clone(), &check.title, health)
    }
}

fn node_checks(record: &NodeRecord, is_alive: bool) -> Vec<CatalogCheck> {
    let mut checks: Vec<_> =
        record.own_checks.iter().map(|check| own(check, record.checks.get(&check.id))).collect();
    if record.is_agent {
        let health = if is_alive { Health::Passing } else { Health::Critical };
        let says =
            if is_alive { "Agent alive and reachable" } else { "Agent not live or unreachable" };
        let mut check = made(NODE_CHECK.to_owned(), "Serf Health Status", health);
        says.clone_into(&mut check.output);
        checks.push(check);
    }
    if let Some(reason) = &record.maintenance {
        checks.push(maintained(NODE_MAINTENANCE.to_owned(), "Node Maintenance Mode", reason));
    }
    checks.sort_by(|a, b| a.id.cmp(&b.id));
    checks
}

fn service_checks(id: &str, instance: &Instance) -> Vec<CatalogCheck> {
    let known = |check: &OwnCheck| own(check, instance.checks.get(&check.id));
    let mut checks: Vec<_> = instance.own_checks.iter().map(known).collect();
    if let Some(reason) = &instance.maintenance {
        let id = format!("{SERVICE_MAINTENANCE}{id}");
        checks.push(maintained(id, "Service Maintenance Mode", reason));
    }
    if let Some(health) = native(instance) {
        let mut check = made(format!("mainstay:{id}"), "Mainstay health", health);
        check.output = instance.reason.clone().unwrap_or_default();
        checks.push(check);
    }
    checks.sort_by(|a, b| a.id.cmp(&b.id));
    checks
}

/// How the registry finds an instance, where no other check says so.
fn native(instance: &Instance) -> Option<Health> {
    let is_up = instance.state == State::Up;
    if instance.consul.is_none() {
        return Some(if is_up { instance.health } else { Health::Critical });
    }
    if !is_up && instance.maintenance.is_none() {
        return Some(Health::Critical);
    }
    let is_own = |name: &String| instance.own_checks.iter().any(|check| check.id == *name);
    let others = instance.checks.iter().filter(|(name, _)| !is_own(name));
    others.map(|(_, check)| check.health).reduce(Health::worse)
}
