//! Floods and malformed heads over HTTP/2: the attacker is turned away, others are served.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "transport_support/support.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_proxy::server::{Abuse, Incident, Limits, OnIncident};
use support::{Load, OK, Setup, frame, head, local, peer, repeat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A header block of literals, none of which is indexed (RFC 7541 section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

const REQUEST: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

/// What became of an attacker.
#[derive(Debug, Default)]
struct Fate {
    sent_bytes: usize,
    /// Codes of the GOAWAY frames it got.
    goaways: Vec<u32>,
    /// Streams that were reset, with the code.
    resets: Vec<(u32, u32)>,
    /// The server closed the connection.
    closed: bool,
}

/// Most bytes an attacker sends; one that gets rid of all of them was not stopped.
const FLOOD_BYTES: usize = 32 << 20;

/// Sends the preface, `opening`, and what `wave` makes, until nothing more is taken. With `deaf`
/// the attacker reads nothing meanwhile.
async fn flood(
    address: SocketAddr,
    opening: Vec<u8>,
    deaf: bool,
    mut wave: impl FnMut(u32) -> Option<Vec<u8>>,
) -> Fate {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &opening].concat()).await.unwrap();
    let (mut read, mut write) = tcp.split();
    let mut got = Vec::new();
    let mut sent_bytes = 0;
    let sending = async {
        for number in 0.. {
            let Some(wave) = wave(number) else { break };
            let writing = timeout(Duration::from_millis(500), write.write_all(&wave));
            if !matches!(writing.await, Ok(Ok(()))) || FLOOD_BYTES < sent_bytes {
                break;
            }
            sent_bytes += wave.len();
            tokio::task::yield_now().await;
        }
    };
    let mut reading = async || {
        let mut buf = [0; 16_384];
        while let Ok(len @ 1..) = read.read(&mut buf).await {
            got.extend_from_slice(&buf[..len]);
        }
    };
    let closed = if deaf {
        sending.await;
        timeout(Duration::from_secs(1), Box::pin(reading())).await.is_ok()
    } else {
        let both = async { tokio::join!(reading(), sending) };
        timeout(Duration::from_secs(3), Box::pin(both)).await.is_ok()
    };
    let mut fate = Fate { sent_bytes, closed, ..Fate::default() };
    fate.read(&got);
    fate
}

impl Fate {
    fn read(&mut self, mut bytes: &[u8]) {
        while let [a, b, c, kind, _, stream @ ..] = bytes {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some(payload) = stream.get(4..4 + len) else { break };
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match *kind {
                GOAWAY => self.goaways.push(number(4)),
                RESET => {
                    let id = u32::from_be_bytes(stream[..4].try_into().unwrap());
                    self.resets.push((id, number(0)));
                }
                _ => (),
            }
            bytes = &stream[4 + len..];
        }
    }
}

/// Resident memory of this process, in bytes: the server runs inside it.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Plays one flood next to honest clients, who must be served all the while, and checks that the
/// process did not grow with it. `judge` looks at the attacker's fate, and `abuse` is what it is
/// counted as.
fn check<W>(
    opening: Vec<u8>,
    deaf: bool,
    wave: W,
    abuse: Option<Abuse>,
    judge: impl FnOnce(&Fate) -> bool + 'static,
) where
    W: FnMut(u32) -> Option<Vec<u8>> + 'static,
{
    local(async move {
        let address = peer(|_, tcp| repeat(tcp, OK)).await;
        let (on_incident, counted) = counting();
        let gateway = Setup { on_incident, ..Setup::default() }.in_front_of(address);
        let honest = Load::on(gateway.address, 2);
        honest.answered(20).await;
        let before = resident();
        let attack = tokio::task::spawn_local(flood(gateway.address, opening, deaf, wave));
        honest.answered(20).await;
        let fate = attack.await.unwrap();
        honest.answered(20).await;
        honest.end().await;
        assert!(judge(&fate), "{fate:?}");
        let grown = resident().saturating_sub(before);
        assert!(grown < 24 << 20, "grew by {grown} bytes: {fate:?}");
        let counted = until_counted(&counted, usize::from(abuse.is_some())).await;
        assert_eq!(counted, abuse.into_iter().collect::<Vec<_>>());
    });
}

