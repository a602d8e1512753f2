//! The fixed window: so many units per window, counted from nothing at each edge.
//!
//! It is the quota people can reckon with ("five a minute"), and the price is at the edge: all of
//! one window may be spent in its last instant and all of the next in its first, so any span of one
//! window's length may see up to twice `max`. Where that matters use [`sliding`](super::sliding) or
//! [`bucket`](super::bucket).
//!
//! With `wait_max_seconds` a call that finds the window full may reserve in one of the windows that
//! follow, at most [`AHEAD`] of them; the first with room is taken. Each window keeps its own
//! count, so a waiter that gives up returns exactly its units to exactly its window. Windows that
//! pass unused are lost, not saved up.

use std::time::Duration;

use mainstay_core::Instant;

use super::machine::{Level, Request, Rule, Spent, Verdict, carried, nanos};
use super::policy::Quota;
use super::snapshot::Left;

/// How many windows ahead a call may reserve. The counts are part of every key's state, which must
/// stay below 96 bytes with all that belongs to a key.
pub const AHEAD: u32 = 10;

/// Windows counted: the current one and those ahead.
const WINDOWS: usize = AHEAD as usize + 1;

#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    window: u64,
    max: u32,
    wait_max: Duration,
}

/// Start of the current window in nanoseconds, and units used in it and in those that follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    start: u64,
    used: [u32; WINDOWS],
}

impl Counter {
    pub(super) fn new(quota: Quota, wait_max: Duration) -> Self {
        Self { window: nanos(quota.window).max(1), max: quota.max.get(), wait_max }
    }

    /// Leaves the windows behind that are over at `now`.
    fn advance(&self, state: &mut Windows, now: Instant) {
        let elapsed = now.as_nanos().saturating_sub(state.start);
        if elapsed < self.window {
            return;
        }
        let over = elapsed / self.window;
        state.start += over * self.window;
        match usize::try_from(over) {
            Ok(over) if over < WINDOWS => {
                state.used.copy_within(over.., 0);
                state.used[WINDOWS - over..].fill(0);
            }
            _ => state.used = [0; WINDOWS],
        }
    }

    /// Start of the window `ahead` windows after the current one.
    fn start(&self, state: &Windows, ahead: usize) -> u64 {
        state.start.saturating_add(self.window.saturating_mul(ahead as u64))
    }

    fn remaining(&self, state: &Windows) -> u64 {
        u64::from(self.max.saturating_sub(state.used[0]))
    }

    /// Time until the last window in use is over.
    fn reset(&self, state: &Windows, now: Instant) -> Duration {
        let in_use = state.used.iter().rposition(|&used| used > 0).map_or(0, |last| last + 1);
        Instant::from_nanos(self.start(state, in_use)).since(now)
    }
}

impl Rule for Counter {
    type State = Windows;

    fn fresh(&self, now: Instant) -> Windows {
        Windows { start: now.as_nanos(), used: [0; WINDOWS] }
    }

    fn capacity(&self) -> u32 {
        self.max
    }

    fn ask(&self, state: &mut Windows, request: Request) -> Verdict {
        let Request { now, cost, deadline } = request;
        self.advance(state, now);
        let has_room = |&used: &u32| used.saturating_add(cost) <= self.max;
        let ahead = state.used.iter().position(has_room).unwrap_or(WINDOWS);
        let slot = self.start(state, ahead);
        if ahead == 0 {
            state.used[0] += cost;
            let (remaining, reset) = (self.remaining(state), self.reset(state, now));
            return Verdict::Granted { remaining, reset, slot };
        }
        let until = Instant::from_nanos(slot);
        // At the end of time all windows begin at the same moment, and none may be waited for.
        if ahead < WINDOWS && now < until && until <= now.plus(self.wait_max).min(deadline) {
            state.used[ahead] += cost;
            return Verdict::Wait { until, slot };
        }
        Verdict::Denied {
            retry_after: until.since(now),
            observed: u64::from(state.used[0]),
            threshold: u64::from(self.max),
        }
    }

    fn refund(&self, state: &mut Windows, now: Instant, spent: Spent) {
        self.advance(state, now);
        let Some(later) = spent.slot.checked_sub(state.start) else { return };
        let ahead = usize::try_from(later / self.window).unwrap_or(usize::MAX);
        if let Some(used) = state.used.get_mut(ahead) {
            *used = used.saturating_sub(spent.cost);
        }
    }

    fn adopt(&self, old: &Self, state: &mut Windows, now: Instant) {
        old.advance(state, now);
        state.used[0] = carried(state.used[0], old.max, self.max);
        if self.window != old.window {
            // A window that began long ago under the old length would be over at once under a
            // shorter one, and the quota be there a second time.
            state.start = now.as_nanos();
        }
    }

    fn level(&self, state: &Windows, now: Instant) -> Level {
        let mut state = *state;
        self.advance(&mut state, now);
        let reset = self.reset(&state, now);
        Level { used: u64::from(state.used[0]), capacity: u64::from(self.max), reset }
    }

    fn measure(&self) -> [u64; 3] {
        [self.window, 0, 0]
    }

    fn save(&self, state: &Windows, now: Instant) -> Option<Left> {
        let mut state = *state;
        self.advance(&mut state, now);
        Some(Left::windows(&state.used, state.start, now))
    }

    fn load(&self, left: &Left, now: Instant, elapsed: Duration) -> Option<Windows> {
        let (start, used) = left.to_windows(now, elapsed)?;
        let mut state = Windows { start, used };
        self.advance(&mut state, now);
        Some(state)
    }

    fn age(&self, state: &Windows) -> u64 {
        state.start
    }
}
