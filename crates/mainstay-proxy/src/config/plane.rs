//! All tables of the data plane together: every name that one of them uses leads to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_core::name::{PolicyName, RouteName, ServiceName};
use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use mainstay_resilience::circuit::{CircuitPolicy, RawCircuit};
use mainstay_resilience::fallback::{DeferredPolicy, FallbackPolicy, RawDeferred, RawFallback};
use mainstay_resilience::limit::{LimitPolicy, RawLimit};
use mainstay_resilience::system::{RawSystem, SystemPolicy};
use schemars::JsonSchema;
use serde::Deserialize;

use super::names::Written;
use super::{GatewayConfig, RawGateway, RawUpstream, UpstreamConfig};
use crate::route::{Action, Demand, RawRoute, Route, Routes};

/// The data plane's tables as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPlane {
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
    /// Queues of deferred requests by name.
    pub deferred: BTreeMap<String, RawDeferred>,
}

/// The same tables, resolved; every name leads somewhere.
#[derive(Debug)]
pub struct Plane {
    /// Listeners, limits of connections, logs.
    pub gateway: GatewayConfig,
    /// Protection of this process.
    pub system: SystemPolicy,
    /// Routes, ready to be matched.
    pub routes: Routes,
    /// Services.
    pub upstreams: BTreeMap<ServiceName, Arc<UpstreamConfig>>,
    /// Circuits.
    pub circuits: BTreeMap<PolicyName, Arc<CircuitPolicy>>,
    /// Limits.
    pub limits: BTreeMap<PolicyName, Arc<LimitPolicy>>,
    /// Fallbacks.
    pub fallbacks: BTreeMap<PolicyName, Arc<FallbackPolicy>>,
    /// Queues of deferred requests, where the defaults do not hold.
    pub deferred: BTreeMap<PolicyName, Arc<DeferredPolicy>>,
}

impl Plane {
    /// Resolves `raw`.
    ///
    /// # Errors
    ///
    /// Every fault there is, with its path from the root of the document.
    pub fn resolve(raw: RawPlane) -> Result<Self, Vec<Invalid>> {
        let mut faults = Vec::new();
        let written = Written::of(&raw);
        let gateway = single("gateway", raw.gateway, &mut faults);
        let system = single("system", raw.system, &mut faults);
        let upstreams = named("upstream", raw.upstream, &mut faults);
        let mut circuits: BTreeMap<PolicyName, Arc<CircuitPolicy>> =
            named("circuit", raw.circuit, &mut faults);
        if let Ok(default) = PolicyName::new("default") {
            circuits.entry(default).or_default();
        }
        let limits = named("limit", raw.limit, &mut faults);
        let fallbacks = named("fallback", raw.fallback, &mut faults);
        let deferred = named("deferred", raw.deferred, &mut faults);
        let before = faults.len();
        let routes = routes(raw.route, &mut faults);
        let all_routes = faults.len() == before;
        for route in &routes {
            written.check_route(route, &mut faults);
            check_defers(route, &fallbacks, &upstreams, &mut faults);
            check_issuers(route, gateway.as_ref(), &mut faults);
            faults.extend(idle_fallback(route, &fallbacks));
        }
        for (name, upstream) in &upstreams {
            written.check_upstream(name, upstream, &mut faults);
        }
        for (name, fallback) in &fallbacks {
            written.check_fallback(name, fallback, &mut faults);
        }
        // Which of two routes wins can only be said of all of them.
        let routes = all_routes.then(|| Routes::new(routes));
        let routes = routes.and_then(|made| made.map_err(|errors| faults.extend(errors)).ok());
        match (gateway, system, routes) {
            (Some(gateway), Some(system), Some(routes)) if faults.is_empty() => Ok(Self {
                gateway,
                system,
                routes,
                upstreams,
                circuits,
                limits,
                fallbacks,
                deferred,
            }),
            _ => Err(faults),
        }
    }
}

impl Plane {
    /// What holds for the queue of deferred requests called `name`.
    pub fn queue(&self, name: &str) -> DeferredPolicy {
        self.deferred.get(name).map(|policy| **policy).unwrap_or_default()
    }

