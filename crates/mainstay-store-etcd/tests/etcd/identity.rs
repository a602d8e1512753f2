//! Another history in place of the one that was known.

use mainstay_store::store::State;
use mainstay_store::{Error, Get, Range, Revision, Store, WatchItem, WatchRequest};
use mainstay_store_etcd::Etcd;

use crate::cluster::{
    Cluster, Setup, apply, changes, eventually, free_port, key, open, put, soon, state, value,
    watch_all,
};

/// What every operation says once history was replaced.
async fn refusal(store: &Etcd) -> (Revision, Revision) {
    let mut found = None;
    eventually("the other history is seen", async || {
        match store.get(Get::new(key("a"))).await {
            Err(Error::Regressed { seen, found: now }) => found = Some((seen, now)),
            Ok(got) => panic!("read from another history: {got:?}"),
            Err(_away) => (),
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

async fn all_is_refused(store: &Etcd) {
    let write = apply(store, "a", "new").await;
    assert!(matches!(write, Err(Error::Regressed { .. })), "{write:?}");
    let grant = store.grant(std::time::Duration::from_secs(5), None).await;
    assert!(matches!(grant, Err(Error::Regressed { .. })), "{grant:?}");
    let late = store.watch(WatchRequest::new(Range::all()));
    assert!(matches!(late, Err(Error::Regressed { .. })), "{late:?}");
    assert_eq!(state(store).await, State::Regressed);
}

async fn goes_on_when_accepted(store: &Etcd) {
    store.accept();
    eventually("the new history serves", async || apply(store, "a", "new").await.is_ok()).await;
    let mut watch = watch_all(store).await;
    let at = put(store, "a", "newer").await;
    assert_eq!(changes(&mut watch, at).await, [(at, "newer".to_owned())]);
}

async fn replaced_by(token: &'static str) {
    let ports = (free_port(), free_port());
    let setup = |token| Setup { ports: Some(ports), token: Some(token), ..Setup::default() };
    let mut first = Cluster::start(setup("first")).await;
    let store = first.store("/world/");
    let mut watch = watch_all(&store).await;
    for number in 0..10 {
        put(&store, "a", &number.to_string()).await;
    }
    let seen = put(&store, "a", "old").await;
    changes(&mut watch, seen).await;
    let known = store.known().unwrap();
    assert!(seen <= known.1);
    first.members[0].kill();
    let second = Cluster::start(setup(token)).await;
    let (told_seen, found) = refusal(&store).await;
    assert!(seen <= told_seen && found < seen, "{told_seen} {found}");
    all_is_refused(&store).await;
    let ended = soon("the watch ends", watch.next()).await;
    assert!(matches!(ended, Some(WatchItem::Compacted { .. })), "{ended:?}");
    assert_eq!(value(&second.store("/world/"), "a").await, None, "nothing was written there");
    // A node that is started anew remembers as well.
    let again = open(second.options("/world/").known(known.0, known.1));
    refusal(&again).await;
    goes_on_when_accepted(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_cluster_on_the_same_address_is_refused() {
    replaced_by("second").await;
}

/// etcd makes its cluster id of the addresses and the token: an etcd that has lost its data and
/// begins anew has the id it had, and only its revision tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_cluster_without_its_data_is_refused() {
    replaced_by("first").await;
}
