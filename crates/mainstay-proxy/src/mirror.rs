//! Sends copies of requests to a service that is only to be watched.
//!
//! Which calls are copied is decided by the route ([`route::mirror`](crate::route::mirror)); this
//! acts on it. A copy is taken before the pipeline and leaves by a sender of its own, so that it
//! shares neither circuit nor budget nor limit with the call it was taken from. It is sent once,
//! without retry or fallback, marked by [`MIRROR_HEADER`], and its answer is read to the end and
//! dropped: an answer given up half way would cost the watched service's connections and make it
//! look worse than it is.
//!
//! A request without a body, as those of the safe methods are, is copied at once. One with a body
//! streams to its own service as ever, and [`Tee`] keeps the parts that pass; the copy leaves when
//! the last one has. What is larger than [`BODY_BYTES_MAX`], or never read to its end, is not
//! copied: nothing is buffered that the call itself would not have read.

mod tee;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use mainstay_call::CallError;
use tokio::sync::oneshot;
use tower_service::Service;

use crate::server::tasks;

pub use tee::Tee;

/// Tells a service that what it gets is a copy, and that nobody will see its answer.
pub const MIRROR_HEADER: HeaderName = HeaderName::from_static("mainstay-mirror");

/// Copies in flight in this process: at 64 KiB each 6.4 MiB. A watched service that is slower than
/// its original loses copies rather than taking the gateway's memory and connections.
pub const IN_FLIGHT_MAX: usize = 100;

/// Largest body that is copied, in bytes: the default of `replay_bytes_max`.
pub const BODY_BYTES_MAX: usize = 65_536;

/// Time for a copy, to the end of its answer: the default of a route's `timeout_seconds`.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mirrored {
    /// It was sent, and its answer came to its end.
    Sent,
    /// It was sent, or was to be, and no whole answer came back.
    Failed,
    /// Its answer did not come to its end in time.
    TimedOut,
    /// [`IN_FLIGHT_MAX`] were in flight; it was dropped.
    Over,
    /// Its body is larger than [`BODY_BYTES_MAX`]; it was dropped.
    TooLarge,
    /// The call ended before its body had been read to the end; there is nothing whole to send.
    Incomplete,
}

impl Mirrored {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Over => "over",
            Self::TooLarge => "too-large",
            Self::Incomplete => "incomplete",
        }
    }
}

/// All copies of this process.
pub struct Mirrors {
    in_flight: AtomicUsize,
    told: Box<dyn Fn(Mirrored) + Send + Sync>,
}

impl Mirrors {
    /// No copies yet. `told` hears once of each what became of it: count, do not wait.
    pub fn new(told: impl Fn(Mirrored) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { in_flight: AtomicUsize::new(0), told: Box::new(told) })
    }

    /// Copies in flight, those that wait for the rest of their body among them.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Passes `request` on, and sends a copy of it by `sender`: now if it has no body, else when
    /// its body has passed. Upgrades are not copied, since a tunnel has no end to wait for.
    ///
    /// # Panics
    ///
    /// Outside of a runtime that takes local tasks.
    pub fn copy<B, S, C, R>(self: &Arc<Self>, request: Request<B>, sender: S) -> Request<Tee<B>>
    where
        B: Body<Data = Bytes>,
        S: Service<Request<C>, Response = Response<R>, Error = CallError> + 'static,
        C: From<Bytes> + 'static,
        R: Body + 'static,
    {
        let (head, body) = request.into_parts();
        if head.headers.contains_key(UPGRADE) {
            return Request::from_parts(head, Tee::plain(body));
        }
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            (self.told)(Mirrored::TooLarge);
            return Request::from_parts(head, Tee::plain(body));
        }
        let Some(flight) = self.enter() else {
            return Request::from_parts(head, Tee::plain(body));
        };
        let copy = marked(&head);
        if body.is_end_stream() {
            tasks::spawn(send(flight, sender, Request::from_parts(copy, C::from(Bytes::new()))));
            return Request::from_parts(head, Tee::plain(body));
        }
        let (whole, passed) = oneshot::channel();
        tasks::spawn(send_after(flight, sender, copy, passed));
        Request::from_parts(head, Tee::keeping(body, whole))
    }

    /// Passes `request` on and copies nothing: for the calls that the route does not copy.
    pub fn pass<B>(request: Request<B>) -> Request<Tee<B>> {
        request.map(Tee::plain)
    }

    /// Counts a copy as in flight while the guard lives; `None`, and told, when there are too many.
    fn enter(self: &Arc<Self>) -> Option<Flight> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < IN_FLIGHT_MAX {
            return Some(Flight { mirrors: Arc::clone(self), end: Mirrored::Incomplete });
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        (self.told)(Mirrored::Over);
        None
    }
}

impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirrors").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// One copy in flight; tells of its end when dropped, however that comes about.
#[derive(Debug)]
struct Flight {
    mirrors: Arc<Mirrors>,
    end: Mirrored,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.mirrors.in_flight.fetch_sub(1, Ordering::Relaxed);
        (self.mirrors.told)(self.end);
    }
}

/// The head of a copy of `head`: the fields that speak of one connection stay behind, and so do
/// the extensions, which hold what the call shares with its stages.
fn marked(head: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.version = head.version;
    copy.headers = head.headers.clone();
    for name in [CONNECTION, EXPECT, TE, TRANSFER_ENCODING] {
        copy.headers.remove(name);
    }
    copy.headers.insert(MIRROR_HEADER, HeaderValue::from_static("1"));
    copy
}

/// Sends the copy with `head` once its body has `passed`. Until then it is only in flight: its time
/// runs from when it is sent, since the caller may be slow.
async fn send_after<S, C, R>(
    mut flight: Flight,
    sender: S,
    head: Parts,
    passed: oneshot::Receiver<Result<Bytes, Mirrored>>,
) where
    S: Service<Request<C>, Response = Response<R>, Error = CallError>,
    C: From<Bytes>,
    R: Body,
{
    match passed.await {
        Ok(Ok(body)) => send(flight, sender, Request::from_parts(head, C::from(body))).await,
        Ok(Err(why)) => flight.end = why,
        Err(_given_up) => (),
    }
}

async fn send<S, C, R>(mut flight: Flight, mut sender: S, request: Request<C>)
where
    S: Service<Request<C>, Response = Response<R>, Error = CallError>,
    R: Body,
{
    flight.end = Mirrored::Failed; // What it is when the runtime ends meanwhile.
    let exchange = async {
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        let answer = sender.call(request).await?;
        Ok::<bool, CallError>(drain(answer.into_body()).await)
    };
    flight.end = match in_time(exchange).await {
        None => Mirrored::TimedOut,
        Some(Ok(true)) => Mirrored::Sent,
        Some(Ok(false) | Err(_)) => Mirrored::Failed,
    };
}

async fn in_time<F: Future>(exchange: F) -> Option<F::Output> {
    tokio::time::timeout(TIMEOUT, exchange).await.ok()
}

/// Reads `body` to its end and drops it; whether it came to its end.
async fn drain(body: impl Body) -> bool {
    let mut body = pin!(body);
    loop {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(_)) => (),
        }
    }
}

#[cfg(test)]
mod tests;
