//! One HTTP/1 connection of a client: its requests, one after another.
//!
//! The [guard](crate::framing) reads what comes, and is the parser too (see [`crate::http1`]). While a
//! request is at work its body is read as far as somebody wants it, so that a slow upstream slows
//! the client down and memory stays bounded; without a body to read, the socket is only watched for
//! a client that goes away, which cancels the request, upstream too, as with nginx and Envoy.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::header::{CONNECTION, DATE, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use http_body::{Body, Frame as BodyFrame};
use mainstay_call::clock;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::entry::Tracked;
use super::pace::{Flight, Order, Pace};
use super::socket::Socket;
use super::{ConnInfo, Handler, Incident, Limits, OnIncident};
use crate::body::{BodyError, Feed, InBody, OutBody};
use crate::framing::{Element, Guard, Refusal, Rule};
use crate::http1::{self, BODY_READ_BYTES_MAX, DateText, Frame, Outgoing, READ_BYTES, spare};
use crate::interim::{self, Interim};
use crate::time::wall_clock;
use crate::upstream::Tunnel;

/// Most bytes taken in at once of what belongs to later requests.
const AHEAD_BYTES: usize = 1_024;

/// See the [module](self).
pub(super) struct Connection<H: Handler> {
    socket: Socket,
    guard: Guard,
    /// What came and was not taken yet.
    input: BytesMut,
    out: Outgoing<Tracked>,
    step: Step,
    asked: Asked,
    /// The application at work on the request; one allocation for the life of the connection.
    answer: Pin<Box<Option<H::Answer>>>,
    /// The body of the request, until it is over.
    feed: Option<Lifeline>,
    /// Interim answers on their way to the client.
    interim: Rc<Interim>,
    /// The upstream's end, once a 101 is on its way.
    tunnel: Option<Tunnel>,
    /// No further request is taken.
    last: bool,
    /// What is wrong was told; it is told once.
    told: bool,
    date: DateText,
    outer: Outer<H>,
}

/// The connection's end of a body. Gone before the body is over, it takes the body with it.
struct Lifeline(Arc<Feed>);

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// What a connection is part of.
pub(super) struct Outer<H> {
    pub(super) handler: Rc<H>,
    pub(super) info: Rc<ConnInfo>,
    pub(super) pace: Rc<Pace>,
    pub(super) on_incident: OnIncident,
    pub(super) requests_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The next head is read.
    Head,
    /// The application is at work.
    Work,
    /// Its answer is written.
    Answer,
    /// A refusal is written; the connection ends with it.
    Farewell,
}

/// What matters of a request for its answer.
#[derive(Debug, Default)]
struct Asked {
    head: bool,
    http10: bool,
    /// The client takes trailers.
    trailers: bool,
    /// It waits for a `100 Continue`.
    waits: bool,
    flight: Option<Flight>,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// All that was asked is answered, or the client went away.
    Over,
    /// The client may still be sending what nobody will read.
    Unread,
    /// It goes on as a tunnel; the bytes belong to it.
    Tunnel(Box<Tunnel>, BytesMut),
    /// It was told to end now.
    Cut,
}

impl<H: Handler> Connection<H> {
    pub(super) fn new(mut socket: Socket, limits: &Limits, outer: Outer<H>) -> Self {
        Self {
            guard: Guard::new(limits.framing),
            input: socket.take_early(),
            socket,
            out: Outgoing::default(),
            step: Step::Head,
            asked: Asked::default(),
            answer: Box::pin(None),
            feed: None,
            interim: Rc::default(),
            tunnel: None,
            last: false,
            told: false,
            date: DateText::default(),
            outer,
        }
    }

