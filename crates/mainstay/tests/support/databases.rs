//! A coordinator with databases that take part, and how it is asked while it dies and comes back.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

#[path = "connection.rs"]
mod connection;

pub(crate) use connection::Connection;

use crate::shop::Shop;
use crate::support::gateway::Gateway;
use crate::support::wait::until;

/// How long a coordinator may take until it has looked at its databases.
const PATIENCE: Duration = Duration::from_secs(40);

/// A coordinator that sweeps every `sweep_seconds`, and leaves what nobody speaks of alone for
/// `grace_seconds`.
pub(crate) fn config(sweep_seconds: u64, grace_seconds: u64) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
[gateway]
listen = ["127.0.0.1:0"]
drain_delay_seconds = 0
[transaction]
backoff_initial_milliseconds = 20
backoff_max_seconds = 1
sweep_interval_seconds = {sweep_seconds}
orphan_grace_seconds = {grace_seconds}
"#
    )
}

/// Starts one with `config`, in whose transactions `shops` take part under their names.
#[track_caller]
pub(crate) fn start<'a>(
    name: &str,
    config: &str,
    shops: impl IntoIterator<Item = (&'a str, &'a Shop)>,
) -> Gateway {
    let tables: Vec<String> = shops.into_iter().map(|(name, shop)| shop.table(name)).collect();
    let node = Gateway::start_dev(name, &[config, &tables.concat()].concat());
    until_ready(&node, tables.len());
    node
}

/// Waits until `count` databases take part.
#[track_caller]
pub(crate) fn until_ready(node: &Gateway, count: usize) {
    until("all take part", PATIENCE, || node.logged(READY) == count);
}

/// What it logs of each database that takes part.
pub(crate) const READY: &str = "database takes part in transactions";

/// Asks the coordinator behind `door` for `path` of transactions; `None` if nobody answers, or none
/// that can say.
pub(crate) fn ask(
    (address, token): (SocketAddr, &str),
    (method, path): (&str, &str),
    document: &Value,
) -> Option<(u16, Value)> {
    let body = if document.is_null() { String::new() } else { document.to_string() };
    let path = format!("/api/v1/transactions{path}");
    let headers = format!("authorization: Bearer {token}\r\nconnection: close\r\n");
    let (status, text) =
        Connection::open(address)?.ask(method, &path, &headers, body.as_bytes())?;
    (status != 503).then(|| (status, serde_json::from_str(&text).unwrap()))
}
