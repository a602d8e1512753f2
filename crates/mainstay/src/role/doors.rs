//! What a process listens on, and what it serves there.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mainstay_core::problem::Code;
use mainstay_proxy::config::GatewayConfig;
use mainstay_proxy::config::gateway::ProxyProtocol;
use mainstay_proxy::forwarded::TrustedProxies;
use mainstay_proxy::gateway::{Gateway, Running};
use mainstay_proxy::listener::{Caps, Listener};
use mainstay_proxy::server::{self, Endpoint, Limits, Plan, Server};
use mainstay_proxy::tls::{ClientCertificates, ServerTls, TlsError};

use super::listeners::{self, Inherited};
use super::shared::{Transport, connections_max, pairs, per_address_max, unreadable};
use super::{Start, failed, reach};
use crate::cluster::Cluster;
use crate::dns::Dns;
use crate::dns::directory::RegistryDirectory;
use crate::dns::door::Door;
use crate::dns::settings::DnsConfig;
use crate::report::Report;
use crate::settings::Errors;
use crate::settings::root::Meant;

/// Everything that is listened on.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) control: TcpListener,
    pub(super) consul: Option<TcpListener>,
    pub(super) dtm: Option<TcpListener>,
    pub(super) plain: Vec<Listener>,
    pub(super) tls: Vec<Listener>,
    pub(super) dns: Option<Door>,
}

impl Doors {
    /// What answers names on the door that was opened for them.
    pub(super) fn answering(&self, config: &DnsConfig, cluster: &Cluster) -> Option<Arc<Dns>> {
        let listen = self.dns.as_ref()?.address();
        let reached = self.control.local_addr().ok()?.ip();
        let node = cluster.node.as_str().to_owned();
        let nodes = cluster.consul.as_ref().map(|door| door.nodes.clone()).unwrap_or_default();
        let directory = RegistryDirectory::new(cluster.registry.clone(), node, reached, nodes);
        Some(Arc::new(Dns::new(DnsConfig { listen, ..config.clone() }, directory)))
    }
}

/// Opens all of them, or takes over those that are `inherited`.
pub(super) fn open_all(
    start: &Start,
    meant: &Meant,
    workers: NonZeroUsize,
    inherited: &mut Inherited,
) -> Result<Doors, Errors> {
    reach::check(start, meant)?;
    let random = start.random_ports;
    let one = NonZeroUsize::MIN;
    let control = alone(&listeners::open("control", meant.control, random, one, inherited)?)?;
    let mut clients = |kind: &str, listen: Option<SocketAddr>| -> Result<_, Errors> {
        let listen = listen.filter(|_| start.role.keeps_state());
        listen.map(|at| alone(&listeners::open(kind, at, random, one, inherited)?)).transpose()
    };
    let consul = clients("consul", meant.consul.listen)?;
    let dtm = clients("dtm", meant.transaction.dtm.http_listen)?;
    let mut open = |kind: &str, addresses: &[SocketAddr]| -> Result<Vec<Listener>, Errors> {
        let each = addresses.iter().enumerate().map(|(n, address)| {
            listeners::open(&format!("{kind}-{n}"), *address, random, workers, inherited)
        });
        each.collect()
    };
    let gateway = &meant.plane.gateway;
    let (plain, tls): (&[SocketAddr], &[SocketAddr]) =
        if start.role.takes_calls() { (&gateway.listen, &gateway.tls_listen) } else { (&[], &[]) };
    let (plain, tls) = (open("gateway", plain)?, open("gateway-tls", tls)?);
    let dns = (start.role.keeps_state() && meant.dns.enabled)
        .then(|| listeners::open_dns(meant.dns.listen, random))
        .transpose()?;
    Ok(Doors { control, consul, dtm, plain, tls, dns })
}

/// The one socket of a listener.
fn alone(listener: &Listener) -> Result<TcpListener, Errors> {
    let sockets = listener.duplicate().map_err(|error| failed("control port", &error))?;
    let socket = sockets.into_iter().next().map(TcpListener::from);
    socket.ok_or_else(|| Report::error(Code::Internal, "a listener has no socket").into())
}

/// What the control plane listens on.
#[derive(Debug)]
pub(super) struct ControlDoors {
    /// Its port.
    pub(super) control: TcpListener,
    /// Where clients of Consul are answered alone.
    pub(super) consul: Option<TcpListener>,
    /// Where clients of DTM are answered alone.
    pub(super) dtm: Option<TcpListener>,
    /// Where names are answered.
    pub(super) names: Option<Door>,
}

