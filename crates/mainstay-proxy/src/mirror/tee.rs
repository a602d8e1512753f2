//! A request body that keeps what passes.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use super::{BODY_BYTES_MAX, Mirrored};

pin_project! {
    /// A request body; while a copy of the request waits for it, the parts that pass are kept.
    ///
    /// Trailers pass and are not copied.
    #[derive(Debug)]
    pub struct Tee<B> {
        #[pin]
        body: B,
        keep: Option<Box<Keep>>,
    }
}

/// What a copy waits for.
struct Keep {
    kept: Kept,
    /// Given up without a word when the body is not read to its end.
    whole: Whole,
}

/// Takes the whole body, or why there will be none.
pub(super) type Whole = oneshot::Sender<Result<Bytes, Mirrored>>;

/// The parts so far. A body that comes in one part, as small ones do, is not copied byte by byte.
enum Kept {
    Nothing,
    One(Bytes),
    Several(BytesMut),
}

impl<B> Tee<B> {
    /// Keeps nothing.
    pub(super) fn plain(body: B) -> Self {
        Self { body, keep: None }
    }

    /// Keeps what passes of `body` and gives it to `whole` at its end.
    pub(super) fn keeping(body: B, whole: Whole) -> Self {
        Self { body, keep: Some(Box::new(Keep { kept: Kept::Nothing, whole })) }
    }
}

impl Kept {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(part) => part.len(),
            Self::Several(parts) => parts.len(),
        }
    }

    fn add(&mut self, part: &Bytes) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Self::One(part.clone()),
            Self::One(first) => {
                let mut parts = BytesMut::with_capacity(first.len() + part.len());
                parts.extend_from_slice(&first);
                parts.extend_from_slice(part);
                Self::Several(parts)
            }
            Self::Several(mut parts) => {
                parts.extend_from_slice(part);
                Self::Several(parts)
            }
        };
    }

    fn whole(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(part) => part,
            Self::Several(parts) => parts.freeze(),
        }
    }
}

/// Takes note of a part.
fn note(keep: &mut Option<Box<Keep>>, part: &Bytes) {
    if let Some(mut waiting) = keep.take() {
        if BODY_BYTES_MAX < waiting.kept.len() + part.len() {
            tell(waiting.whole, Err(Mirrored::TooLarge));
            return;
        }
        if !part.is_empty() {
            waiting.kept.add(part);
        }
        *keep = Some(waiting);
    }
}

/// The body has come to its end: the copy can leave.
fn end(keep: &mut Option<Box<Keep>>) {
    if let Some(waiting) = keep.take() {
        let Keep { kept, whole } = *waiting;
        tell(whole, Ok(kept.whole()));
    }
}

/// Nobody listens any more only when the runtime ends.
fn tell(whole: Whole, said: Result<Bytes, Mirrored>) {
    drop(whole.send(said));
}

impl<B: Body<Data = Bytes>> Body for Tee<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if this.keep.is_some() {
            match &frame {
                None => end(this.keep),
                Some(Err(_)) => *this.keep = None,
                Some(Ok(frame)) => {
                    if let Some(part) = frame.data_ref() {
                        note(this.keep, part);
                    }
                    // Whoever reads it may stop at the last frame without asking for the end.
                    if frame.is_trailers() || this.body.is_end_stream() {
                        end(this.keep);
                    }
                }
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

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keep").field("bytes", &self.kept.len()).finish_non_exhaustive()
    }
}
