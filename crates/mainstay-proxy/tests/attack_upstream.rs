//! Upstreams whose answers cannot be read in one way.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "transport_support/support.rs"]
mod support;

use std::time::Duration;

use support::{OK, Setup, exchange, head, local, peer, repeat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Each of `answers` is told as 502 `upstream-malformed`, and the next request goes out on another
/// connection.
fn check(method: &'static str, answers: &[&str]) {
    let answers: Vec<String> = answers.iter().map(|answer| answer.replace('¶', "\r\n")).collect();
    local(async move {
        for answer in answers {
            let sent = answer.clone();
            let address = peer(move |number, mut tcp| {
                let sent = sent.clone();
                async move {
                    if number != 0 {
                        return repeat(tcp, OK).await;
                    }
                    assert!(head(&mut tcp).await.is_some());
                    tcp.write_all(sent.as_bytes()).await.unwrap();
                    let more = tcp.read(&mut [0]).await;
                    assert!(!matches!(more, Ok(1..)), "reused after {sent}");
                }
            });
            let gateway = Setup::default().in_front_of(address.await);
            let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            tcp.write_all(request.as_bytes()).await.unwrap();
            let told = head(&mut tcp).await.unwrap();
            assert!(told.starts_with("HTTP/1.1 502 "), "{answer}\n{told}");
            let next = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let told = exchange(gateway.address, next).await;
            assert!(told.starts_with("HTTP/1.1 200 "), "{answer}\n{told}");
        }
    });
}

#[test]
fn answers_with_two_ends() {
    check(
        "GET",
        &[
            "HTTP/1.1 200 OK¶Content-Length: 2¶Transfer-Encoding: chunked¶¶0¶¶",
            "HTTP/1.1 200 OK¶Content-Length: 2¶Content-Length: 2¶¶ok",
            "HTTP/1.1 200 OK¶Content-Length: 2, 2¶¶ok",
            "HTTP/1.1 200 OK¶Content-Length: +2¶¶ok",
            "HTTP/1.1 200 OK¶Content-Length:¶¶",
            "HTTP/1.1 200 OK¶Transfer-Encoding: gzip, chunked¶¶0¶¶",
            "HTTP/1.1 200 OK¶Transfer-Encoding: identity¶¶",
            "HTTP/1.0 200 OK¶Transfer-Encoding: chunked¶¶0¶¶",
            "HTTP/1.1 204 No Content¶Content-Length: 2¶¶ok",
            "HTTP/1.1 204 No Content¶Transfer-Encoding: chunked¶¶0¶¶",
            "HTTP/1.1 204 No Content¶¶x",
            "HTTP/1.1 304 Not Modified¶Content-Length: 2¶¶ok",
            "HTTP/1.1 200 OK¶Content-Length: 2¶¶okHTTP/1.1 200 OK¶Content-Length: 3¶¶bad",
            "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶0x2¶ok¶0¶¶",
            "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶2¶okk¶0¶¶",
            "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶2\nok¶0¶¶",
            "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶2¶ok¶0¶Content-Length: 2¶¶",
        ],
    );
    check("HEAD", &["HTTP/1.1 200 OK¶Content-Length: 2¶¶ok"]);
}

#[test]
fn heads_that_are_none() {
    let fields = format!("HTTP/1.1 200 OK¶{}¶", "X: y¶".repeat(101));
    let long = format!("HTTP/1.1 200 OK¶X: {}¶¶", "x".repeat(65_536));
    check(
        "GET",
        &[
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            "HTTP/1.1 200 OK¶X: y\rZ: w¶Content-Length: 2¶¶ok",
            "HTTP/1.1 200 OK¶X: y¶ z¶Content-Length: 2¶¶ok",
            "HTTP/1.1 200 OK¶Content-Length : 2¶¶ok",
            "HTTP/1.1 200 OK¶: y¶Content-Length: 2¶¶ok",
            "HTTP/1.1 200 OK¶X: a\0b¶Content-Length: 2¶¶ok",
            "HTTP/2.0 200 OK¶Content-Length: 2¶¶ok",
            "HTTP/1.1 20 OK¶Content-Length: 2¶¶ok",
            "HTTP/1.1 999 OK¶Content-Length: 2¶¶ok",
            "HTTP/1.1 101 Switching Protocols¶Connection: upgrade¶Upgrade: websocket¶¶",
            "HTTP/1.1 100 Continue¶Content-Length: 2¶¶okHTTP/1.1 200 OK¶Content-Length: 2¶¶ok",
            &fields,
            &long,
        ],
    );
}

/// What comes too late to be told as 502 must still not be taken for whole, or for an answer.
#[test]
fn defects_behind_the_head() {
    for (first, then, whole) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "0x0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\n\r\nbad", true),
    ] {
        local(async move {
            let address = peer(move |number, mut tcp| async move {
                if number != 0 {
                    return repeat(tcp, OK).await;
                }
                assert!(head(&mut tcp).await.is_some());
                tcp.write_all(first.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                tcp.write_all(then.as_bytes()).await.unwrap();
                assert!(!matches!(tcp.read(&mut [0]).await, Ok(1..)), "reused after {first}");
            });
            let gateway = Setup::default().in_front_of(address.await);
            let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
            tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(head(&mut tcp).await.unwrap().starts_with("HTTP/1.1 200 "), "{first}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !whole {
                let mut body = String::new();
                tcp.read_to_string(&mut body).await.unwrap();
                assert!(!body.contains("0\r\n\r\n"), "ended as if it were whole: {body:?}");
            }
            let next = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            assert!(exchange(gateway.address, next).await.ends_with("\r\n\r\nok"), "{first}");
        });
    }
}
