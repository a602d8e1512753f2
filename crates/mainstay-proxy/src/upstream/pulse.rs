//! A waker for two ends of a channel that live in one task.
//!
//! hyper's client connection talks to the request through channels, and each end wakes the other.
//! With both ends polled by one task, each such note would only schedule the task that is running
//! already, and cost a whole useless poll of the downstream connection. A [`Pulse`] stands in for
//! the task's waker: while the task is inside, wakes are only noted, and the caller polls again
//! itself if it has to; outside, they reach the task.
//!
//! It also lets a connection change tasks without the old task being woken: the connection keeps
//! one waker for life, and only what stands behind it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// The task is polling right now.
const INSIDE: u8 = 1;
/// It was woken while inside.
const NOTED: u8 = 2;

/// How often a poll is repeated for its own notes before the task goes to the back of the queue,
/// so that a peer that is always ready cannot keep a core to itself.
const TURNS_MAX: usize = 32;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Pulse {
    state: AtomicU8,
    /// Whom to wake when outside.
    task: Mutex<Option<Waker>>,
}

impl Pulse {
    /// Polls `turn` for `task`, again for as long as it is pending and was woken meanwhile.
    pub(super) fn poll<T>(
        &self,
        task: &Context<'_>,
        pulse: &Waker,
        mut turn: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.enter(task.waker());
        let mut context = Context::from_waker(pulse);
        for _ in 0..TURNS_MAX {
            if let Poll::Ready(answer) = turn(&mut context) {
                // Whoever gets the answer polls again before it waits, so the note is not needed.
                self.state.store(0, Ordering::Release);
                return Poll::Ready(answer);
            }
            if self.state.swap(INSIDE, Ordering::AcqRel) & NOTED == 0 {
                if self.state.swap(0, Ordering::AcqRel) & NOTED != 0 {
                    task.waker().wake_by_ref(); // Another thread, just now.
                }
                return Poll::Pending;
            }
        }
        self.state.store(0, Ordering::Release);
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// Runs `turn` with nobody to wake: an idle connection has no task.
    pub(super) fn alone<T>(&self, pulse: &Waker, turn: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.state.store(INSIDE, Ordering::Release);
        let answer = turn(&mut Context::from_waker(pulse));
        self.state.store(0, Ordering::Release);
        answer
    }

    /// Nobody waits any more.
    pub(super) fn forget(&self) {
        *self.task.lock() = None;
    }

    fn enter(&self, task: &Waker) {
        let mut known = self.task.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
        drop(known);
        self.state.store(INSIDE, Ordering::Release);
    }
}

impl Wake for Pulse {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(NOTED, Ordering::AcqRel) & INSIDE != 0 {
            return;
        }
        self.state.fetch_and(!NOTED, Ordering::AcqRel);
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}
