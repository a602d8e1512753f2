//! The client library against a real process: a lock is held, queued for, taken away and lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

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
