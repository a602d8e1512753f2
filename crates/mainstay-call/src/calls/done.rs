//! A call whose end is told to a callback.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use mainstay_core::Clock;
use mainstay_resilience::Failure;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::clock::MonotonicClock;
use crate::context::Context;
use crate::error::CallError;

/// How a call ended.
#[derive(Debug)]
pub struct Done<R> {
    /// The answer, or why there is none; `cancelled` when nobody waited for it any more.
    pub result: Result<http::Response<R>, CallError>,
    /// Attempts begun.
    pub attempts: u32,
    /// Name of the last instance asked.
    pub instance: Option<Arc<str>>,
    /// From the beginning to the answer's head, or to the end without one.
    pub latency: Duration,
}

pin_project! {
    /// A call on its way; see [`Calls::call_then`](super::Calls::call_then).
    ///
    /// # Cancel safety
    ///
    /// Dropping it runs the callback with `cancelled`, unless it has been run.
    #[must_use = "nothing is called until this is awaited or given to a task"]
    pub struct CallThen<S, Q, R, F>
    where
        S: Service<Q>,
        F: FnOnce(Done<R>),
    {
        #[pin]
        call: Option<S::Future>,
        waiting: Option<(S, Q)>,
        telling: Telling<R, F>,
    }
}

impl<S, Q, R, F> CallThen<S, Q, R, F>
where
    S: Service<Q>,
    F: FnOnce(Done<R>),
{
    pub(super) fn new(service: S, request: Q, context: Arc<Context>, callback: F) -> Self {
        let telling = Telling { callback: Some(callback), context, answer: PhantomData };
        Self { call: None, waiting: Some((service, request)), telling }
    }
}

impl<S, Q, R, F> Future for CallThen<S, Q, R, F>
where
    S: Service<Q, Response = http::Response<R>, Error = CallError>,
    F: FnOnce(Done<R>),
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some((service, _)) = this.waiting {
            if let Err(error) = ready!(service.poll_ready(cx)) {
                *this.waiting = None;
                this.telling.tell(Err(error));
                return Poll::Ready(());
            }
            if let Some((mut service, request)) = this.waiting.take() {
                this.call.set(Some(service.call(request)));
            }
        }
        let Some(call) = this.call.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let result = ready!(call.poll(cx));
        this.call.set(None);
        this.telling.tell(result);
        Poll::Ready(())
    }
}

/// A callback that is run once, at the latest when this is dropped.
struct Telling<R, F: FnOnce(Done<R>)> {
    callback: Option<F>,
    context: Arc<Context>,
    answer: PhantomData<fn(R)>,
}

impl<R, F: FnOnce(Done<R>)> Telling<R, F> {
    fn tell(&mut self, result: Result<http::Response<R>, CallError>) {
        let Some(callback) = self.callback.take() else { return };
        callback(Done {
            result,
            attempts: self.context.attempts(),
            instance: self.context.instance().map(|endpoint| Arc::clone(endpoint.name())),
            latency: MonotonicClock.now().since(self.context.started),
        });
    }
}

impl<R, F: FnOnce(Done<R>)> Drop for Telling<R, F> {
    fn drop(&mut self) {
        self.tell(Err(Failure::Cancelled.into()));
    }
}

impl<S, Q, R, F> fmt::Debug for CallThen<S, Q, R, F>
where
    S: Service<Q>,
    F: FnOnce(Done<R>),
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallThen").field("sent", &self.call.is_some()).finish_non_exhaustive()
    }
}
