//! Restore and shrink.

use std::time::Duration;

use mainstay_core::ManualClock;

use super::super::offline::{
    Existing, OfflineError, check, rehearse, restore, restore_on, shrink_on,
};
use super::super::simulated::{Faults, Simulated};
use super::*;
use crate::batch::Op;
use crate::hash::{Take, hash};
use crate::snapshot::file::{self, About};
use crate::watch::{WatchItem, WatchRequest};

async fn backup(store: &dyn Store) -> Vec<u8> {
    let about = About { fence_base: 0, unix_seconds: 0, product: "test".to_owned() };
    let mut out = Vec::new();
    file::write(store.snapshot().await.unwrap(), &about, &mut out).await.unwrap();
    out
}

async fn filled(media: &Simulated, clock: &ManualClock) -> Arc<Embedded> {
    let store = start(media, clock, by_hand());
    let lease = store.grant(Duration::from_secs(10), None).await.unwrap().id;
    for number in 0..60 {
        let name = format!("k{:02}", number % 20);
        store.apply(Batch::new().then(put(&name, format!("{number}")))).await.unwrap();
    }
    // Three keys of one revision.
    let batch = Batch::new().then(put("a", "1").lease(lease)).then(put("b", "1"));
    store.apply(batch.then(put("c", "1")).then(Op::delete(&key("k00")))).await.unwrap();
    store
}

#[tokio::test]
async fn a_restored_store_has_all_and_leaps_ahead_of_everything_anybody_saw() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = filled(&media, &clock).await;
    let (taken, entries) = (backup(&*store).await, everything(&*store).await);
    let content = hash(&*store, Range::all(), None, Take::Content).await.unwrap();
    for _ in 0..5 {
        write(&*store, "later", "lost").await.unwrap();
    }
    let seen = store.status().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let refused = restore_on(&media, taken.as_slice(), Existing::Refuse, |_| true);
    assert!(matches!(refused, Err(OfflineError::Exists)), "{refused:?}");
    let restored = restore_on(&media, taken.as_slice(), Existing::SetAside, |_| true).unwrap();
    assert_eq!(restored.revision.get(), seen.revision.get() + 1_000_000_000);
    assert_eq!((restored.entries, restored.left_out, restored.leases), (22, 0, 1));
    let store = start(&media, &clock, by_hand());
    assert_eq!(everything(&*store).await, entries, "revisions and all");
    let after = store.status().await.unwrap();
    assert_eq!((after.store, after.compacted), (seen.store, restored.revision));
    let again = hash(&*store, Range::all(), None, Take::Content).await.unwrap();
    assert_eq!(again.sha256, content.sha256);
    // Old watches are told, not left in silence.
    let request = WatchRequest::new(Range::all()).from(seen.revision.next());
    let mut watch = store.watch(request).unwrap();
    let compacted = restored.revision;
    assert_eq!(watch.next().await, Some(WatchItem::Compacted { compacted }));
    // Tokens go on growing, and leases have their whole ttl.
    let next = write(&*store, "new", "1").await.unwrap().revision;
    assert_eq!(next, compacted.next());
    for _ in 0..49 {
        clock.advance(Duration::from_millis(200));
        store.tick().await;
    }
    assert_eq!(store.status().await.unwrap().leases, 1);
    drop(store);
    let store = start(&media, &clock, by_hand());
    assert_eq!(store.status().await.unwrap().revision, next, "it opens again");
}

#[tokio::test]
async fn what_is_not_kept_is_left_out_and_a_bad_snapshot_changes_nothing() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = filled(&media, &clock).await;
    let taken = backup(&*store).await;
    let before = everything(&*store).await;
    drop(store);
    let cut = &taken[..taken.len() / 2];
    let refused = restore_on(&media, cut, Existing::SetAside, |_| true);
    assert!(matches!(refused, Err(OfflineError::Snapshot(_))), "{refused:?}");
    let store = start(&media, &clock, by_hand());
    assert_eq!(everything(&*store).await, before);
    drop(store);
    let other = Simulated::default();
    let without_leases = |entry: &Entry| entry.lease.is_none();
    let restored = restore_on(&other, taken.as_slice(), Existing::Refuse, without_leases).unwrap();
    assert_eq!((restored.entries, restored.left_out), (21, 1));
    let store = start(&other, &clock, by_hand());
    assert!(everything(&*store).await.iter().all(|entry| entry.lease.is_none()));
}

