//! The wait after a holder has vanished that had agreed on one.

use std::time::Duration;

use mainstay_store::{Batch, Compare, Error, Put};

use super::desk::Desk;
use super::line::Line;
use super::record::{Past, Reason};

impl Desk {
    /// Notes that a holder has vanished, and lets its lock delay begin, both in one batch. Whether
    /// it did shows when the queue is read again.
    pub(super) async fn begin_delay(&self, line: &Line, vanished: &Past) -> Result<(), Error> {
        let store = self.ground.store();
        let (delay, last) = (self.place.delay(), self.place.last());
        let ttl = Duration::from_secs(vanished.lock_delay_seconds);
        let lease = store.grant(ttl, None).await?.id;
        let lost = self.past(vanished.token, Reason::Lost);
        let batch = Batch::new()
            .when(self.past_as_read(line))
            .when(Compare::missing(&delay))
            .then(Put::new(last, lost.write()))
            .then(Put::new(delay, vanished.token.to_string()).lease(lease));
        if !store.apply(batch).await?.succeeded {
            // Somebody else began it. Where nobody knows, the lease stays: the delay may hang on
            // it, and a lease without a key ends by itself.
            drop(store.revoke(lease).await);
        }
        Ok(())
    }

    /// Holds as long as nobody has written since `line` was read how the lock was held.
    pub(super) fn past_as_read(&self, line: &Line) -> Compare {
        let revision = line.past.as_ref().map(|(_, revision)| *revision).unwrap_or_default();
        Compare::unchanged_since(&self.place.last(), revision)
    }
}
