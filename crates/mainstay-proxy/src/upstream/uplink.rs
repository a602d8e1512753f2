//! Whether the peer of an HTTP/2 stream takes the body of the request.
//!
//! The body is read by a task of hyper's, which asks for a part once the peer's window has room
//! for the one before. The body notes since when a part waits; who waits for the answer looks at
//! that when its timer rings.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mainstay_call::clock::MonotonicClock;
use mainstay_core::{Clock, Instant};
use tokio::time::{Sleep, sleep};

use super::RequestBody;
use crate::body::Rest;

/// Since when a part waits for room; `None` while none does.
#[derive(Debug, Default)]
struct Flow(Cell<Option<Instant>>);

/// The body of a request on its way over HTTP/2.
#[derive(Debug)]
pub(super) struct Sent<B> {
    body: B,
    rest: Rest,
    mark: Option<Mark>,
}

/// The body's end of a [`Flow`]. Without a body nothing waits.
#[derive(Debug)]
struct Mark(Rc<Flow>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.0.set(None);
    }
}

impl<B: RequestBody> Sent<B> {
    /// Notes how `body` passes; the other value tells when it has stood still for `limit`. There is
    /// none when there is nothing to pass.
    pub(super) fn watched(body: B, limit: Duration) -> (Self, Option<Box<Uplink>>) {
        if body.is_end_stream() {
            return (Self { body, rest: Rest::default(), mark: None }, None);
        }
        let flow = Rc::<Flow>::default();
        let mark = Some(Mark(Rc::clone(&flow)));
        let uplink = Uplink { flow, limit, timer: Box::pin(sleep(limit)) };
        (Self { body, rest: Rest::default(), mark }, Some(Box::new(uplink)))
    }

    /// The body as it came. Nothing of it must have been read.
    pub(super) fn into_inner(self) -> B {
        self.body
    }
}

impl<B: RequestBody> Body for Sent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let polled = this.rest.poll_part(&mut this.body, cx);
        if let Some(Mark(flow)) = &this.mark {
            let handed = matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data());
            flow.0.set(handed.then(|| MonotonicClock.now()));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.and(&self.body.size_hint())
    }
}

/// Tells when a peer has made no room for a body for too long.
#[derive(Debug)]
pub(super) struct Uplink {
    flow: Rc<Flow>,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Uplink {
    /// Ready once the peer has made no room for as long as the limit.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The body is over, or given up: nothing more can stand still.
        while 1 < Rc::strong_count(&self.flow) {
            ready!(self.timer.as_mut().poll(cx));
            let now = MonotonicClock.now();
            let waited = self.flow.0.get().map_or(Duration::ZERO, |since| now.since(since));
            match self.limit.checked_sub(waited) {
                None | Some(Duration::ZERO) => return Poll::Ready(()),
                Some(left) => self.timer.set(sleep(left)),
            }
        }
        Poll::Pending
    }
}
