//! How many requests are kept open at once: streams, and questions that wait for a change.
//!
//! Each holds a connection, or a stream of one, and what it follows for as long as its caller
//! likes; so there is a bound over all of them together, `server.streams_max`, at every door of the
//! control port. That a request will be kept is told from what it asks for, before anything is
//! done: one that is refused has opened, registered and followed nothing
//! (`docs/decisions/0390-a-bound-over-all-that-is-kept-open.md`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use mainstay_core::problem::Code;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::answer::Refused;
use super::{consul, grpc};

/// When one that found no place asks again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Calls below `/api/v1` that are answered with a stream, or may wait as long as one. Those that
/// wait by what stands in their document take a place themselves: [`Kept::enter`].
pub(super) const CALLS: [(Method, &str); 7] = [
    (Method::GET, "/registry/watch"),
    (Method::POST, "/config/watch"),
    (Method::GET, "/switches/{namespace}/watch"),
    (Method::GET, "/rules/watch"),
    (Method::GET, "/sessions/{id}/stream"),
    (Method::GET, "/elections/{namespace}/{name}/observe"),
    (Method::GET, "/store/watch"),
];

/// The places there are for requests that are kept, and what is told of them.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Places>);

#[derive(Debug)]
struct Places {
    most: u32,
    open: Gauge,
    opened: Counter,
    refused: Counter,
    stalled: Counter,
}

/// A place, given back when the last copy of it goes.
#[derive(Clone, Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Held>);

#[derive(Debug)]
struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Kept {
    /// So many places.
    pub fn new(most: u32) -> Self {
        let (open, opened) = (Gauge::default(), Counter::default());
        let (refused, stalled) = (Counter::default(), Counter::default());
        Self(Arc::new(Places { most, open, opened, refused, stalled }))
    }

    /// Puts what is told of them into `registry`, whose prefix is `mainstay`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("control_streams");
        let open = "Streams of the control port, and questions there that wait for a change";
        own.register("open", open, self.0.open.clone());
        let max = Gauge::<i64>::default();
        max.set(i64::from(self.0.most));
        own.register("max", "As many as may be open at once (server.streams_max)", max);
        own.register("opened", "Streams begun, and questions that may wait", self.0.opened.clone());
        let refused = "Streams and questions that were refused, since there were too many";
        own.register("refused", refused, self.0.refused.clone());
        let stalled = "Streams over HTTP/2 that were reset since their reader took nothing";
        own.register("stalled", stalled, self.0.stalled.clone());
    }

    /// A place for a request that will be kept.
    ///
    /// # Errors
    ///
    /// [`Code::TooManyStreams`] where there is none left.
    pub(super) fn enter(&self) -> Result<Place, Refused> {
        let Places { most, open, opened, refused, .. } = &*self.0;
        // Counted before it is judged, so that two at once do not take the last place twice.
        let place = Place(Arc::new(Held(open.clone())));
        if open.inc() < i64::from(*most) {
            opened.inc();
            return Ok(place);
        }
        refused.inc();
        let detail = format!(
            "{most} streams and questions that wait are open, and no more may be \
             (`server.streams_max`): end some, wait for others to end, or ask another node"
        );
        Err(Refused::new(Code::TooManyStreams, detail).retry_after(RETRY_AFTER))
    }

    /// A stream was reset, since its reader took nothing.
    pub(super) fn stalled(&self) {
        self.0.stalled.inc();
    }
}

/// Gives a request that will be kept a place, which its answer holds to its end, or refuses it.
pub(super) async fn bounded(
    State(kept): State<Kept>,
    mut request: Request,
    next: Next,
) -> Response {
    let place = match will_be_kept(&request).then(|| kept.enter()).transpose() {
        Ok(place) => place,
        Err(refused) => return in_words_of(request.uri().path(), refused),
    };
    request.extensions_mut().insert(kept);
    let mut response = next.run(request).await;
    if let Some(place) = place {
        response.extensions_mut().insert(place);
    }
    response
}

/// Clients of Consul are told in a line.
fn in_words_of(path: &str, refused: Refused) -> Response {
    if consul::is_its(path) {
        let (_, detail, _) = refused.said();
        return consul::Text(StatusCode::SERVICE_UNAVAILABLE, detail.to_owned()).into_response();
    }
    refused.into_response()
}

fn will_be_kept(request: &Request) -> bool {
    let (uri, method) = (request.uri(), request.method());
    if grpc::is_its(uri.path()) {
        return grpc::is_kept(uri.path());
    }
    if consul::is_its(uri.path()) {
        return *method == Method::GET && waits(uri);
    }
    let Some(matched) = request.extensions().get::<MatchedPath>() else { return false };
    let Some(path) = matched.as_str().strip_prefix("/api/v1") else { return false };
    CALLS.iter().any(|(with, at)| with == method && *at == path)
}

/// Whether a read of Consul's asks for what comes after a state that it names.
fn waits(uri: &Uri) -> bool {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else { return false };
    pairs.iter().any(|(name, value)| match &**name {
        "index" => !matches!(&**value, "" | "0"),
        "hash" => !value.is_empty(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_the_last_copy_of_it_is_gone() {
        let kept = Kept::new(1);
        let first = kept.enter().unwrap();
        let copy = first.clone();
        drop(first);
        assert_eq!(kept.enter().unwrap_err().code(), "too-many-streams");
        drop(copy);
        assert!(kept.enter().is_ok());
        assert_eq!((kept.0.opened.get(), kept.0.refused.get(), kept.0.open.get()), (2, 1, 0));
    }

    #[test]
    fn reads_of_consul_that_name_a_state_wait() {
        for (query, want) in [
            ("index=7", true),
            ("recurse&index=7&wait=1s", true),
            ("hash=abc", true),
            ("", false),
            ("index=0", false),
            ("index=", false),
            ("wait=1s", false),
        ] {
            assert_eq!(waits(&format!("/v1/kv/a?{query}").parse().unwrap()), want, "{query}");
        }
    }
}
