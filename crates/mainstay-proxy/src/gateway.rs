//! The gateway: what it is set to, and how that changes while it runs.
//!
//! All that follows from the configuration is settled in a [`Running`] value, which requests load
//! once and keep to their end. A reload builds the next one beside it, takes over what was learnt
//! (circuits, limits, budgets, endpoints keep their state when their names stay), and swaps.

mod affinity;
mod answer;
mod arrival;
mod copies;
mod document;
pub mod keys;
mod lane;
mod observer;
pub mod protection;
mod receipts;
mod serve;
pub mod substitutes;
mod telling;
#[cfg(test)]
mod tests;
mod upstreams;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Request;
use mainstay_call::Deferred;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::failing::Failing;
use mainstay_call::machines::{Machines, Saved};
use mainstay_call::resolve::Resolve;
use mainstay_call::stage::fallback::Switches;
use mainstay_call::stale::StaleStore;
use mainstay_core::Clock as _;
use mainstay_core::name::ServiceName;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use lane::Lane;
use lane::OwnLane;
pub use upstreams::UpstreamRuntime;
use upstreams::subject;

use crate::access_log::AccessLog;
use crate::body::InBody;
use crate::config::Plane;
use crate::events;
use crate::faults::FaultBook;
use crate::forwarded::TrustedProxies;
use crate::identify::Issuers;
use crate::metrics::{Metrics, RouteMetrics};
use crate::mirror::Mirrors;
use crate::record::Records;
use crate::route::Route;
use crate::server::{ConnInfo, Handler, Incident, OnIncident};
use crate::summary::Summaries;
use crate::tls::TlsError;
use observer::Counting;
use protection::Protection;

/// A gateway that serves requests by its configuration.
#[derive(Debug)]
pub struct Gateway {
    running: ArcSwap<Running>,
    /// Held while a configuration is built, so that two reloads do not cross.
    building: Mutex<()>,
    parts: Parts,
}

/// What outlives every configuration.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// One line a request; `None` without a log.
    pub log: Option<AccessLog>,
    /// Circuits, limits and budgets by name.
    pub machines: Arc<Machines>,
    /// Faults to rehearse with.
    pub faults: Arc<FaultBook>,
    /// Decisions, kept to be explained.
    pub records: Arc<Records>,
    /// What calls of the last minutes were, for rules to be tried with; `None` where nobody tries.
    pub summaries: Option<Arc<Summaries>>,
    /// Instances that failed calls, until somebody tells the registry.
    pub failing: Arc<Failing>,
    /// Good answers, kept for bad times.
    pub stale: Arc<StaleStore>,
    /// Copies of requests, under way to services that are only watched.
    pub mirrors: Arc<Mirrors>,
    /// What sheds calls while the machine is short of something.
    pub protection: Arc<Protection>,
    /// Who the instances of services without a list are; `None` knows none.
    pub resolve: Option<Arc<dyn ResolveAny>>,
    /// The state of switches; `None` knows none.
    pub switches: Option<Arc<dyn SwitchBook>>,
    /// Told when keys of issuers are to be fetched, by whoever fetches them.
    pub keys_wanted: Arc<Notify>,
    /// Who keeps requests that are made later; `None` keeps none, and no `defer` step answers.
    pub deferred: Option<Arc<dyn Deferred>>,
}

/// The switches there are.
pub trait SwitchBook: std::fmt::Debug + Send + Sync {
    /// Those of a namespace, whether there are some or not.
    fn of(&self, namespace: &str) -> Arc<dyn Switches>;
}

/// A resolver that can be shown in a debug line.
pub trait ResolveAny: Resolve + std::fmt::Debug {}

impl<R: Resolve + std::fmt::Debug> ResolveAny for R {}

