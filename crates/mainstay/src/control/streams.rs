//! Streams end well: whoever reads one when the process stops is told when to come back.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
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
    let kind = response.headers().get(header::CONTENT_TYPE).map(header_text);
    if kind.is_none_or(|kind| !kind.starts_with("text/event-stream")) {
        return response;
    }
    response.map(|body| {
        let stopped = stop.clone();
        let last = stream::once(async move { stopped })
            .filter_map(|stopped| async move { stopped.is_cancelled().then(|| Ok(hint())) });
        let until = body.into_data_stream().take_until(stop.cancelled_owned());
        Body::from_stream(until.chain(last))
    })
}

fn header_text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// A field of its own: it ends no event, and is none.
fn hint() -> Bytes {
    Bytes::from(format!("retry: {}\n\n", retry_after().as_millis()))
}

/// When a reader comes back.
pub(super) fn retry_after() -> Duration {
    Duration::from_millis(RETRY_MILLIS + mainstay_call::draw::next() % RETRY_MILLIS)
}
