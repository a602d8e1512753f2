//! Requests handed to a gateway as its server does, and what is told of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

use http::Version;
use http_body::Body;
use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use tokio::runtime::{Builder, LocalOptions};

mod own_answers;
mod same_decisions;

use super::*;
use crate::access_log::{AccessLog, Format};
use crate::body::OutBody;
use crate::config::RawPlane;
use crate::server::TlsInfo;
use crate::summary::{Fate, Summary};
use crate::tls::{ClientCertificates, Pair, ServerTls};

/// Where a test reads the log.
struct Lines(mpsc::Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        drop(self.0.send(String::from_utf8_lossy(bytes).into_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A gateway in front of `upstream`, and its log.
fn gateway(upstream: SocketAddr) -> (Arc<Gateway>, mpsc::Receiver<String>) {
    gateway_that(upstream, "to = 'shop'\n")
}

/// The same with `rules` for its route, and after that for anything.
fn gateway_that(upstream: SocketAddr, rules: &str) -> (Arc<Gateway>, mpsc::Receiver<String>) {
    let raw: RawPlane = toml::from_str(&format!(
        "[upstream.shop]\ninstances = ['{upstream}']\n[route.all]\n{rules}"
    ))
    .expect("well-formed");
    logging(Plane::resolve(raw).expect("legal"))
}

/// A gateway that serves by `plane`, and its log.
fn logging(plane: Plane) -> (Arc<Gateway>, mpsc::Receiver<String>) {
    let mut parts = Parts::new(Metrics::new());
    let (lines, log) = mpsc::channel();
    let metrics = Arc::clone(&parts.metrics);
    let (access, _writer) =
        AccessLog::start(Format::Json, 100.0, Lines(lines), metrics).expect("a thread");
    parts.log = Some(access);
    parts.summaries = Some(Arc::new(Summaries::new(NonZeroUsize::MIN)));
    (Gateway::new(Arc::new(plane), parts).expect("no files"), log)
}

/// A request over HTTP/2 with `headers`.
fn http2(headers: &[(&'static str, &'static str)]) -> Request<InBody> {
    let mut request = Request::get("http://shop.example/cart").version(Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(InBody::empty()).expect("legal")
}

fn caller() -> ConnInfo {
    let address = SocketAddr::from(([192, 0, 2, 7], 4_000));
    ConnInfo { peer: address, local: address, tls: None }
}

/// Runs `test` on a clock that stands still unless everybody waits for it.
fn paused<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true);
    runtime.build_local(LocalOptions::default()).unwrap().block_on(test)
}

/// Runs `test` the way a worker runs: one thread, local tasks.
fn local<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(LocalOptions::default()).unwrap();
    let limit = Duration::from_secs(20);
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test hangs") })
}

/// Serves `request` until `upstream` has read its head, then lets the caller go away; the head.
fn serve_until_sent(
    gateway: &Arc<Gateway>,
    upstream: TcpListener,
    request: Request<InBody>,
) -> String {
    local(async {
        let head = tokio::task::spawn_blocking(move || {
            let (mut peer, _) = upstream.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut part = [0; 1_024];
                let len = peer.read(&mut part).unwrap();
                assert!(len > 0, "a head cut short");
                head.extend_from_slice(&part[..len]);
            }
            (String::from_utf8(head).unwrap(), peer)
        });
        let (running, from) = (gateway.running(), caller());
        tokio::select! {
            answer = serve::serve(&running, Arc::clone(gateway), request, &from) => {
                panic!("nobody answers: {answer:?}")
            }
            head = head => head.unwrap().0,
        }
    })
}

#[test]
fn a_caller_that_goes_away_is_counted_and_logged() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let (gateway, log) = gateway(upstream.local_addr().unwrap());
    serve_until_sent(&gateway, upstream, http2(&[("user-agent", "shop-app")]));
    let text = gateway.parts.metrics.encode().unwrap();
    let counted =
        r#"mainstay_requests_total{route="all",service="shop",code="499",outcome="cancelled"} 1"#;
    assert!(text.contains(counted), "{text}");
    let line = log.recv_timeout(Duration::from_secs(20)).unwrap();
    for part in
        [r#""http.response.status_code":499"#, r#""mainstay.outcome":"cancelled""#, "shop-app"]
    {
        assert!(line.contains(part), "{line}");
    }
}

