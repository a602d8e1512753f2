//! Disks that are full or broken.

use std::time::Duration;

use mainstay_core::{Effect, ManualClock};

use super::super::simulated::{Faults, Simulated};
use super::*;
use crate::batch::{Compare, Op};
use crate::entry::Revision;
use crate::key::Range;
use crate::read::Get;
use crate::store::State;
use crate::watch::{WatchItem, WatchRequest};

async fn state(store: &dyn Store) -> State {
    store.status().await.unwrap().state
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_known_and_only_reads_go_on() {
    for faults in
        [Faults { sync: true, ..Faults::default() }, Faults { write: true, ..Faults::default() }]
    {
        let (media, clock) = (Simulated::default(), ManualClock::default());
        let store = start(&media, &clock, by_hand());
        let before = write(&*store, "a", "1").await.unwrap().revision;
        let mut watch = store.watch(WatchRequest::new(Range::all()).quiet()).unwrap();
        watch.next().await;
        media.fail(faults.clone());
        let error = write(&*store, "a", "2").await.unwrap_err();
        assert_eq!((&error, error.effect()), (&Error::OutcomeUnknown, Effect::Unknown));
        assert_eq!(state(&*store).await, State::Failed);
        // The disk is well again, but what is on it is not known.
        media.fail(Faults::default());
        let writes = media.writes();
        assert_eq!(write(&*store, "a", "3").await, Err(Error::Failed));
        assert_eq!(store.compact(before).await, Err(Error::Failed));
        assert_eq!(store.grant(Duration::from_secs(5), None).await, Err(Error::Failed));
        assert_eq!(media.writes(), writes, "nothing more reaches the disk");
        for _ in 0..100 {
            let got = store.get(Get::new(key("a"))).await.unwrap();
            let value = got.entry.unwrap().value;
            assert_eq!((&*value, got.revision), (&b"1"[..], before), "the last published state");
        }
        assert_eq!(everything(&*store).await.len(), 1);
        // Nobody was told of what may not have happened.
        assert_eq!(store.close().await, Err(Error::Failed));
        assert_eq!(watch.next().await, Some(WatchItem::Closed));
        drop(store);
        let store = start(&media, &clock, by_hand());
        assert_eq!(state(&*store).await, State::Ready);
        let value = store.get(Get::new(key("a"))).await.unwrap().entry.unwrap().value;
        assert!(value == "1" || value == "2", "all or nothing: {value:?}");
        write(&*store, "a", "4").await.unwrap();
    }
}

#[tokio::test]
async fn everybody_in_a_failed_commit_is_told_that_the_outcome_is_unknown() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    media.fail(Faults { sync: true, ..Faults::default() });
    let (mut unknown, mut refused) = (0, 0);
    let writes = (0..50).map(|number| {
        let store = Arc::clone(&store);
        async move { write(&*store, &format!("k{number}"), "v").await }
    });
    for outcome in futures_util::future::join_all(writes).await {
        match outcome {
            Err(Error::OutcomeUnknown) => unknown += 1,
            Err(Error::Failed) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(0 < unknown && unknown + refused == 50);
    assert!(everything(&*store).await.is_empty());
}

/// Asks for an answer without waiting for it.
async fn send<T>(pending: &mut crate::store::Pending<'_, T>) {
    let sent = std::future::poll_fn(|context| {
        std::task::Poll::Ready(pending.as_mut().poll(context).is_ready())
    });
    assert!(!sent.await, "answered at once");
}

#[tokio::test]
async fn a_failed_compare_is_not_answered_before_what_it_rests_on_is_durable() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    media.fail(Faults { poison: Some(b"poison"), ..Faults::default() });
    // While the first is committed the two others are queued, so they share a commit.
    let mut first = store.apply(Batch::new().then(put("first", "1")));
    let mut second = store.apply(Batch::new().then(put("a", "poison")));
    let mut third = store.apply(Batch::new().when(Compare::missing(&key("a"))));
    media.meanwhile(|| {
        futures_util::FutureExt::now_or_never(send(&mut first)).expect("it is only sent");
        while 0 < store.shared.queue.len() {
            std::thread::yield_now();
        }
        futures_util::FutureExt::now_or_never(send(&mut second)).expect("it is only sent");
        futures_util::FutureExt::now_or_never(send(&mut third)).expect("it is only sent");
    });
    assert!(first.await.is_ok());
    assert_eq!(second.await, Err(Error::OutcomeUnknown));
    assert_eq!(third.await, Err(Error::OutcomeUnknown), "`a` may be missing after all");
}

#[tokio::test]
async fn a_full_disk_refuses_puts_whole_and_there_is_a_way_out() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    let value = vec![b'x'; 100_000];
    for number in 0..20 {
        let put = put(&format!("k{number:02}"), value.clone());
        store.apply(Batch::new().then(put)).await.unwrap();
    }
    let before = everything(&*store).await;
    let revision = store.status().await.unwrap().revision;
    media.fail(Faults { room: Some(store.status().await.unwrap().bytes), ..Faults::default() });
    let mut refused = false;
    for number in 20..200 {
        let put = put(&format!("k{number:02}"), value.clone());
        match store.apply(Batch::new().then(put)).await {
            Ok(_) => (),
            Err(error) => {
                assert!(matches!(error, Error::Full { .. }), "{error:?}");
                assert_eq!(error.effect(), Effect::None);
                refused = true;
                break;
            }
        }
    }
    assert!(refused, "a disk without room was never full");
    assert_eq!(state(&*store).await, State::Full);
    let whole = everything(&*store).await;
    assert!(before.len() <= whole.len() && whole.iter().all(|entry| entry.value.len() == 100_000));
    assert!(revision <= store.status().await.unwrap().revision);
    // The way out: deletes and compaction work.
    store.apply(Batch::new().then(Op::delete_range(Range::prefix("k0")))).await.unwrap();
    let revision = store.status().await.unwrap().revision;
    store.compact(revision).await.unwrap();
    assert!(matches!(write(&*store, "small", "1").await, Err(Error::Full { .. })));
    // There is room again, and it is noticed.
    media.fail(Faults::default());
    clock.advance(Duration::from_secs(2));
    write(&*store, "small", "1").await.unwrap();
    assert_eq!(state(&*store).await, State::Ready);
    drop(store);
    let store = start(&media, &clock, by_hand());
    let found: Vec<_> = everything(&*store).await.iter().map(|e| e.key.to_string()).collect();
    assert!(!found.contains(&"k05".to_owned()) && found.contains(&"small".to_owned()), "{found:?}");
}

