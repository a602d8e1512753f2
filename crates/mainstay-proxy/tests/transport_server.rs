//! The server in front of an upstream: protocols, tunnels, TLS, limits, drain, handover.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "transport_support/support.rs"]
mod support;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use mainstay_proxy::body::OutBody;
use mainstay_proxy::framing;
use mainstay_proxy::listener::{Listener, handover};
use mainstay_proxy::server::Limits;
use mainstay_proxy::tls::{ClientCertificates, ClientTls, ClientTlsFiles, Pair, ServerTls};
use mainstay_proxy::upstream::{Protocol, UpstreamSettings};
use rustls_pki_types::ServerName;
use support::{Gateway, Load, OK, Setup, exchange, get, head, local, peer, repeat, text, upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[test]
fn http1_passes_through_and_stays_open() {
    local(async {
        let gateway = Setup::default().in_front_of(peer(|_, tcp| repeat(tcp, OK)).await);
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        for _ in 0..3 {
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let answer = head(&mut tcp).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"), "{answer}");
            let mut body = [0; 2];
            tcp.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"ok");
        }
    });
}

/// Plays `answer` to every request after its body is read; `¶` is a line end.
async fn answering(answer: &'static str) -> Gateway {
    let answer = answer.replace('¶', "\r\n");
    let address = peer(move |_, mut tcp| {
        let answer = answer.clone();
        async move {
            while let Some(head) = head(&mut tcp).await {
                if head.contains("chunked") {
                    let mut end = Vec::new();
                    while !end.ends_with(b"\r\n\r\n") {
                        end.push(tcp.read_u8().await.unwrap());
                    }
                }
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    Setup::default().in_front_of(address.await)
}

#[test]
fn a_body_is_framed_as_the_client_can_read_it() {
    local(async {
        let gateway =
            answering("HTTP/1.1 200 OK¶transfer-encoding: chunked¶¶2¶ok¶0¶etag: x¶¶").await;
        let ask = async |text: &str| exchange(gateway.address, &text.replace('¶', "\r\n")).await;
        let told = ask("GET / HTTP/1.1¶host: a¶te: trailers¶connection: te, close¶¶").await;
        assert!(told.contains("transfer-encoding: chunked\r\n"), "{told}");
        assert!(told.ends_with("\r\n\r\n2\r\nok\r\n0\r\netag: x\r\n\r\n"), "{told}");
        let told = ask("GET / HTTP/1.1¶host: a¶connection: close¶¶").await;
        assert!(told.ends_with("\r\n\r\n2\r\nok\r\n0\r\n\r\n"), "nobody asked: {told}");
        let told = ask("GET / HTTP/1.0¶host: a¶¶").await;
        assert!(told.starts_with("HTTP/1.0 200 OK\r\n"), "{told}");
        assert!(told.ends_with("\r\n\r\nok") && !told.contains("chunked"), "{told}");
    });
}

#[test]
fn no_body_is_sent_where_none_may_be() {
    local(async {
        let gateway = answering("HTTP/1.1 204 No Content¶content-length: 0¶¶").await;
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let told = exchange(gateway.address, request).await;
        assert!(told.starts_with("HTTP/1.1 204 No Content\r\n"), "{told}");
        assert!(!told.contains("content-length"), "{told}");
        let gateway = answering("HTTP/1.1 200 OK¶content-length: 7¶¶").await;
        let told = exchange(gateway.address, &request.replace("GET", "HEAD")).await;
        assert!(told.contains("content-length: 7\r\n") && told.ends_with("\r\n\r\n"), "{told}");
    });
}

/// A gateway that answers everything with 404 and a body, and reads nothing of what it is sent.
fn deaf() -> Gateway {
    Setup::default().answering(|| {
        let mut response = http::Response::new(OutBody::from(Bytes::from_static(b"none")));
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        response
    })
}

#[test]
fn a_declined_switch_with_a_body_that_nobody_read_is_over_with_its_answer() {
    local(async {
        let gateway = deaf();
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        let ask = "POST / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\ntransfer-encoding: chunked\r\n\r\n\
                   1\r\na\r\n1\r\nb\r\n0\r\n\r\n";
        for _ in 0..3 {
            tcp.write_all(ask.as_bytes()).await.unwrap();
            assert!(head(&mut tcp).await.unwrap().starts_with("HTTP/1.1 404 "));
            let mut body = [0; 4];
            tcp.read_exact(&mut body).await.unwrap();
        }
    });
}

#[test]
fn a_client_whose_body_is_not_read_is_told_that_the_connection_ends() {
    local(async {
        let gateway = deaf();
        let told = exchange(
            gateway.address,
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf",
        )
        .await;
        assert!(told.contains("connection: close\r\n") && told.ends_with("none"), "{told}");
    });
}

#[test]
fn a_head_has_no_body_over_either_version() {
    local(async {
        let gateway = deaf();
        let request = "HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let told = exchange(gateway.address, request).await;
        assert!(told.ends_with("\r\n\r\n"), "{told}");
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::task::spawn_local(async { drop(connection.await) });
        let request = Request::head("http://a/").body(()).unwrap();
        let (answer, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert!(body.data().await.is_none(), "a HEAD got a body");
    });
}

#[test]
fn the_go_ahead_is_given_when_the_body_is_wanted() {
    local(async {
        let gateway = answering("HTTP/1.1 200 OK¶content-length: 2¶¶ok").await;
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        let ask = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\
                   transfer-encoding: chunked\r\n\r\n";
        tcp.write_all(ask.as_bytes()).await.unwrap();
        assert_eq!(head(&mut tcp).await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        tcp.write_all(b"3\r\nabc\r\n0\r\nx: y\r\n\r\n").await.unwrap();
        assert!(head(&mut tcp).await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn the_last_request_of_a_connection_is_told() {
    local(async {
        let limits = Limits { requests_per_connection_max: 2, ..Limits::default() };
        let setup = Setup { limits, ..Setup::default() };
        let gateway = setup.in_front_of(peer(|_, tcp| repeat(tcp, OK)).await);
        let twice = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(3);
        let answer = exchange(gateway.address, &twice).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
        assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
    });
}

#[test]
fn a_request_body_goes_up_and_one_that_is_too_slow_ends_the_call() {
    local(async {
        let address = peer(|_, mut tcp| async move {
            while head(&mut tcp).await.is_some() {
                let mut body = [0; 5];
                if tcp.read_exact(&mut body).await.is_err() {
                    return;
                }
                assert_eq!(&body, b"hello");
                tcp.write_all(OK).await.unwrap();
            }
        });
        let limits = Limits { body_gap: Duration::from_millis(500), ..Limits::default() };
        let gateway = Setup { limits, ..Setup::default() }.in_front_of(address.await);
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
        let answer = exchange(gateway.address, &format!("{post}hello")).await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        let answer = exchange(gateway.address, &format!("{post}he")).await;
        assert!(answer.contains("TooSlow") && answer.contains("Cancelled"), "{answer}");
    });
}

#[test]
fn a_head_that_never_ends_is_answered_408() {
    local(async {
        let limits = Limits { head: Duration::from_millis(500), ..Limits::default() };
        let setup = Setup { limits, ..Setup::default() };
        let gateway = setup.in_front_of(peer(|_, tcp| repeat(tcp, OK)).await);
        let answer = exchange(gateway.address, "GET / HTTP/1.1\r\nhost:").await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.contains("\"code\":\"head-timeout\""), "{answer}");
        let answer = exchange(gateway.address, "").await;
        assert_eq!(answer, "", "who says nothing is told nothing");
    });
}

/// Sends one HTTP/2 request with a body and trailers; returns the answer's body and trailers.
async fn over_h2(tcp: TcpStream) -> (String, Option<HeaderMap>) {
    let (mut send, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::task::spawn_local(connection);
    let request = Request::post("http://shop/pay").header("te", "trailers").body(()).unwrap();
    let (response, mut body) = send.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"up"), false).unwrap();
    body.send_trailers(trailers("x-up")).unwrap();
    let mut answer = response.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(data) = answer.data().await {
        text.extend_from_slice(&data.unwrap());
    }
    (String::from_utf8(text).unwrap(), answer.trailers().await.unwrap())
}

fn trailers(name: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static("0"))])
}

/// Serves HTTP/2: answers with what it was sent, and puts the caller's trailers behind it.
async fn h2_echo(tcp: TcpStream) {
    let mut connection = h2::server::handshake(tcp).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::task::spawn_local(async move {
            let mut body = request.into_body();
            let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
            while let Some(data) = body.data().await {
                sending.send_data(data.unwrap(), false).unwrap();
            }
            let mut all = trailers("grpc-status");
            all.extend(body.trailers().await.unwrap().unwrap_or_default());
            sending.send_trailers(all).unwrap();
        });
    }
}

#[test]
fn http2_trailers_pass_both_ways() {
    local(async {
        let settings = UpstreamSettings { protocol: Protocol::Http2, ..Default::default() };
        let setup = Setup { settings, ..Setup::default() };
        let gateway = setup.in_front_of(peer(|_, tcp| h2_echo(tcp)).await);
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        let (text, trailers) = over_h2(tcp).await;
        let trailers = trailers.unwrap();
        assert_eq!(text, "up");
        assert_eq!(
            (&trailers["x-up"], &trailers["grpc-status"]),
            (&"0".parse().unwrap(), &"0".parse().unwrap())
        );
    });
}

#[test]
fn http2_goes_out_over_http1() {
    local(async {
        let address = peer(|_, mut tcp| async move {
            let head = head(&mut tcp).await.unwrap();
            assert!(head.starts_with("POST /pay HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("\r\nhost: shop\r\n"), "{head}");
            let mut body = Vec::new();
            while !body.ends_with(b"\r\n\r\n") {
                body.push(tcp.read_u8().await.unwrap());
            }
            tcp.write_all(OK).await.unwrap();
        });
        let gateway = Setup::default().in_front_of(address.await);
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        assert_eq!(over_h2(tcp).await, ("ok".to_owned(), None));
    });
}

/// Interim answers reach HTTP/1.1 clients in front of the answer they belong to, and no others.
#[test]
fn interim_answers_are_passed_on() {
    local(async {
        let address = peer(|_, mut tcp| async move {
            while let Some(asked) = head(&mut tcp).await {
                let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nkeep-alive: x\r\n\r\n";
                let processing = "HTTP/1.1 102 Processing\r\n\r\n";
                if asked.contains("/apart") {
                    tcp.write_all(processing.as_bytes()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    tcp.write_all(hint.as_bytes()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    tcp.write_all(OK).await.unwrap();
                } else {
                    tcp.write_all(&[processing.as_bytes(), hint.as_bytes(), OK].concat())
                        .await
                        .unwrap();
                }
            }
        });
        let gateway = Setup::default().in_front_of(address.await);
        let hints =
            "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        // Several on one connection, also sent ahead, so that answers follow each other closely.
        for paths in [&["/apart"][..], &["/together"], &["/apart", "/together", "/apart"]] {
            let ask = |path: &&str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
            let asked: String = paths.iter().map(ask).collect();
            tcp.write_all(asked.as_bytes()).await.unwrap();
            for path in paths {
                for want in hints.split_inclusive("\r\n\r\n") {
                    assert_eq!(head(&mut tcp).await.unwrap(), want, "{path}");
                }
                let answer = head(&mut tcp).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
                let mut body = [0; 2];
                tcp.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"ok");
            }
        }
        let old = exchange(gateway.address, "GET /apart HTTP/1.0\r\nhost: a\r\n\r\n").await;
        assert!(old.starts_with("HTTP/1.0 200 "), "HTTP/1.0 knows no interim answers: {old}");
    });
}

/// Upgrades, then sends back what it gets, the first bytes together with its head.
async fn websocket(mut tcp: TcpStream) {
    let asked = head(&mut tcp).await.unwrap();
    assert!(asked.contains("upgrade: websocket"), "{asked}");
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst";
    tcp.write_all(switch).await.unwrap();
    let (mut read, mut write) = tcp.split();
    drop(tokio::io::copy(&mut read, &mut write).await);
}

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[test]
fn a_websocket_passes_both_ways_from_the_first_byte() {
    local(async {
        let gateway = Setup::default().in_front_of(peer(|_, tcp| websocket(tcp)).await);
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(format!("{UPGRADE}early").as_bytes()).await.unwrap();
        let answer = head(&mut tcp).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let mut got = [0; 10];
        tcp.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"firstearly");
        let long: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (mut read, mut write) = tcp.split();
        let mut back = vec![0; long.len()];
        let (sent, received) = tokio::join!(write.write_all(&long), read.read_exact(&mut back));
        sent.unwrap();
        received.unwrap();
        assert_eq!(back, long);
        write.shutdown().await.unwrap();
        assert_eq!(read.read(&mut back).await.unwrap(), 0, "the end passes too");
    });
}

#[test]
fn a_silent_tunnel_is_closed() {
    local(async {
        let limits = Limits { tunnel_idle: Duration::from_millis(500), ..Limits::default() };
        let setup = Setup { limits, ..Setup::default() };
        let gateway = setup.in_front_of(peer(|_, tcp| websocket(tcp)).await);
        let answer = exchange(gateway.address, UPGRADE).await;
        assert!(answer.ends_with("\r\n\r\nfirst"), "{answer}");
    });
}

/// A client of a worker that drains hears of it between two frames, and its answer reaches the
/// service; nobody has to be cut.
#[test]
fn a_websocket_client_is_told_that_the_worker_drains() {
    local(async {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hearing = Rc::clone(&heard);
        let service = peer(move |_, mut tcp| {
            let hearing = Rc::clone(&hearing);
            async move {
                head(&mut tcp).await.unwrap();
                let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                    upgrade: websocket\r\n\r\n";
                tcp.write_all(switch.as_bytes()).await.unwrap();
                tcp.write_all(b"\x81\x05hello").await.unwrap();
                let mut bytes = Vec::new();
                tcp.read_to_end(&mut bytes).await.unwrap();
                *hearing.borrow_mut() = bytes;
            }
        });
        let gateway = Setup::default().in_front_of(service.await);
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(UPGRADE.as_bytes()).await.unwrap();
        head(&mut tcp).await.unwrap();
        let mut hello = [0; 7];
        tcp.read_exact(&mut hello).await.unwrap();
        gateway.server.stop();
        let mut farewell = Vec::new();
        tcp.read_to_end(&mut farewell).await.unwrap();
        assert_eq!(farewell, b"\x88\x02\x03\xe9", "closed with 1001, going away");
        let answer = b"\x88\x82\0\0\0\0\x03\xe9";
        tcp.write_all(answer).await.unwrap();
        drop(tcp);
        let server = gateway.server;
        let drained = tokio::task::spawn_blocking(move || server.join()).await.unwrap();
        assert_eq!(drained.cut, 0);
        for _ in 0..400 {
            if !heard.borrow().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(*heard.borrow(), answer);
    });
}

/// Limits that are replaced hold for every connection that comes from then on, to the byte.
#[test]
fn new_connections_have_the_new_limits() {
    local(async {
        let address = peer(|_, mut tcp| async move {
            while let Some(asked) = head(&mut tcp).await {
                let mut body = vec![0; asked.matches("content-length: 50").count() * 50];
                tcp.read_exact(&mut body).await.unwrap();
                tcp.write_all(OK).await.unwrap();
            }
        });
        let small = |body_bytes_max| Limits {
            framing: framing::Limits { body_bytes_max, headers_max: 5, ..Default::default() },
            ..Limits::default()
        };
        let setup = Setup { limits: small(10), ..Setup::default() };
        let gateway = setup.in_front_of(address.await);
        let body = "x".repeat(50);
        let post = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 50\r\n\r\n{body}"
        );
        let many = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{}\r\n",
            "x: y\r\n".repeat(120)
        );
        let status = async |request: &str| {
            let answer = exchange(gateway.address, request).await;
            answer.get(9..12).unwrap_or_default().to_owned()
        };
        assert_eq!((status(&post).await, status(&many).await), ("413".into(), "431".into()));
        let limits = small(100);
        let framing = framing::Limits { headers_max: 200, ..limits.framing };
        gateway.limits.set(Limits { framing, ..limits });
        assert_eq!((status(&post).await, status(&many).await), ("200".into(), "200".into()));
        gateway.limits.set(small(10));
        assert_eq!((status(&post).await, status(&many).await), ("413".into(), "431".into()));
    });
}

/// Writes a certificate for `names` and its key to `folder`.
fn certificate(folder: &Path, file: &str, names: &[&str]) -> Pair {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let pair = Pair {
        certificate: folder.join(format!("{file}.pem")),
        key: folder.join(format!("{file}.key")),
    };
    std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
    std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
    pair
}

/// How to reach a TLS peer called `name`, whose certificate is `pair`.
fn trusting(pair: &Pair, name: &str, protocol: Protocol) -> UpstreamSettings {
    let tls = ClientTls::new(&ClientTlsFiles {
        ca_file: Some(pair.certificate.clone()),
        sni: Some(name.to_owned()),
        certificate: None,
    });
    UpstreamSettings { tls: Some(tls.unwrap()), protocol, ..UpstreamSettings::default() }
}

/// A TLS gateway with a certificate each for `a.example` and `b.example`.
async fn tls_gateway(folder: &Path) -> (Gateway, ServerTls, [Pair; 2]) {
    let pairs = ["a", "b"].map(|name| certificate(folder, name, &[&format!("{name}.example")]));
    let tls = ServerTls::new(&pairs, false, &ClientCertificates::Off).unwrap();
    let setup = Setup { tls: Some(tls.clone()), ..Setup::default() };
    (setup.in_front_of(peer(|_, tcp| repeat(tcp, OK)).await), tls, pairs)
}

#[test]
fn tls_answers_by_name_and_agrees_on_the_protocol() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, _tls, [a, b]) = tls_gateway(folder.path()).await;
        for (pair, name) in [(&a, "a.example"), (&b, "b.example")] {
            let versions =
                [(Protocol::Auto, false), (Protocol::Http1, true), (Protocol::Http2, false)];
            for (protocol, idles) in versions {
                let upstream = upstream(gateway.address, trusting(pair, name, protocol));
                assert_eq!(text(get(&upstream).await.unwrap()).await, "ok", "{name} {protocol:?}");
                assert_eq!(upstream.idle() == 1, idles, "{protocol:?}: only HTTP/1 idles");
            }
        }
        let upstream = upstream(gateway.address, trusting(&a, "b.example", Protocol::Auto));
        let error = format!("{:?}", get(&upstream).await.unwrap_err());
        assert!(error.contains("ConnectFailed { identity: true }"), "{error}");
    });
}

#[test]
fn certificates_are_reloaded_under_load_and_nobody_notices() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, tls, pairs) = tls_gateway(folder.path()).await;
        let kept = upstream(gateway.address, trusting(&pairs[0], "a.example", Protocol::Http1));
        assert_eq!(text(get(&kept).await.unwrap()).await, "ok");
        for round in 0..20 {
            let file = format!("a{round}");
            let fresh = certificate(folder.path(), &file, &["a.example"]);
            tls.reload(&[fresh.clone(), pairs[1].clone()], false).unwrap();
            assert_eq!(text(get(&kept).await.unwrap()).await, "ok", "an open connection stays");
            let new = upstream(gateway.address, trusting(&fresh, "a.example", Protocol::Auto));
            assert_eq!(text(get(&new).await.unwrap()).await, "ok", "the new one is shown");
        }
        std::fs::write(&pairs[0].key, "no key").unwrap();
        assert!(tls.reload(&pairs, false).is_err());
        assert_eq!(text(get(&kept).await.unwrap()).await, "ok");
        assert_eq!(kept.connections(), 1);
    });
}

