//! A request body that can be sent again.
//!
//! Every part that passes is kept until more than a limit has passed; from then on nothing is
//! kept and the body cannot be repeated, so a large upload costs no memory. A body that is empty,
//! as most are, costs nothing at all. The idea is that of linkerd's `ReplayBody`.
//!
//! A part is as a rule a slice of the buffer that the connection reads into, and a slice holds all
//! of its buffer. So parts below [`COPIED_BYTES_MAX`] are copied together; a caller who sends one
//! byte at a time makes us keep one byte for each, and not a buffer. What is kept takes less than
//! twice its length where it was copied, and at most a buffer of 64 KiB, four times its length,
//! where it was not.
//!
//! One attempt reads at a time. A peer may answer before it has read the whole request, and the
//! transport may then still be sending it; as soon as another attempt begins, the earlier one's
//! body fails, so that it neither steals parts nor passes a cut body off as a whole one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::error::BoxError;

/// Parts shorter than this are copied: 16 KiB, what a frame of HTTP/2 holds.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// A body that remembers what it has given out, up to a limit.
#[derive(Debug)]
pub enum Replay<B> {
    /// There is no body.
    Empty,
    /// This is the attempt that reads from the caller, after giving what is kept.
    Streaming {
        /// What is shared with later attempts.
        shared: Arc<Mutex<Shared<B>>>,
        /// Parts of the kept ones already given in this attempt.
        given: usize,
        /// Number of the attempt; the latest one reads.
        reader: u32,
    },
    /// This attempt is the only one: nothing is shared and nothing kept.
    Once(Option<B>),
}

/// Why a body cannot be read on.
///
/// A type of its own and not a [`BoxError`]: a bound like `Into<BoxError>` on that would keep
/// futures which hold such a body from being given to a task (rust-lang/rust#102211).
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Another attempt has begun to send the same body.
    #[error("another attempt has begun to send this body")]
    Superseded,
    /// The caller's body failed.
    #[error("request body failed")]
    Body(#[source] BoxError),
}

/// What attempts of one call share.
#[derive(Debug)]
pub struct Shared<B> {
    /// The caller's body, until it has ended.
    rest: Option<B>,
    /// Parts that later attempts give again, but for the last ones.
    kept: Vec<Bytes>,
    /// The last ones, copied together. The attempt that reads has given them already.
    tail: BytesMut,
    kept_bytes: usize,
    kept_bytes_max: usize,
    trailers: Option<HeaderMap>,
    /// More has passed than may be kept.
    outgrown: bool,
    /// The caller's body failed; a repetition would be cut short.
    broken: bool,
    /// Number of the attempt that reads.
    reader: u32,
    /// Wakes it, when it waits for the caller.
    waiting: Option<Waker>,
}

impl<B: Body> Replay<B> {
    /// Wraps `body`; keeps at most `kept_bytes_max` bytes of it.
    pub fn new(body: B, kept_bytes_max: usize) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let outgrown = body.size_hint().lower() > kept_bytes_max as u64;
        let shared = Shared {
            rest: Some(body),
            kept: Vec::new(),
            tail: BytesMut::new(),
            kept_bytes: 0,
            kept_bytes_max,
            trailers: None,
            outgrown,
            broken: false,
            reader: 0,
            waiting: None,
        };
        Self::Streaming { shared: Arc::new(Mutex::new(shared)), given: 0, reader: 0 }
    }

    /// Wraps `body` so that it passes as it is, once.
    pub fn once(body: B) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Once(Some(body)) }
    }

    /// Whether the body can be sent once more from its beginning.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(_) => false,
            Self::Streaming { shared, .. } => shared.lock().is_whole(),
        }
    }

    /// The body for one more attempt, which starts again at the beginning, and ends the one before
    /// with [`ReplayError::Superseded`]. `None` when the body has outgrown its limit or broke off.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Once(_) => None,
            Self::Streaming { shared, .. } => {
                let mut state = shared.lock();
                if !state.is_whole() {
                    return None;
                }
                state.seal();
                state.reader = state.reader.wrapping_add(1);
                let (reader, waiting) = (state.reader, state.waiting.take());
                drop(state);
                if let Some(waker) = waiting {
                    waker.wake();
                }
                Some(Self::Streaming { shared: Arc::clone(shared), given: 0, reader })
            }
        }
    }

    /// A second handle on the same body, to ask [`Replay::again`] of while the first is being sent.
    pub(crate) fn handle(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Once(_) => Self::Once(None),
            Self::Streaming { shared, reader, .. } => {
                Self::Streaming { shared: Arc::clone(shared), given: 0, reader: *reader }
            }
        }
    }
}

