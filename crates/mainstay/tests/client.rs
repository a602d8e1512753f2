//! The client library against a real process: a lock is held, queued for, taken away and lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;
#[path = "../../mainstay-client/examples/tour.rs"]
#[allow(dead_code, reason = "an example of its own is a program")]
mod tour;

use std::time::Duration;

use mainstay_client::{Client, Held};
use mainstay_core::belief::Loss;
use rustix::process::Signal;
use serde_json::json;
use support::gateway::Gateway;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

fn client(node: &Gateway) -> Client {
    let (address, token) = node.door();
    Client::builder([format!("http://{address}")]).token(token).name("test").build().unwrap()
}

async fn hold(client: &Client, ttl_seconds: u64) -> Held {
    let ttl = Duration::from_secs(ttl_seconds);
    client.lock("jobs/nightly").ttl(ttl).acquire().await.unwrap()
}

#[tokio::test]
async fn who_waits_is_granted_when_the_holder_gives_back_and_tokens_rise() {
    let node = Gateway::start_dev("client", CONFIG);
    let client = client(&node);
    let first = hold(&client, 30).await;
    assert!(first.remaining().unwrap() > Duration::from_secs(20));
    let ttl = Duration::from_secs(30);
    let tried = client.lock("jobs/nightly").ttl(ttl).wait(Duration::ZERO).acquire().await;
    let refused = tried.unwrap_err();
    assert_eq!(refused.code(), "lock-busy", "{refused}");
    let (token, (second, released)) = (
        first.token(),
        tokio::join!(hold(&client, 30), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            first.release().await
        }),
    );
    released.unwrap();
    assert!(token < second.token());
    second.check().unwrap();
    // It outlives its ttl only because it is renewed.
    let short =
        client.semaphore("docks", 1, 2).ttl(Duration::from_secs(3)).acquire().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    short.check().unwrap();
    assert_eq!(client.shutdown(Duration::from_secs(10)).await, 0);
}

#[tokio::test]
async fn a_lock_that_is_taken_away_is_lost_at_once() {
    let node = Gateway::start_dev("client-revoked", CONFIG);
    let held = hold(&client(&node), 600).await;
    // The stream has to be there before it can tell.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ask = json!({ "token": held.token(), "reason": "a test" }).to_string();
    let path = "/api/v1/locks/default/jobs%2Fnightly/force-release";
    let (status, answer) = node.call_with("POST", path, "", &ask);
    assert_eq!(status, 204, "{answer}");
    let lost = tokio::time::timeout(Duration::from_secs(5), held.on_lost()).await;
    assert_eq!(lost.expect("told within seconds, not minutes"), Loss::Revoked);
}

#[tokio::test]
async fn a_holder_whose_server_stands_still_loses_by_its_own_clock() {
    let node = Gateway::start_dev("client-stopped", CONFIG);
    let held = hold(&client(&node), 3).await;
    node.signal(Signal::STOP);
    let lost = tokio::time::timeout(Duration::from_secs(3), held.on_lost()).await;
    node.signal(Signal::CONT);
    assert_eq!(lost.expect("within its ttl"), Loss::Expired);
    assert!(held.check().is_err());
}

#[tokio::test]
async fn who_holds_alone_lets_others_read_without_letting_anybody_in_between() {
    let node = Gateway::start_dev("client-downgrade", CONFIG);
    let client = client(&node);
    let held = hold(&client, 30).await;
    let ttl = Duration::from_secs(30);
    let read = || client.lock("jobs/nightly").shared().ttl(ttl).wait(Duration::ZERO).acquire();
    assert_eq!(read().await.unwrap_err().code(), "lock-busy");
    held.downgrade().await.unwrap();
    held.downgrade().await.unwrap();
    let other = read().await.unwrap();
    assert!(held.token() < other.token());
    held.check().unwrap();
    other.release().await.unwrap();
    held.release().await.unwrap();
}

#[tokio::test]
async fn what_a_transaction_holds_outlives_its_holder_and_keeps_its_token() {
    let node = Gateway::start_dev("client-bind", CONFIG);
    let client = client(&node);
    let held = hold(&client, 3).await;
    let token = held.token();
    let bound = held.bind("tx-7").await.unwrap();
    assert_eq!((bound.token, bound.gid.as_str()), (token, "tx-7"));
    assert_eq!(client.shutdown(Duration::from_secs(5)).await, 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (_, status) = node.control("/api/v1/locks/default/jobs%2Fnightly");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let holder = &status["holders"][0];
    assert_eq!((&holder["bound_gid"], &holder["token"]), (&json!("tx-7"), &json!(token)));
}

#[tokio::test]
async fn who_observes_is_told_of_each_leader_and_what_it_proclaims() {
    let node = Gateway::start_dev("client-observe", CONFIG);
    let client = client(&node);
    let ttl = Duration::from_secs(30);
    let mut observer = client.observe("boss").unwrap();
    assert_eq!(observer.next().await.unwrap(), None);
    let leader = client.election("boss", "here").ttl(ttl).acquire().await.unwrap();
    let seen = observer.next().await.unwrap().unwrap();
    assert_eq!((seen.term, seen.value.as_str()), (leader.token(), "here"));
    assert_eq!(seen.owner.unwrap().name, "test");
    leader.proclaim("there").await.unwrap();
    assert_eq!(observer.next().await.unwrap().unwrap().value, "there");
    leader.release().await.unwrap();
    assert_eq!(observer.next().await.unwrap(), None);
}

#[tokio::test]
async fn the_example_of_the_library_does_what_it_says() {
    let node = Gateway::start_dev("client-example", CONFIG);
    let put = |path: &str, method: &str, document: serde_json::Value| {
        let headers = "content-type: application/json\r\nmainstay-reason: tour\r\n";
        let (status, answer) = node.call_with(method, path, headers, &document.to_string());
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
    };
    let items = json!({ "greeting": { "format": "text", "content": "good morning" } });
    put("/api/v1/config/default/tour/releases", "POST", json!({ "items": items, "note": "first" }));
    let off = json!({ "content": { "type": "boolean", "value": false } });
    put("/api/v1/switches/default/tour-polite", "PUT", off);
    let cache = tempfile::tempdir().unwrap();
    let seen = tour::tour(&client(&node), cache.path()).await.unwrap();
    assert_eq!(seen[0], "found 1");
    assert!(seen[1].starts_with("holds default/tour by token "), "{seen:?}");
    assert_eq!(seen[2..], ["release 1 says good morning", "polite: false"]);
    for kept in
        ["registry/default/tour.json", "config/default/tour.json", "rules/default/switch.json"]
    {
        assert!(cache.path().join(kept).exists(), "{kept}");
    }
}