#[tokio::test]
async fn leases_end_on_a_full_disk_as_soon_as_there_is_room() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = start(&media, &clock, by_hand());
    let lease = store.grant(Duration::from_secs(1), None).await.unwrap().id;
    store.apply(Batch::new().then(put("l", "1").lease(lease))).await.unwrap();
    media.fail(Faults { no_room: true, ..Faults::default() });
    for _ in 0..10 {
        clock.advance(Duration::from_millis(200));
        store.tick().await;
    }
    assert_eq!(store.keep_alive(lease).await, Err(Error::LeaseNotFound { lease }));
    assert!(store.get(Get::new(key("l"))).await.unwrap().entry.is_some());
    media.fail(Faults::default());
    clock.advance(Duration::from_millis(200));
    store.tick().await;
    assert!(store.get(Get::new(key("l"))).await.unwrap().entry.is_none());
}

#[tokio::test]
async fn the_quota_refuses_puts_and_nothing_else() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let options = Options { bytes_max: 10_000, ..by_hand() };
    let store = start(&media, &clock, options);
    let lease = store.grant(Duration::from_mins(1), None).await.unwrap().id;
    let value = "v".repeat(900);
    let mut last = Revision::FIRST;
    let error = loop {
        match store.apply(Batch::new().then(put("k", value.clone()).lease(lease))).await {
            Ok(applied) => last = applied.revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(last, Revision::new(11), "ten records of about 940 bytes");
    store.keep_alive(lease).await.unwrap();
    store.apply(Batch::new().then(Op::get(&key("k")))).await.unwrap();
    store.revoke(lease).await.unwrap();
    store.compact(last).await.unwrap();
    // History goes in the background; then there is room.
    let fits = || store.apply(Batch::new().then(put("k", value.clone())));
    let mut tries = 0;
    while let Err(error) = fits().await {
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
        tries += 1;
        assert!(tries < 10_000, "history was never forgotten");
        tokio::task::yield_now().await;
    }
}
