//! Compaction: under a slow watch, while a watch is cut off, and by the elected node.

use std::time::Duration;

use mainstay_store::{Batch, Get, Op, Put, Range, Revision, Store, WatchItem, WatchRequest};
use mainstay_store_etcd::Options;

use crate::cluster::{Cluster, changes, eventually, key, open, put, soon, state, watch_all};
use crate::relay::Relay;

/// How a watch ends, and the last revision before that.
async fn end(watch: &mut mainstay_store::Watch) -> (WatchItem, Option<Revision>) {
    let mut last = None;
    loop {
        match soon("the watch ends", watch.next()).await {
            Some(WatchItem::Changes { revision, .. }) => {
                assert!(last.is_none_or(|last| revision == Revision::next(last)), "no gap");
                last = Some(revision);
            }
            Some(item) if item.is_last() => return (item, last),
            Some(_) => (),
            None => panic!("ended without saying how"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_too_slow_for_compaction_is_told_to_list_again() {
    let cluster = Cluster::one().await;
    let store = cluster.store("/slow/");
    let mut slow = watch_all(&store).await;
    // More than an area keeps: 16 MiB.
    let large = "x".repeat(1_000_000);
    for _ in 0..24 {
        put(&store, "a", &large).await;
    }
    let last = put(&store, "a", "last").await;
    store.compact(last).await.unwrap();
    let (item, seen) = end(&mut slow).await;
    assert_eq!(item, WatchItem::Compacted { compacted: last });
    assert_eq!(seen, None, "all it had not read is gone");
    // And after listing it goes on.
    let listed = store.get(Get::new(key("a"))).await.unwrap();
    let mut again =
        store.watch(WatchRequest::new(Range::all()).from(listed.revision.next())).unwrap();
    let next = put(&store, "a", "next").await;
    soon("created", again.next()).await;
    assert_eq!(changes(&mut again, next).await, [(next, "next".to_owned())]);
}

/// A watch is cut off, `more` changes happen after a delete, history is compacted `past` the
/// delete, if at all, and the watch comes back.
async fn cut_off(past: Option<u64>, more: u64) -> (Vec<Revision>, Option<WatchItem>, Revision) {
    let cluster = Cluster::one().await;
    let relay = Relay::to(&cluster.members[0].endpoint).await;
    let options = Options::new(&[&relay.endpoint]).unwrap().prefix("/cut/").unwrap();
    let store = open(options.never_compact());
    let mut watch = watch_all(&store).await;
    let seen = put(&store, "a", "1").await;
    assert_eq!(changes(&mut watch, seen).await.len(), 1);
    relay.cut();
    let other = cluster.store("/cut/");
    let gone = Batch::new().then(Op::delete(&key("a")));
    let deleted = other.apply(gone).await.unwrap().revision;
    assert_eq!(deleted, seen.next());
    for _ in 0..more {
        put(&other, "b", "1").await;
    }
    if let Some(past) = past {
        other.compact(Revision::new(deleted.get() + past)).await.unwrap();
    }
    relay.mend();
    let last = put(&other, "c", "1").await;
    let mut revisions = Vec::new();
    loop {
        match soon("the watch goes on or ends", watch.next()).await {
            Some(WatchItem::Changes { revision, .. }) => {
                revisions.push(revision);
                if revision == last {
                    return (revisions, None, deleted);
                }
            }
            item => return (revisions, item, deleted),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_cut_off_goes_on_without_gap_or_repeat() {
    let (revisions, end, deleted) = cut_off(None, 5).await;
    let want: Vec<Revision> = (0..7).map(|step| Revision::new(deleted.get() + step)).collect();
    assert_eq!((revisions, end), (want, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_cut_off_while_history_is_compacted_is_told_to_list_again() {
    // Beyond what it has to have next; and exactly at it, where etcd would leave out the delete.
    for past in [3, 0] {
        let (revisions, end, deleted) = cut_off(Some(past), 5).await;
        let compacted = Revision::new(deleted.get() + past);
        assert_eq!((revisions, end), (vec![], Some(WatchItem::Compacted { compacted })), "{past}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_the_compacted_revision_does_not_lose_its_delete() {
    let cluster = Cluster::one().await;
    let store = cluster.store("/edge/");
    put(&store, "a", "1").await;
    let gone = Batch::new().then(Op::delete(&key("a")));
    let deleted = store.apply(gone).await.unwrap().revision;
    put(&store, "b", "1").await;
    store.compact(deleted).await.unwrap();
    let mut watch = store.watch(WatchRequest::new(Range::all()).from(deleted)).unwrap();
    let (item, seen) = end(&mut watch).await;
    assert_eq!((item, seen), (WatchItem::Compacted { compacted: deleted }, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_compacts_and_another_takes_over() {
    let cluster = Cluster::one().await;
    let writer = cluster.store("/duty/");
    let fill = async || {
        for _ in 0..40 {
            let puts = (0..64).map(|number| {
                let name = key(&format!("k/{number}"));
                Op::Put(Put::new(name, "v"))
            });
            let batch = Batch { then: puts.collect(), ..Batch::new() };
            for _ in 0..30 {
                writer.apply(batch.clone()).await.unwrap();
            }
        }
        writer.status().await.unwrap().revision
    };
    let revision = fill().await;
    let options = || cluster.options("/duty/").compact(Duration::from_mins(30), 1_100);
    let (one, two) = (open(options()), open(options()));
    let compacted = async || writer.status().await.unwrap().compacted;
    let goal = Revision::new(revision.get() - 1_200);
    eventually("one of them compacts", async || goal <= compacted().await).await;
    assert!(compacted().await.get() <= revision.get() - 1_000 + 10, "the newest 1,000 stay");
    let by = [one.counted().compactions, two.counted().compactions];
    assert!(by.contains(&0), "only one of them did: {by:?}");
    let [first, second] = if 0 < by[0] { [one, two] } else { [two, one] };
    first.close().await.unwrap();
    let revision = fill().await;
    let goal = Revision::new(revision.get() - 1_200);
    eventually("the other takes over", async || goal <= compacted().await).await;
    assert!(0 < second.counted().compactions);
    assert_eq!(state(&second).await, mainstay_store::State::Ready);
    // The key it was elected by is none of the port's.
    let all = writer.range(Range::all().into()).await.unwrap();
    assert!(all.entries.iter().all(|entry| entry.key.starts_with(b"k/")));
}
