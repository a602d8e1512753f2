//! What circuits have learnt outlives the process, even one that is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/support.rs"]
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
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
