//! What is read from and written to on the client's side.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::pace::Pace;
use crate::gather;

/// A client's socket, its [`Pace`], and the bytes that were read to see which protocol it speaks.
#[derive(Debug)]
pub(super) struct Socket {
    link: Link,
    pace: Rc<Pace>,
    early: Early,
}

#[derive(Debug)]
pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connection preface of HTTP/2 (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Default)]
struct Early {
    bytes: [u8; PREFACE.len()],
    filled: usize,
    taken: usize,
}

impl Socket {
    pub(super) fn new(link: Link, pace: Rc<Pace>) -> Self {
        Self { link, pace, early: Early::default() }
    }

    /// Reads until the first bytes are, or can no longer be, the preface of HTTP/2, and keeps them.
    pub(super) fn poll_sniff(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let filled = self.early.filled;
            if self.early.bytes[..filled] != PREFACE[..filled] {
                return Poll::Ready(Ok(false));
            }
            if filled == PREFACE.len() {
                return Poll::Ready(Ok(true));
            }
            let mut buf = ReadBuf::new(&mut self.early.bytes[filled..]);
            std::task::ready!(self.link.poll_read(cx, &mut buf))?;
            let count = buf.filled().len();
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.early.filled += count;
            self.pace.read.set(self.pace.read.get() + count as u64);
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
        if this.early.taken != this.early.filled {
            let early = &this.early.bytes[this.early.taken..this.early.filled];
            let count = early.len().min(buf.remaining());
            buf.put_slice(&early[..count]);
            this.early.taken += count;
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
