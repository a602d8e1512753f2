//! The guards with real hyper connections behind them.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// What the handler saw, one line a request.
type Seen = Arc<Mutex<Vec<String>>>;

/// Reads the whole body and answers with its length; a broken body is answered with its refusal.
async fn handle(request: Request<Incoming>, seen: Seen) -> Response<Full<Bytes>> {
    let line = format!("{} {}", request.method(), request.uri());
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    match request.into_body().collect().await {
        Ok(body) => {
            let len = body.to_bytes().len();
            seen.lock().unwrap().push(format!("{line} {len}"));
            Response::new(Full::from(format!("{len} bytes")))
        }
        Err(error) => {
            let refusal = Refusal::of(&error);
            let rule = refusal.map_or("cut short", |refusal| refusal.rule.as_str());
            seen.lock().unwrap().push(format!("{line} {rule}"));
            let mut response = Response::new(Full::from(rule));
            let status = refusal.map_or(400, Refusal::status);
            *response.status_mut() = status.try_into().unwrap();
            response
        }
    }
}

/// Serves one connection; `client` plays the other side. Returns what the handler saw, and why the
/// connection was refused.
async fn serve<F: Future<Output = ()>>(
    limits: Limits,
    client: impl FnOnce(DuplexStream, Arc<Watch>) -> F,
) -> (Vec<String>, Option<Refusal>) {
    let (near, far) = duplex(1 << 16);
    let io = GuardedIo::new(far, limits, Vec::new());
    let watch = io.watch();
    let seen = Seen::default();
    let service = service_fn(|request| {
        let seen = Arc::clone(&seen);
        async move { Ok::<_, Infallible>(handle(request, seen).await) }
    });
    let server = async {
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
        // A client that breaks off is an error of the connection, and nobody's concern here.
        drop(connection.await);
    };
    tokio::join!(server, client(near, Arc::clone(&watch)));
    let seen = seen.lock().unwrap().clone();
    (seen, watch.refusal())
}

