//! The guard between a client's socket and hyper.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

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
/// Nothing is needed beyond `serve_connection` (with or without upgrades):
///
/// - **A broken head.** hyper is told that the client has finished sending. It answers what passed
///   before, then shuts the connection down; the answer to the broken message is written there, in
///   [`AsyncWrite::poll_shutdown`]. (An empty line goes before the end of the stream: with it in
///   its buffer hyper does not take the end for a client that hung up on the request in flight.)
/// - **A broken body.** The handler meets an error of the body, from which [`Refusal::of`] takes
///   the refusal, and answers it. The connection closes after that.
/// - **A body cut short** by the end of the stream is an error of the body too; this is hyper's
///   work and has a test here.
/// - **A switch of protocols.** After such a request nothing is read until hyper writes the answer.
///   A 101 (or 2xx to `CONNECT`) opens the tunnel, anything else lets the next request be read.
/// - **Time.** [`Watch`] says where the client stands, for timers; [`Watch::refuse`] ends the
///   connection for one that was too slow.
#[derive(Debug)]
pub struct GuardedIo<T> {
    inner: T,
    guard: Guard,
    sieve: Sieve,
    watch: Arc<Watch>,
    /// The reader waiting for the answer to a request to switch protocols.
    parked: Option<Waker>,
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
            parked: None,
            farewell: Farewell::EmptyLine,
            answer: None,
        }
    }

    /// What timers and the access log can see of this connection while hyper owns it.
    pub fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// The connection itself, and what was read from it and not passed on.
    pub fn into_parts(self) -> (T, Vec<u8>) {
        (self.inner, self.sieve.into_held())
    }

    /// Whether hyper knows of a request to switch protocols and has not answered it.
    fn awaits_answer(&self) -> bool {
        self.guard.phase() == Phase::Held && self.sieve.ready == 0
    }

    /// hyper has written the beginning of an answer to a request to switch protocols.
    fn answered(&mut self, begin: &[u8]) {
        let switches = match begin.get(..12) {
            Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', status @ ..]) => {
                match (status, self.guard.asked_connect()) {
                    (b"101", false) | ([b'2', ..], true) => true,
                    ([b'1', ..], _) => return,
                    _ => false,
                }
            }
            _ => false,
        };
        if switches {
            self.guard.tunnel();
        } else {
            self.guard.resume();
        }
        self.sieve.judge_again();
        self.watch.see(&self.guard);
        if let Some(reader) = self.parked.take() {
            reader.wake();
        }
    }

    /// Tells hyper that nothing more will come from this client.
    fn refused(&mut self, refusal: Refusal, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        if refusal.begun {
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
        let guard = &mut this.guard;
        let step = this.sieve.poll_read(&mut this.inner, cx, buf, |bytes| guard.feed(bytes));
        this.watch.waiting.store(step.is_pending(), Ordering::Relaxed);
        this.watch.see(&this.guard);
        match ready!(step)? {
            Step::Passed => Poll::Ready(Ok(())),
            Step::Hold => {
                this.parked = Some(cx.waker().clone());
                Poll::Pending
            }
            Step::Refused(refusal) => {
                let refusal = *this.watch.refusal.get_or_init(|| refusal);
                Poll::Ready(this.refused(refusal, buf))
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
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        if 0 < written && this.awaits_answer() {
            this.answered(buf);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        if 0 < written && this.awaits_answer() {
            this.answered(bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf));
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// Answers a head that was refused, then shuts down, then takes from the socket what is there:
    /// bytes left unread would make the kernel reset the connection and the client lose the answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(refusal) = this.watch.refusal().filter(|refusal| !refusal.begun) else {
            return Pin::new(&mut this.inner).poll_shutdown(cx);
        };
        let (bytes, written) = this.answer.get_or_insert_with(|| (refusal.response_bytes(), 0));
        while *written < bytes.len() {
            let rest = bytes.get(*written..).unwrap_or_default();
            match ready!(Pin::new(&mut this.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => *written += len,
            }
        }
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        for _ in 0..DRAIN_READS_MAX {
            let mut scratch = [0; 4096];
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => (),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads of 4 KiB after a refusal: 64 KiB is a receive buffer of ordinary size. More would let the
/// refused client keep the connection.
const DRAIN_READS_MAX: usize = 16;

/// Where a client stands, for those who cannot reach into hyper.
///
/// Written by the connection with each read, read by timers of the same connection; the figures
/// are independent of each other, so nothing is ordered.
#[derive(Debug, Default)]
pub struct Watch {
    phase: AtomicU8,
    received: AtomicU64,
    heads: AtomicU64,
    waiting: AtomicBool,
    refusal: OnceLock<Refusal>,
}

impl Watch {
    /// Where in the stream the client stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Body { received: self.received.load(Ordering::Relaxed) },
            3 => Phase::Held,
            4 => Phase::Tunnel,
            _ => Phase::Ended,
        }
    }

    /// Requests whose head has passed.
    pub fn heads(&self) -> u64 {
        self.heads.load(Ordering::Relaxed)
    }

    /// Whether the last read found nothing: it is the client who keeps us waiting, not we the
    /// client. Time counts against `body_gap_seconds` and `body_rate_min_bytes` only while it is.
    pub fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Why the connection was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    /// Ends the connection as if the client had broken `rule`: [`Rule::HeadSlow`] or
    /// [`Rule::BodySlow`]. Takes effect with the next read: poll the connection after it.
    ///
    /// The first refusal counts; later ones change nothing.
    pub fn refuse(&self, rule: Rule) {
        let begun = matches!(self.phase(), Phase::Body { .. });
        self.refusal.get_or_init(|| Refusal::of_request(rule, begun));
    }

    fn see(&self, guard: &Guard) {
        let phase = match guard.phase() {
            Phase::Idle => 0,
            Phase::Head => 1,
            Phase::Body { received } => {
                self.received.store(received, Ordering::Relaxed);
                2
            }
            Phase::Held => 3,
            Phase::Tunnel => 4,
            Phase::Ended => 5,
        };
        self.phase.store(phase, Ordering::Relaxed);
        self.heads.store(guard.heads(), Ordering::Relaxed);
    }
}
