//! A lock is held as long as it can be known to be, and no longer.

use std::time::{Duration, Instant};

use mainstay_api::lock::{Area, HeldPlace, LossReason, SessionChange, SessionSnapshot};
use mainstay_client::{Client, ClientError, Held};
use mainstay_core::belief::Loss;
use serde_json::json;

use crate::server::{Mood, Server};

/// With this ttl a renewal is due after 2 s and may take 1 s; belief ends 5.4 s after the last.
const TTL: Duration = Duration::from_secs(6);

/// Shortest there is: belief ends after 1.5 s.
const SHORT: Duration = Duration::from_secs(2);

const RELEASE: &str = "POST /locks/shop/sku%2F1/release";
const END: &str = "DELETE /sessions/7";

fn client(servers: &[String]) -> Client {
    Client::builder(servers).token("t0ken").namespace("shop").name("stock").build().unwrap()
}

async fn hold(server: &Server, ttl: Duration) -> Held {
    client(&[server.url()]).lock("sku/1").ttl(ttl).acquire().await.unwrap()
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_lock_is_renewed_for_as_long_as_it_is_held_and_then_given_back() {
    let server = Server::start().await;
    let held = hold(&server, TTL).await;
    assert_eq!((held.token(), held.name()), (41, "shop/sku/1"));
    assert_eq!(held.fencing_token().to_string(), "shop/sku/1=41");
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    held.check().unwrap();
    assert!(held.remaining().unwrap() > Duration::from_secs(1), "{:?}", held.remaining());
    assert!(2 <= server.seen("PUT /sessions/7/renew").len());
    held.release().await.unwrap();
    let released = server.seen(RELEASE);
    assert_eq!((&released[0]["token"], &released[0]["session"]), (&json!(41), &json!("7")));
    assert_eq!(server.seen(END).len(), 1);
    let opened = server.seen("POST /sessions");
    assert_eq!(opened[0]["owner"]["name"], "stock");
}

#[tokio::test]
async fn a_holder_that_is_not_answered_stops_before_the_store_does() {
    let server = Server::start().await;
    server.sheet.lock().renew = Mood::Hangs;
    let began = Instant::now();
    let held = hold(&server, SHORT).await;
    let loss = held.on_lost().await;
    let after = began.elapsed();
    assert_eq!(loss, Loss::Expired);
    assert!(Duration::from_millis(1_400) < after, "{after:?}");
    assert_eq!(held.check(), Err(ClientError::Lost(Loss::Expired)));
    assert_eq!(held.remaining(), None);
    // Answers that come now give nothing back.
    server.sheet.lock().renew = Mood::Good;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(held.check().is_err());
    let error = held.release().await.unwrap_err();
    assert_eq!(error.code(), "lock-lost");
    assert!(server.seen(RELEASE).is_empty(), "what is lost is nobody's to give back");
}

#[tokio::test]
async fn jeopardy_is_told_and_ends_with_an_answer() {
    let server = Server::start().await;
    let held = hold(&server, TTL).await;
    server.sheet.lock().renew = Mood::Refuses(503, "store-unavailable");
    eventually("it is in jeopardy", || held.is_in_jeopardy()).await;
    held.check().unwrap();
    server.sheet.lock().renew = Mood::Good;
    eventually("it is out of it", || !held.is_in_jeopardy()).await;
    held.check().unwrap();
}

#[tokio::test]
async fn a_session_the_server_does_not_know_is_lost_at_the_next_renewal() {
    let server = Server::start().await;
    let held = hold(&server, TTL).await;
    server.sheet.lock().renew = Mood::Refuses(404, "session-not-found");
    assert_eq!(held.on_lost().await, Loss::SessionGone);
}

#[tokio::test]
async fn what_the_stream_tells_is_heard_at_once() {
    let place = |name: &str, token| HeldPlace {
        area: Area::Lock,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        token,
    };
    let server = Server::start().await;
    let held = hold(&server, Duration::from_mins(10)).await;
    let lost = |place| SessionChange::Lost { place, reason: LossReason::Revoked };
    server.tell("snapshot", &SessionSnapshot { revision: 40, held: Vec::new() });
    server.tell("snapshot", &SessionSnapshot { revision: 41, held: vec![place("sku/1", 41)] });
    server.tell("change", &lost(place("sku/1", 40)));
    server.tell("news", &"of a later version");
    eventually("the stream is open", || !server.seen("GET /sessions/7/stream").is_empty()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.check().unwrap();
    server.tell("change", &lost(place("sku/1", 41)));
    assert_eq!(held.on_lost().await, Loss::Revoked);

    // The same, when it happened while nobody listened.
    let server = Server::start().await;
    server.sheet.lock().stream = Mood::Refuses(503, "store-unavailable");
    let held = hold(&server, Duration::from_mins(10)).await;
    server.tell("snapshot", &SessionSnapshot { revision: 50, held: Vec::new() });
    server.sheet.lock().stream = Mood::Good;
    assert_eq!(held.on_lost().await, Loss::Revoked);

    let server = Server::start().await;
    let held = hold(&server, Duration::from_mins(10)).await;
    server.tell("change", &SessionChange::Ended { reason: LossReason::StoreRegressed });
    assert_eq!(held.on_lost().await, Loss::StoreRegressed);
}

#[tokio::test]
async fn a_server_that_is_away_or_hangs_is_left_for_the_next() {
    let (hangs, works) = (Server::start().await, Server::start().await);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = [format!("http://{free}"), hangs.url(), works.url()];
    let held = client(&servers).lock("sku/1").ttl(TTL).acquire().await.unwrap();
    assert!(!hangs.seen("POST /sessions").is_empty());
    hangs.sheet.lock().renew = Mood::Hangs;
    eventually("it is renewed elsewhere", || !works.seen("PUT /sessions/7/renew").is_empty()).await;
    eventually("it is well", || !held.is_in_jeopardy()).await;
    held.check().unwrap();
    drop(held);
    eventually("it is given back there", || !works.seen(END).is_empty()).await;
    assert_eq!(works.seen(RELEASE).len(), 1);
}

#[tokio::test]
async fn no_server_at_all_is_said_to_be_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let asked = client(&[format!("http://{free}")]).lock("sku/1").ttl(TTL).acquire();
    let error = asked.await.unwrap_err();
    assert_eq!(error.code(), "control-unreachable");
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_refusal_is_the_servers_own() {
    let server = Server::start().await;
    server.sheet.lock().acquire = Mood::Refuses(409, "lock-busy");
    let asked = client(&[server.url()]).lock("sku/1").ttl(TTL).wait(Duration::ZERO).acquire();
    let error = asked.await.unwrap_err();
    let ClientError::Refused(problem) = &error else { panic!("{error}") };
    assert_eq!((problem.code.as_str(), problem.queued), ("lock-busy", Some(2)));
    assert!(error.is_retryable());
    eventually("its session is ended", || !server.seen(END).is_empty()).await;
}

#[tokio::test]
async fn a_request_without_an_answer_is_repeated_under_the_same_name() {
    const ACQUIRE: &str = "POST /locks/shop/sku%2F1/acquire";
    let server = Server::start().await;
    server.sheet.lock().acquire = Mood::Refuses(503, "outcome-unknown");
    let asked = client(&[server.url()]).lock("sku/1").ttl(TTL).acquire();
    let asked = tokio::spawn(asked);
    eventually("it is repeated", || 2 <= server.seen(ACQUIRE).len()).await;
    server.sheet.lock().acquire = Mood::Good;
    asked.await.unwrap().unwrap().release().await.unwrap();
    let ids = server.seen(ACQUIRE);
    assert!(ids.iter().all(|document| document["request_id"] == ids[0]["request_id"]), "{ids:?}");
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_nothing_behind() {
    let server = Server::start().await;
    server.sheet.lock().acquire = Mood::Hangs;
    let asked = client(&[server.url()]).lock("sku/1").ttl(TTL).acquire();
    let waited = tokio::time::timeout(Duration::from_millis(500), asked).await;
    assert!(waited.is_err());
    eventually("its session is ended", || !server.seen(END).is_empty()).await;
}

#[tokio::test]
async fn a_client_that_stops_gives_back_what_it_holds() {
    let server = Server::start().await;
    let client = client(&[server.url()]);
    let held = client.lock("sku/1").ttl(TTL).acquire().await.unwrap();
    assert_eq!(client.shutdown(Duration::from_secs(10)).await, 0);
    assert_eq!((server.seen(RELEASE).len(), server.seen(END).len()), (1, 1));
    assert!(held.check().is_err(), "it was given back");
    let late = client.lock("sku/2").ttl(TTL).acquire().await.unwrap_err();
    assert_eq!(late, ClientError::Stopped);
}

#[tokio::test]
async fn a_lock_that_a_try_without_an_answer_gave_back_is_not_missed_at_the_next() {
    let (hangs, works) = (Server::start().await, Server::start().await);
    let held = client(&[hangs.url(), works.url()]).lock("sku/1").ttl(TTL).acquire().await.unwrap();
    hangs.sheet.lock().give_back = Mood::Hangs;
    works.sheet.lock().give_back = Mood::Refuses(409, "lock-not-held");
    held.release().await.unwrap();
    assert_eq!((hangs.seen(RELEASE).len(), works.seen(RELEASE).len()), (1, 1));

    // One that nobody can have given back was taken away.
    let held = hold(&works, TTL).await;
    assert_eq!(held.release().await.unwrap_err().code(), "lock-not-held");
}

#[tokio::test]
async fn semaphores_and_elections_are_asked_for_in_their_own_words() {
    let server = Server::start().await;
    let client = client(&[server.url()]);
    let permits = client.semaphore("dock", 2, 3).ttl(TTL).acquire().await.unwrap();
    let leader = client.election("boss", "here").ttl(TTL).acquire().await.unwrap();
    let asked = &server.seen("POST /semaphores/shop/dock/acquire")[0];
    assert_eq!((&asked["permits"], &asked["limit"]), (&json!(2), &json!(3)));
    assert_eq!(server.seen("POST /elections/shop/boss/acquire")[0]["value"], "here");
    permits.release().await.unwrap();
    leader.release().await.unwrap();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let client = client(&[server.url()]);
    for name in ["", "a b", "锁"] {
        let error = client.lock(name).ttl(TTL).acquire().await.unwrap_err();
        assert!(error.to_string().starts_with("name of a lock must be"), "{error}");
    }
    assert_eq!(
        client.lock("a").acquire().await.unwrap_err().to_string(),
        "ttl must be 2 s to an hour"
    );
    let short = client.lock("a").ttl(Duration::from_secs(1)).acquire().await;
    assert!(short.is_err());
    assert!(server.sheet.lock().seen.is_empty());
    let builder = || Client::builder([server.url()]);
    assert!(builder().namespace("Shop").build().is_err());
    assert!(builder().token("a\nb").build().is_err());
    assert!(Client::builder(["https://a:7400"]).build().is_err());
}
