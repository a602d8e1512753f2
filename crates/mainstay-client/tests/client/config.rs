//! Configuration as it is published, whole, at once, and with nobody there.

use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_client::config::Config;
use mainstay_client::{Client, ClientError};
use serde_json::{Value, json};

use crate::server::{Mood, Server};

fn client(server: &Server) -> Client {
    Client::builder([server.url()]).token("t0ken").namespace("shop").build().unwrap()
}

fn follow(client: &Client, cache: &Path) -> Config {
    let config = client.config("pay-1").label("zone", "a").group("pay").secrets();
    config.cache(cache).start().unwrap()
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn item(content: &str, secret: bool) -> Value {
    json!({ "format": "text", "secret": secret, "content": content })
}

/// Release `release` of the group, decided at ten times that, with one item changed.
fn update(release: u64, from: u64, contents: Option<Value>) -> Value {
    json!({
        "group": "shop/pay", "revision": release * 10, "release": release, "canary": false,
        "from": from, "changed": [{ "item": "a", "change": "changed" }], "contents": contents,
    })
}

const REPORT: &str = "POST /config/reports";
const WATCH: &str = "POST /config/watch";

#[tokio::test]
async fn releases_come_whole_and_what_became_of_them_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let client = client(&server);
    let config = follow(&client, cache.path());
    let pay = config.watch("pay").unwrap();
    assert!(config.watch("other").is_none());
    let content = |item: &str| pay.borrow().as_ref()?.get(item).map(str::to_owned);
    assert_eq!(content("a"), None);
    let first = json!({ "a": item("1", false), "key": item("swordfish", true) });
    let mut whole = update(1, 0, Some(first));
    whole["changed"] =
        json!([{ "item": "a", "change": "added" }, { "item": "key", "change": "added" }]);
    server.tell("snapshot", &whole);
    eventually("the first release", || content("a").as_deref() == Some("1")).await;
    config.applied(pay.borrow().as_ref().unwrap());
    eventually("it is told", || !server.seen(REPORT).is_empty()).await;
    let told = &server.seen(REPORT)[0];
    let want = json!({
        "client": "pay-1", "labels": { "zone": "a" }, "namespace": "shop", "group": "pay",
        "release": 1, "outcome": "applied",
    });
    assert_eq!(*told, want);
    assert_eq!(server.seen(WATCH)[0]["groups"][0]["release"], Value::Null);

    server.tell("change", &update(2, 1, Some(json!({ "a": item("2", false) }))));
    eventually("the second", || content("a").as_deref() == Some("2")).await;
    assert_eq!(content("key").as_deref(), Some("swordfish"), "what did not change is there");

    // Too long to come along: it is asked for.
    let long = json!({ "group": "shop/pay", "release": 3, "canary": true,
        "items": { "a": item("3", false), "key": item("swordfish", true) } });
    server.sheet.lock().release = long;
    server.tell("change", &update(3, 2, None));
    eventually("the third", || content("a").as_deref() == Some("3")).await;
    assert!(pay.borrow().as_ref().unwrap().is_canary());
    let asked = server.calls("GET /config/shop/pay");
    assert_eq!(asked, ["GET /config/shop/pay?client=pay-1&label=zone%3Da&secrets=true"]);
    config.rejected(pay.borrow().as_ref().unwrap(), "a is too large");
    eventually("that is told", || {
        server.seen(REPORT).last().is_some_and(|told| told["reason"] == "a is too large")
    })
    .await;
    // A server that lags behind is not believed.
    server.tell("change", &update(2, 0, Some(json!({ "a": item("2", false) }))));
    eventually("another stream is opened", || 2 <= server.seen(WATCH).len()).await;
    assert_eq!(content("a").as_deref(), Some("3"));
    assert_eq!(server.seen(WATCH)[1]["groups"][0]["release"], 3);
    assert_eq!(client.shutdown(Duration::from_secs(5)).await, 0);
    let late = client.config("pay-1").group("pay").start().unwrap_err();
    assert_eq!(late, ClientError::Stopped);
}

#[tokio::test]
async fn a_program_that_starts_alone_begins_with_the_last_release_but_its_secrets() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let mut whole = update(4, 0, Some(json!({ "a": item("1", false), "key": item("s", true) })));
    whole["changed"] =
        json!([{ "item": "a", "change": "added" }, { "item": "key", "change": "added" }]);
    server.tell("snapshot", &whole);
    let first = client(&server);
    let pay = follow(&first, cache.path()).watch("pay").unwrap();
    eventually("it comes", || pay.borrow().is_some()).await;
    assert_eq!(first.shutdown(Duration::from_secs(5)).await, 0);
    let kept = std::fs::read_to_string(cache.path().join("config/shop/pay.json")).unwrap();
    assert!(!kept.contains("\"s\""), "{kept}");

    server.sheet.lock().stream = Mood::Refuses(503, "config-loading");
    let second = client(&server);
    let pay = follow(&second, cache.path()).watch("pay").unwrap();
    let kept = pay.borrow().clone().unwrap();
    assert_eq!((kept.number(), kept.is_kept()), (4, true));
    assert_eq!((kept.get("a"), kept.get("key")), (Some("1"), None));
    server.sheet.lock().stream = Mood::Good;
    let key = || pay.borrow().as_ref()?.get("key").map(str::to_owned);
    eventually("the secret comes with a server", || key().as_deref() == Some("s")).await;
    let asked = server.seen(WATCH);
    let last = &asked.last().unwrap()["groups"][0];
    assert_eq!(last["release"], Value::Null, "it lacked something");
}

#[tokio::test]
async fn groups_that_make_no_sense_are_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let client = client(&server);
    assert!(client.config("pay-1").start().is_err());
    for group in ["", "a/b", "..", "支付"] {
        assert!(client.config("pay-1").group(group).start().is_err(), "{group}");
    }
    assert!(client.config("").group("pay").start().is_err());
    assert!(server.sheet.lock().seen.is_empty());
}
