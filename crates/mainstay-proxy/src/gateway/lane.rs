//! What requests by one route to one service pass through.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::limit::SharedLimit;
use mainstay_call::stage::deadline::DeadlinePolicy;
use mainstay_call::stage::fallback::{Defers, Fallbacks};
use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_resilience::circuit::Scope;
use mainstay_resilience::classify::Classifier;
use mainstay_resilience::deadline::Patience;

use super::copies::Copies;
use super::substitutes::Substitutes;
use super::{Parts, UpstreamRuntime};
use crate::config::Plane;
use crate::identify::{Issuers, Policy};
use crate::metrics::RouteMetrics;
use crate::pipeline::{OwnPipeline, OwnStages, Pipeline, Stages, own, pipeline};
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

/// A route's own answer, where something may keep it from being given.
#[derive(Debug)]
pub(super) struct OwnLane {
    /// The stages.
    pub pipeline: OwnPipeline,
    /// Name of the route.
    pub route: Arc<str>,
    /// How long a call may take.
    pub patience: Patience,
    /// Whether limits need to know more of the request than its headers say.
    pub keyed: bool,
    /// Whether a switch is asked that may be on for some callers only.
    pub switched: bool,
}

impl OwnLane {
    /// What the answers of `route` pass through; `None` where they pass through nothing, or are a
    /// service's.
    pub(super) fn new(
        route: &Route,
        plane: &Plane,
        parts: &Parts,
        (upstreams, issuers): (&BTreeMap<ServiceName, Arc<UpstreamRuntime>>, &Arc<Issuers>),
    ) -> Option<Box<Self>> {
        if !route.has_own_stages() {
            return None;
        }
        let patience = Patience { timeout: route.timeout, max: route.deadline_max };
        let limits = shared(&route.limits, plane, parts);
        let keyed = is_keyed(&limits);
        let policy = route.fallback.as_ref().and_then(|name| plane.fallbacks.get(name));
        let mut fallbacks = fallbacks(route, plane, parts);
        // An error that the route says is meant so, and nobody needs to stand in for it.
        if matches!(&route.action, Action::Respond(respond) if respond.status.is_server_error()) {
            fallbacks.classifier = Arc::new(Classifier::of_nothing());
        }
        let stages = OwnStages {
            deadline: DeadlinePolicy { patience, idle: route.idle },
            identify: Policy::of(route, issuers),
            limits,
            fallbacks: Arc::new(fallbacks),
            substitutes: Substitutes::new(policy.map(|policy| &**policy), upstreams),
            observer: parts.machines.observer(),
        };
        Some(Box::new(Self {
            pipeline: own(stages),
            route: Arc::clone(route.name.shared()),
            patience,
            keyed,
            switched: is_switched(route, plane),
        }))
    }
}

/// The lanes of `route`, one for each service it leads to.
pub(super) fn lanes(
    route: &Route,
    plane: &Plane,
    parts: &Parts,
    (upstreams, issuers): (&BTreeMap<ServiceName, Arc<UpstreamRuntime>>, &Arc<Issuers>),
) -> Vec<(ServiceName, Lane)> {
    let Action::To(split) = &route.action else { return Vec::new() };
    let identify = Policy::of(route, issuers);
    let to = |(service, _): (&ServiceName, u16)| {
        let upstream = upstreams.get(service)?;
        let identify = identify.clone();
        let lane = lane(route, service, upstream, plane, parts, (upstreams, identify));
        Some((service.clone(), lane))
    };
    split.shares().filter_map(to).collect()
}

fn lane(
    route: &Route,
    service: &ServiceName,
    upstream: &Arc<UpstreamRuntime>,
    plane: &Plane,
    parts: &Parts,
    (upstreams, identify): (&BTreeMap<ServiceName, Arc<UpstreamRuntime>>, Option<Arc<Policy>>),
) -> Lane {
    let patience = Patience { timeout: route.timeout, max: route.deadline_max };
    let limits = limits(route, upstream, plane, parts);
    let keyed = is_keyed(&limits);
    let policy = route.fallback.as_ref().and_then(|name| plane.fallbacks.get(name));
    let mut fallbacks = fallbacks(route, plane, parts);
    fallbacks.classifier = Arc::clone(&upstream.config.classifier);
    fallbacks.deferred = parts.deferred.as_ref().map(|port| {
        let service = Arc::clone(upstream.instances.service());
        Defers { port: Arc::clone(port), service }
    });
    let stages = Stages {
        deadline: DeadlinePolicy { patience, idle: route.idle },
        identify,
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
        switched: is_switched(route, plane),
        copies,
    }
}

/// What `route` says about its fallback, whoever answers.
fn fallbacks(route: &Route, plane: &Plane, parts: &Parts) -> Fallbacks {
    let policy = route.fallback.as_ref().and_then(|name| plane.fallbacks.get(name));
    let name = Arc::from(route.name.as_str());
    let mut fallbacks = Fallbacks::new(name, policy.map(|policy| (**policy).clone()));
    fallbacks.stale = Some(Arc::clone(&parts.stale));
    fallbacks.observer = parts.machines.observer();
    fallbacks.switch = route.switch.as_ref().and_then(|name| PolicyName::new(name).ok());
    if let Some(book) = &parts.switches {
        fallbacks.switches = book.of(&route.namespace);
    }
    fallbacks
}

fn is_keyed(limits: &[Arc<SharedLimit>]) -> bool {
    limits.iter().any(|limit| !limit.policy().key.is_empty())
}

fn is_switched(route: &Route, plane: &Plane) -> bool {
    let policy = route.fallback.as_ref().and_then(|name| plane.fallbacks.get(name));
    route.switch.is_some() || policy.is_some_and(|policy| policy.switches().next().is_some())
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
    shared(names, plane, parts)
}

fn shared<'n>(
    names: impl IntoIterator<Item = &'n PolicyName>,
    plane: &Plane,
    parts: &Parts,
) -> Arc<[Arc<SharedLimit>]> {
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
