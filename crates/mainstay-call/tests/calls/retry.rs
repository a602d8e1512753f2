//! What is sent again, and what is not.

use std::time::Duration;

use http::Method;
use mainstay_resilience::{Congestion, Failure};
use tokio::time::Instant;

use crate::peers::{Peers, Reply, call, request, with_body, word};

const THREE: [&str; 3] = ["a:1", "b:1", "c:1"];

/// No circuits in the way.
const OPEN: &str = "circuit = { mode = \"observe\" }\n";

const UNSENT: Failure = Failure::ConnectFailed { identity: false };
const LOST: Failure = Failure::Congestion(Congestion::Lost { sent: true });

/// Makes a call to peers that all `reply` so; it must take so many attempts, and end so.
#[track_caller]
fn check(method: &Method, key: bool, reply: &Reply, attempts: u32, want: &str) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let peers = Peers::all(reply.clone());
        let client = peers.client(&THREE, OPEN);
        let mut request = request(method.clone());
        if key {
            request.headers_mut().insert("idempotency-key", "7".parse().unwrap());
        }
        let done = call(&client, request).await;
        let got = (done.attempts, word(&done));
        assert_eq!(got, (attempts, want.to_owned()), "{method} {key} {reply:?}");
        assert_eq!(peers.seen().len(), attempts as usize);
    });
}

