//! Whether the store takes writes, found out by writing.
//!
//! Nothing else shows it: a disk that is full or stalls serves reads all the same. Each such write
//! is a revision that every node keeps for a while, so however often it is asked, one is made at
//! most every ten seconds, and whoever asks at once shares it.

use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_coord::keys;
use mainstay_coord::name::NodeName;
use mainstay_core::{Clock as _, Instant};
use mainstay_store::{Batch, Error, Put, Revision, Store};
use tokio::sync::Mutex;

/// How long a write that went well is believed in, and one that did not: a store that has recovered
/// is seen to soon.
const FRESH: Duration = Duration::from_secs(10);
const FRESH_FAILED: Duration = Duration::from_secs(1);

/// What came of the last write.
#[derive(Debug, Default)]
pub struct Probe {
    last: Mutex<Option<Probed>>,
}

/// A write, and what came of it.
#[derive(Clone, Debug)]
pub struct Probed {
    /// How long it took and which revision it made, or why it was not done.
    pub wrote: Result<(Duration, Revision), String>,
    pub(crate) at: Instant,
}

impl Probed {
    fn is_fresh(&self, now: Instant) -> bool {
        let fresh = if self.wrote.is_ok() { FRESH } else { FRESH_FAILED };
        now.since(self.at) < fresh
    }
}

impl Probe {
    /// Whether `store` takes writes, as `node` found out now or lately; an answer within `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Safe: a write that was sent may be made, and is made again.
    pub async fn ask(&self, store: &dyn Store, node: &NodeName, timeout: Duration) -> Probed {
        let mut last = self.last.lock().await;
        if let Some(probed) = last.as_ref().filter(|probed| probed.is_fresh(MonotonicClock.now())) {
            return probed.clone();
        }
        let began = MonotonicClock.now();
        let batch = Batch::new().then(Put::new(keys::probe(), node.as_str().to_owned()));
        let wrote = tokio::time::timeout(timeout, store.apply(batch)).await;
        let at = MonotonicClock.now();
        let wrote = match wrote {
            Err(_elapsed) => Err(format!("a write is not done within {} s", timeout.as_secs())),
            Ok(Err(Error::OutcomeUnknown)) => Err("nobody knows what became of a write".to_owned()),
            Ok(Err(error)) => Err(format!("a write is refused: {error}")),
            Ok(Ok(applied)) => Ok((at.since(began), applied.revision)),
        };
        last.insert(Probed { wrote, at }).clone()
    }
}

#[cfg(test)]
mod tests {
    use mainstay_coord::HandClock;
    use mainstay_store::Memory;

    use super::*;

    #[tokio::test]
    async fn however_often_it_is_asked_one_write_is_made() {
        let store = Memory::new(HandClock::default());
        let (probe, node) = (Probe::default(), NodeName::new("a").unwrap());
        let before = store.status().await.unwrap().revision;
        let all = (0..50).map(|_| probe.ask(&store, &node, FRESH_FAILED));
        let all = futures_util::future::join_all(all).await;
        assert!(all.iter().all(|probed| probed.wrote.is_ok()), "{all:?}");
        assert_eq!(store.status().await.unwrap().revision, before.next());
    }

    #[test]
    fn a_failure_is_forgotten_sooner() {
        let at = MonotonicClock.now();
        let good = Probed { wrote: Ok((Duration::ZERO, Revision::new(1))), at };
        let bad = Probed { wrote: Err("full".to_owned()), at };
        let fresh = |seconds| {
            let now = at.plus(Duration::from_secs(seconds));
            (good.is_fresh(now), bad.is_fresh(now))
        };
        assert_eq!([fresh(0), fresh(1), fresh(10)], [(true, true), (true, false), (false, false)]);
    }
}
