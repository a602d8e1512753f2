//! The guard between an upstream's socket and hyper.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sieve::{Sieve, Step};
use super::{Asked, Refusal, ResponseGuard, Verdict};

/// An upstream's connection on which hyper sees only what the [`ResponseGuard`] let pass.
///
/// A defect is an error of the read that met it, and of every later one; the bytes before it in
/// the same read are dropped too, so that an answer with bytes after its end in one packet becomes
/// a 502 and not a success. [`Refusal::of`] finds the defect below hyper's error. Like
/// [`super::GuardedIo`] it speaks tokio's traits and copies nothing on the way.
#[derive(Debug)]
pub struct UpstreamIo<T> {
    inner: T,
    guard: ResponseGuard,
    sieve: Sieve,
    exchange: Arc<Exchange>,
}

/// What the owner of an upstream connection tells its guard, and learns from it.
#[derive(Debug, Default)]
pub struct Exchange {
    next: AtomicU8,
    busy: AtomicBool,
    refusal: OnceLock<Refusal>,
}

impl Exchange {
    /// Announces the next request. Call it before handing the request to hyper: with the first
    /// byte written after it an answer is due, and until then any byte read is a defect.
    pub fn begin(&self, asked: Asked) {
        self.busy.store(true, Ordering::Relaxed);
        self.next.store(asked as u8, Ordering::Release);
    }

    /// Whether the last answer came to its end without a byte too many, so that another request
    /// may be sent on this connection.
    pub fn is_free(&self) -> bool {
        !self.busy.load(Ordering::Relaxed) && self.refusal.get().is_none()
    }

    /// The defect that was found, if one was.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    fn take(&self) -> Option<Asked> {
        // A plain load first: it costs nothing on the many writes that follow the first.
        if self.next.load(Ordering::Relaxed) == Asked::Nothing as u8 {
            return None;
        }
        match self.next.swap(Asked::Nothing as u8, Ordering::Acquire) {
            1 => Some(Asked::Plain),
            2 => Some(Asked::Head),
            3 => Some(Asked::Upgrade),
            4 => Some(Asked::Connect),
            _ => None,
        }
    }
}

impl<T> UpstreamIo<T> {
    /// Guards `inner`, a fresh connection whose answers have heads of up to `head_bytes_max` bytes.
    pub fn new(inner: T, head_bytes_max: usize) -> Self {
        let (guard, sieve) = (ResponseGuard::new(head_bytes_max), Sieve::new(Vec::new()));
        Self { inner, guard, sieve, exchange: Arc::default() }
    }

    /// The handle through which requests are announced.
    pub fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    /// The connection itself, and what was read from it and not passed on.
    pub fn into_parts(self) -> (T, Vec<u8>) {
        (self.inner, self.sieve.into_held())
    }

    fn before_write(&mut self) {
        if let Some(asked) = self.exchange.take() {
            self.guard.ask(asked);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for UpstreamIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(refusal) = this.exchange.refusal() {
            return Poll::Ready(Err(refusal.into()));
        }
        let guard = &mut this.guard;
        let step =
            this.sieve.poll_read(&mut this.inner, cx, buf, |bytes| match guard.feed(bytes) {
                Verdict::Refuse { refusal, .. } => Verdict::Refuse { passed: 0, refusal },
                verdict => verdict,
            });
        if this.guard.is_free() && this.exchange.next.load(Ordering::Relaxed) == 0 {
            this.exchange.busy.store(false, Ordering::Relaxed);
        }
        match ready!(step)? {
            Step::Passed | Step::Hold => Poll::Ready(Ok(())),
            Step::Refused(refusal) => {
                let refusal = *this.exchange.refusal.get_or_init(|| refusal);
                Poll::Ready(Err(refusal.into()))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for UpstreamIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.before_write();
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.before_write();
        Pin::new(&mut this.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
