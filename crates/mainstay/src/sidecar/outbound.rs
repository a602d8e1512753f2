//! Calls that the program makes: a forward proxy for the names of services.
//!
//! A service gets a route and an upstream when it is called for the first time and the registry, or
//! the configuration, knows instances of it. From then on it is followed as in every gateway, and
//! kept on disk, so that it is found while nobody can be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Request;
use http::header::HOST;
use mainstay_call::resolve::{Resolve, Snapshot, StaticList, Watch};
use mainstay_client::Client;
use mainstay_client::registry::Discovery;
use mainstay_core::name::ServiceName;
use mainstay_proxy::body::InBody;
use mainstay_proxy::config::upstream::RawInstance;
use mainstay_proxy::config::{Plane, RawPlane, RawUpstream};
use mainstay_proxy::gateway::{Gateway, Parts};
use mainstay_proxy::metrics::Metrics;
use mainstay_proxy::route::RawRoute;
use mainstay_proxy::route::condition::RawTest;
use mainstay_proxy::server::{ConnInfo, Handler, Server};
use mainstay_proxy::split::RawTo;
use parking_lot::Mutex;

use super::serve;
use super::target::{Target, hostname, service};
use crate::observing;
use crate::settings::Errors;

/// Services that have a route, and as many hosts that are none; more are answered as unknown ones
/// are.
const HOSTS_MAX: usize = 1_024;

/// How long the first call to a service waits until somebody says who its instances are.
const LOOKUP_MAX: Duration = Duration::from_secs(1);

/// The service behind the route for all hosts that have none of their own. It has no instances.
/// Names of services are read in small letters here, so none is called that.
const UNKNOWN: &str = "UNKNOWN-HOST";

/// How the proxy is set.
#[derive(Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Namespace of services whose host names none.
    pub namespace: String,
    /// Whether hosts that are no services are called as DNS finds them.
    pub any: bool,
    /// Folder of the last known lists of instances.
    pub cache: PathBuf,
    /// The configuration's tables; its routes are not looked at.
    pub tables: RawPlane,
}

/// The proxy in front of everybody else.
#[derive(Debug)]
pub struct Outbound {
    ways: Arc<Ways>,
    server: Server,
    address: SocketAddr,
}

