//! The body of an answer that came through the stages, and who is told how it ended.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mainstay_call::{BoxError, CallError};
use mainstay_core::problem::Code;
use mainstay_resilience::Failure;

use super::PipelineBody;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With its last byte.
    Whole,
    /// The service or a stage broke it off.
    Broken(Code),
    /// Whoever read it stopped before the end.
    GivenUp,
}

/// A body on its way to the caller; counts what is taken of it.
pub struct Streamed {
    body: PipelineBody,
    sent: u64,
    /// Told once how it ended, and how many bytes were taken.
    told: Option<Box<dyn FnOnce(End, u64)>>,
}

impl Streamed {
    pub(crate) fn new(body: PipelineBody) -> Self {
        Self { body, sent: 0, told: None }
    }

    /// Has `told` told of the end.
    pub(crate) fn tell(&mut self, told: impl FnOnce(End, u64) + 'static) {
        self.told = Some(Box::new(told));
    }

    pub(super) fn get_mut(&mut self) -> &mut PipelineBody {
        &mut self.body
    }

    fn over(&mut self, end: End) {
        if let Some(told) = self.told.take() {
            told(end, self.sent);
        }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let frame =
            ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|it| it.map_err(call_error));
        match &frame {
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Some(Err(error)) => {
                let code = error.problem().code;
                self.over(End::Broken(code));
            }
            None => self.over(End::Whole),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // Whoever reads a body may stop at its last frame without asking for the end.
        let end = if self.body.is_end_stream() { End::Whole } else { End::GivenUp };
        // Nobody stopped reading when a panic unwinds.
        if !std::thread::panicking() {
            self.over(end);
        }
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, sent, told: _ } = self;
        f.debug_struct("Streamed").field("body", body).field("sent", sent).finish_non_exhaustive()
    }
}

/// What a stage says of a body that broke off; it is always a [`CallError`] inside.
fn call_error(error: BoxError) -> CallError {
    match error.downcast::<CallError>() {
        Ok(error) => *error,
        Err(other) => CallError::failed(Failure::Truncated, other),
    }
}
