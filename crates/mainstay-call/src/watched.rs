//! A response body that somebody learns from.
//!
//! An answer is over when its body is: only then is a call no longer in flight, and only then are
//! gRPC's trailers known. Whoever needs to know wraps the body, and is told of the end once, or is
//! dropped when the body was given up.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Learns how a body ended.
pub trait OnEnd {
    /// The body came to its end, with these trailers if it had any. When the body was given up this
    /// is not called and the value is dropped.
    fn ended(self, trailers: Option<&HeaderMap>);

    /// The peer broke the body off.
    fn broke_off(self)
    where
        Self: Sized,
    {
    }
}

pin_project! {
    /// A body and who learns from it.
    #[derive(Debug)]
    pub struct Watched<B, W> {
        #[pin]
        body: B,
        watcher: Option<W>,
    }
}

impl<B: Body, W: OnEnd> Watched<B, W> {
    /// Wraps `body`. A body that is empty ends at once.
    pub fn new(body: B, watcher: Option<W>) -> Self {
        let mut this = Self { body, watcher };
        if this.watcher.is_some()
            && this.body.is_end_stream()
            && let Some(watcher) = this.watcher.take()
        {
            watcher.ended(None);
        }
        this
    }
}

impl<B, W> Watched<B, W> {
    /// The body alone, unwatched in what is done to it here.
    pub fn get_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

impl<B: Body, W: OnEnd> Body for Watched<B, W> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = std::task::ready!(this.body.as_mut().poll_frame(cx));
        if this.watcher.is_some() {
            match &frame {
                None => {
                    if let Some(watcher) = this.watcher.take() {
                        watcher.ended(None);
                    }
                }
                // Whoever reads the body may stop at its last frame without asking for the end.
                Some(Ok(frame)) if frame.is_trailers() || this.body.is_end_stream() => {
                    if let Some(watcher) = this.watcher.take() {
                        watcher.ended(frame.trailers_ref());
                    }
                }
                Some(Err(_)) => {
                    if let Some(watcher) = this.watcher.take() {
                        watcher.broke_off();
                    }
                }
                Some(Ok(_)) => (),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
