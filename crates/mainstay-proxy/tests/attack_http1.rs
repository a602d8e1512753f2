//! Clients that want two readers to see two messages, or our memory and our time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "transport_support/support.rs"]
mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_proxy::framing;
use mainstay_proxy::server::{Incident, Limits, OnIncident};
use support::{Gateway, Load, OK, Setup, exchange, head, local, peer, repeat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A gateway, what its upstream was sent, and which rules its clients broke.
struct Scene {
    gateway: Gateway,
    seen: Rc<RefCell<String>>,
    broken: Arc<Mutex<Vec<&'static str>>>,
}

impl Scene {
    /// The upstream writes down all it gets, and answers every `GET`.
    async fn new(limits: Limits) -> Self {
        let seen = Rc::<RefCell<String>>::default();
        let writing = Rc::clone(&seen);
        let address = peer(move |_, mut tcp| {
            let seen = Rc::clone(&writing);
            async move {
                let mut buf = [0; 4096];
                while let Ok(len @ 1..) = tcp.read(&mut buf).await {
                    let text = String::from_utf8_lossy(&buf[..len]).into_owned();
                    seen.borrow_mut().push_str(&text);
                    for _ in 0..text.matches("GET ").count() {
                        tcp.write_all(OK).await.unwrap();
                    }
                }
            }
        });
        let broken = Arc::<Mutex<Vec<_>>>::default();
        let counting = Arc::clone(&broken);
        let on_incident = OnIncident::new(move |incident| {
            if let Incident::Malformed(rule) = incident {
                counting.lock().unwrap().push(rule.as_str());
            }
        });
        let setup = Setup { limits, on_incident, ..Setup::default() };
        Self { gateway: setup.in_front_of(address.await), seen, broken }
    }

    /// The rules broken since last asked. The last is counted just after its answer was sent.
    async fn broken(&self) -> Vec<&'static str> {
        for _ in 0..100 {
            if !self.broken.lock().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::mem::take(&mut *self.broken.lock().unwrap())
    }
}

fn statuses(answers: &str) -> Vec<&str> {
    let begin = answers.match_indices("HTTP/1.");
    let digits = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
    begin.filter_map(|(at, _)| answers.get(at + 9..at + 12)).filter(digits).collect()
}

/// What an attacker wants the upstream to take for a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1¶Host: a¶¶";

/// Each of `rows` (message, status, rule), with a smuggled request behind it, is answered once with
/// the status, counted by its rule, and gives the upstream nothing that it does not begin with.
fn check(rows: &[(&str, u16, &str)]) {
    let owned =
        |&(text, status, rule): &(&str, u16, &str)| (text.to_owned(), status, rule.to_owned());
    let rows: Vec<(String, u16, String)> = rows.iter().map(owned).collect();
    local(async move {
        let scene = Scene::new(Limits::default()).await;
        for (message, status, rule) in &rows {
            let sent = format!("{message}{SMUGGLED}").replace('¶', "\r\n");
            let answer = exchange(scene.gateway.address, &sent).await;
            assert_eq!(statuses(&answer), [status.to_string()], "{message}\n{answer}");
            assert!(answer.contains("connection: close\r\n"), "{message}\n{answer}");
            assert_eq!(scene.broken().await, [rule], "{message}");
            let seen = scene.seen.take();
            assert!(!seen.contains("smuggled"), "{message} sent {seen}");
        }
        assert_eq!(statuses(&exchange(scene.gateway.address, LAST).await), ["200"]);
    });
}

const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn a_length_that_two_readers_read_differently() {
    check(&[
        (
            "POST / HTTP/1.1¶Host: a¶Content-Length: 4¶Transfer-Encoding: chunked¶¶0¶¶",
            400,
            "length-and-coding",
        ),
        (
            "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶Content-Length: 4¶¶0¶¶",
            400,
            "length-and-coding",
        ),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 0¶Content-Length: 44¶¶", 400, "length-repeated"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 0¶Content-Length: 0¶¶", 400, "length-repeated"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 0, 0¶¶", 400, "length-list"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: +0¶¶", 400, "length-form"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: -1¶¶", 400, "length-form"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 0x0¶¶", 400, "length-form"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 1 0¶¶", 400, "length-form"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length:¶¶", 400, "length-form"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 00000000000000000000¶¶", 400, "length-form"),
    ]);
}

#[test]
fn a_coding_that_two_readers_read_differently() {
    check(&[
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: gzip, chunked¶¶0¶¶", 400, "coding"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked, identity¶¶0¶¶", 400, "coding"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked, chunked¶¶0¶¶", 400, "coding"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: identity¶¶", 400, "coding"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: xchunked¶¶0¶¶", 400, "coding"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding:\tchunked¶¶0¶¶", 400, "coding"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: \u{b}chunked¶¶0¶¶", 400, "value-control"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked ¶¶0¶¶", 400, "coding"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: \"chunked\"¶¶0¶¶", 400, "coding"),
        (
            "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶Transfer-Encoding: chunked¶¶0¶¶",
            400,
            "coding-repeated",
        ),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding : chunked¶¶0¶¶", 400, "name-space"),
        ("POST / HTTP/1.0¶Host: a¶Transfer-Encoding: chunked¶¶0¶¶", 400, "coding-version"),
    ]);
}

