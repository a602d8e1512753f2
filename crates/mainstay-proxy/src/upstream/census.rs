//! How many upstream connections this process has, for whoever asks.
//!
//! Pools belong to their threads, and nobody else can look into them. So the sweep of each thread,
//! once a second, adds to the process's count what has changed of its own.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

/// Connections to upstreams, as of the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Carrying a call, or shared by several over HTTP/2.
    pub busy: i64,
    /// Waiting for a call.
    pub idle: i64,
    /// Being made.
    pub connecting: i64,
    /// Calls that wait for one.
    pub awaited: i64,
}

static COUNTS: [AtomicI64; 4] = [const { AtomicI64::new(0) }; 4];

thread_local! {
    /// What this thread has told.
    static TOLD: Cell<[i64; 4]> = const { Cell::new([0; 4]) };
}

impl Census {
    /// All threads together.
    pub fn of_process() -> Self {
        let [busy, idle, connecting, awaited] =
            COUNTS.each_ref().map(|count| count.load(Ordering::Relaxed));
        Self { busy, idle, connecting, awaited }
    }

    /// The same by name.
    pub const fn by_state(self) -> [(&'static str, i64); 4] {
        let Self { busy, idle, connecting, awaited } = self;
        [("busy", busy), ("idle", idle), ("connecting", connecting), ("awaited", awaited)]
    }

    /// Tells what this thread has.
    pub(super) fn tell(self) {
        let now = self.by_state().map(|(_, count)| count);
        let before = TOLD.replace(now);
        for (count, (now, before)) in COUNTS.iter().zip(now.into_iter().zip(before)) {
            count.fetch_add(now - before, Ordering::Relaxed);
        }
    }
}

impl std::ops::AddAssign for Census {
    fn add_assign(&mut self, other: Self) {
        self.busy += other.busy;
        self.idle += other.idle;
        self.connecting += other.connecting;
        self.awaited += other.awaited;
    }
}
