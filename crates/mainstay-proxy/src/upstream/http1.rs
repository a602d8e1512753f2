//! One HTTP/1 connection, driven by whoever uses it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use mainstay_call::CallError;
use mainstay_resilience::{Congestion, Failure};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::ReusableBoxFuture;

use super::body::{Drive, UpstreamBody};
use super::pool::Slot;
use super::pulse::Pulse;
use super::wire::{Gauge, Link, Tunnel, Wire};
use super::{RequestBody, failure};
use crate::framing::{self, Asked, UpstreamIo};

/// Bodies up to this length are taken from the connection together with the head when they are
/// already there, so that the connection is free again before the answer is written downstream.
const TOGETHER_MAX: u64 = 65_536;

/// See the [module](self).
pub(super) struct Live<B: RequestBody> {
    connection: Connection<TokioIo<UpstreamIo<Wire>>, B>,
    sender: SendRequest<B>,
    /// The answer to the request that was sent; one allocation for the life of the connection.
    reply: ReusableBoxFuture<'static, hyper::Result<Response<Incoming>>>,
    pulse: Arc<Pulse>,
    /// `pulse` as a waker.
    waker: Waker,
    gauge: Rc<Gauge>,
    /// The guard that reads the answers first.
    guard: Arc<framing::Exchange>,
    stall: Option<Stall>,
    /// The connection future is done.
    ended: bool,
    slot: Slot<B>,
}

/// A write that makes no progress.
struct Stall {
    written: u64,
    timer: Pin<Box<Sleep>>,
}

impl<B: RequestBody> Live<B> {
    /// Sets up HTTP/1 on a connected socket.
    pub(super) async fn open(link: Link, mut slot: Slot<B>) -> Result<Box<Self>, CallError> {
        slot.connected(false);
        let settings = &slot.pool().target().settings;
        let (wire, gauge) = Wire::new(link);
        let io = UpstreamIo::new(wire, settings.head_bytes_max);
        let guard = io.exchange();
        let opened = Builder::new()
            .max_buf_size(settings.head_bytes_max.max(8_192)) // Room for what the guard passes.
            .handshake(TokioIo::new(io))
            .await;
        let (sender, connection) = opened.map_err(|error| failure::before_head(error, false))?;
        let pulse = Arc::new(Pulse::default());
        let waker = Waker::from(Arc::clone(&pulse));
        let reply = ReusableBoxFuture::new(std::future::pending());
        let (stall, ended) = (None, false);
        let live =
            Self { connection, sender, reply, pulse, waker, gauge, guard, stall, ended, slot };
        Ok(Box::new(live))
    }

    /// Whether the next request may go out: open, idle, and no byte has come in unasked.
    pub(super) fn is_reusable(&mut self) -> bool {
        let Self { connection, pulse, waker, .. } = self;
        if !self.ended {
            self.ended = pulse.alone(waker, |cx| connection.poll_without_shutdown(cx)).is_ready();
        }
        !self.ended && self.sender.is_ready()
    }

    /// Queues `request`; the next [`Live::poll_reply`] writes it. The connection must be reusable,
    /// or new.
    pub(super) fn send(&mut self, request: Request<B>) {
        let Self { sender, reply, pulse, waker, .. } = self;
        self.guard.begin(match *request.method() {
            Method::HEAD => Asked::Head,
            Method::CONNECT => Asked::Connect,
            _ if request.headers().contains_key(UPGRADE) => Asked::Upgrade,
            _ => Asked::Plain,
        });
        self.gauge.written.set(0);
        self.stall = None;
        pulse.alone(waker, |_cx| reply.set(sender.send_request(request)));
    }

