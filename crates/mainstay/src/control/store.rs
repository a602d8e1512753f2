//! The store itself, for operators: how it stands, what it holds, one number for all of it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use mainstay_api::stream as names;
use mainstay_coord::audit::Target;
use mainstay_core::problem::Code;
use mainstay_store::hash::{Take, hash};
use mainstay_store::{
    Change, Entry, Error, Event, Get, Range, RangeRequest, Revision, Select, WatchItem,
    WatchRequest,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Document, Refused};
use super::author::By;
use super::events::{Changed, recorded};
use super::sse;
use crate::cluster::Cluster;
use crate::output::hex;

/// Keys of one page, unless fewer are asked for.
const PAGE_MAX: u32 = 1_000;

/// The calls.
pub(super) fn calls() -> Router<Arc<Cluster>> {
    Router::new()
        .route("/store/status", get(status))
        .route("/store/range", get(range))
        .route("/store/get", get(one))
        .route("/store/watch", get(watch))
        .route("/store/hash", get(hashed))
        .route("/store/compact", post(compact))
}

/// `GET /store/status`
async fn status(State(cluster): State<Arc<Cluster>>) -> Answer {
    let status = cluster.store.status().await?;
    Ok(Json(json!({
        "backend": status.backend,
        "store": status.store.to_string(),
        "node": cluster.node.as_str(),
        "state": status.state.as_str(),
        "revision": status.revision.get(),
        "compacted": status.compacted.get(),
        "bytes": status.bytes,
        "leases": status.leases,
        "watchers": status.watchers,
    })))
}

/// Which keys.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Keys that begin so; all, unless told.
    prefix: String,
    /// Go on after this key.
    after: Option<String>,
    /// Keys of a page, 1 to 1,000. Default 1,000.
    limit: u32,
    /// As of this revision; the newest, unless told.
    at: Option<u64>,
}

impl Default for Which {
    fn default() -> Self {
        Self { prefix: String::new(), after: None, limit: PAGE_MAX, at: None }
    }
}

/// `GET /store/range`: names, sizes and revisions. Values stay where they are: they hold secrets.
async fn range(State(cluster): State<Arc<Cluster>>, Asked(which): Asked<Which>) -> Answer {
    let limit = std::num::NonZeroU32::new(which.limit.min(PAGE_MAX));
    let limit = limit.ok_or_else(|| Refused::invalid("`limit` must be 1 to 1000"))?;
    let mut of = Range::prefix(which.prefix);
    if let Some(after) = which.after {
        let key = mainstay_store::Key::new(after).map_err(Refused::from)?;
        of = of.after(&key);
    }
    let mut request = RangeRequest::new(Select::new(of).limit(limit));
    request.at = which.at.map(Revision::new);
    let page = cluster.store.range(request).await?;
    let items: Vec<Value> = page.entries.iter().map(described).collect();
    let last = page.entries.last().filter(|_| page.more);
    Ok(Json(json!({
        "items": items,
        "next": last.map(|entry| entry.key.to_string()),
        "count": page.count,
        "revision": page.revision.get(),
    })))
}

/// Which key.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct One {
    /// The key.
    key: String,
    /// As of this revision; the newest, unless told.
    at: Option<u64>,
}

/// `GET /store/get`: one key with its value; base64 where it is no text.
async fn one(State(cluster): State<Arc<Cluster>>, Asked(One { key, at }): Asked<One>) -> Answer {
    let missing = Refused::missing("key", &key);
    let mut get = Get::new(mainstay_store::Key::new(key).map_err(Refused::from)?);
    get.at = at.map(Revision::new);
    let got = cluster.store.get(get).await?;
    let entry = got.entry.ok_or(missing)?;
    let mut document = described(&entry);
    if let Some(fields) = document.as_object_mut() {
        match std::str::from_utf8(&entry.value) {
            Ok(text) => fields.insert("value".to_owned(), text.into()),
            Err(_) => {
                fields.insert("value_base64".to_owned(), STANDARD.encode(&entry.value).into())
            }
        };
        fields.insert("revision".to_owned(), got.revision.get().into());
    }
    Ok(Json(document))
}

/// What is followed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Followed {
    /// Keys that begin so; all, unless told.
    prefix: String,
    /// From this revision on; what comes when absent.
    from: Option<u64>,
}

