//! Between hyper's HTTP/2 and the application; counts requests of either version.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use mainstay_call::CallError;

use super::pace::{Flight, Pace};
use super::{ConnInfo, Handler};
use crate::body::{InBody, OutBody};

/// The application, for one connection.
#[derive(Debug)]
pub(super) struct Entry<H> {
    pub(super) handler: Rc<H>,
    pub(super) info: Rc<ConnInfo>,
    pub(super) pace: Rc<Pace>,
}

impl<H: Handler> Service<Request<Incoming>> for Entry<H> {
    type Response = Response<Tracked>;
    type Error = Infallible;
    type Future = Answer<H::Answer>;

    fn call(&self, request: Request<Incoming>) -> Answer<H::Answer> {
        let (head, incoming) = request.into_parts();
        let (body, meter) = InBody::http2(incoming);
        let flight = self.pace.begin(meter);
        let bodiless = head.method == Method::HEAD;
        let request = Request::from_parts(head, body);
        let answer = self.handler.call(request, Rc::clone(&self.info));
        Answer { coming: answer, flight: Some(flight), bodiless }
    }
}

pin_project_lite::pin_project! {
    /// The application's answer to one request.
    #[derive(Debug)]
    pub(super) struct Answer<F> {
        #[pin]
        coming: F,
        flight: Option<Flight>,
        // A `HEAD`: hyper would send the body that is not to be sent.
        bodiless: bool,
    }
}

impl<F: Future<Output = Response<OutBody>>> Future for Answer<F> {
    type Output = Result<Response<Tracked>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.coming.poll(cx));
        let flight = this.flight.take();
        let empty = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if *this.bodiless || empty {
            *response.body_mut() = OutBody::Empty;
        }
        Poll::Ready(Ok(response.map(|body| Tracked::new(body, flight))))
    }
}

/// The body of an answer; ends the request when it is over.
#[derive(Debug)]
pub(super) struct Tracked {
    body: OutBody,
    flight: Option<Flight>,
}

impl Tracked {
    pub(super) fn new(body: OutBody, flight: Option<Flight>) -> Self {
        let mut tracked = Self { body, flight };
        tracked.note_end();
        tracked
    }

    /// The body is over, and with it the request.
    fn note_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(mut flight) = self.flight.take()
        {
            flight.complete = true;
        }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.as_ref().is_none_or(Result::is_err) {
            self.body = OutBody::Empty; // One that we break off is not given up by the peer.
        }
        self.note_end();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
