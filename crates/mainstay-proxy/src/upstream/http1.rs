//! One HTTP/1 connection, driven by whoever uses it.

use std::fmt;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame as BodyFrame;
use mainstay_call::{BoxError, CallError};
use mainstay_resilience::{Congestion, Failure};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::io::poll_read_buf;

use super::RequestBody;
use super::body::{Drive, UpstreamBody};
use super::pool::Slot;
use super::wire::{Gauge, Link, Tunnel, Wire};
use crate::framing::{Asked, Element, Refusal, ResponseGuard, ResponseHead};
use crate::http1::{
    self, BODY_READ_BYTES_MAX, Frame, Outgoing, READ_BYTES, SendError, room, spare,
};
use crate::interim;

/// Bodies up to this length are taken from the connection together with the head when they are
/// already there, so that the connection is free again before the answer is written downstream.
const TOGETHER_MAX: u64 = 65_536;

/// See the [module](self).
pub(super) struct Live<B: RequestBody> {
    wire: Wire,
    gauge: Rc<Gauge>,
    /// The request.
    out: Outgoing<B>,
    /// It could not be written. An answer that came all the same is given first.
    unsent: Option<CallError>,
    /// Reads the answers, and is the judge of them.
    guard: ResponseGuard,
    /// What came and was not taken yet; [lent](room) for as long as there is something.
    input: BytesMut,
    /// The beginning of a body in chunks that came with its head, and its trailers.
    early: (Bytes, Option<HeaderMap>),
    stall: Option<Stall>,
    /// No further request goes out on this connection.
    closing: bool,
    slot: Slot<B>,
}

/// A write that makes no progress.
struct Stall {
    written: u64,
    timer: Pin<Box<Sleep>>,
}

impl<B: RequestBody> Live<B> {
    /// HTTP/1 on a connected socket.
    pub(super) fn open(link: Link, mut slot: Slot<B>) -> Box<Self> {
        slot.connected(false);
        let (wire, gauge) = Wire::new(link);
        let guard = ResponseGuard::new(slot.pool().target().settings.head_bytes_max);
        Box::new(Self {
            wire,
            gauge,
            out: Outgoing::default(),
            unsent: None,
            guard,
            input: BytesMut::new(),
            early: Default::default(),
            stall: None,
            closing: false,
            slot,
        })
    }

    /// Whether the next request may go out: open, idle, and no byte has come in unasked.
    pub(super) fn is_reusable(&mut self) -> bool {
        // A read that brings anything, the end of the stream included, is one too many. The
        // runtime knows without asking the kernel that there is nothing. It must not say so because
        // this task has had its turn, or an answer that nobody asked for would be the next one's.
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        let look = std::future::poll_fn(|cx| {
            Poll::Ready(Pin::new(&mut self.wire).poll_read(cx, &mut buf).is_pending())
        });
        let mut nobody = Context::from_waker(Waker::noop());
        let quiet = std::pin::pin!(tokio::task::unconstrained(look)).poll(&mut nobody);
        !self.closing && quiet == Poll::Ready(true)
    }

    /// Gives back the place of a connection that is about to be dropped, and serves nobody with it.
    pub(super) fn retire(&mut self) {
        self.slot.retire();
    }

