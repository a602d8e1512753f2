//! The control plane of one process: HTTP on the control port.
//!
//! What a person or a program may see and change of the running gateway (modes of circuits, faults,
//! when the configuration is read again), and, where state is kept, of that: registry, locks,
//! config centre, store. An answer is made from the machines and recipes themselves at the moment
//! of the question; nothing is kept here, so the API never tells of another state than they act by.
//!
//! | question | module |
//! |---|---|
//! | who may ask | [`guard`] |
//! | what an answer looks like | `answer` |
//! | who asks, and why | [`author`] |
//! | what is noted of a change; of what was refused | [`events`]; [`refusals`] |
//! | objects with a history | [`revisions`] |
//! | what streams tell; how it is sent | [`items`]; [`sse`], [`grpc`] |
//! | connections, HTTP/1.1 and HTTP/2 | [`connection`] |
//! | how many requests are kept open at once | [`kept`] |
//! | the contract of all that | [`openapi`] |
//! | the calls | the rest, one module a noun |

mod answer;
mod audit;
mod author;
mod backup;
mod balance;
mod centre;
mod checks;
mod circuits;
mod conditions;
mod connection;
mod consul;
mod deferred;
mod dns;
mod dtm;
mod events;
mod explain;
mod faults;
pub mod foreign;
mod grpc;
mod guard;
mod http_sd;
mod items;
mod jwks;
mod kept;
mod keyring;
mod limits;
mod locks;
mod moment;
mod objects;
pub(crate) mod openapi;
mod plans;
mod refusals;
mod registry;
mod revisions;
mod routes;
mod rules;
mod settings;
mod sse;
mod store;
mod streams;
mod switches;
mod transactions;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use mainstay_core::problem::Code;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::role::Shared;
use answer::Refused;
pub use kept::Kept;
pub(crate) use refusals::marks;

/// Largest document taken: the longest there is, a route test with its headers, is a tenth of it.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Largest document about agreed state: a publication of a group with several large items.
const AGREED_BYTES_MAX: usize = 4 << 20;

/// How long a peer may take nothing of what is sent to it, a stream's reader above all; then it is
/// cut, and comes back if it lives. Idle streams send a line every 15 s, so all are found.
const BLOCKED_MAX: Duration = Duration::from_mins(1);

/// Answers on `listener` until told to stop, and a moment longer whoever is being answered.
///
/// # Cancel safety
///
/// Safe: connections are dropped with it.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let kept = shared.streams.clone();
    answer(listener, router(shared, stop.clone()), kept, stop).await;
}

async fn answer(listener: TcpListener, router: Router, kept: Kept, stop: CancellationToken) {
    let listener =
        listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    match listener {
        Ok(listener) => connection::serve(listener, router, BLOCKED_MAX, kept, stop).await,
        Err(error) => tracing::error!(%error, "the control plane has ended"),
    }
}

/// Answers clients of Consul alone on `listener`, if there is one, until told to stop.
///
/// # Cancel safety
///
/// As [`serve`].
pub async fn serve_consul(
    listener: Option<TcpListener>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let Some(listener) = listener else { return };
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&shared), guard::clients_alone);
    let refused = axum::middleware::from_fn_with_state(Arc::clone(&shared), refusals::recorded);
    let router = Router::new()
        .nest("/v1", consul::calls(shared.cluster.clone()))
        .fallback(consul::nothing)
        .layer(axum::middleware::from_fn_with_state(stop.clone(), streams::end_well))
        .layer(axum::middleware::from_fn_with_state(shared.streams.clone(), kept::bounded))
        .layer(guard)
        .layer(refused)
        .with_state(Arc::clone(&shared));
    answer(listener, router, shared.streams.clone(), stop).await;
}

/// Answers clients of DTM alone on `listener`, if there is one, until told to stop.
///
/// # Cancel safety
///
/// As [`serve`].
pub async fn serve_dtm(
    listener: Option<TcpListener>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let Some(listener) = listener else { return };
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&shared), guard::dtm_alone);
    let refused = axum::middleware::from_fn_with_state(Arc::clone(&shared), refusals::recorded);
    let router = Router::new()
        .merge(dtm::calls(shared.cluster.clone()))
        .fallback(dtm::nothing)
        .layer(guard)
        .layer(refused)
        .with_state(Arc::clone(&shared));
    answer(listener, router, shared.streams.clone(), stop).await;
}

fn router(shared: Arc<Shared>, stop: CancellationToken) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&shared), guard::guard);
    let refused = axum::middleware::from_fn_with_state(Arc::clone(&shared), refusals::recorded);
    let targets = match shared.cluster.clone() {
        Some(cluster) => http_sd::calls().with_state(cluster),
        None => Router::new(),
    };
    Router::new()
        .merge(targets)
        .route("/metrics", get(metrics))
        .nest("/api/v1", calls(shared.cluster.clone()))
        .nest("/v1", consul::calls(shared.cluster.clone()))
        .merge(dtm::calls(shared.cluster.clone()))
        .merge(grpc::calls(&shared, &stop))
        .fallback(|| async { Refused::new(Code::NotFound, "the API has no such path") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(stop, streams::end_well))
        .layer(axum::middleware::from_fn_with_state(shared.streams.clone(), kept::bounded))
        .layer(guard)
        .layer(refused)
        .layer(axum::middleware::from_fn(grpc::in_its_words))
        .with_state(shared)
}

