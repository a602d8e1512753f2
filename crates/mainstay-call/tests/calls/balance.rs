//! Who is asked, who no longer is, and what is known of both.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::Method;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::resolve::{Instance, StaticList};
use mainstay_call::{Calls, Policy};
use mainstay_core::Clock;
use mainstay_core::name::ServiceName;

use crate::peers::{Peers, Reply, call, request, word};

const PLAIN: &str = "retry = { attempts = 1 }\nbalance = { kind = \"round_robin\" }\n\
    circuit = { mode = \"observe\" }\n";

#[tokio::test(start_paused = true)]
async fn a_run_of_failures_ejects_for_a_while() {
    let peers = Peers::new(|at, _| Reply::Status(if at == "a:1" { 500 } else { 200 }));
    let text = format!("{PLAIN}outlier = {{ consecutive = 3, base_seconds = 30 }}");
    let client = peers.client(&["a:1", "b:1", "c:1"], &text);
    for _ in 0..30 {
        drop(call(&client, request(Method::GET)).await);
    }
    assert_eq!(peers.take("a:1"), 3);
    let ejected: Vec<_> =
        client.instances().view().iter().map(|view| view.ejection.is_some()).collect();
    assert_eq!(ejected, [true, false, false]);
    peers.set(|_, _| Reply::Status(200));
    tokio::time::sleep(Duration::from_secs(30)).await;
    for _ in 0..30 {
        assert_eq!(word(&call(&client, request(Method::GET)).await), "200");
    }
    assert!((9..=10).contains(&peers.take("a:1")), "its share, give or take where the turn stood");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_set_keeps_what_was_learnt() {
    let order = ServiceName::new("order").unwrap();
    let mut list = StaticList::new().with(order.clone(), ["a:1", "b:1"]);
    let peers = Peers::all(Reply::Status(500));
    let policy = Policy::from_toml("retry = { attempts = 1 }").unwrap();
    let client =
        Calls::to("order").unwrap().resolve(&list).upstream(peers.clone()).policy(policy).build();
    for _ in 0..10 {
        drop(call(&client, request(Method::GET)).await);
    }
    assert_eq!(word(&call(&client, request(Method::GET)).await), "circuit-open");
    let before = client.instances().endpoints();
    peers.set(|_, _| Reply::Status(200));
    list.set(order.clone(), ["c:1", "b:1"].map(Instance::at).into());
    for _ in 0..10 {
        assert_eq!(word(&call(&client, request(Method::GET)).await), "200");
    }
    let after = client.instances().endpoints();
    assert!(Arc::ptr_eq(&before[1], &after[1]), "b is the b it was");
    assert_eq!(client.machines().circuits().len(), 3, "and somebody still holds the old a");
    drop(before);
    assert_eq!(client.machines().circuits().len(), 2);
    let sent = peers.seen().into_iter().skip(10);
    assert!(sent.into_iter().all(|seen| seen.at == "c:1"), "b's circuit is still open");
    list.set(order, Vec::new());
    assert_eq!(word(&call(&client, request(Method::GET)).await), "no-instance");
}

#[tokio::test(start_paused = true)]
async fn a_key_finds_its_instance() {
    let peers = Peers::all(Reply::Status(200));
    let text = "balance = { kind = \"maglev\", hash = [\"header:x-user\"] }";
    let client = peers.client(&["a:1", "b:1", "c:1", "d:1"], text);
    let mut places = std::collections::BTreeSet::new();
    for user in 0..20 {
        let from = peers.seen().len();
        for _ in 0..3 {
            let mut request = request(Method::GET);
            request.headers_mut().insert("x-user", user.into());
            drop(call(&client, request).await);
        }
        let seen = peers.seen();
        assert!(seen[from..].iter().all(|s| s.at == seen[from].at), "user {user} was moved");
        places.insert(seen[from].at.clone());
    }
    assert_eq!(places.len(), 4, "and different users are at different ones");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_is_not_in_flight_for_ever() {
    let peers = Peers::all(Reply::Hang);
    let client = peers.client(&["a:1"], PLAIN);
    let now = || MonotonicClock.now();
    let in_flight = || client.instances().endpoints()[0].load(now()).in_flight;
    let mut gone = Box::pin(client.call(request(Method::GET)));
    assert!(gone.as_mut().now_or_never().is_none());
    assert_eq!(in_flight(), 1);
    drop(gone);
    assert_eq!(in_flight(), 0);
    peers.set(|_, _| Reply::Status(200));
    let answer = client.call(request(Method::GET)).await.unwrap();
    assert_eq!(in_flight(), 1, "as long as the body is not over");
    drop(answer);
    assert_eq!(in_flight(), 0);
}
