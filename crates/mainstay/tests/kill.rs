//! The real binary, killed again and again while 64 clients write to it.
//!
//! What was acknowledged has to be there, nothing that nobody wrote, and history goes on without a
//! gap or a repeat. How often it is killed is told by `MAINSTAY_KILLS`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/connection.rs"]
mod connection;
#[path = "support/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use connection::Connection;
use futures_util::FutureExt as _;
use mainstay_coord::consul::Pair;
use mainstay_core::ManualClock;
use mainstay_store::embedded::{Options, Ticks};
use mainstay_store::{Embedded, Event, Range, Revision, Store as _, WatchItem, WatchRequest};
use rustix::process::Signal;

use support::gateway::Gateway;
use support::wait::{pause, until};

const CONFIG: &str = r#"
server = { listen = "127.0.0.1:0" }
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
"#;

/// Clients that write at once, each its own key.
const WRITERS: usize = 64;

/// How often it is killed: about half a second each, on two cores that have other work too.
const KILLS: u64 = 200;

/// What one client knows of its key: the last value that was acknowledged, and the last it sent.
#[derive(Debug, Default)]
struct Writer {
    acknowledged: AtomicU64,
    sent: AtomicU64,
}

impl Writer {
    /// Writes one number after the other until the server is gone.
    fn run(&self, number: usize, server: SocketAddr, over: &AtomicBool) {
        let Some(mut connection) = Connection::open(server) else { return };
        while !over.load(Ordering::SeqCst) {
            let value = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            match connection.ask("PUT", &path(number), "", value.to_string().as_bytes()) {
                Some((200, body)) if body == "true" => {
                    self.acknowledged.store(value, Ordering::SeqCst);
                }
                _ => return,
            }
        }
    }
}

fn path(number: usize) -> String {
    format!("/v1/kv/w/{number:02}")
}

#[test]
fn what_was_acknowledged_is_there_however_often_it_is_killed() {
    let kills = std::env::var("MAINSTAY_KILLS").ok().and_then(|kills| kills.parse().ok());
    let writers: Vec<Writer> = (0..WRITERS).map(|_| Writer::default()).collect();
    let mut node = Gateway::start_dev("kill", CONFIG);
    let mut history = History::default();
    for cycle in 0..kills.unwrap_or(KILLS) {
        let before = acknowledged(&writers);
        write_and_kill(&mut node, &writers, cycle);
        let store = node.home().join("data/store");
        history.read_on(&copy(&store));
        history.holds(&writers, cycle);
        node = node.again("kill", &[]);
        found(&node, &writers, cycle);
        assert!(before < acknowledged(&writers), "cycle {cycle}: nothing was written");
    }
}

fn acknowledged(writers: &[Writer]) -> u64 {
    writers.iter().map(|writer| writer.acknowledged.load(Ordering::SeqCst)).sum()
}

/// Lets everybody write, and kills the process at some moment, soon or later.
fn write_and_kill(node: &mut Gateway, writers: &[Writer], cycle: u64) {
    let (server, over) = (node.control, AtomicBool::new(false));
    let begun = acknowledged(writers);
    std::thread::scope(|scope| {
        for (number, writer) in writers.iter().enumerate() {
            let over = &over;
            scope.spawn(move || writer.run(number, server, over));
        }
        until("something is written", Duration::from_mins(1), || begun < acknowledged(writers));
        pause(Duration::from_millis(cycle.wrapping_mul(0x9e37_79b9) % 150));
        node.signal(Signal::KILL);
        node.ended();
        over.store(true, Ordering::SeqCst);
    });
}

/// What the server has: for each key the last acknowledged number, or the one that was under way.
/// From here on that one counts.
fn found(node: &Gateway, writers: &[Writer], cycle: u64) {
    let mut connection = Connection::open(node.control).expect("it is ready");
    for (number, writer) in writers.iter().enumerate() {
        let answer = connection.ask("GET", &format!("{}?raw", path(number)), "", b"");
        let found = match answer.expect("it answers") {
            (200, body) => body.parse().expect("a number that was written"),
            (404, _) => 0,
            other => panic!("{other:?}"),
        };
        is_right(writer, number, found, cycle);
        writer.acknowledged.store(found, Ordering::SeqCst);
        writer.sent.store(found, Ordering::SeqCst);
    }
}

#[track_caller]
fn is_right(writer: &Writer, number: usize, found: u64, cycle: u64) {
    let known = writer.acknowledged.load(Ordering::SeqCst);
    let sent = writer.sent.load(Ordering::SeqCst);
    let right = (known..=sent).contains(&found);
    assert!(right, "cycle {cycle}, key {number}: {found}; acknowledged {known}, sent {sent}");
}

/// The store's files as the kill left them: opened elsewhere, so that the process itself finds
/// them as they were.
fn copy(store: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(store).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// What a watch has seen over all lives of the process.
#[derive(Debug, Default)]
struct History {
    last: Option<Revision>,
    /// The last number of each key.
    numbers: BTreeMap<String, u64>,
}

impl History {
    /// Resumes the watch where it ended, on the store that lies in `folder`.
    fn read_on(&mut self, folder: &tempfile::TempDir) {
        let options = Options { ticks: Ticks::ByHand, ..Options::new(folder.path()) };
        let store = Embedded::open(options, ManualClock::default()).expect("it opens every time");
        let newest = store.status().now_or_never().unwrap().unwrap().revision;
        let last = self.last.unwrap_or(Revision::FIRST);
        assert!(last <= newest, "it went back from {last} to {newest}");
        let request = WatchRequest::new(Range::all()).from(last.next()).quiet();
        let mut watch = store.watch(request).unwrap();
        let mut next = last.next();
        while next <= newest {
            match watch.next().now_or_never().flatten() {
                Some(WatchItem::Created { .. }) => {}
                Some(WatchItem::Changes { revision, events }) => {
                    assert_eq!(revision, next, "a gap or a repeat");
                    for event in &events {
                        self.take(event);
                    }
                    next = revision.next();
                }
                other => panic!("{other:?} instead of revision {next}"),
            }
        }
        self.last = Some(newest);
    }

    /// Each key's numbers come one after the other: none is left out, none comes again.
    fn take(&mut self, event: &Event) {
        let Some(entry) = event.entry() else { return };
        let name = entry.key.to_string();
        let Some(number) = name.strip_prefix("ckv/w/") else { return };
        let pair = Pair::read(entry).expect("a pair");
        let value: u64 = String::from_utf8_lossy(&pair.value).parse().expect("a number");
        let last = self.numbers.insert(number.to_owned(), value).unwrap_or(0);
        assert_eq!(value, last + 1, "key {number}");
    }

    fn holds(&self, writers: &[Writer], cycle: u64) {
        for (number, writer) in writers.iter().enumerate() {
            let found = self.numbers.get(&format!("{number:02}")).copied().unwrap_or(0);
            is_right(writer, number, found, cycle);
        }
    }
}
