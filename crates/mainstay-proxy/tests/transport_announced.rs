//! Connections that proxies in front pass on, and say so by the PROXY protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "transport_support/support.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_proxy::forwarded::TrustedProxies;
use mainstay_proxy::framing::Rule;
use mainstay_proxy::listener::Caps;
use mainstay_proxy::server::{Incident, Limits, OnIncident};
use support::{Setup, local};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// A header with what follows its signature.
fn header(rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", rest].concat()
}

/// Says: 203.0.113.7:49152 connected to 10.0.0.1:443.
fn passed_on() -> Vec<u8> {
    header(&[0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0xC0, 0, 1, 0xBB])
}

/// In front of which the proxy at 127.0.0.1 stands.
fn setup() -> Setup {
    let announcing = TrustedProxies::new(vec!["127.0.0.1/32".parse().unwrap()]);
    let limits = Limits { announcing, head: Duration::from_millis(300), ..Limits::default() };
    Setup { limits, ..Setup::default() }
}

/// Sends `bytes` to `address` from `host`; returns what was answered before the end.
async fn told(address: SocketAddr, host: &str, bytes: &[u8]) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{host}:0").parse().unwrap()).unwrap();
    let mut tcp = socket.connect(address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is refused may be reset.
    drop(tcp.read_to_end(&mut answer).await);
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_request_comes_from_whom_the_proxy_says() {
    local(async {
        let gateway = setup().telling();
        let at = gateway.address;
        let ends = "203.0.113.7:49152 10.0.0.1:443";
        let answer = told(at, "127.0.0.1", &[&passed_on(), ASK].concat()).await;
        assert!(answer.ends_with(ends), "{answer}");

        let mut tcp = TcpStream::connect(at).await.unwrap();
        for byte in [&passed_on(), ASK].concat() {
            tcp.write_u8(byte).await.unwrap();
        }
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(ends), "byte by byte: {answer}");

        let own = header(&[0x20, 0, 0, 0]);
        let answer = told(at, "127.0.0.1", &[&own, ASK].concat()).await;
        assert!(answer.contains("\r\n\r\n127.0.0.1:"), "its own: {answer}");
        let answer = told(at, "127.0.0.2", ASK).await;
        assert!(answer.contains("\r\n\r\n127.0.0.2:"), "whom nobody passed on: {answer}");
    });
}

#[test]
fn nobody_else_is_listened_to_and_the_proxy_has_to_speak() {
    local(async {
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&heard);
        let on_incident = OnIncident::new(move |incident| {
            if incident == Incident::Malformed(Rule::ProxyHeader) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let gateway = Setup { on_incident, ..setup() }.telling();
        let at = gateway.address;
        let answer = told(at, "127.0.0.2", &[&passed_on(), ASK].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(heard.load(Ordering::Relaxed), 0);
        for bytes in [ASK, &header(&[0x21, 0x12, 0, 0]), &header(&[0x21, 0x11, 0xFF, 0xFF])] {
            assert_eq!(told(at, "127.0.0.1", bytes).await, "", "{bytes:?}");
        }
        assert_eq!(heard.load(Ordering::Relaxed), 3);
        assert_eq!(told(at, "127.0.0.1", &passed_on()[..20]).await, "", "it takes too long");
    });
}

#[test]
fn each_client_has_its_own_share_of_connections() {
    local(async {
        let gateway = Setup { caps: Caps::new(1_000, 1), ..setup() }.telling();
        let mut first = TcpStream::connect(gateway.address).await.unwrap();
        let stay = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        first.write_all(&[&passed_on(), &stay[..]].concat()).await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'H');
        let again = [&passed_on(), ASK].concat();
        assert_eq!(told(gateway.address, "127.0.0.1", &again).await, "", "its second");
        let mut other = again.clone();
        other[19] = 8; // 203.0.113.8
        let answer = told(gateway.address, "127.0.0.1", &other).await;
        assert!(answer.contains("203.0.113.8:49152"), "{answer}");
        drop(first);
        // The end of it is noticed a moment later.
        while !told(gateway.address, "127.0.0.1", &again).await.contains("203.0.113.7:49152") {}
    });
}
