//! A timer that costs nothing until somebody has to wait.

use std::pin::Pin;
use std::task::{Context, Poll};

use mainstay_core::Instant;
use tokio::time::Sleep;

use crate::clock::tokio_instant;

/// Ends at a moment. The runtime's timer is only asked when this is first polled, which callers do
/// after the thing they wait for turned out not to be ready. It is boxed: a future that never waits
/// does not carry the room for it from stage to stage.
#[derive(Debug)]
pub(crate) struct Timer {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ends at `at`; [`Instant::MAX`] never ends.
    pub(crate) const fn until(at: Instant) -> Self {
        Self { at, sleep: None }
    }

    /// Moves the end to `at`.
    pub(crate) fn reset(&mut self, at: Instant) {
        self.at = at;
        if let Some(sleep) = &mut self.sleep {
            sleep.as_mut().reset(tokio_instant(at));
        }
    }

    /// Ready once the moment has come.
    pub(crate) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.at == Instant::MAX {
            return Poll::Pending;
        }
        let begin = || Box::pin(tokio::time::sleep_until(tokio_instant(self.at)));
        self.sleep.get_or_insert_with(begin).as_mut().poll(cx)
    }
}