#[test]
fn lines_that_two_readers_end_differently() {
    check(&[
        ("GET / HTTP/1.1\nHost: a¶¶", 400, "bare-lf"),
        ("GET / HTTP/1.1¶Host: a\nX: y¶¶", 400, "bare-lf"),
        ("GET / HTTP/1.1¶Host: a¶\n", 400, "bare-lf"),
        ("GET / HTTP/1.1¶Host: a\rX: y¶¶", 400, "bare-cr"),
        ("GET / HTTP/1.1¶Host: a¶X: y¶ z¶¶", 400, "obs-fold"),
        ("GET / HTTP/1.1¶Host: a¶X: y¶\tz¶¶", 400, "obs-fold"),
        ("GET / HTTP/1.1¶Host: a¶X : y¶¶", 400, "name-space"),
        ("GET / HTTP/1.1¶Host: a¶: y¶¶", 400, "name-empty"),
        ("GET / HTTP/1.1¶Host: a¶X@: y¶¶", 400, "name-token"),
        ("GET / HTTP/1.1¶Host: a¶X: a\0b¶¶", 400, "value-control"),
        ("GET / HTTP/1.1¶Host: a¶X: a\u{7f}b¶¶", 400, "value-control"),
        ("¶¶GET / HTTP/1.1¶Host: a¶¶", 400, "empty-lines"),
        ("GET  / HTTP/1.1¶Host: a¶¶", 400, "start-line"),
        ("GET\t/ HTTP/1.1¶Host: a¶¶", 400, "start-line"),
        ("GET /\u{e9} HTTP/1.1¶Host: a¶¶", 400, "target"),
        ("GET / HTTP/1.2¶Host: a¶¶", 400, "version"),
        ("GET / HTTP/0.9¶Host: a¶¶", 400, "version"),
    ]);
}

#[test]
fn chunks_that_two_readers_count_differently() {
    const HEAD: &str = "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶";
    let long = "x".repeat(256);
    let rows = [
        ("0x0¶¶".to_owned(), "chunk-size"),
        ("+0¶¶".to_owned(), "chunk-size"),
        ("1_0¶¶".to_owned(), "chunk-size"),
        (" 0¶¶".to_owned(), "chunk-size"),
        ("0 ¶¶".to_owned(), "chunk-size"),
        ("¶¶".to_owned(), "chunk-size"),
        ("00000000000000000¶¶".to_owned(), "chunk-size"),
        ("0\n\n".to_owned(), "bare-lf"),
        ("1¶ab0¶¶".to_owned(), "chunk-end"),
        ("1¶a\n0¶¶".to_owned(), "chunk-end"),
        ("0;a\rb¶¶".to_owned(), "bare-cr"),
        (format!("0;{long}¶¶"), "chunk-extension"),
        (format!("1;{}¶a¶", "x".repeat(255)).repeat(5), "chunk-extension"),
        ("0¶Content-Length: 5¶¶".to_owned(), "trailer-name"),
        ("0¶Host: b¶¶".to_owned(), "trailer-name"),
        ("0¶X: y¶ z¶¶".to_owned(), "obs-fold"),
        (format!("0¶{}¶", format!("X: {long}¶").repeat(16)), "trailer-bytes"),
    ];
    let rows: Vec<_> = rows.iter().map(|(body, rule)| (format!("{HEAD}{body}"), *rule)).collect();
    let rows: Vec<_> = rows.iter().map(|(text, rule)| (text.as_str(), 400, *rule)).collect();
    check(&rows);
}

