//! Between hyper's HTTP/2 and the application; counts requests of either version.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::Service;
use mainstay_call::{CallError, clock};

use super::pace::{Flight, Outflow, Pace};
use super::{ConnInfo, Handler, tasks};
use crate::body::{InBody, OutBody, Rest};

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
        let outflow = Rc::<Outflow>::default();
        // The next task that hyper starts is the one of this stream.
        *self.pace.entering.borrow_mut() = Some(Rc::clone(&outflow));
        let bodiless = head.method == Method::HEAD;
        let request = Request::from_parts(head, body);
        let answer = self.handler.call(request, Rc::clone(&self.info));
        Answer { coming: answer, flight: Some(flight), outflow: Some(outflow), bodiless }
    }
}

pin_project_lite::pin_project! {
    /// The application's answer to one request.
    #[derive(Debug)]
    pub(super) struct Answer<F> {
        #[pin]
        coming: F,
        flight: Option<Flight>,
        outflow: Option<Rc<Outflow>>,
        // A `HEAD`: hyper would send the body that is not to be sent.
        bodiless: bool,
    }
}

impl<F: Future<Output = Response<OutBody>>> Future for Answer<F> {
    type Output = Result<Response<Tracked>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(clock::turn(|| this.coming.poll(cx)));
        let flight = this.flight.take();
        let empty = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if *this.bodiless || empty {
            *response.body_mut() = OutBody::Empty;
        }
        let outflow = this.outflow.take();
        Poll::Ready(Ok(response.map(|body| Tracked::new(body, flight).passing(outflow))))
    }
}

/// The body of an answer; ends the request when it is over.
#[derive(Debug)]
pub(super) struct Tracked {
    body: OutBody,
    flight: Option<Flight>,
    /// Over HTTP/2: whether the peer takes what it is given.
    outflow: Option<Rc<Outflow>>,
    rest: Rest,
}

impl Tracked {
    pub(super) fn new(body: OutBody, flight: Option<Flight>) -> Self {
        let mut tracked = Self { body, flight, outflow: None, rest: Rest::default() };
        tracked.note_end();
        tracked
    }

    /// Notes in `outflow` how the body passes, which the ticker watches from here on.
    fn passing(mut self, outflow: Option<Rc<Outflow>>) -> Self {
        if let (Some(outflow), Some(flight)) = (&outflow, &self.flight) {
            flight.pace.watch(outflow);
        }
        self.outflow = outflow;
        self
    }

    /// The body is over, and with it the request.
    fn note_end(&mut self) {
        if self.is_end_stream()
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
        let this = &mut *self;
        let polled = match &this.outflow {
            None => Pin::new(&mut this.body).poll_frame(cx),
            Some(outflow) => {
                let polled = this.rest.poll_part(&mut this.body, cx);
                outflow.note(polled.is_ready());
                polled
            }
        };
        let frame = ready!(polled);
        if frame.as_ref().is_none_or(Result::is_err) {
            self.body = OutBody::Empty; // One that we break off is not given up by the peer.
        }
        self.note_end();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.and(&self.body.size_hint())
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let stalled = self.outflow.as_ref().is_some_and(|outflow| outflow.is_stalled());
        if stalled && let Some(flight) = &mut self.flight {
            flight.complete = true; // It was we who gave it up.
        }
    }
}

/// Starts the tasks of one connection's streams. Each ends early when its stream is stalled, and
/// with that resets it.
#[derive(Clone, Debug)]
pub(super) struct Streams(pub(super) Rc<Pace>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let Some(outflow) = self.0.entering.borrow_mut().take() else { return tasks::spawn(task) };
        tasks::spawn(async move {
            let mut task = pin!(task);
            std::future::poll_fn(|cx| {
                if outflow.poll_stalled(cx).is_ready() {
                    return Poll::Ready(());
                }
                task.as_mut().poll(cx)
            })
            .await;
        });
    }
}