/// One configuration, ready to serve.
#[derive(Debug)]
pub struct Running {
    /// What it was made from.
    pub plane: Arc<Plane>,
    /// Services by name.
    pub upstreams: BTreeMap<ServiceName, Arc<UpstreamRuntime>>,
    /// Whose tokens tell who is calling.
    pub issuers: Arc<Issuers>,
    /// What requests by each route pass through; in the order of the plane's routes.
    ways: Box<[Way]>,
    /// Counts what no route matched.
    unrouted: RouteMetrics,
    trusted: TrustedProxies,
    framing: crate::framing::Limits,
}

/// What requests by one route pass through.
#[derive(Debug)]
struct Way {
    route: Arc<Route>,
    /// By service; a route has a handful.
    lanes: Vec<(ServiceName, Lane)>,
    /// What the route's own answers pass through, where they pass through something.
    own: Option<Box<OwnLane>>,
    /// Counts answers that no service gave: redirects, fixed answers, refusals before a service
    /// was chosen.
    metrics: RouteMetrics,
}

impl Parts {
    /// Parts that log nothing, remember no calls, find instances only in lists, and count from zero.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let failing = Arc::new(Failing::default());
        let observer = Arc::new(Counting::new(Arc::clone(&metrics), Arc::clone(&failing)));
        Self {
            failing,
            machines: Arc::new(Machines::new(observer)),
            faults: FaultBook::new({
                let metrics = Arc::clone(&metrics);
                move |kind| metrics.fault_injected(kind)
            }),
            records: Arc::default(),
            stale: Arc::new(StaleStore::new(mainstay_call::stale::STALE_BYTES_MAX)),
            mirrors: Mirrors::new({
                let metrics = Arc::clone(&metrics);
                move |end| metrics.mirrored(end.as_str())
            }),
            protection: Arc::default(),
            keys_wanted: Arc::default(),
            log: None,
            summaries: None,
            resolve: None,
            switches: None,
            deferred: None,
            metrics,
        }
    }
}

impl Gateway {
    /// A gateway that serves by `plane`.
    ///
    /// # Errors
    ///
    /// When a file that the configuration names cannot be read or used.
    pub fn new(plane: Arc<Plane>, parts: Parts) -> Result<Arc<Self>, TlsError> {
        let running = Running::build(plane, &parts, None)?;
        parts.protection.set_policy(running.plane.system);
        Ok(Arc::new(Self {
            running: ArcSwap::from_pointee(running),
            building: Mutex::new(()),
            parts,
        }))
    }

    /// Serves by `plane` from now on; requests under way end by what they began with. On an error
    /// nothing has changed.
    ///
    /// # Errors
    ///
    /// When a file that the configuration names cannot be read or used.
    pub fn replace(&self, plane: Arc<Plane>) -> Result<(), TlsError> {
        let _one_at_a_time = self.building.lock();
        let before = self.running.load_full();
        let next = Running::build(plane, &self.parts, Some(&before))?;
        self.parts.protection.set_policy(next.plane.system);
        self.running.store(Arc::new(next));
        // There may be issuers whose keys nobody has fetched.
        self.parts.keys_wanted.notify_one();
        Ok(())
    }

    /// What was learnt of calls, to be written down over a restart.
    pub fn learnt(&self) -> Saved {
        let now = MonotonicClock.now();
        let running = self.running();
        let endpoints = running.upstreams.values().flat_map(|upstream| {
            let service = Arc::clone(upstream.instances.service());
            let all = upstream.instances.endpoints().into_iter();
            all.map(move |endpoint| (subject(&service, endpoint.name()), endpoint))
        });
        let bans = endpoints
            .filter_map(|(subject, endpoint)| Some((subject, endpoint.asked_to_wait(now)?)));
        Saved { bans: bans.collect(), ..self.parts.machines.snapshot() }
    }

    /// The configuration that is served by.
    pub fn running(&self) -> Arc<Running> {
        self.running.load_full()
    }

