//! Three members, of which some are killed.

use std::time::Duration;

use mainstay_store::{Error, Get, Store};

use crate::cluster::{
    Cluster, Setup, apply, changes, eventually, key, open, put, value, watch_all,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_is_not_missed_and_a_majority_only_as_long_as_it_is_away() {
    let mut cluster = Cluster::start(Setup { members: 3, ..Setup::default() }).await;
    let timeout = Duration::from_secs(4);
    let store = open(cluster.options("/three/").request_timeout(timeout).unwrap());
    let mut watch = watch_all(&store).await;
    put(&store, "a", "0").await;
    // The leader, whichever member it is, three times over.
    let mut in_doubt = 0;
    for round in 0..3 {
        let leader = cluster.leader();
        cluster.members[leader].kill();
        // A write that was under way when the leader went is in doubt, and never more than that.
        eventually("writes go on without one member", async || {
            match apply(&store, "a", &format!("{round}")).await {
                Ok(_) => true,
                Err(Error::OutcomeUnknown) => {
                    in_doubt += 1;
                    false
                }
                Err(Error::Unavailable { .. }) => false,
                Err(other) => panic!("{other}"),
            }
        })
        .await;
        assert_eq!(value(&store, "a").await, Some(format!("{round}")));
        cluster.members[leader].run();
        eventually("it is back", async || {
            let member = [cluster.members[leader].endpoint.as_str()];
            let options = mainstay_store_etcd::Options::new(&member).unwrap().never_compact();
            open(options).get(Get::new(key("a"))).await.is_ok()
        })
        .await;
    }
    let last = put(&store, "a", "three").await;
    let seen = changes(&mut watch, last).await;
    assert!(seen.windows(2).all(|two| two[0].0 < two[1].0), "{seen:?}");
    assert!(4 < seen.len() && seen.len() <= 5 + in_doubt, "{in_doubt} in doubt: {seen:?}");

    cluster.members[0].kill();
    cluster.members[1].kill();
    eventually("writes are refused, and nothing is done", async || {
        matches!(apply(&store, "a", "lost").await, Err(Error::Unavailable { .. }))
    })
    .await;
    let read = store.get(Get::new(key("a"))).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    let mut local = None;
    eventually("the last state can be read", async || {
        local = store.get(Get::new(key("a")).local()).await.ok();
        local.is_some()
    })
    .await;
    let entry = local.and_then(|got| got.entry).unwrap();
    assert!(["three", "lost"].contains(&std::str::from_utf8(&entry.value).unwrap()), "{entry:?}");
    cluster.members[0].run();
    cluster.members[1].run();
    eventually("it has recovered", async || apply(&store, "a", "back").await.is_ok()).await;
    let last = put(&store, "a", "end").await;
    let seen = changes(&mut watch, last).await;
    assert_eq!(seen.last().map(|(_, value)| value.as_str()), Some("end"));
    let counted = store.counted();
    assert_eq!((counted.watch_resyncs, counted.watch_mismatches), (0, 0), "{counted:?}");
}
