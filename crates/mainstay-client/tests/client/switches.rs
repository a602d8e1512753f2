//! Switches, as a program reads them: as they are told, by default, and with nobody there.

use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_client::Client;
use mainstay_client::switches::Switches;
use serde_json::{Value, json};

use crate::server::{Mood, Server};

fn client(server: &Server) -> Client {
    Client::builder([server.url()]).token("t0ken").namespace("shop").build().unwrap()
}

fn follow(client: &Client, cache: &Path) -> Switches {
    client.switches("pay-1").cache(cache).start().unwrap()
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn named(name: &str) -> Value {
    json!({ "kind": "switch", "namespace": "shop", "name": name })
}

/// Edition `revision` of a switch.
fn switch(name: &str, revision: u64, content: Value) -> Value {
    let mut object = named(name);
    let fields = object.as_object_mut().unwrap();
    for (key, value) in [
        ("revision", json!(revision)),
        ("at", json!("2026-01-01T00:00:00Z")),
        ("who", json!("anna")),
        ("why", Value::Null),
        ("content", content),
    ] {
        fields.insert(key.to_owned(), value);
    }
    object
}

fn update(revision: u64, put: Vec<Value>, more: bool) -> Value {
    json!({ "revision": revision, "put": put, "more": more })
}

const WATCH: &str = "GET /rules/watch";

#[tokio::test]
async fn a_switch_is_what_is_told_and_else_the_default_of_the_program() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let client = client(&server);
    let switches = follow(&client, cache.path());
    let recommend = switches.flag("recommend", true).unwrap();
    let page = switches.number("page-size", 20.0).unwrap();
    let mode = switches.text("mode", "plain").unwrap();
    let watched = switches.watch("recommend").unwrap();
    assert!(recommend.is_on(None) && watched.borrow().is_none());
    assert!((page.get() - 20.0).abs() < 1e-9 && &*mode.get() == "plain");

    let off = json!({ "type": "boolean", "value": false, "overrides": { "pay-2": true } });
    let first = vec![switch("recommend", 1, off)];
    server.tell("snapshot", &update(7, first, true));
    // Read before the whole is there, it would be half of two states.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(recommend.is_on(None));
    let number =
        json!({ "type": "number", "value": 50, "default": 10, "until": "2020-01-01T00:00:00Z" });
    let rest = vec![
        switch("page-size", 1, number),
        switch("mode", 1, json!({ "type": "string", "value": "rich" })),
        switch("checkout-v2", 1, json!({ "type": "percent", "value": 100 })),
    ];
    server.tell("change", &update(7, rest, false));
    eventually("it is off", || !recommend.is_on(None)).await;
    assert!(watched.borrow().is_some());
    assert!((page.get() - 10.0).abs() < 1e-9, "its time is over");
    assert_eq!(&*mode.get(), "rich");
    assert!(switches.flag("checkout-v2", false).unwrap().is_on(None), "known when it is asked for");
    assert!(switches.flag("mode", true).unwrap().is_on(None), "a text is neither on nor off");
    let called = server.calls(WATCH);
    assert_eq!(called, ["GET /rules/watch?kinds=switch&namespace=shop"]);

    // What a newer version wrote leaves it as it was.
    let odd = vec![switch("recommend", 2, json!({ "type": "colour", "value": "red" }))];
    server.tell("change", &update(9, odd, false));
    let more = vec![switch("mode", 2, json!({ "type": "string", "value": "odd" }))];
    server.tell("change", &update(11, more, false));
    eventually("the next is heard", || &*mode.get() == "odd").await;
    assert!(!recommend.is_on(None));
    server.tell("change", &json!({ "revision": 12, "removed": [named("recommend")] }));
    eventually("it is no more", || recommend.is_on(None)).await;
    assert!(watched.borrow().is_none());
    assert_eq!(client.shutdown(Duration::from_secs(5)).await, 0);
    assert!(client.switches("pay-1").start().is_err());
}

#[tokio::test]
async fn an_override_counts_for_its_instance_alone() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let client = client(&server);
    let own = json!({ "type": "boolean", "value": false, "overrides": { "pay-1": true } });
    server.tell("snapshot", &update(7, vec![switch("recommend", 1, own)], false));
    let mine = follow(&client, cache.path()).flag("recommend", false).unwrap();
    eventually("it is on here", || mine.is_on(None)).await;
    let others = client.switches("pay-9").start().unwrap();
    others.answered().await;
    assert!(!others.flag("recommend", true).unwrap().is_on(None));
}

#[tokio::test]
async fn a_program_that_starts_alone_reads_the_last_state_and_goes_on_from_there() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let on = |value| json!({ "type": "boolean", "value": value });
    server.tell("snapshot", &update(40, vec![switch("recommend", 3, on(false))], false));
    let first = client(&server);
    let recommend = follow(&first, cache.path()).flag("recommend", true).unwrap();
    eventually("it comes", || !recommend.is_on(None)).await;
    assert_eq!(first.shutdown(Duration::from_secs(5)).await, 0);

    server.forget();
    server.sheet.lock().stream = Mood::Refuses(503, "store-unavailable");
    let second = client(&server);
    let recommend = follow(&second, cache.path()).flag("recommend", true).unwrap();
    assert!(!recommend.is_on(None), "it was kept");
    eventually("it is asked for", || !server.sheet.lock().resumed.is_empty()).await;
    assert_eq!(server.sheet.lock().resumed[0], "40");
    server.sheet.lock().stream = Mood::Good;
    server.tell("change", &update(44, vec![switch("recommend", 4, on(true))], false));
    eventually("what changed is heard", || recommend.is_on(None)).await;

    // A file of no use is as good as none.
    assert_eq!(second.shutdown(Duration::from_secs(5)).await, 0);
    let file = cache.path().join("rules/shop/switch.json");
    let kept = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, kept.replace("true", "null")).unwrap();
    server.sheet.lock().stream = Mood::Hangs;
    let third = client(&server);
    let recommend = follow(&third, cache.path()).flag("recommend", false).unwrap();
    assert!(!recommend.is_on(None));
}

#[tokio::test]
async fn names_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    let switches = client(&server).switches("pay-1").start().unwrap();
    for name in ["", "A", "a/b", "开关", &"x".repeat(129)] {
        assert!(switches.flag(name, false).is_err(), "{name}");
    }
    assert!(client(&server).rules().kind("no kind").start().is_err());
    assert!(client(&server).rules().namespace("Shop").start().is_err());
}
