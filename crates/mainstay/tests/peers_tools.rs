//! The gateway as curl, nghttp, h2load and slowhttptest find it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/echo.rs"]
mod echo;
#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use echo::{curl, has};
use support::gateway::{Gateway, free_port};
use support::wait::until;

/// How long an attack on a debug build on a busy machine may last.
const PATIENCE: Duration = Duration::from_secs(25);

#[track_caller]
fn gateway(name: &str, limits: &str) -> Gateway {
    let config = format!(
        r#"
server = {{ listen = "127.0.0.1:0" }}
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[route.all]
to = "all"
[upstream.all]
instances = ["{}"]
[gateway]
listen = ["127.0.0.1:0"]
access_log = {{ format = "off" }}
limits = {{ {limits} }}
"#,
        echo::serve("e")
    );
    Gateway::start(name, &config)
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.address(0))
}

#[test]
fn curl_speaks_http_1_0() {
    let gateway = gateway("curl10", "");
    let answer = curl(&["--http1.0", &url(&gateway, "/x")]);
    has(&answer, &[" 200 ", "connection: close", "GET /x HTTP/1.1\n", "HTTP 1"]);
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    // A body whose length nobody announced is ended by the end of the connection, without chunks.
    let answer = curl(&["--http1.0", &url(&gateway, "/trailers")]);
    has(&answer, &[" 200 ", "\r\n\r\ndata: 0\n"]);
    assert!(!answer.contains("x-sum: 7"), "1.0 knows no trailers: {answer}");
    let sent = curl(&["--http1.0", "-d", "hello", &url(&gateway, "/x")]);
    has(&sent, &[" 200 ", "content-length: 5", "\nhello"]);
}

#[test]
fn curl_waits_to_be_asked_for_its_body() {
    let gateway = gateway("curl100", "body_bytes_max = 5000000");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("body");
    std::fs::write(&file, "x".repeat(4_000_000)).unwrap();
    let body = format!("@{}", file.display());
    let to = url(&gateway, "/x");
    // If nobody asks, curl gives up only after 20 s, which is more than it has.
    let wait = ["--expect100-timeout", "20", "-H", "Expect: 100-continue", "-T"];
    let path = file.to_str().unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = curl(&[&[version][..], &wait, &[path, &to]].concat());
        has(&answer, &[" 200", "content-length: 4000000", &"x".repeat(1000)]);
    }
    has(&curl(&[&wait[..], &[path, &to, "--http1.1"]].concat()), &["HTTP/1.1 100 ", " 200 "]);
    // Refused by its length alone: the answer comes in place of the question, and no body after it.
    std::fs::write(&file, "x".repeat(6_000_000)).unwrap();
    let count = ["-o", "/dev/null", "-w", "%{http_code} %{size_upload}"];
    let said = curl(&[&wait[..], &[path, "--http1.1", &to], &count].concat());
    has(&said, &["413 0"]);
    let wrong = curl(&["-H", "Expect: 200-ok", "--data-binary", &body, &to]);
    has(&wrong, &[" 417 ", "expectation-failed"]);
}