#[test]
fn hosts_and_methods_that_are_none() {
    check(&[
        ("GET / HTTP/1.1¶¶", 400, "host-missing"),
        ("GET / HTTP/1.1¶Host: a¶Host: a¶¶", 400, "host-repeated"),
        ("GET / HTTP/1.1¶Host: u@a¶¶", 400, "host-form"),
        ("GET / HTTP/1.1¶Host: a/x¶¶", 400, "host-form"),
        ("GET / HTTP/1.1¶Host: a:99999¶¶", 400, "host-form"),
        ("GET http://b/ HTTP/1.1¶Host: a¶¶", 400, "host-target"),
        ("CONNECT a:80 HTTP/1.1¶Host: a:80¶¶", 405, "method-connect"),
        ("TRACE / HTTP/1.1¶Host: a¶¶", 405, "method-trace"),
        ("POST / HTTP/1.1¶Host: a¶Expect: 200-ok¶Content-Length: 1¶¶x", 417, "expect"),
    ]);
}

#[test]
fn heads_and_bodies_that_are_too_much() {
    let fields = "X: y¶".repeat(100);
    let (long, longer) = ("x".repeat(8_192), "x".repeat(32_768));
    check(&[
        (&format!("GET / HTTP/1.1¶Host: a¶{fields}¶"), 431, "head-fields"),
        (&format!("GET / HTTP/1.1¶Host: a¶X: {longer}¶¶"), 431, "head-bytes"),
        (&format!("GET /{long} HTTP/1.1¶Host: a¶¶"), 414, "uri-bytes"),
        (&format!("GET /{longer}"), 414, "uri-bytes"),
        ("POST / HTTP/1.1¶Host: a¶Content-Length: 10485761¶¶", 413, "body-bytes"),
        ("POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶a00001¶", 413, "body-bytes"),
        (
            "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶ffffffffffffffff¶",
            413,
            "body-bytes",
        ),
    ]);
}

/// However much it still sends, a client learns why it was refused.
#[test]
fn a_body_that_is_too_long_is_answered_while_it_is_sent() {
    local(async {
        let framing = framing::Limits { body_bytes_max: 1_000, ..framing::Limits::default() };
        let scene = Scene::new(Limits { framing, ..Limits::default() }).await;
        let body = "x".repeat(4 << 20);
        let length =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n";
        let chunked = format!("{chunked}{}\r\n{:x}\r\n", "x".repeat(500), body.len());
        for head in [length, chunked] {
            let answer = exchange(scene.gateway.address, &format!("{head}{body}")).await;
            assert_eq!(statuses(&answer), ["413"], "{answer}");
            assert_eq!(scene.broken().await, ["body-bytes"]);
        }
    });
}

#[test]
fn good_requests_before_a_bad_one_are_answered() {
    local(async {
        let scene = Scene::new(Limits::default()).await;
        let good = "GET /good HTTP/1.1¶Host: a¶¶";
        for (sent, want) in [
            (format!("{good}{good}GET / HTTP/1.1¶Host : a¶¶{SMUGGLED}"), ["200", "200", "400"]),
            (format!("{good}{good}GET / HTTP/1.1\n{SMUGGLED}"), ["200", "200", "400"]),
        ] {
            let answer = exchange(scene.gateway.address, &sent.replace('¶', "\r\n")).await;
            assert_eq!(statuses(&answer), want, "{sent}\n{answer}");
            assert!(!scene.seen.take().contains("smuggled"), "{sent}");
        }
    });
}