    /// Whether some step defers requests.
    pub fn defers(&self) -> bool {
        self.fallbacks.values().any(|fallback| fallback.queues().next().is_some())
    }

    /// Every queue that is written down or deferred to.
    pub fn queues(&self) -> BTreeSet<&PolicyName> {
        let used = self.fallbacks.values().flat_map(|fallback| fallback.queues());
        used.chain(self.deferred.keys()).collect()
    }

    /// What refers to a switch, as people call it: `route checkout`.
    pub fn uses_of_switch(&self, namespace: &str, name: &str) -> Vec<String> {
        let is_it = |switch: &Option<Box<str>>| switch.as_deref() == Some(name);
        let mut uses = Vec::new();
        for route in self.routes.iter().filter(|route| *route.namespace == *namespace) {
            if is_it(&route.switch) {
                uses.push(format!("route {}", route.name));
            }
            let fallback = route.fallback.as_ref();
            let steps = fallback.and_then(|fallback| self.fallbacks.get(fallback));
            if let (Some(fallback), Some(steps)) = (fallback, steps)
                && steps.switches().any(|switch| switch.as_str() == name)
            {
                uses.push(format!("fallback {fallback} of route {}", route.name));
            }
        }
        let of_namespace = |upstream: &UpstreamConfig| *upstream.namespace == *namespace;
        let upstreams = self.upstreams.iter().filter(|(_, upstream)| of_namespace(upstream));
        let upstreams = upstreams.filter(|(_, upstream)| is_it(&upstream.attempts_switch));
        uses.extend(upstreams.map(|(upstream, _)| format!("upstream {upstream}")));
        if namespace == SHARED_NAMESPACE {
            let limits = self.limits.iter();
            let limits = limits.filter(|(_, limit)| limit.scale_switch.as_deref() == Some(name));
            uses.extend(limits.map(|(limit, _)| format!("limit {limit}")));
            let circuits = self.circuits.iter();
            let circuits = circuits.filter(|(_, circuit)| is_it(&circuit.mode_switch));
            uses.extend(circuits.map(|(circuit, _)| format!("circuit {circuit}")));
        }
        uses
    }
}

/// Where the switches of limits and circuits lie: they are of no namespace themselves.
pub const SHARED_NAMESPACE: &str = "default";

/// Requests that are made later are sent over HTTP/1.1 in the clear.
fn check_defers(
    route: &Route,
    fallbacks: &BTreeMap<PolicyName, Arc<FallbackPolicy>>,
    upstreams: &BTreeMap<ServiceName, Arc<UpstreamConfig>>,
    faults: &mut Vec<Invalid>,
) {
    let steps = route.fallback.as_ref().and_then(|name| fallbacks.get(name));
    let (Some(steps), Action::To(split)) = (steps, &route.action) else { return };
    let Some(queue) = steps.queues().next() else { return };
    for (service, _) in split.shares() {
        let upstream = upstreams.get(service);
        if upstream.is_some_and(|upstream| !upstream.is_plain_http1()) {
            let problem = format!(
                "defers to queue `{queue}`, but `{service}` speaks TLS or HTTP/2; deferred requests \
                 are sent over HTTP/1.1 in the clear"
            );
            faults.push(Invalid::contradiction(format!("route.{}.fallback", route.name), problem));
        }
    }
}

/// Who is asked for a token can get one from somebody who is trusted. Without the gateway's table,
/// whose faults are reported already, nothing is said.
fn check_issuers(route: &Route, gateway: Option<&GatewayConfig>, faults: &mut Vec<Invalid>) {
    let Some(gateway) = gateway else { return };
    let at = |key: &str| format!("route.{}.{key}", route.name);
    for (place, issuer) in route.jwt_issuers.iter().enumerate() {
        if !gateway.jwt.iter().any(|jwt| jwt.trust.issuer == *issuer) {
            let problem = format!("no `[[gateway.jwt]]` has the issuer `{issuer}`");
            let path = at(&format!("jwt_issuers[{place}]"));
            faults.push(Invalid { path, code: Code::ConfigUnknownReference, problem });
        }
    }
    if route.jwt == Demand::Required && gateway.jwt.is_empty() {
        let problem = "`required` needs at least one `[[gateway.jwt]]`";
        faults.push(Invalid::contradiction(at("jwt"), problem));
    }
}

