//! Reading through a machine without copying.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::{Refusal, Verdict};

/// Lets bytes through as a machine allows, and keeps what it did not pass.
#[derive(Debug)]
pub(crate) struct Sieve {
    /// Bytes that hyper has not seen: first those that may go on, then an incomplete element.
    held: Vec<u8>,
    /// How many of them may go on.
    pub(crate) ready: usize,
    /// The machine has not judged what is held.
    fresh: bool,
}

/// What a read came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The buffer holds what passed; if nothing, the stream has ended.
    Passed,
    /// Nothing may be read before the switch of protocols is answered.
    Hold,
    /// The buffer holds nothing, and nothing will come.
    Refused(Refusal),
}

impl Sieve {
    pub(crate) fn new(first: Vec<u8>) -> Self {
        Self { fresh: !first.is_empty(), held: first, ready: 0 }
    }

    /// Reads until something passes, the stream ends, or the socket is empty.
    pub(crate) fn poll_read<T: AsyncRead + Unpin>(
        &mut self,
        inner: &mut T,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        mut judge: impl FnMut(&[u8]) -> Verdict,
    ) -> Poll<io::Result<Step>> {
        let before = buf.filled().len();
        loop {
            let verdict = if self.ready != 0 {
                self.deliver(buf);
                return Poll::Ready(Ok(Step::Passed));
            } else if self.fresh {
                self.fresh = false;
                let verdict = judge(&self.held);
                self.ready = verdict.passed();
                verdict
            } else {
                if !self.held.is_empty() {
                    // What is held may be more than an incomplete element.
                    match judge(&[]) {
                        Verdict::Pass { .. } => (),
                        Verdict::Hold { .. } => return Poll::Ready(Ok(Step::Hold)),
                        Verdict::Refuse { refusal, .. } => {
                            return Poll::Ready(Ok(Step::Refused(refusal)));
                        }
                    }
                }
                ready!(Pin::new(&mut *inner).poll_read(cx, buf))?;
                let new = buf.filled().get(before..).unwrap_or_default();
                if new.is_empty() {
                    return Poll::Ready(Ok(Step::Passed));
                }
                if self.held.is_empty() {
                    let verdict = judge(new);
                    let passed = verdict.passed();
                    self.held.extend_from_slice(new.get(passed..).unwrap_or_default());
                    buf.set_filled(before + passed);
                    if passed != 0 {
                        return Poll::Ready(Ok(Step::Passed));
                    }
                    verdict
                } else {
                    // The rest of an element: the whole of it goes on from here.
                    self.held.extend_from_slice(new);
                    buf.set_filled(before);
                    let verdict = judge(&self.held);
                    self.ready = verdict.passed();
                    verdict
                }
            };
            match verdict {
                _ if self.ready != 0 => (),
                Verdict::Pass { .. } => (),
                Verdict::Hold { .. } => return Poll::Ready(Ok(Step::Hold)),
                Verdict::Refuse { refusal, .. } => return Poll::Ready(Ok(Step::Refused(refusal))),
            }
        }
    }

    /// The machine was told something that changes how it reads what is held.
    pub(crate) fn judge_again(&mut self) {
        self.fresh = true;
    }

    /// What was read and not passed on.
    pub(crate) fn into_held(self) -> Vec<u8> {
        self.held
    }

    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.ready.min(buf.remaining());
        buf.put_slice(self.held.get(..len).unwrap_or_default());
        self.ready -= len;
        if len == self.held.len() {
            self.held = Vec::new(); // Held bytes are rare: the memory goes back.
        } else {
            self.held.drain(..len);
        }
    }
}
