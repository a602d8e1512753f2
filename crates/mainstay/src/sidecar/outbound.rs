//! Calls that the program makes: a forward proxy for the names of services.
//!
//! A service gets a route and an upstream when it is called for the first time and the registry, or
//! the configuration, knows instances of it. From then on it is followed as in every gateway, and
//! kept on disk, so that it is found while nobody can be asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::Request;
use http::header::HOST;
use mainstay_call::resolve::{Resolve, StaticList, Watch};
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
use super::target::{Target, hostname};
use crate::settings::Errors;

/// Hosts that have a route; more are answered as unknown ones are.
const HOSTS_MAX: usize = 1_024;

/// How long the first call to a service waits until somebody says who its instances are.
const LOOKUP_MAX: Duration = Duration::from_secs(1);

/// The service behind the route for all hosts that have none of their own. It has no instances, and
/// no service of the registry is called that.
const UNKNOWN: &str = "unknown.host";

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
        let neighbours = Arc::new(Neighbours {
            own: namespace.clone(),
            cache,
            discovery: ArcSwapOption::empty(),
            nobody: StaticList::new(),
        });
        neighbours.ask(client);
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
        Ok(Self { ways, server, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks another `client` from now on. Must be called within a tokio runtime.
    pub fn ask(&self, client: &Client) {
        self.ways.neighbours.ask(client);
        self.ways.rebuild(&self.ways.tables.lock());
    }

    /// Lets calls under way end, up to the time the configuration gives them. Blocks the thread.
    pub fn stop(self) {
        self.server.stop();
        let drained = self.server.join();
        tracing::debug!(cut = drained.cut, "the outbound proxy has ended");
    }
}

/// `tables` with no route but the one for hosts that are not known.
fn routed(mut tables: RawPlane, namespace: &str) -> RawPlane {
    tables.route.clear();
    for upstream in tables.upstream.values_mut() {
        upstream.namespace.get_or_insert_with(|| namespace.to_owned());
    }
    if let Ok(unknown) = ServiceName::new(UNKNOWN) {
        let route = RawRoute { to: Some(RawTo::One(unknown)), ..RawRoute::default() };
        tables.route.insert("unknown".to_owned(), route);
        tables.upstream.insert(UNKNOWN.to_owned(), RawUpstream::default());
    }
    tables
}

/// Who knows the instances of services.
#[derive(Debug)]
struct Neighbours {
    own: String,
    cache: PathBuf,
    discovery: ArcSwapOption<Discovery>,
    nobody: StaticList,
}

impl Neighbours {
    fn ask(&self, client: &Client) {
        let discovery = client.discovery().cache(&self.cache).start();
        self.discovery.store(Some(Arc::new(discovery)));
    }
}

impl Resolve for Neighbours {
    /// The service that an upstream stands for.
    fn watch(&self, namespace: &str, upstream: &ServiceName) -> Watch {
        let discovery = self.discovery.load();
        let discovery = discovery.as_ref().filter(|_| upstream.as_str() != UNKNOWN);
        let Some(discovery) = discovery else { return self.nobody.watch(namespace, upstream) };
        let behind = upstream.as_str().strip_suffix(namespace);
        let name = behind.filter(|_| namespace != self.own).and_then(|name| name.strip_suffix('.'));
        match name.and_then(|name| ServiceName::new(name).ok()) {
            Some(service) => discovery.watch(namespace, &service),
            None => discovery.watch(namespace, upstream),
        }
    }
}

/// Hosts that have a route.
#[derive(Clone, Debug, Default)]
struct Hosts {
    /// Names of services, without a port.
    services: BTreeSet<Box<str>>,
    /// Others, as callers write them.
    others: BTreeSet<Box<str>>,
}

impl Hosts {
    fn has(&self, host: &str) -> bool {
        self.services.contains(hostname(host)) || self.others.contains(host)
    }
}

/// The gateway, and the hosts it has a way to.
#[derive(Debug)]
struct Ways {
    own: String,
    any: bool,
    gateway: Arc<Gateway>,
    neighbours: Arc<Neighbours>,
    hosts: ArcSwap<Hosts>,
    tables: Mutex<RawPlane>,
    /// Somebody was told that there is no room for more.
    is_full: AtomicBool,
}

impl Ways {
    fn handler(self: Arc<Self>) -> impl Handler + use<> {
        let inner = self.gateway.handler();
        let inner = std::rc::Rc::new(inner);
        move |request: Request<InBody>, from: std::rc::Rc<ConnInfo>| {
            let (ways, inner) = (Arc::clone(&self), std::rc::Rc::clone(&inner));
            async move {
                if let Some(host) = host(&request)
                    && !ways.hosts.load().has(host)
                {
                    let host = host.to_owned();
                    ways.find(&host).await;
                }
                inner.call(request, from).await
            }
        }
    }

    /// Makes a way to `host`, if there is somebody there.
    async fn find(&self, host: &str) {
        let name = hostname(host);
        let Some(target) = Target::of(name, &self.own) else {
            if self.any {
                self.add_host(host);
            }
            return;
        };
        let Some(upstream) = target.upstream(&self.own) else { return };
        let listed = {
            let tables = self.tables.lock();
            let instances = tables.upstream.get(upstream.as_str());
            instances.and_then(|known| known.instances.as_ref()).is_some_and(|all| !all.is_empty())
        };
        if listed {
            return self.add_service(host, &target, &upstream);
        }
        let mut watch = self.neighbours.watch(&target.namespace, &upstream);
        let answered = watch.wait_for(|known| 0 < known.revision);
        let Ok(Ok(known)) = tokio::time::timeout(LOOKUP_MAX, answered).await else { return };
        let is_there = !known.instances.is_empty();
        drop(known);
        if is_there {
            self.add_service(host, &target, &upstream);
        } else if self.any {
            self.add_host(host);
        }
    }

    fn add_service(&self, host: &str, target: &Target, upstream: &ServiceName) {
        let route = RawRoute {
            host: Some(hostname(host).to_owned()),
            to: Some(RawTo::One(upstream.clone())),
            ..RawRoute::default()
        };
        let made =
            || RawUpstream { namespace: Some(target.namespace.clone()), ..RawUpstream::default() };
        self.add(host, |tables, hosts| {
            tables.upstream.entry(upstream.to_string()).or_insert_with(made);
            tables.route.insert(hostname(host).to_ascii_lowercase(), route);
            hosts.services.insert(hostname(host).into());
        });
    }

    /// A host that is no service is called at the port that the caller wrote.
    fn add_host(&self, host: &str) {
        let name = hostname(host);
        let port = host.get(name.len()..).map(|rest| rest.trim_start_matches('.'));
        let address = match port {
            Some(port) if !port.is_empty() => format!("{name}{port}"),
            _ => format!("{name}:80"),
        };
        self.add(host, |tables, hosts| {
            // Names that a host cannot have: it cannot come to be called like a service.
            let key = format!("host_{}", tables.route.len());
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
            tables.upstream.insert(key.clone(), only);
            tables.route.insert(key, route);
            hosts.others.insert(host.into());
        });
    }

    /// Changes tables and hosts by `change`, for `host`, and serves by them.
    fn add(&self, host: &str, change: impl FnOnce(&mut RawPlane, &mut Hosts)) {
        let mut tables = self.tables.lock();
        let mut hosts = Hosts::clone(&self.hosts.load());
        // Somebody else may have been as fast.
        if hosts.has(host) {
            return;
        }
        if HOSTS_MAX <= hosts.services.len() + hosts.others.len() {
            if !self.is_full.swap(true, Ordering::Relaxed) {
                tracing::warn!(host, max = HOSTS_MAX, "no more hosts are called by this program");
            }
            return;
        }
        let mut changed = tables.clone();
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
