//! Two proxies in a row never count a different number of requests, whatever a client writes.
//!
//! The gateway stands before and behind `HAProxy`, Apache and nginx, as shipped and told to be
//! lenient, in front of an origin that writes down what it reads. Every ambiguous message carries a
//! request that one reader may take for body and another for a request of its own, and a last honest
//! one. Who counted what is read from the logs of all three; after each message a clean request over
//! the same pooled connections must get its own answer, which it does not when a response is left
//! over.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/support.rs"]
mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use origin::Origin;
use peer::{Kind, Line, Mind, Peer};
use support::gateway::Gateway;
use support::wait::{now, pause};

/// Messages that two readers read differently. `¶` ends a line, `~` is the path of this case,
/// `@` the 32 bytes of the request in it that must not be counted by one reader only.
const CASES: &[&str] = &[
    // Length and coding.
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 37¶Transfer-Encoding: chunked¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶Content-Length: 4¶¶20¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 0¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 32¶Content-Length: 0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 32¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 32, 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 0, 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: +32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: -32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 0x20¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 3 2¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: ¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 32\u{b}¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 00000000000000000032¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length: 18446744073709551648¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content-Length : 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶ Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶X: y¶ Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Content_Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Connection: Content-Length¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Connection: Transfer-Encoding¶Transfer-Encoding: chunked¶¶20¶@¶0¶¶",
    "GET ~o HTTP/1.1¶Host: a¶Content-Length: 32¶¶@",
    "GET ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶20¶@¶0¶¶",
    "DELETE ~o HTTP/1.1¶Host: a¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.0¶Host: a¶Content-Length: 0¶Connection: keep-alive¶¶@",
    // Codings.
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: gzip, chunked¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked, identity¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked, chunked¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: identity¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: xchunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding:\tchunked¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: \u{b}chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked ¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: \"chunked\"¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶Transfer-Encoding: x¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: x¶Transfer-Encoding: chunked¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding : chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer_Encoding: chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶X: y¶ Transfer-Encoding: chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding:¶ chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶X: y\nTransfer-Encoding: chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶X: y\rTransfer-Encoding: chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶X: y\0Transfer-Encoding: chunked¶Content-Length: 37¶¶0¶¶@",
    "POST ~o HTTP/1.0¶Host: a¶Connection: keep-alive¶Transfer-Encoding: chunked¶¶0¶¶@",
    // Lines.
    "GET ~o HTTP/1.1\nHost: a\n\n@",
    "GET ~o HTTP/1.1¶Host: a\n\n@",
    "GET ~o HTTP/1.1¶Host: a\r\r@",
    "GET ~o HTTP/1.1¶Host: a¶X: \rGET ~i HTTP/1.1¶Host: a¶¶",
    "GET ~o HTTP/1.1¶Host: a¶X: \nGET ~i HTTP/1.1¶Host: a¶¶",
    "¶¶¶GET ~o HTTP/1.1¶Host: a¶¶@",
    "GET  ~o HTTP/1.1¶Host: a¶¶@",
    "GET\t~o HTTP/1.1¶Host: a¶¶@",
    "GET ~o HTTP/1.1 ¶Host: a¶¶@",
    "GET ~o HTTP/1.1 HTTP/1.1¶Host: a¶¶@",
    "GET ~o HTTP/1.2¶Host: a¶¶@",
    "GET ~o HTTP/2.0¶Host: a¶¶@",
    "GET ~o HTTP/01.1¶Host: a¶¶@",
    "GET ~o¶@",
    "get ~o HTTP/1.1¶Host: a¶¶@",
    "GE\0T ~o HTTP/1.1¶Host: a¶¶@",
    "GET ~o HTTP/1.1¶Host: a¶: y¶¶@",
    "GET ~o HTTP/1.1¶Host: a¶X¶¶@",
    "GET ~o HTTP/1.1¶Host: a¶X: a\0b¶¶@",
    "GET ~o\u{e9} HTTP/1.1¶Host: a¶¶@",
    // Chunks.
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0x20¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶+20¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶ 20¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶2_0¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶20 ¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶00000000000000000020¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶10000000000000020¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶1\nx\n0\n\n@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶1¶xx0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶1¶xyz0¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0;a\nb¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0;a\rb¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶2;\nxx¶20¶@¶0¶¶",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0¶X: y¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0¶X: y¶ z¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0¶\n@",
    "POST ~o HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶0¶¶¶@",
    // Hosts, targets, methods, expectations.
    "GET ~o HTTP/1.1¶¶@",
    "GET ~o HTTP/1.1¶Host: a¶Host: b¶¶@",
    "GET ~o HTTP/1.1¶Host: u@a¶¶@",
    "GET ~o HTTP/1.1¶Host: a/x¶¶@",
    "GET http://b~o HTTP/1.1¶Host: a¶¶@",
    "GET http://a~o HTTP/1.1¶Host: a¶¶@",
    "CONNECT a:80 HTTP/1.1¶Host: a:80¶¶@",
    "TRACE ~o HTTP/1.1¶Host: a¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 32¶¶@",
    "POST ~o HTTP/1.1¶Host: a¶Expect: 200-ok¶Content-Length: 32¶¶@",
    "GET ~o HTTP/1.1¶Host: a¶Connection: Upgrade, HTTP2-Settings¶Upgrade: h2c¶HTTP2-Settings: AAMAAABkAAQAAP__¶¶@",
    "GET ~o HTTP/1.1¶Host: a¶Connection: Upgrade¶Upgrade: websocket¶Sec-WebSocket-Version: 777¶Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==¶¶@",
];

