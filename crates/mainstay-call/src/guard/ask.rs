//! The way through limits, for work that has no request.

use std::sync::Arc;

use mainstay_core::{Clock, Instant};

use crate::clock::{MonotonicClock, tokio_instant};
use crate::error::CallError;
use crate::limit::{Answer, Fared, Key, Place, SharedLimit, Taken};
use crate::observe::Observer;
use crate::timer::Timer;

/// What a run took from its limits. Dropped on the way through, all of it is given back; dropped
/// with the run under way, only permits are: the run was made, and counts.
#[derive(Debug)]
pub(super) struct Asking {
    taken: Vec<Taken>,
    through: bool,
}

impl Asking {
    /// Asks every one of `limits`; waits where that is what they say.
    pub(super) async fn new(
        limits: &[Arc<SharedLimit>],
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Result<Self, CallError> {
        let mut asking = Self { taken: Vec::new(), through: false };
        for limit in limits {
            // A run has no request to read a key from: all runs share the quota of the empty key.
            let hash = if limit.policy().key.is_empty() { 0 } else { limit.hash::<&str>(&[]) };
            let now = MonotonicClock.now();
            let key = Key { hash, values: &[] };
            let taken = match limit.ask(now, key, deadline) {
                Answer::Granted(taken, _left) => {
                    observer.limit_decided(limit.name(), "granted");
                    taken
                }
                Answer::GoesAt(at, taken) => {
                    observer.limit_decided(limit.name(), "waited");
                    asking.taken.push(taken);
                    tokio::time::sleep_until(tokio_instant(at)).await;
                    continue;
                }
                Answer::Queued(place) => {
                    observer.limit_decided(limit.name(), "waited");
                    queue(place).await.inspect_err(|_| {
                        observer.limit_decided(limit.name(), "denied");
                    })?
                }
                Answer::Denied(refusal) => {
                    observer.limit_decided(limit.name(), "denied");
                    return Err((*refusal).into());
                }
            };
            asking.taken.push(taken);
        }
        asking.through = true;
        Ok(asking)
    }

    /// The run is over.
    pub(super) fn ended(mut self, fared: Fared) {
        for taken in self.taken.drain(..) {
            taken.ended(fared);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.through {
            self.taken.drain(..).for_each(Taken::refund);
        }
    }
}

/// Waits in the queue for a permit.
async fn queue(mut place: Place) -> Result<Taken, CallError> {
    let mut timer = Timer::until(place.until());
    let answer = std::future::poll_fn(|cx| {
        let answer = place.poll_permit(cx);
        if answer.is_pending() && timer.poll_elapsed(cx).is_ready() {
            return place.poll_permit(cx);
        }
        answer
    });
    answer.await.map_err(|refusal| (*refusal).into())
}