#[test]
fn curl_and_nghttp_see_trailers() {
    let gateway = gateway("trailers-tools", "");
    let to = url(&gateway, "/trailers");
    let te = ["-H", "TE: trailers", "-H", "Connection: TE"];
    has(&curl(&[&te[..], &["--http1.1", &to]].concat()), &["data: 0\n", "x-sum: 7"]);
    has(&curl(&["--http2-prior-knowledge", "-H", "TE: trailers", &to]), &["data: 0\n", "x-sum: 7"]);
    let mut nghttp = Command::new("nghttp")
        .args(["-v", "--no-content-length", "-d", "-", "--trailer", "x-mine: 11"])
        .arg(url(&gateway, "/x"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    nghttp.stdin.take().unwrap().write_all(b"hello").unwrap();
    let said = String::from_utf8(nghttp.wait_with_output().unwrap().stdout).unwrap();
    has(&said, &[":status: 200", "hello\ntrailer x-mine: 11"]);
}

#[test]
fn h2load_uploads_on_many_streams() {
    let gateway = gateway("h2load", "");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("body");
    std::fs::write(&file, "x".repeat(100_000)).unwrap();
    let load = Command::new("h2load")
        .args(["-n", "400", "-c", "4", "-m", "20", "-d"])
        .args([file.to_str().unwrap(), &url(&gateway, "/x")])
        .output()
        .unwrap();
    let said = String::from_utf8(load.stdout).unwrap();
    has(&said, &["400 succeeded, 0 failed, 0 errored", "status codes: 400 2xx"]);
}

/// Attacks with slow connections for half a minute at most. All of them are let go while it lasts,
/// and honest requests are answered.
#[track_caller]
fn slow(name: &str, path: &str, attack: &[&str]) {
    let limits = "head_seconds = 1, body_gap_seconds = 1, write_stall_seconds = 1, \
                  connections_max = 400";
    let gateway = gateway(name, limits);
    let before = gateway.holds().sockets;
    let mut attacker = Command::new("slowhttptest")
        .args(["-c", "100", "-r", "100", "-l", "30", "-p", "5"])
        .args(attack)
        .args(["-u", &url(&gateway, path)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let open = || gateway.holds().sockets.saturating_sub(before);
    until("the attack", PATIENCE, || open() > 50);
    // What stays open is a pooled connection or two for honest requests.
    until("the attackers are let go", PATIENCE, || {
        has(&curl(&[&url(&gateway, "/honest")]), &[" 200 ", "GET /honest"]);
        open() < 20
    });
    // An attacker that sees its connections end gives up; one that reads slowly does not even see it.
    drop(attacker.kill());
    drop(attacker.wait());
}

#[test]
fn slow_heads_are_let_go() {
    slow("slow-head", "/x", &["-H", "-i", "1", "-x", "24"]);
}

#[test]
fn slow_bodies_are_let_go() {
    slow("slow-body", "/x", &["-B", "-i", "2", "-s", "8192", "-x", "10"]);
}

#[test]
fn slow_readers_are_let_go() {
    slow("slow-read", "/big", &["-X", "-w", "8", "-y", "16", "-n", "5", "-z", "2"]);
}

/// `HAProxy`, which passes bytes on and says whose.
struct Passing(Child);

impl Passing {
    fn start(next: SocketAddr) -> (Self, SocketAddr) {
        let own = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = format!(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n\
             listen all\n  bind {own}\n  server next {next} send-proxy-v2\n"
        );
        // Debian puts servers where users need not look.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let mut child = Command::new("haproxy")
            .args(["-db", "-f", "/dev/stdin"])
            .env("PATH", path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("scripts/test installs the peers");
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let passing = Self(child);
        until("HAProxy", Duration::from_secs(20), || TcpStream::connect(own).is_ok());
        (passing, own)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn haproxy_says_whose_connections_it_passes_on() {
    let config = format!(
        r#"
server = {{ listen = "127.0.0.1:0" }}
[route.all]
to = "all"
[upstream.all]
instances = ["{}"]
[gateway]
listen = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.1/32"]
proxy_protocol = "v2"
"#,
        echo::serve("e")
    );
    let gateway = Gateway::start("announced", &config);
    let (_passing, front) = Passing::start(gateway.address(0));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let asked = curl(&[
            version,
            "--interface",
            "127.0.0.9",
            "-H",
            "x-forwarded-for: 192.0.2.1",
            &format!("http://{front}/x"),
        ]);
        has(&asked, &[" 200 ", "x-forwarded-for: 127.0.0.9\n"]);
        assert!(!asked.contains("192.0.2.1"), "what a client says of itself is dropped: {asked}");
    }
    // Whoever comes by itself from another address says nothing, and is served.
    let asked = curl(&["--interface", "127.0.0.8", &url(&gateway, "/x")]);
    has(&asked, &[" 200 ", "x-forwarded-for: 127.0.0.8\n"]);
    gateway.configure(&config.replace("\"v2\"", "\"off\""));
    until("it is off", PATIENCE, || {
        let mut tcp = TcpStream::connect(gateway.address(0)).unwrap();
        let asked = tcp.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        // Until then the connection ends without an answer.
        let read = asked.and_then(|()| tcp.read_to_string(&mut answer));
        read.is_ok() && answer.starts_with("HTTP/1.1 200 ")
    });
}
