//! Connections of the control port: HTTP/1.1, and HTTP/2 for whoever begins with its preface.
//!
//! A reader that takes nothing must not hold what its stream holds. Over HTTP/1.1 only the kernel
//! sees whether anything is taken, and cuts the connection. Over HTTP/2 the connection says nothing
//! about the streams in it: each answer notes when a part of it is handed over and when the next
//! one is asked for, which is when there is room for it, and a stream that makes no room is reset,
//! while the others go on (`docs/decisions/0250-streams-over-grpc.md`).

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::kept::{Kept, Place};

/// How long requests under way, streams among them, may go on once told to stop.
const LAST: Duration = Duration::from_secs(2);

/// After a connection could not be accepted, which is when there are no descriptors left.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// From one ping of HTTP/2 to the next, and how long its answer may take: an idle reader that is
/// gone is found within half a minute.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_MAX: Duration = Duration::from_secs(10);

/// Streams of one connection: a program with a stream for each of its services and groups.
const STREAMS_MAX: u32 = 256;

/// Bytes of a request's header.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// How often it is looked whether a stream stands, in the time it may stand.
const LOOKS: u32 = 4;

/// Answers on `listener` by `router` until told to stop, and a moment longer whoever is being
/// answered; `blocked` is how long a peer may take nothing of what is sent to it.
///
/// # Cancel safety
///
/// Safe: connections are dropped with it.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    blocked: Duration,
    kept: Kept,
    stop: CancellationToken,
) {
    let door = Door {
        router,
        blocked,
        kept,
        stop,
        tasks: TaskTracker::new(),
        cut: CancellationToken::new(),
    };
    let _cut = door.cut.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((connection, peer)) => {
                door.tasks.spawn(door.clone().answer(connection, peer));
            }
            Err(error) if is_gone(&error) => (),
            Err(error) => {
                tracing::warn!(%error, "connections to the control port are not accepted");
                drop(tokio::time::timeout(AFTER_ERROR, door.stop.cancelled()).await);
            }
        }
    }
    drop(listener);
    door.tasks.close();
    if tokio::time::timeout(LAST, door.tasks.wait()).await.is_err() {
        // A lock may be waited for for minutes.
        tracing::info!(left = door.tasks.len(), "streams and waits on the control port are cut");
        door.cut.cancel();
        door.tasks.wait().await;
    }
}

/// Whoever it was left before it was accepted.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// What all connections share.
#[derive(Clone)]
struct Door {
    router: Router,
    blocked: Duration,
    kept: Kept,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Ends all that is left.
    cut: CancellationToken,
}

impl Door {
    async fn answer(self, connection: TcpStream, peer: SocketAddr) {
        let millis = u32::try_from(self.blocked.as_millis()).unwrap_or(u32::MAX);
        let set = set_tcp_user_timeout(&connection, millis).map_err(io::Error::from);
        if let Err(error) = set.and_then(|()| connection.set_nodelay(true)) {
            tracing::debug!(%error, "a connection is not cut when its peer takes nothing");
        }
        let entering = Entering::default();
        let streams = Streams { door: self.clone(), entering: Arc::clone(&entering) };
        let mut builder = auto::Builder::new(streams);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX);
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let outflow = Arc::<Outflow>::default();
            if request.version() == Version::HTTP_2 {
                // The task of the stream is started next, on this thread.
                *entering.lock() = Some(Arc::clone(&outflow));
            }
            let answered = self.router.clone().call(request);
            async move {
                let Ok(response) = answered.await;
                Ok::<_, Infallible>(watched(response, outflow))
            }
        });
        let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = served => ended,
                    () = self.cut.cancelled() => Ok(()),
                }
            }
            () = self.cut.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "a connection to the control port broke");
        }
    }
}

/// The answer that is about to get a task of its own.
type Entering = Arc<Mutex<Option<Arc<Outflow>>>>;

/// Starts the tasks of a connection's streams, and ends those that stand.
#[derive(Clone)]
struct Streams {
    door: Door,
    entering: Entering,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let outflow = self.entering.lock().take();
        let Door { blocked, kept, cut, tasks, .. } = self.door.clone();
        tasks.spawn(async move {
            let stalled = async {
                match outflow {
                    Some(outflow) => outflow.stalled(blocked).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _done = stream => (),
                () = cut.cancelled() => (),
                // Dropping it resets the stream.
                () = stalled => {
                    kept.stalled();
                    tracing::info!("a stream is reset: its reader took nothing for too long");
                }
            }
        });
    }
}

/// How an answer passes to HTTP/2, which asks for the next part once there is room for it.
#[derive(Debug, Default)]
struct Outflow {
    /// Parts handed over.
    parts: AtomicU64,
    /// The last part may still wait for room.
    held: AtomicBool,
}

impl Outflow {
    fn note(&self, handed: bool) {
        self.held.store(handed, Ordering::Relaxed);
        self.parts.fetch_add(u64::from(handed), Ordering::Relaxed);
    }

    /// Waits until a part has waited for room for `blocked`.
    async fn stalled(&self, blocked: Duration) {
        let (mut seen, mut quiet) = (0, 0);
        while quiet < LOOKS {
            tokio::time::sleep(blocked / LOOKS).await;
            let parts = self.parts.load(Ordering::Relaxed);
            let stands = self.held.load(Ordering::Relaxed) && parts == seen;
            quiet = if stands { quiet + 1 } else { 0 };
            seen = parts;
        }
    }
}

/// The body of an answer, which notes how it passes.
struct Watched {
    body: axum::body::Body,
    outflow: Arc<Outflow>,
    /// Of one that is kept: it is free again when this is dropped, however the answer ends.
    _place: Option<Place>,
}

fn watched(mut response: Response<axum::body::Body>, outflow: Arc<Outflow>) -> Response<Watched> {
    let place = response.extensions_mut().remove::<Place>();
    response.map(|body| Watched { body, outflow, _place: place })
}

impl Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.outflow.note(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_waits_for_its_reader_stands() {
        let blocked = Duration::from_mins(1);
        let [slow_reader, slow_source] = [(); 2].map(|()| Outflow::default());
        slow_reader.note(true);
        slow_source.note(true);
        slow_source.note(false);
        let stands = async |outflow: &Outflow| {
            let waited = tokio::time::timeout(blocked * 2, outflow.stalled(blocked));
            waited.await.is_ok()
        };
        assert!(stands(&slow_reader).await, "it makes no room");
        assert!(!stands(&slow_source).await, "there is nothing to take");
        let reads = async {
            loop {
                tokio::time::sleep(blocked / 2).await;
                slow_reader.note(true);
            }
        };
        tokio::select! {
            stands = stands(&slow_reader) => assert!(!stands, "it takes a part in time"),
            () = reads => (),
        }
    }
}