#[test]
fn only_what_can_help_and_cannot_harm_is_repeated() {
    let (get, put, post) = (&Method::GET, &Method::PUT, &Method::POST);
    for (method, key, reply, attempts, want) in [
        (get, false, Reply::Status(200), 1, "200"),
        (get, false, Reply::Status(503), 3, "503"),
        (put, false, Reply::Status(503), 3, "503"),
        (post, false, Reply::Status(503), 1, "503"),
        (post, true, Reply::Status(503), 3, "503"),
        (get, false, Reply::Status(500), 1, "500"),
        (get, false, Reply::Status(404), 1, "404"),
        // The peer says that it has done nothing.
        (post, false, Reply::Status(429), 3, "429"),
        (post, false, Reply::With(503, "retry-after", "0"), 3, "503"),
        (post, false, Reply::With(503, "retry-after", "11"), 1, "503"),
        (post, false, Reply::Fail(UNSENT), 3, "connect-failed"),
        (post, false, Reply::Fail(Failure::ConnectTimeout), 3, "connect-timeout"),
        (get, false, Reply::Fail(Failure::ConnectFailed { identity: true }), 1, "connect-failed"),
        (post, false, Reply::FailLate(LOST), 1, "network-congestion"),
        (get, false, Reply::FailLate(LOST), 3, "network-congestion"),
        (get, false, Reply::FailLate(Failure::Malformed), 1, "upstream-malformed"),
        // Once transparently, then as an ordinary retry.
        (post, false, Reply::Fail(Failure::Unprocessed), 4, "refused-stream"),
        (get, false, Reply::With(200, "grpc-status", "14"), 1, "200"),
    ] {
        check(method, key, &reply, attempts, want);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_instance_and_says_which_attempt_it_is() {
    let peers = Peers::all(Reply::Status(503));
    let client = peers.client(&THREE, OPEN);
    drop(call(&client, request(Method::GET)).await);
    let seen = peers.seen();
    let numbers: Vec<_> = seen.iter().map(|seen| seen.header("mainstay-attempt")).collect();
    assert_eq!(numbers, [None, Some("2"), Some("3")]);
    let mut asked: Vec<_> = seen.iter().map(|seen| seen.at.as_str()).collect();
    asked.sort_unstable();
    assert_eq!(asked, THREE);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_being_retried_retries_only_what_was_never_sent() {
    let peers = Peers::all(Reply::Status(503));
    let client = peers.client(&THREE, OPEN);
    let repeated = || {
        let mut request = request(Method::GET);
        request.headers_mut().insert("mainstay-attempt", "2".parse().unwrap());
        request
    };
    assert_eq!(call(&client, repeated()).await.attempts, 1);
    peers.set(|_, _| Reply::Fail(UNSENT));
    assert_eq!(call(&client, repeated()).await.attempts, 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_sent_whole_each_time_as_long_as_it_could_be_kept() {
    let peers = Peers::all(Reply::Status(503));
    let client = peers.client(&THREE, OPEN);
    assert_eq!(call(&client, with_body(Method::PUT, "0123456789")).await.attempts, 3);
    assert!(peers.seen().iter().all(|seen| &*seen.body == b"0123456789"));

    let small = peers.client(&THREE, &format!("{OPEN}retry = {{ replay_bytes_max = 9 }}"));
    let done = call(&small, with_body(Method::PUT, "0123456789")).await;
    assert_eq!((done.attempts, &*word(&done)), (1, "503"));
    // What was never begun can be sent again, however large.
    peers.set(|_, number| if number < 5 { Reply::Fail(UNSENT) } else { Reply::Status(200) });
    let done = call(&small, with_body(Method::PUT, "0123456789")).await;
    assert_eq!((done.attempts, &*word(&done)), (2, "200"));
    assert_eq!(&*peers.seen().last().unwrap().body, b"0123456789");
}

#[tokio::test(start_paused = true)]
async fn a_budget_stops_a_storm() {
    let peers = Peers::all(Reply::Status(503));
    let text = "retry = { budget = { ratio_percent = 20, min_per_second = 0 } }";
    let client = peers.client(&THREE, &format!("{OPEN}{text}"));
    for _ in 0..200 {
        drop(call(&client, request(Method::GET)).await);
    }
    let sent = peers.seen().len();
    assert!((235..=240).contains(&sent), "{sent} sent for 200 calls");
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_waited_for_within_reason_and_within_the_deadline() {
    let hinted = |n| if n == 0 { Reply::With(503, "retry-after", "2") } else { Reply::Status(200) };
    let peers = Peers::new(move |_, n| hinted(n));
    let began = Instant::now();
    let done = call(&peers.client(&THREE, OPEN), request(Method::GET)).await;
    assert_eq!((word(&done), done.attempts), ("200".into(), 2));
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let peers = Peers::new(move |_, n| hinted(n));
    let client = peers.client(&THREE, &format!("{OPEN}timeout_seconds = 1.5"));
    let done = call(&client, request(Method::GET)).await;
    assert_eq!((word(&done), done.attempts), ("503".into(), 1));
}

const HEDGED: &str = "retry = { hedge = { after_seconds = 0.1, extra = 1 } }\n";

#[tokio::test(start_paused = true)]
async fn a_hedge_wins_and_the_other_is_cancelled_and_counts_nowhere() {
    let peers = Peers::new(|_, n| if n == 0 { Reply::Hang } else { Reply::Status(200) });
    let client = peers.client(&THREE, HEDGED);
    let began = Instant::now();
    let done = call(&client, request(Method::GET)).await;
    assert_eq!((word(&done), done.attempts), ("200".into(), 2));
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    let seen = peers.seen();
    assert_ne!(seen[0].at, seen[1].at);
    assert_eq!(seen[1].header("mainstay-attempt"), Some("2"));
    assert_eq!(peers.under_way(), 0, "the loser was dropped");
    let now = mainstay_core::Clock::now(&mainstay_call::clock::MonotonicClock);
    for endpoint in client.instances().endpoints() {
        let calls = endpoint.circuits()[0].view(now).total.calls;
        assert_eq!(calls, u64::from(*endpoint.address().as_ref() == *seen[1].at));
        assert_eq!(endpoint.load(now).in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_needs_an_idempotent_call_without_a_body_and_a_credit() {
    let peers = Peers::all(Reply::After(Duration::from_secs(1), 200));
    let client = peers.client(&THREE, HEDGED);
    assert_eq!(call(&client, request(Method::POST)).await.attempts, 1);
    assert_eq!(call(&client, with_body(Method::PUT, "x")).await.attempts, 1);
    assert_eq!(call(&client, request(Method::GET)).await.attempts, 2);
    let text = "retry = { hedge = { after_seconds = 0.1 }, budget = { ratio_percent = 0, min_per_second = 0 } }";
    let poor = peers.client(&THREE, text);
    assert_eq!(call(&poor, request(Method::GET)).await.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_begins_at_once_when_an_attempt_is_lost_meanwhile() {
    // The first answers badly after the second was sent; the second is still awaited.
    let peers = Peers::new(|_, n| match n {
        0 => Reply::After(Duration::from_millis(150), 503),
        _ => Reply::After(Duration::from_millis(300), 200),
    });
    let client = peers.client(&THREE, HEDGED);
    let began = Instant::now();
    let done = call(&client, request(Method::GET)).await;
    assert_eq!((word(&done), done.attempts), ("200".into(), 2));
    assert_eq!(began.elapsed(), Duration::from_millis(400));
}