    /// Takes `request`; the next [`Live::poll_reply`] writes it. The connection must be reusable,
    /// or new.
    pub(super) fn send(&mut self, request: Request<B>) {
        let (head, body) = request.into_parts();
        self.guard.ask(match head.method {
            Method::HEAD => Asked::Head,
            Method::CONNECT => Asked::Connect,
            _ if head.headers.contains_key(UPGRADE) => Asked::Upgrade,
            _ => Asked::Plain,
        });
        self.gauge.written.set(0);
        self.stall = None;
        let frame = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) | (false, Some(0)) if expects_no_body(&head.method) => Frame::Nothing,
            (true, _) => Frame::Length(0),
            (false, Some(length)) => Frame::Length(length),
            (false, None) => Frame::Chunked { trailers: true },
        };
        let body = (!body.is_end_stream()).then_some(body);
        let out = self.out.begin(frame, body);
        http1::write_request_head(out, &head.method, &head.uri, &head.headers, frame);
        spare::give_back(head.headers);
        spare::give_back_extensions(head.extensions);
    }

    /// Drives the connection until the head of the answer is there.
    pub(super) fn poll_reply(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, CallError>> {
        self.write(cx);
        loop {
            match self.guard.next(&self.input) {
                Ok(Element::Head(len)) => {
                    let head = self.input.split_to(len).freeze();
                    let answer = self.head(&head)?;
                    if !answer.status().is_informational()
                        || answer.status() == StatusCode::SWITCHING_PROTOCOLS
                    {
                        return Poll::Ready(Ok(answer));
                    }
                    interim::pass(&head);
                }
                // Only a head can come here.
                Ok(_partial) => match ready!(self.poll_fill(cx)) {
                    Ok(true) => (),
                    Ok(false) => return Poll::Ready(Err(self.lost(None))),
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Err(refusal) => return Poll::Ready(Err(malformed(refusal))),
            }
        }
    }

    /// Joins the head with a body that goes on driving the connection.
    pub(super) fn answer(
        mut self: Box<Self>,
        answer: Response<()>,
    ) -> Result<Response<UpstreamBody>, CallError> {
        let (parts, ()) = answer.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Response::from_parts(parts, UpstreamBody::tunnel(self.switch())));
        }
        let whole = match self.guard.body_left() {
            Some(left) if left <= TOGETHER_MAX => self.whole_body(left)?,
            Some(_) => None,
            None => self.whole_chunks()?,
        };
        if let Some(whole) = whole {
            self.check_in()?;
            return Ok(Response::from_parts(parts, UpstreamBody::whole(whole)));
        }
        Ok(Response::from_parts(parts, UpstreamBody::http1(self)))
    }

    /// The body of `length` bytes, if all of it is there.
    fn whole_body(&mut self, length: u64) -> Result<Option<Bytes>, CallError> {
        if length == 0 {
            return Ok(Some(Bytes::new()));
        }
        if (self.input.len() as u64) < length {
            let missing = usize::try_from(length).unwrap_or(usize::MAX) - self.input.len();
            self.input.reserve(missing);
            let mut nobody = Context::from_waker(Waker::noop());
            // What goes wrong here is met again by whoever reads the body.
            let read = poll_read_buf(Pin::new(&mut self.wire), &mut nobody, &mut self.input);
            let came = matches!(read, Poll::Ready(Ok(read)) if 0 < read);
            if !came || (self.input.len() as u64) < length {
                return Ok(None);
            }
        }
        match self.guard.next(&self.input) {
            Ok(Element::Content(len)) if self.guard.is_free() => {
                Ok(Some(self.input.split_to(len).freeze()))
            }
            Ok(_) => Ok(None),
            Err(refusal) => Err(malformed(refusal)),
        }
    }

    /// The body of unknown length, if all of it came with the head. Else what came of it is kept:
    /// a defect in it is found before anything of the answer is passed on.
    fn whole_chunks(&mut self) -> Result<Option<Bytes>, CallError> {
        let mut all = BytesMut::new();
        loop {
            match self.guard.next(&self.input) {
                Ok(Element::Content(len)) if all.is_empty() => all = self.input.split_to(len),
                Ok(Element::Content(len)) => all.extend_from_slice(&self.input.split_to(len)),
                Ok(Element::Framing(len)) => drop(self.input.split_to(len)),
                Ok(Element::Trailers(len)) => {
                    let trailers = http1::trailers(&self.input.split_to(len).freeze());
                    self.early.1 = (!trailers.is_empty()).then_some(trailers);
                }
                Ok(_partial) => break,
                Err(refusal) => return Err(malformed(refusal)),
            }
        }
        if self.guard.is_free() && self.early.1.is_none() {
            return Ok(Some(all.freeze()));
        }
        self.early.0 = all.freeze();
        Ok(None)
    }

    /// Back to the pool if the exchange is complete both ways; else it closes.
    fn check_in(mut self: Box<Self>) -> Result<(), CallError> {
        // A byte after the end makes all of the answer doubtful.
        if let Err(refusal) = self.guard.next(&self.input) {
            return Err(malformed(refusal));
        }
        if self.out.is_over() && self.unsent.is_none() && !self.closing && self.guard.is_free() {
            room::give_back(&mut self.input);
            let pool = Rc::clone(self.slot.pool());
            pool.put(self);
        }
        Ok(())
    }

    /// Writes what there is of the request.
    fn write(&mut self, cx: &mut Context<'_>) {
        if self.out.is_over() || self.unsent.is_some() {
            return;
        }
        let Poll::Ready(Err(error)) = self.out.poll(&mut self.wire, cx) else { return };
        self.closing = true;
        self.out.abandon();
        self.unsent = Some(match error {
            SendError::Socket(error) => {
                CallError::failed(Failure::Congestion(self.congestion()), error)
            }
            // The caller went away, or what it sent was no body.
            SendError::Body(error) => {
                CallError::failed(Failure::Cancelled, Into::<BoxError>::into(error))
            }
            SendError::Length => CallError::failed(Failure::Cancelled, OtherLength),
        });
    }

    /// Reads more; false at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, CallError>> {
        if self.unsent.as_ref().is_some_and(|error| !is_about_the_peer(error)) {
            // Nobody waits for what would answer half a request.
            return Poll::Ready(Err(self.lost(None)));
        }
        match self.poll_read(cx) {
            Poll::Ready(Ok(read)) => Poll::Ready(Ok(read != 0)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.lost(Some(error)))),
            Poll::Pending => {
                ready!(self.poll_stalled(cx));
                Poll::Ready(Err(Failure::Congestion(Congestion::WriteStalled).into()))
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.is_empty() {
            room::give_back(&mut self.input);
            ready!(self.wire.poll_readable(cx))?;
            self.input = room::lend();
        } else {
            let wanted = match self.guard.body_left() {
                Some(left) => usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .clamp(READ_BYTES, BODY_READ_BYTES_MAX),
                None => BODY_READ_BYTES_MAX / 4,
            };
            self.input.reserve(wanted);
        }
        let read = poll_read_buf(Pin::new(&mut self.wire), cx, &mut self.input);
        if self.input.is_empty() {
            room::give_back(&mut self.input);
        }
        read
    }

    fn head(&mut self, bytes: &Bytes) -> Result<Response<()>, CallError> {
        let Some(ResponseHead { status, fields, closes }) = self.guard.last_head() else {
            return Err(Failure::Malformed.into());
        };
        self.closing |= closes;
        let headers = http1::fields(bytes, fields);
        let headers = headers.map_err(|rule| malformed(Refusal::of_response(rule, false)))?;
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(status)
            .map_err(|error| CallError::failed(Failure::Malformed, error))?;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    /// The connection ended and said nothing.
    fn lost(&mut self, error: Option<io::Error>) -> CallError {
        self.closing = true;
        match (self.unsent.take(), error) {
            (Some(unsent), _) => unsent,
            (None, Some(error)) => CallError::failed(Failure::Congestion(self.congestion()), error),
            (None, None) => Failure::Congestion(self.congestion()).into(),
        }
    }

    fn congestion(&self) -> Congestion {
        Congestion::Lost { sent: self.gauge.written.get() != 0 }
    }

    /// Takes the socket out from under HTTP.
    fn switch(self) -> Tunnel {
        let Self { wire, input, slot, .. } = self;
        // A copy: a tunnel that lasts for hours must not hold what answers are read to.
        Tunnel::new(wire, Bytes::copy_from_slice(&input), Box::new(slot))
    }

    /// Ready when a write has made no progress for too long. Costs nothing while writes go through.
    fn poll_stalled(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if !self.gauge.blocked.get() {
            self.stall = None;
            return Poll::Pending;
        }
        let written = self.gauge.written.get();
        if self.stall.as_ref().is_none_or(|stall| stall.written != written) {
            let timer = Box::pin(sleep(self.slot.pool().target().settings.stall));
            self.stall = Some(Stall { written, timer });
        }
        self.stall.as_mut().map_or(Poll::Pending, |stall| stall.timer.as_mut().poll(task))
    }
}

