//! HTTP/2 connections: each runs as a task of the thread and is shared by many requests.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay_call::CallError;
use tokio::sync::Notify;

use super::pool::Slot;
use super::uplink::{Sent, Uplink};
use super::wire::{Link, Wire};
use super::{RequestBody, failure};
use crate::server::tasks::{self, LocalExecutor};

/// Streams assumed until the peer's settings say otherwise (hyper's own assumption).
const STREAMS_FIRST: usize = 100;

/// A peer that leaves a ping unanswered this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a silent connection with open streams is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// A connection, as all its users see it.
pub(super) struct Shared<B: RequestBody> {
    sender: SendRequest<Sent<B>>,
    /// Polled by the task until it ends; asked by everybody how many streams the peer allows.
    connection: RefCell<Option<Connection<TokioIo<Wire>, Sent<B>, LocalExecutor>>>,
    /// Streams in use here.
    streams: Cell<usize>,
    /// Sweeps without a stream.
    unused: Cell<u64>,
    /// Tells the task to let the connection go.
    retire: Notify,
    retired: Cell<bool>,
    /// Called when a stream ends and others may be waiting for it.
    freed: Box<dyn Fn()>,
}

impl<B: RequestBody> Shared<B> {
    /// Sets up HTTP/2 on a connected socket, starts its task and adds it to the pool.
    pub(super) async fn open(link: Link, mut slot: Slot<B>) -> Result<Rc<Self>, CallError> {
        let pool = Rc::clone(slot.pool());
        let (wire, _gauge) = Wire::new(link);
        let settings = &pool.target().settings;
        let opened = Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(PING_INTERVAL))
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_max_send_streams(STREAMS_FIRST)
            .max_header_list_size(u32::try_from(settings.head_bytes_max).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(wire))
            .await;
        let (sender, connection) = opened.map_err(failure::opening)?;
        slot.connected(true);
        let weak = Rc::downgrade(&pool);
        let shared = Rc::new(Self {
            sender,
            connection: RefCell::new(Some(connection)),
            streams: Cell::new(0),
            unused: Cell::new(0),
            retire: Notify::new(),
            retired: Cell::new(false),
            freed: Box::new(move || {
                if let Some(pool) = weak.upgrade() {
                    pool.serve_waiting();
                }
            }),
        });
        let known = Rc::clone(&shared);
        tasks::spawn(async move {
            {
                let mut retire = pin!(known.retire.notified());
                std::future::poll_fn(|cx| {
                    let mut connection = known.connection.borrow_mut();
                    let Some(connection) = connection.as_mut() else { return Poll::Ready(()) };
                    let run = Pin::new(connection).poll(cx).map(drop);
                    if run.is_pending() { retire.as_mut().poll(cx) } else { run }
                })
                .await;
            }
            known.retired.set(true);
            // It ends at a `GOAWAY` too, while open streams go on. A request it had accepted and not
            // begun is given back only when it is dropped; it would wait for those streams otherwise.
            let ended = known.connection.take();
            drop(ended);
            slot.pool().unshare(&known);
            drop(slot);
        });
        Ok(shared)
    }

    pub(super) fn has_room(&self) -> bool {
        // Asked from within its own poll it is about to change; assume the peer's default.
        let known = self.connection.try_borrow().ok();
        let known = known.as_deref().and_then(Option::as_ref);
        let streams_max = known.map_or(STREAMS_FIRST, Connection::current_max_send_streams);
        !self.retired.get() && self.sender.is_ready() && self.streams.get() < streams_max.max(1)
    }

    /// Lets the connection go after more than `kept` sweeps without a stream.
    pub(super) fn sweep(&self, kept: u64) {
        let unused = if self.streams.get() == 0 { self.unused.get() + 1 } else { 0 };
        self.unused.set(unused);
        if kept < unused && !self.retired.replace(true) {
            self.retire.notify_one();
        }
    }
}

impl<B: RequestBody> fmt::Debug for Shared<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// A place for one stream on a shared connection.
#[derive(Debug)]
pub(super) struct Stream<B: RequestBody> {
    shared: Rc<Shared<B>>,
    occupied: Occupied,
}

/// What comes back for a stream.
pub(super) type Reply<B> =
    Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Sent<B>>>>>>>;

impl<B: RequestBody> Stream<B> {
    pub(super) fn open(shared: &Rc<Shared<B>>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self { shared: Rc::clone(shared), occupied: Occupied(Rc::clone(shared) as _) }
    }

    /// Sends `request`; the place is held until the second value is dropped. The third tells when
    /// the peer takes no more of the body.
    pub(super) fn send(
        self,
        request: Request<B>,
        stall: Duration,
    ) -> (Reply<B>, Occupied, Option<Box<Uplink>>) {
        let (head, body) = request.into_parts();
        let (body, uplink) = Sent::watched(body, stall);
        let mut sender = self.shared.sender.clone();
        let reply = sender.try_send_request(Request::from_parts(head, body));
        (Box::pin(reply), self.occupied, uplink)
    }
}

/// Counts one stream for as long as it lives.
pub(super) struct Occupied(Rc<dyn Leave>);

trait Leave {
    fn leave(&self);
}

impl<B: RequestBody> Leave for Shared<B> {
    fn leave(&self) {
        self.streams.set(self.streams.get() - 1);
        (self.freed)();
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Occupied")
    }
}

/// Polls an answer; `Err(Some)` is a request that was provably not sent and may be tried again.
pub(super) fn poll_reply<B: RequestBody>(
    reply: &mut Reply<B>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<Incoming>, Unanswered<B>>> {
    reply.as_mut().poll(cx).map_err(|mut error| {
        let request = error.take_message().map(|request| request.map(Sent::into_inner));
        let error = failure::stream(error.into_error(), request.is_some());
        Unanswered { request, error }
    })
}

/// A stream without an answer.
pub(super) struct Unanswered<B> {
    /// The request, when it was provably not sent.
    pub(super) request: Option<Request<B>>,
    pub(super) error: CallError,
}
