//! Who is here, and how it does: `agent/self`, `agent/members`, `agent/metrics` and the like,
//! `status/…`, `catalog/datacenters`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use mainstay_coord::consul::{CatalogCheck, CatalogNode, NODE_CHECK, NodeRecord, Part};
use mainstay_coord::health::Health;
use rustix::process::{Signal, getpid, kill_process};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answer::{Text, empty, json};
use super::query::Asked;
use super::scope::Scope;
use crate::cluster::{Cluster, ConsulDoor};
use crate::control::answer::first_of;
use crate::control::events::Changed;
use crate::role::Shared;

/// Consul builds say when they were made.
const BUILD_DATE: &str = "1970-01-01T00:00:00Z";

/// Reported only: nobody listens there.
fn reported(door: &ConsulDoor) -> String {
    match door.address.parse::<std::net::IpAddr>() {
        Ok(address) => std::net::SocketAddr::new(address, 8_300).to_string(),
        Err(_no_address) => format!("{}:8300", door.address),
    }
}

/// `GET agent/self`
pub(super) async fn own(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    let config = &door.config;
    let record = door.recipes.node(cluster.node.as_str()).await?;
    let record = record.unwrap_or_else(|| NodeRecord::at(door.address.clone()));
    let leader = reported(door);
    let document = Own {
        config: Config {
            datacenter: &config.datacenter,
            primary_datacenter: &config.datacenter,
            node_name: cluster.node.as_str(),
            node_id: &record.id,
            revision: "",
            server: true,
            version: &config.version,
            build_date: BUILD_DATE,
        },
        debug_config: Map::new(),
        coord: None,
        member: member(cluster.node.as_str(), &record.address),
        meta: &record.meta,
        stats: json!({ "consul": { "leader": "true", "leader_addr": leader, "server": "true" } }),
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
    meta: &'a BTreeMap<String, String>,
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
    addr: String,
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
    let scope = Scope::new(&cluster, &asked)?;
    let nodes = scope.look(&Part::Nodes).await?.catalog.nodes;
    let is_wan = asked.has("wan") && !matches!(asked.get("wan"), Some("0" | "false"));
    let datacenter = &scope.door.config.datacenter;
    let named = |name: &str| if is_wan { format!("{name}.{datacenter}") } else { name.to_owned() };
    let is_there = |node: &CatalogNode| {
        node.record.is_agent && node.checks.iter().all(|check| !is_gone(check))
    };
    let there = nodes.iter().filter(|(_, node)| is_there(node));
    let list: Vec<Member> =
        there.map(|(name, node)| member(&named(name), &node.record.address)).collect();
    Ok(json(&asked, &list))
}

fn is_gone(check: &CatalogCheck) -> bool {
    check.id == NODE_CHECK && check.status == Health::Critical
}

/// The numbers are those of Consul 1.22; nothing speaks its gossip here.
fn member(name: &str, address: &str) -> Member {
    Member {
        name: name.to_owned(),
        addr: address.to_owned(),
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
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    Ok(json(&asked, &reported(door)))
}

/// `GET status/peers`
pub(super) async fn peers(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let door = cluster.consul()?;
    asked.within(&door.config.datacenter)?;
    Ok(json(&asked, &[reported(door)]))
}

/// `GET catalog/datacenters`
pub(super) async fn datacenters(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    Ok(json(&asked, &[&cluster.consul()?.config.datacenter]))
}

/// `GET agent/version`
pub(super) async fn version(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let version = &cluster.consul()?.config.version;
    let document = json!({
        "SHA": "",
        "BuildDate": BUILD_DATE,
        "HumanVersion": version,
        "FIPS": "",
    });
    Ok(json(&asked, &document))
}

/// `GET agent/host`: what this machine is; figures of its load are under `/metrics`.
pub(super) async fn host(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let document = json!({
        "Memory": {},
        "CPU": [],
        "Host": {
            "hostname": text(name.nodename()),
            "os": text(name.sysname()).to_lowercase(),
            "kernelVersion": text(name.release()),
            "kernelArch": text(name.machine()),
        },
        "Disk": {},
        "CollectionTime": cluster.unix_millis().saturating_mul(1_000_000),
        "Errors": null,
    });
    Ok(json(&asked, &document))
}

/// `PUT agent/leave`: whoever may write pairs may not end the process, unless that was configured.
pub(super) async fn leave(State(cluster): State<Arc<Cluster>>) -> Result<Text, Text> {
    if cluster.consul()?.config.allow_leave {
        // As its supervisor would: what is under way is finished.
        let told = kill_process(getpid(), Signal::TERM);
        return match told {
            Ok(()) => Ok(Text(StatusCode::OK, String::new())),
            Err(error) => Err(Text::failed(error.to_string())),
        };
    }
    let line = "Permission denied: this process is ended by its supervisor, not by this door";
    Err(Text(StatusCode::FORBIDDEN, line.to_owned()))
}

/// `GET agent/monitor`: logs are written to standard error, not here.
pub(super) async fn monitor(asked: Asked) -> Text {
    match asked.get("loglevel").unwrap_or("info").to_ascii_lowercase().as_str() {
        "trace" | "debug" | "info" | "warn" | "err" | "error" => {
            let line = "streams of logs are not part of Mainstay's door; see docs/consul.md";
            Text(StatusCode::NOT_IMPLEMENTED, line.to_owned())
        }
        level => Text::bad(format!("Unknown log level: {level}")),
    }
}

/// `PUT agent/reload`
pub(super) async fn reload(State(shared): State<Arc<Shared>>) -> Result<Response, Text> {
    let done = tokio::task::spawn_blocking(move || shared.reload()).await;
    let done = done.map_err(|_panicked| Text::failed("the reload ended in the middle"))?;
    let (after, answer) = match done {
        Ok(reloaded) => (json!(reloaded), Ok(empty(StatusCode::OK))),
        Err(errors) => {
            let line = first_of(&errors);
            (json!({ "refused": line }), Err(Text::failed(line)))
        }
    };
    let (subject, before) = ("settings", Value::Null);
    Changed { what: "settings.reload", subject, before: &before, after: &after, reason: None }
        .emit();
    answer
}

/// `GET agent/metrics`: what this process counts, as gauges. Its own names are kept.
pub(super) async fn metrics(
    State(shared): State<Arc<Shared>>,
    asked: Asked,
) -> Result<Response, Text> {
    let text = shared.metrics();
    let text = text.map_err(|_unwritable| Text::failed("the metrics cannot be written"))?;
    if asked.get("format") == Some("prometheus") {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return Ok(([(header::CONTENT_TYPE, kind)], text).into_response());
    }
    let at = shared.cluster.as_ref().map_or(0, |cluster| cluster.unix_millis() / 1_000);
    let document = json!({
        "Timestamp": crate::control::moment::unix_time(at * 1_000),
        "Gauges": text.lines().filter_map(gauge).collect::<Vec<_>>(),
        "Points": [],
        "Counters": [],
        "Samples": [],
    });
    Ok(json(&asked, &document))
}

/// One line of the exposition; `None` for comments and for what is no number.
fn gauge(line: &str) -> Option<Value> {
    let line = line.split(" # ").next().unwrap_or(line);
    let (named, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
    let (name, labels) = named.split_once('{').unwrap_or((named, ""));
    let labels = labels.trim_end_matches('}').split("\",");
    let label = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), Value::from(value.trim_matches('"'))))
    };
    let labels: Map<String, Value> = labels.filter_map(label).collect();
    Some(json!({ "Name": name, "Value": value, "Labels": labels }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_exposition_is_a_gauge() {
        for (line, want) in [
            ("a_total 7", Some(json!({ "Name": "a_total", "Value": 7.0, "Labels": {} }))),
            (
                r#"a{b="c, d",e="f"} 0.5"#,
                Some(json!({ "Name": "a", "Value": 0.5, "Labels": { "b": "c, d", "e": "f" } })),
            ),
            ("# TYPE a gauge", None),
            ("# EOF", None),
            ("a NaN", None),
        ] {
            assert_eq!(gauge(line), want, "{line}");
        }
    }
}
