//! Following services: one stream for many, or a long poll of one.
//!
//! `view` sends the whole list of a service when it has changed; what changes within a few
//! milliseconds is sent once. `events` sends every change of every revision, nothing merged.
//!
//! A client that comes back says what it has: `services=namespace/service@revision`, and in `store`
//! of which history that is, as the header of its last stream told. A service that stands there
//! still costs it one bookmark.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt as _};
use mainstay_api::registry::{Instance, STORE_HEADER, ServiceAt, ServiceView};
use mainstay_coord::ServiceRef;
use mainstay_coord::registry::{Change, Changes, Filter, View};
use mainstay_store::Revision;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{document, service};
use crate::cluster::Cluster;
use crate::control::answer::{Asked, Refused};
use crate::control::{items, sse};

/// What a stream of services tells.
pub(in crate::control) type Item = items::Item<Told, ServiceAt>;

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
pub(in crate::control) struct Wanted {
    pub(in crate::control) service: ServiceRef,
    /// The client has its state as of exactly this revision of the history it names.
    pub(in crate::control) has: Option<Revision>,
    /// The client has all of it up to this revision.
    pub(in crate::control) last: Option<Revision>,
    /// The client knows of revisions that are no more.
    pub(in crate::control) is_lost: bool,
}

/// Services that are followed, and how.
#[derive(Debug)]
pub(in crate::control) struct Following {
    pub(in crate::control) wanted: Vec<Wanted>,
    pub(in crate::control) mode: Mode,
    pub(in crate::control) healthy: bool,
    /// Of which history what the client has is.
    pub(in crate::control) store: Option<String>,
}

/// A document of the stream.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in crate::control) enum Told {
    /// A service as it stands.
    View(Box<ServiceView>),
    /// All its instances, read from the store after history was lost.
    List(ServiceList),
    /// One change of it.
    Change(Box<ServiceChange>),
}

/// All instances of a service.
#[derive(Debug, Serialize)]
pub(in crate::control) struct ServiceList {
    pub(in crate::control) namespace: String,
    pub(in crate::control) service: String,
    pub(in crate::control) revision: u64,
    pub(in crate::control) instances: Vec<Instance>,
}

/// One change of a service at one revision.
#[derive(Debug, Serialize)]
pub(in crate::control) struct ServiceChange {
    pub(in crate::control) namespace: String,
    pub(in crate::control) service: String,
    pub(in crate::control) revision: u64,
    #[serde(flatten)]
    pub(in crate::control) what: What,
}

/// What became of an instance.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum What {
    /// It came, or is now like this.
    Put(Box<Instance>),
    /// It went.
    Removed(String),
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
    // The services of a stream come in any order, so one id says how far a single one is.
    if let [wanted] = wanted.as_mut_slice() {
        wanted.last = sse::last_event_id(&headers);
    }
    let Followed { mode, healthy, store, .. } = followed;
    let (store, told) = follow(&cluster, Following { wanted, mode, healthy, store }).await?;
    let mut answer = sse::items(told);
    if let Some(store) = store.and_then(|store| HeaderValue::try_from(store).ok()) {
        answer.headers_mut().insert(HeaderName::from_static(STORE_HEADER), store);
    }
    Ok(answer)
}

/// What becomes of services, and which history its revisions are of, if the store said so.
pub(in crate::control) async fn follow(
    cluster: &Arc<Cluster>,
    following: Following,
) -> Result<(Option<String>, SelectAll<BoxStream<'static, Item>>), Refused> {
    let Following { mut wanted, mode, healthy, store: known } = following;
    let status = tokio::time::timeout(STATUS_MAX, cluster.store.status()).await;
    let store = status.ok().and_then(Result::ok).map(|status| status.store.to_string());
    let is_same = store.is_some() && known == store;
    for wanted in &mut wanted {
        wanted.has = wanted.has.filter(|_| is_same);
        if let Mode::Events = mode {
            wanted.last = wanted.last.or(wanted.has);
        }
    }
    find_lost(cluster, &mut wanted).await;
    let filter = Filter { healthy, ..Filter::default() };
    let mut streams = Vec::new();
    for wanted in wanted {
        streams.push(match mode {
            Mode::View => {
                let views = cluster.registry.watch(&wanted.service)?;
                states(Arc::clone(cluster), views, filter.clone(), wanted).boxed()
            }
            Mode::Events => events(cluster, wanted)?.boxed(),
        });
    }
    Ok((store, stream::select_all(streams)))
}