/// Why the fallback of a route that asks no service could never answer.
fn idle_fallback(
    route: &Route,
    fallbacks: &BTreeMap<PolicyName, Arc<FallbackPolicy>>,
) -> Option<Invalid> {
    let steps = route.fallback.as_ref().and_then(|name| fallbacks.get(name))?;
    let queue = steps.queues().next();
    let problem = match (&route.action, queue) {
        (Action::To(_), _) => return None,
        (_, Some(queue)) => format!("defers to queue `{queue}`, but the route asks no service"),
        (..) if route.limits.is_empty()
            && route.switch.is_none()
            && steps.switches().next().is_none() =>
        {
            "the route asks no service, so nothing can fail: needs `to`, `limits` or `switch`, or \
             a step for a switch"
                .to_owned()
        }
        _ => return None,
    };
    Some(Invalid::contradiction(format!("route.{}.fallback", route.name), problem))
}

fn single<R, P>(table: &str, raw: R, faults: &mut Vec<Invalid>) -> Option<P>
where
    P: TryFrom<R, Error = Invalid>,
{
    P::try_from(raw).map_err(|error| faults.push(error.within(table))).ok()
}

/// Resolves every table of one kind; the good ones, with the faults of the others noted.
fn named<N, R, P>(
    kind: &str,
    tables: BTreeMap<String, R>,
    faults: &mut Vec<Invalid>,
) -> BTreeMap<N, Arc<P>>
where
    N: TryFrom<String, Error = mainstay_core::name::InvalidName> + Ord,
    P: TryFrom<R, Error = Invalid>,
{
    let mut resolved = BTreeMap::new();
    for (name, raw) in tables {
        let at = format!("{kind}.{name}");
        match (N::try_from(name), P::try_from(raw)) {
            (Ok(name), Ok(policy)) => drop(resolved.insert(name, Arc::new(policy))),
            (name, policy) => {
                faults
                    .extend(name.err().map(|error| Invalid::range(at.clone(), error.to_string())));
                faults.extend(policy.err().map(|error| error.within(&at)));
            }
        }
    }
    resolved
}

