//! With hyper at both ends, on real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay_call::calls::Sent;
use mainstay_call::{CallError, Calls, Policy};
use mainstay_resilience::{Congestion, Failure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::peers::{request, with_body};

type Http = Client<HttpConnector, Sent<Full<Bytes>>>;

/// A server that says its name. Aborting the task closes the listener and every connection.
async fn server(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = hyper::service::service_fn(
                move |request: Request<hyper::body::Incoming>| async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let text = format!("{name} {}", body.len());
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                },
            );
            connections.spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                let _gone = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    };
    (address, tokio::spawn(serve))
}

/// A server that reads a little of each request and hangs up.
async fn hangs_up() -> (SocketAddr, JoinHandle<()>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let serve = async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let _read = stream.read(&mut [0; 16]).await;
        }
    };
    (address, tokio::spawn(serve), count)
}

fn client(addresses: &[SocketAddr], text: &str) -> Calls<Http> {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let http = Client::builder(TokioExecutor::new()).build_http();
    Calls::to("order")
        .unwrap()
        .instances(addresses.iter().map(String::as_str))
        .upstream(http)
        .policy(Policy::from_toml(text).unwrap())
        .build()
}

async fn text(client: &Calls<Http>, request: Request<Full<Bytes>>) -> String {
    let body = client.call(request).await.unwrap().into_body();
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn failure(error: &CallError) -> Option<Failure> {
    match error {
        CallError::Failed { failure, .. } => Some(*failure),
        CallError::Refused(_) | CallError::Denied(_) => None,
    }
}

#[tokio::test]
async fn a_killed_instance_costs_no_call() {
    let (a, task_a) = server("a").await;
    let (b, task_b) = server("b").await;
    let client = client(&[a, b], "balance = { kind = \"round_robin\" }");
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..10 {
        names.insert(text(&client, with_body(Method::POST, "four")).await);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a 4", "b 4"]);
    task_a.abort();
    assert!(task_a.await.is_err());
    // A connection that dies in use is no proof, so only calls that may be repeated are safe.
    for _ in 0..30 {
        assert_eq!(text(&client, with_body(Method::PUT, "four")).await, "b 4");
    }
    let dead = a.to_string();
    let endpoints = client.instances().endpoints();
    let endpoint = endpoints.iter().find(|e| **e.address() == *dead).unwrap();
    let now = mainstay_core::Clock::now(&mainstay_call::clock::MonotonicClock);
    assert!(!endpoint.admits(now), "its circuit is open");
    task_b.abort();
}

#[tokio::test]
async fn a_refused_connection_is_provably_unsent_and_a_lost_one_is_not() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = client(&[gone], "retry = { attempts = 1 }");
    let error = nobody.call(request(Method::GET)).await.unwrap_err();
    assert_eq!(failure(&error), Some(Failure::ConnectFailed { identity: false }), "{error:?}");

    let (address, task, connections) = hangs_up().await;
    let lost = client(&[address], "retry = { backoff = { base_seconds = 0.001 } }");
    let error = lost.call(with_body(Method::POST, "four")).await.unwrap_err();
    let want = Failure::Congestion(Congestion::Lost { sent: true });
    assert_eq!(failure(&error), Some(want), "{error:?}");
    assert_eq!(connections.load(Ordering::Relaxed), 1, "a POST is not sent twice");
    let error = lost.call(with_body(Method::PUT, "four")).await.unwrap_err();
    assert_eq!(failure(&error), Some(want), "{error:?}");
    assert_eq!(connections.load(Ordering::Relaxed), 4);
    task.abort();
}

#[tokio::test]
async fn a_silent_peer_costs_no_more_than_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = client(&[listener.local_addr().unwrap()], "timeout_seconds = 0.05");
    let patience = Duration::from_secs(5);
    let result = tokio::time::timeout(patience, silent.call(request(Method::GET))).await.unwrap();
    assert_eq!(failure(&result.unwrap_err()), Some(Failure::RequestTimeout));
}
