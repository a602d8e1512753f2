//! A timer that costs nothing until somebody has to wait.

use std::pin::Pin;
use std::task::{Context, Poll};

use mainstay_core::Instant;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::clock::tokio_instant;

pin_project! {
    /// Ends at a moment. The runtime's timer is only asked when this is first polled, which
    /// callers do after the thing they wait for turned out not to be ready.
    #[derive(Debug)]
    pub struct Timer {
        at: Instant,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    /// Ends at `at`; [`Instant::MAX`] never ends.
    pub(crate) fn until(at: Instant) -> Self {
        Self { at, sleep: None }
    }

    /// Moves the end to `at`.
    pub(crate) fn reset(self: Pin<&mut Self>, at: Instant) {
        let mut this = self.project();
        *this.at = at;
        if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
            sleep.reset(tokio_instant(at));
        }
    }

    /// Ready once the moment has come.
    pub(crate) fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if *this.at == Instant::MAX {
            return Poll::Pending;
        }
        if this.sleep.is_none() {
            this.sleep.set(Some(tokio::time::sleep_until(tokio_instant(*this.at))));
        }
        match this.sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }
}

/// The same for something that must not be pinned: the timer is boxed, when it is first needed.
#[derive(Debug)]
pub(crate) struct BoxedTimer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl BoxedTimer {
    /// Has no end yet.
    pub(crate) const fn unset() -> Self {
        Self { sleep: None }
    }

    /// Moves the end to `at`.
    pub(crate) fn reset(&mut self, at: Instant) {
        let at = tokio_instant(at);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// Ready once the moment has come; never while there is none.
    pub(crate) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}
