//! Compaction: under a slow watch, while a watch is cut off, and by the elected node.

use std::time::Duration;

use mainstay_store::{Get, Range, Revision, Store, WatchItem, WatchRequest};

use crate::cluster::{Cluster, changes, eventually, key, open, put, soon, state, watch_all};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_cut_off_while_history_is_compacted_is_told_to_list_again() {
    let mut cluster = Cluster::one().await;
    let store = cluster.store("/cut/");
    let mut watch = watch_all(&store).await;
    let seen = put(&store, "a", "1").await;
    assert_eq!(changes(&mut watch, seen).await.len(), 1);
    cluster.members[0].kill();
    cluster.members[0].run();
    // Another node is faster to come back, writes and compacts.
    let other = cluster.store("/cut/");
    let deleted = mainstay_store::Batch::new().then(mainstay_store::Op::delete(&key("a")));
    let mut compacted = Revision::NEVER;
    eventually("the other node compacts", async || {
        if other.apply(deleted.clone()).await.is_err() {
            return false;
        }
        let Ok(applied) = crate::cluster::apply(&other, "b", "1").await else { return false };
        compacted = applied.revision;
        other.compact(applied.revision).await.is_ok()
    })
    .await;
    let last = put(&other, "c", "1").await;
    // Either the watch was back in time and has missed nothing, or it says that it was not.
    let mut events = Vec::new();
    loop {
        match soon("the watch goes on or ends", watch.next()).await {
            Some(WatchItem::Changes { revision, events: changed }) => {
                events.extend(changed.iter().map(|event| event.key().to_string()));
                if revision == last {
                    assert!(events.contains(&"a".to_owned()), "the delete is not lost: {events:?}");
                    break;
                }
            }
            Some(WatchItem::Compacted { compacted: told }) => {
                assert_eq!(told, compacted);
                assert!(events.is_empty(), "{events:?}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_the_compacted_revision_does_not_lose_its_delete() {
    let cluster = Cluster::one().await;
    let store = cluster.store("/edge/");
    put(&store, "a", "1").await;
    let gone = mainstay_store::Batch::new().then(mainstay_store::Op::delete(&key("a")));
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
                mainstay_store::Op::Put(mainstay_store::Put::new(name, "v"))
            });
            let batch =
                mainstay_store::Batch { then: puts.collect(), ..mainstay_store::Batch::new() };
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
