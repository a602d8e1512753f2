//! Streams end well: whoever reads one when the process stops is told when to come back.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;

/// When readers come back, in milliseconds: spread over as long again, so that not all of them knock
/// at the next node at once.
const RETRY_MILLIS: u64 = 500;

/// Passes an answer on; ends it, if it is a stream, when the process stops.
pub(super) async fn end_well(
    State(stop): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if !is_of(response.headers(), "text/event-stream") {
        return response;
    }
    let last = || Ok(hint());
    response.map(|body| Body::from_stream(until_stopped(body.into_data_stream(), stop, last)))
}

/// `items`, and when the process stops the `last` one, which says so.
pub(super) fn until_stopped<S: Stream>(
    items: S,
    stop: CancellationToken,
    last: impl FnOnce() -> S::Item,
) -> impl Stream<Item = S::Item> {
    let stopped = stop.clone();
    let last = stream::once(async move { stopped.is_cancelled().then(last) });
    items.take_until(stop.cancelled_owned()).chain(last.filter_map(std::future::ready))
}

/// Whether a message is of a media type that begins with `kind`.
pub(super) fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    let told = headers.get(header::CONTENT_TYPE).and_then(|told| told.to_str().ok());
    told.is_some_and(|told| told.starts_with(kind))
}

/// A field of its own: it ends no event, and is none.
fn hint() -> Bytes {
    Bytes::from(format!("retry: {}\n\n", retry_after().as_millis()))
}

/// When a reader comes back.
pub(super) fn retry_after() -> Duration {
    Duration::from_millis(RETRY_MILLIS + mainstay_call::draw::next() % RETRY_MILLIS)
}
