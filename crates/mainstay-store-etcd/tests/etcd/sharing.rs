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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_keeps_the_lease_of_a_missing_key_keeps_none() {
    let cluster = Cluster::one().await;
    let store = cluster.store("/keep/");
    let lease = store.grant(Duration::from_mins(1), None).await.unwrap().id;
    let put = |name: &str| mainstay_store::Put::new(key(name), "v");
    store.apply(Batch::new().then(put("held").lease(lease))).await.unwrap();
    let both = Batch::new()
        .then(put("held").keep_lease().previous())
        .then(put("new").keep_lease().previous());
    let applied = store.apply(both).await.unwrap();
    let previous = applied.answers.iter().map(|answer| match answer {
        mainstay_store::Answer::Put { previous } => previous.is_some(),
        other => panic!("{other:?}"),
    });
    assert_eq!(previous.collect::<Vec<_>>(), [true, false]);
    let page = store.range(Range::all().into()).await.unwrap();
    let leases: Vec<_> = page.entries.iter().map(|entry| entry.lease).collect();
    assert_eq!(leases, [Some(lease), None]);
    let many = |count: usize| Batch {
        then: (0..count).map(|number| put(&format!("m/{number}")).keep_lease().into()).collect(),
        ..Batch::new()
    };
    let refused = store.apply(many(128)).await;
    let too_large =
        mainstay_store::Error::BatchTooLarge { what: "operations", found: 129, max: 128 };
    assert_eq!(refused, Err(too_large));
    assert!(store.apply(many(127)).await.unwrap().succeeded);
    assert!(store.apply(many(127)).await.unwrap().succeeded, "now that they are there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_read_in_parts_and_ends_at_its_bytes() {
    let cluster = Cluster::one().await;
    let store = cluster.store("/page/");
    let large = "x".repeat(1_000_000);
    for number in 0..30 {
        put(&store, &format!("p/{number:02}"), &large).await;
    }
    let mut range = Range::prefix("p/");
    let mut pages = Vec::new();
    loop {
        let page = store.range(range.clone().into()).await.unwrap();
        pages.push(page.entries.len());
        match page.entries.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => break,
        }
    }
    assert_eq!(pages, [16, 14], "16 MiB hold sixteen of them");
}
