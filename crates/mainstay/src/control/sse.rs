//! Server-sent events, as every stream of this API sends them.
//!
//! `snapshot` is the whole as it is, `change` what became of it, `bookmark` how far the stream is
//! while nothing happens, `resync` that history was lost (a `snapshot` follows), `problem` why the
//! stream ends. `id` is the revision; a client that comes back sends the last one as
//! `Last-Event-ID` and goes on from there.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use mainstay_api::stream as names;
use mainstay_core::problem::Code;
use mainstay_store::Revision;
use serde::Serialize;
use serde_json::{Value, json};

use super::items::Item;
/// From one sign of life to the next on an idle stream.
const ALIVE_EVERY: Duration = Duration::from_secs(names::COMMENT_EVERY_SECONDS);

/// One event.
pub(super) fn event(name: &str, id: Option<Revision>, document: &Value) -> Event {
    let event = Event::default().event(name).data(document.to_string());
    match id {
        Some(revision) => event.id(revision.get().to_string()),
        None => event,
    }
}

/// The event that ends a stream, and why it does.
pub(super) fn problem(code: Code, error: &dyn std::error::Error) -> Event {
    told(&Item::<()>::problem(code, error))
}

/// An item as an event.
fn told<T: Serialize, B: Serialize>(item: &Item<T, B>) -> Event {
    match item {
        Item::Snapshot(id, whole) => event(names::SNAPSHOT, *id, &json!(whole)),
        Item::Change(id, changed) => event(names::CHANGE, *id, &json!(changed)),
        Item::Bookmark(id, at) => event(names::BOOKMARK, Some(*id), &json!(at)),
        Item::Resync(reason) => {
            let reason = (*reason).to_owned();
            event(names::RESYNC, None, &json!(names::Resync { reason }))
        }
        Item::Problem(code, detail) => {
            let why = json!({ "code": code.as_str(), "detail": detail });
            event(names::PROBLEM, None, &why)
        }
    }
}

/// The answer that streams `items`.
pub(super) fn items<T, B>(items: impl Stream<Item = Item<T, B>> + Send + 'static) -> Response
where
    T: Serialize + 'static,
    B: Serialize + 'static,
{
    use futures_util::StreamExt as _;
    answer(items.map(|item| told(&item)))
}

/// The answer that streams `events`.
pub(super) fn answer(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;
    let alive = KeepAlive::new().interval(ALIVE_EVERY);
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(alive).into_response()
}

/// How far the client was, by its `Last-Event-ID`.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<Revision> {
    let text = headers.get("last-event-id")?.to_str().ok()?;
    text.parse().ok().map(Revision::new)
}
