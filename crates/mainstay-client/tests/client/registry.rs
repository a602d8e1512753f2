//! Being found, and finding others, whatever the control plane does.

use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_api::registry::{ServiceAt, ServiceView};
use mainstay_call::resolve::{Resolve as _, Watch};
use mainstay_client::registry::{Discovery, Registration};
use mainstay_client::{Client, ClientError};
use mainstay_core::name::ServiceName;
use serde_json::json;

use crate::server::{Mood, Server};

const OWN: &str = "/registry/shop/services/order/instances/10.0.0.7%3A8080";

fn client(servers: &[String]) -> Client {
    Client::builder(servers).token("t0ken").namespace("shop").build().unwrap()
}

fn order() -> Registration {
    Registration::new("order", "10.0.0.7", 8080).zone("a").weight(3)
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_instance_beats_is_registered_again_when_forgotten_and_goes_when_dropped() {
    let server = Server::start().await;
    let own = client(&[server.url()]).register(order()).unwrap();
    own.ready().await.unwrap();
    assert!(own.is_known());
    let register = format!("PUT {OWN}");
    eventually("it beats", || 2 <= server.calls(&format!("POST {OWN}/heartbeat")).len()).await;
    server.sheet.lock().beat = Mood::Refuses(404, "instance-not-found");
    eventually("it registers again", || 2 <= server.seen(&register).len()).await;
    server.sheet.lock().beat = Mood::Good;
    eventually("it is known again", || own.is_known()).await;
    // Another server has taken the place of this one, and does not know the token.
    server.sheet.lock().beat = Mood::Refuses(401, "unauthenticated");
    eventually("it is not known there", || !own.is_known()).await;
    server.sheet.lock().beat = Mood::Good;
    eventually("it is known again", || own.is_known()).await;
    let told = server.seen(&register);
    assert_eq!((&told[0]["zone"], &told[0]["weight"]), (&json!("a"), &json!(3)));
    assert!(told.iter().all(|document| document["registration"] == told[0]["registration"]));
    drop(own);
    // As it was registered, and not as somebody may have registered it since.
    let made = told[0]["registration"].as_str().unwrap();
    let leave = format!("DELETE {OWN}?registration={made}");
    eventually("it is gone", || !server.calls(&leave).is_empty()).await;
}

#[tokio::test]
async fn an_instance_that_is_not_well_is_silent_until_it_is() {
    let server = Server::start().await;
    let own = client(&[server.url()]).register(order()).unwrap();
    let beats = || server.calls(&format!("POST {OWN}/heartbeat")).len();
    eventually("it beats", || 1 <= beats()).await;
    own.set_well(false);
    // One may be on its way; they come once a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = beats();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(beats(), before);
    server.sheet.lock().beat = Mood::Refuses(404, "instance-not-found");
    own.set_well(true);
    eventually("it is registered again", || 2 <= server.seen(&format!("PUT {OWN}")).len()).await;
    own.deregister().await.unwrap();
}

#[tokio::test]
async fn nobody_has_to_be_there_at_the_beginning_and_a_refusal_is_told() {
    let (away, server) = (Server::start().await, Server::start().await);
    away.sheet.lock().register = Mood::Refuses(503, "store-unavailable");
    server.sheet.lock().register = Mood::Refuses(409, "kind-conflict");
    let client = client(&[away.url(), server.url()]);
    let own = client.register(order()).unwrap();
    let refused = own.ready().await.unwrap_err();
    assert_eq!(refused.code(), "kind-conflict");
    assert!(!own.is_known());
    server.sheet.lock().register = Mood::Good;
    eventually("it is registered in the end", || own.is_known()).await;
    own.deregister().await.unwrap();
    assert_eq!(server.calls(&format!("DELETE {OWN}")).len(), 1);
    assert_eq!(client.shutdown(Duration::from_secs(5)).await, 0);
    assert_eq!(client.register(order()).unwrap_err(), ClientError::Stopped);
}

#[tokio::test]
async fn what_has_drained_is_not_registered_again() {
    let server = Server::start().await;
    let client = client(&[server.url()]);
    let own = client.register(order()).unwrap();
    own.ready().await.unwrap();
    own.drain(7).await.unwrap();
    assert_eq!(server.seen(&format!("POST {OWN}/drain"))[0]["seconds"], 7);
    server.sheet.lock().beat = Mood::Refuses(404, "instance-not-found");
    eventually("it ends", || !server.calls(&format!("DELETE {OWN}")).is_empty()).await;
    assert_eq!(server.seen(&format!("PUT {OWN}")).len(), 1);
    assert!(!own.is_known());
}

#[tokio::test]
async fn names_that_are_none_are_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let client = client(&[server.url()]);
    assert!(client.register(Registration::new("a/b", "10.0.0.7", 1)).is_err());
    assert!(client.register(order().id("a\nb")).is_err());
    assert!(server.sheet.lock().seen.is_empty());
}

/// A list of `ports` of the service `name`.
fn list(name: &str, revision: u64, ports: &[u16]) -> ServiceView {
    let instances = ports.iter().map(|port| {
        json!({
            "id": format!("i{port}"), "address": "10.0.0.7", "port": port, "kind": "ephemeral",
            "weight": 1, "zone": "", "version": "", "tags": [], "metadata": {}, "state": "up",
            "health": "passing", "checks": [], "ttl_seconds": 15, "owner": "n1",
            "registered_at": "", "changed_at": "", "revision": revision,
        })
    });
    let why = ports.is_empty().then_some("deregistered");
    serde_json::from_value(json!({
        "namespace": "shop", "service": name, "revision": revision, "protected": null,
        "stale": false, "instances": instances.collect::<Vec<_>>(), "empty_because": why,
    }))
    .unwrap()
}

