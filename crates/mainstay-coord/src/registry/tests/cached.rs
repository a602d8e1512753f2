//! What a client goes on with while nobody answers.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;
use mainstay_store::Revision;
use proptest::prelude::*;

use super::stage::{Stage, plain, service};
use crate::registry::cache::{Cache, CacheError, services};
use crate::registry::last_good::{EMPTY_GRACE, LastGood, Offer};
use crate::registry::{EmptyBecause, View};

async fn view_of(ids: &[&str]) -> View {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    for id in ids {
        node.register(&service("order"), &plain(id)).await.unwrap();
    }
    node.view(&service("order")).unwrap()
}

#[tokio::test]
async fn what_was_saved_is_read_back_and_says_that_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let view = view_of(&["a", "订单"]).await;
    assert!(cache.load(&service("order")).unwrap().is_none());
    cache.save(&view, 77).unwrap();
    let read = cache.load(&service("order")).unwrap().unwrap();
    assert_eq!((read.saved_unix_ms, read.view.stale_since_unix_ms), (77, Some(77)));
    assert_eq!((read.view.instances, read.view.revision), (view.instances, view.revision));
    assert!(folder.path().join("registry/default/order.json").is_file());
    assert_eq!(services(&cache).unwrap(), [service("order")]);
    let files = fs::read_dir(folder.path().join("registry/default")).unwrap().count();
    assert_eq!(files, 1, "nothing half-written is left");
}

#[tokio::test]
async fn a_spoiled_file_is_as_good_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    cache.save(&view_of(&["a", "b"]).await, 1).unwrap();
    let path = cache.path(&service("order"));
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        good.replace("10.0.0.7", "10.0.0.8"),
        good.replace("default/order", "default/stock"),
        good.chars().take(good.len() / 2).collect(),
        String::new(),
    ] {
        fs::write(&path, bad).unwrap();
        let read = cache.load(&service("order"));
        assert!(matches!(read, Err(CacheError::Damaged { .. })), "{read:?}");
    }
    fs::write(&path, good).unwrap();
    assert!(cache.load(&service("order")).unwrap().is_some());
    // A list of another service under this name is not believed either.
    fs::rename(&path, cache.path(&service("stock"))).unwrap();
    assert!(matches!(cache.load(&service("stock")), Err(CacheError::Damaged { .. })));
}

#[tokio::test]
async fn a_save_that_fails_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    // Its folder cannot be made: a file is in the way.
    fs::write(folder.path().join("registry"), "").unwrap();
    let failed = cache.save(&view_of(&["a"]).await, 1);
    assert!(matches!(failed, Err(CacheError::Io { .. })), "{failed:?}");
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_secs(seconds))
}

fn at_revision(view: &View, revision: u64) -> Arc<View> {
    Arc::new(View { revision: Revision::new(revision), ..view.clone() })
}

#[tokio::test]
async fn an_empty_list_without_a_reason_is_not_believed_for_half_a_minute() {
    let full = view_of(&["a"]).await;
    let empty = View { instances: Vec::new(), ..full.clone() };
    let mut last = LastGood::new(EMPTY_GRACE);
    assert_eq!(last.offer(at(0), at_revision(&full, 5)), Offer::Taken);
    assert_eq!(last.offer(at(1), at_revision(&full, 4)), Offer::Old);
    assert_eq!(last.offer(at(2), at_revision(&empty, 6)), Offer::Doubted);
    assert_eq!(last.offer(at(20), at_revision(&empty, 7)), Offer::Doubted);
    assert_eq!(last.view().unwrap().instances.len(), 1);
    assert_eq!(last.next(), Some(at(32)));
    assert!(!last.settle(at(31)) && last.settle(at(32)));
    assert!(last.view().unwrap().instances.is_empty());
    let why = View { empty_because: Some(EmptyBecause::Deregistered), ..empty.clone() };
    assert_eq!(last.offer(at(40), at_revision(&full, 8)), Offer::Taken);
    assert_eq!(last.offer(at(41), at_revision(&why, 9)), Offer::Taken, "it says why");
    assert_eq!(last.offer(at(42), at_revision(&full, 10)), Offer::Taken);
    assert_eq!(last.offer(at(43), at_revision(&empty, 11)), Offer::Doubted);
    assert_eq!(last.offer(at(44), at_revision(&full, 12)), Offer::Taken);
    assert_eq!(last.next(), None, "the doubt is over");
}

proptest! {
    /// A list with instances is never given up for an unexplained empty one before its time.
    #[test]
    fn a_list_is_never_lost_without_reason(
        offers in prop::collection::vec((0u64..20, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let full = runtime.block_on(view_of(&["a"]));
        let mut last = LastGood::new(EMPTY_GRACE);
        let (mut now, mut doubted) = (0, None::<u64>);
        for (revision, (gap, is_empty, explained)) in (1..).zip(offers) {
            now += gap;
            let had = last.view().is_some_and(|view| !view.instances.is_empty());
            let mut view = (*at_revision(&full, revision)).clone();
            if is_empty {
                view.instances.clear();
                view.empty_because = explained.then_some(EmptyBecause::Expired);
            }
            let strange = is_empty && !explained && had;
            doubted = strange.then(|| doubted.unwrap_or(now));
            last.offer(at(now), Arc::new(view));
            let has = last.view().is_some_and(|view| !view.instances.is_empty());
            if strange {
                let since = doubted.unwrap();
                prop_assert_eq!(has, now - since < 30);
            } else {
                prop_assert_eq!(has, !is_empty);
            }
        }
    }
}
