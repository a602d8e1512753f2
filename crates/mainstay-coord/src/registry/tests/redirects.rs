//! What of a check goes where a redirect leads.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::checks::sent;
use super::stage::near;
use crate::health::Health;

/// Answers one connection with `answer`; returns what was asked, in lower case.
async fn asked(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "it asks");
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream.read_to_end(&mut seen).await);
    String::from_utf8(seen).unwrap().to_ascii_lowercase()
}

#[tokio::test]
async fn only_the_instance_hears_what_the_check_says() {
    let check = r#"{"name": "up", "kind": "http", "path": "/up", "method": "POST",
        "headers": {"Authorization": "Bearer x", "Cookie": "c=1", "X-Own": "1", "Host": "orders"},
        "body": "b=1"}"#;
    let instance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = |location: &str| {
        format!("HTTP/1.1 307 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    };
    let there = to(&format!("http://{}/x", stranger.local_addr().unwrap()));
    let port = instance.local_addr().unwrap().port();
    let addresses = near();
    let served = async {
        let first = asked(&instance, &to("/next")).await;
        let second = asked(&instance, &there).await;
        let fine = "HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n";
        (first, second, asked(&stranger, fine).await)
    };
    let ((first, second, stranger), (health, output)) =
        tokio::join!(served, sent(check, port, &addresses));
    assert_eq!(health, Health::Passing, "{output}");
    let secrets = ["authorization: bearer x", "cookie: c=1", "x-own: 1", "host: orders", "b=1"];
    for secret in secrets {
        assert!(first.contains(secret), "{secret} in {first}");
        assert!(second.contains(secret), "{secret} in {second}");
        assert!(!stranger.contains(secret), "{secret} in {stranger}");
    }
    assert!(stranger.starts_with("post /x http/1.1") && stranger.contains("host: 127.0.0.1:"));
}
