//! Sub-windows of equally many results.

use mainstay_core::Instant;

use super::{Sample, SubWindow, Tally, at_least_one, next};

/// The last N results. Sub-window k is results k·g … k·g + g − 1 counted from the first ever, so
/// the oldest one shrinks, result by result, while the newest one grows.
#[derive(Clone, Debug)]
pub struct CountWindow {
    total: Tally,
    /// The results themselves, packed: what leaves must be taken away exactly.
    results: Box<[u64]>,
    /// Where the next result goes; once the ring is full, also where the oldest one is.
    place: usize,
    /// One more than the window has sub-windows: the newest is growing while the oldest shrinks.
    /// The slot after the newest is always the oldest, empty when nothing of it is left.
    subs: Box<[SubWindow]>,
    newest: usize,
    /// Results in the newest sub-window, shrinking left aside; at most `group`.
    in_newest: usize,
    group: usize,
    trip_at: u64,
    tripped: u32,
}

impl CountWindow {
    /// A window over the last `calls` results in `sub_windows` parts of equal size. The caller
    /// sees to it that the first divides by the second; if not, it is rounded down.
    pub fn new(calls: usize, sub_windows: usize) -> Self {
        let parts = at_least_one(sub_windows).get();
        let group = (calls / parts).max(1);
        let empty = SubWindow { start: Instant::ZERO, tally: Tally::default() };
        Self {
            total: Tally::default(),
            results: vec![0; group * parts].into(),
            place: 0,
            subs: vec![empty; parts + 1].into(),
            newest: 0,
            in_newest: 0,
            group,
            trip_at: 0,
            tripped: 0,
        }
    }

    /// Adds one result that came at `now`; the oldest one leaves if the window is full.
    #[inline]
    pub fn add(&mut self, now: Instant, sample: Sample) {
        if self.in_newest == self.group {
            self.newest = next(self.newest, self.subs.len());
            self.in_newest = 0;
        }
        if self.in_newest == 0 {
            self.subs[self.newest] = SubWindow { start: now, tally: Tally::default() };
        }
        if self.total.calls == self.results.len() as u64 {
            self.drop_oldest();
        }
        self.results[self.place] = sample.pack();
        self.place = next(self.place, self.results.len());
        self.in_newest += 1;
        self.total.add(sample);
        let sub = &mut self.subs[self.newest].tally;
        sub.add(sample);
        if sample.is_failure() && sub.failures == self.trip_at {
            self.tripped += 1;
        }
    }

    /// The last N results together.
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
        let tripped = self.subs.iter().filter(|sub| failures > 0 && sub.tally.failures >= failures);
        self.tripped = u32::try_from(tripped.count()).unwrap_or(u32::MAX);
    }

    /// The newest sub-window.
    #[inline]
    pub fn current(&self) -> SubWindow {
        self.subs[self.newest]
    }

    /// The newest sub-window, if the last result filled it.
    #[inline]
    pub fn filled(&self) -> Option<SubWindow> {
        (self.in_newest == self.group).then(|| self.subs[self.newest])
    }

    /// The sub-windows of which anything is left, oldest first.
    pub fn sub_windows(&self) -> impl Iterator<Item = SubWindow> {
        let slots = self.subs.len();
        let in_order = (1..=slots).map(move |i| self.subs[(self.newest + i) % slots]);
        in_order.filter(|sub| sub.tally.calls > 0)
    }

    /// The results as they are, oldest first, for a window of another size.
    pub(crate) fn samples(&self) -> impl Iterator<Item = Sample> {
        let len = self.results.len();
        let held = usize::try_from(self.total.calls).unwrap_or(len);
        (0..held).map(move |i| Sample::unpack(self.results[(self.place + len - held + i) % len]))
    }

    /// Forgets every result and begins a new sub-window.
    pub fn clear(&mut self) {
        for sub in &mut self.subs {
            sub.tally = Tally::default();
        }
        self.total = Tally::default();
        (self.place, self.newest, self.in_newest, self.tripped) = (0, 0, 0, 0);
    }

    /// Takes the oldest result away. It lies in the slot after the newest: the window is a whole
    /// number of groups long, so both ends of it are at the same place in theirs.
    fn drop_oldest(&mut self) {
        let leaving = Sample::unpack(self.results[self.place]);
        self.total.take_away_one(leaving);
        let oldest = next(self.newest, self.subs.len());
        let sub = &mut self.subs[oldest].tally;
        if leaving.is_failure() && self.trip_at > 0 && sub.failures == self.trip_at {
            self.tripped -= 1;
        }
        sub.take_away_one(leaving);
    }
}
