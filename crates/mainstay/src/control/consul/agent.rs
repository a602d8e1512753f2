//! Who is here: `agent/self`, `agent/members`, `status/…`, `catalog/datacenters`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answer::{Text, json};
use super::query::Asked;
use crate::cluster::{Cluster, ConsulDoor};

/// Reported only: nobody listens there.
const LEADER: &str = "127.0.0.1:8300";

/// `GET agent/self`
pub(super) async fn own(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    let config = &door.config;
    let document = Own {
        config: Config {
            datacenter: &config.datacenter,
            primary_datacenter: &config.datacenter,
            node_name: cluster.node.as_str(),
            node_id: "",
            revision: "",
            server: true,
            version: &config.version,
            build_date: "1970-01-01T00:00:00Z",
        },
        debug_config: Map::new(),
        coord: None,
        member: member(&cluster, door, false),
        meta: Map::new(),
        stats: json!({ "consul": { "leader": "true", "leader_addr": LEADER, "server": "true" } }),
        xds: None,
    };
    Ok(json(&asked, &document))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Own<'a> {
    config: Config<'a>,
    debug_config: Map<String, Value>,
    coord: Option<Value>,
    member: Member,
    meta: Map<String, Value>,
    stats: Value,
    #[serde(rename = "xDS")]
    xds: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config<'a> {
    datacenter: &'a str,
    primary_datacenter: &'a str,
    node_name: &'a str,
    #[serde(rename = "NodeID")]
    node_id: &'a str,
    revision: &'a str,
    server: bool,
    version: &'a str,
    build_date: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    addr: &'static str,
    port: u16,
    tags: Map<String, Value>,
    status: u8,
    protocol_min: u8,
    protocol_max: u8,
    protocol_cur: u8,
    delegate_min: u8,
    delegate_max: u8,
    delegate_cur: u8,
}

/// `GET agent/members`
pub(super) async fn members(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    Ok(json(&asked, &[member(&cluster, door, asked.has("wan"))]))
}

/// The numbers are those of Consul 1.22; nothing speaks its gossip here.
fn member(cluster: &Cluster, door: &ConsulDoor, is_wan: bool) -> Member {
    let node = cluster.node.as_str();
    let name = if is_wan { format!("{node}.{}", door.config.datacenter) } else { node.to_owned() };
    Member {
        name,
        addr: "127.0.0.1",
        port: 8301,
        tags: Map::new(),
        status: 1,
        protocol_min: 1,
        protocol_max: 3,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    }
}

/// `GET status/leader`
pub(super) async fn leader(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    asked.within(&cluster.consul()?.config.datacenter)?;
    Ok(json(&asked, &LEADER))
}

/// `GET status/peers`
pub(super) async fn peers(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    asked.within(&cluster.consul()?.config.datacenter)?;
    Ok(json(&asked, &[LEADER]))
}

/// `GET catalog/datacenters`
pub(super) async fn datacenters(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    Ok(json(&asked, &[&cluster.consul()?.config.datacenter]))
}
