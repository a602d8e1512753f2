//! One request and its answer's head: the future behind [`Upstream`](super::Upstream).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use mainstay_call::CallError;
use mainstay_resilience::{Congestion, Failure};

use super::connect::{Dialed, dial};
use super::http1::Live;
use super::http2::{self, Occupied, Reply, Shared, Stream};
use super::pool::{Checkout, Grant, Pool, Slot, Waiting};
use super::uplink::Uplink;
use super::{RequestBody, UpstreamBody, fit};

/// Connections one request may try when each turns out to be closing before anything was sent.
const TRIES_MAX: u8 = 3;

/// The answer to one request, or why there is none.
///
/// # Cancel safety
///
/// Dropping it cancels the exchange: a place in the line is given up, a connection being made or
/// in use is closed, an HTTP/2 stream is reset. Whether the peer acted on the request is unknown.
#[must_use = "nothing is sent unless it is polled"]
pub struct Exchange<B: RequestBody> {
    pool: Rc<Pool<B>>,
    step: Step<B>,
    tries: u8,
}

enum Step<B: RequestBody> {
    /// In line for a connection.
    Waiting(Request<B>, Waiting<B>),
    /// The connection is being made.
    Opening(Request<B>, Opening<B>),
    Http1(Box<Live<B>>),
    Http2(Reply<B>, Occupied, Option<Box<Uplink>>),
    Failed(CallError),
    Done,
}

type Opening<B> = Pin<Box<dyn Future<Output = Result<Opened<B>, CallError>>>>;

enum Opened<B: RequestBody> {
    Http1(Box<Live<B>>),
    Http2(Rc<Shared<B>>),
}

impl<B: RequestBody> Exchange<B> {
    pub(super) fn new(pool: Rc<Pool<B>>, request: Request<B>) -> Self {
        let mut exchange = Self { pool, step: Step::Done, tries: 0 };
        exchange.start(request);
        exchange
    }

    fn start(&mut self, request: Request<B>) {
        self.tries += 1;
        self.step = match self.pool.checkout() {
            Checkout::Granted(grant) => self.granted(request, grant),
            Checkout::Wait(waiting) => Step::Waiting(request, waiting),
            Checkout::Exhausted => {
                Step::Failed(Failure::Congestion(Congestion::PoolExhausted).into())
            }
        };
    }

    fn granted(&self, request: Request<B>, grant: Grant<B>) -> Step<B> {
        match grant {
            Grant::Live(live) => self.on_http1(request, live),
            Grant::Stream(stream) => self.on_http2(request, stream),
            Grant::Slot(slot) => Step::Opening(request, Box::pin(open(slot))),
        }
    }

    fn on_http1(&self, mut request: Request<B>, mut live: Box<Live<B>>) -> Step<B> {
        fit::http1(&mut request, &self.pool.target().address);
        live.send(request);
        Step::Http1(live)
    }

    fn on_http2(&self, mut request: Request<B>, stream: Stream<B>) -> Step<B> {
        let target = self.pool.target();
        fit::http2(&mut request, &target.address, target.settings.tls.is_some());
        let (reply, occupied, uplink) = stream.send(request, target.settings.stall);
        Step::Http2(reply, occupied, uplink)
    }

    /// Moves on a step that is not an exchange under way.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        match &mut self.step {
            Step::Waiting(_, waiting) => {
                let grant = ready!(waiting.poll(cx));
                if let Step::Waiting(request, _) = self.take() {
                    self.step = self.granted(request, grant);
                }
            }
            Step::Opening(_, opening) => {
                let opened = ready!(opening.as_mut().poll(cx))?;
                if let Step::Opening(request, _) = self.take() {
                    self.step = match opened {
                        Opened::Http1(live) => self.on_http1(request, live),
                        Opened::Http2(shared) => {
                            let stream = Stream::open(&shared); // Ours first, then those in line.
                            self.pool.share(shared);
                            self.on_http2(request, stream)
                        }
                    };
                }
            }
            Step::Failed(_) => {
                if let Step::Failed(error) = self.take() {
                    return Poll::Ready(Err(error));
                }
            }
            Step::Http1(_) | Step::Http2(..) | Step::Done => (),
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self) -> Step<B> {
        std::mem::replace(&mut self.step, Step::Done)
    }
}

impl<B: RequestBody> Future for Exchange<B> {
    type Output = Result<Response<UpstreamBody>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.step {
                Step::Http1(live) => {
                    let answer = ready!(live.poll_reply(cx));
                    let Step::Http1(live) = this.take() else { continue };
                    return Poll::Ready(answer.and_then(|response| live.answer(response)));
                }
                Step::Http2(reply, _, uplink) => {
                    let Poll::Ready(answer) = http2::poll_reply(reply, cx) else {
                        let Some(uplink) = uplink else { return Poll::Pending };
                        ready!(uplink.poll_stalled(cx));
                        this.step = Step::Done; // Resets the stream.
                        return Poll::Ready(Err(
                            Failure::Congestion(Congestion::WriteStalled).into()
                        ));
                    };
                    let Step::Http2(_, occupied, uplink) = this.take() else { continue };
                    match answer {
                        Ok(response) => {
                            let body = |incoming| UpstreamBody::http2(incoming, occupied, uplink);
                            return Poll::Ready(Ok(response.map(body)));
                        }
                        Err(http2::Unanswered { request: Some(request), .. })
                            if this.tries < TRIES_MAX =>
                        {
                            drop(occupied);
                            this.start(request);
                        }
                        Err(unanswered) => return Poll::Ready(Err(unanswered.error)),
                    }
                }
                Step::Done => return Poll::Pending, // Polled after its answer: never again ready.
                _ => ready!(this.advance(cx))?,
            }
        }
    }
}

impl<B: RequestBody> Unpin for Exchange<B> {}

impl<B: RequestBody> fmt::Debug for Exchange<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match &self.step {
            Step::Waiting(..) => "Waiting",
            Step::Opening(..) => "Opening",
            Step::Http1(_) => "Http1",
            Step::Http2(..) => "Http2",
            Step::Failed(_) => "Failed",
            Step::Done => "Done",
        };
        f.debug_tuple("Exchange").field(&step).finish()
    }
}

/// Connects, and sets up whichever protocol was agreed on.
async fn open<B: RequestBody>(slot: Slot<B>) -> Result<Opened<B>, CallError> {
    let Dialed { link, http2 } = dial(slot.pool().target()).await?;
    Ok(if http2 {
        Opened::Http2(Shared::open(link, slot).await?)
    } else {
        Opened::Http1(Live::open(link, slot))
    })
}
