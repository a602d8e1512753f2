//! The body of an answer from upstream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mainstay_call::CallError;
use mainstay_resilience::Failure;

use super::failure;
use super::http2::Occupied;
use super::uplink::Uplink;
use super::wire::Tunnel;

/// The body of an answer, and the connection it comes over.
///
/// Polling it drives the connection; read to its end it gives the connection back; dropped before,
/// it closes the connection, or resets the stream. An error carries `Truncated`.
#[derive(Debug, Default)]
pub struct UpstreamBody(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    /// All of it came with the head.
    Whole(Bytes),
    Http1(Box<dyn Drive>),
    Http2 {
        incoming: Incoming,
        /// Counts the stream until the body is gone.
        _stream: Occupied,
        /// The body of the request, if there is one, may still be on its way.
        uplink: Option<Box<Uplink>>,
    },
    Tunnel(Box<Tunnel>),
}

/// An HTTP/1 connection of any body type, as its response body sees it.
pub(super) trait Drive {
    fn poll_frame(&mut self, cx: &mut Context<'_>)
    -> Poll<Option<Result<Frame<Bytes>, CallError>>>;

    /// Bytes still to come, where that is known.
    fn left(&self) -> Option<u64>;

    /// Whether nothing more will come.
    fn is_over(&self) -> bool;

    /// The body was read to its end.
    fn finish(self: Box<Self>);
}

impl UpstreamBody {
    /// All of an answer that is at hand.
    pub(crate) fn whole(data: Bytes) -> Self {
        Self(if data.is_empty() { Kind::Empty } else { Kind::Whole(data) })
    }

    pub(super) fn http1(live: Box<dyn Drive>) -> Self {
        Self(Kind::Http1(live))
    }

    pub(super) fn http2(incoming: Incoming, stream: Occupied, uplink: Option<Box<Uplink>>) -> Self {
        Self(Kind::Http2 { incoming, _stream: stream, uplink })
    }

    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        Self(Kind::Tunnel(Box::new(tunnel)))
    }

    /// Takes the upstream's end of the tunnel out of the answer 101; `None` for any other answer.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::take(&mut self.0) {
            Kind::Tunnel(tunnel) => Some(*tunnel),
            other => {
                self.0 = other;
                None
            }
        }
    }

    /// Ends the body; gives its connection back.
    fn finish(&mut self) {
        if let Kind::Http1(live) = std::mem::take(&mut self.0) {
            live.finish();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        match &mut self.0 {
            Kind::Empty | Kind::Tunnel(_) => Poll::Ready(None),
            Kind::Whole(data) => {
                let data = std::mem::take(data);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Kind::Http1(live) => {
                let frame = ready!(live.poll_frame(cx));
                match &frame {
                    None => self.finish(),
                    Some(Ok(_)) if live.is_over() => self.finish(),
                    Some(Ok(_)) => (),
                    Some(Err(_)) => self.0 = Kind::Empty,
                }
                Poll::Ready(frame)
            }
            Kind::Http2 { incoming, uplink, .. } => {
                let frame = match Pin::new(incoming).poll_frame(cx) {
                    Poll::Ready(frame) => frame.map(|frame| frame.map_err(failure::truncated)),
                    Poll::Pending => {
                        let Some(uplink) = uplink else { return Poll::Pending };
                        ready!(uplink.poll_stalled(cx));
                        Some(Err(Failure::Truncated.into()))
                    }
                };
                if frame.as_ref().is_none_or(Result::is_err) {
                    self.0 = Kind::Empty;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            // A tunnel has no frames, and is not over: what a call holds is held until it ends.
            Kind::Tunnel(_) | Kind::Whole(_) => false,
            Kind::Http1(live) => live.is_over(),
            Kind::Http2 { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty | Kind::Tunnel(_) => SizeHint::with_exact(0),
            Kind::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Kind::Http1(live) => live.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Kind::Http2 { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Whole(_) => "Whole",
            Self::Http1(_) => "Http1",
            Self::Http2 { .. } => "Http2",
            Self::Tunnel(_) => "Tunnel",
        })
    }
}
