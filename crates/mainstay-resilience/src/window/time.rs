//! Sub-windows of equal length.

use std::time::Duration;

use mainstay_core::Instant;

use super::{Sample, SubWindow, Tally, at_least_one, next};

/// The current sub-window and those before it, aligned to the moment the window was made.
#[derive(Clone, Debug)]
pub struct TimeWindow {
    total: Tally,
    subs: Box<[Tally]>,
    /// Where the current sub-window is in `subs`; the oldest follows it.
    head: usize,
    start: Instant,
    /// `start + width`, kept so that a record needs no division.
    end: Instant,
    /// Nanoseconds, at least 1.
    width: u64,
    trip_at: u64,
    tripped: u32,
}

impl TimeWindow {
    /// A window over `length` in `sub_windows` equal parts, the first of which begins at `now`.
    /// Zero parts count as one; a length that is no multiple of them is rounded down to one.
    pub fn new(length: Duration, sub_windows: usize, now: Instant) -> Self {
        let parts = at_least_one(sub_windows).get();
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let width = (length / parts as u64).max(1);
        Self {
            total: Tally::default(),
            subs: vec![Tally::default(); parts].into(),
            head: 0,
            start: now,
            end: now.plus(Duration::from_nanos(width)),
            width,
            trip_at: 0,
            tripped: 0,
        }
    }

    /// Lets every sub-window go that `now` has left behind.
    #[inline]
    pub fn advance(&mut self, now: Instant) {
        if now >= self.end {
            self.roll(now);
        }
    }

    /// Adds one result to the current sub-window.
    #[inline]
    pub fn add(&mut self, sample: Sample) {
        self.total.add(sample);
        let sub = &mut self.subs[self.head];
        sub.add(sample);
        if sample.is_failure() && sub.failures == self.trip_at {
            self.tripped += 1;
        }
    }

    /// Adds successes that were not slow to the current sub-window, which must still be current.
    #[inline]
    pub fn add_successes(&mut self, calls: u64, latency_nanos: u128) {
        for tally in [&mut self.total, &mut self.subs[self.head]] {
            tally.calls += calls;
            tally.latency_nanos += latency_nanos;
        }
    }

    /// Adds what another window had counted in a sub-window that began `age` before `now`; what is
    /// too old is left out. So counts survive a restart and a change of length.
    pub fn add_aged(&mut self, now: Instant, age: Duration, tally: &Tally) {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let into_current = now.as_nanos().saturating_sub(self.start.as_nanos());
        let back = age.saturating_sub(into_current).div_ceil(self.width);
        let Some(back) = usize::try_from(back).ok().filter(|&back| back < self.subs.len()) else {
            return;
        };
        let place = (self.head + self.subs.len() - back) % self.subs.len();
        self.subs[place].put_together(tally);
        self.total.put_together(tally);
        self.trip_at(self.trip_at);
    }

    /// Everything from the oldest sub-window to the current one.
    #[inline]
    pub fn total(&self) -> &Tally {
        &self.total
    }

    /// How many sub-windows are tripped.
    #[inline]
    pub fn tripped(&self) -> u32 {
        self.tripped
    }

    /// Sets from how many failures on a sub-window is tripped; zero: never.
    pub fn trip_at(&mut self, failures: u64) {
        self.trip_at = failures;
        let tripped = self.subs.iter().filter(|sub| failures > 0 && sub.failures >= failures);
        self.tripped = u32::try_from(tripped.count()).unwrap_or(u32::MAX);
    }

    /// When the current sub-window ends.
    #[inline]
    pub fn ends(&self) -> Instant {
        self.end
    }

    /// The current sub-window.
    #[inline]
    pub fn current(&self) -> SubWindow {
        SubWindow { start: self.start, tally: self.subs[self.head] }
    }

    /// All sub-windows, oldest first. One from before the window was made has the start zero at
    /// worst.
    pub fn sub_windows(&self) -> impl Iterator<Item = SubWindow> {
        let parts = self.subs.len();
        (0..parts).map(move |i| {
            let back = (parts - 1 - i) as u64;
            let start = self.start.minus(Duration::from_nanos(self.width.saturating_mul(back)));
            SubWindow { start, tally: self.subs[(self.head + 1 + i) % parts] }
        })
    }

    /// Forgets every result.
    pub fn clear(&mut self) {
        self.subs.fill(Tally::default());
        self.total = Tally::default();
        self.tripped = 0;
    }

    #[cold]
    fn roll(&mut self, now: Instant) {
        let passed = (now.as_nanos() - self.start.as_nanos()) / self.width;
        if passed >= self.subs.len() as u64 {
            self.clear();
        } else {
            for _ in 0..passed {
                self.head = next(self.head, self.subs.len());
                let oldest = std::mem::take(&mut self.subs[self.head]);
                self.total.take_away(&oldest);
                self.tripped -= u32::from(self.trip_at > 0 && oldest.failures >= self.trip_at);
            }
        }
        self.start = self.start.plus(Duration::from_nanos(passed * self.width));
        self.end = self.start.plus(Duration::from_nanos(self.width));
    }
}
