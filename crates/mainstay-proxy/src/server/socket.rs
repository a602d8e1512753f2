//! What is read from and written to on the client's side.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;

use super::pace::Pace;
use crate::gather;
use crate::http1::READ_BYTES;

/// A client's socket, its [`Pace`], and what was read of it already.
#[derive(Debug)]
pub(super) struct Socket {
    link: Link,
    pace: Rc<Pace>,
    early: BytesMut,
}

#[derive(Debug)]
pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

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
            let count = std::task::ready!(read)?;
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

impl Link {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
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
        let taken = match &mut self.link {
            Link::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Link::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        };
        self.note(&taken);
        taken
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = match &mut self.link {
            Link::Plain(tcp) => gather::poll_write(tcp, cx, bufs),
            Link::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        };
        self.note(&taken);
        taken
    }

    fn is_write_vectored(&self) -> bool {
        match &self.link {
            Link::Plain(tcp) => tcp.is_write_vectored(),
            Link::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.link {
            Link::Plain(_) => Poll::Ready(Ok(())), // TCP keeps nothing back.
            Link::Tls(tls) => {
                let flushed = Pin::new(tls).poll_flush(cx);
                self.pace.blocked.set(flushed.is_pending());
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.link {
            Link::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Link::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
