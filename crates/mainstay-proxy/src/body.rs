//! The bodies that pass through the gateway, each one type.
//!
//! [`InBody`] is what a caller sends, [`OutBody`] what it gets. Both are enums in a coat, so that
//! the way of a plain proxied request needs no allocation and no virtual call.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mainstay_call::stage::balance::Attempt;
use mainstay_call::stage::circuit::Pending;
use mainstay_call::stage::deadline::Bounded;
use mainstay_call::stage::fallback::FallbackBody;
use mainstay_call::stage::limit::Holding;
use mainstay_call::watched::Watched;
use mainstay_call::{BoxError, CallError};
use mainstay_core::Problem;
use mainstay_core::problem::Code;
use parking_lot::Mutex;

use crate::faults::FaultyBody;
use crate::upstream::UpstreamBody;

mod feed;
mod parts;
mod streamed;

pub(crate) use feed::Feed;
pub(crate) use parts::Rest;
pub(crate) use streamed::End;
pub use streamed::Streamed;

/// The body of an answer on its way to the caller.
#[derive(Debug, Default)]
pub enum OutBody {
    /// Nothing.
    #[default]
    Empty,
    /// All of it, at hand.
    Full(Bytes),
    /// Streamed from upstream.
    Upstream(UpstreamBody),
    /// Streamed from upstream through the stages of a call.
    Pipeline(Streamed),
    /// Whatever else a stage makes of it.
    Other(Other),
}

/// The body of an answer that came through the stages of [`pipeline`](crate::pipeline).
pub type PipelineBody = Bounded<Watched<FallbackBody<AttemptBody>, Holding>>;

/// The body of an answer to one attempt.
pub type AttemptBody = Watched<Watched<FaultyBody<UpstreamBody>, Pending>, Attempt>;

/// A body made by a stage: one allocation, one virtual call a frame.
pub struct Other(Pin<Box<dyn Body<Data = Bytes, Error = CallError>>>);

impl OutBody {
    /// Wraps a body that a stage made.
    pub fn other(body: impl Body<Data = Bytes, Error = CallError> + 'static) -> Self {
        Self::Other(Other(Box::pin(body)))
    }

    /// The upstream's end of the tunnel in the body of a 101, which came through the stages
    /// untouched. What the stages hold for the call is held by the tunnel from here on, and whoever
    /// is told of the end is told when that ends.
    pub(crate) fn into_tunnel(self) -> Self {
        let Self::Pipeline(mut body) = self else { return Self::Empty };
        let attempt = body.get_mut().get_mut().get_mut().get_mut();
        let upstream = attempt.and_then(|attempt| attempt.get_mut().get_mut().get_mut());
        match upstream.and_then(UpstreamBody::take_tunnel) {
            Some(tunnel) => Self::Upstream(UpstreamBody::tunnel(tunnel.holding(body))),
            None => Self::Empty,
        }
    }
}

impl From<UpstreamBody> for OutBody {
    fn from(body: UpstreamBody) -> Self {
        Self::Upstream(body)
    }
}

impl From<Bytes> for OutBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Pipeline(body) => Pin::new(body).poll_frame(cx),
            Self::Other(Other(body)) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Upstream(body) => body.is_end_stream(),
            Self::Pipeline(body) => body.is_end_stream(),
            Self::Other(Other(body)) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.size_hint(),
            Self::Pipeline(body) => body.size_hint(),
            Self::Other(Other(body)) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Other")
    }
}

/// The body a caller sends, under the eye of the server: one that comes too slowly ends with
/// [`BodyError::TooSlow`].
#[derive(Debug)]
pub struct InBody {
    source: Source,
    /// Bytes that may still come.
    left: u64,
    /// `None` when there is nothing to wait for.
    meter: Option<Arc<Meter>>,
}

/// Where a caller's body comes from.
#[derive(Debug)]
enum Source {
    /// There is none.
    Nowhere,
    /// An HTTP/1 connection.
    Http1(Arc<Feed>),
    /// A stream of HTTP/2.
    Http2(Incoming),
}

