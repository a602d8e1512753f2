//! Limits, fallback, callbacks and calls inside calls: the stack as one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::Method;
use mainstay_call::calls::{Answered, Done, Within};
use mainstay_call::context::Context;
use mainstay_call::limit::LimitUsage;
use parking_lot::Mutex;
use tower_service::Service;

use crate::peers::{Client, Peers, Reply, ReplyBody, call, request, word};

fn in_use(client: &Client) -> u64 {
    match client.machines().limits()[0].usage() {
        LimitUsage::InFlight { usage, .. } | LimitUsage::Lone(usage) => usage.used,
        LimitUsage::Keyed(_) => panic!("no keys here"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_refuses_before_anything_is_sent() {
    let peers = Peers::all(Reply::Status(200));
    let client = peers.client(&["a:1"], "[limit.api]\nmax = 2\nwindow_seconds = 10");
    let mut words = Vec::new();
    for _ in 0..3 {
        words.push(word(&call(&client, request(Method::GET)).await));
    }
    assert_eq!(words, ["200", "200", "limited"]);
    assert_eq!(peers.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_body_is_over_and_comes_back_from_a_panic() {
    let peers = Peers::all(Reply::Status(200));
    let client = peers.client(&["a:1"], "[limit.api]\nkind = \"concurrency\"\nmax = 1");
    let answer = client.call(request(Method::GET)).await.unwrap();
    assert_eq!(word(&call(&client, request(Method::GET)).await), "shed");
    drop(answer);
    peers.set(|_, _| Reply::Panic);
    let panics = std::panic::AssertUnwindSafe(client.call(request(Method::GET)));
    assert!(panics.catch_unwind().await.is_err());
    assert_eq!(in_use(&client), 0);
    peers.set(|_, _| Reply::Hang);
    let hangs = client.call(request(Method::GET));
    assert!(tokio::time::timeout(Duration::from_millis(1), hangs).await.is_err());
    assert_eq!(in_use(&client), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_once_when_nobody_else_can() {
    let peers = Peers::all(Reply::Status(503));
    let text =
        "[fallback]\nsteps = [{ when = [\"5xx\", \"circuit\"], value = { body = \"later\" } }]";
    let client = peers.client(&["a:1", "b:1"], text);
    let done = call(&client, request(Method::GET)).await;
    assert_eq!((word(&done), done.attempts), ("200".into(), 3));
    assert_eq!(&**done.result.unwrap().body(), b"later");
}

/// Ways for a call to end, and what the callback is told: once, and of that end.
#[tokio::test(start_paused = true)]
async fn a_callback_is_run_exactly_once_whatever_the_end() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let start = |client: &Client| {
        let told = Arc::clone(&told);
        client.call_then(request(Method::GET), move |done: Done<Answered<ReplyBody>>| {
            let word = match &done.result {
                Ok(response) => response.status().to_string(),
                Err(error) => error.code().to_string(),
            };
            told.lock().push((word, done.attempts, done.instance.as_deref().map(str::to_owned)));
        })
    };
    let check = |want: &str, attempts: u32| {
        let told: Vec<_> = std::mem::take(&mut *told.lock());
        let instance = (attempts > 0).then(|| "a:1".to_owned());
        assert_eq!(told, [(want.to_owned(), attempts, instance)]);
    };
    let peers = Peers::all(Reply::Status(200));
    let client = peers.client(&["a:1"], "timeout_seconds = 2");
    start(&client).await;
    check("200 OK", 1);
    peers.set(|_, _| Reply::Hang);
    start(&client).await;
    check("upstream-timeout", 1);
    drop(start(&client));
    check("cancelled", 0);
    assert!(tokio::time::timeout(Duration::from_millis(1), start(&client)).await.is_err());
    check("cancelled", 1);
    peers.set(|_, _| Reply::Panic);
    assert!(std::panic::AssertUnwindSafe(start(&client)).catch_unwind().await.is_err());
    check("cancelled", 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_inside_a_call_shares_its_deadline_and_nothing_else() {
    let inner = Peers::all(Reply::Status(200));
    let client = inner.client(&["a:1"], "");
    let outer = Context::new(
        mainstay_core::Clock::now(&mainstay_call::clock::MonotonicClock),
        mainstay_call::context::Facts::default(),
    );
    let mut first = request(Method::GET);
    first.extensions_mut().insert(Arc::clone(&outer));
    drop(call(&client, first).await);
    assert_eq!((outer.attempts(), outer.deadline()), (0, None));

    let mut hurried = request(Method::GET);
    hurried.extensions_mut().insert(Within(Duration::from_secs(3)));
    let mut held = None;
    let mut service = tower::service_fn(|request: http::Request<http_body_util::Full<_>>| {
        held = request.extensions().get::<Arc<Context>>().cloned();
        std::future::ready(Ok::<_, std::convert::Infallible>(()))
    });
    // A handler that was called through another stack finds that call's context in its request.
    let context = Context::of(&mut hurried);
    context.shorten(mainstay_resilience::deadline::Deadline {
        at: context.started.plus(Duration::from_secs(1)),
        covers: mainstay_resilience::deadline::Covers::Exchange,
    });
    service.call(hurried).await.unwrap();
    let mut onward = request(Method::GET);
    onward.extensions_mut().insert(held.unwrap());
    drop(call(&client, onward).await);
    assert_eq!(inner.seen().last().unwrap().header("mainstay-timeout-ms"), Some("995"));
}

#[tokio::test]
async fn clones_share_what_they_learn() {
    let peers = Peers::all(Reply::Status(500));
    let client = peers.client(&["a:1"], "retry = { attempts = 1 }");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let client = client.clone();
        tasks.spawn(async move { word(&call(&client, request(Method::GET)).await) });
    }
    assert_eq!(tasks.join_all().await, ["500"; 5]);
    assert_eq!(word(&call(&client, request(Method::GET)).await), "circuit-open");
}