impl Outbound {
    /// Listens, and asks `client` for the instances of services. Must be called within a tokio
    /// runtime, which does the asking.
    ///
    /// # Errors
    ///
    /// [`Errors`] when the tables are wrong or the address is taken.
    pub fn start(config: Config, client: &Client) -> Result<Self, Errors> {
        let Config { listen, namespace, any, cache, tables } = config;
        let discovery = ArcSwap::from_pointee(client.discovery().cache(&cache).start());
        let neighbours = Arc::new(Neighbours { cache, discovery, nobody: StaticList::new() });
        let tables = routed(tables, &namespace);
        let mut parts = Parts::new(Metrics::new());
        parts.resolve = Some(Arc::clone(&neighbours) as _);
        let gateway = super::gateway(tables.clone(), parts)?;
        let ways = Arc::new(Ways {
            own: namespace,
            any,
            gateway,
            neighbours,
            hosts: ArcSwap::default(),
            tables: Mutex::new(tables),
            is_full: AtomicBool::new(false),
        });
        let handled = Arc::clone(&ways);
        let handler = move |_worker| Arc::clone(&handled).handler();
        let (server, address) = serve("the outbound proxy", listen, &ways.gateway, handler)?;
        observing::elsewhere(&ways.gateway, client, service);
        Ok(Self { ways, server, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks another `client` from now on. Must be called within a tokio runtime.
    pub fn ask(&self, client: &Client) {
        self.ways.ask(client);
    }

    /// Lets calls under way end, up to the time the configuration gives them. Blocks the thread.
    pub fn stop(self) {
        self.server.stop();
        let drained = self.server.join();
        tracing::debug!(cut = drained.cut, "the outbound proxy has ended");
    }
}

/// `tables` with no route but the one for hosts that are not known. A service whose table names no
/// namespace is the one that a host of that name means.
fn routed(mut tables: RawPlane, own: &str) -> RawPlane {
    tables.route.clear();
    for (name, upstream) in &mut tables.upstream {
        let meant = || Target::of(name, own).map_or_else(|| own.to_owned(), |it| it.namespace);
        upstream.namespace.get_or_insert_with(meant);
    }
    if let Ok(unknown) = ServiceName::new(UNKNOWN) {
        let route = RawRoute { to: Some(RawTo::One(unknown)), ..RawRoute::default() };
        tables.route.insert(UNKNOWN.to_owned(), route);
        tables.upstream.insert(UNKNOWN.to_owned(), RawUpstream::default());
    }
    tables
}

/// Who knows the instances of services.
#[derive(Debug)]
struct Neighbours {
    cache: PathBuf,
    discovery: ArcSwap<Discovery>,
    nobody: StaticList,
}

impl Resolve for Neighbours {
    /// The service that an upstream stands for.
    fn watch(&self, namespace: &str, upstream: &ServiceName) -> Watch {
        let name = upstream.as_str();
        if name == UNKNOWN {
            return self.nobody.watch(namespace, upstream);
        }
        let own = ServiceName::new(service(name, namespace)).ok();
        self.discovery.load().watch(namespace, own.as_ref().unwrap_or(upstream))
    }
}

/// Hosts that have a route.
#[derive(Clone, Debug, Default)]
struct Hosts {
    /// Names of services, without a port.
    services: BTreeSet<Box<str>>,
    /// Others, as callers write them, each with what tells if it comes to be a service.
    others: BTreeMap<Box<str>, Option<Watch>>,
}

impl Hosts {
    fn has(&self, host: &str) -> bool {
        let is_none_yet = |listed: &Option<Watch>| {
            listed.as_ref().is_none_or(|listed| listed.borrow().instances.is_empty())
        };
        self.services.contains(hostname(host)) || self.others.get(host).is_some_and(is_none_yet)
    }
}

/// The gateway, and the hosts it has a way to.
#[derive(Debug)]
struct Ways {
    own: String,
    any: bool,
    gateway: Arc<Gateway>,
    neighbours: Arc<Neighbours>,
    /// Replaced only by who holds the tables.
    hosts: ArcSwap<Hosts>,
    tables: Mutex<RawPlane>,
    /// Somebody was told that there is no room for more.
    is_full: AtomicBool,
}

impl Ways {
    fn handler(self: Arc<Self>) -> impl Handler + use<> {
        let inner = Rc::new(self.gateway.handler());
        move |request: Request<InBody>, from: Rc<ConnInfo>| {
            let host = host(&request).filter(|host| !self.hosts.load().has(host));
            let new = host.map(|host| (Arc::clone(&self), host.to_owned()));
            let inner = Rc::clone(&inner);
            async move {
                if let Some((ways, host)) = new {
                    ways.find(&host).await;
                }
                inner.call(request, from).await
            }
        }
    }

    fn ask(&self, client: &Client) {
        let discovery = client.discovery().cache(&self.neighbours.cache).start();
        self.neighbours.discovery.store(Arc::new(discovery));
        observing::elsewhere(&self.gateway, client, service);
        let tables = self.tables.lock();
        self.rebuild(&tables);
        // What the one before says is not renewed any more.
        let mut hosts = Hosts::clone(&self.hosts.load());
        for (host, listed) in &mut hosts.others {
            *listed = self.service(&tables, host).map(|service| self.watch(&service));
        }
        self.hosts.store(Arc::new(hosts));
    }

    /// Makes a way to `host`, if there is somebody there.
    async fn find(&self, host: &str) {
        let service = self.service(&self.tables.lock(), host);
        let Some(service) = service else { return self.add_host(host) };
        if service.1.instances.as_ref().is_some_and(|all| !all.is_empty()) {
            return self.add_service(host, service);
        }
        let mut listed = self.watch(&service);
        // Whom an old list knows may be there; that there is nobody is only said by a new one.
        let is_said = |known: &Arc<Snapshot>| {
            !known.instances.is_empty() || (0 < known.revision && !known.stale)
        };
        let said = tokio::time::timeout(LOOKUP_MAX, listed.wait_for(is_said)).await;
        let is_there = match said {
            Ok(Ok(known)) => !known.instances.is_empty(),
            Ok(Err(_)) | Err(_) => return,
        };
        if is_there {
            self.add_service(host, service);
        } else {
            self.add_host(host);
        }
    }

    /// The service that `host` may name, and how it is reached.
    fn service(&self, tables: &RawPlane, host: &str) -> Option<(ServiceName, RawUpstream)> {
        let target = Target::of(hostname(host), &self.own)?;
        let upstream = target.upstream(&self.own)?;
        let table = tables.upstream.get(upstream.as_str()).cloned();
        let made = || RawUpstream { namespace: Some(target.namespace), ..RawUpstream::default() };
        Some((upstream, table.unwrap_or_else(made)))
    }

    fn watch(&self, (upstream, table): &(ServiceName, RawUpstream)) -> Watch {
        self.neighbours.watch(table.namespace.as_deref().unwrap_or(&self.own), upstream)
    }

    fn add_service(&self, host: &str, (upstream, table): (ServiceName, RawUpstream)) {
        let name = hostname(host);
        let route = RawRoute {
            host: Some(name.to_owned()),
            to: Some(RawTo::One(upstream.clone())),
            ..RawRoute::default()
        };
        let there = |hosts: &Hosts| (hosts.services.contains(name), hosts.services.len());
        self.add(host, there, |tables, hosts| {
            tables.upstream.entry(upstream.to_string()).or_insert(table);
            tables.route.insert(name.to_ascii_lowercase(), route);
            hosts.services.insert(name.into());
        });
    }

    /// A host that is no service is called at the port that the caller wrote, if such hosts are.
    fn add_host(&self, host: &str) {
        if !self.any {
            return;
        }
        let name = hostname(host);
        let port = host.get(name.len()..).map(|rest| rest.trim_start_matches('.'));
        let address = match port {
            Some(port) if 1 < port.len() => format!("{name}{port}"),
            _ => format!("{name}:80"),
        };
        let there = |hosts: &Hosts| (hosts.others.contains_key(host), hosts.others.len());
        self.add(host, there, |tables, hosts| {
            // In capitals, as no service is called that.
            let key = format!("HOST-{}", hosts.others.len());
            let Ok(upstream) = ServiceName::new(&key) else { return };
            let route = RawRoute {
                headers: Some([("host".to_owned(), RawTest::Exact(host.to_owned()))].into()),
                to: Some(RawTo::One(upstream)),
                ..RawRoute::default()
            };
            let only = RawUpstream {
                instances: Some(vec![RawInstance::Address(address)]),
                ..RawUpstream::default()
            };
            let listed = self.service(tables, host).map(|service| self.watch(&service));
            tables.upstream.insert(key.clone(), only);
            tables.route.insert(key, route);
            hosts.others.insert(host.into(), listed);
        });
    }

    /// Changes tables and hosts by `change`, for `host`, and serves by them; `there` says whether it
    /// is there and how many of its kind are.
    fn add(
        &self,
        host: &str,
        there: impl FnOnce(&Hosts) -> (bool, usize),
        change: impl FnOnce(&mut RawPlane, &mut Hosts),
    ) {
        let mut tables = self.tables.lock();
        let known = self.hosts.load_full();
        let (is_there, count) = there(&known);
        // Somebody else may have been as fast.
        if is_there {
            return;
        }
        if HOSTS_MAX <= count {
            if !self.is_full.swap(true, Ordering::Relaxed) {
                tracing::warn!(host, max = HOSTS_MAX, "no more hosts are called by this program");
            }
            return;
        }
        let (mut changed, mut hosts) = (tables.clone(), Hosts::clone(&known));
        change(&mut changed, &mut hosts);
        if self.rebuild(&changed) {
            *tables = changed;
            self.hosts.store(Arc::new(hosts));
        }
    }

    /// Serves by `tables`, if that is possible.
    fn rebuild(&self, tables: &RawPlane) -> bool {
        let plane = match Plane::resolve(tables.clone()) {
            Ok(plane) => plane,
            Err(faults) => {
                tracing::warn!(?faults, "a host has no way");
                return false;
            }
        };
        let replaced = self.gateway.replace(Arc::new(plane));
        replaced.inspect_err(|error| tracing::warn!(%error, "a host has no way")).is_ok()
    }
}

/// Whom a request is for, as its caller wrote it.
fn host(request: &Request<InBody>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST)?.to_str().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn outbound(tables: RawPlane, cache: &tempfile::TempDir) -> Outbound {
        let client = Client::builder(["http://127.0.0.1:1"]).build().unwrap();
        let config = Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            namespace: "shop".to_owned(),
            any: true,
            cache: cache.path().to_owned(),
            tables,
        };
        Outbound::start(config, &client).unwrap()
    }

    #[tokio::test]
    async fn no_host_takes_the_way_of_another() {
        let cache = tempfile::tempdir().unwrap();
        let outbound = outbound(RawPlane::default(), &cache);
        let ways = &outbound.ways;
        for host in ["example.com:8080", "example.com"] {
            ways.add_host(host);
            ways.add_host(host);
        }
        for host in ["host-0", "host-0:80", "HOST-0", "unknown-host", "order", "order.shop"] {
            let service = ways.service(&ways.tables.lock(), host).unwrap();
            ways.add_service(host, service);
            assert!(ways.hosts.load().has(host), "{host}");
        }
        let running = ways.gateway.running();
        let upstreams: Vec<&str> = running.upstreams.keys().map(ServiceName::as_str).collect();
        let want = ["HOST-0", "HOST-1", "UNKNOWN-HOST", "host-0", "order", "unknown-host"];
        assert_eq!(upstreams, want);
        // `order` has two.
        assert_eq!(running.plane.routes.iter().count(), want.len() + 1);
        outbound.stop();
    }

    #[tokio::test]
    async fn a_table_says_which_service_it_is_of() {
        let cache = tempfile::tempdir().unwrap();
        let table = |namespace: Option<&str>| RawUpstream {
            namespace: namespace.map(str::to_owned),
            ..RawUpstream::default()
        };
        let upstream = [
            ("pay".to_owned(), table(Some("bank"))),
            ("order".to_owned(), table(None)),
            ("order.stock".to_owned(), table(None)),
        ];
        let outbound =
            outbound(RawPlane { upstream: upstream.into(), ..RawPlane::default() }, &cache);
        let ways = &outbound.ways;
        for (host, name, namespace) in [
            ("pay", "pay", "bank"),
            ("order", "order", "shop"),
            ("order.stock", "order.stock", "stock"),
            ("other.stock", "other.stock", "stock"),
        ] {
            let (upstream, table) = ways.service(&ways.tables.lock(), host).unwrap();
            let found = (upstream.as_str(), table.namespace.as_deref());
            assert_eq!(found, (name, Some(namespace)), "{host}");
        }
        outbound.stop();
    }
}
