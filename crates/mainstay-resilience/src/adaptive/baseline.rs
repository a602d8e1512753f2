//! The latency of an idle peer, found without asking it to be idle.

use std::time::Duration;

use mainstay_core::Instant;

/// The least window median of the last five minutes, which may fall at once and rise only slowly.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    /// The least median of each cell, the current one first.
    cells: [Option<u64>; CELLS],
    /// When the current cell began.
    began: Instant,
    value: Option<u64>,
}

const CELLS: usize = 10;
const CELL: Duration = Duration::from_secs(30);

impl Baseline {
    pub(super) const fn new(now: Instant) -> Self {
        Self { cells: [None; CELLS], began: now, value: None }
    }

    /// Nanoseconds.
    pub(super) const fn get(&self) -> Option<u64> {
        self.value
    }

    /// Takes the median of one window; returns the baseline as it was known before.
    pub(super) fn observe(&mut self, now: Instant, median: u64) -> Option<u64> {
        self.advance(now);
        let before = self.value;
        self.cells[0] = Some(self.cells[0].map_or(median, |least| least.min(median)));
        self.value = Some(before.map_or(median, |value| value.min(median)));
        before
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.since(self.began).as_nanos() / CELL.as_nanos();
        // After as many cells as there are all are empty, and further ones change nothing.
        for _ in 0..passed.min(CELLS as u128) {
            self.cells.rotate_right(1);
            self.cells[0] = None;
            self.rise();
        }
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.began = self.began.plus(CELL.saturating_mul(passed));
    }

    /// One cell's worth of rising: a twentieth. Ten minutes of overload raise it by less than two
    /// thirds, while a peer that has become slower for good is believed in the end.
    fn rise(&mut self) {
        let least = self.cells.iter().flatten().min();
        if let (Some(&least), Some(value)) = (least, self.value) {
            self.value = Some(least.clamp(value, value.saturating_add(value / 20)));
        }
    }
}