impl<B: RequestBody> Drive for Live<B> {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, CallError>>> {
        self.write(cx);
        if !self.early.0.is_empty() {
            return Poll::Ready(Some(Ok(BodyFrame::data(std::mem::take(&mut self.early.0)))));
        }
        if let Some(trailers) = self.early.1.take() {
            return Poll::Ready(Some(Ok(BodyFrame::trailers(trailers))));
        }
        loop {
            match self.guard.next(&self.input) {
                Ok(Element::Content(len)) => {
                    let data = self.input.split_to(len).freeze();
                    return Poll::Ready(Some(Ok(BodyFrame::data(data))));
                }
                Ok(Element::Framing(len)) => drop(self.input.split_to(len)),
                Ok(Element::Trailers(len)) => {
                    let trailers = http1::trailers(&self.input.split_to(len).freeze());
                    let frame = (!trailers.is_empty()).then(|| Ok(BodyFrame::trailers(trailers)));
                    return Poll::Ready(frame);
                }
                Ok(_partial) if self.guard.is_free() => return Poll::Ready(None),
                Ok(_partial) => match ready!(self.poll_fill(cx)) {
                    Ok(true) => (),
                    Ok(false) => {
                        self.closing = true;
                        let over = self.guard.end();
                        return Poll::Ready((!over).then(|| Err(Failure::Truncated.into())));
                    }
                    Err(error) => return Poll::Ready(Some(Err(truncated(error)))),
                },
                Err(refusal) => return Poll::Ready(Some(Err(malformed(refusal)))),
            }
        }
    }

