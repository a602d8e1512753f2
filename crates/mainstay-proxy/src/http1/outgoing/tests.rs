use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::Waker;

use http_body::{Frame as BodyFrame, SizeHint};
use proptest::prelude::*;

use super::*;
use crate::framing::{Asked, Element, ResponseGuard};

/// Takes a few bytes at a time, and sometimes none.
#[derive(Debug, Default)]
struct Socket {
    taken: Vec<u8>,
    takes: VecDeque<usize>,
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let takes = self.takes.pop_front().unwrap_or(usize::MAX);
        if takes == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let taken = takes.min(buf.len());
        self.taken.extend_from_slice(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.as_mut().poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Brings its parts one by one; an empty one is a pause.
#[derive(Debug)]
struct Parts(VecDeque<Vec<u8>>, Option<HeaderMap>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(part) if part.is_empty() => Poll::Pending,
            Some(part) => Poll::Ready(Some(Ok(BodyFrame::data(part.into())))),
            None => Poll::Ready(self.1.take().map(|trailers| Ok(BodyFrame::trailers(trailers)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Writes an answer with a body of `parts`, in steps of `takes` bytes.
fn written(
    parts: Vec<Vec<u8>>,
    frame: Frame,
    takes: &[usize],
    trailers: Option<HeaderMap>,
) -> Vec<u8> {
    let mut socket = Socket { takes: takes.iter().copied().collect(), ..Socket::default() };
    let mut out = Outgoing::default();
    let head = out.begin(frame, Some(Parts(parts.into(), trailers)));
    let start = (http::StatusCode::OK, http::Version::HTTP_11);
    super::super::write_response_head(head, start, &HeaderMap::new(), frame, None);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if out.poll(&mut socket, &mut cx).map(Result::unwrap).is_ready() {
            assert!(out.is_over());
            return socket.taken;
        }
    }
    panic!("it never ends");
}

/// The content, as the guard reads it, and whether trailers came.
fn read(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut guard = ResponseGuard::new(65_536);
    guard.ask(Asked::Plain);
    let (mut at, mut content, mut trailers) = (0, Vec::new(), false);
    while at < bytes.len() {
        match guard.next(&bytes[at..]).unwrap() {
            Element::Content(len) => {
                content.extend_from_slice(&bytes[at..at + len]);
                at += len;
            }
            Element::Trailers(len) => {
                trailers = 2 < len;
                at += len;
            }
            Element::Head(len) | Element::Framing(len) => at += len,
            Element::Partial | Element::Held => panic!("cut short"),
        }
    }
    assert!(guard.is_free(), "the message is not over");
    (content, trailers)
}

proptest! {
    /// Whatever the body brings and however little the socket takes, a reader finds the content.
    #[test]
    fn what_is_written_is_read(
        lengths in prop::collection::vec(prop_oneof![Just(0_usize), 1_usize..40, 2_000_usize..5_000], 0..8),
        takes in prop::collection::vec(prop_oneof![Just(0_usize), 1_usize..30, 1_000_usize..9_000], 0..40),
        chunked in any::<bool>(),
    ) {
        let parts: Vec<Vec<u8>> = lengths.iter().enumerate()
            .map(|(n, length)| vec![b'a' + u8::try_from(n).unwrap(); *length])
            .collect();
        let content = parts.concat();
        let frame = if chunked {
            Frame::Chunked { trailers: false }
        } else {
            Frame::Length(content.len() as u64)
        };
        prop_assert_eq!(read(&written(parts, frame, &takes, None)), (content, false));
    }
}

#[test]
fn trailers_follow_when_they_are_wanted() {
    let trailers = || HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
    let parts = || vec![b"ab".to_vec(), vec![b'c'; 4_000]];
    let content = parts().concat();
    for wanted in [true, false] {
        let frame = Frame::Chunked { trailers: wanted };
        assert_eq!(
            read(&written(parts(), frame, &[], Some(trailers()))),
            (content.clone(), wanted)
        );
    }
}

#[test]
fn a_body_of_another_length_is_an_error() {
    for announced in [1, 3] {
        let mut out = Outgoing::default();
        let body = Parts(VecDeque::from([b"ab".to_vec()]), None);
        out.begin(Frame::Length(announced), Some(body));
        let mut cx = Context::from_waker(Waker::noop());
        let end = out.poll(&mut Socket::default(), &mut cx);
        assert!(matches!(end, Poll::Ready(Err(SendError::Length))), "{announced}");
    }
}