/// Finds those of whom the client knows of revisions that are no more.
async fn find_lost(cluster: &Cluster, wanted: &mut [Wanted]) {
    let mut known: Vec<&mut Wanted> =
        wanted.iter_mut().filter(|wanted| wanted.last.is_some()).collect();
    known.sort_by_key(|wanted| Reverse(wanted.last));
    for wanted in known {
        let Some(last) = wanted.last else { break };
        // Where the newest is known, those before it are, and a store that is away is asked once.
        if !cluster.registry.is_ahead(&wanted.service, last).await {
            break;
        }
        (wanted.is_lost, wanted.has, wanted.last) = (true, None, None);
    }
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
    counted(services.len())?;
    Ok(services)
}

/// Refuses to follow none, or too many at once.
pub(in crate::control) fn counted(services: usize) -> Result<(), Refused> {
    if (1..=SERVICES_MAX).contains(&services) {
        return Ok(());
    }
    let detail = format!("`services` must name 1 to {SERVICES_MAX}, as `namespace/service,…`");
    Err(Refused::invalid(detail))
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
) -> impl Stream<Item = Item> + Send {
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
                let mut lost = view.resync.then_some(Item::Resync("compacted"));
                if let Some(wanted) = first.take() {
                    lost = wanted.is_lost.then_some(Item::Resync("store-regressed"));
                    if wanted.has == Some(view.revision) && view.protected.is_none() {
                        return Some((stream::iter(vec![still(&view)]), (views, None)));
                    }
                    if wanted.last.is_some_and(|last| view.revision <= last) {
                        continue;
                    }
                }
                let document = document::view(&view, &filter, cluster.unix_millis());
                let is_whole = is_first || view.resync;
                let kind = if is_whole { Item::Snapshot } else { Item::Change };
                let state = kind(Some(view.revision), Told::View(Box::new(document)));
                let told: Vec<Item> = lost.into_iter().chain([state]).collect();
                return Some((stream::iter(told), (views, None)));
            }
        }
    })
    .flatten()
}

/// A service stands where the client has it.
fn still(view: &View) -> Item {
    let at = ServiceAt {
        namespace: view.service.namespace.to_string(),
        service: view.service.name.to_string(),
        revision: view.revision.get(),
    };
    Item::Bookmark(view.revision, at)
}

/// Every change of a service after the last one the client has seen; without one, the list and
/// then every change.
fn events(
    cluster: &Arc<Cluster>,
    wanted: Wanted,
) -> Result<impl Stream<Item = Item> + Send + use<>, Refused> {
    let Wanted { service: of, last, is_lost, .. } = wanted;
    let lost = is_lost.then_some(Item::Resync("store-regressed"));
    let mut first: Vec<Item> = lost.into_iter().collect();
    let after = match last {
        Some(last) => last,
        None => {
            let revision = cluster.registry.revision();
            let view = cluster.registry.view(&of)?;
            let document = document::view(&view, &Filter::default(), cluster.unix_millis());
            first.push(Item::Snapshot(Some(revision), Told::View(Box::new(document))));
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
                    let told: Vec<Item> =
                        all.iter().flat_map(|change| changed(&of, revision, change)).collect();
                    Some((stream::iter(told), Some(changes)))
                }
                Err(error) => {
                    let why = Item::problem(error.code(), &error);
                    Some((stream::iter(vec![why]), None))
                }
            }
        }
    });
    Ok(stream::iter(first).chain(later.flatten()))
}

fn changed(of: &ServiceRef, revision: Revision, change: &Change) -> Vec<Item> {
    let (namespace, service) = (of.namespace.to_string(), of.name.to_string());
    let at = revision.get();
    let what = match change {
        Change::Put(listed) => What::Put(Box::new(document::listed(listed))),
        Change::Removed(id) => What::Removed(id.to_string()),
        Change::Resync(all) => {
            let instances = all.iter().map(document::listed).collect();
            let list = ServiceList { namespace, service, revision: at, instances };
            return vec![
                Item::Resync("compacted"),
                Item::Snapshot(Some(revision), Told::List(list)),
            ];
        }
    };
    let change = ServiceChange { namespace, service, revision: at, what };
    vec![Item::Change(Some(revision), Told::Change(Box::new(change)))]
}