/// Listening sockets by name.
pub(super) type Sockets = BTreeMap<String, Vec<OwnedFd>>;

/// Copies of everything that is listened on, kept for a process that takes over.
pub(super) fn duplicates(doors: &Doors) -> Result<Sockets, Errors> {
    let mut kept = Sockets::new();
    let failed = |error: io::Error| failed("listening sockets", &error);
    let control = doors.control.try_clone().map_err(failed)?;
    kept.insert("control".to_owned(), vec![control.into()]);
    for (kind, clients) in [("consul", &doors.consul), ("dtm", &doors.dtm)] {
        if let Some(clients) = clients {
            kept.insert(kind.to_owned(), vec![clients.try_clone().map_err(failed)?.into()]);
        }
    }
    for (kind, listeners) in [("gateway", &doors.plain), ("gateway-tls", &doors.tls)] {
        for (n, listener) in listeners.iter().enumerate() {
            kept.insert(format!("{kind}-{n}"), listener.duplicate().map_err(failed)?);
        }
    }
    Ok(kept)
}

/// What is handed over; there is nothing left to hand over once the process drains.
pub(super) fn copies(kept: &Sockets) -> io::Result<Vec<(String, Vec<OwnedFd>)>> {
    if kept.is_empty() {
        return Err(io::Error::other("the process drains"));
    }
    let copy = |(name, sockets): (&String, &Vec<OwnedFd>)| {
        let sockets: io::Result<Vec<OwnedFd>> = sockets.iter().map(OwnedFd::try_clone).collect();
        Ok((name.clone(), sockets?))
    };
    kept.iter().map(copy).collect()
}

/// Starts the workers.
pub(super) fn serve_gateway(
    gateway: &Arc<Gateway>,
    doors: Doors,
    transport: &Transport,
    workers: NonZeroUsize,
) -> Result<Server, Errors> {
    let Transport { tls, limits, caps } = transport;
    let plain = doors.plain.into_iter().map(|listener| Endpoint { listener, tls: None });
    let secure = doors.tls.into_iter().map(|listener| Endpoint { listener, tls: tls.clone() });
    let plan = Plan {
        workers,
        endpoints: plain.chain(secure).collect(),
        limits: limits.clone(),
        caps: Arc::clone(caps),
        on_incident: gateway.on_incident(),
    };
    let gateway = Arc::clone(gateway);
    server::serve(plan, move |_worker| gateway.handler()).map_err(|error| failed("workers", &error))
}

/// What of the transport a reload reaches, by the configuration that `gateway` serves.
pub(super) fn transport(gateway: &Gateway) -> Result<Transport, Errors> {
    let running = gateway.running();
    let config = &running.plane.gateway;
    Ok(Transport {
        tls: server_tls(config).map_err(|error| unreadable(&error))?,
        limits: limits(&running).into(),
        caps: Caps::new(connections_max(config), per_address_max(config)),
    })
}

fn server_tls(config: &GatewayConfig) -> Result<Option<ServerTls>, TlsError> {
    if config.tls_listen.is_empty() {
        return Ok(None);
    }
    ServerTls::new(&pairs(config), config.strict_sni, &ClientCertificates::Off).map(Some)
}

/// What connections are held to.
pub(crate) fn limits(running: &Running) -> Limits {
    let config = &running.plane.gateway;
    let limits = &config.limits;
    Limits {
        framing: *running.framing(),
        head: limits.head,
        body_gap: limits.body_gap,
        body_rate_min_bytes: u64::from(limits.body_rate_min_bytes),
        write_stall: limits.write_stall,
        keepalive: limits.keepalive,
        connection_age: limits.connection_age,
        tunnel_idle: config.tunnel_idle,
        requests_per_connection_max: u64::from(limits.requests_per_connection_max),
        h2_streams_max: limits.h2.streams_max,
        h2_header_list_bytes_max: limits.h2.header_list_bytes_max,
        h2_pending_reset_max: limits.h2.pending_reset_max as usize,
        h2_local_reset_max: limits.h2.local_reset_max as usize,
        announcing: announcing(config),
        drain: config.drain,
        ..Limits::default()
    }
}

/// Who says by the PROXY protocol whose connections they pass on.
fn announcing(config: &GatewayConfig) -> TrustedProxies {
    match config.proxy_protocol {
        ProxyProtocol::Off => TrustedProxies::default(),
        ProxyProtocol::V2 => TrustedProxies::new(config.trusted_proxies.to_vec()),
    }
}