impl<B> Shared<B> {
    fn is_whole(&self) -> bool {
        !self.broken && (!self.outgrown || self.untouched())
    }

    /// Nothing has passed yet, so even a body that is too large to keep can still be sent.
    fn untouched(&self) -> bool {
        self.kept.is_empty() && self.kept_bytes == 0 && self.rest.is_some()
    }

    fn keep(&mut self, part: &Bytes) {
        self.kept_bytes = self.kept_bytes.saturating_add(part.len());
        if self.kept_bytes > self.kept_bytes_max {
            self.outgrown = true;
        }
        if self.outgrown {
            (self.kept, self.tail) = (Vec::new(), BytesMut::new());
        } else if part.len() < COPIED_BYTES_MAX {
            self.tail.extend_from_slice(part);
        } else {
            self.seal();
            self.kept.push(part.clone());
        }
    }

    /// Makes a part of what was copied together; what follows begins another.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.kept.push(std::mem::take(&mut self.tail).freeze());
        }
    }
}

impl<B: Body + Unpin> Shared<B> {
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        match std::task::ready!(Pin::new(rest).poll_frame(cx)) {
            None => {
                self.rest = None;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.broken = true;
                self.rest = None;
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let part = data.copy_to_bytes(data.remaining());
                    self.keep(&part);
                    Poll::Ready(Some(Ok(Frame::data(part))))
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => {
                        self.trailers = Some(trailers.clone());
                        self.rest = None;
                        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                    }
                    Err(_unknown) => Poll::Ready(None),
                },
            },
        }
    }
}

