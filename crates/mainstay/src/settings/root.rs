//! The root of the configuration of this binary.

use std::collections::BTreeMap;
use std::mem::take;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_coord::name::NodeName;
use mainstay_proxy::config::{Plane, RawGateway, RawPlane, RawUpstream};
use mainstay_proxy::route::RawRoute;
use mainstay_resilience::Invalid;
use mainstay_resilience::circuit::RawCircuit;
use mainstay_resilience::fallback::{RawDeferred, RawFallback};
use mainstay_resilience::limit::RawLimit;
use mainstay_resilience::system::RawSystem;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::audit::settings::{AuditConfig, RawAudit};
use crate::backup::settings::{BackupConfig, RawBackup};
use crate::cluster::consul::{ConsulConfig, RawConsul};
use crate::cluster::keys::{KeyringConfig, RawSecurity};
use crate::cluster::settings::recipes::{RawCentre, RawLock, RecipesConfig};
use crate::cluster::settings::{RawRegistry, RawStore, RegistryConfig, StoreConfig};
use crate::dns::settings::{DnsConfig, RawDns};
use crate::jwt::egress::Egress;
use crate::resolve::settings::{ClientConfig, RawClient};
use crate::sidecar::settings::RawSidecar;
use crate::transaction::settings::{RawTransaction, TransactionConfig};

/// Keys that take effect at the next start only: listeners and threads are made once. Those behind
/// an exclamation mark are excepted from them.
pub const RESTART_ONLY: &[&str] = &[
    "audit",
    "backup",
    "client",
    "config_centre",
    "consul",
    "dns",
    "gateway.listen",
    "gateway.tls_listen",
    "gateway.workers",
    "lock",
    "registry",
    "security",
    "server",
    "sidecar",
    "store",
    "transaction",
    "!transaction.resource",
];

/// The whole configuration as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The control plane of this process.
    pub server: Option<RawServer>,
    /// Listeners, limits of connections, logs.
    pub gateway: RawGateway,
    /// Where agreed state lies: the registry, locks, configuration.
    pub store: RawStore,
    /// What holds for instances of services.
    pub registry: RawRegistry,
    /// What holds for releases of the config centre.
    pub config_centre: RawCentre,
    /// What holds for locks.
    pub lock: RawLock,
    /// Global transactions.
    pub transaction: RawTransaction,
    /// Names of services, for every resolver.
    pub dns: RawDns,
    /// The door for clients of Consul.
    pub consul: RawConsul,
    /// The tamper-evident log of who changed what.
    pub audit: RawAudit,
    /// Backups that are taken by themselves.
    pub backup: RawBackup,
    /// How a process without a registry finds the instances of services.
    pub client: RawClient,
    /// Keys, and what protects them.
    pub security: RawSecurity,
    /// The proxies beside a program that `mainstay run` starts.
    pub sidecar: RawSidecar,
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
    /// Queues of deferred requests by name.
    pub deferred: BTreeMap<String, RawDeferred>,
}

impl Settings {
    /// The data plane's tables, which are taken out.
    pub fn take_plane(&mut self) -> RawPlane {
        RawPlane {
            gateway: take(&mut self.gateway),
            system: take(&mut self.system),
            route: take(&mut self.route),
            upstream: take(&mut self.upstream),
            circuit: take(&mut self.circuit),
            limit: take(&mut self.limit),
            fallback: take(&mut self.fallback),
            deferred: take(&mut self.deferred),
        }
    }
}

/// The whole configuration, resolved.
#[derive(Debug)]
pub struct Meant {
    /// Address of the control port.
    pub control: SocketAddr,
    /// What this process is called among the nodes of its store; `None` for the default.
    pub node: Option<NodeName>,
    /// File with the token callers of the control port bear; `None` for that of the data directory.
    pub token_file: Option<PathBuf>,
    /// As many streams, and questions that wait, as may be open at the control port at once.
    pub streams_max: u32,
    /// Where agreed state lies.
    pub store: StoreConfig,
    /// What holds for instances.
    pub registry: RegistryConfig,
    /// What holds for releases and locks.
    pub recipes: RecipesConfig,
    /// Global transactions.
    pub transaction: TransactionConfig,
    /// Names of services.
    pub dns: DnsConfig,
    /// The door for clients of Consul.
    pub consul: ConsulConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// Backups that are taken by themselves.
    pub backup: BackupConfig,
    /// What wraps the keyring.
    pub keyring: KeyringConfig,
    /// Where connections may go that the configuration asks for.
    pub egress: Egress,
    /// Who knows instances elsewhere.
    pub client: ClientConfig,
    /// The data plane.
    pub plane: Arc<Plane>,
}