fn calls(cluster: Option<Arc<Cluster>>) -> Router<Arc<Shared>> {
    let agreed = match cluster {
        Some(cluster) => agreed()
            .with_state(Arc::clone(&cluster))
            .merge(switches::removal())
            .layer(axum::middleware::from_fn(conditions::known))
            .layer(axum::middleware::from_fn_with_state(
                Arc::clone(&cluster),
                audit::where_the_log_is,
            ))
            .layer(axum::middleware::from_fn_with_state(cluster, transactions::forward::passed_on))
            .layer(DefaultBodyLimit::max(AGREED_BYTES_MAX)),
        None => Router::new(),
    };
    own().merge(agreed)
}

/// The calls about what nodes agree on.
fn agreed() -> Router<Arc<Cluster>> {
    registry::calls()
        .merge(locks::calls())
        .merge(store::calls())
        .merge(centre::calls())
        .merge(audit::calls())
        .merge(keyring::calls())
        .merge(switches::calls())
        .merge(plans::calls())
        .merge(transactions::calls())
        .merge(deferred::calls())
}

/// The calls every process has.
fn own() -> Router<Arc<Shared>> {
    Router::new()
        .route("/live", get(|| async { StatusCode::OK }))
        .route("/ready", get(ready))
        .route("/openapi.json", get(openapi::show))
        .merge(rules::calls())
        .route("/backup", get(backup::create))
        .route("/backup/verify", post(backup::verify))
        .route("/dns", get(dns::show))
        .route("/circuit-states", get(circuits::list))
        .route("/circuit-states/{id}/mode", put(circuits::set_mode))
        .route("/circuit-states/{id}/reset", post(circuits::reset))
        .route("/limits/{namespace}/{name}/usage", get(limits::usage))
        .route("/balance/{namespace}/{service}", get(balance::balance))
        .route("/jwks", get(jwks::list))
        .route("/jwks/{issuer}/refresh", post(jwks::refresh))
        .route("/faults", get(faults::list).post(faults::set))
        .route("/faults/{id}", delete(faults::clear))
        .route("/explain/{subject}", get(explain::explain))
        .route("/checks", get(checks::list))
        .route("/settings", get(settings::show))
        .route("/settings/reload", post(settings::reload))
}

async fn ready(State(shared): State<Arc<Shared>>) -> Result<StatusCode, Refused> {
    let has_failed = match &shared.cluster {
        Some(cluster) => cluster.has_failed().await,
        None => false,
    };
    is_ready(shared.draining.load(Ordering::Relaxed), has_failed)
}

fn is_ready(is_draining: bool, has_failed: bool) -> Result<StatusCode, Refused> {
    if is_draining {
        return Err(Refused::new(Code::GatewayDraining, "the process is about to end"));
    }
    if has_failed {
        let detail = "a write of the store to its disk failed; restart the process";
        return Err(Refused::new(Code::StoreFailed, detail));
    }
    Ok(StatusCode::OK)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_unwritable) => {
            Refused::new(Code::Internal, "the metrics cannot be written").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;

    use axum::body::{Body, Bytes};
    use axum::http::Request;
    use futures_util::stream;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn whoever_drains_or_cannot_write_is_not_ready() {
        let status = |is_draining, has_failed| match is_ready(is_draining, has_failed) {
            Ok(status) => status.as_u16(),
            Err(refused) => refused.into_response().status().as_u16(),
        };
        assert_eq!(
            [status(false, false), status(true, false), status(false, true)],
            [200, 503, 503]
        );
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_cut() {
        // Dropped with the body that holds it.
        let (held, dropped) = oneshot::channel::<()>();
        let held = Arc::new(parking_lot::Mutex::new(Some(held)));
        let endless = move || {
            let held = held.lock().take();
            let more = stream::repeat_with(move || {
                let _held = &held;
                Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 16_384]))
            });
            std::future::ready(Body::from_stream(more).into_response())
        };
        let router = Router::new().route("/", get(endless));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, blocked) = (CancellationToken::new(), Duration::from_secs(1));
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let served = connection::serve(listener, router, blocked, Kept::new(8), stop.clone());
        let read = async {
            let mut reader = TcpStream::connect(at).unwrap();
            reader.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let cut = tokio::time::timeout(Duration::from_secs(30), dropped).await;
            assert!(cut.is_ok(), "it is still sent to");
            drop(reader);
            stop.cancel();
        };
        tokio::join!(served, read);
    }

    #[tokio::test]
    async fn over_http2_only_the_stream_that_is_not_read_is_reset() {
        let endless = || {
            let more =
                stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 16_384])));
            std::future::ready(Body::from_stream(more).into_response())
        };
        let router = Router::new().route("/", get(endless)).route("/short", get(|| async { "" }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, blocked) = (CancellationToken::new(), Duration::from_secs(1));
        let served = connection::serve(listener, router, blocked, Kept::new(8), stop.clone());
        let read = async {
            let io = tokio::net::TcpStream::connect(at).await.unwrap();
            let (mut client, connection) = h2::client::handshake(io).await.unwrap();
            let ask = |path: &str| {
                let uri = format!("http://localhost{path}");
                Request::get(uri).body(()).unwrap()
            };
            let exchanged = async {
                let (answer, _) = client.send_request(ask("/"), true).unwrap();
                // Its window is never opened again.
                let mut body = answer.await.unwrap().into_body();
                let cut = async {
                    loop {
                        if let Err(error) = body.data().await.unwrap() {
                            break error;
                        }
                    }
                };
                let cut = tokio::time::timeout(Duration::from_secs(30), cut).await;
                assert!(
                    cut.expect("it is still open").is_reset(),
                    "the stream, not the connection"
                );
                let (answer, _) = client.send_request(ask("/short"), true).unwrap();
                assert_eq!(answer.await.unwrap().status(), StatusCode::OK, "others go on");
            };
            tokio::select! {
                () = exchanged => (),
                ended = connection => panic!("the connection ended: {ended:?}"),
            }
            stop.cancel();
        };
        tokio::join!(served, read);
    }
}