/// Joins a server without blocking this thread's other tasks.
async fn join(gateway: Gateway) -> usize {
    gateway.server.stop();
    tokio::task::spawn_blocking(|| gateway.server.join().cut).await.unwrap()
}

#[test]
fn a_drain_under_load_loses_nothing() {
    local(async {
        let setup = Setup { workers: 2, ..Setup::default() };
        let gateway = setup.in_front_of(peer(|_, tcp| repeat(tcp, OK)).await);
        let load = Load::on(gateway.address, 8);
        load.answered(200).await;
        assert_eq!(join(gateway).await, 0);
        load.end().await;
    });
}

#[test]
fn what_does_not_end_in_time_is_cut_and_counted() {
    local(async {
        let deaf = peer(|_, mut tcp| async move {
            drop(head(&mut tcp).await);
            std::future::pending::<()>().await;
        });
        let setup = Setup { drain: Duration::from_millis(300), ..Setup::default() };
        let gateway = setup.in_front_of(deaf.await);
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(join(gateway).await, 1);
        assert_eq!(head(&mut tcp).await, None);
    });
}

#[test]
fn the_next_process_takes_the_sockets_and_nobody_notices() {
    local(async {
        let address = peer(|_, tcp| repeat(tcp, OK)).await;
        let workers = std::num::NonZeroUsize::new(2).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any, workers).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sockets = listener.duplicate().unwrap();
        let old = Setup { workers: 2, listener: Some(listener), ..Setup::default() };
        let old = old.in_front_of(address);
        let load = Load::on(old.address, 8);
        load.answered(100).await;

        let sent = [("http".to_owned(), sockets), ("other".to_owned(), a_socket())];
        handover::send(&ours, &sent).unwrap();
        let mut received = handover::receive(&theirs).unwrap();
        drop(sent);
        let names: Vec<_> = received.iter().map(|(name, all)| (name.as_str(), all.len())).collect();
        assert_eq!(names, [("http", 2), ("other", 1)]);
        let listener = Listener::inherit(received.remove(0).1).unwrap();
        assert_eq!(listener.address(), old.address);
        let new = Setup { workers: 2, listener: Some(listener), ..Setup::default() };
        let new = new.in_front_of(address);
        assert_eq!(join(old).await, 0);
        load.answered(100).await;
        load.end().await;
        assert_eq!(join(new).await, 0);
    });
}

