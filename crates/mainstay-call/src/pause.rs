//! What a thread has noticed of its own standing still; [`mainstay_resilience::pause`] says why.
//!
//! A pause is noticed by whoever comes late: the timer of an attempt, or a [`Heart`] that beats
//! with the ticker of a worker. The last one is kept for its thread. That is exact for a gateway,
//! whose calls never leave their worker; in a program whose runtime moves tasks between threads an
//! attempt is excused by the lateness of its own timer, and only by chance by what another saw.
//! Calls that end soon and well never look here.

use std::cell::Cell;
use std::time::Duration;

use mainstay_core::{Clock as _, Instant};
use mainstay_resilience::pause::{PAUSE_MIN, Pause};

use crate::clock::MonotonicClock;

thread_local! {
    /// The last pause of this thread.
    static LAST: Cell<Pause> = const { Cell::new(Pause { from: Instant::ZERO, to: Instant::ZERO }) };
    /// When the heart of this thread beats next, at the latest.
    static DUE: Cell<Instant> = const { Cell::new(Instant::MAX) };
}

/// The heart of a thread that has a ticker.
#[derive(Debug)]
pub struct Heart {
    interval: Duration,
}

impl Heart {
    /// Watches this thread, whose ticker comes round every `interval` from now on.
    pub fn start(interval: Duration) -> Self {
        DUE.set(MonotonicClock.now().plus(interval));
        Self { interval }
    }

    /// The ticker came round: how long the thread stood still before, if it did.
    pub fn beat(&self) -> Option<Duration> {
        let now = MonotonicClock.now();
        let pause = Pause::seen(DUE.replace(now.plus(self.interval)), now)?;
        LAST.set(pause);
        Some(pause.length())
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        DUE.set(Instant::MAX);
    }
}

/// Whether the timeout of an attempt says nothing of its peer: it ran from `began`, should have
/// ended at `due`, and ends at `now`.
#[cold]
pub fn excuses(began: Instant, due: Instant, now: Instant) -> bool {
    if let Some(pause) = Pause::seen(due, now) {
        LAST.set(pause);
    }
    noticed(now).any(|pause| pause.excuses(began, now))
}

/// How long an attempt that ended at `now` took, without a pause in it: an answer that waited for
/// us was not slow.
#[inline]
pub(crate) fn awake(began: Instant, now: Instant) -> Duration {
    let took = now.since(began);
    if took < PAUSE_MIN { took } else { without_pauses(began, now, took) }
}

#[cold]
fn without_pauses(began: Instant, now: Instant, took: Duration) -> Duration {
    let lost = noticed(now).map(|pause| pause.lost(began, now)).max();
    took.saturating_sub(lost.unwrap_or_default())
}

/// The last pause, and the one that the ticker, when it comes round, will notice.
fn noticed(now: Instant) -> impl Iterator<Item = Pause> {
    Pause::seen(DUE.get(), now).into_iter().chain(std::iter::once(LAST.get()))
}
