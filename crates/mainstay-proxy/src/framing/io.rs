//! The guard between a client's socket and hyper.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sieve::{Sieve, Step};
use super::{Guard, Limits, Phase, Refusal, Rule};

/// A client's connection on which hyper sees only what the [`Guard`] let pass.
///
/// It speaks tokio's traits, whose [`ReadBuf`] shows what a read filled and takes bytes back, so
/// that bytes are judged where hyper will use them and nothing is copied; wrap it in
/// `hyper_util::rt::TokioIo`. Only the bytes of an element cut by a read are set aside.
///
/// # What the driver does
///
/// - **A broken head.** hyper is told that the client has finished sending. It answers what passed
///   before, then shuts the connection down; the answer to the broken message is written there, in
///   [`AsyncWrite::poll_shutdown`], and the driver need do nothing. (An empty line goes before the end of the stream: with it in
///   its buffer hyper does not take the end for a client that hung up on the request in flight.)
/// - **A broken body.** The handler meets an error of the body, from which [`Refusal::of`] takes
///   the refusal, and answers it. The connection closes after that.
/// - **A body cut short** by the end of the stream is an error of the body too; this is hyper's
///   work and has a test here.
/// - **A switch of protocols.** After such a request nothing is read until the service says by
///   [`Watch::declined`] that it stays with HTTP. The answers on the wire cannot tell: the head that
///   asks may have passed together with earlier ones, and then the next answer is not its own. Once
///   hyper has written a 101 and ended, [`GuardedIo::into_parts`] yields the socket and what belongs
///   to the tunnel.
/// - **A slow head.** [`Watch::head_is_late`] ends the connection with a 408.
/// - **The end.** While [`GuardedIo::is_unread`] the client may still be sending: closing at once
///   would make the kernel reset the connection, and the client lose the answer.
#[derive(Debug)]
pub struct GuardedIo<T> {
    inner: T,
    guard: Guard,
    sieve: Sieve,
    watch: Arc<Watch>,
    /// How much of the refused head's stand-in hyper has seen.
    farewell: Farewell,
    /// The answer to a refused head, while it is being written.
    answer: Option<(Vec<u8>, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    EmptyLine,
    End,
}

impl<T> GuardedIo<T> {
    /// Guards `inner`. `first` are bytes that were read from it already, to tell protocols apart.
    pub fn new(inner: T, limits: Limits, first: Vec<u8>) -> Self {
        Self {
            inner,
            guard: Guard::new(limits),
            sieve: Sieve::new(first),
            watch: Arc::default(),
            farewell: Farewell::EmptyLine,
            answer: None,
        }
    }

    /// The handle of those who cannot reach into hyper.
    pub fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// The connection itself, and what was read from it and not passed on.
    pub fn into_parts(self) -> (T, Vec<u8>) {
        (self.inner, self.sieve.into_held())
    }

    /// Whether the client was cut short: refused, or in the middle of a message.
    pub fn is_unread(&self) -> bool {
        let within = matches!(self.guard.phase(), Phase::Head | Phase::Body { .. });
        within || self.watch.refusal().is_some()
    }

    /// Tells hyper that nothing more will come from this client.
    fn refused(&mut self, refusal: Refusal, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        if refusal.begun || matches!(self.guard.phase(), Phase::Body { .. }) {
            return Err(refusal.into());
        }
        if self.farewell == Farewell::EmptyLine && 2 <= buf.remaining() {
            buf.put_slice(b"\r\n");
            self.farewell = Farewell::End;
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for GuardedIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(refusal) = this.watch.refusal()
            && this.sieve.ready == 0
        {
            return Poll::Ready(this.refused(refusal, buf));
        }
        loop {
            let guard = &mut this.guard;
            let step = this.sieve.poll_read(&mut this.inner, cx, buf, |bytes| guard.feed(bytes));
            match ready!(step)? {
                Step::Passed => return Poll::Ready(Ok(())),
                Step::Hold if this.watch.park(this.guard.heads(), cx.waker()) => {
                    return Poll::Pending;
                }
                Step::Hold => {
                    this.guard.resume();
                    this.sieve.judge_again();
                }
                Step::Refused(refusal) => {
                    let refusal = *this.watch.refusal.get_or_init(|| refusal);
                    return Poll::Ready(this.refused(refusal, buf));
                }
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// Answers a head that was refused, then shuts down.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(refusal) = this.watch.refusal().filter(|refusal| !refusal.begun) {
            let (bytes, written) = this.answer.get_or_insert_with(|| (refusal.response_bytes(), 0));
            while *written < bytes.len() {
                let rest = bytes.get(*written..).unwrap_or_default();
                match ready!(Pin::new(&mut this.inner).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    len => *written += len,
                }
            }
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// What those who cannot reach into hyper tell a [`GuardedIo`], and learn from it.
#[derive(Debug, Default)]
pub struct Watch {
    /// The last request that was answered, counted from 1, and stayed with HTTP.
    declined: AtomicU64,
    /// The reader waits for the answer to a request to switch protocols.
    parked: AtomicBool,
    reader: Mutex<Option<Waker>>,
    refusal: OnceLock<Refusal>,
}

impl Watch {
    /// Says that the answer to request `number` of the connection, counted from 1, does not switch
    /// protocols. To be called for every such request.
    pub fn declined(&self, number: u64) {
        self.declined.store(number, Ordering::Release);
        if self.parked.load(Ordering::Acquire) {
            self.parked.store(false, Ordering::Relaxed);
            if let Some(reader) = self.reader.lock().take() {
                reader.wake();
            }
        }
    }

    /// Why the connection was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    /// Ends the connection of a client whose next head does not come to its end. Takes effect with
    /// the next read: poll the connection after it. What was refused before stays as it was.
    pub fn head_is_late(&self) {
        self.refusal.get_or_init(|| Refusal::of_request(Rule::HeadSlow, false));
    }

    /// Waits for the answer to request `number`; false if it was declined already.
    fn park(&self, number: u64, reader: &Waker) -> bool {
        *self.reader.lock() = Some(reader.clone());
        self.parked.store(true, Ordering::Release);
        let waits = self.declined.load(Ordering::Acquire) < number;
        if !waits {
            self.parked.store(false, Ordering::Relaxed);
        }
        waits
    }
}
