//! What the control port says where as much is open as may be: streams, questions that wait,
//! watchers; and that everything else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/support.rs"]
mod support;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::time::Duration;

use futures_util::stream;
use grpc::{Door, code};
use mainstay_api::grpc::{RegisterRequest, Registration, RegistrySessionRequest};
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::wait::until;
use tonic::Code;

const SERVICES: &str = "/api/v1/registry/watch?services=default/order";

fn config(streams_max: u32) -> String {
    format!("[server]\nlisten = \"127.0.0.1:0\"\nstreams_max = {streams_max}\n")
}

/// Opens a stream that is answered with events.
#[track_caller]
fn follow(node: &Gateway, path: &str) -> TcpStream {
    let mut stream = BufReader::new(node.open("GET", path, "", ""));
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{path}: {line}");
    stream.into_inner()
}

/// A session; its id, and the header that bears its secret.
#[track_caller]
fn open_session(node: &Gateway) -> (String, String) {
    let owner = json!({ "host": "h", "pid": 7, "name": "test" });
    let ask = json!({ "ttl_seconds": 60, "owner": owner }).to_string();
    let (status, opened) = node.call("POST", "/api/v1/sessions", &ask);
    assert_eq!(status, 201, "{opened}");
    let opened: Value = serde_json::from_str(&opened).unwrap();
    let text = |field: &str| opened[field].as_str().unwrap();
    (text("session").to_owned(), format!("mainstay-session-secret: {}\r\n", text("secret")))
}

/// Asks for the lock `nightly`.
fn acquire(node: &Gateway, (session, secret): &(String, String), wait: u32) -> (u16, String) {
    let ask = json!({ "session": session, "request_id": "1", "wait_seconds": wait });
    node.call_with("POST", "/api/v1/locks/default/nightly/acquire", secret, &ask.to_string())
}

/// How many stand in the queue of `nightly`, its holder among them.
fn queued(node: &Gateway) -> usize {
    let (status, shown) = node.control("/api/v1/locks/default/nightly");
    assert_eq!(status, 200, "{shown}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    ["holders", "queue"].iter().map(|field| shown[field].as_array().map_or(0, Vec::len)).sum()
}

#[track_caller]
fn is_refused((status, body): (u16, String)) {
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, problem["code"].as_str()), (503, Some("too-many-streams")), "{body}");
    assert!(problem["detail"].as_str().unwrap().contains("server.streams_max"), "{body}");
    assert_eq!((&problem["effect"], problem["retry_after"].as_f64()), (&json!("none"), Some(5.0)));
}

fn open_now(node: &Gateway) -> u64 {
    node.counted("mainstay_control_streams_open ", "")
}

/// The answer of a request that was sent before.
fn answered(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_all_that_waits_share_one_bound_and_leave_nothing_behind_beyond_it() {
    let node = Gateway::start_server("bounds-streams", &config(4));
    let (holder, waiter) = (open_session(&node), open_session(&node));
    assert_eq!(acquire(&node, &holder, 0).0, 200);

    // Of each kind one: two streams, a read of Consul's that waits, a wait for a lock.
    let services = follow(&node, SERVICES);
    let _store = follow(&node, "/api/v1/store/watch");
    let read = node.open("GET", "/v1/kv/none?index=1&wait=1s", "connection: close\r\n", "");
    let index = answered(read);
    let index = index.split("x-consul-index: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let blocking = format!("/v1/kv/none?index={index}");
    let read = node.open("GET", &blocking, "connection: close\r\n", "");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| acquire(&node, &waiter, 60));
        until("all wait", Duration::from_secs(20), || open_now(&node) == 4 && queued(&node) == 2);
        beyond_the_bound(&node, &blocking);

        // What is answered at once is.
        let other = open_session(&node);
        assert_eq!(acquire(&node, &other, 0).0, 409, "somebody holds it");
        assert_eq!(node.call("PUT", "/v1/kv/none", "x"), (200, "true".to_owned()));
        assert!(answered(read).starts_with("HTTP/1.1 200 "), "what waited is answered");
        until("its place is free", Duration::from_secs(20), || open_now(&node) == 3);
        let session = format!("/api/v1/sessions/{}", holder.0);
        assert_eq!(node.call_with("DELETE", &session, &holder.1, "").0, 204);
        assert_eq!(waiting.join().unwrap().0, 200, "the wait went on");
    });
    until("its place is free, too", Duration::from_secs(20), || open_now(&node) == 2);
    drop(services);
    until("so is that of a reader that left", Duration::from_secs(20), || open_now(&node) == 1);
    let _services = follow(&node, SERVICES);
}

/// One more of each kind is refused, and counted.
fn beyond_the_bound(node: &Gateway, blocking: &str) {
    is_refused(node.control(SERVICES));
    is_refused(node.control(&format!("{SERVICES}&index=1&wait=60")));
    is_refused(node.control("/api/v1/rules/watch"));
    let other = open_session(node);
    is_refused(acquire(node, &other, 60));
    assert_eq!(queued(node), 2, "who was refused does not stand there");
    let (status, line) = node.control(blocking);
    assert_eq!(status, 503);
    assert!(line.contains("(`server.streams_max`)") && !line.contains('{'), "a line: {line}");

    let kept = tokio::task::block_in_place(|| {
        let door = Door::of(node);
        let registration = Registration {
            id: "a".to_owned(),
            address: "10.0.0.1".to_owned(),
            port: 80,
            ..Registration::default()
        };
        let register = RegisterRequest {
            namespace: "default".to_owned(),
            service: "order".to_owned(),
            registration: Some(registration),
        };
        let asked = stream::iter([RegistrySessionRequest { register: Some(register) }]);
        let mut registry = door.registry();
        tokio::runtime::Handle::current().block_on(registry.session(asked)).map(drop).unwrap_err()
    });
    assert_eq!((kept.code(), code(&kept)), (Code::ResourceExhausted, "too-many-streams"));
    let (_, found) = node.control("/api/v1/registry/default/services/order");
    assert!(found.contains("service-not-found"), "it was registered all the same: {found}");
    assert_eq!(node.counted("mainstay_control_streams_refused_total", ""), 6);
    assert_eq!(node.counted("mainstay_control_streams_max ", ""), 4);
}

#[test]
fn watchers_are_refused_beyond_as_many_as_a_node_carries() {
    let node = Gateway::start_server("bounds-watchers", &config(1_000));
    // A stream that tells every change has a watcher for each of its services.
    let path = |number: usize| {
        let mut path = "/api/v1/registry/watch?mode=events&services=".to_owned();
        for service in 0..1_000 {
            write!(path, "s{number}x{service},").unwrap();
        }
        path
    };
    let mut streams: Vec<TcpStream> = (0..99).map(|number| follow(&node, &path(number))).collect();
    assert!(99_000 <= node.counted("mainstay_store_watchers", ""), "each has one");
    // The node itself has some.
    let (status, problem) = node.control(&path(99));
    let problem: Value = serde_json::from_str(&problem).unwrap();
    assert_eq!((status, problem["code"].as_str()), (503, Some("store-busy")), "{problem}");
    assert!(problem["retry_after"].as_f64().is_some(), "{problem}");
    let _one = follow(&node, "/api/v1/registry/watch?mode=events&services=order");
    // Whoever leaves makes room.
    drop(streams.pop());
    until("there is room", Duration::from_mins(1), || {
        node.counted("mainstay_store_watchers", "") < 99_000
    });
    let _another = follow(&node, &path(99));
}