impl<B> Body for Replay<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let (shared, given, reader) = match self.get_mut() {
            Self::Empty | Self::Once(None) => return Poll::Ready(None),
            Self::Once(Some(body)) => return poll_once(body, cx),
            Self::Streaming { shared, given, reader } => (shared, given, reader),
        };
        let mut state = shared.lock();
        if state.reader != *reader {
            return Poll::Ready(Some(Err(ReplayError::Superseded)));
        }
        if let Some(part) = state.kept.get(*given) {
            *given += 1;
            return Poll::Ready(Some(Ok(Frame::data(part.clone()))));
        }
        if state.rest.is_none() {
            // Trailers go out once in each attempt, after everything that is kept.
            if *given == state.kept.len()
                && let Some(trailers) = state.trailers.clone()
            {
                *given += 1;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = state.poll_rest(cx) else {
            state.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        *given = state.kept.len() + usize::from(state.trailers.is_some());
        Poll::Ready(frame.map(|frame| frame.map_err(|error| ReplayError::Body(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(body) => body.as_ref().is_none_or(Body::is_end_stream),
            Self::Streaming { shared, given, reader } => {
                let state = shared.lock();
                state.reader == *reader
                    && state.rest.as_ref().is_none_or(Body::is_end_stream)
                    && *given >= state.kept.len() + usize::from(state.trailers.is_some())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Once(None) => SizeHint::with_exact(0),
            Self::Once(Some(body)) => body.size_hint(),
            Self::Streaming { shared, given, .. } => {
                let state = shared.lock();
                let kept: usize = state.kept.iter().skip(*given).map(Bytes::len).sum();
                let rest =
                    state.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(kept as u64));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(kept as u64));
                }
                hint
            }
        }
    }
}

fn poll_once<B>(
    body: &mut B,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
    let body = |error: B::Error| ReplayError::Body(error.into());
    let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(whole)).map_err(body)))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

    #[expect(clippy::unnecessary_wraps, reason = "an item of a stream that may fail")]
    fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn body(frames: Frames) -> impl Body<Data = Bytes, Error = &'static str> + Unpin {
        StreamBody::new(futures_util::stream::iter(frames))
    }

    async fn read<B>(body: Replay<B>) -> Option<(Bytes, bool)>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
    {
        let whole = body.collect().await.ok()?;
        let trailers = whole.trailers().is_some();
        Some((whole.to_bytes(), trailers))
    }

    #[tokio::test]
    async fn a_body_within_its_limit_is_the_same_each_time() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let first =
            Replay::new(body(vec![data("ab"), data("cd"), Ok(Frame::trailers(trailers))]), 4);
        let handle = first.handle();
        assert_eq!(read(first).await, Some(("abcd".into(), true)));
        for _ in 0..2 {
            assert_eq!(read(handle.again().unwrap()).await, Some(("abcd".into(), true)));
        }
    }

    #[tokio::test]
    async fn small_parts_do_not_hold_the_buffers_they_are_slices_of() {
        let buffers: Vec<_> = (0..10_000).map(|_| Bytes::from(vec![b'x'; 64])).collect();
        let frames = buffers.iter().map(|buffer| Ok(Frame::data(buffer.slice(..1))));
        let first = Replay::new(body(frames.collect()), 10_000);
        let handle = first.handle();
        assert_eq!(read(first).await.map(|(all, _)| all.len()), Some(10_000));
        assert!(buffers.iter().all(Bytes::is_unique), "a buffer is held");
        let Replay::Streaming { shared, .. } = &handle else { panic!("it has a body") };
        let (parts, capacity) = {
            let state = shared.lock();
            (state.kept.capacity(), state.tail.capacity())
        };
        assert!(parts == 0 && capacity <= 20_000, "{parts} parts, {capacity} bytes");
        for _ in 0..2 {
            let again = read(handle.again().unwrap()).await;
            assert_eq!(again.map(|(all, _)| all.len()), Some(10_000));
        }
    }

    #[tokio::test]
    async fn large_and_small_parts_keep_their_order() {
        let large = Bytes::from(vec![b'-'; COPIED_BYTES_MAX]);
        let frames = || vec![data("ab"), Ok(Frame::data(large.clone())), data("c"), data("d")];
        let want = [b"ab", &*large, b"cd"].concat();
        let mut first = Replay::new(body(frames()), want.len());
        let handle = first.handle();
        // Two attempts that are cut off, each a part later than the one before.
        assert!(first.frame().await.unwrap().is_ok());
        let mut second = handle.again().unwrap();
        for _ in 0..3 {
            assert!(second.frame().await.unwrap().is_ok());
        }
        assert_eq!(second.size_hint().lower(), 0);
        let third = handle.again().unwrap();
        assert_eq!(third.size_hint().lower(), want.len() as u64 - 1);
        assert_eq!(read(third).await, Some((want.into(), false)));
    }

    #[tokio::test]
    async fn an_attempt_cut_off_half_way_is_completed_by_the_next() {
        let mut first = Replay::new(body(vec![data("ab"), data("cd")]), 4);
        let handle = first.handle();
        assert!(first.frame().await.is_some());
        drop(first);
        assert_eq!(read(handle.again().unwrap()).await, Some(("abcd".into(), false)));
    }

    #[tokio::test]
    async fn a_body_that_outgrew_its_limit_passes_whole_but_only_once() {
        let first = Replay::new(body(vec![data("ab"), data("cd")]), 3);
        let handle = first.handle();
        assert_eq!(read(first).await, Some(("abcd".into(), false)));
        assert!(handle.again().is_none());
        // Known to be too large beforehand, and not yet read: one more attempt is possible.
        let large = Replay::new(Full::new(Bytes::from_static(b"abcdef")), 3);
        assert_eq!(read(large.again().unwrap()).await, Some(("abcdef".into(), false)));
        assert!(large.again().is_none());
    }

    #[tokio::test]
    async fn an_attempt_that_is_still_sending_fails_when_the_next_begins() {
        let mut first = Replay::new(body(vec![data("ab"), data("cd")]), 4);
        let handle = first.handle();
        assert!(first.frame().await.unwrap().is_ok());
        let second = handle.again().unwrap();
        assert!(!first.is_end_stream());
        let error = first.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, ReplayError::Superseded), "{error}");
        assert_eq!(read(second).await, Some(("abcd".into(), false)));
    }

    #[tokio::test]
    async fn a_body_that_broke_off_is_not_repeated() {
        let first = Replay::new(body(vec![data("ab"), Err("gone")]), 9);
        let handle = first.handle();
        assert_eq!(read(first).await, None);
        assert!(handle.again().is_none());
    }

    #[test]
    fn no_body_needs_no_memory() {
        let empty = Replay::new(Full::new(Bytes::new()), 9);
        assert!(matches!(empty, Replay::Empty));
        assert_eq!(empty.size_hint().exact(), Some(0));
    }
}
