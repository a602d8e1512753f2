//! Following services: one stream for many, or a long poll of one.
//!
//! `view` sends the whole list of a service when it has changed; what changes within a few
//! milliseconds is sent once. `events` sends every change of every revision, nothing merged.
//!
//! A client that comes back says what it has: `services=namespace/service@revision`, and in `store`
//! of which history that is, as the header of its last stream told. A service that stands there
//! still costs it one bookmark.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use mainstay_api::registry::{Instance, STORE_HEADER, ServiceAt};
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
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::control) struct Followed {
    /// `namespace/service` or `namespace/service@revision`, joined by commas.
    services: String,
    /// Which history those revisions are of.
    store: Option<String>,
    /// `view`: the list of a service when it has changed. `events`: every change of every revision.
    #[serde(default)]
    #[param(inline)]
    mode: Mode,
    /// Only those that pass their checks; of `view`.
    #[serde(default)]
    healthy: bool,
    /// A long poll: the revision the caller has.
    index: Option<u64>,
    /// How long it waits, in seconds. Default 300.
    wait: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Mode {
    #[default]
    View,
    Events,
}

/// One service that is followed.
#[derive(Debug)]
struct Wanted {
    service: ServiceRef,
    /// The client has its state as of exactly this revision.
    has: Option<Revision>,
    /// The client has all of it up to this revision.
    last: Option<Revision>,
    /// The client knows of revisions that are no more.
    is_lost: bool,
}

/// Longest wait for the store to say which history it is of; without it, all lists come whole.
const STATUS_MAX: Duration = Duration::from_secs(1);

/// `GET /registry/watch`
pub(super) async fn watch(
    State(cluster): State<Arc<Cluster>>,
    headers: HeaderMap,
    Asked(followed): Asked<Followed>,
) -> Result<Response, Refused> {
    let mut wanted = services(&followed.services)?;
    if let Some(index) = followed.index {
        return poll(&cluster, &wanted, &followed, Revision::new(index)).await;
    }
    let status = tokio::time::timeout(STATUS_MAX, cluster.store.status()).await;
    let store = status.ok().and_then(Result::ok).map(|status| status.store.to_string());
    let is_same = store.is_some() && followed.store == store;
    // The services of a stream come in any order, so one id says how far a single one is.
    let last = sse::last_event_id(&headers).filter(|_| wanted.len() == 1);
    for wanted in &mut wanted {
        if let Some(last) = last {
            wanted.is_lost = cluster.registry.is_ahead(&wanted.service, last).await;
        }
        wanted.has = wanted.has.filter(|_| is_same && !wanted.is_lost);
        wanted.last = last.filter(|_| !wanted.is_lost);
    }
    let mut answer = match followed.mode {
        Mode::View => {
            let filter = Filter { healthy: followed.healthy, ..Filter::default() };
            let mut streams = Vec::new();
            for wanted in wanted {
                let views = cluster.registry.watch(&wanted.service)?;
                streams.push(states(Arc::clone(&cluster), views, filter.clone(), wanted).boxed());
            }
            sse::answer(stream::select_all(streams))
        }
        Mode::Events => {
            let mut streams = Vec::new();
            for wanted in wanted {
                streams.push(events(&cluster, wanted)?.boxed());
            }
            sse::answer(stream::select_all(streams))
        }
    };
    if let Some(store) = store.and_then(|store| HeaderValue::try_from(store).ok()) {
        answer.headers_mut().insert(HeaderName::from_static(STORE_HEADER), store);
    }
    Ok(answer)
}

fn services(text: &str) -> Result<Vec<Wanted>, Refused> {
    let names = text.split(',').filter(|name| !name.is_empty());
    let read = names.map(|text| {
        let (name, has) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let has = has.map(|revision| {
            let wrong = |_| Refused::invalid(format!("`{revision}` after `@` is no revision"));
            revision.parse().map(Revision::new).map_err(wrong)
        });
        let service = match name.split_once('/') {
            Some((namespace, name)) => service((namespace.to_owned(), name.to_owned())),
            None => service(("default".to_owned(), name.to_owned())),
        };
        Ok(Wanted { service: service?, has: has.transpose()?, last: None, is_lost: false })
    });
    let services: Vec<Wanted> = read.collect::<Result<_, Refused>>()?;
    if services.is_empty() || SERVICES_MAX < services.len() {
        let detail = format!("`services` must name 1 to {SERVICES_MAX}, as `namespace/service,…`");
        return Err(Refused::invalid(detail));
    }
    Ok(services)
}

async fn poll(
    cluster: &Cluster,
    wanted: &[Wanted],
    followed: &Followed,
    index: Revision,
) -> Result<Response, Refused> {
    let [Wanted { service, .. }] = wanted else {
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

/// The states of a service from now on. One the client has is not sent again.
fn states(
    cluster: Arc<Cluster>,
    views: watch::Receiver<Arc<View>>,
    filter: Filter,
    wanted: Wanted,
) -> impl Stream<Item = Event> + Send {
    let first = (views, Some(wanted));
    stream::unfold(first, move |(mut views, mut first)| {
        let (cluster, filter) = (Arc::clone(&cluster), filter.clone());
        async move {
            loop {
                if first.is_none() && views.changed().await.is_err() {
                    return None;
                }
                let view = Arc::clone(&views.borrow_and_update());
                let is_first = first.is_some();
                let mut lost = view.resync.then(|| resync("compacted"));
                if let Some(wanted) = first.take() {
                    lost = wanted.is_lost.then(|| resync("store-regressed"));
                    if wanted.has == Some(view.revision) && view.protected.is_none() {
                        return Some((stream::iter(vec![still(&view)]), (views, None)));
                    }
                    if wanted.last.is_some_and(|last| view.revision <= last) {
                        continue;
                    }
                }
                let document = json!(document::view(&view, &filter, cluster.unix_millis()));
                let is_whole = is_first || view.resync;
                let name = if is_whole { names::SNAPSHOT } else { names::CHANGE };
                let state = sse::event(name, Some(view.revision), &document);
                let told: Vec<Event> = lost.into_iter().chain([state]).collect();
                return Some((stream::iter(told), (views, None)));
            }
        }
    })
    .flatten()
}

/// A service stands where the client has it.
fn still(view: &View) -> Event {
    let at = ServiceAt {
        namespace: view.service.namespace.to_string(),
        service: view.service.name.to_string(),
        revision: view.revision.get(),
    };
    sse::event(names::BOOKMARK, Some(view.revision), &json!(at))
}

/// Every change of a service after the last one the client has seen; without one, the list and
/// then every change.
fn events(
    cluster: &Arc<Cluster>,
    wanted: Wanted,
) -> Result<impl Stream<Item = Event> + Send + use<>, Refused> {
    let Wanted { service: of, last, is_lost, .. } = wanted;
    let mut first: Vec<Event> = is_lost.then(|| resync("store-regressed")).into_iter().collect();
    let after = match last {
        Some(last) => last,
        None => {
            let revision = cluster.registry.revision();
            let view = cluster.registry.view(&of)?;
            let document = document::view(&view, &Filter::default(), cluster.unix_millis());
            first.push(sse::event(names::SNAPSHOT, Some(revision), &json!(document)));
            revision
        }
    };
    let changes = cluster.registry.changes(&of, after)?;
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

/// History was lost, for this reason; a snapshot follows.
fn resync(reason: &str) -> Event {
    sse::event(names::RESYNC, None, &json!(names::Resync { reason: reason.to_owned() }))
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
            vec![told(names::CHANGE, named("put", json!(document::listed(listed))))]
        }
        Change::Removed(id) => vec![told(names::CHANGE, named("removed", id.as_str().into()))],
        Change::Resync(all) => {
            let all: Vec<Instance> = all.iter().map(document::listed).collect();
            vec![resync("compacted"), told(names::SNAPSHOT, named("instances", json!(all)))]
        }
    }
}
