//! The sliding window: a quota that holds at every moment, not only between edges.
//!
//! The window is cut into sub-windows, each with its own count. Those wholly inside the window count
//! in full. The oldest is partly outside; `edge` says how it counts:
//!
//! - `weighted`: by the share of it still inside, as if its calls had come evenly. Smooth, and what
//!   people expect of a sliding window; since they need not have come evenly, a window may in truth
//!   hold up to one sub-window's count more than `max`.
//! - `full`: whole until the last of it is out. Never more than `max` in any window, at the price of
//!   up to one sub-window of delay.

use std::time::Duration;

use mainstay_core::Instant;

use super::machine::{Level, Request, Rule, Spent, Verdict, carried, nanos};
use super::policy::{Edge, Quota};
use super::snapshot::Left;

/// Most sub-windows of a window. The counts are part of every key's state, which must stay below
/// 96 bytes with all that belongs to a key.
pub const SUB_WINDOWS_MAX: u32 = 10;

/// The sub-windows inside, and the one that is partly outside.
const COUNTS: usize = SUB_WINDOWS_MAX as usize + 1;

#[derive(Clone, Copy, Debug)]
pub(super) struct Sliding {
    /// Length of a sub-window in nanoseconds.
    sub: u64,
    /// How many there are; also the place of the oldest count.
    oldest: usize,
    max: u32,
    edge: Edge,
}

/// Start of the current sub-window in nanoseconds, and units used in it and in those before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    start: u64,
    used: [u32; COUNTS],
}

impl Sliding {
    /// A window of `sub_windows` parts, 1 to [`SUB_WINDOWS_MAX`]. Where they do not divide it
    /// evenly the window is longer by less than a nanosecond a part, never shorter.
    pub(super) fn new(quota: Quota, sub_windows: u32, edge: Edge) -> Self {
        let parts = sub_windows.clamp(1, SUB_WINDOWS_MAX);
        let sub = nanos(quota.window).div_ceil(u64::from(parts)).max(1);
        Self { sub, oldest: parts as usize, max: quota.max.get(), edge }
    }

    /// Moves on to the sub-window `now` lies in.
    fn advance(&self, state: &mut Counts, now: Instant) {
        let elapsed = now.as_nanos().saturating_sub(state.start);
        if elapsed < self.sub {
            return;
        }
        let steps = elapsed / self.sub;
        state.start += steps * self.sub;
        match usize::try_from(steps) {
            Ok(steps) if steps <= self.oldest => {
                state.used.copy_within(..=self.oldest - steps, steps);
                state.used[..steps].fill(0);
            }
            _ => state.used = [0; COUNTS],
        }
    }

    /// Units used in the window that ends at `now`, rounded up; `state` has been advanced.
    fn used(&self, state: &Counts, now: Instant) -> u32 {
        let whole = total(&state.used[..self.oldest]);
        let oldest = state.used[self.oldest];
        let part = match self.edge {
            Edge::Full => oldest,
            Edge::Weighted => {
                let inside = self.sub - now.as_nanos().saturating_sub(state.start).min(self.sub);
                let units = u128::from(oldest) * u128::from(inside);
                u32::try_from(units.div_ceil(u128::from(self.sub))).unwrap_or(u32::MAX)
            }
        };
        whole.saturating_add(part)
    }

    /// The first moment at which `cost` units fit, if none is taken until then.
    ///
    /// Steps through the coming sub-windows; in each, what counts whole is known, and what is left
    /// of the quota says how much of the oldest may still be inside.
    fn fits_at(&self, state: &Counts, cost: u32) -> Instant {
        let allowed = self.max.saturating_sub(cost);
        for step in 0..=self.oldest {
            let whole = total(&state.used[..self.oldest - step]);
            let oldest = state.used[self.oldest - step];
            let Some(room) = allowed.checked_sub(whole) else { continue };
            let outside = match self.edge {
                _ if oldest <= room => 0,
                Edge::Full => continue,
                Edge::Weighted => {
                    let inside = u128::from(room) * u128::from(self.sub) / u128::from(oldest);
                    self.sub - u64::try_from(inside).unwrap_or(self.sub).min(self.sub)
                }
            };
            return Instant::from_nanos(self.end(state, step).saturating_add(outside));
        }
        Instant::from_nanos(self.end(state, self.oldest + 1))
    }

    /// Start of the sub-window `steps` after the current one.
    fn end(&self, state: &Counts, steps: usize) -> u64 {
        state.start.saturating_add(self.sub.saturating_mul(steps as u64))
    }

    /// Time until the newest units are out of the window.
    fn reset(&self, state: &Counts, now: Instant) -> Duration {
        match state.used[..=self.oldest].iter().position(|&used| used > 0) {
            None => Duration::ZERO,
            Some(newest) => {
                Instant::from_nanos(self.end(state, self.oldest + 1 - newest)).since(now)
            }
        }
    }
}

impl Rule for Sliding {
    type State = Counts;

    fn fresh(&self, now: Instant) -> Counts {
        Counts { start: now.as_nanos(), used: [0; COUNTS] }
    }

    fn capacity(&self) -> u32 {
        self.max
    }

    fn ask(&self, state: &mut Counts, request: Request) -> Verdict {
        let Request { now, cost, .. } = request;
        self.advance(state, now);
        let used = self.used(state, now);
        if used.saturating_add(cost) <= self.max {
            state.used[0] += cost;
            return Verdict::Granted {
                remaining: u64::from(self.max - used - cost),
                reset: self.reset(state, now),
                slot: state.start,
            };
        }
        Verdict::Denied {
            retry_after: self.fits_at(state, cost).since(now),
            observed: u64::from(used),
            threshold: u64::from(self.max),
        }
    }

    fn refund(&self, state: &mut Counts, now: Instant, spent: Spent) {
        self.advance(state, now);
        let ago = state.start.saturating_sub(spent.slot) / self.sub;
        if let Some(used) = usize::try_from(ago).ok().and_then(|ago| state.used.get_mut(ago)) {
            *used = used.saturating_sub(spent.cost);
        }
    }

    fn adopt(&self, old: &Self, state: &mut Counts, now: Instant) {
        old.advance(state, now);
        let used = old.used(state, now);
        let carried = carried(used, old.max, self.max);
        if (self.sub, self.oldest) == (old.sub, old.oldest) {
            state.used[0] = state.used[0].saturating_add(carried - used);
        } else {
            // Counts cannot be cut anew; all of them count as taken just now.
            *state = self.fresh(now);
            state.used[0] = carried;
        }
    }

    fn level(&self, state: &Counts, now: Instant) -> Level {
        let mut state = *state;
        self.advance(&mut state, now);
        Level {
            used: u64::from(self.used(&state, now)),
            capacity: u64::from(self.max),
            reset: self.reset(&state, now),
        }
    }

    fn measure(&self) -> [u64; 3] {
        [self.sub, self.oldest as u64, 0]
    }

    fn save(&self, state: &Counts, now: Instant) -> Option<Left> {
        let mut state = *state;
        self.advance(&mut state, now);
        Some(Left::windows(&state.used, state.start, now))
    }

    fn load(&self, left: &Left, now: Instant, elapsed: Duration) -> Option<Counts> {
        let (start, used) = left.to_windows(now, elapsed)?;
        let mut state = Counts { start, used };
        self.advance(&mut state, now);
        Some(state)
    }

    fn age(&self, state: &Counts) -> u64 {
        state.start
    }
}

fn total(counts: &[u32]) -> u32 {
    counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
}
