//! Checks against real sockets.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::stage::{Stage, eventually, instance, lines, near, registration, service};
use crate::audit::Author;
use crate::health::Health;
use crate::health::check::{Check, RawCheck};
use crate::health::rounds::Rounds;
use crate::health::send::send;
use crate::health::targets::Addresses;
use crate::registry::{RawSettings, Registry, Settings, Shares};

/// A server that answers each connection with the bytes it was last told to.
struct Server {
    port: u16,
    answer: tokio::sync::watch::Sender<Vec<u8>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, receiver) = tokio::sync::watch::channel(answer.as_bytes().to_vec());
        let task = serve(listener, receiver);
        #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
        let task = tokio::spawn(task);
        Self { port, answer: sender, task }
    }

    fn say(&self, answer: &str) {
        self.answer.send_replace(answer.as_bytes().to_vec());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, answer: tokio::sync::watch::Receiver<Vec<u8>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = answer.borrow().clone();
        drop(talk(&mut stream, &answer).await);
    }
}

/// Waits for a request and sends `answer`, whatever it was.
pub(super) async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    answer: &[u8],
) -> std::io::Result<()> {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(answer).await?;
    stream.shutdown().await
}

pub(super) fn http(status: u16, extra: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{extra}Content-Length: {length}\r\n\r\n{body}")
}

/// Sends one check to `port` and gives what came of it.
pub(super) async fn sent(check: &str, port: u16, addresses: &Addresses) -> (Health, String) {
    sent_to(check, "127.0.0.1", port, addresses).await
}