/// How long logs may take to be written.
const SETTLED: Duration = Duration::from_secs(2);

/// A last request of every message, honest and closing.
const LAST: &str = "GET ~l HTTP/1.1¶Host: a¶Connection: close¶¶";

#[test]
fn haproxy_and_the_gateway_count_alike() {
    check(Kind::Haproxy);
}

#[test]
fn apache_and_the_gateway_count_alike() {
    check(Kind::Apache);
}

#[test]
fn nginx_and_the_gateway_count_alike() {
    check(Kind::Nginx);
}

#[track_caller]
fn check(kind: Kind) {
    let rows = [
        (Mind::Shipped, Order::GatewayFirst),
        (Mind::Shipped, Order::PeerFirst),
        (Mind::Lenient, Order::GatewayFirst),
        (Mind::Lenient, Order::PeerFirst),
    ];
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let row = |(mind, order)| scope.spawn(move || Chain::start(kind, mind, order).all());
        let rows: Vec<_> = rows.into_iter().map(row).collect();
        rows.into_iter().flat_map(|row| row.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// Who stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    GatewayFirst,
    PeerFirst,
}

/// Client, one proxy, the other, origin.
struct Chain {
    name: String,
    front: SocketAddr,
    order: Order,
    gateway: Gateway,
    peer: Peer,
    origin: Origin,
}

/// What everybody counted since the start, without the clean requests between cases.
#[derive(Clone, Debug)]
struct Counts {
    front: Vec<Line>,
    back: Vec<Line>,
    /// Heads the gateway refused before they became a request.
    malformed: usize,
    origin: Vec<String>,
}

impl Chain {
    #[track_caller]
    fn start(kind: Kind, mind: Mind, order: Order) -> Self {
        let origin = Origin::start();
        let name = format!("{kind:?}-{mind:?}-{order:?}").to_lowercase();
        // The one in front lets go of silent clients; the one behind keeps the pooled connection.
        let (gateway, peer, front) = match order {
            Order::GatewayFirst => {
                let peer = Peer::start(kind, mind, 30, origin.address);
                let gateway = Gateway::start(&name, &config(peer.address, 1));
                let front = gateway.address(0);
                (gateway, peer, front)
            }
            Order::PeerFirst => {
                let gateway = Gateway::start(&name, &config(origin.address, 30));
                let peer = Peer::start(kind, mind, 1, gateway.address(0));
                let front = peer.address;
                (gateway, peer, front)
            }
        };
        Self { name, front, order, gateway, peer, origin }
    }

    /// Sends every case; returns what was counted differently.
    fn all(self) -> Vec<String> {
        self.fence(usize::MAX);
        let mut wrong = Vec::new();
        let mut before = self.counts();
        for (number, case) in CASES.iter().enumerate() {
            let text = format!("{case}{LAST}")
                .replace('@', "GET ~i HTTP/1.1¶Host: a¶¶")
                .replace('~', &format!("/c{number:02}-"))
                .replace('¶', "\r\n");
            let answers = exchange(self.front, &text);
            self.fence(number);
            let own = format!("/c{number:02}-");
            let mut after = self.counts();
            let mut news = after.since(&before, &own);
            let began = now();
            // Logs may be a moment behind; what is wrong stays wrong.
            while !news.is_settled(self.order, &answers) && began.elapsed() < SETTLED {
                pause(Duration::from_millis(20));
                after = self.counts();
                news = after.since(&before, &own);
            }
            let faults = news.faults(self.order, &answers);
            for fault in faults {
                let name = &self.name;
                wrong.push(format!("{name}: {case:?}: {fault}\n  {answers:?}\n  {news:?}"));
            }
            before = after;
        }
        let honest = self.counts().origin.len();
        if honest < CASES.len() / 4 {
            wrong.push(format!("{}: only {honest} requests reached the origin", self.name));
        }
        wrong
    }

    /// A clean request over the same pooled connections; it must get its own answer.
    #[track_caller]
    fn fence(&self, number: usize) {
        let own = format!("fence-{number}");
        let ask = format!("GET /{own} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let began = now();
        loop {
            let answer = exchange(self.front, &ask);
            if answer.starts_with("HTTP/1.1 200 ") {
                assert!(answer.ends_with(&own), "{}: {own} got {answer:?}", self.name);
                break;
            }
            // The pooled connection of a refused request may be closing at this moment.
            let gone = ["502", "503", "504"].iter().any(|status| answer.contains(status));
            assert!(gone && began.elapsed() < Duration::from_secs(5), "{}: {answer:?}", self.name);
            pause(Duration::from_millis(20));
        }
    }

    fn counts(&self) -> Counts {
        let printed = self.gateway.printed();
        let ours = printed.lines().filter_map(gateway_line).filter(Line::is_case).collect();
        let theirs = self.peer.lines().into_iter().filter(Line::is_case).collect();
        let (front, back) = match self.order {
            Order::GatewayFirst => (ours, theirs),
            Order::PeerFirst => (theirs, ours),
        };
        let malformed = self.gateway.counted("mainstay_requests_malformed_total", "");
        let counted = self.origin.counted();
        let origin = counted.into_iter().filter(|target| !target.contains("/fence-")).collect();
        Counts { front, back, malformed: malformed.try_into().unwrap(), origin }
    }
}

impl Counts {
    /// What came since `before`, without what belongs to a case other than `own`: a line of the last
    /// one may be late.
    fn since(&self, before: &Self, own: &str) -> Self {
        let ours = |target: &str| !target.contains("/c") || target.contains(own);
        let lines = |now: &[Line], then: &[Line]| {
            let news = now[then.len()..].iter().filter(|line| ours(&line.target));
            news.cloned().collect()
        };
        let origin = self.origin[before.origin.len()..].iter();
        Self {
            front: lines(&self.front, &before.front),
            back: lines(&self.back, &before.back),
            malformed: self.malformed - before.malformed,
            origin: origin.filter(|target| ours(target)).cloned().collect(),
        }
    }

    /// Whether nothing more has to come. The gateway counts a malformed message when its connection
    /// has ended, which is after it answered.
    fn is_settled(&self, order: Order, answers: &str) -> bool {
        let told = self.front.iter().filter(|line| line.sent && line.status == "400").count();
        let counted = order == Order::GatewayFirst || told <= self.malformed;
        counted && self.faults(order, answers).is_empty()
    }

    /// What does not fit together.
    fn faults(&self, order: Order, answers: &str) -> Vec<String> {
        let received_by_back = match order {
            Order::GatewayFirst => self.back.len(),
            // What it refuses within a body stands in its log and is counted as malformed too.
            Order::PeerFirst => {
                self.back.iter().filter(|line| !line.malformed).count() + self.malformed
            }
        };
        let mut faults = Vec::new();
        let hops = [
            ("front to back", &self.front, received_by_back),
            ("back to origin", &self.back, self.origin.len()),
        ];
        for (hop, sender, received) in hops {
            // Sent may be more than received only when the exchange broke; answered may not.
            let sent = sender.iter().filter(|line| line.sent).count();
            let answered = sender.iter().filter(|line| line.sent && line.status == "200").count();
            if sent < received || received < answered {
                faults
                    .push(format!("{hop}: sent {sent}, received {received}, answered {answered}"));
            }
        }
        if order == Order::PeerFirst && self.origin.iter().any(|seen| seen.contains("malformed")) {
            faults.push("the gateway sent what cannot be read".to_owned());
        }
        // Each answer must belong to the request that the front took it for.
        let answered = self.front.iter().filter(|line| line.sent && line.status == "200");
        let asked: Vec<String> = answered.map(|line| last_segment(&line.target)).collect();
        let got: Vec<String> = bodies(answers).iter().map(|body| last_segment(body)).collect();
        if got.iter().zip(&asked).any(|(got, asked)| got != asked) || got.len() > asked.len() {
            faults.push(format!("asked for {asked:?}, got {got:?}"));
        }
        faults
    }
}

impl Line {
    fn is_case(&self) -> bool {
        // Apache wakes its own workers now and then.
        !self.target.contains("/fence-") && !self.target.starts_with("OPTIONS *")
    }
}

/// What the gateway's access log says of one request.
fn gateway_line(line: &str) -> Option<Line> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let target = line.get("url.path")?.as_str()?.to_owned();
    let status = line["http.response.status_code"].to_string();
    let sent = line["mainstay.attempts"].as_u64()? > 0;
    Some(Line { target, status, sent, malformed: line["mainstay.outcome"] == "malformed-request" })
}

/// `c01-o` of `GET http://b/c01-o%C3%A9 HTTP/1.1`, or of a bare target: everybody escapes the rest
/// in their own way.
fn last_segment(target: &str) -> String {
    let target = target.split_whitespace().find(|part| part.contains("/c")).unwrap_or(target);
    target.rsplit('/').next().unwrap_or_default().chars().take(5).collect()
}

/// The bodies of the answers with status 200 whose body the client can see, in their order.
fn bodies(answers: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut rest = answers;
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned())
        };
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let Some((body, next)) = after.split_at_checked(length) else { break };
        if head.starts_with("HTTP/1.1 200 ") || head.starts_with("HTTP/1.0 200 ") {
            bodies.push(body.to_owned());
        }
        rest = next;
    }
    bodies
}

/// Sends `text` and reads until the connection ends, at most ten seconds.
#[track_caller]
fn exchange(to: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut got = Vec::new();
    // A server that refuses may close before all was sent; what it said still counts.
    let sent = stream.write_all(text.as_bytes());
    assert!(sent.is_ok() || sent.is_err_and(|error| error.kind() != ErrorKind::WouldBlock));
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            read => match read.unwrap() {
                0 => break,
                count => got.extend_from_slice(&part[..count]),
            },
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// A gateway with one connection to `next`, which never asks twice.
fn config(next: SocketAddr, idle_seconds: u32) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
[system]
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:0"]
workers = 1
limits = {{ head_seconds = 1, body_gap_seconds = 1, keepalive_seconds = {idle_seconds} }}
[route.all]
to = "all"
timeout_seconds = 5
[upstream.all]
instances = ["{next}"]
protocol = "http1"
connections_max = 1
circuits = []
retry = {{ attempts = 1 }}
"#
    )
}
