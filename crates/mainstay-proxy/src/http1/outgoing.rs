//! A message on its way to a socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body;
use tokio::io::AsyncWrite;

use super::write::{Frame, chunk_line, last_chunk};

/// Up to here pieces are copied together and go out in one write: a head and 1 KiB of body. A copy
/// of that size costs less than what `writev` costs more than `send`.
const TOGETHER_MAX: usize = 2_048;

/// Memory kept for the next message of a connection.
const KEPT_MAX: usize = 16_384;

/// Writes one message after another: a head, and a body as it comes.
///
/// The pieces stand in the order in which they are written.
#[derive(Debug)]
pub(crate) struct Outgoing<B> {
    ahead: Vec<u8>,
    /// How much of `ahead` is written.
    done: usize,
    /// Content that is too long to be copied.
    chunk: Bytes,
    /// What follows the chunk.
    behind: Vec<u8>,
    frame: Frame,
    body: Option<B>,
}

/// Why a message could not be written to its end.
#[derive(Debug)]
pub(crate) enum SendError<E> {
    /// The socket.
    Socket(io::Error),
    /// The body failed.
    Body(E),
    /// The body was shorter or longer than its length said.
    Length,
}

impl<B> Default for Outgoing<B> {
    fn default() -> Self {
        Self {
            ahead: Vec::new(),
            done: 0,
            chunk: Bytes::new(),
            behind: Vec::new(),
            frame: Frame::Nothing,
            body: None,
        }
    }
}

impl<B> Outgoing<B> {
    /// Begins a message with a body marked off by `frame`; its head is to be written to what is
    /// returned. The message before must be over.
    pub(crate) fn begin(&mut self, frame: Frame, body: Option<B>) -> &mut Vec<u8> {
        (self.frame, self.body) = (frame, body);
        &mut self.ahead
    }

    /// Where bytes may be added that go out before the message that is begun next.
    pub(crate) fn between(&mut self) -> &mut Vec<u8> {
        &mut self.ahead
    }

    /// Whether everything is written.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_none() && self.is_written()
    }

    /// Whether everything is written that has come.
    fn is_written(&self) -> bool {
        self.ahead.len() == self.done && self.chunk.is_empty() && self.behind.is_empty()
    }

    /// Forgets the message.
    pub(crate) fn abandon(&mut self) {
        *self = Self::default();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// Writes as much as there is and the socket takes; ready when the message is over.
    pub(crate) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<B::Error>>> {
        loop {
            let came = self.poll_body(cx)?;
            if self.is_written() {
                self.tidy();
                // What TLS keeps back must not wait for what the body may never bring.
                let flushed = Pin::new(&mut *socket).poll_flush(cx).map_err(SendError::Socket);
                ready!(flushed)?;
                return if came.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let written = ready!(self.poll_write(socket, cx)).map_err(SendError::Socket)?;
            if written == 0 {
                return Poll::Ready(Err(SendError::Socket(io::ErrorKind::WriteZero.into())));
            }
            self.advance(written);
        }
    }

    /// Takes what the body brings, as far as it is worth one write; ready when it is over.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<B::Error>>> {
        while let Some(body) = &mut self.body {
            let pending = self.ahead.len() - self.done;
            if !self.chunk.is_empty() || !self.behind.is_empty() || TOGETHER_MAX <= pending {
                return Poll::Pending;
            }
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
            let over = body.is_end_stream();
            match frame {
                None => self.end(None)?,
                Some(Err(error)) => return Poll::Ready(Err(SendError::Body(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.add(data)?;
                        if over {
                            self.end(None)?;
                        }
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok();
                        self.end(trailers.as_ref())?;
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }

    fn add(&mut self, data: Bytes) -> Result<(), SendError<B::Error>> {
        if data.is_empty() {
            return Ok(()); // An empty chunk would end the body.
        }
        let chunked = matches!(self.frame, Frame::Chunked { .. });
        match &mut self.frame {
            Frame::Nothing | Frame::AsSaid => return Ok(()),
            Frame::ToTheEnd => (),
            Frame::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => return Err(SendError::Length),
            },
            Frame::Chunked { .. } => chunk_line(&mut self.ahead, data.len()),
        }
        if self.ahead.len() - self.done + data.len() <= TOGETHER_MAX {
            self.ahead.extend_from_slice(&data);
        } else {
            self.chunk = data;
        }
        if chunked {
            self.last_piece().extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), SendError<B::Error>> {
        self.body = None;
        match self.frame {
            Frame::Length(left) if left != 0 => return Err(SendError::Length),
            Frame::Chunked { trailers: wanted } => {
                last_chunk(self.last_piece(), trailers.filter(|_| wanted));
            }
            Frame::Nothing | Frame::AsSaid | Frame::Length(_) | Frame::ToTheEnd => (),
        }
        Ok(())
    }

    /// Where what is written next goes.
    fn last_piece(&mut self) -> &mut Vec<u8> {
        if self.chunk.is_empty() { &mut self.ahead } else { &mut self.behind }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &self,
        socket: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let ahead = self.ahead.get(self.done..).unwrap_or_default();
        if self.chunk.is_empty() && self.behind.is_empty() {
            return Pin::new(socket).poll_write(cx, ahead);
        }
        let pieces = [ahead, &self.chunk, &self.behind].map(IoSlice::new);
        let first = usize::from(ahead.is_empty());
        Pin::new(socket).poll_write_vectored(cx, &pieces[first..])
    }

    fn advance(&mut self, written: usize) {
        let ahead = written.min(self.ahead.len() - self.done);
        self.done += ahead;
        let chunk = (written - ahead).min(self.chunk.len());
        self.chunk.advance(chunk);
        if self.done == self.ahead.len() && self.chunk.is_empty() {
            self.tidy();
            // Usually nothing follows, and the memory stays where it is.
            if !self.behind.is_empty() {
                std::mem::swap(&mut self.ahead, &mut self.behind);
                self.done = written - ahead - chunk;
            }
        }
    }

    fn tidy(&mut self) {
        self.done = 0;
        self.ahead.clear();
        self.ahead.shrink_to(KEPT_MAX);
    }
}

#[cfg(test)]
mod tests;