fn watch(discovery: &Discovery, name: &str) -> Watch {
    discovery.watch("shop", &ServiceName::new(name).unwrap())
}

fn ports(watch: &Watch) -> Vec<String> {
    watch.borrow().instances.iter().map(|instance| instance.address.to_string()).collect()
}

fn discover(servers: &[String], cache: &Path) -> (Client, Discovery) {
    let client = client(servers);
    let discovery = client.discovery().cache(cache).start();
    (client, discovery)
}

#[tokio::test]
async fn services_are_followed_by_one_stream_that_goes_on_where_it_was_at_another_server() {
    let cache = tempfile::tempdir().unwrap();
    let (first, second) = (Server::start().await, Server::start().await);
    (first.sheet.lock().store, second.sheet.lock().store) = ("s1", "s1");
    let (client, discovery) = discover(&[first.url(), second.url()], cache.path());
    let (order, stock) = (watch(&discovery, "order"), watch(&discovery, "stock"));
    assert!(order.borrow().empty_because.is_some());
    first.tell("snapshot", &list("order", 5, &[1]));
    first.tell("snapshot", &list("stock", 4, &[2]));
    first.tell("change", &list("order", 7, &[1, 3]));
    tokio::time::timeout(Duration::from_secs(20), discovery.answered()).await.unwrap();
    eventually("the change is told", || ports(&order) == ["10.0.0.7:1", "10.0.0.7:3"]).await;
    assert_eq!((ports(&stock), order.borrow().revision), (vec!["10.0.0.7:2".to_owned()], 7));
    assert_eq!(
        first.calls("GET /registry/watch"),
        ["GET /registry/watch?services=shop/order,shop/stock"]
    );

    // A third service needs another stream, which begins where this one was.
    let pay = watch(&discovery, "pay");
    first.tell("snapshot", &list("pay", 9, &[4]));
    eventually("it is followed too", || ports(&pay) == ["10.0.0.7:4"]).await;
    let again = "GET /registry/watch?services=shop/order@7,shop/pay,shop/stock@4&store=s1";
    assert_eq!(first.calls("GET /registry/watch")[1], again);

    // The server goes; nothing is lost meanwhile, and the next one tells what is new.
    first.sheet.lock().stream = Mood::Refuses(503, "registry-loading");
    let still = |name: &str, revision| ServiceAt {
        namespace: "shop".to_owned(),
        service: name.to_owned(),
        revision,
    };
    second.tell("bookmark", &still("order", 7));
    second.tell("bookmark", &still("pay", 9));
    second.tell("snapshot", &list("stock", 12, &[]));
    first.forget();
    eventually("the other one tells", || ports(&stock).is_empty()).await;
    assert_eq!(stock.borrow().empty_because, Some("deregistered"));
    eventually("the lists are fresh", || !order.borrow().stale && !pay.borrow().stale).await;
    assert_eq!(ports(&order).len(), 2);
    assert!(
        second.calls("GET /registry/watch")[0].contains("shop/order@7,shop/pay@9,shop/stock@4")
    );
    assert_eq!(client.shutdown(Duration::from_secs(5)).await, 0);
    assert_eq!(ports(&order).len(), 2, "the last list stays");
}

#[tokio::test]
async fn a_client_that_starts_alone_begins_with_the_lists_it_had() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    server.sheet.lock().store = "s1";
    let (client, discovery) = discover(&[server.url()], cache.path());
    let order = watch(&discovery, "order");
    server.tell("snapshot", &list("order", 50, &[1, 2]));
    eventually("it is told", || ports(&order).len() == 2).await;
    assert_eq!(client.shutdown(Duration::from_secs(5)).await, 0);
    assert!(cache.path().join("registry/shop/order.json").is_file());

    server.sheet.lock().stream = Mood::Hangs;
    let (_client, discovery) = discover(&[server.url()], cache.path());
    let order = watch(&discovery, "order");
    assert_eq!((ports(&order).len(), order.borrow().stale), (2, true));
    assert!(ports(&watch(&discovery, "stock")).is_empty());

    // The store was replaced by another one: its revisions are no older ones.
    let other = Server::start().await;
    other.sheet.lock().store = "s2";
    other.tell("snapshot", &list("order", 3, &[7]));
    let (_client, discovery) = discover(&[other.url()], cache.path());
    let order = watch(&discovery, "order");
    eventually("the new one is believed", || ports(&order) == ["10.0.0.7:7"]).await;
    assert!(order.borrow().revision > 50 && !order.borrow().stale, "whoever compares is told");
}

#[tokio::test]
async fn a_list_is_not_given_up_for_an_empty_one_without_a_reason_before_its_time() {
    let server = Server::start().await;
    let client = client(&[server.url()]);
    let discovery = client.discovery().empty_grace(Duration::from_secs(2)).start();
    let order = watch(&discovery, "order");
    server.tell("snapshot", &list("order", 5, &[1]));
    eventually("it is told", || ports(&order).len() == 1).await;
    let began = Instant::now();
    server.tell("change", &ServiceView { empty_because: None, ..list("order", 6, &[]) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(ports(&order).len(), 1);
    eventually("it is believed", || ports(&order).is_empty()).await;
    assert!(Duration::from_millis(1_900) < began.elapsed(), "{:?}", began.elapsed());
}
