//! Power that fails after every n-th write, with unsynced writes lost, torn and out of order.

use std::collections::BTreeMap;

use mainstay_core::ManualClock;

use super::super::simulated::{Faults, Simulated};
use super::*;
use crate::batch::Op;
use crate::entry::{LeaseId, Revision};
use crate::watch::{Change, WatchItem, WatchRequest};

/// A small generator (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Two keys that are always written together, and one that comes and goes.
fn batch(step: u64, lease: LeaseId) -> Batch {
    let value = format!("{step}");
    let pair = Batch::new().then(put("one", value.clone())).then(put("two", value));
    match step % 3 {
        0 => pair.then(Op::delete(&key("three"))),
        _ => pair.then(put("three", "there").lease(lease)),
    }
}

/// Writes until the power fails; returns the last acknowledged revision and step.
async fn until_dark(media: &Simulated, clock: &ManualClock, first: u64) -> Option<(Revision, u64)> {
    let store = try_start(media, clock, by_hand()).ok()?;
    let lease = match store.grant(std::time::Duration::from_mins(1), LeaseId::new(5)).await {
        Ok(granted) => granted.id,
        Err(Error::LeaseExists { lease }) => lease,
        Err(_dark) => return None,
    };
    let mut acknowledged = None;
    for step in first.. {
        assert!(step < first + 1_000, "nothing was written to the disk");
        let applied = store.apply(batch(step, lease)).await;
        if media.is_dark() {
            // An answer after the power has gone would never have arrived.
            break;
        }
        acknowledged = Some((applied.unwrap().revision, step));
        if step % 7 == 0 {
            let revision = store.status().await.unwrap().revision;
            drop(store.compact(revision.before()).await);
        }
    }
    acknowledged
}

/// What was acknowledged is there, whole, and nothing else but perhaps the one batch after it.
async fn look(store: &Embedded, acknowledged: Option<(Revision, u64)>) {
    let status = store.status().await.unwrap();
    let entries = everything(store).await;
    let values: BTreeMap<String, String> = entries
        .iter()
        .map(|entry| (entry.key.to_string(), String::from_utf8_lossy(&entry.value).into_owned()))
        .collect();
    assert_eq!(values.get("one"), values.get("two"), "a batch was torn");
    let Some((revision, step)) = acknowledged else { return };
    assert!(revision <= status.revision && status.revision <= revision.next(), "{status:?}");
    let found: u64 = values["one"].parse().unwrap();
    assert!(found == step || found == step + 1, "{found}, acknowledged {step}");
    assert_eq!(values.contains_key("three"), !found.is_multiple_of(3));
    assert_eq!(status.leases, 1);
    // History that is kept is whole.
    let mut next = status.compacted.max(Revision::FIRST).next();
    let mut watch = store.watch(WatchRequest::new(Range::all()).from(next).quiet()).unwrap();
    watch.next().await;
    while next <= status.revision {
        match watch.next().await {
            Some(WatchItem::Changes { revision, events }) => {
                assert_eq!(revision, next, "a gap in history");
                let puts = events.iter().filter(|event| matches!(event.change, Change::Put(_)));
                assert!(2 <= puts.count());
                next = revision.next();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_failing_after_any_write() {
    let runs = std::env::var("MAINSTAY_STORE_POWER_CUTS").ok().and_then(|n| n.parse().ok());
    let runs: u64 = runs.unwrap_or(60);
    let clock = ManualClock::default();
    for run in 0..runs {
        let mut random = Random(run.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let media = Simulated::default();
        let store = start(&media, &clock, by_hand());
        drop(store);
        let mut known = None;
        let mut first = 1;
        // Several lives, each ended by a cut; some of them while recovering from the last.
        for _ in 0..4 {
            let cut = random.next() % 60;
            media.fail(Faults { power_after: Some(cut), ..Faults::default() });
            if let Some((revision, step)) = until_dark(&media, &clock, first).await {
                known = Some((revision, step));
            }
            let keep = random.next() % 3;
            media.crash(|| match keep {
                0 => false,
                1 => true,
                _ => random.next().is_multiple_of(2),
            });
            if random.next().is_multiple_of(3) {
                continue; // Cut again before anybody looks.
            }
            let store = try_start(&media, &clock, by_hand());
            let store = store.unwrap_or_else(|error| panic!("run {run}: {error:?}"));
            look(&store, known).await;
            let entries = everything(&*store).await;
            let one = entries.iter().find(|entry| &*entry.key == b"one");
            first = one.map_or(1, |entry| {
                1 + String::from_utf8_lossy(&entry.value).parse::<u64>().unwrap()
            });
            known = (first > 1).then(|| {
                let revision = entries.iter().map(|entry| entry.mod_revision).max().unwrap();
                (revision, first - 1)
            });
        }
    }
}
