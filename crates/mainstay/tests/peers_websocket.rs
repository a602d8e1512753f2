//! `websockets`, client and server, with the gateway in between.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/child.rs"]
mod child;
#[path = "support/python.rs"]
mod python;
#[path = "support/support.rs"]
mod support;

use std::time::Duration;

use python::{Server, Speaking};
use rustix::process::Signal;
use support::gateway::Gateway;
use support::wait::until;

#[track_caller]
fn gateway(name: &str, server: &Server) -> Gateway {
    let config = format!(
        r#"
[server]
listen = "127.0.0.1:0"
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:0"]
tunnel_idle_seconds = 2
drain_delay_seconds = 0.1
drain_seconds = 1
access_log = {{ format = "off" }}
[route.all]
to = "all"
[upstream.all]
instances = ["{}"]
connections_max = 1000
"#,
        server.address
    );
    Gateway::start(name, &config)
}

#[track_caller]
fn check(case: &str) {
    let server = Server::start("ws_server.py", &[]);
    let gateway = gateway(&format!("websocket-{case}"), &server);
    let before = gateway.holds().sockets;
    python::run("ws_client.py", &[case, &gateway.address(0).to_string()]);
    // A refused handshake leaves a pooled connection.
    until("no tunnel is left", Duration::from_secs(10), || gateway.holds().sockets <= before + 2);
}

#[test]
fn messages_pass_whole_both_ways() {
    check("messages");
}

#[test]
fn close_codes_pass_both_ways() {
    check("closing");
}

#[test]
fn a_refused_handshake_is_told() {
    check("denied");
}

#[test]
fn a_silent_tunnel_ends_and_one_that_pings_does_not() {
    check("idle");
}

#[test]
fn two_hundred_tunnels_are_open_at_once() {
    check("many");
}

#[test]
fn a_server_that_dies_takes_its_tunnels_with_it() {
    let server = Server::start("ws_server.py", &[]);
    let gateway = gateway("websocket-died", &server);
    let mut client = Speaking::start("ws_client.py", &["cut", &gateway.address(0).to_string()]);
    client.says("standing");
    drop(server);
    client.ends_well();
}

#[test]
fn a_drain_tells_tunnels_that_the_server_goes_away() {
    let server = Server::start("ws_server.py", &[]);
    let mut gateway = gateway("websocket-drain", &server);
    let mut client = Speaking::start("ws_client.py", &["told", &gateway.address(0).to_string()]);
    client.says("standing");
    gateway.signal(Signal::TERM);
    client.ends_well();
    gateway.ended();
}
