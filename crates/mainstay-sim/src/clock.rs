//! Clocks of processes, which go as they want.
//!
//! True time is tokio's, paused: it moves on when nobody has anything to do. The clock of a process
//! goes a little faster or slower, leaps ahead, or stands still; it never goes back, as the clocks
//! that are decided by do not. The wall clock, by which nothing may be decided, leaps both ways.

use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::Timer;
use mainstay_coord::clock::Sleep;
use mainstay_core::{Clock, Instant};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The clock of one process. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct SkewedClock {
    began: tokio::time::Instant,
    skew: Arc<Mutex<Skew>>,
    /// Told whenever the clock or the process does something unusual. Tells in the order in which
    /// it was asked: tokio's watch channel would draw one.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Skew {
    /// How much faster it goes, in millionths.
    fast_ppm: i64,
    /// What it leapt ahead.
    ahead: Duration,
    /// What it stood still, so far.
    behind: Duration,
    /// True time at which it began to stand still, if it does.
    stands_since: Option<Duration>,
    /// The process does not run: none of its timers fires, though its clock goes on.
    paused: bool,
    wall_offset_millis: i64,
}

impl SkewedClock {
    /// A clock that begins now and goes `fast_ppm` millionths too fast.
    pub fn new(fast_ppm: i64) -> Self {
        let skew = Skew {
            fast_ppm,
            ahead: Duration::ZERO,
            behind: Duration::ZERO,
            stands_since: None,
            paused: false,
            wall_offset_millis: 0,
        };
        let skew = Arc::new(Mutex::new(skew));
        Self { began: truth(), skew, changed: Arc::default() }
    }

    /// The true time at which it began.
    pub const fn began(&self) -> tokio::time::Instant {
        self.began
    }

    /// It leaps ahead.
    pub fn leap(&self, span: Duration) {
        self.change(|skew, _| skew.ahead += span);
    }

    /// The wall clock is set to something else.
    pub fn set_wall(&self, offset_millis: i64) {
        self.change(|skew, _| skew.wall_offset_millis = offset_millis);
    }

    /// It stands still from now on, or goes on.
    pub fn stand_still(&self, still: bool) {
        self.change(|skew, elapsed| match (still, skew.stands_since) {
            (true, None) => skew.stands_since = Some(elapsed),
            (false, Some(since)) => {
                skew.behind += elapsed.saturating_sub(since);
                skew.stands_since = None;
            }
            _ => (),
        });
    }

    /// The process stops, or goes on; the clock shows all the time that has passed.
    pub fn pause(&self, paused: bool) {
        self.change(|skew, _| skew.paused = paused);
    }

    /// Whether the process does not run.
    pub fn is_paused(&self) -> bool {
        self.skew.lock().paused
    }

    /// Waits until the process runs.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is kept.
    pub async fn running(&self) {
        while self.is_paused() {
            self.changed.notified().await;
        }
    }

    fn change(&self, act: impl FnOnce(&mut Skew, Duration)) {
        let elapsed = truth().duration_since(self.began);
        act(&mut self.skew.lock(), elapsed);
        self.changed.notify_waiters();
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Instant {
        let elapsed = truth().duration_since(self.began);
        let skew = self.skew.lock();
        let own = skew.stands_since.unwrap_or(elapsed).saturating_sub(skew.behind);
        let nanos = i64::try_from(own.as_nanos()).unwrap_or(i64::MAX);
        let fast = nanos.saturating_add(nanos / 1_000_000 * skew.fast_ppm);
        Instant::from_nanos(fast.unsigned_abs()).plus(skew.ahead)
    }
}

impl Timer for SkewedClock {
    fn sleep_until(&self, moment: Instant) -> Sleep<'_> {
        Box::pin(async move {
            loop {
                self.running().await;
                let left = moment.since(self.now());
                if left.is_zero() {
                    return;
                }
                // What is too long for a slow clock is looked at again.
                tokio::select! {
                    biased;
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(left) => {}
                }
            }
        })
    }

    fn unix_millis(&self) -> u64 {
        let offset = self.skew.lock().wall_offset_millis;
        let elapsed = truth().duration_since(self.began).as_millis();
        let millis = i64::try_from(elapsed).unwrap_or(i64::MAX);
        EPOCH_MILLIS.saturating_add(millis).saturating_add(offset).unsigned_abs()
    }
}

/// True time.
#[expect(clippy::disallowed_methods, reason = "this is the clock of a simulation")]
pub fn truth() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Starts a task of the run. It ends with the run, or before.
#[expect(clippy::disallowed_methods, reason = "who is killed in a simulation is not waited for")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

/// When simulations begin: some day in 2026.
const EPOCH_MILLIS: i64 = 1_780_000_000_000;