/// Sends `parts` one read apart and checks what the handler saw, the answers' statuses, and the
/// rule that ended the connection (`""` for none).
async fn check(parts: &[&str], seen: &[&str], statuses: &[&str], rule: &str) {
    let mut answers = String::new();
    let (saw, refusal) = serve(Limits::default(), |mut client, _| {
        let answers = &mut answers;
        async move {
            for part in parts {
                let bytes = part.replace('¶', "\r\n");
                client.write_all(bytes.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            client.shutdown().await.unwrap();
            client.read_to_string(answers).await.unwrap();
        }
    })
    .await;
    assert_eq!(saw, seen, "{parts:?}\n{answers}");
    let got: Vec<&str> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| answers.get(at + 9..at + 12).unwrap())
        .collect();
    assert_eq!(got, statuses, "{parts:?}\n{answers}");
    assert_eq!(refusal.map_or("", |refusal| refusal.rule.as_str()), rule, "{parts:?}");
}

const GET: &str = "GET /1 HTTP/1.1¶Host: a¶¶";
const BAD: &str = "GET /2 HTTP/1.1¶Host : a¶¶";

#[tokio::test(start_paused = true)]
async fn a_broken_head_is_answered_and_never_handled() {
    check(&[BAD], &[], &["400"], "name-space").await;
    check(&["GET /2 HTTP/1.1¶Ho", "st : a¶¶"], &[], &["400"], "name-space").await;
    check(&["TRACE / HTTP/1.1¶Host: a¶¶"], &[], &["405"], "method-trace").await;
    check(&["¶", "GET /\n"], &[], &["400"], "bare-lf").await;
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_broken_head_is_answered_first() {
    let both = [GET, BAD].concat();
    check(&[&both], &["GET /1 0"], &["200", "400"], "name-space").await;
    check(&[GET, BAD], &["GET /1 0"], &["200", "400"], "name-space").await;
    let slow = "GET /slow HTTP/1.1¶Host: a¶¶";
    let both = [slow, BAD].concat();
    check(&[&both], &["GET /slow 0"], &["200", "400"], "name-space").await;
    let post = "POST /1 HTTP/1.1¶Host: a¶Content-Length: 3¶¶";
    check(&[post, "a", &["bc", BAD].concat()], &["POST /1 3"], &["200", "400"], "name-space").await;
    let three = [GET, slow, GET, BAD].concat();
    let seen = ["GET /1 0", "GET /slow 0", "GET /1 0"];
    check(&[&three], &seen, &["200", "200", "200", "400"], "name-space").await;
}

/// hyper takes the end of the stream for a client that hung up on the request in flight; the
/// refusal of a later one must not look like that.
#[tokio::test(start_paused = true)]
async fn a_broken_head_does_not_cancel_the_request_in_flight() {
    let mut answers = String::new();
    let (seen, _) = serve(Limits::default(), |mut client, _| {
        let answers = &mut answers;
        async move {
            client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.write_all(b"GET /2 HTTP/1.1\nHost: a\n\n").await.unwrap();
            client.read_to_string(answers).await.unwrap();
        }
    })
    .await;
    assert_eq!(seen, ["GET /slow 0"]);
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(
        answers.contains("HTTP/1.1 400 ") && answers.contains("connection: close"),
        "{answers}"
    );
}

#[tokio::test(start_paused = true)]
async fn whole_requests_pass_however_they_are_cut() {
    let post = "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶5;x=y¶abcde¶0¶X-T: 1¶¶";
    check(&[post], &["POST / 5"], &["200"], "").await;
    let pieces: Vec<String> = post.chars().map(String::from).collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    check(&pieces, &["POST / 5"], &["200"], "").await;
    check(&[&[post, GET].concat()], &["POST / 5", "GET /1 0"], &["200", "200"], "").await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_is_an_error_the_handler_can_name() {
    let head = "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶";
    let broken = [head, "1¶ab¶"].concat();
    check(&[&broken], &["POST / chunk-end"], &["400"], "chunk-end").await;
    check(&[head, "1¶a", "¶0x0¶¶"], &["POST / chunk-size"], &["400"], "chunk-size").await;
    let large = [head, "ffffffff¶a"].concat();
    check(&[&large], &["POST / body-bytes"], &["413"], "body-bytes").await;
    let trailer = [head, "1¶a¶0¶Host: b¶¶"].concat();
    check(&[&trailer], &["POST / trailer-name"], &["400"], "trailer-name").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_cut_short_is_never_taken_for_a_whole_one() {
    let length = "POST / HTTP/1.1¶Host: a¶Content-Length: 9¶¶abc";
    check(&[length], &["POST / cut short"], &["400"], "").await;
    let chunked = "POST / HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶";
    for body in ["", "3", "3¶a", "3¶abc", "3¶abc¶", "3¶abc¶0", "3¶abc¶0¶", "3¶abc¶0¶X: y¶"]
    {
        check(&[&[chunked, body].concat()], &["POST / cut short"], &["400"], "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_nobodys_request() {
    check(&["GET / HT"], &[], &[], "").await;
    check(&[GET, "GET / HTTP/1.1¶Host: a¶"], &["GET /1 0"], &["200"], "").await;
}

#[tokio::test(start_paused = true)]
async fn bytes_after_the_last_request_are_refused() {
    let last = "GET /slow HTTP/1.1¶Host: a¶Connection: close¶¶";
    check(&[&[last, GET].concat()], &["GET /slow 0"], &["200", "400"], "bytes-after-close").await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_can_see_the_client_and_end_it() {
    let mut answers = String::new();
    let (near, far) = duplex(1 << 16);
    let io = GuardedIo::new(far, Limits::default(), b"GET / HTTP/1.1\r\n".to_vec());
    let watch = io.watch();
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(handle(request, Seen::default()).await) });
    let mut connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
    let timer = tokio::time::timeout(Duration::from_secs(10), &mut connection);
    assert!(timer.await.is_err());
    watch.head_is_late();
    connection.await.expect("hyper sees a client that has finished");
    let mut near = near;
    near.read_to_string(&mut answers).await.unwrap();
    assert!(answers.starts_with("HTTP/1.1 408 "), "{answers}");
}

/// Serves requests until one switches protocols, which `/yes` alone does; then sends back what
/// belongs to the tunnel.
async fn serve_switching(far: DuplexStream) {
    let io = GuardedIo::new(far, Limits::default(), Vec::new());
    let watch = io.watch();
    let count = AtomicU64::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let watch = Arc::clone(&watch);
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // An answer that looks like another when it is read from its middle.
            let mut response = Response::new(Full::<Bytes>::from("HTTP/1.1 101 no"));
            if request.uri().path() == "/yes" {
                *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
                *response.body_mut() = Full::default();
                response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
            } else {
                watch.declined(number);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
    (&mut connection).await.expect("the connection is in order");
    let parts = connection.into_parts();
    let (mut tunnel, held) = parts.io.into_inner().into_parts();
    let mut early = [&parts.read_buf, held.as_slice()].concat();
    while !early.ends_with(b"last") {
        tunnel.read_buf(&mut early).await.unwrap();
    }
    tunnel.write_all(&early).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_begins_with_the_101_and_loses_no_byte() {
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
    };
    let plain = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    // Not HTTP, and too early; still it belongs to the tunnel.
    let frame = "\u{1}\n\0\r";
    for parts in [
        vec![ask("/yes"), frame.to_owned(), "last".to_owned()],
        vec![ask("/no"), ask("/yes") + frame, "last".to_owned()],
        vec![[ask("/no"), plain.to_owned(), ask("/yes")].concat(), frame.to_owned() + "last"],
        vec![[plain, plain, &ask("/yes"), frame].concat(), "last".to_owned()],
    ] {
        let (mut client, far) = duplex(1 << 16);
        let play = async {
            for part in &parts {
                client.write_all(part.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut all = String::new();
            client.read_to_string(&mut all).await.unwrap();
            assert!(all.ends_with(&format!("\r\n\r\n{frame}last")), "{parts:?}: {all:?}");
            assert_eq!(all.matches("upgrade: websocket").count(), 1, "{parts:?}: {all:?}");
        };
        tokio::join!(serve_switching(far), play);
    }
}

/// Sends one request over a guarded upstream connection that answers `parts`. Returns the status
/// and body or the rule, and whether the connection may be used again.
async fn ask(asked: Asked, parts: &[&str]) -> (String, bool) {
    let (near, mut far) = duplex(1 << 16);
    let io = UpstreamIo::new(near, 65_536);
    let exchange = io.exchange();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    let upstream = async {
        let mut scratch = [0; 512];
        assert_ne!(far.read(&mut scratch).await.unwrap(), 0);
        for part in parts {
            // The connection may be closed by now.
            if far.write_all(part.replace('¶', "\r\n").as_bytes()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let client = async {
        exchange.begin(asked);
        let method = if asked == Asked::Head { "HEAD" } else { "GET" };
        let request = Request::builder().method(method).header("host", "a");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let result = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(format!("{status} {}", String::from_utf8_lossy(&body)))
        };
        let outcome = match result.await {
            Ok(text) => text,
            Err(error) => match Refusal::of(&error) {
                Some(refusal) => refusal.rule.as_str().to_owned(),
                None => exchange.refusal().map_or("broken", |r| r.rule.as_str()).to_owned(),
            },
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        (outcome, exchange.is_free())
    };
    tokio::select! {
        // The client first: the connection ends as soon as the upstream has.
        (outcome, ()) = async { tokio::join!(client, upstream) } => outcome,
        () = async { drop(connection.await); std::future::pending().await } => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_an_upstream_pass_whole_or_fail() {
    for (asked, parts, outcome, free) in [
        (Asked::Plain, &["HTTP/1.1 200 OK¶Content-Length: 2¶¶ab"][..], "200 ab", true),
        (Asked::Plain, &["HTTP/1.1 200 OK¶Content-Length: 2¶", "¶a", "b"], "200 ab", true),
        (Asked::Plain, &["HTTP/1.1 100 x¶¶HTTP/1.1 204 x¶¶"], "204 ", true),
        (Asked::Head, &["HTTP/1.1 200 OK¶Content-Length: 2¶¶"], "200 ", true),
        (Asked::Plain, &["HTTP/1.1 200 OK¶Content-Length: 2¶¶abc"], "bytes-unasked", false),
        (Asked::Plain, &["HTTP/1.1 200 OK¶Content-Length: 2¶¶ab", "c"], "200 ab", false),
        (
            Asked::Plain,
            &["HTTP/1.1 200 OK¶Content-Length: 2¶Content-Length: 2¶¶ab"],
            "length-repeated",
            false,
        ),
        (Asked::Plain, &["HTTP/1.1 200 OK\nContent-Length: 2\n\nab"], "bare-lf", false),
        (Asked::Plain, &["HTTP/1.1 101 x¶¶"], "switch-unasked", false),
        (
            Asked::Plain,
            &["HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶1¶a¶", "0x¶¶"],
            "chunk-size",
            false,
        ),
    ] {
        assert_eq!(ask(asked, parts).await, (outcome.to_owned(), free), "{asked:?} {parts:?}");
    }
}
