//! `event/…`: a word to whoever listens to this process.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use mainstay_coord::consul::{Event, index_of};
use serde::Serialize;

use super::answer::{Text, indexed, json};
use super::query::Asked;
use super::scope::Scope;
use super::{Said, base64};
use crate::cluster::Cluster;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Largest payload, in bytes. Consul's is near: there an event is one packet of gossip.
const PAYLOAD_BYTES_MAX: usize = 512;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    payload: Option<String>,
    node_filter: &'a str,
    service_filter: &'a str,
    tag_filter: &'a str,
    version: u32,
    #[serde(rename = "LTime")]
    time: u64,
}

fn document(event: &Event) -> Document<'_> {
    let [node_filter, service_filter, tag_filter] = &event.filters;
    Document {
        id: &event.id,
        name: &event.name,
        payload: (!event.payload.is_empty()).then(|| base64(&event.payload)),
        node_filter,
        service_filter,
        tag_filter,
        version: 1,
        time: event.time,
    }
}

/// `PUT event/fire/:name`
pub(super) async fn fire(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    asked: Asked,
    body: Said,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    if NAME_BYTES_MAX < name.len() {
        return Err(Text::bad("Invalid event name: must be at most 128 bytes"));
    }
    let payload = body.at_most(PAYLOAD_BYTES_MAX)?;
    let filters = ["node", "service", "tag"];
    let filters = filters.map(|of| asked.get(of).unwrap_or_default());
    if filters.iter().any(|filter| NAME_BYTES_MAX < filter.len()) {
        return Err(Text::bad("Invalid filter: must be at most 128 bytes"));
    }
    let [_, service, tag] = filters;
    if !tag.is_empty() && service.is_empty() {
        return Err(Text::bad("Cannot provide tag filter without service filter"));
    }
    let event = scope.door.recipes.fire(name, payload, filters.map(str::to_owned));
    Ok(json(&asked, &document(&event)))
}

/// `GET event/list`
pub(super) async fn list(
    State(cluster): State<Arc<Cluster>>,
    asked: Asked,
) -> Result<Response, Text> {
    let scope = Scope::new(&cluster, &asked)?;
    let (after, wait) = asked.blocking()?;
    let name = asked.get("name").filter(|name| !name.is_empty());
    let events = scope.door.recipes.events(name, after.get(), wait).await;
    let list: Vec<Document<'_>> = events.iter().map(|event| document(event)).collect();
    Ok(indexed(scope.door, index_of(&events), json(&asked, &list)))
}
