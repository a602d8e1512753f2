//! How long a recipe bears with a store that does not do as asked.

use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::{Error, Retry};
use tokio_util::sync::CancellationToken;

use crate::clock::Timer;

/// Waits between tries, 50 ms doubling to a second, until its time is over.
///
/// What it bears are errors after which the same conditional batch may be sent again: the store
/// was away or busy, and nothing happened; or the outcome is unknown, and the batch carries a
/// compare that lets at most one of its copies through. Whoever uses it reads afterwards what
/// came of it.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
    /// Whether some try may have had its effect.
    uncertain: bool,
}

impl Patience {
    /// For calls somebody waits for: twice the time an `etcd` takes to elect a leader.
    pub(crate) const FOR_CALLERS: Duration = Duration::from_secs(5);

    /// For putting away what was abandoned: as long as a session can live. Its end puts away what
    /// is still there by then.
    pub(crate) const FOR_CLEANING: Duration = Duration::from_hours(1);

    pub(crate) fn new(now: Instant, total: Duration) -> Self {
        Self { until: now.plus(total), pause: Duration::from_millis(50), uncertain: false }
    }

    /// Whether some try so far may have had its effect.
    pub(crate) const fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Waits, and returns when the next try is due.
    ///
    /// # Errors
    ///
    /// The error itself when no further try can help, or time is over; [`Error::OutcomeUnknown`]
    /// instead of it when some try may have had its effect.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn bear(&mut self, timer: &dyn Timer, error: Error) -> Result<(), Error> {
        let next = self.next(timer.now(), error)?;
        timer.sleep_until(next).await;
        Ok(())
    }

    /// Waits likewise, but not once `stop` says so: at shutdown nobody waits for a store that is
    /// away.
    pub(crate) async fn bear_unless(
        &mut self,
        stop: &CancellationToken,
        timer: &dyn Timer,
        error: Error,
    ) -> Result<(), Error> {
        let next = self.next(timer.now(), error.clone())?;
        match stop.run_until_cancelled(timer.sleep_until(next)).await {
            Some(()) => Ok(()),
            None => Err(self.told(error)),
        }
    }

    /// When to try again after `error`.
    fn next(&mut self, now: Instant, error: Error) -> Result<Instant, Error> {
        self.uncertain |= matches!(error, Error::OutcomeUnknown);
        let can_help = match error.retry() {
            Retry::Yes => !matches!(error, Error::Closed),
            Retry::AfterResolving => true,
            Retry::AfterListing | Retry::No => false,
        };
        if !can_help || self.until <= now {
            return Err(self.told(error));
        }
        let pause = error.retry_after().map_or(self.pause, |asked| asked.max(self.pause));
        self.pause = (self.pause * 2).min(Duration::from_secs(1));
        Ok(now.plus(pause).min(self.until))
    }

    /// What whoever asked is told in the end.
    fn told(&self, error: Error) -> Error {
        if self.uncertain { Error::OutcomeUnknown } else { error }
    }
}