#[tokio::test]
async fn a_rehearsal_finds_what_a_restore_would() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = filled(&media, &clock).await;
    let taken = backup(&*store).await;
    let rehearsed = rehearse(taken.as_slice(), |_| true).unwrap();
    let other = Simulated::default();
    assert_eq!(restore_on(&other, &*taken, Existing::Refuse, |_| true).unwrap(), rehearsed);
    for length in [0, 1, taken.len() / 3, taken.len() - 1] {
        let cut = rehearse(&taken[..length], |_| true);
        assert!(matches!(cut, Err(OfflineError::Snapshot(_))), "{length}: {cut:?}");
    }
}

#[tokio::test]
async fn what_was_set_aside_is_never_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let taken = backup(&*filled(&media, &clock).await).await;
    for _ in 0..3 {
        restore(folder.path(), &*taken, Existing::SetAside, |_| true).unwrap();
    }
    for name in ["mainstay.redb", "mainstay.redb.aside", "mainstay.redb.aside-2"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn a_check_reads_everything_and_finds_a_changed_byte() {
    let folder = tempfile::tempdir().unwrap();
    assert!(check(folder.path()).is_err(), "there is no store");
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let taken = backup(&*filled(&media, &clock).await).await;
    let restored = restore(folder.path(), &*taken, Existing::Refuse, |_| true).unwrap();
    let checked = check(folder.path()).unwrap();
    assert_eq!((checked.revision, checked.entries, checked.leases), (restored.revision, 22, 1));
    let store = Embedded::open(Options::new(folder.path()), clock.clone()).unwrap();
    let locked = check(folder.path());
    assert!(matches!(locked, Err(OpenError::Locked { .. })), "{locked:?}");
    drop(store);
    let file = folder.path().join("mainstay.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let key = bytes.windows(3).position(|window| window == b"k07").unwrap();
    bytes[key + 1] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let found = check(folder.path());
    assert!(matches!(found, Err(OpenError::Corrupt { .. })), "{found:?}");
}

#[tokio::test]
async fn a_shrunk_store_is_no_larger_and_the_same() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = filled(&media, &clock).await;
    for _ in 0..30 {
        store.apply(Batch::new().then(put("big", vec![b'x'; 200_000]))).await.unwrap();
    }
    store.apply(Batch::new().then(put("tail", vec![b'x'; 100_000]))).await.unwrap();
    let last = store.apply(Batch::new().then(Op::delete(&key("big")))).await.unwrap().revision;
    store.compact(last).await.unwrap();
    let mut tries = 0;
    while 120_000 < store.shared.view.read().index.bytes() {
        write(&*store, "k01", "again").await.unwrap();
        tries += 1;
        assert!(tries < 1_000, "history was never forgotten");
    }
    let before = hash(&*store, Range::all(), None, Take::Everything).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let (large, small) = shrink_on(Arc::new(media.clone())).unwrap();
    assert!(small <= large, "{small} of {large} bytes");
    let store = start(&media, &clock, by_hand());
    let after = hash(&*store, Range::all(), None, Take::Everything).await.unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_restore_cut_by_the_power_leaves_one_whole_store() {
    let (media, clock) = (Simulated::default(), ManualClock::default());
    let store = filled(&media, &clock).await;
    let taken = backup(&*store).await;
    let before = everything(&*store).await;
    store.close().await.unwrap();
    drop(store);
    for cut in 0..40 {
        let media = media.copy();
        media.fail(Faults { power_after: Some(cut), ..Faults::default() });
        drop(restore_on(&media, taken.as_slice(), Existing::SetAside, |_| true));
        media.crash(|| cut % 2 == 0);
        let store = start(&media, &clock, by_hand());
        assert_eq!(everything(&*store).await, before, "cut after {cut}");
    }
}