/// Why a caller's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or what came was no body.
    #[error("request body broke off")]
    Broken(#[source] BoxError),
    /// Too little came for too long: `body-timeout`.
    #[error("request body came too slowly")]
    TooSlow,
    /// More came than the route takes: `body-too-large`.
    #[error("request body is too large")]
    TooLarge,
}

impl BodyError {
    /// The problem that a caller is told of whose body `error` is about; `None` when it is about
    /// something else.
    pub(crate) fn problem_of(error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
        let code = match error.downcast_ref::<Self>()? {
            Self::Broken(source) => match crate::framing::Refusal::of(&**source) {
                Some(refusal) => {
                    return Some(Problem::new(refusal.problem, refusal.rule.detail()));
                }
                None => Code::Cancelled,
            },
            Self::TooSlow => Code::BodyTimeout,
            Self::TooLarge => Code::BodyTooLarge,
        };
        Some(Problem::new(code, code.title()))
    }
}

/// What the server watches of a body.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    /// We want more and there is none. While upstream is the slow one this is unset.
    waiting: AtomicBool,
    ended: AtomicBool,
    expired: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl InBody {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self { source: Source::Nowhere, left: u64::MAX, meter: None }
    }

    /// What `feed` is given, under watch.
    pub(crate) fn fed(feed: Arc<Feed>) -> (Self, Arc<Meter>) {
        let meter = Arc::<Meter>::default();
        let known = Some(Arc::clone(&meter));
        (Self { source: Source::Http1(feed), left: u64::MAX, meter: known }, meter)
    }

    /// Puts `incoming` under watch, if there is anything to come.
    pub(crate) fn http2(incoming: Incoming) -> (Self, Option<Arc<Meter>>) {
        let meter = (!incoming.is_end_stream()).then(Arc::<Meter>::default);
        (Self { source: Source::Http2(incoming), left: u64::MAX, meter: meter.clone() }, meter)
    }

    /// What is counted of it, if there is anything to come.
    pub(crate) fn meter(&self) -> Option<Arc<Meter>> {
        self.meter.clone()
    }

    /// The same body, which ends with [`BodyError::TooLarge`] once more than `bytes` have come.
    #[must_use]
    pub fn limited(mut self, bytes: u64) -> Self {
        self.left = bytes;
        self
    }
}

impl Meter {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes so far, and whether more are waited for. `None` when the body is over.
    pub(crate) fn read(&self) -> Option<(u64, bool)> {
        let over = self.ended.load(Ordering::Relaxed);
        let now = || (self.bytes(), self.waiting.load(Ordering::Relaxed));
        (!over).then(now)
    }

    /// Ends the body with [`BodyError::TooSlow`].
    pub(crate) fn expire(&self) {
        self.expired.store(true, Ordering::Release);
        if let Some(reader) = self.reader.lock().take() {
            reader.wake();
        }
    }

    /// Notes how a poll went.
    fn note<E>(&self, frame: &Poll<Option<Result<Frame<Bytes>, E>>>, reader: &Waker) {
        self.waiting.store(frame.is_pending(), Ordering::Relaxed);
        match frame {
            Poll::Pending => *self.reader.lock() = Some(reader.clone()),
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.bytes.fetch_add(length, Ordering::Relaxed);
            }
            Poll::Ready(_) => self.ended.store(true, Ordering::Relaxed),
        }
    }
}

impl Body for InBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.source {
            Source::Nowhere => return Poll::Ready(None),
            Source::Http1(feed) => feed.poll_frame(cx),
            Source::Http2(incoming) => {
                let frame = Pin::new(incoming).poll_frame(cx);
                frame.map_err(|error| BodyError::Broken(error.into()))
            }
        };
        if let Some(meter) = &self.meter {
            meter.note(&frame, cx.waker());
            if frame.is_pending() && meter.expired.load(Ordering::Acquire) {
                return Poll::Ready(Some(Err(BodyError::TooSlow)));
            }
        }
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nowhere => true,
            Source::Http1(feed) => feed.is_over(),
            Source::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nowhere => SizeHint::with_exact(0),
            Source::Http1(feed) => feed.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Http2(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for InBody {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.ended.store(true, Ordering::Relaxed);
        }
    }
}
