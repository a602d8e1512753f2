//! The socket under a connection, and what it knows about the last request.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connected socket with its [`Gauge`].
#[derive(Debug)]
pub(super) struct Wire {
    link: Link,
    gauge: Rc<Gauge>,
}

/// The upstream's end.
pub(super) type Link = crate::link::Link<TlsStream<TcpStream>>;

/// What has been handed to the socket. The wire writes it, the exchange reads it.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// Bytes taken since the request began; above TLS, so the handshake does not count.
    pub(super) written: Cell<u64>,
    /// The last write or flush found no room.
    pub(super) blocked: Cell<bool>,
}

impl Wire {
    pub(super) fn new(link: Link) -> (Self, Rc<Gauge>) {
        let gauge = Rc::new(Gauge::default());
        (Self { link, gauge: Rc::clone(&gauge) }, gauge)
    }

    /// Ready when a read is worth trying.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_readable(cx)
    }
}

impl Gauge {
    /// Notes how a write or flush went.
    fn note(&self, taken: &Poll<io::Result<usize>>) {
        self.blocked.set(taken.is_pending());
        if let Poll::Ready(Ok(bytes)) = taken {
            self.written.set(self.written.get().saturating_add(*bytes as u64));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.link.poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = self.link.poll_write(cx, buf);
        self.gauge.note(&taken);
        taken
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = self.link.poll_write_vectored(cx, bufs);
        self.gauge.note(&taken);
        taken
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(flushed) = self.link.poll_flush(cx) else { return Poll::Ready(Ok(())) };
        self.gauge.blocked.set(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_shutdown(cx)
    }
}

/// The upstream's end of a connection that was upgraded by a 101.
pub struct Tunnel {
    wire: Wire,
    /// What came behind the head of the 101.
    early: Bytes,
    /// The connection still counts in its pool.
    _slot: Box<dyn Any>,
    /// What the call holds while it lasts.
    _held: Option<Box<dyn Any>>,
}

impl Tunnel {
    pub(super) fn new(wire: Wire, early: Bytes, slot: Box<dyn Any>) -> Self {
        Self { wire, early, _slot: slot, _held: None }
    }

    /// Keeps `held` for as long as the tunnel.
    pub(crate) fn holding(self, held: impl Any) -> Self {
        Self { _held: Some(Box::new(held)), ..self }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.wire).poll_read(cx, buf);
        }
        let room = buf.remaining().min(self.early.len());
        self.early.copy_to_slice(buf.initialize_unfilled_to(room));
        buf.advance(room);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
