//! The recipes on a store of memory, by the real clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_store::{Memory, Range, Revision};

use super::*;
use crate::clock::BootClock;
use crate::keys::PairName;

fn on(store: &Arc<Memory>) -> Consul {
    let options = Options {
        node: NodeName::new("n").unwrap(),
        address: "127.0.0.1".to_owned(),
        check_targets: Addresses::default(),
    };
    Consul::start(Arc::clone(store) as _, Arc::new(BootClock), options)
}

fn consul() -> Consul {
    on(&Arc::new(Memory::new(BootClock)))
}

fn written(name: &str) -> Written {
    Written { name: PairName::new(name).unwrap(), flags: 0, value: Bytes::from_static(b"v") }
}

async fn set(consul: &Consul, name: &str) -> Revision {
    match consul.apply(&[PairOp::Set(written(name))]).await.unwrap().unwrap().pop() {
        Some(Done::Written(pair)) => pair.modified,
        other => panic!("{other:?}"),
    }
}

fn one(name: &str) -> Range {
    Range::key(&PairName::new(name).unwrap().pair())
}

const SOON: Duration = Duration::from_millis(300);

#[tokio::test]
async fn only_a_change_of_its_own_wakes_a_query() {
    let consul = consul();
    consul.be_listed().await.unwrap();
    let first = set(&consul, "a").await;
    let found = consul.find(&[one("a")]).await.unwrap();
    assert_eq!(found.index, first);
    let waits = {
        let consul = consul.clone();
        let ranges = [one("a")];
        async move { consul.changed(&ranges, found.read, Duration::from_secs(30)).await }
    };
    tokio::pin!(waits);
    set(&consul, "b").await;
    assert!(tokio::time::timeout(SOON, &mut waits).await.is_err(), "woken by another key");
    let gone = PairOp::Delete(PairName::new("a").unwrap());
    consul.apply(&[gone]).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(5), &mut waits).await.unwrap().unwrap();
    let found = consul.find(&[one("a")]).await.unwrap();
    assert!(found.entries[0].is_empty());
    assert_eq!(found.index, Revision::new(first.get() + 2));
}

#[tokio::test]
async fn the_end_of_a_session_frees_and_delays_what_it_held() {
    let consul = consul();
    let new = |behavior| NewSession {
        name: String::new(),
        node: "n".to_owned(),
        lock_delay: Duration::from_secs(15),
        behavior,
        ttl: None,
        node_checks: Vec::new(),
        service_checks: Vec::new(),
    };
    let id = consul.create_session(new(Behavior::Release)).await.unwrap();
    let other = consul.create_session(new(Behavior::Delete)).await.unwrap();
    let lock = |name: &str, id: &crate::keys::ConsulSessionId| {
        [PairOp::Lock(written(name), id.as_str().to_owned())]
    };
    // More than one batch can free.
    for at in 0..90 {
        consul.apply(&lock(&format!("k{at}"), &id)).await.unwrap().unwrap();
    }
    consul.apply(&lock("mine", &other)).await.unwrap().unwrap();
    consul.apply(&lock("k0", &other)).await.unwrap().unwrap_err();
    consul.destroy_session(&id).await.unwrap();
    let found = consul.find(&[crate::keys::consul_pairs("k")]).await.unwrap();
    let pairs: Vec<Pair> = found.entries[0].iter().map(|e| Pair::read(e).unwrap()).collect();
    assert_eq!(pairs.len(), 90);
    assert!(pairs.iter().all(|pair| pair.session.is_none() && pair.lock_index == 1));
    let refused = consul.apply(&lock("k0", &other)).await.unwrap().unwrap_err();
    assert_eq!(refused, [(0, Failed::Held("k0".to_owned()))]);
    let gone = consul.apply(&lock("new", &id)).await.unwrap().unwrap_err();
    assert_eq!(gone, [(0, Failed::SessionInvalid(id.as_str().to_owned()))]);
    consul.destroy_session(&other).await.unwrap();
    assert!(consul.find(&[one("mine")]).await.unwrap().entries[0].is_empty());
    consul.destroy_session(&other).await.unwrap();
    assert_eq!(consul.shutdown(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn a_session_that_is_not_renewed_ends_by_itself() {
    let store = Arc::new(Memory::new(BootClock));
    let consul = on(&store);
    let new = NewSession {
        name: String::new(),
        node: "n".to_owned(),
        lock_delay: Duration::ZERO,
        behavior: Behavior::Delete,
        ttl: Some((Duration::from_secs(1), "1s".to_owned())),
        node_checks: Vec::new(),
        service_checks: Vec::new(),
    };
    let id = consul.create_session(new).await.unwrap();
    let lock = [PairOp::Lock(written("a"), id.as_str().to_owned())];
    consul.apply(&lock).await.unwrap().unwrap();
    assert!(consul.renew_session(&id).await.unwrap().is_some());
    let read = consul.find(&[one("a")]).await.unwrap().read;
    let ranges = [one("a")];
    let gone = consul.changed(&ranges, read, Duration::from_secs(10));
    tokio::pin!(gone);
    while tokio::time::timeout(Duration::from_millis(50), &mut gone).await.is_err() {
        store.tick();
    }
    assert!(consul.find(&[one("a")]).await.unwrap().entries[0].is_empty());
    assert!(consul.renew_session(&id).await.unwrap().is_none());
}
