//! First attempts and retries of the last ttl, kept in tenths of it.

use std::time::Duration;

use mainstay_core::Instant;

use super::{View, WHOLE};

/// The moving window of a budget.
///
/// It covers the current part and the nine before it, so an attempt counts for nine tenths of the
/// ttl at least and the whole of it at most. The sums are kept beside the parts: asking costs two
/// comparisons and a multiplication, and a division is paid once a part, not once a call.
#[derive(Clone, Debug)]
pub(super) struct Window {
    ratio_millionths: u32,
    /// `min_per_second` over the whole ttl.
    reserve: u64,
    part: Duration,
    /// Begin of the current part, and of the next one.
    began: Instant,
    ends: Instant,
    /// Parts since the start, the current one included; its place is this number modulo ten.
    number: u64,
    parts: [Counts; PARTS],
    sum: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    first_attempts: u64,
    retries: u64,
}

impl Window {
    pub(super) fn new(now: Instant, ratio: u32, min_per_second: u32, ttl: Duration) -> Self {
        let mut window = Self {
            ratio_millionths: ratio,
            reserve: 0,
            part: Duration::ZERO,
            began: now,
            ends: now,
            number: 0,
            parts: [Counts::default(); PARTS],
            sum: Counts::default(),
        };
        window.set(ratio, min_per_second, ttl);
        window
    }

    /// Changes the rule and the length of a part; what was counted stays.
    pub(super) fn set(&mut self, ratio: u32, min_per_second: u32, ttl: Duration) {
        self.ratio_millionths = ratio;
        let reserve = u128::from(min_per_second) * ttl.as_nanos() / 1_000_000_000;
        self.reserve = u64::try_from(reserve).unwrap_or(u64::MAX);
        self.part = (ttl / 10).max(Duration::from_nanos(1));
        self.ends = self.began.plus(self.part);
    }

    /// Drops the parts that are over. A `now` before the last one changes nothing.
    pub(super) fn poll(&mut self, now: Instant) {
        if now < self.ends {
            return;
        }
        let part = u64::try_from(self.part.as_nanos()).unwrap_or(u64::MAX);
        let over = now.since(self.began).as_nanos();
        let over = u64::try_from(over).unwrap_or(u64::MAX) / part;
        if over >= PARTS as u64 {
            self.parts = [Counts::default(); PARTS];
            self.sum = Counts::default();
        } else {
            for step in 1..=over {
                let place = place(self.number + step);
                let dropped = std::mem::take(&mut self.parts[place]);
                self.sum.first_attempts -= dropped.first_attempts;
                self.sum.retries -= dropped.retries;
            }
        }
        self.number += over;
        self.began = self.began.plus(Duration::from_nanos(part.saturating_mul(over)));
        self.ends = self.began.plus(self.part);
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        (self.sum.first_attempts != 0 || self.sum.retries != 0).then_some(self.ends)
    }

    pub(super) fn first_attempt(&mut self) {
        self.parts[place(self.number)].first_attempts += 1;
        self.sum.first_attempts += 1;
    }

    /// Counts a retry if there is room for it; returns the part it was counted in.
    pub(super) fn try_take(&mut self) -> Option<u64> {
        let earned = u128::from(self.sum.first_attempts) * u128::from(self.ratio_millionths);
        // retries − reserve < ⌊earned / 1,000,000⌋, without the division.
        let above = self.sum.retries.checked_sub(self.reserve);
        if above.is_some_and(|above| earned < u128::from(above + 1) * u128::from(WHOLE)) {
            return None;
        }
        self.parts[place(self.number)].retries += 1;
        self.sum.retries += 1;
        Some(self.number)
    }

    /// Takes a retry back out of `part`, unless that part is over already.
    pub(super) fn give_back(&mut self, part: u64) {
        if self.number - part < PARTS as u64
            && let retries = &mut self.parts[place(part)].retries
            && *retries != 0
        {
            *retries -= 1;
            self.sum.retries -= 1;
        }
    }

    pub(super) fn view(&self) -> View {
        let Counts { first_attempts, retries } = self.sum;
        let earned = u128::from(first_attempts) * u128::from(self.ratio_millionths);
        let earned = u64::try_from(earned / u128::from(WHOLE)).unwrap_or(u64::MAX);
        View::Window { first_attempts, retries, allowed: earned.saturating_add(self.reserve) }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is below ten")]
fn place(number: u64) -> usize {
    (number % PARTS as u64) as usize
}

/// Tenths of the ttl.
const PARTS: usize = 10;
