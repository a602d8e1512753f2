//! The real binary, killed again and again while administrators change things: each change has its
//! record, and each record its change, once.
//!
//! How often it is killed is told by `MAINSTAY_KILLS`.
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
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use connection::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::Gateway;
use support::wait::{pause, until};

const CONFIG: &str = r#"
server = { listen = "127.0.0.1:0" }
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[audit]
head_seconds = 1
"#;

/// Administrators that change at once, each a service of their own.
const WRITERS: usize = 8;

/// How often it is killed: about a second each, on two cores that have other work too.
const KILLS: u64 = 100;

/// What one administrator knows: the last number that was acknowledged.
#[derive(Debug, Default)]
struct Writer(AtomicU64);

impl Writer {
    /// Sets one number after the other until the server is gone.
    fn run(&self, number: usize, node: &Gateway, over: &AtomicBool) {
        let (server, token) = node.door();
        let headers = format!("authorization: Bearer {token}\r\n");
        let Some(mut connection) = Connection::open(server) else { return };
        while !over.load(Ordering::SeqCst) {
            let next = self.0.load(Ordering::SeqCst) + 1;
            let body = json!({ "metadata": { "number": next.to_string() } }).to_string();
            match connection.ask("PUT", &path(number), &headers, body.as_bytes()) {
                Some((200, _)) => self.0.store(next, Ordering::SeqCst),
                _ => return,
            }
        }
    }
}

fn path(number: usize) -> String {
    format!("/api/v1/registry/default/services/w{number}")
}

/// Which number a service has: each was set after the one before it, so all up to it were.
fn found(node: &Gateway, number: usize) -> u64 {
    let (status, text) = node.control(&path(number));
    if status == 404 {
        return 0;
    }
    assert_eq!(status, 200, "{text}");
    let service: Value = serde_json::from_str(&text).unwrap();
    let found = service.pointer("/settings/metadata/number");
    found.map_or(0, |found| found.as_str().unwrap().parse().unwrap())
}

/// The numbers that records say were set, by service, oldest first.
fn recorded(node: &Gateway) -> BTreeMap<String, Vec<u64>> {
    let (mut all, mut cursor) = (BTreeMap::<String, Vec<u64>>::new(), String::new());
    loop {
        let path = format!("/api/v1/audit?action=service:settings&outcome=done&limit=1000{cursor}");
        let (status, text) = node.control(&path);
        assert_eq!(status, 200, "{text}");
        let page: Value = serde_json::from_str(&text).unwrap();
        for item in page["items"].as_array().unwrap() {
            let number = item["after"]["metadata"]["number"].as_str().unwrap().parse().unwrap();
            let target = item["target"]["id"].as_str().unwrap().to_owned();
            all.entry(target).or_default().insert(0, number);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn changes_and_records_are_equal_sets_however_often_it_is_killed() {
    let kills = std::env::var("MAINSTAY_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills: u64 = kills.unwrap_or(KILLS);
    let writers: Vec<Writer> = (0..WRITERS).map(|_| Writer::default()).collect();
    let mut node = Gateway::start_dev("audit-kill", CONFIG);
    for cycle in 0..kills {
        write_and_kill(&mut node, &writers, cycle);
        node = node.again("audit-kill", &[]);
        assert_eq!(node.logged("audit-tampered"), 0, "cycle {cycle}: nobody did anything");
        for (number, writer) in writers.iter().enumerate() {
            let (known, found) = (writer.0.load(Ordering::SeqCst), found(&node, number));
            assert!((known..=known + 1).contains(&found), "cycle {cycle}: {found} for {known}");
            writer.0.store(found, Ordering::SeqCst);
        }
        if cycle % 10 == 9 || cycle + 1 == kills {
            let recorded = recorded(&node);
            for (number, writer) in writers.iter().enumerate() {
                let last = writer.0.load(Ordering::SeqCst);
                let found = recorded.get(&format!("default/w{number}")).cloned();
                let want: Vec<u64> = (1..=last).collect();
                assert_eq!(found.unwrap_or_default(), want, "cycle {cycle}, service {number}");
            }
        }
    }
    node.signal(Signal::TERM);
    node.ended();
    let mut logs = fs::read_dir(node.home().join("data/audit")).unwrap();
    let log = logs.next().expect("there is a log").unwrap().path();
    assert!(logs.next().is_none(), "one log goes on through all of it");
    let verified = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["audit", "verify", "--dir"])
        .arg(&log)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{said}");
}

/// Lets everybody write, and kills the process at some moment, soon or later.
fn write_and_kill(node: &mut Gateway, writers: &[Writer], cycle: u64) {
    let over = AtomicBool::new(false);
    let sum = || -> u64 { writers.iter().map(|writer| writer.0.load(Ordering::SeqCst)).sum() };
    let begun = sum();
    std::thread::scope(|scope| {
        let (here, over) = (&*node, &over);
        for (number, writer) in writers.iter().enumerate() {
            scope.spawn(move || writer.run(number, here, over));
        }
        until("something is written", Duration::from_mins(1), || begun < sum());
        pause(Duration::from_millis(cycle.wrapping_mul(0x9e37_79b9) % 150));
        here.signal(Signal::KILL);
        over.store(true, Ordering::SeqCst);
    });
    node.ended();
}