    fn left(&self) -> Option<u64> {
        let early = !self.early.0.is_empty() || self.early.1.is_some();
        if early { None } else { self.guard.body_left() }
    }

    fn is_over(&self) -> bool {
        self.guard.is_free() && self.early.0.is_empty() && self.early.1.is_none()
    }

    fn finish(self: Box<Self>) {
        // The answer is delivered: bytes after it only end the connection.
        drop(self.check_in());
    }
}

impl<B: RequestBody> fmt::Debug for Live<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// Requests with these methods have no body unless one is there (RFC 9110 section 8.6): nothing
/// need be said about its length.
fn expects_no_body(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::CONNECT
    )
}

/// The body of a request was longer or shorter than its length said.
#[derive(Debug, thiserror::Error)]
#[error("the request body is not as long as announced")]
struct OtherLength;

/// The answer is none. Perhaps its head was in order; where it ends cannot be told.
fn malformed(refusal: Refusal) -> CallError {
    CallError::failed(Failure::Malformed, refusal)
}

/// The same after the head of the answer.
fn truncated(error: CallError) -> CallError {
    match error {
        CallError::Failed { failure: Failure::Congestion(Congestion::Lost { .. }), .. } => {
            CallError::failed(Failure::Truncated, error)
        }
        CallError::Failed { failure: Failure::Congestion(Congestion::WriteStalled), .. } => {
            Failure::Truncated.into()
        }
        other => other,
    }
}

/// Whether an error says that the peer, and not the caller, went away.
fn is_about_the_peer(error: &CallError) -> bool {
    matches!(error, CallError::Failed { failure: Failure::Congestion(_), .. })
}
