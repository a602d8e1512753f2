//! What a process answered, by the second.

use std::time::Duration;

use mainstay_core::Instant;

/// Answered calls and their latencies, by the second.
#[derive(Clone, Debug)]
pub(super) struct Seconds {
    cells: [Cell; SECONDS],
    head: usize,
    end: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    calls: u64,
    latency_nanos: u64,
    /// How long these calls took to come, where that is known; else the cell's own second.
    span: Duration,
}

const SECONDS: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

impl Seconds {
    pub(super) fn new(now: Instant) -> Self {
        Self { cells: [Cell::default(); SECONDS], head: 0, end: now.plus(SECOND) }
    }

    /// Whether the second under way has ended by `now`.
    #[inline]
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end <= now
    }

    /// Begins the second that `now` lies in; what is older than ten seconds is forgotten.
    #[cold]
    pub(super) fn roll(&mut self, now: Instant) {
        let passed = now.since(self.end).as_secs() + 1;
        for _ in 0..passed.min(SECONDS as u64) {
            self.head = (self.head + 1) % SECONDS;
            self.cells[self.head] = Cell::default();
        }
        self.end = self.end.plus(Duration::from_secs(passed));
    }

    #[inline]
    pub(super) fn add(&mut self, calls: u64, latency: Duration) {
        let cell = &mut self.cells[self.head];
        cell.calls += calls;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        cell.latency_nanos = cell.latency_nanos.saturating_add(nanos);
    }

    /// The same for calls that came back over `span`.
    pub(super) fn add_span(&mut self, calls: u64, latency: Duration, span: Duration) {
        self.add(calls, latency);
        let cell = &mut self.cells[self.head];
        cell.span = cell.span.saturating_add(span);
    }

    /// Most calls in one second times the least mean latency of one, in calls.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn carries(&self) -> Option<f64> {
        let used = || self.cells.iter().filter(|cell| cell.calls > 0);
        let rates = used().map(|cell| cell.calls as f64 / cell.span.max(SECOND).as_secs_f64());
        let most = rates.reduce(f64::max)?;
        let means = used().map(|cell| cell.latency_nanos as f64 / cell.calls as f64);
        let least = means.fold(f64::INFINITY, f64::min);
        Some(most * least / 1e9)
    }
}
