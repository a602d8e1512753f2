//! `[sidecar]`: the proxies beside a program that `mainstay run` starts.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::Deserialize;

/// The `[sidecar]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSidecar {
    /// Where calls to the program are taken, `address:port`; others are then told to call this port.
    /// Default: nowhere, and others call the program itself.
    #[schemars(with = "Option<String>")]
    pub inbound: Option<SocketAddr>,
    /// Where calls of the program are taken, `address:port`; it finds this in `HTTP_PROXY`. Default
    /// `127.0.0.1:0`, which is any free port.
    #[schemars(with = "Option<String>")]
    pub outbound: Option<SocketAddr>,
    /// Whether hosts that are no services are called as DNS finds them. Default `false`: they are
    /// answered with `no-instance`.
    pub outbound_any: Option<bool>,
    /// Zone of the program, at most 128 bytes. Default none.
    pub zone: Option<String>,
}

impl RawSidecar {
    /// Where calls of the program are taken.
    pub fn outbound(&self) -> SocketAddr {
        self.outbound.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }
}
