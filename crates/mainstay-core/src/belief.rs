//! What the holder of a lease believes.
//!
//! The store ends a lease no earlier than its ttl after it *received* the last keep-alive. The
//! holder knows only when it *sent* it, which is never later; so it believes until
//!
//! > send time of the last answered keep-alive + ttl − margin, margin = max(ttl / 10, 500 ms)
//!
//! on its own clock, whatever anybody says afterwards. Nothing here trusts that messages arrive,
//! that the process runs, or that two clocks agree on the time: only that they run at about the
//! same speed, which the margin pays for (Gray and Cheriton, "Leases", SOSP 1989).
//!
//! It renews at ttl / 3, gives each try ttl / 6, and tries again ttl / 15 after a failure. A holder
//! that failed once is *in jeopardy* (Burrows, "The Chubby lock service", OSDI 2006): it still
//! holds, and may want to stop taking on work. One that has lost never holds again; it has to ask
//! anew, and gets a new token.
//!
//! The machine has no clock and no task. Whoever drives it asks [`Belief::poll`] what to do, does
//! it, and reports what came of it.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::Instant;

/// How long a lease is believed in and when it is renewed, all from its ttl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    ttl: Duration,
}

impl Terms {
    /// The terms of a lease that was granted `ttl`.
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl }
    }

    /// The ttl.
    pub const fn ttl(self) -> Duration {
        self.ttl
    }

    /// How much earlier than the store the holder stops: a tenth of the ttl, at least 500 ms.
    pub fn margin(self) -> Duration {
        (self.ttl / 10).max(Duration::from_millis(500))
    }

    /// How long after a keep-alive was sent its lease is believed in.
    pub fn valid_for(self) -> Duration {
        self.ttl.saturating_sub(self.margin())
    }

    /// How long after a keep-alive was sent the next one is.
    pub fn renew_every(self) -> Duration {
        self.ttl / 3
    }

    /// How long one try may take.
    pub fn try_timeout(self) -> Duration {
        self.ttl / 6
    }

    /// How long after a failed try the next one is.
    pub fn retry_every(self) -> Duration {
        self.ttl / 15
    }
}

/// Why a holder holds no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Its own clock says so: it could not renew in time.
    Expired,
    /// The store says that the session has ended.
    SessionGone,
    /// Somebody with the right to do so took it away.
    Revoked,
    /// The store went back in time: what it said before may not hold.
    StoreRegressed,
}

impl Loss {
    /// The word used in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::SessionGone => "session-gone",
            Self::Revoked => "revoked",
            Self::StoreRegressed => "store-regressed",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a holder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds, and the last renewal worked.
    Held,
    /// It holds, but the last renewal failed.
    Jeopardy,
    /// It holds no longer.
    Lost(Loss),
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a keep-alive now, and report what came of it.
    Renew,
    /// Ask again at this moment, or when something happens.
    Wait(Instant),
    /// Tell whoever relies on it, at once. Nothing follows.
    End(Loss),
}

/// What the holder of one lease believes.
#[derive(Clone, Debug)]
pub struct Belief {
    terms: Terms,
    valid_until: Instant,
    renew_at: Instant,
    /// When the try under way was sent.
    trying: Option<Instant>,
    standing: Standing,
}

impl Belief {
    /// A lease that was asked for at `sent`, and granted.
    pub fn granted(sent: Instant, terms: Terms) -> Self {
        Self {
            terms,
            valid_until: sent.plus(terms.valid_for()),
            renew_at: sent.plus(terms.renew_every()),
            trying: None,
            standing: Standing::Held,
        }
    }

    /// What to do at `now`. [`Step::Renew`] is said once for each try.
    pub fn poll(&mut self, now: Instant) -> Step {
        if let Err(loss) = self.check(now) {
            return Step::End(loss);
        }
        if let Some(sent) = self.trying {
            let timeout = sent.plus(self.terms.try_timeout());
            if now < timeout {
                return Step::Wait(timeout.min(self.valid_until));
            }
            // Counted from when it was due, however late this was asked.
            self.failed(timeout);
        }
        if now < self.renew_at {
            return Step::Wait(self.renew_at.min(self.valid_until));
        }
        self.trying = Some(now);
        Step::Renew
    }

    /// The keep-alive sent at `sent` was answered with `ttl`, as heard at `now`.
    ///
    /// An answer that is heard after the holder had to stop changes nothing: in between it may
    /// have said that it does not hold.
    pub fn renewed(&mut self, sent: Instant, now: Instant, ttl: Duration) {
        if self.check(now).is_err() {
            return;
        }
        self.terms = Terms::new(ttl);
        self.valid_until = self.valid_until.max(sent.plus(self.terms.valid_for()));
        self.renew_at = sent.plus(self.terms.renew_every());
        self.trying = None;
        self.standing = Standing::Held;
    }

    /// The try under way failed at `now`; nothing is known of the lease.
    pub fn failed(&mut self, now: Instant) {
        self.trying = None;
        self.renew_at = now.plus(self.terms.retry_every());
        if self.standing == Standing::Held {
            self.standing = Standing::Jeopardy;
        }
    }

    /// The store says that the lease is gone, or what it says can no longer be relied on.
    pub fn lost(&mut self, loss: Loss) {
        if !matches!(self.standing, Standing::Lost(_)) {
            self.standing = Standing::Lost(loss);
        }
    }

    /// Until when it is believed in, if it is at `now`.
    ///
    /// # Errors
    ///
    /// Why it is not; from the first such answer on, every one is the same.
    pub fn check(&mut self, now: Instant) -> Result<Instant, Loss> {
        if self.valid_until <= now {
            self.lost(Loss::Expired);
        }
        match self.standing {
            Standing::Held | Standing::Jeopardy => Ok(self.valid_until),
            Standing::Lost(loss) => Err(loss),
        }
    }

    /// How it stood when it was last asked.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Its terms.
    pub const fn terms(&self) -> Terms {
        self.terms
    }
}