type Counted = Arc<Mutex<Vec<Abuse>>>;

/// Notes every abuse it is told of.
fn counting() -> (OnIncident, Counted) {
    let counted = Counted::default();
    let noting = Arc::clone(&counted);
    let note = move |incident| {
        if let Incident::Http2Abuse { abuse, .. } = incident {
            noting.lock().unwrap().push(abuse);
        }
    };
    (OnIncident::new(note), counted)
}

/// What was counted, once there are `count` of it: the connection ends just after its `GOAWAY`.
async fn until_counted(counted: &Counted, count: usize) -> Vec<Abuse> {
    for _ in 0..400 {
        if count <= counted.lock().unwrap().len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    counted.lock().unwrap().clone()
}

fn stopped(fate: &Fate) -> bool {
    fate.closed && fate.goaways.contains(&ENHANCE_YOUR_CALM) && fate.sent_bytes < FLOOD_BYTES
}

/// CVE-2023-44487.
#[test]
fn streams_that_are_reset_at_once() {
    let request = block(REQUEST);
    let wave = move |number: u32| {
        let id = 2 * number + 1;
        let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &request);
        Some([open, frame(RESET, 0, id, &8_u32.to_be_bytes())].concat())
    };
    check(Vec::new(), false, wave, Some(Abuse::Flood), stopped);
}

/// Resets that wait until the request has gone up: no limit of h2's, so one of ours. The attacker
/// does not go when it is told to.
#[test]
fn streams_that_are_reset_at_leisure() {
    local(async {
        let silent = peer(|_, mut tcp| async move {
            while head(&mut tcp).await.is_some() {} // Never answers.
        });
        let limits = Limits { h2_streams_max: 10, ..Limits::default() };
        let (on_incident, counted) = counting();
        let setup = Setup { limits, on_incident, ..Setup::default() };
        let gateway = setup.in_front_of(silent.await);
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        let (mut read, mut write) = tcp.split();
        let request = block(REQUEST);
        let attack = async {
            for number in 0..2_000_u32 {
                let id = 2 * number + 1;
                let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &request);
                if write.write_all(&open).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(4)).await;
                if write.write_all(&frame(RESET, 0, id, &8_u32.to_be_bytes())).await.is_err() {
                    break;
                }
            }
        };
        let mut got = Vec::new();
        let ((), end) = tokio::join!(attack, read.read_to_end(&mut got));
        drop(end);
        let mut fate = Fate::default();
        fate.read(&got);
        assert!(fate.goaways.contains(&NO_ERROR), "{fate:?}");
        assert_eq!(until_counted(&counted, 1).await, [Abuse::RapidReset]);
    });
}

/// CVE-2024-27316 and its relatives.
#[test]
fn a_head_that_never_ends() {
    let first = frame(HEADERS, END_STREAM, 1, &block(REQUEST));
    let more = frame(CONTINUATION, 0, 1, &block(&[("x", "y")]).repeat(1_000));
    check(first, false, move |_| Some(more.clone()), Some(Abuse::Flood), stopped);
    let first = frame(HEADERS, END_STREAM, 1, &block(REQUEST));
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(100);
    check(first, false, move |_| Some(empty.clone()), Some(Abuse::Flood), stopped);
}

/// A few bytes that name a long field again and again.
#[test]
fn a_head_that_is_a_bomb() {
    // A literal that enters the dynamic table as its first entry, 62, and is then named by index.
    let mut bomb = block(REQUEST);
    bomb.extend_from_slice(&[0x40, 1, b'x', 127, 0xa1, 0x1e]); // 4,000 bytes of value.
    bomb.extend_from_slice(&[b'y'; 4_000]);
    bomb.extend(std::iter::repeat_n(0x80 | 0x3e, 12_000));
    let open = move |number: u32| {
        let id = 2 * number + 1;
        (number < 50).then(|| frame(HEADERS, END_STREAM | END_HEADERS, id, &bomb))
    };
    check(Vec::new(), false, open, Some(Abuse::Flood), |_fate| true);
}

#[test]
fn data_without_data() {
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let open = frame(HEADERS, END_HEADERS, 1, &block(&post));
    let empty = frame(DATA, 0, 1, &[]).repeat(100);
    check(open, false, move |_| Some(empty.clone()), Some(Abuse::Flood), stopped);
}