    /// What outlives every configuration.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Counts and logs what the transport tells of.
    pub fn on_incident(&self) -> OnIncident {
        let metrics = Arc::clone(&self.parts.metrics);
        OnIncident::new(move |incident| match incident {
            Incident::Malformed(rule) => metrics.malformed(rule.as_str()),
            Incident::Http2Abuse { peer, abuse } => {
                events::Http2Abused { peer, abuse }.emit(&metrics);
            }
            Incident::StoodStill(span) => events::StoodStill { span }.emit(&metrics),
        })
    }

    /// Answers requests of one worker. What a request needs until it is answered is some two
    /// kilobytes; boxed here, it is not moved on the way through the server.
    pub fn handler(self: &Arc<Self>) -> impl Handler + use<> {
        let gateway = Arc::clone(self);
        move |request: Request<InBody>, from: Rc<ConnInfo>| {
            let gateway = Arc::clone(&gateway);
            Box::pin(async move {
                let running = gateway.running.load_full();
                serve::serve(&running, gateway, request, &from).await
            })
        }
    }
}

/// The services of `plane` that could not be connected to, each with the reason; those that stay as
/// they are `before` are not asked again. Reads the files they name.
pub fn unusable(plane: &Plane, before: Option<&Running>) -> Vec<(ServiceName, TlsError)> {
    let known = |name: &ServiceName| before.and_then(|before| before.upstreams.get(name));
    let all = plane.upstreams.iter();
    let each = all.map(|(name, config)| {
        let made = upstreams::handles(config, known(name).map(|known| &**known));
        made.err().map(|error| (name.clone(), error))
    });
    each.flatten().collect()
}

impl Running {
    fn build(plane: Arc<Plane>, parts: &Parts, before: Option<&Self>) -> Result<Self, TlsError> {
        // All that can fail comes first: machines are shared with the configuration in force, and
        // must not hear of one that will not be.
        let mut ways = Vec::with_capacity(plane.upstreams.len());
        for (name, config) in &plane.upstreams {
            let known = before.and_then(|before| before.upstreams.get(name));
            ways.push((name, config, known, upstreams::handles(config, known.map(|k| &**k))?));
        }
        let mut upstreams = BTreeMap::new();
        for (name, config, known, handles) in ways {
            let known = known.map(|known| &**known);
            let runtime = UpstreamRuntime::build(name, config, &plane, parts, (known, handles));
            upstreams.insert(name.clone(), Arc::new(runtime));
        }
        let issuers = Arc::new(Issuers::new(
            &plane.gateway.jwt,
            before.map(|before| &*before.issuers),
            MonotonicClock.now(),
            &parts.keys_wanted,
            &parts.metrics.jwt,
        ));
        let ways = plane.routes.iter().map(|route| {
            let lanes = lane::lanes(route, &plane, parts, (&upstreams, &issuers));
            let own = OwnLane::new(route, &plane, parts, (&upstreams, &issuers));
            let metrics = parts.metrics.route(route.name.as_str(), "");
            Way { route: Arc::clone(route), lanes, own, metrics }
        });
        let ways = ways.collect();
        let unrouted = parts.metrics.route("", "");
        let framing = framing(&plane);
        let trusted = TrustedProxies::new(plane.gateway.trusted_proxies.to_vec());
        Ok(Self { plane, upstreams, issuers, ways, unrouted, trusted, framing })
    }

    /// What callers' messages are held to. The longest body is the longest that any route takes.
    pub fn framing(&self) -> &crate::framing::Limits {
        &self.framing
    }

    /// Whether what `peer` says of others counts.
    fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.contains(peer)
    }
}

fn framing(plane: &Plane) -> crate::framing::Limits {
    let limits = &plane.gateway.limits;
    let routes = plane.routes.iter().filter_map(|route| route.body_bytes_max);
    crate::framing::Limits {
        head_bytes_max: limits.head_bytes_max as usize,
        headers_max: usize::from(limits.headers_max),
        uri_bytes_max: limits.uri_bytes_max as usize,
        body_bytes_max: routes.fold(limits.body_bytes_max, u64::max),
        connect: false,
    }
}