fn a_socket() -> Vec<std::os::fd::OwnedFd> {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), std::num::NonZeroUsize::MIN).unwrap();
    listener.duplicate().unwrap()
}

#[test]
fn a_handover_that_breaks_off_is_an_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    assert!(handover::receive(&theirs).is_err());
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut &ours, &[4, b'n', b'o']).unwrap();
    drop(ours);
    assert!(handover::receive(&theirs).is_err(), "a name without sockets");
}

/// A TLS client that names no host still gets an answer, unless told otherwise.
#[test]
fn strict_sni_turns_strangers_away() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let pair = certificate(folder.path(), "a", &["a.example"]);
        for (strict, answered) in [(false, true), (true, false)] {
            let tls = ServerTls::new(std::slice::from_ref(&pair), strict, &ClientCertificates::Off)
                .unwrap();
            let setup = Setup { tls: Some(tls), ..Setup::default() };
            let gateway = setup.in_front_of(peer(|_, tcp| repeat(tcp, OK)).await);
            let shaken = shake(gateway.address, &pair, "nobody.example").await;
            // Without strictness the handshake gets as far as the name on the certificate.
            assert_eq!(shaken.contains("NotValidForName"), answered, "{shaken}");
        }
    });
}

fn shake<'a>(
    address: SocketAddr,
    pair: &'a Pair,
    name: &'static str,
) -> impl Future<Output = String> + 'a {
    let _valid: ServerName<'static> = name.try_into().unwrap();
    let upstream = upstream(address, trusting(pair, name, Protocol::Http1));
    async move { format!("{:?}", get(&upstream).await.map(|_| ()).unwrap_err()) }
}
