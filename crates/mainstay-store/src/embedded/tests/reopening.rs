//! What a store is after it was closed, and what it refuses to be.

use std::time::Duration;

use mainstay_core::ManualClock;

use super::super::simulated::Simulated;
use super::*;
use crate::batch::Op;
use crate::entry::Revision;
use crate::limits::TICK_EVERY;
use crate::read::Get;
use crate::snapshot::SnapshotItem;

#[tokio::test]
async fn all_is_there_after_a_restart() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    let lease = store.grant(Duration::from_secs(30), None).await.unwrap();
    for number in 0..50 {
        let name = format!("k{}", number % 7);
        store
            .apply(Batch::new().then(put(&name, format!("{number}")).lease(lease.id)))
            .await
            .unwrap();
    }
    store.apply(Batch::new().then(Op::delete(&key("k3")))).await.unwrap();
    let (before, status) = (everything(&*store).await, store.status().await.unwrap());
    let history = store.get(Get::new(key("k1")).at(Revision::new(20))).await.unwrap().entry;
    store.close().await.unwrap();
    drop(store);
    let store = start(&media, &clock, by_hand());
    assert_eq!(everything(&*store).await, before);
    let after = store.status().await.unwrap();
    assert_eq!((after.store, after.revision, after.leases), (status.store, status.revision, 1));
    let again = store.get(Get::new(key("k1")).at(Revision::new(20))).await.unwrap().entry;
    assert_eq!(again, history);
    assert_eq!(store.lease(lease.id).await.unwrap().keys.len(), 6);
    let next = write(&*store, "k0", "x").await.unwrap();
    assert_eq!(next.revision, status.revision.next());
}

#[tokio::test]
async fn every_lease_gets_its_whole_ttl_from_the_moment_the_store_serves() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    let lease = store.grant(Duration::from_secs(10), None).await.unwrap().id;
    store.apply(Batch::new().then(put("l", "1").lease(lease))).await.unwrap();
    let pass = async |store: &Embedded, span: Duration| {
        for _ in 0..span.as_millis() / TICK_EVERY.as_millis() {
            clock.advance(TICK_EVERY);
            store.tick().await;
        }
    };
    pass(&store, Duration::from_secs(9)).await;
    drop(store);
    clock.advance(Duration::from_secs(100));
    let store = start(&media, &clock, by_hand());
    pass(&store, Duration::from_millis(9_800)).await;
    assert!(store.get(Get::new(key("l"))).await.unwrap().entry.is_some(), "mass expiry");
    pass(&store, Duration::from_secs(1)).await;
    assert!(store.get(Get::new(key("l"))).await.unwrap().entry.is_none());
    drop(store);
    let store = start(&media, &clock, by_hand());
    assert_eq!(store.status().await.unwrap().leases, 0, "the end of a lease is durable");
}

#[tokio::test]
async fn a_store_that_has_gone_back_does_not_open() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    write(&*store, "a", "1").await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let old = media.copy();
    let store = start(&media, &clock, by_hand());
    write(&*store, "a", "2").await.unwrap();
    store.close().await.unwrap();
    drop(store);
    media.take_engine_from(&old);
    let refused = try_start(&media, &clock, by_hand()).err();
    let (seen, found) = (Revision::new(3), Revision::new(2));
    assert!(
        matches!(refused, Some(OpenError::Regressed { seen: s, found: f }) if s == seen && f == found),
        "{refused:?}"
    );
    // The file is gone altogether: that is no reason to start from the beginning.
    media.take_engine_from(&Simulated::default());
    let refused = try_start(&media, &clock, by_hand()).err();
    assert!(matches!(refused, Some(OpenError::Regressed { .. })), "{refused:?}");
    // Another store's file.
    let other = Simulated::default();
    let store = start(&other, &clock, by_hand());
    for _ in 0..9 {
        write(&*store, "a", "1").await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    media.take_engine_from(&other);
    let refused = try_start(&media, &clock, by_hand()).err();
    assert!(matches!(refused, Some(OpenError::Regressed { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_harmless_wherever_the_damage_is() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    for number in 0..40 {
        let value = format!("value {number}").repeat(20);
        store.apply(Batch::new().then(put(&format!("k{number:02}"), value))).await.unwrap();
    }
    let whole = everything(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let length = media.durable(super::super::opening::FILE).len();
    let (mut refused, mut harmless) = (0, 0);
    for at in (0..length).step_by(length / 150) {
        let damaged = media.copy();
        damaged.damage(super::super::opening::FILE, at);
        let options = Options { check_on_open: super::super::Check::Always, ..by_hand() };
        match try_start(&damaged, &clock, options) {
            Err(_) => refused += 1,
            Ok(store) => {
                assert_eq!(everything(&*store).await, whole, "byte {at}");
                harmless += 1;
            }
        }
    }
    assert!(0 < refused, "no damage was seen; {harmless} harmless");
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { path: folder.path().join("store"), ..by_hand() };
    let store = Embedded::open(options.clone(), ManualClock::default()).unwrap();
    let refused = Embedded::open(options.clone(), ManualClock::default()).err();
    let own = std::process::id();
    assert!(matches!(refused, Some(OpenError::Locked { pid: Some(pid) }) if pid == own));
    store.close().await.unwrap();
    assert!(Embedded::open(options, ManualClock::default()).is_ok(), "closed is free");
}

#[tokio::test]
async fn forgotten_history_leaves_the_log_and_a_snapshot_keeps_what_it_needs() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    for number in 0..3_000 {
        store.apply(Batch::new().then(put("hot", format!("{number}")))).await.unwrap();
    }
    write(&*store, "gone", "1").await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    store.apply(Batch::new().then(Op::delete(&key("gone")))).await.unwrap();
    let last = write(&*store, "hot", "last").await.unwrap().revision;
    store.compact(last).await.unwrap();
    let held = |store: &Embedded| store.shared.view.read().index.bytes();
    let pinned = async |at_most: u64| {
        for _ in 0..10_000 {
            if held(&store) <= at_most {
                return;
            }
            write(&*store, "hot", "last").await.unwrap();
        }
        panic!("{} bytes are still held", held(&store));
    };
    pinned(10_000).await;
    let mut found = Vec::new();
    while let Some(item) = snapshot.next().await {
        if let SnapshotItem::Entry(entry) = item.unwrap() {
            found.push((entry.key.to_string(), entry.value));
        }
    }
    assert_eq!(found, [("gone".to_owned(), "1".into()), ("hot".to_owned(), "2999".into())]);
    drop(snapshot);
    let last = write(&*store, "hot", "x").await.unwrap().revision;
    store.compact(last).await.unwrap();
    pinned(300).await;
    store.close().await.unwrap();
    drop(store);
    let store = start(&media, &clock, by_hand());
    assert!(held(&store) <= 600, "{} bytes", held(&store));
    assert_eq!(everything(&*store).await.len(), 1);
}
