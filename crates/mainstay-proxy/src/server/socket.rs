//! What is read from and written to on the client's side.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;

use super::pace::Pace;
use crate::http1::READ_BYTES;

/// A client's socket, its [`Pace`], and what was read of it already.
#[derive(Debug)]
pub(super) struct Socket {
    link: Link,
    pace: Rc<Pace>,
    early: BytesMut,
}

/// The client's end.
pub(super) type Link = crate::link::Link<TlsStream<TcpStream>>;

/// The connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Socket {
    pub(super) fn new(link: Link, pace: Rc<Pace>) -> Self {
        Self { link, pace, early: BytesMut::new() }
    }

    /// Reads until the first bytes are, or can no longer be, the preface of HTTP/2, and keeps them:
    /// the next read gives them first.
    pub(super) fn poll_sniff(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let filled = self.early.len().min(PREFACE.len());
            if self.early[..filled] != PREFACE[..filled] {
                return Poll::Ready(Ok(false));
            }
            if filled == PREFACE.len() {
                return Poll::Ready(Ok(true));
            }
            self.early.reserve(READ_BYTES);
            let read = match &mut self.link {
                Link::Plain(tcp) => poll_read_buf(Pin::new(tcp), cx, &mut self.early),
                Link::Tls(tls) => poll_read_buf(Pin::new(tls), cx, &mut self.early),
            };
            let count = ready!(read)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.pace.read.set(self.pace.read.get() + count as u64);
        }
    }

    /// What was read already, for a reader that has a buffer of its own.
    pub(super) fn take_early(&mut self) -> BytesMut {
        std::mem::take(&mut self.early)
    }

    /// Says goodbye where the protocol has a word for it. A plain socket is only closed.
    pub(super) async fn close(mut self) -> io::Result<()> {
        match &mut self.link {
            Link::Plain(_) => Ok(()),
            Link::Tls(tls) => tls.shutdown().await,
        }
    }

    fn note(&self, taken: &Poll<io::Result<usize>>) {
        self.pace.blocked.set(taken.is_pending());
        if let Poll::Ready(Ok(bytes)) = taken {
            self.pace.written.set(self.pace.written.get().wrapping_add(*bytes as u64));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.early.is_empty() {
            let count = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let done = this.link.poll_read(cx, buf);
        let count = buf.filled().len() - before;
        this.pace.read.set(this.pace.read.get().wrapping_add(count as u64));
        done
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = self.link.poll_write(cx, buf);
        self.note(&taken);
        taken
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = self.link.poll_write_vectored(cx, bufs);
        self.note(&taken);
        taken
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(flushed) = self.link.poll_flush(cx) else { return Poll::Ready(Ok(())) };
        self.pace.blocked.set(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_shutdown(cx)
    }
}
