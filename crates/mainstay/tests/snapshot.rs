//! What circuits have learnt outlives the process, even one that is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use backend::Backend;
use rustix::process::Signal;
use support::gateway::Gateway;
use support::wait::{pause, until};

const PATIENCE: Duration = Duration::from_secs(10);

/// Not a test: the child process that the tests here fail.
#[test]
fn a_backend() {
    backend::serve_if_asked();
}

fn config(backend: SocketAddr) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
access_log = {{ format = "off" }}
[route.item]
prefix = "/"
to = "item"
circuits = ["whole"]
[upstream.item]
instances = ["{backend}"]
circuits = []
retry = {{ attempts = 1 }}
[circuit.whole]
scope = "route"
consecutive_failures = 3
cooldown_seconds = 60
"#
    )
}

/// The problem that a request ends in.
fn ask(gateway: &Gateway) -> String {
    let mut stream = TcpStream::connect(gateway.address(0)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /item HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A gateway whose only circuit has just opened, and the service that was at fault.
fn opened(name: &str) -> (Gateway, Backend) {
    let backend = Backend::start();
    let gateway = Gateway::start(name, &config(backend.address));
    backend.behave(503, Duration::ZERO);
    until("the circuit opens", PATIENCE, || ask(&gateway).contains("circuit-open"));
    backend.behave(200, Duration::ZERO);
    (gateway, backend)
}

#[test]
fn a_circuit_is_still_open_after_the_gateway_was_killed() {
    let (mut gateway, _backend) = opened("snapshot-killed");
    pause(Duration::from_secs(1)); // What is promised to be on the disk by then.
    gateway.signal(Signal::KILL);
    gateway.ended();
    let again = gateway.again("snapshot-killed-2", &[]);
    let answer = ask(&again);
    assert!(answer.contains("circuit-open"), "{answer}\n{}", again.log());
}

#[test]
fn an_orderly_end_writes_what_was_learnt_last() {
    let (mut gateway, _backend) = opened("snapshot-ended");
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success(), "{}", gateway.log());
    let again = gateway.again("snapshot-ended-2", &[]);
    let answer = ask(&again);
    assert!(answer.contains("circuit-open"), "{answer}\n{}", again.log());
}

/// A service that wants to be left alone for a minute.
fn refuser() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 1024];
            drop(stream.read(&mut head));
            let answer = "HTTP/1.1 429 X\r\nretry-after: 60\r\nconnection: close\r\n\
                content-length: 0\r\n\r\n";
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    address
}

#[test]
fn what_was_used_and_who_wants_to_be_left_alone_is_known_after_a_kill() {
    let backend = refuser();
    let limit = "
[limit.hourly]
kind = \"counter\"
max = 2
window_seconds = 3600
key = [\"client_address\"]
";
    let limited = "circuits = [\"whole\"]\nlimits = [\"hourly\"]";
    let config = config(backend).replacen("circuits = [\"whole\"]", limited, 1) + limit;
    let mut gateway = Gateway::start("snapshot-quota", &config);
    for _ in 0..2 {
        let answer = ask(&gateway);
        assert!(answer.starts_with("HTTP/1.1 429 ") && !answer.contains("limited"), "{answer}");
    }
    assert!(ask(&gateway).contains("\"limited\""), "a third in an hour");
    pause(Duration::from_secs(1)); // What is promised to be on the disk by then.
    gateway.signal(Signal::KILL);
    gateway.ended();
    let again = gateway.again("snapshot-quota-2", &[]);
    assert!(ask(&again).contains("\"limited\""), "{}", again.log());
    let (_, balance) = again.control("/api/v1/balance/default/item");
    let balance: serde_json::Value = serde_json::from_str(&balance).unwrap();
    let estimate = balance.to_string();
    let estimate = estimate.split_once("\"estimate_seconds\":").map_or("", |(_, rest)| rest);
    let seconds: f64 = estimate.split(',').next().unwrap().parse().expect(estimate);
    assert!((40.0..=60.0).contains(&seconds), "asked to wait for a minute: {balance}");
    until("its own snapshot is written", PATIENCE, || {
        again.control("/metrics").1.contains("\nmainstay_calls_snapshot_age_seconds 0")
    });
}

#[test]
fn a_damaged_file_is_ignored_with_a_warning() {
    let (mut gateway, _backend) = opened("snapshot-damaged");
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success(), "{}", gateway.log());
    let file = gateway.home().join("data/calls.snapshot");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let again = gateway.again("snapshot-damaged-2", &[]);
    assert_eq!(again.logged("circuits begin anew"), 1, "{}", again.log());
    let answer = ask(&again);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