/// What is kept of the one call there was.
fn kept(gateway: &Gateway) -> Summary {
    let mut all = gateway.parts.summaries.as_ref().unwrap().since(Instant::ZERO, |_| true);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn what_is_kept_of_a_call_is_how_circuits_judge_it() {
    for (status, rules, outcome) in [
        (200, "", Some(Outcome::Success)),
        (404, "", Some(Outcome::Success)),
        (429, "", Some(Outcome::Refused)),
        (500, "", Some(Outcome::Failure)),
        (500, "ignore = ['500']\n", None),
        (404, "failure = ['404']\n", Some(Outcome::Failure)),
    ] {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = upstream.local_addr().unwrap();
        let raw = format!(
            "[route.all]\nto = 'shop'\n[upstream.shop]\ninstances = ['{address}']\n\
             retry.attempts = 1\n{rules}"
        );
        let (gateway, _log) = logging(Plane::resolve(toml::from_str(&raw).unwrap()).unwrap());
        std::thread::spawn(move || {
            let (mut peer, _) = upstream.accept().unwrap();
            let mut head = [0; 4_096];
            assert!(0 < peer.read(&mut head).unwrap());
            write!(peer, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let (running, from) = (gateway.running(), caller());
        let request = http2(&[]);
        let answer = local(serve::serve(&running, Arc::clone(&gateway), request, &from));
        assert_eq!(answer.status(), status);
        let kept = kept(&gateway);
        assert_eq!((kept.outcome, kept.fate), (outcome, Fate::Permitted), "{status} {rules}");
        let [route, service, instance] =
            [kept.route, kept.service, kept.instance].map(|name| name.unwrap().to_string());
        assert_eq!([&*route, &*service, &*instance], ["all", "shop", &*address.to_string()]);
    }
}

#[test]
fn a_caller_that_goes_away_says_nothing_of_the_service() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let (gateway, _log) = gateway(upstream.local_addr().unwrap());
    serve_until_sent(&gateway, upstream, http2(&[]));
    assert_eq!(kept(&gateway).outcome, None);
}

/// Asks a service that answers with `sent` of four bytes it announces and hangs up, takes what
/// comes of the answer, at most `taken` frames, and gives the log line and the counters.
fn line_of_an_answer(sent: &'static str, taken: usize) -> (serde_json::Value, String) {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let (gateway, log) = gateway(upstream.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut peer, _) = upstream.accept().unwrap();
        let mut head = [0; 4_096];
        assert!(0 < peer.read(&mut head).unwrap());
        write!(peer, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{sent}").unwrap();
    });
    let (running, from) = (gateway.running(), caller());
    local(async {
        let answer = serve::serve(&running, Arc::clone(&gateway), http2(&[]), &from).await;
        assert!(log.try_recv().is_err(), "the answer is not over");
        let mut body = answer.into_body();
        for _ in 0..taken {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            if !matches!(frame, Some(Ok(_))) {
                break;
            }
        }
    });
    let line = log.recv_timeout(Duration::from_secs(20)).unwrap();
    (serde_json::from_str(&line).unwrap(), gateway.parts.metrics.encode().unwrap())
}

#[test]
fn an_answer_is_logged_when_its_body_is_over() {
    let (line, counted) = line_of_an_answer("four", 9);
    assert_eq!(line["mainstay.outcome"], "ok");
    assert_eq!(line["sent_bytes"], 4);
    assert!(!counted.contains("answers_broken_total{"), "{counted}");
}

#[test]
fn an_answer_that_breaks_off_is_logged_and_counted_as_that() {
    for (sent, taken, outcome) in [("tw", 9, "response-truncated"), ("tw", 0, "cancelled")] {
        let (line, counted) = line_of_an_answer(sent, taken);
        assert_eq!(line["mainstay.outcome"], outcome);
        assert_eq!(line["http.response.status_code"], 200);
        assert_eq!(line["sent_bytes"], taken.min(1) * 2, "{outcome}");
        let broken = format!(
            "answers_broken_total{{route=\"all\",service=\"shop\",reason=\"{outcome}\"}} 1"
        );
        assert!(counted.contains(&broken), "{counted}");
    }
}

#[test]
fn a_request_for_a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["shop.example", "*.shops.example"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let pair = Pair { certificate: folder.path().join("cert"), key: folder.path().join("key") };
    std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
    std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
    let tls = ServerTls::new(&[pair], false, &ClientCertificates::Off).unwrap();
    let (gateway, _log) = gateway_that(caller().peer, "respond = { status = 200 }\n");
    let running = gateway.running();
    let status = |sni: Option<&str>, host: &str| {
        let client_certificates = Vec::new();
        let shown = tls.shown(sni);
        let tls = TlsInfo { sni: sni.map(str::to_owned), shown, client_certificates };
        let from = ConnInfo { tls: Some(tls), ..caller() };
        let request = Request::get("/").header("host", host).body(InBody::empty()).unwrap();
        local(serve::serve(&running, Arc::clone(&gateway), request, &from)).status().as_u16()
    };
    assert_eq!(status(Some("shop.example"), "shop.example"), 200);
    assert_eq!(status(Some("shop.example"), "SHOP.example.:7443"), 200);
    assert_eq!(status(Some("shop.example"), "a.shops.example"), 200, "the same certificate");
    assert_eq!(status(Some("shop.example"), "bank.example"), 421);
    assert_eq!(status(Some("shop.example"), "192.0.2.7:7443"), 421);
    assert_eq!(status(Some("other.example"), "other.example"), 200, "as asked for");
    assert_eq!(status(None, "192.0.2.7:7443"), 200, "an address cannot be asked for");
    assert_eq!(status(None, "[::1]:7443"), 200);
    assert_eq!(status(None, "bank.example"), 421);
}

#[test]
fn a_tunnel_is_in_flight_until_it_ends() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut peer, _)) = upstream.accept() {
            let mut head = [0; 4_096];
            assert!(0 < peer.read(&mut head).unwrap());
            peer.write_all(SWITCHED).unwrap();
            open.push(peer);
        }
    });
    let one = "to = 'shop'\nlimits = ['one']\n[limit.one]\nkind = 'concurrency'\nmax = 1\n";
    let (gateway, _log) = gateway_that(address, one);
    let (running, from) = (gateway.running(), caller());
    let ask = || {
        let request = Request::get("/socket")
            .header("host", "shop.example")
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        serve::serve(&running, Arc::clone(&gateway), request.body(InBody::empty()).unwrap(), &from)
    };
    local(async {
        let OutBody::Upstream(mut body) = ask().await.into_body() else { panic!("no tunnel") };
        let tunnel = body.take_tunnel().expect("a tunnel");
        drop(body);
        assert_eq!(ask().await.status(), 503, "one is open");
        drop(tunnel);
        assert_eq!(ask().await.status(), 101, "it has ended");
    });
}

