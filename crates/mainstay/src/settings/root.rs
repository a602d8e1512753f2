//! The root of the configuration of this binary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_proxy::config::{Plane, RawGateway, RawPlane, RawUpstream};
use mainstay_proxy::route::RawRoute;
use mainstay_resilience::Invalid;
use mainstay_resilience::circuit::RawCircuit;
use mainstay_resilience::fallback::RawFallback;
use mainstay_resilience::limit::RawLimit;
use mainstay_resilience::system::RawSystem;
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
    /// Listeners, limits of connections, logs.
    pub gateway: RawGateway,
    /// Protection of this process.
    pub system: RawSystem,
    /// Routes by name.
    pub route: BTreeMap<String, RawRoute>,
    /// Services by name, and how this process reaches them.
    pub upstream: BTreeMap<String, RawUpstream>,
    /// Circuits by name; `default` applies to each instance unless an upstream names others.
    pub circuit: BTreeMap<String, RawCircuit>,
    /// Limits by name.
    pub limit: BTreeMap<String, RawLimit>,
    /// Fallbacks by name.
    pub fallback: BTreeMap<String, RawFallback>,
}

/// The whole configuration, resolved.
#[derive(Debug)]
pub struct Meant {
    /// Address of the control port.
    pub control: SocketAddr,
    /// The data plane.
    pub plane: Arc<Plane>,
}

impl Meant {
    /// Resolves what was written.
    ///
    /// # Errors
    ///
    /// Every fault there is.
    pub fn resolve(raw: Settings) -> Result<Self, Vec<Invalid>> {
        let Settings { server, gateway, system, route, upstream, circuit, limit, fallback } = raw;
        let control = server.unwrap_or_default().listen.unwrap_or(RawServer::LISTEN);
        let raw = RawPlane { gateway, system, route, upstream, circuit, limit, fallback };
        let plane = Arc::new(Plane::resolve(raw)?);
        if control.ip().is_loopback() {
            return Ok(Self { control, plane });
        }
        Err(vec![Invalid::range(
            "server.listen",
            format!(
                "must be a loopback address while the control plane knows no users, found {control}"
            ),
        )])
    }
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
