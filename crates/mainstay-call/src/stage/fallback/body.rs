//! The body of an answer: the one that was asked for, or one at hand.

use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::stale::Keeping;

pin_project! {
    /// The body of an answer that passed the fallback stage.
    #[derive(Debug)]
    pub struct FallbackBody<R> {
        #[pin]
        source: Source<R>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Source<R> {
        // An upstream's, copied on its way if it is to be kept.
        Upstream {
            #[pin]
            body: R,
            keeping: Option<Box<Keeping>>,
        },
        AtHand {
            data: Bytes,
            // gRPC's trailers are still to come.
            trailers: bool,
        },
    }
}

impl<R> FallbackBody<R> {
    /// The upstream's body, if this is one.
    pub fn get_mut(&mut self) -> Option<&mut R> {
        match &mut self.source {
            Source::Upstream { body, .. } => Some(body),
            Source::AtHand { .. } => None,
        }
    }
}

impl<R: Body> FallbackBody<R> {
    /// The upstream's body, copied as it passes if `keeping` is given.
    pub(super) fn upstream(body: R, mut keeping: Option<Box<Keeping>>) -> Self {
        // Nobody may ever ask for the frames of an empty body.
        if let Some(kept) = keeping.take_if(|_| body.is_end_stream()) {
            kept.complete();
        }
        Self { source: Source::Upstream { body, keeping } }
    }

    /// A body of `data`; as one of gRPC it ends with the status OK.
    pub(super) fn at_hand(data: Bytes, grpc: bool) -> Self {
        Self { source: Source::AtHand { data, trailers: grpc } }
    }
}

impl<R: Body<Data = Bytes>> Body for FallbackBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project().source.project() {
            Projected::AtHand { data, trailers } => {
                if !data.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(data)))));
                }
                let last = std::mem::take(trailers);
                Poll::Ready(last.then(|| Ok(Frame::trailers(grpc_ok()))))
            }
            Projected::Upstream { mut body, keeping } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                if let Some(copied) = keeping.take() {
                    *keeping = copy(copied, frame.as_ref(), body.is_end_stream());
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Upstream { body, .. } => body.is_end_stream(),
            Source::AtHand { data, trailers } => data.is_empty() && !trailers,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Upstream { body, .. } => body.size_hint(),
            Source::AtHand { data, .. } => SizeHint::with_exact(data.len() as u64),
        }
    }
}

/// Copies what `frame` holds; returns the copy while it may still become whole.
fn copy<E>(
    mut keeping: Box<Keeping>,
    frame: Option<&Result<Frame<Bytes>, E>>,
    ended: bool,
) -> Option<Box<Keeping>> {
    let over = match frame {
        Some(Err(_broken)) => return None,
        Some(Ok(frame)) => {
            if let Some(data) = frame.data_ref()
                && !keeping.copy(data)
            {
                return None;
            }
            ended || frame.is_trailers()
        }
        None => true,
    };
    if over {
        keeping.complete();
        return None;
    }
    Some(keeping)
}

fn grpc_ok() -> HeaderMap {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    trailers
}