const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[test]
fn cookies_that_came_in_crumbs_are_sent_as_one() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let (gateway, _log) = gateway(upstream.local_addr().unwrap());
    let crumbs = [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2"), ("cookie", "c=3")];
    let head = serve_until_sent(&gateway, upstream, http2(&crumbs)).to_ascii_lowercase();
    assert_eq!(head.matches("cookie:").count(), 1, "{head}");
    assert!(head.contains("\r\ncookie: a=1; b=2; c=3\r\n"), "{head}");
}

#[test]
fn a_request_that_is_not_taken_in_is_told_of_by_its_callers_trace() {
    let (gateway, log) = gateway(caller().peer);
    let traced = |parent: Option<&'static str>| {
        let (running, from) = (gateway.running(), caller());
        let mut headers = vec![("transfer-encoding", "chunked")];
        headers.extend(parent.map(|parent| ("traceparent", parent)));
        let request = http2(&headers);
        let answer = local(serve::serve(&running, Arc::clone(&gateway), request, &from));
        let OutBody::Full(body) = answer.into_body() else { panic!("a document") };
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let line = log.recv_timeout(Duration::from_secs(20)).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(problem["trace_id"], line["trace_id"], "{problem} {line}");
        problem["trace_id"].as_str().unwrap().to_owned()
    };
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(traced(Some(parent)), "4bf92f3577b34da6a3ce929d0e0e4736");
    let (begun, other) = (traced(None), traced(Some("00-nonsense")));
    assert!(begun.len() == 32 && other.len() == 32 && begun != other, "{begun} {other}");
}

#[test]
fn a_malformed_request_over_http2_is_counted_by_its_rule() {
    let (gateway, log) = gateway(caller().peer);
    let (running, from) = (gateway.running(), caller());
    let request = http2(&[("transfer-encoding", "chunked")]);
    let answer = local(serve::serve(&running, Arc::clone(&gateway), request, &from));
    assert_eq!(answer.status(), 400);
    let text = gateway.parts.metrics.encode().unwrap();
    let counted = r#"mainstay_requests_malformed_total{rule="connection-field"} 1"#;
    assert!(text.contains(counted), "{text}");
    assert!(log.recv_timeout(Duration::from_secs(20)).unwrap().contains("malformed-request"));
}
