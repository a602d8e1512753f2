//! Nodes, services and checks as Consul writes them, member for member.

use std::collections::BTreeMap;

use mainstay_coord::consul::{CatalogCheck, CatalogNode, CatalogService};
use mainstay_coord::registry::{ConsulService, TaggedAddress};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cluster::ConsulDoor;

/// A node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NodeDocument {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    tagged_addresses: BTreeMap<String, String>,
    meta: BTreeMap<String, String>,
    create_index: u64,
    modify_index: u64,
}

pub(super) fn node(door: &ConsulDoor, name: &str, node: &CatalogNode) -> NodeDocument {
    let record = &node.record;
    NodeDocument {
        id: record.id.clone(),
        node: name.to_owned(),
        address: record.address.clone(),
        datacenter: door.config.datacenter.clone(),
        tagged_addresses: tagged(node),
        meta: record.meta.clone(),
        create_index: node.created.get(),
        modify_index: node.modified.get(),
    }
}

/// A process is reached at one address from everywhere.
fn tagged(node: &CatalogNode) -> BTreeMap<String, String> {
    let record = &node.record;
    if !record.is_agent || !record.tagged_addresses.is_empty() {
        return record.tagged_addresses.clone();
    }
    ["lan", "wan"].map(|name| (name.to_owned(), record.address.clone())).into()
}

/// A service as its agent shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AgentService {
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    service: String,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    port: u16,
    address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: BTreeMap<String, TaggedDocument>,
    weights: Weights,
    enable_tag_override: bool,
    datacenter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u16,
    warning: u16,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaggedDocument {
    address: String,
    port: u16,
}

/// What Consul's clients said of a service; of every other, what the registry's record comes to.
fn said(service: &CatalogService) -> ConsulService {
    let instance = &service.instance;
    let known = instance.consul.as_deref().cloned();
    known.unwrap_or_else(|| ConsulService {
        address: instance.address.clone(),
        weight_warning: instance.weight,
        ..ConsulService::default()
    })
}

fn tagged_service(of: &BTreeMap<String, TaggedAddress>) -> BTreeMap<String, TaggedDocument> {
    let document =
        |at: &TaggedAddress| TaggedDocument { address: at.address.clone(), port: at.port };
    of.iter().map(|(name, at)| (name.clone(), document(at))).collect()
}

pub(super) fn agent_service(door: &ConsulDoor, service: &CatalogService) -> AgentService {
    let (said, instance) = (said(service), &service.instance);
    AgentService {
        tagged_addresses: tagged_service(&said.tagged_addresses),
        kind: said.kind,
        id: service.id.clone(),
        service: service.name().to_owned(),
        tags: instance.tags.clone(),
        meta: instance.metadata.clone(),
        port: instance.port,
        address: said.address,
        weights: Weights { passing: instance.weight, warning: said.weight_warning },
        enable_tag_override: said.enable_tag_override,
        datacenter: door.config.datacenter.clone(),
        proxy: said.proxy,
        connect: said.connect,
    }
}

/// A service as the catalog and lists of health show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedService {
    #[serde(flatten)]
    of: AgentService,
    create_index: u64,
    modify_index: u64,
}

pub(super) fn listed_service(door: &ConsulDoor, service: &CatalogService) -> ListedService {
    let mut of = agent_service(door, service);
    of.proxy.get_or_insert_with(proxy);
    of.connect.get_or_insert_with(|| json!({}));
    let (create_index, modify_index) = (service.created.get(), service.modified.get());
    ListedService { of, create_index, modify_index }
}

/// That of a service that is none.
fn proxy() -> Value {
    json!({ "Mode": "", "MeshGateway": {}, "Expose": {} })
}

/// A service and its node in one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FlatService {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    tagged_addresses: BTreeMap<String, String>,
    node_meta: BTreeMap<String, String>,
    service_kind: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    service_name: String,
    service_tags: Vec<String>,
    service_address: String,
    service_port: u16,
    service_meta: BTreeMap<String, String>,
    service_weights: Weights,
    service_tagged_addresses: BTreeMap<String, TaggedDocument>,
    service_enable_tag_override: bool,
    service_proxy: Value,
    service_connect: Value,
    create_index: u64,
    modify_index: u64,
}

pub(super) fn flat(door: &ConsulDoor, node: &CatalogNode, service: &CatalogService) -> FlatService {
    let (said, instance) = (said(service), &service.instance);
    FlatService {
        id: node.record.id.clone(),
        node: service.node.clone(),
        address: node.record.address.clone(),
        datacenter: door.config.datacenter.clone(),
        tagged_addresses: tagged(node),
        node_meta: node.record.meta.clone(),
        service_tagged_addresses: tagged_service(&said.tagged_addresses),
        service_kind: said.kind,
        service_id: service.id.clone(),
        service_name: service.name().to_owned(),
        service_tags: instance.tags.clone(),
        service_address: said.address,
        service_port: instance.port,
        service_meta: instance.metadata.clone(),
        service_weights: Weights { passing: instance.weight, warning: said.weight_warning },
        service_enable_tag_override: said.enable_tag_override,
        service_proxy: said.proxy.unwrap_or_else(proxy),
        service_connect: said.connect.unwrap_or_else(|| json!({})),
        create_index: service.created.get(),
        modify_index: service.modified.get(),
    }
}

/// A check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckDocument {
    node: String,
    #[serde(rename = "CheckID")]
    pub(super) check_id: String,
    name: String,
    pub(super) status: &'static str,
    notes: String,
    output: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    service_name: String,
    service_tags: Vec<String>,
    r#type: String,
    definition: Map<String, Value>,
    create_index: u64,
    modify_index: u64,
}

/// A check of `node`, or of one of its services.
pub(super) fn check(
    node: &str,
    service: Option<&CatalogService>,
    check: &CatalogCheck,
    (created, modified): (u64, u64),
) -> CheckDocument {
    CheckDocument {
        node: node.to_owned(),
        check_id: check.id.clone(),
        name: check.name.clone(),
        status: check.status.as_str(),
        notes: check.notes.clone(),
        output: check.output.clone(),
        service_id: service.map(|service| service.id.clone()).unwrap_or_default(),
        service_name: service.map(|service| service.name().to_owned()).unwrap_or_default(),
        service_tags: service.map(|service| service.instance.tags.clone()).unwrap_or_default(),
        r#type: check.kind.clone(),
        definition: check.definition.clone(),
        create_index: created,
        modify_index: modified,
    }
}

/// Checks of a node alone.
pub(super) fn checks_of_node(name: &str, node: &CatalogNode) -> Vec<CheckDocument> {
    let at = (node.created.get(), node.modified.get());
    node.checks.iter().map(|one| check(name, None, one, at)).collect()
}

/// Checks of a service alone.
pub(super) fn checks_of_service(service: &CatalogService) -> Vec<CheckDocument> {
    let at = (service.created.get(), service.modified.get());
    service.checks.iter().map(|one| check(&service.node, Some(service), one, at)).collect()
}