/// `GET /store/watch`: every change of every revision, without values.
async fn watch(
    State(cluster): State<Arc<Cluster>>,
    headers: HeaderMap,
    Asked(followed): Asked<Followed>,
) -> Result<Response, Refused> {
    let range = Range::prefix(followed.prefix);
    let from = sse::last_event_id(&headers)
        .map(Revision::next)
        .or_else(|| followed.from.map(Revision::new));
    let request = move |from: Option<Revision>| {
        let request = WatchRequest::new(range.clone());
        match from {
            Some(from) => request.from(from),
            None => request,
        }
    };
    let watch = cluster.store.watch(request(from))?;
    let again = move || cluster.store.watch(request(None));
    // How far a stream that begins with what comes is, is known from its beginning.
    let state = Some((watch, from.is_none()));
    Ok(sse::answer(stream::unfold((state, again), |(state, again)| async move {
        let (mut watch, begins_now) = state?;
        let (event, watch) = match watch.next().await {
            Some(WatchItem::Created { revision }) => {
                let id = Some(revision).filter(|_| begins_now);
                (sse::event(names::BOOKMARK, id, &at(revision)), Some((watch, begins_now)))
            }
            Some(WatchItem::Bookmark { revision }) => {
                let event = sse::event(names::BOOKMARK, Some(revision), &at(revision));
                (event, Some((watch, begins_now)))
            }
            Some(WatchItem::Changes { revision, events }) => {
                let events: Vec<Value> = events.iter().map(changed).collect();
                let document = json!({ "revision": revision.get(), "events": events });
                let event = sse::event(names::CHANGE, Some(revision), &document);
                (event, Some((watch, begins_now)))
            }
            Some(WatchItem::Compacted { compacted }) => {
                let document = json!({ "reason": "compacted", "compacted": compacted.get() });
                // What comes from now on is shown; what is gone cannot be.
                let watch = again().ok().map(|watch| (watch, true));
                (sse::event(names::RESYNC, None, &document), watch)
            }
            Some(WatchItem::Closed | WatchItem::Denied) | None => {
                (sse::problem(Code::StoreClosed, &Error::Closed), None)
            }
        };
        Some((event, (watch, again)))
    })))
}

fn at(revision: Revision) -> Value {
    json!({ "revision": revision.get() })
}

fn changed(event: &Event) -> Value {
    match &event.change {
        Change::Put(entry) => {
            let mut document = described(entry);
            if let Some(fields) = document.as_object_mut() {
                fields.insert("kind".to_owned(), "put".into());
            }
            document
        }
        Change::Delete(_) => json!({ "kind": "delete", "key": event.key().to_string() }),
    }
}

/// An entry without its value.
fn described(entry: &Entry) -> Value {
    json!({
        "key": entry.key.to_string(),
        "bytes": entry.value.len(),
        "create_revision": entry.create_revision.get(),
        "mod_revision": entry.mod_revision.get(),
        "version": entry.version,
        "lease": entry.lease.map(|lease| lease.to_string()),
    })
}

/// As of when, and what is taken into account.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Hash {
    /// As of this revision; the newest, unless told.
    at: Option<u64>,
    /// Keys and values alone: two stores with the same content have the same number.
    content: bool,
}

/// `GET /store/hash`
async fn hashed(State(cluster): State<Arc<Cluster>>, Asked(ask): Asked<Hash>) -> Answer {
    let take = if ask.content { Take::Content } else { Take::Everything };
    let at = ask.at.map(Revision::new);
    let hashed = hash(&*cluster.store, Range::prefix(""), at, take).await?;
    Ok(Json(json!({
        "revision": hashed.revision.get(),
        "entries": hashed.entries,
        "sha256": hex(&hashed.sha256),
    })))
}

/// Up to where history goes.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StoreCompact)]
pub(super) struct Compact {
    /// History up to this revision is forgotten.
    revision: u64,
}

/// `POST /store/compact`
async fn compact(
    State(cluster): State<Arc<Cluster>>,
    By(author): By,
    Document(Compact { revision }): Document<Compact>,
) -> Answer {
    let before = cluster.store.status().await?.compacted.get();
    // It is no key that a batch could write.
    let work = async { Ok(cluster.store.compact(Revision::new(revision)).await?) };
    recorded(&cluster, COMPACT, compaction(before, revision), &author, work).await?;
    let (before, after) = (&json!({ "revision": before }), &json!({ "revision": revision }));
    let reason = author.reason.as_deref();
    Changed { what: "store.compact", subject: "store", before, after, reason }.emit();
    Ok(Json(json!({ "compacted": revision })))
}

/// The action of a compaction.
const COMPACT: &str = "store:compact";

fn compaction(before: u64, revision: u64) -> Target {
    let (kind, id) = ("store".to_owned(), "history".to_owned());
    Target { kind, id, revision_before: Some(before), revision_after: Some(revision) }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let refused = Self::new(error.code(), error.to_string()).with_effect(error.effect());
        match error {
            Error::Busy { retry_after } => refused.retry_after(retry_after),
            _ if error.code() == Code::StoreUnavailable => {
                refused.retry_after(std::time::Duration::from_secs(1))
            }
            _ => refused,
        }
    }
}