/// Who asks for acknowledgements and does not read them is not read from.
#[test]
fn settings_and_pings_that_are_never_read() {
    let settings = frame(SETTINGS, 0, 0, &[]).repeat(1_000);
    check(
        Vec::new(),
        true,
        move |_| Some(settings.clone()),
        None,
        |fate| fate.sent_bytes < FLOOD_BYTES,
    );
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1_000);
    check(
        Vec::new(),
        true,
        move |_| Some(pings.clone()),
        None,
        |fate| fate.sent_bytes < FLOOD_BYTES,
    );
}

/// Who reads them gets no more of the server than an honest client that asks as much.
#[test]
fn settings_and_pings_that_are_read() {
    let settings = frame(SETTINGS, 0, 0, &[]).repeat(100);
    check(Vec::new(), false, move |_| Some(settings.clone()), None, |_fate| true);
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(100);
    check(Vec::new(), false, move |_| Some(pings.clone()), None, |_fate| true);
}

/// A head of `REQUEST` and `fields`, and the body `data`, is answered by a reset of its stream
/// (`PROTOCOL_ERROR`) or by the end of the connection, never by the upstream.
#[test]
fn heads_that_are_malformed() {
    const PATH: (&str, &str) = (":path", "/");
    for (fields, data) in [
        (&[("X", "y")][..], ""),
        (&[("x", "y"), PATH], ""),
        (&[PATH], ""),
        (&[(":x", "y")], ""),
        (&[("x", "a\rb")], ""),
        (&[("x", "a\nb")], ""),
        (&[("x", "a\0b")], ""),
        (&[("connection", "x")], ""),
        (&[("transfer-encoding", "chunked")], ""),
        (&[("content-length", "1")], "ab"),
        (&[("content-length", "5")], "ab"),
    ] {
        local(async move {
            let address = peer(|_, tcp| repeat(tcp, OK)).await;
            let gateway = Setup::default().in_front_of(address);
            let fields = [REQUEST, fields].concat();
            let flags = if data.is_empty() { END_STREAM | END_HEADERS } else { END_HEADERS };
            let mut open = frame(HEADERS, flags, 1, &block(&fields));
            if !data.is_empty() {
                open.extend(frame(DATA, END_STREAM, 1, data.as_bytes()));
            }
            let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
            let settings = frame(SETTINGS, 0, 0, &[]);
            tcp.write_all(&[PREFACE, &settings, &open].concat()).await.unwrap();
            let mut got = Vec::new();
            let reading = tcp.read_to_end(&mut got);
            drop(timeout(Duration::from_millis(300), reading).await);
            let mut fate = Fate::default();
            fate.read(&got);
            let told = fate.resets.contains(&(1, 1)) || fate.goaways.contains(&1);
            assert!(told, "{fields:?} {data:?}: {fate:?}");
        });
    }
}

/// CVE-2019-9517: the client asks for much and never makes room for it.
#[test]
fn a_client_that_makes_no_room_lets_go_of_its_upstream_connection() {
    local(async {
        let (tell, released) = tokio::sync::oneshot::channel();
        let tell = std::rc::Rc::new(std::cell::Cell::new(Some(tell)));
        let address = peer(move |_, mut tcp| {
            let tell = std::rc::Rc::clone(&tell);
            async move {
                head(&mut tcp).await.unwrap();
                let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
                tcp.write_all(begun).await.unwrap();
                let part = vec![b'x'; 65_536];
                while tcp.write_all(&part).await.is_ok() {}
                tell.take().unwrap().send(()).unwrap();
            }
        });
        let limits = Limits { write_stall: Duration::from_millis(500), ..Limits::default() };
        let gateway = Setup { limits, ..Setup::default() }.in_front_of(address.await);
        let opening = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(REQUEST));
        let attack = tokio::task::spawn_local(flood(gateway.address, opening, false, |_| None));
        timeout(Duration::from_secs(2), released).await.expect("it is held").unwrap();
        let fate = attack.await.unwrap();
        assert_eq!(fate.resets, [(1, CANCEL)], "{fate:?}");
        assert!(!fate.closed && fate.goaways.is_empty(), "other streams go on: {fate:?}");
    });
}
