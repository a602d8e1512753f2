//! Tells a WebSocket client that the server goes away, before it is cut off.
//!
//! A tunnel carries bytes that mean nothing to us, and a word put between any two of them would be
//! read as a part of whatever was on its way. So the frames that pass from the service to the
//! client are followed by their lengths (RFC 6455, section 5.2), and the farewell, a close frame
//! with status 1001 "going away" (section 7.4.1), waits for the end of the frame that is passing;
//! between the fragments of a message a control frame is allowed (5.4). After it nothing more may
//! come from this side (5.5.1), so for the client the stream then ends. What the client answers
//! still reaches the service, which learns from it that the connection is closing.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::Pace;

/// FIN and opcode 8, two bytes of payload, status 1001.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// The service's end of a tunnel, whose reader is told when the worker drains.
#[derive(Debug)]
pub(super) struct Farewell<T> {
    inner: T,
    pace: Rc<Pace>,
    frames: Frames,
    /// Bytes of the farewell that have been read.
    said: usize,
}

impl<T> Farewell<T> {
    pub(super) fn new(inner: T, pace: Rc<Pace>) -> Self {
        Self { inner, pace, frames: Frames::default(), said: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Farewell<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let leaving = this.pace.leaving.get();
        if leaving && (this.said > 0 || this.frames.is_between()) {
            let rest = &GOING_AWAY[this.said..];
            let count = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..count]);
            this.said += count;
            return Poll::Ready(Ok(())); // Nothing, once all is said: the end.
        }
        let before = buf.filled().len();
        if leaving {
            // No further than the frame that is passing.
            let mut some = buf.take(this.frames.certain());
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut some))?;
            let count = some.filled().len();
            // `some` is a view of the unfilled part, so these bytes have been written.
            let bytes = some.filled().to_vec();
            buf.initialize_unfilled_to(count).copy_from_slice(&bytes);
            buf.advance(count);
        } else {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        }
        this.frames.pass(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Farewell<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where in its frames a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frames {
    /// Bytes of the head that have passed: two, then those of a longer length, then a mask.
    head: [u8; HEAD_MAX],
    headed: usize,
    /// Bytes of the payload that are to come, once the head has passed.
    payload: u64,
}

/// Two bytes, eight of a length, four of a mask.
const HEAD_MAX: usize = 14;

impl Frames {
    /// Whether one frame has ended and no other has begun.
    fn is_between(&self) -> bool {
        self.headed == 0
    }

    /// How many bytes certainly still belong to the frame that is passing; at least one.
    fn certain(&self) -> usize {
        if self.headed < self.head_len() {
            return self.head_len() - self.headed;
        }
        usize::try_from(self.payload).unwrap_or(usize::MAX)
    }

    /// Length of the head, as far as it is known.
    fn head_len(&self) -> usize {
        if self.headed < 2 {
            return 2;
        }
        let longer = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + longer + mask
    }

    /// Length of the payload, of a head that has passed.
    fn payload_len(&self) -> u64 {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
        match self.head[1] & 0x7f {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => u64::from(short),
        }
    }

    /// Notes bytes that have passed.
    fn pass(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.headed < self.head_len() {
                self.head[self.headed] = *first;
                self.headed += 1;
                bytes = rest;
                if self.headed == self.head_len() {
                    self.payload = self.payload_len();
                }
            } else {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
            }
            if self.headed == self.head_len() && self.payload == 0 {
                self.headed = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(opcode: u8, len: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match len {
            0..126 => frame.push(mask | u8::try_from(len).unwrap()),
            126..65_536 => {
                frame.push(mask | 0x7e);
                frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[9; 4][..if masked { 4 } else { 0 }]);
        frame.resize(frame.len() + len, 0x88);
        frame
    }

    proptest! {
        /// However the bytes of frames are cut, their ends are found.
        #[test]
        fn frames_are_followed_however_they_are_cut(
            frames in prop::collection::vec((0usize..70_000, any::<bool>()), 1..4),
            cuts in prop::collection::vec(1usize..5_000, 1..20),
        ) {
            let mut follower = Frames::default();
            let mut cuts = cuts.into_iter().cycle();
            for (len, masked) in frames {
                let frame = frame(2, len, masked);
                let mut rest = frame.as_slice();
                while !rest.is_empty() {
                    let cut = cuts.next().unwrap().min(rest.len());
                    follower.pass(&rest[..cut]);
                    rest = &rest[cut..];
                    prop_assert_eq!(follower.is_between(), rest.is_empty());
                    prop_assert!(rest.is_empty() || follower.certain() <= rest.len());
                }
            }
        }
    }

    #[tokio::test]
    async fn the_farewell_waits_for_the_end_of_a_frame() {
        let pace = Rc::new(Pace::default());
        let (mut service, inner) = tokio::io::duplex(1 << 20);
        let mut client = Farewell::new(inner, Rc::clone(&pace));
        let long = frame(2, 300, false);
        service.write_all(&[frame(1, 5, false), long[..100].to_vec()].concat()).await.unwrap();
        let mut got = vec![0; 107];
        client.read_exact(&mut got).await.unwrap();
        pace.leaving.set(true);
        // The rest of the frame, and another that must not pass any more.
        service.write_all(&[long[100..].to_vec(), frame(1, 5, false)].concat()).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [&long[100..], &GOING_AWAY].concat());
        // The client's answer still reaches the service.
        client.write_all(b"bye").await.unwrap();
        let mut heard = [0; 3];
        service.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"bye");
    }
}
