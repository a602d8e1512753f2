use std::time::Duration;

use mainstay_core::ManualClock;

use super::*;
use crate::{Compare, Entry, Key, Op, Operator, Put, Range, Target, WatchItem};

fn key(text: &str) -> Key {
    text.try_into().unwrap()
}

fn put(text: &str, value: &'static str) -> Put {
    Put::new(key(text), value)
}

fn rev(number: u64) -> Revision {
    Revision::new(number)
}

/// Create, mod, version, lease.
fn numbers(entry: &Entry) -> (u64, u64, u64, u64) {
    let lease = entry.lease.map_or(0, LeaseId::get);
    (entry.create_revision.get(), entry.mod_revision.get(), entry.version, lease)
}

#[tokio::test]
async fn the_worked_table_of_revisions_holds() {
    let store = Memory::new(ManualClock::default());
    let lease = store.grant(Duration::from_secs(10), None).await.unwrap().id;
    let a = key("a");
    let version_is_2 =
        Compare { range: Range::key(&a), target: Target::Version(2), operator: Operator::Equal };
    let l = lease.get();
    let steps = [
        (Batch::new().then(put("a", "1")), true, 2, Some((2, 2, 1, 0))),
        (Batch::new().then(put("a", "1")).then(put("b", "1")), true, 3, Some((2, 3, 2, 0))),
        (Batch::new().when(version_is_2).then(Op::delete(&a)), true, 4, None),
        (Batch::new().when(Compare::value(&a, "1")).then(put("a", "9")), false, 4, None),
        (Batch::new().then(Op::delete(&a)), true, 4, None),
        (
            Batch::new().when(Compare::missing(&a)).then(put("a", "5").lease(lease)),
            true,
            5,
            Some((5, 5, 1, l)),
        ),
        (Batch::new().then(put("a", "5")), true, 6, Some((5, 6, 2, 0))),
    ];
    for (step, (batch, succeeded, revision, after)) in (1..).zip(steps) {
        let applied = store.apply(batch).await.unwrap();
        assert_eq!(
            (applied.succeeded, applied.revision),
            (succeeded, rev(revision)),
            "step {step}"
        );
        let entry = store.get(Get::new(a.clone())).await.unwrap().entry;
        assert_eq!(entry.as_ref().map(numbers), after, "step {step}");
    }
    let b = store.get(Get::new(key("b"))).await.unwrap().entry;
    assert_eq!(b.as_ref().map(numbers), Some((3, 3, 1, 0)));
    store.compact(rev(5)).await.unwrap();
    let compacted = store.get(Get::new(a.clone()).at(rev(4))).await;
    assert_eq!(compacted, Err(Error::Compacted { compacted: rev(5) }));
    let at_5 = store.get(Get::new(a).at(rev(5))).await.unwrap().entry.unwrap();
    assert_eq!(&*at_5.value, b"5");
}

/// Turns the clock on in steps no pause is seen in.
fn pass(store: &Memory, clock: &ManualClock, span: Duration) {
    let step = Duration::from_millis(200);
    for _ in 0..span.as_millis() / step.as_millis() {
        clock.advance(step);
        store.tick();
    }
}

#[tokio::test]
async fn the_keys_of_a_lease_go_together_and_in_order() {
    let clock = ManualClock::default();
    let store = Memory::new(clock.clone());
    let lease = store.grant(Duration::from_secs(10), None).await.unwrap().id;
    for name in ["b", "a"] {
        store.apply(Batch::new().then(put(name, "x").lease(lease))).await.unwrap();
    }
    let mut watch = store.watch(WatchRequest::new(Range::all()).quiet()).unwrap();
    assert_eq!(watch.next().await, Some(WatchItem::Created { revision: rev(3) }));
    pass(&store, &clock, Duration::from_secs(4));
    assert_eq!(store.keep_alive(lease).await, Ok(Duration::from_secs(10)));
    pass(&store, &clock, Duration::from_millis(9_800));
    assert_eq!(store.lease(lease).await.unwrap().keys, [key("a"), key("b")]);
    pass(&store, &clock, Duration::from_secs(1));
    let Some(WatchItem::Changes { revision, events }) = watch.next().await else {
        panic!("no change")
    };
    let gone: Vec<_> = events.iter().map(|event| event.key().clone()).collect();
    assert_eq!((revision, gone), (rev(4), vec![key("a"), key("b")]));
    assert_eq!(store.keep_alive(lease).await, Err(Error::LeaseNotFound { lease }));
}

#[tokio::test]
async fn an_idle_watch_is_told_how_far_it_is() {
    let clock = ManualClock::default();
    let store = Memory::new(clock.clone());
    let mut watch = store.watch(WatchRequest::new(Range::prefix("x/"))).unwrap();
    store.apply(Batch::new().then(put("a", "1"))).await.unwrap();
    assert_eq!(watch.next().await, Some(WatchItem::Created { revision: rev(1) }));
    pass(&store, &clock, Duration::from_secs(10));
    assert_eq!(watch.next().await, Some(WatchItem::Bookmark { revision: rev(2) }));
}
