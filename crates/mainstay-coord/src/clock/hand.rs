//! A clock turned by hand.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use mainstay_core::{Clock, Instant, ManualClock};
use parking_lot::Mutex;

use super::{Sleep, Timer};

/// A clock turned by hand that wakes whoever waits for the moment it comes to. Clones share the
/// same hands; give [`HandClock::hands`] to a store that shall run by them too.
#[derive(Clone, Debug, Default)]
pub struct HandClock {
    hands: ManualClock,
    sleepers: Arc<Mutex<Sleepers>>,
}

#[derive(Debug, Default)]
struct Sleepers {
    last: u64,
    /// By moment and number.
    waiting: BTreeMap<(Instant, u64), Waker>,
}

impl HandClock {
    /// The hands alone.
    pub fn hands(&self) -> ManualClock {
        self.hands.clone()
    }

    /// Moves the clock forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.hands.advance(span);
        let now = self.now();
        let mut due = Vec::new();
        {
            let mut sleepers = self.sleepers.lock();
            while let Some(first) = sleepers.waiting.first_entry()
                && first.key().0 <= now
            {
                due.push(first.remove());
            }
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// How many wait for a later moment.
    pub fn sleepers(&self) -> usize {
        self.sleepers.lock().waiting.len()
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        self.hands.now()
    }
}

impl Timer for HandClock {
    fn sleep_until(&self, moment: Instant) -> Sleep<'_> {
        let number = {
            let mut sleepers = self.sleepers.lock();
            sleepers.last += 1;
            sleepers.last
        };
        Box::pin(async move {
            let bed = Bed { clock: self, place: (moment, number) };
            poll_fn(|context| {
                let mut sleepers = bed.clock.sleepers.lock();
                if moment <= bed.clock.now() {
                    return Poll::Ready(());
                }
                sleepers.waiting.insert(bed.place, context.waker().clone());
                Poll::Pending
            })
            .await;
        })
    }

    fn unix_millis(&self) -> u64 {
        self.now().as_nanos() / 1_000_000
    }
}

/// Leaves nothing behind when a wait is given up.
struct Bed<'a> {
    clock: &'a HandClock,
    place: (Instant, u64),
}

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        self.clock.sleepers.lock().waiting.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_when_the_hand_comes_to_them_and_not_before() {
        let clock = HandClock::default();
        let at = |seconds| Instant::ZERO.plus(Duration::from_secs(seconds));
        let (early, mut late) = (clock.sleep_until(at(1)), clock.sleep_until(at(2)));
        assert!(futures_now(&mut late).is_none());
        clock.advance(Duration::from_secs(1));
        early.await;
        assert!(futures_now(&mut late).is_none());
        assert_eq!(clock.sleepers(), 1);
        drop(late);
        assert_eq!(clock.sleepers(), 0);
    }

    fn futures_now(sleep: &mut Sleep<'_>) -> Option<()> {
        let mut context = std::task::Context::from_waker(Waker::noop());
        match sleep.as_mut().poll(&mut context) {
            Poll::Ready(()) => Some(()),
            Poll::Pending => None,
        }
    }
}
