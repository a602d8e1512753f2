//! The root of the configuration of this binary.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;

/// Keys that take effect at the next start only: listeners and threads are made once.
pub const RESTART_ONLY: &[&str] =
    &["gateway.listen", "gateway.tls_listen", "gateway.workers", "server.listen"];

/// The whole configuration as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The control plane of this process.
    pub server: Option<RawServer>,
}

/// The `[server]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawServer {
    /// Address of the control port, `host:port`. Restart only. Default `127.0.0.1:7400`.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
}

impl RawServer {
    /// Where the control port listens when nothing is said: loopback, so that nobody is exposed
    /// by starting.
    pub const LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7400);
}