pub(super) async fn sent_to(
    check: &str,
    host: &str,
    port: u16,
    addresses: &Addresses,
) -> (Health, String) {
    let raw: RawCheck = serde_json::from_str(check).unwrap();
    let check = Check::try_from(&raw).unwrap();
    let json = format!(r#"{{"id": "a", "address": "{host}", "port": {port}}}"#);
    let record = registration(&json).record("n", "r", 0, &Settings::default(), None);
    let mut rounds = Rounds::default();
    let now = mainstay_core::Instant::ZERO;
    rounds.follow(now, &instance("order", "a"), Some((&record, &[check])), || 0.0);
    let outcome = send(&rounds.take(now).unwrap(), addresses).await;
    (outcome.health, outcome.output)
}

const UP: &str = r#"{"name": "up", "kind": "http", "path": "/up", "timeout_seconds": 0.5}"#;

#[tokio::test]
async fn http_answers_mean_what_the_table_says() {
    let server = Server::start(&http(200, "", "fine")).await;
    let passing = (Health::Passing, "HTTP 200: fine".to_owned());
    assert_eq!(sent(UP, server.port, &near()).await, passing);
    server.say(&http(429, "", ""));
    assert_eq!(sent(UP, server.port, &near()).await.0, Health::Warning);
    server.say(&http(500, "", &"x".repeat(9_000)));
    let (health, output) = sent(UP, server.port, &near()).await;
    assert_eq!((health, output.len()), (Health::Critical, 4_096));
    server.say("SSH-2.0-nothing\r\n");
    assert_eq!(sent(UP, server.port, &near()).await.0, Health::Critical);
}

#[tokio::test]
async fn redirects_are_followed_a_little_and_judged_each_time() {
    let target = Server::start(&http(200, "", "there")).await;
    let to = |port: u16| http(302, &format!("Location: http://localhost:{port}/x\r\n"), "");
    let server = Server::start(&to(target.port)).await;
    assert_eq!(sent(UP, server.port, &near()).await.1, "HTTP 200: there");
    // A stranger's redirect to our loopback is refused though the instance itself is reached.
    let (health, output) = sent(UP, server.port, &Addresses::default()).await;
    assert_eq!(health, Health::Critical);
    assert!(output.starts_with("egress-refused"), "{output}");
    server.say(&http(302, "Location: /again\r\n", ""));
    assert_eq!(sent(UP, server.port, &near()).await.1, "more than 5 redirects");
    server.say(&http(302, "Location: https://localhost/\r\n", ""));
    assert!(sent(UP, server.port, &near()).await.1.contains("not followed"));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(sent(UP, port, &near()).await.1, "no answer within 0.5 s");
    let tcp = r#"{"name": "up", "kind": "tcp"}"#;
    assert_eq!(sent(tcp, port, &near()).await, (Health::Passing, "connected".to_owned()));
    drop(listener);
    assert_eq!(sent(tcp, port, &near()).await.0, Health::Critical);
    let named = r#"{"name": "up", "kind": "tcp", "port_name": "admin"}"#;
    assert_eq!(sent(named, port, &near()).await.1, "the instance has no such port");
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_not_reached_from_afar() {
    let server = Server::start(&http(200, "", "")).await;
    let (health, output) = sent_to(UP, "localhost", server.port, &Addresses::default()).await;
    assert_eq!(health, Health::Critical);
    assert!(output.starts_with("egress-refused"), "{output}");
    assert_eq!(sent_to(UP, "localhost", server.port, &near()).await.0, Health::Passing);
}

/// Answers one gRPC health check with `status` and `message`.
async fn grpc_once(listener: TcpListener, status: &'static str, message: &'static [u8]) {
    let (stream, _) = listener.accept().await.unwrap();
    grpc_on(stream, status, message).await;
}

/// The same, on a connection.
pub(super) async fn grpc_on(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    status: &'static str,
    message: &'static [u8],
) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
    body.send_data(bytes::Bytes::from_static(message), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    body.send_trailers(trailers).unwrap();
    while connection.accept().await.is_some() {}
}

#[tokio::test]
async fn grpc_serving_passes_and_nothing_else_does() {
    let check = r#"{"name": "up", "kind": "grpc", "service": "shop.Order"}"#;
    for (status, message, want) in [
        ("0", [0, 0, 0, 0, 2, 8, 1].as_slice(), Health::Passing),
        ("0", [0, 0, 0, 0, 2, 8, 2].as_slice(), Health::Critical),
        ("12", [].as_slice(), Health::Critical),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = near();
        let asked = sent(check, port, &addresses);
        let (outcome, ()) = tokio::join!(asked, grpc_once(listener, status, message));
        assert_eq!(outcome.0, want, "{outcome:?}");
    }
}

pub(super) async fn with_checks(node: &Registry, name: &str, checks: &str) {
    let raw: RawSettings = serde_json::from_str(&format!("{{\"checks\": [{checks}]}}")).unwrap();
    let settings = Settings::new(raw, Shares::default()).unwrap();
    node.set_settings(&service(name), &settings, None, &Author::default()).await.unwrap();
}

#[tokio::test]
async fn a_checked_instance_is_unknown_first_and_follows_its_results() {
    let stage = Stage::memory();
    let node = stage.node("n1").await;
    let server = Server::start(&http(200, "", "fine")).await;
    with_checks(&node, "order", UP).await;
    let json = format!(
        r#"{{"id": "a", "address": "127.0.0.1", "port": {}, "ttl_seconds": 3600}}"#,
        server.port
    );
    node.register(&service("order"), &registration(&json)).await.unwrap();
    let view = || node.view(&service("order")).unwrap();
    assert_eq!(lines(&view()), ["a unknown up"]);
    // The first run comes after a random part of the interval; sockets take real time.
    for _ in 0..44 {
        stage.pass(Duration::from_millis(250)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("the first result counts", || lines(&view()) == ["a passing up"]).await;
    let quiet = view().revision;
    server.say(&http(503, "", "no"));
    let mut runs = 0;
    while lines(&view()) != ["a critical up"] && runs < 6 {
        runs += 1;
        for _ in 0..40 {
            stage.pass(Duration::from_millis(250)).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!((3..=4).contains(&runs), "three results in a row, not {runs}");
    assert!(quiet < view().revision);
    let listed = view().instances[0].instance.clone();
    assert_eq!(listed.reason.as_deref(), Some("check `up` is critical"));
    assert_eq!(listed.checks["up"].output, "HTTP 503: no");
}

#[tokio::test]
async fn a_ttl_check_is_critical_when_no_report_comes() {
    let stage = Stage::memory();
    let (n1, n2) = (stage.node("n1").await, stage.node("n2").await);
    let (order, a) = (service("order"), instance("order", "a"));
    with_checks(&n1, "order", r#"{"name": "job", "kind": "ttl", "ttl_seconds": 20}"#).await;
    n1.register(&order, &registration(r#"{"id": "a", "ttl_seconds": 3600}"#)).await.unwrap();
    let view = || n1.view(&order).unwrap();
    assert_eq!(lines(&view()), ["a passing up"], "nobody has ever reported");
    n1.report(&a, "job", Health::Warning, "slow").await.unwrap();
    assert_eq!(lines(&view()), ["a warning up"]);
    n1.report(&a, "job", Health::Passing, "").await.unwrap();
    let quiet = n1.revision();
    for _ in 0..3 {
        stage.pass_seconds(15).await;
        n1.report(&a, "job", Health::Passing, "").await.unwrap();
    }
    assert_eq!(n1.revision(), quiet, "reports that say the same write nothing");
    stage.within(22, "it is late", || lines(&view()) == ["a critical up"]).await;
    // A report at another node counts, and moves the care there.
    n2.report(&a, "job", Health::Passing, "").await.unwrap();
    assert_eq!(lines(&n2.view(&order).unwrap()), ["a passing up"]);
    assert_eq!(n2.view(&order).unwrap().instances[0].instance.owner, "n2");
    assert!(n1.report(&a, "other", Health::Passing, "").await.is_err());
}
