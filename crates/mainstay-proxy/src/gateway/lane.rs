//! What requests by one route to one service pass through.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::limit::SharedLimit;
use mainstay_call::stage::deadline::DeadlinePolicy;
use mainstay_call::stage::fallback::{Defers, Fallbacks};
use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_resilience::circuit::Scope;
use mainstay_resilience::deadline::Patience;

use super::copies::Copies;
use super::substitutes::Substitutes;
use super::{Parts, UpstreamRuntime};
use crate::config::Plane;
use crate::metrics::RouteMetrics;
use crate::pipeline::{Pipeline, Stages, pipeline};
use crate::route::{Action, Route};

/// A route's way to one service.
#[derive(Debug)]
pub struct Lane {
    /// The stages.
    pub pipeline: Pipeline,
    /// What is counted.
    pub metrics: RouteMetrics,
    /// The service.
    pub upstream: Arc<UpstreamRuntime>,
    /// Name of the route.
    pub route: Arc<str>,
    /// Circuits of the service and the route, beside each instance's own.
    pub circuits: Arc<[Arc<SharedCircuit>]>,
    /// How long a call may take.
    pub patience: Patience,
    /// Whether limits need to know more of the request than its headers say.
    pub keyed: bool,
    /// Whether a switch is asked that may be on for some callers only.
    pub switched: bool,
    /// Sends copies, on a route that is mirrored.
    pub(super) copies: Option<Copies>,
}

/// The lanes of `route`, one for each service it leads to.
pub(super) fn lanes(
    route: &Route,
    plane: &Plane,
    parts: &Parts,
    upstreams: &BTreeMap<ServiceName, Arc<UpstreamRuntime>>,
) -> Vec<(ServiceName, Lane)> {
    let Action::To(split) = &route.action else { return Vec::new() };
    let to = |(service, _): (&ServiceName, u16)| {
        let upstream = upstreams.get(service)?;
        Some((service.clone(), lane(route, service, upstream, plane, parts, upstreams)))
    };
    split.shares().filter_map(to).collect()
}

fn lane(
    route: &Route,
    service: &ServiceName,
    upstream: &Arc<UpstreamRuntime>,
    plane: &Plane,
    parts: &Parts,
    upstreams: &BTreeMap<ServiceName, Arc<UpstreamRuntime>>,
) -> Lane {
    let patience = Patience { timeout: route.timeout, max: route.deadline_max };
    let limits = limits(route, upstream, plane, parts);
    let keyed = limits.iter().any(|limit| !limit.policy().key.is_empty());
    let policy = route.fallback.as_ref().and_then(|name| plane.fallbacks.get(name));
    let mut fallbacks =
        Fallbacks::new(Arc::from(route.name.as_str()), policy.map(|policy| (**policy).clone()));
    fallbacks.classifier = Arc::clone(&upstream.config.classifier);
    fallbacks.stale = Some(Arc::clone(&parts.stale));
    fallbacks.deferred = parts.deferred.as_ref().map(|port| {
        let service = Arc::clone(upstream.instances.service());
        Defers { port: Arc::clone(port), service }
    });
    fallbacks.observer = parts.machines.observer();
    fallbacks.switch = route.switch.as_ref().and_then(|name| PolicyName::new(name).ok());
    if let Some(book) = &parts.switches {
        fallbacks.switches = book.of(&route.namespace);
    }
    let switched =
        route.switch.is_some() || policy.is_some_and(|policy| policy.switches().next().is_some());
    let stages = Stages {
        deadline: DeadlinePolicy { patience, idle: route.idle },
        limits,
        fallbacks: Arc::new(fallbacks),
        substitutes: Substitutes::new(policy.map(|policy| &**policy), upstreams),
        retries: Arc::clone(&upstream.retries),
        instances: Arc::clone(&upstream.instances),
        observer: parts.machines.observer(),
    };
    let mirror = route.mirror.as_ref().map(|mirror| &mirror.service);
    let copies = mirror.and_then(|name| Some(upstreams.get(name)?.copies(name, parts)));
    Lane {
        pipeline: pipeline(stages),
        metrics: parts.metrics.route(route.name.as_str(), service.as_str()),
        upstream: Arc::clone(upstream),
        route: Arc::clone(route.name.shared()),
        circuits: group(route, service, upstream, plane, parts),
        patience,
        keyed,
        switched,
        copies,
    }
}

/// The limits of the route and then those of the service, each once.
fn limits(
    route: &Route,
    upstream: &UpstreamRuntime,
    plane: &Plane,
    parts: &Parts,
) -> Arc<[Arc<SharedLimit>]> {
    let mut names: Vec<&PolicyName> = route.limits.iter().collect();
    names.extend(upstream.config.limits.iter().filter(|name| !route.limits.contains(name)));
    let limit = |name: &PolicyName| {
        let policy = plane.limits.get(name)?;
        Some(parts.machines.limit(&Arc::from(name.as_str()), policy))
    };
    names.into_iter().filter_map(limit).collect()
}

/// Circuits that guard the whole service or the route.
fn group(
    route: &Route,
    service: &ServiceName,
    upstream: &UpstreamRuntime,
    plane: &Plane,
    parts: &Parts,
) -> Arc<[Arc<SharedCircuit>]> {
    let mut names: Vec<&PolicyName> = route.circuits.iter().collect();
    names.extend(upstream.config.circuits.iter().filter(|name| !route.circuits.contains(name)));
    let circuit = |name: &PolicyName| {
        let policy = plane.circuits.get(name)?;
        let subject = match policy.scope {
            Scope::Instance => return None,
            Scope::Service => service.as_str(),
            Scope::Route => route.name.as_str(),
        };
        let key = CircuitKey { policy: Arc::from(name.as_str()), subject: Arc::from(subject) };
        Some(parts.machines.circuit(key, policy))
    };
    names.into_iter().filter_map(circuit).collect()
}
