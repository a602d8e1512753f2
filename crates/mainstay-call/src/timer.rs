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

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_elapsed(cx)
    }
}
