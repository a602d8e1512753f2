//! What a peer is told of the time it has, and whose fault it is when it is over.

use std::time::Duration;

use http::Method;
use mainstay_call::calls::Within;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::pause::Heart;
use mainstay_core::{Clock, Effect};
use mainstay_resilience::circuit::State;

use crate::peers::{Client, Peers, Reply, call, request, word};

fn state(client: &Client) -> State {
    let endpoints = client.instances().endpoints();
    endpoints[0].circuits()[0].view(MonotonicClock.now()).state
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_told_what_remains_and_what_that_covers() {
    let told = |seen: &crate::peers::Seen| {
        ["mainstay-timeout-ms", "mainstay-timeout-scope", "grpc-timeout"]
            .map(|name| seen.header(name).map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    for (name, value, grpc, want) in [
        ("x", "x", false, [some("14995"), some("head"), None]),
        ("x", "x", true, [some("14995"), some("head"), None]),
        ("mainstay-timeout-ms", "1000", false, [some("995"), None, None]),
        ("mainstay-timeout-ms", "1000", true, [some("995"), None, some("995m")]),
        ("grpc-timeout", "2S", true, [some("1995"), None, some("1995m")]),
        // More than the policy gives is as if nothing had been asked.
        ("mainstay-timeout-ms", "99999", false, [some("14995"), some("head"), None]),
    ] {
        let peers = Peers::all(Reply::Status(200));
        let client = peers.client(&["a:1"], "");
        let mut request = request(Method::POST);
        request.headers_mut().insert(name, value.parse().unwrap());
        if grpc {
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        }
        drop(call(&client, request).await);
        assert_eq!(told(&peers.seen()[0]), want, "{name}: {value}, gRPC {grpc}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_arrives_is_kept_and_time_shrinks_from_attempt_to_attempt() {
    let peers = Peers::new(|_, n| match n {
        0 => Reply::After(Duration::from_millis(400), 503),
        _ => Reply::Status(200),
    });
    let text =
        "retry = { backoff = { shape = \"constant\", base_seconds = 0.001, jitter = \"none\" } }";
    let client = peers.client(&["a:1", "b:1"], text);
    let mut request = request(Method::GET);
    request.headers_mut().insert("mainstay-timeout-ms", "1000".parse().unwrap());
    request.headers_mut().insert("mainstay-timeout-scope", "head".parse().unwrap());
    assert_eq!(word(&call(&client, request).await), "200");
    let seen = peers.seen();
    let told: Vec<_> = seen.iter().map(|seen| seen.header("mainstay-timeout-ms")).collect();
    assert_eq!(told, [Some("995"), Some("594")]);
    assert!(seen.iter().all(|seen| seen.header("mainstay-timeout-scope") == Some("head")));
}

#[tokio::test(start_paused = true)]
async fn the_program_itself_may_ask_for_more_but_not_for_everything() {
    let peers = Peers::all(Reply::Status(200));
    let client = peers.client(&["a:1"], "timeout_seconds = 1\ndeadline_max_seconds = 20");
    for (seconds, want) in [(5, "4995"), (60, "19995")] {
        let mut request = request(Method::GET);
        request.extensions_mut().insert(Within(Duration::from_secs(seconds)));
        drop(call(&client, request).await);
        assert_eq!(peers.seen().last().unwrap().header("mainstay-timeout-ms"), Some(want));
    }
}

#[tokio::test(start_paused = true)]
async fn short_patience_of_callers_opens_no_circuit() {
    let peers = Peers::all(Reply::Hang);
    let client = peers.client(&["a:1"], "circuit = { unavailable_calls = 0 }");
    let within = |millis| {
        let mut request = request(Method::GET);
        request.extensions_mut().insert(Within(Duration::from_millis(millis)));
        request
    };
    for _ in 0..20 {
        let done = call(&client, within(999)).await;
        assert_eq!(word(&done), "deadline-exceeded");
        assert_eq!(done.result.unwrap_err().effect(), Effect::Unknown);
    }
    assert_eq!(state(&client), State::Closed);
    for _ in 0..5 {
        assert_eq!(word(&call(&client, within(1_000)).await), "upstream-timeout");
    }
    assert_eq!(state(&client), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_up_is_not_sent() {
    let peers = Peers::all(Reply::Status(200));
    let client = peers.client(&["a:1"], "");
    let mut request = request(Method::GET);
    request.extensions_mut().insert(Within(Duration::ZERO));
    let done = call(&client, request).await;
    assert_eq!(word(&done), "deadline-exceeded");
    assert_eq!(done.result.unwrap_err().effect(), Effect::None);
    assert!(peers.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_its_own_time() {
    let peers = Peers::new(|_, n| if n == 0 { Reply::Hang } else { Reply::Status(200) });
    let client = peers.client(&["a:1", "b:1"], "retry = { try_seconds = 2 }");
    let done = call(&client, request(Method::GET)).await;
    assert_eq!((word(&done), done.attempts), ("200".into(), 2));
    assert!((2_000..2_100).contains(&done.latency.as_millis()), "{:?}", done.latency);
    assert_eq!(peers.seen()[0].header("mainstay-timeout-ms"), Some("1995"));
}

/// A machine that stands still for longer than the attempts may last ends all of them at once, at
/// every instance. Their callers are told; nobody else is.
#[tokio::test(start_paused = true)]
async fn a_pause_of_our_own_opens_no_circuit() {
    let peers = Peers::all(Reply::Hang);
    let text = "retry = { attempts = 1, try_seconds = 1 }\ncircuit = { unavailable_calls = 0 }";
    let client = peers.client(&["a:1"], text);
    let ask = |pause: bool| {
        let client = client.clone();
        async move {
            let calls: Vec<_> = (0..8).map(|_| call(&client, request(Method::GET))).collect();
            let all = futures_util::future::join_all(calls);
            if !pause {
                return all.await;
            }
            let stand_still = async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                tokio::time::advance(Duration::from_secs(30)).await;
            };
            futures_util::future::join(all, stand_still).await.0
        }
    };
    for done in ask(true).await {
        assert_eq!(word(&done), "upstream-timeout");
        assert_eq!(done.result.unwrap_err().effect(), Effect::Unknown);
    }
    assert_eq!(state(&client), State::Closed);
    // A pause long past excuses nobody.
    for done in ask(false).await {
        assert_eq!(word(&done), "upstream-timeout");
    }
    assert_eq!(state(&client), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waited_for_us_was_not_slow() {
    let peers = Peers::all(Reply::After(Duration::from_millis(5), 200));
    let text = "circuit = { slow_call_seconds = 1, min_calls = 1 }";
    for (interval, want) in [(true, State::Closed), (false, State::Open)] {
        let client = peers.client(&["a:1"], text);
        // With a ticker the pause is noticed; without one an answer that came is only late.
        let heart = interval.then(|| Heart::start(Duration::from_millis(250)));
        let stand_still = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::time::advance(Duration::from_secs(3)).await;
        };
        let asked = call(&client, request(Method::GET));
        let (done, ()) = futures_util::future::join(asked, stand_still).await;
        assert_eq!(word(&done), "200");
        assert_eq!(state(&client), want, "ticker: {interval}");
        drop(heart);
    }
}
