//! What goes over the wire through the real binary, as curl, h2load and plain sockets see it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/echo.rs"]
mod echo;
#[path = "support/support.rs"]
mod support;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use echo::{connect, curl, exchange, has, read_until};
use rustix::process::Signal;
use support::gateway::Gateway;
use support::wait::{now, pause, until};

/// A gateway in front of `upstream`, with `more` in its configuration.
#[track_caller]
fn gateway(name: &str, upstream: SocketAddr, more: &str) -> Gateway {
    let config = format!(
        r#"
server = {{ listen = "127.0.0.1:0" }}
[route.all]
to = "all"
timeout_seconds = 5
[upstream.all]
instances = ["{upstream}"]
retry = {{ attempts = 1 }}
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:0"]
access_log = {{ format = "off" }}
{more}
"#
    );
    Gateway::start(name, &config)
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.address(0))
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let gateway = gateway("http10", echo::serve("e"), "");
    let answer = exchange(gateway.address(0), "GET /x HTTP/1.0\r\nHost: a\r\n\r\n");
    has(&answer, &[" 200 ", "GET /x HTTP/1.1\n", "host: a"]);
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
}

#[test]
fn a_body_is_asked_for_before_it_is_sent() {
    let gateway = gateway("continue", echo::serve("e"), "");
    let ask = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut stream = connect(gateway.address(0), ask);
    let interim = read_until(&mut stream, "\r\n\r\n");
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    stream.write_all(b"hello").unwrap();
    has(&read_until(&mut stream, "hello"), &["HTTP/1.1 200 ", "\nhello"]);
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    let gateway = gateway("trailers", echo::serve("e"), "");
    let ask = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\
        Connection: close\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n";
    let answer = exchange(gateway.address(0), ask);
    has(&answer, &[" 200 ", "hello world\ntrailer x-sum: 11"]);
    let ask = "GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n";
    let answer = exchange(gateway.address(0), ask);
    has(&answer, &[" 200 ", "data: 0", "0\r\nx-sum: 7\r\n\r\n"]);
}

#[test]
fn http_2_is_known_by_its_preface() {
    let gateway = gateway("h2c", echo::serve("e"), "");
    let to = url(&gateway, "/x");
    let answer = curl(&["--http2-prior-knowledge", "-d", "hello", &to]);
    has(&answer, &["HTTP/2 200", "POST /x HTTP/1.1", "\nhello", "HTTP 2\n"]);
    let load = Command::new("h2load").args(["-n", "400", "-c", "2", "-m", "10", &to]).output();
    let said = String::from_utf8(load.unwrap().stdout).unwrap();
    has(&said, &["400 succeeded, 0 failed, 0 errored"]);
}

/// A self-signed certificate for `host` in files called `file`.
fn certificate(gateway_home: &std::path::Path, file: &str, host: &str) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    std::fs::write(gateway_home.join(format!("{file}.key")), made.signing_key.serialize_pem())
        .unwrap();
    std::fs::write(gateway_home.join(format!("{file}.pem")), made.cert.pem()).unwrap();
}

/// Asks `host` over TLS, believing only the certificate in `file`.
fn over_tls(
    home: &std::path::Path,
    gateway: &Gateway,
    host: &str,
    file: &str,
    more: &str,
) -> String {
    let to = gateway.address(1);
    let at = format!("{host}:{}:127.0.0.1", to.port());
    let believed = home.join(format!("{file}.pem"));
    let url = format!("https://{host}:{}/x", to.port());
    curl(&["--resolve", &at, "--cacert", believed.to_str().unwrap(), more, &url])
}

