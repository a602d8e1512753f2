//! Many local watches over few of etcd's, and their audit.

use std::time::Duration;

use mainstay_store::{Batch, Op, Range, Revision, Store, WatchItem, WatchRequest};
use mainstay_store_etcd::FanOut;

use crate::cluster::{Cluster, changes, eventually, key, open, put, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watches_share_one_of_etcd_an_area() {
    let cluster = Cluster::one().await;
    let store = open(cluster.options("/share/").fan_out(FanOut::Areas));
    let mut watches = Vec::new();
    for number in 0..1_000 {
        let range = match number % 3 {
            0 => Range::prefix("svc/"),
            1 => Range::key(&key(&format!("lock/{number}"))),
            _ => Range::prefix(format!("svc/{number}/")),
        };
        let mut watch = store.watch(WatchRequest::new(range).quiet()).unwrap();
        let first = soon("it stands", watch.next()).await;
        assert!(matches!(first, Some(WatchItem::Created { .. })), "{first:?}");
        watches.push((number, watch));
    }
    assert_eq!(store.areas(), 2, "svc/ and lock/");
    assert_eq!(store.status().await.unwrap().watchers, 1_000);
    let one = put(&store, "svc/shop/a", "1").await;
    let two = put(&store, "lock/1", "1").await;
    for (number, watch) in &mut watches {
        match *number % 3 {
            0 => assert_eq!(changes(watch, one).await.len(), 1),
            1 if *number == 1 => assert_eq!(changes(watch, two).await.len(), 1),
            _ => {
                let early = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
                assert!(early.is_err(), "not for watch {number}: {early:?}");
            }
        }
    }
    drop(watches);
    eventually("all are gone", async || store.status().await.unwrap().watchers == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_resumes_far_back_reads_history_and_then_shares() {
    let cluster = Cluster::one().await;
    let writer = cluster.store("/back/");
    let mut first = Revision::NEVER;
    for number in 0..50 {
        let at = put(&writer, "svc/a", &number.to_string()).await;
        first = if number == 0 { at } else { first };
    }
    let store = cluster.store("/back/");
    let mut watch = store.watch(WatchRequest::new(Range::prefix("svc/")).from(first)).unwrap();
    let created = soon("created", watch.next()).await;
    assert!(matches!(created, Some(WatchItem::Created { .. })), "{created:?}");
    let last = put(&writer, "svc/a", "50").await;
    let seen: Vec<String> =
        changes(&mut watch, last).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(seen, (0..=50).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(store.counted().watch_own_streams, 1);
    let next = put(&writer, "svc/a", "51").await;
    assert_eq!(changes(&mut watch, next).await, [(next, "51".to_owned())]);
    assert_eq!(store.counted().watch_own_streams, 1, "it goes on in the area");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_agrees_while_others_write() {
    let cluster = Cluster::one().await;
    let writer = cluster.store("/audit/");
    for number in 0..20 {
        put(&writer, &format!("svc/{number}"), "before").await;
    }
    let store = open(cluster.options("/audit/").audit_every(Duration::from_millis(200)));
    let mut watch = store.watch(WatchRequest::new(Range::prefix("svc/")).quiet()).unwrap();
    soon("created", watch.next()).await;
    let mut last = Revision::NEVER;
    let mut number = 0;
    eventually("it was audited", async || {
        for _ in 0..50 {
            number += 1;
            let name = format!("svc/{}", number % 37);
            let batch = match number % 5 {
                0 => Batch::new().then(Op::delete(&key(&name))),
                _ => Batch::new().then(mainstay_store::Put::new(key(&name), "v")),
            };
            last = writer.apply(batch).await.unwrap().revision;
        }
        20 <= store.counted().audits
    })
    .await;
    last = last.max(put(&writer, "svc/end", "end").await);
    changes_or_deletes(&mut watch, last).await;
    let counted = store.counted();
    assert_eq!((counted.watch_mismatches, counted.watch_resyncs), (0, 0), "{counted:?}");
}

async fn changes_or_deletes(watch: &mut mainstay_store::Watch, last: Revision) {
    loop {
        match soon("a change", watch.next()).await {
            Some(WatchItem::Changes { revision, .. }) if last <= revision => return,
            Some(WatchItem::Changes { .. }) => (),
            other => panic!("{other:?}"),
        }
    }
}