/// Reads every route; the good ones, with the faults of the others noted.
fn routes(tables: BTreeMap<String, RawRoute>, faults: &mut Vec<Invalid>) -> Vec<Route> {
    let mut routes = Vec::with_capacity(tables.len());
    for (name, raw) in tables {
        let at = format!("route.{name}");
        match RouteName::try_from(name) {
            Err(error) => faults.push(Invalid::range(at, error.to_string())),
            Ok(name) => match Route::new(name, raw) {
                Ok(route) => routes.push(route),
                Err(error) => faults.push(error.within(&at)),
            },
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves `text`; the paths and codes of what is wrong with it.
    fn check(text: &str) -> Vec<(String, &'static str)> {
        let raw: RawPlane = toml::from_str(text).expect("well-formed");
        match Plane::resolve(raw) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|f| (f.path, f.code.as_str())).collect(),
        }
    }

    #[test]
    fn every_name_must_lead_somewhere() {
        let good = "
            [route.r]
            prefix = '/'
            to = 'order'
            limits = ['api']
            circuits = ['whole']
            fallback = 'f'
            [upstream.order]
            instances = ['127.0.0.1:1']
            [limit.api]
            max = 1
            [circuit.whole]
            scope = 'route'
            [fallback.f]
            steps = [{ when = ['any'], fail = { status = 503 } }]";
        assert_eq!(check(good), []);
        for (table, path) in [
            ("[upstream.order]", "route.r.to"),
            ("[limit.api]", "route.r.limits[0]"),
            ("[circuit.whole]", "route.r.circuits[0]"),
            ("[fallback.f]", "route.r.fallback"),
        ] {
            let renamed = good.replacen(table, &table.replace(']', "2]"), 1);
            assert_eq!(check(&renamed), [(path.to_owned(), "config-unknown-reference")]);
        }
    }

    #[test]
    fn what_cannot_be_sent_later_is_not_deferred() {
        let text = |upstream: &str| {
            format!(
                "[route.r]
                 prefix = '/'
                 to = 'order'
                 fallback = 'f'
                 [upstream.order]
                 {upstream}
                 [fallback.f]
                 steps = [{{ when = ['any'], defer = {{ queue = 'orders' }} }}]
                 [deferred.orders]
                 items_max = 5"
            )
        };
        assert_eq!(check(&text("")), []);
        for upstream in ["tls = { mode = 'on' }", "protocol = 'http2'"] {
            let want = ("route.r.fallback".to_owned(), "config-contradiction");
            assert_eq!(check(&text(upstream)), [want], "{upstream}");
        }
        let plane = Plane::resolve(toml::from_str(&text("")).expect("TOML")).expect("legal");
        assert_eq!(plane.queue("orders").items_max, 5);
        assert_eq!(plane.queue("others"), DeferredPolicy::default());
        let found = check("[deferred.orders]\nitems_max = 0");
        assert_eq!(found[0].0, "deferred.orders.items_max");
    }

    #[test]
    fn a_fallback_where_nothing_can_fail_is_refused() {
        let text = |route: &str, step: &str| {
            format!(
                "[route.r]
                 respond = {{}}
                 fallback = 'f'
                 {route}
                 [limit.l]
                 max = 1
                 [fallback.f]
                 steps = [{{ {step} }}]"
            )
        };
        let (fail, defer) = ("fail = { status = 503 }", "defer = { queue = 'q' }");
        let want = [("route.r.fallback".to_owned(), "config-contradiction")];
        assert_eq!(check(&text("", &format!("when = ['any'], {fail}"))), want);
        assert_eq!(check(&text("limits = ['l']", &format!("when = ['limited'], {fail}"))), []);
        assert_eq!(check(&text("switch = 's'", &format!("when = ['switch'], {fail}"))), []);
        assert_eq!(check(&text("", &format!("when = ['switch:s'], {fail}"))), []);
        assert_eq!(check(&text("limits = ['l']", &format!("when = ['limited'], {defer}"))), want);
    }

    #[test]
    fn all_faults_are_reported_at_once_with_their_paths() {
        let found = check(
            "[limit.a]
             max = 0
             [circuit.'b c']
             [upstream.x.retry]
             attempts = 99
             [system]
             cpu_percent_max = 101",
        );
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            ["system.cpu_percent_max", "upstream.x.retry.attempts", "circuit.b c", "limit.a.max"]
        );
    }

    /// The fault that matters is the broken table; names that lead to it lead somewhere.
    #[test]
    fn a_broken_table_is_reported_once() {
        let found = check(
            "[route.r]
             prefix = '/'
             to = 'order'
             limits = ['api', 'none']
             circuits = ['whole']
             fallback = 'f'
             mirror = { service = 'order', percent = 5 }
             [upstream.order]
             circuits = ['whole']
             retry = { attempts = 99 }
             [limit.api]
             max = 0
             [circuit.whole]
             probes = 0
             [fallback.f]
             steps = [{ when = ['any'], silent = { status = 7 } }]",
        );
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "upstream.order.retry.attempts",
                "circuit.whole.probes",
                "limit.api.max",
                "fallback.f.steps[0].silent.status",
                "route.r.limits[1]",
            ]
        );
    }

    #[test]
    fn a_broken_route_hides_no_fault_of_another() {
        let found = check(
            "[route.bad]
             prefix = 'x'
             to = 'order'
             [route.good]
             prefix = '/'
             to = 'nobody'
             [system]
             cpu_percent_max = 101",
        );
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["system.cpu_percent_max", "route.bad.prefix", "route.good.to"]);
    }

    #[test]
    fn nothing_written_is_a_plane_without_routes() {
        let plane = Plane::resolve(RawPlane::default()).expect("the defaults are legal");
        assert_eq!(plane.routes.iter().count(), 0);
        assert!(plane.circuits.contains_key("default"));
    }
}
