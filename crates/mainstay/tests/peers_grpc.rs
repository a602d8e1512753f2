//! `grpcio`, client and server, with the gateway in between.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/child.rs"]
mod child;
#[path = "support/python.rs"]
mod python;
#[path = "support/support.rs"]
mod support;

use std::net::SocketAddr;

use python::{Server, Speaking};
use rustix::process::Signal;
use support::gateway::Gateway;

/// A gateway in front of `servers`, with `limits` on its own connections.
#[track_caller]
fn gateway(name: &str, servers: &[SocketAddr], limits: &str) -> Gateway {
    let instances: Vec<String> = servers.iter().map(|at| format!("\"{at}\"")).collect();
    let config = format!(
        r#"
[server]
listen = "127.0.0.1:0"
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0.1
access_log = {{ format = "off" }}
limits = {{ {limits} }}
[route.orders]
prefix = "/shop.Orders"
to = "orders"
timeout_seconds = 4
deadline_max_seconds = 60
idempotent = true
[upstream.orders]
instances = [{}]
protocol = "http2"
circuits = []
# grpcio answers `cancelled` itself to a call that reaches it between its two GOAWAY frames.
retry = {{ attempts = 3, retry_on = ["connect", "refused-stream", "unavailable", "cancelled"] }}
"#,
        instances.join(", ")
    );
    Gateway::start(name, &config)
}

#[track_caller]
fn client(case: &str, gateway: &Gateway, servers: &[&Server]) {
    let mut arguments = vec![case.to_owned(), gateway.address(0).to_string()];
    arguments.extend(servers.iter().map(|server| server.address.to_string()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    python::run("grpc_client.py", &arguments);
}

/// Runs a case that needs one server and no more.
#[track_caller]
fn check(case: &str) {
    let server = Server::start("grpc_server.py", &[]);
    let gateway = gateway(&format!("grpc-{case}"), &[server.address], "");
    client(case, &gateway, &[]);
}

#[test]
fn unary_calls_keep_messages_and_metadata() {
    check("unary");
}

#[test]
fn streams_of_three_kinds_keep_their_order_and_wait_for_nobody() {
    check("streams");
}

#[test]
fn every_status_comes_with_its_words_and_trailers() {
    check("statuses");
}

#[test]
fn deadlines_are_told_and_kept() {
    check("deadlines");
}

#[test]
fn retries_wait_as_long_as_they_are_asked_to() {
    check("retries");
}

#[test]
fn a_hundred_streams_are_open_at_once() {
    check("hundred");
}

#[test]
fn a_server_that_goes_away_finishes_and_the_other_takes_over() {
    let servers = [(); 2].map(|()| Server::start("grpc_server.py", &[]));
    let addresses = servers.each_ref().map(|server| server.address);
    let gateway = gateway("grpc-upstream-goaway", &addresses, "");
    client("upstream_goaway", &gateway, &[&servers[0], &servers[1]]);
}

#[test]
fn connections_that_are_old_enough_end_unnoticed() {
    let server = Server::start("grpc_server.py", &[]);
    let gateway = gateway("grpc-age", &[server.address], "requests_per_connection_max = 50");
    client("gateway_goaway", &gateway, &[]);
}

#[test]
fn a_drain_says_goaway_and_finishes_what_is_in_flight() {
    let server = Server::start("grpc_server.py", &[]);
    let mut gateway = gateway("grpc-drain", &[server.address], "");
    let mut client =
        Speaking::start("grpc_client.py", &["drained", &gateway.address(0).to_string()]);
    client.says("in flight");
    gateway.signal(Signal::TERM);
    client.ends_well();
    assert!(gateway.ended().success(), "{}", gateway.log());
}