#[test]
fn http10_is_served_once_and_told_so() {
    local(async {
        let scene = Scene::new(Limits::default()).await;
        for keep in ["", "Connection: keep-alive\r\n"] {
            let request = format!("GET / HTTP/1.0\r\nHost: a\r\n{keep}\r\n");
            let answer = exchange(scene.gateway.address, &request).await;
            assert_eq!(statuses(&answer), ["200"], "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
        }
    });
}

/// Sends a byte of `text` every so often until the answer is there.
async fn drip(gateway: &Gateway, text: &str, pause: Duration) -> String {
    let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (mut read, mut write) = tcp.split();
    let mut answer = String::new();
    let dripping = async {
        for byte in text.bytes().chain(std::iter::repeat(b'x')) {
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        read = read.read_to_string(&mut answer) => drop(read.unwrap()),
        () = dripping => (),
    }
    answer
}

#[test]
fn slow_heads_are_told_and_honest_clients_do_not_wait() {
    local(async {
        let limits = Limits { head: Duration::from_millis(750), ..Limits::default() };
        let scene = Rc::new(Scene::new(limits).await);
        let honest = Load::on(scene.gateway.address, 4);
        let slow = (0..50).map(|_| {
            let scene = Rc::clone(&scene);
            tokio::task::spawn_local(async move {
                let pause = Duration::from_millis(20);
                drip(&scene.gateway, "GET / HTTP/1.1\r\nHost: a\r\nX: ", pause).await
            })
        });
        for slow in slow.collect::<Vec<_>>() {
            let answer = slow.await.unwrap();
            assert_eq!(statuses(&answer), ["408"], "{answer}");
            assert!(answer.contains("\"code\":\"head-timeout\""), "{answer}");
        }
        honest.answered(20).await;
        honest.end().await;
        assert_eq!(scene.broken().await, ["head-slow"; 50]);
    });
}

/// A second head that is slow, behind a first that was answered.
#[test]
fn a_slow_head_is_told_after_an_answer_too() {
    local(async {
        let limits = Limits { head: Duration::from_millis(500), ..Limits::default() };
        let scene = Scene::new(limits).await;
        let mut tcp = TcpStream::connect(scene.gateway.address).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        head(&mut tcp).await.unwrap();
        tcp.write_all(b"GET /").await.unwrap();
        let mut rest = String::new();
        tcp.read_to_string(&mut rest).await.unwrap();
        assert_eq!(statuses(&rest), ["408"], "{rest}");
    });
}

#[test]
fn slow_bodies_are_told_and_a_slow_upstream_is_nobodys_fault() {
    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    local(async {
        let limits = Limits { body_gap: Duration::from_secs(3), ..Limits::default() };
        let scene = Scene::new(limits).await;
        let honest = Load::on(scene.gateway.address, 2);
        let gap = exchange(scene.gateway.address, HEAD);
        // 20 bytes a second are no gap, and too few after five seconds.
        let rate = drip(&scene.gateway, HEAD, Duration::from_millis(20));
        let (gap, rate) = tokio::join!(gap, rate);
        for answer in [gap, rate] {
            assert_eq!(statuses(&answer), ["408"], "{answer}");
            assert!(answer.contains("TooSlow"), "{answer}");
        }
        honest.end().await;
    });
    local(async {
        let address = peer(|_, tcp| async move {
            tokio::time::sleep(Duration::from_secs(2)).await; // Takes the body when it pleases.
            repeat(tcp, OK).await;
        });
        let limits = Limits { body_gap: Duration::from_millis(500), ..Limits::default() };
        let gateway = Setup { limits, ..Setup::default() }.in_front_of(address.await);
        let body = "x".repeat(8 << 20);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        let (mut read, mut write) = tcp.split();
        let mut answer = [0; 12];
        let sending = async {
            write.write_all(head.as_bytes()).await.unwrap();
            drop(write.write_all(body.as_bytes()).await);
        };
        let ((), read) = tokio::join!(sending, read.read_exact(&mut answer));
        read.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    });
}
