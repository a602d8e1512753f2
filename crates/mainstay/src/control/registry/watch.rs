//! Following services: one stream for many, or a long poll of one.
//!
//! `view` sends the whole list of a service when it has changed; what changes within a few
//! milliseconds is sent once. `events` sends every change of every revision, nothing merged.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use mainstay_api::stream as names;
use mainstay_coord::ServiceRef;
use mainstay_coord::registry::{Change, Changes, Filter, View};
use mainstay_store::Revision;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{document, service};
use crate::cluster::Cluster;
use crate::control::answer::{Asked, Refused};
use crate::control::sse;

/// Services of one stream. A service costs a few hundred bytes there.
const SERVICES_MAX: usize = 1_000;

/// Longest wait of a long poll.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// What is followed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Followed {
    /// `namespace/service`, joined by commas.
    services: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    healthy: bool,
    /// A long poll: the revision the caller has.
    index: Option<u64>,
    /// How long it waits, in seconds. Default 300.
    wait: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    View,
    Events,
}

/// `GET /registry/watch`
pub(super) async fn watch(
    State(cluster): State<Arc<Cluster>>,
    headers: HeaderMap,
    Asked(followed): Asked<Followed>,
) -> Result<Response, Refused> {
    let services = services(&followed.services)?;
    if let Some(index) = followed.index {
        return poll(&cluster, &services, &followed, Revision::new(index)).await;
    }
    // The services of a stream come in any order, so one id says how far a single one is.
    let last = sse::last_event_id(&headers).filter(|_| services.len() == 1);
    match followed.mode {
        Mode::View => {
            let filter = Filter { healthy: followed.healthy, ..Filter::default() };
            let views = services.iter().map(|service| cluster.registry.watch(service));
            let views: Result<Vec<_>, _> = views.collect();
            let streams = views?.into_iter().map(|views| {
                let (cluster, filter) = (Arc::clone(&cluster), filter.clone());
                states(cluster, views, filter, last).boxed()
            });
            Ok(sse::answer(stream::select_all(streams)))
        }
        Mode::Events => {
            let mut streams = Vec::new();
            for service in services {
                streams.push(events(&cluster, &service, last)?.boxed());
            }
            Ok(sse::answer(stream::select_all(streams)))
        }
    }
}

fn services(text: &str) -> Result<Vec<ServiceRef>, Refused> {
    let names = text.split(',').filter(|name| !name.is_empty());
    let read = names.map(|name| match name.split_once('/') {
        Some((namespace, name)) => service((namespace.to_owned(), name.to_owned())),
        None => service(("default".to_owned(), name.to_owned())),
    });
    let services: Vec<ServiceRef> = read.collect::<Result<_, _>>()?;
    if services.is_empty() || SERVICES_MAX < services.len() {
        let detail = format!("`services` must name 1 to {SERVICES_MAX}, as `namespace/service,…`");
        return Err(Refused::invalid(detail));
    }
    Ok(services)
}

async fn poll(
    cluster: &Cluster,
    services: &[ServiceRef],
    followed: &Followed,
    index: Revision,
) -> Result<Response, Refused> {
    let [service] = services else {
        return Err(Refused::invalid("a long poll (`index`) follows one service"));
    };
    let wait = Duration::try_from_secs_f64(followed.wait.unwrap_or(300.0))
        .ok()
        .filter(|wait| *wait <= WAIT_MAX)
        .ok_or_else(|| Refused::invalid("`wait` must be 0 to 600 seconds"))?;
    let view = cluster.registry.view_after(service, index, wait).await?;
    let filter = Filter { healthy: followed.healthy, ..Filter::default() };
    Ok(Json(document::view(&view, &filter, cluster.unix_millis())).into_response())
}

/// The states of a service from now on. One the client has seen is not sent again.
fn states(
    cluster: Arc<Cluster>,
    views: watch::Receiver<Arc<View>>,
    filter: Filter,
    last: Option<Revision>,
) -> impl Stream<Item = Event> + Send {
    let first = (views, true);
    stream::unfold(first, move |(mut views, is_first)| {
        let (cluster, filter) = (Arc::clone(&cluster), filter.clone());
        async move {
            let mut is_first = is_first;
            loop {
                if !is_first && views.changed().await.is_err() {
                    return None;
                }
                let view = Arc::clone(&views.borrow_and_update());
                let is_known = is_first && last.is_some_and(|last| view.revision <= last);
                if is_known {
                    is_first = false;
                    continue;
                }
                let document = document::view(&view, &filter, cluster.unix_millis());
                let is_whole = is_first || view.resync;
                let name = if is_whole { names::SNAPSHOT } else { names::CHANGE };
                let state = sse::event(name, Some(view.revision), &document);
                let lost = view.resync.then(resync);
                let told = stream::iter(lost.into_iter().chain([state]));
                return Some((told, (views, false)));
            }
        }
    })
    .flatten()
}

/// Every change of a service after the last one the client has seen; without one, the list and
/// then every change.
fn events(
    cluster: &Arc<Cluster>,
    service: &ServiceRef,
    last: Option<Revision>,
) -> Result<impl Stream<Item = Event> + Send + use<>, Refused> {
    let (first, after) = match last {
        Some(last) => (None, last),
        None => {
            let revision = cluster.registry.revision();
            let view = cluster.registry.view(service)?;
            let document = document::view(&view, &Filter::default(), cluster.unix_millis());
            (Some(sse::event(names::SNAPSHOT, Some(revision), &document)), revision)
        }
    };
    let changes = cluster.registry.changes(service, after)?;
    let of = service.clone();
    let later = stream::unfold(Some(changes), move |changes| {
        let of = of.clone();
        async move {
            let mut changes: Changes = changes?;
            match changes.next().await {
                Ok((revision, all)) => {
                    let told: Vec<Event> =
                        all.iter().flat_map(|change| changed(&of, revision, change)).collect();
                    Some((stream::iter(told), Some(changes)))
                }
                Err(error) => {
                    let why = sse::problem(error.code(), &error);
                    Some((stream::iter(vec![why]), None))
                }
            }
        }
    });
    Ok(stream::iter(first).chain(later.flatten()))
}

/// History was lost; a snapshot follows.
fn resync() -> Event {
    sse::event(names::RESYNC, None, &json!(names::Resync { reason: "compacted".to_owned() }))
}

fn changed(of: &ServiceRef, revision: Revision, change: &Change) -> Vec<Event> {
    let named = |what: &str, value: Value| {
        json!({
            "namespace": of.namespace.as_str(),
            "service": of.name.as_str(),
            "revision": revision.get(),
            what: value,
        })
    };
    let told = |name, document: Value| sse::event(name, Some(revision), &document);
    match change {
        Change::Put(listed) => {
            vec![told(names::CHANGE, named("put", document::listed(listed)))]
        }
        Change::Removed(id) => vec![told(names::CHANGE, named("removed", id.as_str().into()))],
        Change::Resync(all) => {
            let all: Vec<Value> = all.iter().map(document::listed).collect();
            vec![resync(), told(names::SNAPSHOT, named("instances", all.into()))]
        }
    }
}
