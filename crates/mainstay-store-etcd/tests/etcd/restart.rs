//! A single etcd that is killed, stopped, and gone for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_store::store::State;
use mainstay_store::{Error, Range, RangeRequest, Revision, Select, Store};
use mainstay_store_etcd::Etcd;
use rustix::process::Signal;

use crate::cluster::{
    Cluster, apply, changes, eventually, key, open, put, state, value, watch_all,
};

/// What a writer has been told: the last count that was acknowledged, and the last it sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    acknowledged: u64,
    at: Revision,
    sent: u64,
}

/// Counts up a key of its own until told to end. After an unknown outcome it goes on counting: the
/// write that is in doubt is then either there or not, and was never acknowledged.
async fn count_up(store: Arc<Etcd>, writer: usize, end: Arc<AtomicBool>) -> Told {
    let name = format!("w/{writer}");
    let mut told = Told::default();
    while !end.load(Ordering::SeqCst) {
        told.sent += 1;
        match apply(&store, &name, &told.sent.to_string()).await {
            Ok(applied) => (told.acknowledged, told.at) = (told.sent, applied.revision),
            Err(Error::OutcomeUnknown | Error::Unavailable { .. }) => (),
            Err(other) => panic!("writer {writer}: {other}"),
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_no_acknowledged_write_and_no_watch_event() {
    let mut cluster = Cluster::one().await;
    let store = cluster.store("/kill/");
    let mut watch = watch_all(&store).await;
    let end = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| tokio::spawn(count_up(Arc::clone(&store), writer, Arc::clone(&end))))
        .collect();
    for _ in 0..4 {
        let before = store.counted().calls_answered;
        eventually("writes go on", async || before + 200 < store.counted().calls_answered).await;
        cluster.members[0].kill();
        cluster.members[0].run();
    }
    cluster.ready().await;
    end.store(true, Ordering::SeqCst);
    let mut told = BTreeMap::new();
    for (writer, task) in writers.into_iter().enumerate() {
        told.insert(writer, task.await.unwrap());
    }
    for (writer, told) in &told {
        let found: u64 = value(&store, &format!("w/{writer}")).await.unwrap().parse().unwrap();
        assert!(
            told.acknowledged <= found && found <= told.sent,
            "writer {writer}: {told:?} {found}"
        );
    }
    // What the watch saw is what a reader of history sees: every write once, in order, no gap.
    let last = put(&store, "w/end", "end").await;
    let seen = changes(&mut watch, last).await;
    assert!(seen.windows(2).all(|two| two[0].0 < two[1].0), "in order, and none twice");
    let versions = store.range(RangeRequest::new(Select::new(Range::prefix("w/")))).await.unwrap();
    let written: u64 = versions.entries.iter().map(|entry| entry.version).sum();
    assert_eq!(seen.len() as u64, written, "as many changes as versions were written");
    for (writer, told) in told {
        let acknowledged = (told.at, told.acknowledged.to_string());
        assert!(seen.contains(&acknowledged), "writer {writer}: {acknowledged:?} was not seen");
    }
    let counted = store.counted();
    assert!(0 < counted.watch_resumes, "{counted:?}");
    assert_eq!((counted.watch_resyncs, counted.watch_mismatches), (0, 0), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_etcd_answers_nobody_and_all_goes_on_when_it_does() {
    let cluster = Cluster::one().await;
    let timeout = Duration::from_secs(1);
    let store = open(cluster.options("/stop/").request_timeout(timeout).unwrap());
    let mut watch = watch_all(&store).await;
    put(&store, "a", "1").await;
    cluster.members[0].signal(Signal::STOP);
    let answer = apply(&store, "a", "2").await;
    assert_eq!(answer, Err(Error::OutcomeUnknown), "it was sent, and may be done later");
    // The connection is given up; a new one is never answered on, so nothing is sent on it.
    let answer = apply(&store, "a", "3").await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    let read = store.get(mainstay_store::Get::new(key("a"))).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    assert_eq!(state(&store).await, State::Away);
    // Longer than the ping of a watch waits.
    tokio::time::sleep(Duration::from_secs(17)).await;
    cluster.members[0].signal(Signal::CONT);
    eventually("it serves again", async || apply(&store, "a", "4").await.is_ok()).await;
    let last = put(&store, "a", "5").await;
    let seen: Vec<String> =
        changes(&mut watch, last).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(seen.first().map(String::as_str), Some("1"));
    assert_eq!(seen.last().map(String::as_str), Some("5"));
    assert!(!seen.contains(&"3".to_owned()), "what was said not to be sent was not: {seen:?}");
    assert_eq!(state(&store).await, State::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_can_be_opened_while_etcd_is_away() {
    let mut cluster = Cluster::one().await;
    cluster.members[0].kill();
    let timeout = Duration::from_millis(500);
    let store = open(cluster.options("/away/").request_timeout(timeout).unwrap());
    let answer = apply(&store, "a", "1").await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "nothing was sent: {answer:?}");
    assert_eq!(state(&store).await, State::Away);
    let request = mainstay_store::WatchRequest::new(Range::all());
    let mut watch = store.watch(request).unwrap();
    let early = tokio::time::timeout(timeout, watch.next()).await;
    assert!(early.is_err(), "a watch waits for etcd: {early:?}");
    cluster.members[0].run();
    eventually("it serves", async || state(&store).await == State::Ready).await;
    let created = crate::cluster::soon("the watch stands", watch.next()).await;
    assert!(matches!(created, Some(mainstay_store::WatchItem::Created { .. })), "{created:?}");
    let at = put(&store, "a", "1").await;
    assert_eq!(changes(&mut watch, at).await, [(at, "1".to_owned())]);
}