    /// Drives the connection until the head of the answer is there.
    pub(super) fn poll_reply(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Response<Incoming>, CallError>> {
        let Self { connection, reply, pulse, waker, ended, gauge, guard, .. } = self;
        let answer = pulse.poll(task, waker, |cx| {
            let run = connection.poll_without_shutdown(cx);
            *ended = run.is_ready();
            let answer = Pin::new(&mut *reply).poll(cx);
            if let Some(refusal) = guard.refusal() {
                // Perhaps the head was in order; where the answer ends cannot be told.
                return Poll::Ready(Err(CallError::failed(Failure::Malformed, refusal)));
            }
            match (answer, run) {
                (Poll::Ready(answer), _) => {
                    let sent = gauge.written.get() != 0;
                    Poll::Ready(answer.map_err(|error| failure::before_head(error, sent)))
                }
                (Poll::Pending, Poll::Ready(_)) => Poll::Ready(Err(lost(gauge))),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        });
        if answer.is_pending() {
            ready!(self.poll_stalled(task));
            return Poll::Ready(Err(Failure::Congestion(Congestion::WriteStalled).into()));
        }
        answer
    }

    /// Joins the head with a body that goes on driving the connection.
    pub(super) fn answer(
        self: Box<Self>,
        response: Response<Incoming>,
    ) -> Result<Response<UpstreamBody>, CallError> {
        let (parts, mut incoming) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let tunnel = self.switch()?;
            return Ok(Response::from_parts(parts, UpstreamBody::tunnel(tunnel)));
        }
        if incoming.is_end_stream() {
            self.check_in();
            return Ok(Response::from_parts(parts, UpstreamBody::default()));
        }
        let mut first = None;
        if incoming.size_hint().exact().is_some_and(|length| length <= TOGETHER_MAX) {
            let frame = self.pulse.alone(&self.waker, |cx| Pin::new(&mut incoming).poll_frame(cx));
            if let Poll::Ready(Some(frame)) = frame {
                let frame = frame.map_err(|error| broken(&self.guard, error))?;
                first = frame.into_data().ok(); // Length-delimited bodies have no trailers.
                if incoming.is_end_stream() {
                    self.check_in();
                    return Ok(Response::from_parts(parts, UpstreamBody::whole(first)));
                }
            }
        }
        Ok(Response::from_parts(parts, UpstreamBody::http1(first, incoming, self)))
    }

    /// Back to the pool if the exchange is complete both ways; else it closes.
    fn check_in(self: Box<Self>) {
        if !self.ended && self.sender.is_ready() && self.guard.is_free() {
            self.pulse.forget();
            let pool = Rc::clone(self.slot.pool());
            pool.put(self);
        }
    }

    /// Takes the socket out from under HTTP.
    fn switch(mut self: Box<Self>) -> Result<Tunnel, CallError> {
        if !self.ended {
            let Self { connection, pulse, waker, .. } = &mut *self;
            self.ended = pulse.alone(waker, |cx| connection.poll_without_shutdown(cx)).is_ready();
        }
        if !self.ended {
            return Err(Failure::Malformed.into()); // hyper does not call it a switch.
        }
        let Self { connection, slot, .. } = *self;
        let parts = connection.into_parts();
        let (wire, held) = parts.io.into_inner().into_parts();
        let early = match (parts.read_buf, held) {
            (early, held) if held.is_empty() => early,
            (early, held) => [&early[..], &held].concat().into(),
        };
        Ok(Tunnel::new(wire, early, Box::new(slot)))
    }

    /// Ready when a write has made no progress for too long. Costs nothing while writes go through.
    fn poll_stalled(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if !self.gauge.blocked.get() {
            self.stall = None;
            return Poll::Pending;
        }
        let written = self.gauge.written.get();
        if self.stall.as_ref().is_none_or(|stall| stall.written != written) {
            let timer = Box::pin(sleep(self.slot.pool().target().settings.stall));
            self.stall = Some(Stall { written, timer });
        }
        self.stall.as_mut().map_or(Poll::Pending, |stall| stall.timer.as_mut().poll(task))
    }
}

impl<B: RequestBody> Drive for Live<B> {
    fn poll_frame(
        &mut self,
        task: &mut Context<'_>,
        incoming: &mut Incoming,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let Self { connection, pulse, waker, ended, .. } = self;
        let frame = pulse.poll(task, waker, |cx| {
            if !*ended {
                *ended = connection.poll_without_shutdown(cx).is_ready();
            }
            Pin::new(&mut *incoming).poll_frame(cx)
        });
        if frame.is_pending() {
            ready!(self.poll_stalled(task));
            return Poll::Ready(Some(Err(Failure::Truncated.into())));
        }
        frame.map_err(|error| broken(&self.guard, error))
    }

    fn finish(self: Box<Self>) {
        self.check_in();
    }
}

impl<B: RequestBody> fmt::Debug for Live<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The connection ended and said nothing.
fn lost(gauge: &Gauge) -> CallError {
    Failure::Congestion(Congestion::Lost { sent: gauge.written.get() != 0 }).into()
}

/// The body broke off, or is none.
fn broken(guard: &framing::Exchange, error: hyper::Error) -> CallError {
    match guard.refusal() {
        Some(refusal) => CallError::failed(Failure::Malformed, refusal),
        None => failure::truncated(error),
    }
}
