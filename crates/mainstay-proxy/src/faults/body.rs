//! An answer's body, with what a fault does to it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mainstay_call::CallError;
use mainstay_call::clock::MonotonicClock;
use mainstay_core::{Clock, Instant};
use mainstay_resilience::Failure;
use mainstay_resilience::fault::FaultKind;
use tokio::time::Sleep;

use super::Injected;
use crate::body::OutBody;
use crate::upstream::UpstreamBody;

/// An answer's body, with what a fault does to it.
#[derive(Debug)]
pub enum FaultyBody<R> {
    /// As it came.
    Plain(R),
    /// None: the answer was made here, or the body has broken off.
    Empty,
    /// It trickles.
    Slow(Box<Slow<R>>),
    /// It breaks off.
    Cut {
        /// As it came.
        body: R,
        /// Bytes that still pass.
        left: u64,
    },
}

/// A body that trickles.
#[derive(Debug)]
pub struct Slow<R> {
    body: R,
    /// What came and may not pass yet.
    rest: Bytes,
    pace: Pace,
}

/// When the next part may pass.
#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    /// When everything that has passed would have passed at this speed.
    due: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<R> FaultyBody<R> {
    /// What `kind` makes of `body`; most kinds make nothing of it.
    pub(super) fn changed(body: R, kind: FaultKind) -> Self {
        match kind {
            FaultKind::SlowBody { bytes_per_second } => {
                let pace = Pace {
                    bytes_per_second: bytes_per_second.get(),
                    due: MonotonicClock.now(),
                    sleep: None,
                };
                Self::Slow(Box::new(Slow { body, rest: Bytes::new(), pace }))
            }
            FaultKind::Truncate { after_bytes } => Self::Cut { body, left: after_bytes },
            _ => Self::Plain(body),
        }
    }

    /// The body that came, if one did.
    pub fn get_mut(&mut self) -> Option<&mut R> {
        match self {
            Self::Plain(body) | Self::Cut { body, .. } => Some(body),
            Self::Slow(slow) => Some(&mut slow.body),
            Self::Empty => None,
        }
    }
}

impl Pace {
    /// Ready once `bytes` more may pass, which then count as passed.
    fn poll_pass(&mut self, cx: &mut Task<'_>, bytes: u64) -> Poll<()> {
        if self.sleep.is_none() {
            let now = MonotonicClock.now();
            // What an upstream was slower by is not made up for, but timers that ring late are.
            self.due = self.due.max(now.minus(PART)).plus(self.takes(bytes));
            self.sleep = Some(Box::pin(tokio::time::sleep(self.due.since(now))));
        }
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
        }
        self.sleep = None;
        Poll::Ready(())
    }

    fn takes(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The largest part that passes at once: a tenth of a second's, at least a byte.
    fn part(&self) -> usize {
        usize::try_from(self.bytes_per_second / 10).unwrap_or(usize::MAX).max(1)
    }
}

impl<R: Body<Data = Bytes> + Unpin> Slow<R> {
    fn poll_frame(&mut self, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let part = self.rest.len().min(self.pace.part());
        ready!(self.pace.poll_pass(cx, part as u64));
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(part)))))
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

impl<R> Body for FaultyBody<R>
where
    R: Body<Data = Bytes, Error = CallError> + Unpin,
{
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        match &mut *self {
            Self::Plain(body) => Pin::new(body).poll_frame(cx),
            Self::Empty => Poll::Ready(None),
            Self::Slow(slow) => slow.poll_frame(cx),
            Self::Cut { body, left: 0 } if !body.is_end_stream() => {
                *self = Self::Empty; // Gives up the exchange, as the caller of a broken one would.
                let error = CallError::failed(Failure::Truncated, Injected("truncate"));
                Poll::Ready(Some(Err(error)))
            }
            Self::Cut { body, left } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map(|frame| pass(frame, left))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) | Self::Cut { body, .. } => body.is_end_stream(),
            Self::Empty => true,
            Self::Slow(slow) => slow.rest.is_empty() && slow.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // The length that was announced stays: that is what makes it a truncated body.
            Self::Plain(body) | Self::Cut { body, .. } => body.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
            Self::Slow(slow) => slow.size_hint(),
        }
    }
}

impl From<FaultyBody<UpstreamBody>> for OutBody {
    fn from(body: FaultyBody<UpstreamBody>) -> Self {
        match body {
            FaultyBody::Plain(body) => Self::Upstream(body),
            FaultyBody::Empty => Self::Empty,
            changed => Self::other(changed),
        }
    }
}

/// The part of `frame` that passes while `left` bytes may.
fn pass(frame: Frame<Bytes>, left: &mut u64) -> Frame<Bytes> {
    match frame.into_data() {
        Ok(mut data) => {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
            Frame::data(data)
        }
        Err(other) => other,
    }
}

/// How much time's worth of bytes passes at once.
const PART: Duration = Duration::from_millis(100);