    /// The socket, for what comes after HTTP.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Serves requests until the connection ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<End>> {
        while let Poll::Ready(order) = self.outer.pace.poll_order(cx) {
            match order {
                Order::Finish => self.last = true,
                Order::HeadTimeout if self.step == Step::Head => {
                    self.refuse(Refusal::of_request(Rule::HeadSlow, false));
                }
                Order::HeadTimeout => (),
                Order::Cut => return Poll::Ready(Ok(End::Cut)),
            }
        }
        loop {
            let end = match self.step {
                Step::Head => ready!(self.poll_head(cx))?,
                Step::Work => match clock::turn(|| self.poll_answer(cx)) {
                    Poll::Ready(response) => {
                        self.begin_answer(response);
                        None
                    }
                    Poll::Pending if self.is_gone(cx) => Some(End::Over),
                    Poll::Pending => ready!(self.poll_client(cx))?,
                },
                Step::Answer => match self.out.poll(&mut self.socket, cx) {
                    Poll::Ready(Ok(())) => self.finish(),
                    // The client is told by a connection that breaks off: the head is gone.
                    Poll::Ready(Err(_)) => Some(End::Cut),
                    Poll::Pending => ready!(self.poll_client(cx))?,
                },
                Step::Farewell => match ready!(self.out.poll(&mut self.socket, cx)) {
                    Ok(()) => Some(End::Unread),
                    Err(_gone) => Some(End::Over),
                },
            };
            if let Some(end) = end {
                return Poll::Ready(Ok(end));
            }
        }
    }

    /// The application's answer. Interim ones that came meanwhile go before it.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Response<OutBody>> {
        let answer = self.answer.as_mut().as_pin_mut();
        let poll = || answer.map_or(Poll::Pending, |answer| answer.poll(cx));
        if self.asked.http10 {
            return poll(); // It knows no interim answers.
        }
        let polled = interim::listening(&self.interim, poll);
        // While a client does not read them, those that wait are all that is kept.
        if self.out.is_over() {
            self.interim.move_to(self.out.between());
        }
        polled
    }

    /// Writes what goes before the answer; whether that showed that the client is gone.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        !self.out.is_over() && matches!(self.out.poll(&mut self.socket, cx), Poll::Ready(Err(_)))
    }

    /// Reads the next head, and sets the application to work on it.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        loop {
            match self.guard.next(&self.input) {
                Ok(Element::Head(len)) => {
                    self.begin(len);
                    return Poll::Ready(Ok(None));
                }
                // A switch of protocols was asked for and the answer stayed with HTTP.
                Ok(Element::Held) => self.guard.resume(),
                Ok(_partial) => {
                    if self.last && self.input.is_empty() {
                        return Poll::Ready(Ok(Some(End::Over)));
                    }
                    self.input.reserve(READ_BYTES);
                    let read = poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input);
                    if ready!(read)? == 0 {
                        return Poll::Ready(Ok(Some(End::Over))); // Half a head is nobody's request.
                    }
                }
                Err(refusal) => {
                    self.refuse(refusal);
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    fn begin(&mut self, len: usize) {
        let bytes = self.input.split_to(len).freeze();
        let Some(head) = self.guard.last_head() else { return };
        let request = match http1::request_head(&bytes, &head) {
            Ok(request) => request,
            Err(rule) => return self.refuse(Refusal::of_request(rule, false)),
        };
        let (trailers, waits) = (head.takes_trailers, head.expects_continue);
        self.last |= head.closes;
        let pace = &self.outer.pace;
        let (body, meter) = if self.guard.is_between() {
            (InBody::empty(), None)
        } else {
            let feed = Arc::new(Feed::new(self.guard.body_left()));
            self.feed = Some(Lifeline(Arc::clone(&feed)));
            let (body, meter) = InBody::fed(feed);
            (body, Some(meter))
        };
        let flight = pace.begin(meter);
        if self.outer.requests_max <= pace.requests.get() {
            pace.closing.set(true);
        }
        self.asked = Asked {
            head: *request.method() == Method::HEAD,
            http10: request.version() == Version::HTTP_10,
            trailers,
            waits,
            flight: Some(flight),
        };
        self.feed_from_input();
        let info = Rc::clone(&self.outer.info);
        let answer = self.outer.handler.call(request.map(|()| body), info);
        self.answer.set(Some(answer));
        self.step = Step::Work;
    }

    /// Gives what is there of the body to whoever reads it; whether there was anything to give.
    fn feed_from_input(&mut self) -> bool {
        let Some(Lifeline(feed)) = &self.feed else { return false };
        loop {
            let (frame, over) = match self.guard.next(&self.input) {
                Ok(Element::Content(len)) => {
                    let data = self.input.split_to(len).freeze();
                    (Some(Ok(BodyFrame::data(data))), self.guard.is_between())
                }
                Ok(Element::Framing(len)) => {
                    drop(self.input.split_to(len));
                    continue;
                }
                Ok(Element::Trailers(len)) => {
                    let trailers = http1::trailers(&self.input.split_to(len).freeze());
                    ((!trailers.is_empty()).then(|| Ok(BodyFrame::trailers(trailers))), true)
                }
                Ok(_) if self.guard.is_between() => (None, true),
                Ok(_partial) => return false,
                Err(refusal) => {
                    self.outer.tell(&mut self.told, refusal);
                    self.last = true;
                    (Some(Err(BodyError::Broken(refusal.into()))), true)
                }
            };
            feed.put(frame, self.guard.body_left(), over);
            if over {
                self.feed = None;
            }
            return true;
        }
    }

    /// Reads on while a request is at work: its body as far as it is wanted, else only whether the
    /// client is still there. Ready when something has come that is worth another look.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        let wanted = match &self.feed {
            Some(Lifeline(feed)) => {
                if !feed.poll_wanted(cx).is_ready() {
                    return Poll::Pending; // Whoever reads the body is the slow one.
                }
                if std::mem::take(&mut self.asked.waits) && self.step == Step::Work {
                    self.out.between().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                if self.step == Step::Work && self.is_gone(cx) {
                    return Poll::Ready(Ok(Some(End::Over)));
                }
                if self.feed_from_input() {
                    return Poll::Ready(Ok(None));
                }
                let left = self.guard.body_left().unwrap_or(BODY_READ_BYTES_MAX as u64 / 4);
                usize::try_from(left).unwrap_or(usize::MAX).clamp(READ_BYTES, BODY_READ_BYTES_MAX)
            }
            None => return self.poll_ahead(cx),
        };
        self.input.reserve(wanted);
        match ready!(poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input)) {
            Ok(0) | Err(_) => Poll::Ready(Ok(Some(End::Over))),
            Ok(_) => {
                self.feed_from_input();
                Poll::Ready(Ok(None))
            }
        }
    }

    /// Reads what belongs to later requests: a little of it is taken in, to see the end. The buffer
    /// is still full of the head that is being answered, so room is made for what has come only.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        if READ_BYTES <= self.input.len() {
            return Poll::Pending;
        }
        let mut few = [MaybeUninit::uninit(); AHEAD_BYTES];
        let mut buf = ReadBuf::uninit(&mut few);
        match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf)) {
            Ok(()) if !buf.filled().is_empty() => {
                self.input.extend_from_slice(buf.filled());
                Poll::Ready(Ok(None))
            }
            Ok(()) | Err(_) => Poll::Ready(Ok(Some(End::Over))),
        }
    }

    fn begin_answer(&mut self, response: Response<OutBody>) {
        self.step = Step::Answer;
        self.answer.set(None);
        self.interim.move_to(self.out.between());
        let (mut head, mut body) = response.into_parts();
        let flight = self.asked.flight.take();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            if let OutBody::Upstream(body) = &mut body {
                self.tunnel = body.take_tunnel();
            }
            self.last = true;
            let out = self.out.begin(Frame::Nothing, None);
            let start = (head.status, Version::HTTP_11);
            return http1::write_response_head(out, start, &head.headers, Frame::Nothing, None);
        }
        if self.feed.as_ref().is_some_and(|Lifeline(feed)| Arc::strong_count(feed) == 1) {
            self.feed = None; // Nobody is left who would read it.
            self.last |= !self.drain();
        }
        let pace = &self.outer.pace;
        let frame = self.asked.frame(head.status, &body);
        self.last |= pace.closing.get() || frame == Frame::ToTheEnd;
        if self.last {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let body = Tracked::new(body, flight);
        let sent = matches!(frame, Frame::Length(1..) | Frame::Chunked { .. } | Frame::ToTheEnd);
        let dated = head.headers.contains_key(DATE);
        let date = (!dated).then(|| self.date.at(wall_clock()).as_slice());
        let version = if self.asked.http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        let out = self.out.begin(frame, sent.then_some(body));
        http1::write_response_head(out, (head.status, version), &head.headers, frame, date);
        spare::give_back(head.headers);
    }

    /// What follows an answer that is written.
    fn finish(&mut self) -> Option<End> {
        self.step = Step::Head;
        if let Some(tunnel) = self.tunnel.take() {
            return Some(End::Tunnel(Box::new(tunnel), std::mem::take(&mut self.input)));
        }
        // Who still reads the body learns that it ends here.
        self.feed = None;
        if !self.drain() {
            return Some(End::Unread);
        }
        self.guard.resume();
        if !self.last {
            // What is here already belongs to the next head.
            let pace = &self.outer.pace;
            pace.read_mark.set(pace.read.get().wrapping_sub(self.input.len() as u64));
            return None;
        }
        match self.guard.next(&self.input) {
            Ok(Element::Partial) if self.input.is_empty() => Some(End::Over),
            Ok(_) => Some(End::Unread),
            Err(refusal) if refusal.begun => Some(End::Unread), // It is told already.
            Err(refusal) => {
                self.refuse(refusal);
                None
            }
        }
    }

    /// Drops what is here of a body that nobody reads; whether the body is over with that.
    fn drain(&mut self) -> bool {
        while !self.guard.is_between() {
            match self.guard.next(&self.input) {
                Ok(Element::Content(len) | Element::Framing(len) | Element::Trailers(len)) => {
                    drop(self.input.split_to(len));
                }
                Ok(_) => return false,
                Err(refusal) => {
                    self.outer.tell(&mut self.told, refusal);
                    return false;
                }
            }
        }
        true
    }

    /// Says what was wrong, and ends.
    fn refuse(&mut self, refusal: Refusal) {
        self.outer.tell(&mut self.told, refusal);
        self.out.begin(Frame::Nothing, None).extend_from_slice(&refusal.response_bytes());
        self.step = Step::Farewell;
    }
}

impl<H> Outer<H> {
    fn tell(&self, told: &mut bool, refusal: Refusal) {
        if !std::mem::replace(told, true) {
            self.on_incident.tell(Incident::Malformed(refusal.rule));
        }
    }
}

impl Asked {
    /// How the body of the answer is marked off (RFC 9112 section 6.3).
    fn frame(&self, status: StatusCode, body: &OutBody) -> Frame {
        if self.head || status == StatusCode::NOT_MODIFIED {
            return Frame::AsSaid;
        }
        if status == StatusCode::NO_CONTENT {
            return Frame::Nothing;
        }
        if body.is_end_stream() {
            return Frame::Length(0);
        }
        match body.size_hint().exact() {
            Some(length) => Frame::Length(length),
            None if self.http10 => Frame::ToTheEnd,
            None => Frame::Chunked { trailers: self.trailers },
        }
    }
}