impl Meant {
    /// Resolves what was written.
    ///
    /// # Errors
    ///
    /// Every fault there is.
    pub fn resolve(mut raw: Settings) -> Result<Self, Vec<Invalid>> {
        let plane = raw.take_plane();
        let Settings { server, store, registry, dns, consul, client, backup, audit, .. } = raw;
        let Settings { config_centre, lock, security, transaction, .. } = raw;
        let RawServer { listen, node, token_file, streams_max } = server.unwrap_or_default();
        let control = listen.unwrap_or(RawServer::LISTEN);
        let mut faults = Vec::new();
        let streams_max = streams(streams_max, &mut faults);
        let store = StoreConfig::resolve(store, &mut faults);
        let backup = BackupConfig::resolve(backup, &mut faults);
        let audit = AuditConfig::resolve(audit, &security.audit, &mut faults);
        let registry = RegistryConfig::resolve(registry, &mut faults);
        let recipes = RecipesConfig::resolve(&config_centre, &lock, &mut faults);
        let transaction = TransactionConfig::resolve(transaction, store.backend, &mut faults);
        let consul = ConsulConfig::resolve(consul, &mut faults);
        let dns = DnsConfig::resolve(dns, &consul.datacenter, &mut faults);
        let client = ClientConfig::resolve(client, &mut faults);
        let keyring = KeyringConfig::resolve(security.keyring, &mut faults);
        let egress = Egress::resolve(security.egress, &mut faults);
        if !control.ip().is_loopback() {
            let problem = "must be a loopback address while the control plane knows no users";
            faults.push(Invalid::range("server.listen", format!("{problem}, found {control}")));
        }
        let node = node.and_then(|name| {
            let checked = NodeName::new(name);
            checked
                .map_err(|error| faults.push(Invalid::range("server.node", error.to_string())))
                .ok()
        });
        match Plane::resolve(plane) {
            Ok(plane) if faults.is_empty() => {
                let plane = Arc::new(plane);
                Ok(Self {
                    control,
                    node,
                    token_file,
                    streams_max,
                    store,
                    registry,
                    recipes,
                    transaction,
                    dns,
                    consul,
                    audit,
                    backup,
                    keyring,
                    egress,
                    client,
                    plane,
                })
            }
            Ok(_plane) => Err(faults),
            Err(more) => Err(faults.into_iter().chain(more).collect()),
        }
    }
}

/// The `[server]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawServer {
    /// Address of the control port, `host:port`. Restart only. Default `127.0.0.1:7400`.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// What this process is called among the nodes of its store, 1 to 255 bytes without control
    /// characters; one at a time goes by it. Restart only. Default: the host's name, with the
    /// control port behind it where the store is shared.
    pub node: Option<String>,
    /// File whose first line is the token that callers of the control port bear, at least 16
    /// visible ASCII characters; nobody but its owner may read it. For processes that call each
    /// other, who are given the same. Restart only. Default: `token` in the data directory, drawn
    /// at the first start; `dev` draws one at each start.
    pub token_file: Option<PathBuf>,
    /// How many streams, blocking queries and waits for locks may be open at the control port at
    /// once, 1 to 1,000,000; one more is refused with `too-many-streams`. Restart only. Default
    /// 20000.
    pub streams_max: Option<u32>,
}

impl RawServer {
    /// Where the control port listens when nothing is said: loopback, so that nobody is exposed
    /// by starting.
    pub const LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7400);

    /// Streams of the control port when nothing is said. One costs a descriptor and about 10 KiB
    /// with its connection: 200 MiB, and twice the 10,000 watchers a node is built for.
    pub const STREAMS_MAX: u32 = 20_000;
}

fn streams(written: Option<u32>, faults: &mut Vec<Invalid>) -> u32 {
    let most = written.unwrap_or(RawServer::STREAMS_MAX);
    if !(1..=1_000_000).contains(&most) {
        let problem = format!("must be 1 to 1000000, found {most}");
        faults.push(Invalid::range("server.streams_max", problem));
    }
    most
}
