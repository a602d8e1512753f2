//! A body in parts small enough to be handed to HTTP/2 one at a time.
//!
//! HTTP/2 asks for the next part once the peer has made room for the last one, so how a peer takes
//! a body can be seen from part to part alone. A part is what fits a frame of the default size.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes of a part (RFC 9113 section 6.5.2, `SETTINGS_MAX_FRAME_SIZE`).
const PART_BYTES: usize = 16_384;

/// What came with the last part and was too much for it.
#[derive(Debug, Default)]
pub(crate) struct Rest(Bytes);

impl Rest {
    /// The next part: of what is left, else of what comes from `body`.
    pub(crate) fn poll_part<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        body: &mut B,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.0.is_empty() {
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.0 = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let part = self.0.split_to(self.0.len().min(PART_BYTES));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is still to come when `body` has this much.
    pub(crate) fn and(&self, body: &SizeHint) -> SizeHint {
        let rest = self.0.len() as u64;
        let mut all = SizeHint::new();
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            all.set_upper(upper);
        }
        all.set_lower(body.lower().saturating_add(rest));
        all
    }
}