#[test]
fn tls_chooses_certificate_and_protocol_and_changes_certificates_under_load() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    for (file, host) in [("a", "a.example"), ("b", "b.example")] {
        certificate(at, file, host);
    }
    let pair = |file: &str, host: &str| {
        let path = at.join(file).display().to_string();
        format!(
            "{{ hosts = [\"{host}\"], certificate_file = \"{path}.pem\", key_file = \"{path}.key\" }}"
        )
    };
    let more = format!(
        "tls_listen = [\"127.0.0.1:0\"]\ncertificates = [{}, {}]",
        pair("a", "a.example"),
        pair("b", "b.example")
    );
    let old = at.join("old.pem");
    std::fs::copy(at.join("a.pem"), old).unwrap();
    let gateway = gateway("tls", echo::serve("e"), &more);
    has(
        &over_tls(at, &gateway, "a.example", "a", "--http2"),
        &["HTTP 2\n", "x-forwarded-proto: https"],
    );
    has(&over_tls(at, &gateway, "b.example", "b", "--http1.1"), &["HTTP 1.1\n", "host: b.example"]);
    assert_eq!(over_tls(at, &gateway, "b.example", "a", "--http2"), "", "not the other's");

    let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    has(&over_tls(at, &gateway, "a.example", "a", "-k"), &["GET /x"]);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=10 {
            certificate(at, "next", "a.example");
            // Two files cannot be replaced in one step; the reload is what reads them.
            std::fs::rename(at.join("next.key"), at.join("a.key")).unwrap();
            std::fs::rename(at.join("next.pem"), at.join("a.pem")).unwrap();
            gateway.signal(Signal::HUP);
            until("a reload", Duration::from_secs(5), || {
                gateway.logged("configuration reloaded") >= round
            });
            pause(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(done.load(Ordering::Relaxed) > 10);
    has(&over_tls(at, &gateway, "a.example", "a", "--http2"), &["HTTP 2\n"]);
    assert_eq!(over_tls(at, &gateway, "a.example", "old", "--http2"), "", "the old one is gone");
}

#[test]
fn a_websocket_passes_both_ways_and_other_upgrades_do_not() {
    let gateway = gateway("websocket", echo::serve("e"), "");
    let ask = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = connect(gateway.address(0), ask);
    has(&read_until(&mut stream, "\r\n\r\n"), &["HTTP/1.1 101 ", "upgrade: websocket"]);
    for text in ["one", "two"] {
        stream.write_all(text.as_bytes()).unwrap();
        assert_eq!(read_until(&mut stream, text), text);
    }
    let other = ask.replace("Upgrade: websocket", "Upgrade: h2c");
    let answer = read_until(&mut connect(gateway.address(0), &other), "\r\n\r\n");
    assert!(!answer.contains(" 101 "), "{answer}");
}

#[test]
fn events_outlive_the_time_a_call_has() {
    let gateway = gateway(
        "events",
        echo::serve("e"),
        "[route.events]\nprefix = \"/events\"\nto = \"all\"\ntimeout_seconds = 0.5",
    );
    let began = now();
    let answer = curl(&["-N", &url(&gateway, "/events")]);
    has(&answer, &[" 200 ", "text/event-stream", "data: 0", "data: 9"]);
    assert!(began.elapsed() > Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[test]
fn a_caller_may_shorten_its_deadline() {
    let gateway = gateway("deadline", echo::serve("e"), "");
    let to = url(&gateway, "/slow/1500");
    let began = now();
    let answer = curl(&["-H", "mainstay-timeout-ms: 200", &to]);
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    has(&answer, &[" 504 ", "application/problem+json"]);
    has(&curl(&[&to]), &[" 200 ", "mainstay-timeout-ms: 49"]);
}

/// A gRPC-like service: answers with what it got, and `grpc-status: 0` in the trailers.
fn grpc_service() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut connection = h2::server::handshake(tcp).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let mut body = request.into_body();
                        let mut got = Vec::new();
                        // The body arrives only while the connection is driven.
                        tokio::select! {
                            () = async {
                                while let Some(Ok(data)) = body.data().await {
                                    drop(body.flow_control().release_capacity(data.len()));
                                    got.extend_from_slice(&data);
                                }
                            } => (),
                            _ended = std::future::poll_fn(|cx| connection.poll_closed(cx)) => return,
                        }
                        let head = http::Response::builder()
                            .header("content-type", "application/grpc")
                            .body(())
                            .unwrap();
                        let mut stream = respond.send_response(head, false).unwrap();
                        stream.send_data(Bytes::from(got), false).unwrap();
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    }
                });
            }
        });
    });
    address
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Calls a method; returns the HTTP status, body and `grpc-status` with where it stood.
fn grpc(to: SocketAddr, message: &'static [u8]) -> (u16, Vec<u8>, String) {
    let call = async {
        let tcp = tokio::net::TcpStream::connect(to).await.unwrap();
        let (client, connection) = h2::client::handshake(tcp).await.unwrap();
        let asked = async {
            let request = http::Request::post(format!("http://{to}/shop.Orders/Get"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
            let mut client = client.ready().await.unwrap();
            let (answer, mut stream) = client.send_request(request, false).unwrap();
            stream.send_data(Bytes::from_static(message), true).unwrap();
            let (head, mut body) = answer.await.unwrap().into_parts();
            let mut got = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                got.extend_from_slice(&data);
            }
            let status = match head.headers.get("grpc-status") {
                Some(status) => format!("head {}", status.to_str().unwrap()),
                None => {
                    let trailers = body.trailers().await.unwrap().unwrap();
                    format!("trailer {}", trailers["grpc-status"].to_str().unwrap())
                }
            };
            (head.status.as_u16(), got, status)
        };
        tokio::select! {
            answer = asked => answer,
            ended = connection => panic!("{ended:?}"),
        }
    };
    runtime().block_on(async { tokio::time::timeout(Duration::from_secs(10), call).await.unwrap() })
}

#[test]
fn grpc_passes_with_its_trailers_and_is_refused_in_its_own_words() {
    let message = b"\0\0\0\0\x05hello";
    for protocol in ["http2", "auto"] {
        let to_it = format!(
            "[route.orders]\nprefix = \"/shop.Orders\"\nto = \"orders\"\n\
            [upstream.orders]\nprotocol = \"{protocol}\"\ninstances = [\"{}\"]",
            grpc_service()
        );
        let through = gateway("grpc", echo::serve("e"), &to_it);
        let answer = grpc(through.address(0), message);
        assert_eq!(answer, (200, message.to_vec(), "trailer 0".to_owned()), "{protocol}");
    }
    let nobody = SocketAddr::from(([127, 0, 0, 1], support::gateway::free_port()));
    let refused = gateway("grpc-refused", nobody, "");
    assert_eq!(grpc(refused.address(0), message), (200, Vec::new(), "head 14".to_owned()));
}
