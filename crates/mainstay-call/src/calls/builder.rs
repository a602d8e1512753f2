//! Puts a client together. The type says what is still missing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mainstay_core::Instant;
use mainstay_core::name::{InvalidName, ServiceName};
use mainstay_resilience::circuit::{CircuitPolicy, Scope};
use mainstay_resilience::classify::Classifier;
use mainstay_resilience::fallback::{Action, FallbackPolicy};
use mainstay_resilience::hash::Layout;
use tower_layer::Layer;

use super::{Attempts, Calls, Shared};
use crate::circuit::{CircuitKey, SharedCircuit};
use crate::deferred::Deferred;
use crate::endpoint::Endpoint;
use crate::instances::{Instances, InstancesPolicy, MakeEndpoint};
use crate::machines::Machines;
use crate::observe::{Observer, Silent};
use crate::policy::Policy;
use crate::resolve::{Instance, Resolve, StaticList, Watch};
use crate::stage::balance::{Balance, Learns};
use crate::stage::circuit::CircuitLayer;
use crate::stage::deadline::{DeadlineLayer, DeadlinePolicy};
use crate::stage::fallback::{Defers, FallbackLayer, Fallbacks};
use crate::stage::limit::{FromRequest, LimitLayer};
use crate::stage::retry::{MostAttempts, Retries, RetryLayer};
use crate::stage::timeout::{TimeoutLayer, TimeoutPolicy};
use crate::stale::{STALE_BYTES_MAX, StaleStore};
use crate::transport::Transport;

/// Where services are looked for unless something else is said.
const NAMESPACE: &str = "default";

/// Builds [`Calls`].
#[derive(Debug)]
pub struct Builder<Missing>(Missing);

/// Missing: who answers.
#[derive(Debug)]
pub struct WantsInstances {
    service: ServiceName,
}

/// Missing: the client that sends.
#[derive(Debug)]
pub struct WantsUpstream {
    service: ServiceName,
    watch: Watch,
    listed: bool,
}

/// Nothing is missing.
pub struct Ready<S> {
    service: ServiceName,
    watch: Watch,
    listed: bool,
    http: S,
    policy: Policy,
    zone: Arc<str>,
    machines: Option<Arc<Machines>>,
    deferred: Option<Arc<dyn Deferred>>,
    observer: Arc<dyn Observer>,
}

impl Calls<()> {
    /// Begins a client of `service`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when `service` cannot be the name of one.
    pub fn to(service: &str) -> Result<Builder<WantsInstances>, InvalidName> {
        Ok(Builder(WantsInstances { service: ServiceName::new(service)? }))
    }
}

impl Builder<WantsInstances> {
    /// Asks `resolve` for the instances, now and from now on.
    pub fn resolve(self, resolve: &(impl Resolve + ?Sized)) -> Builder<WantsUpstream> {
        let watch = resolve.watch(NAMESPACE, &self.0.service);
        Builder(WantsUpstream { service: self.0.service, watch, listed: false })
    }

    /// Takes a list of `host:port` that stays as it is.
    pub fn instances<'a>(
        self,
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Builder<WantsUpstream> {
        let service = self.0.service;
        let mut list = StaticList::new();
        list.set(service.clone(), addresses.into_iter().map(Instance::at).collect());
        let watch = list.watch(NAMESPACE, &service);
        Builder(WantsUpstream { service, watch, listed: true })
    }
}

impl Builder<WantsUpstream> {
    /// Sends through `http`, a tower service that takes `http::Request`: hyper-util's client, or
    /// anything else that follows the request's URI. It is cloned for each attempt.
    pub fn upstream<S>(self, http: S) -> Builder<Ready<S>> {
        let WantsUpstream { service, watch, listed } = self.0;
        Builder(Ready {
            service,
            watch,
            listed,
            http,
            policy: Policy::default(),
            zone: Arc::from(""),
            machines: None,
            deferred: None,
            observer: Arc::new(Silent),
        })
    }
}

impl<S> Builder<Ready<S>> {
    /// Takes `policy` in place of the default.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.0.policy = policy;
        self
    }

    /// Says in which zone this process runs, for `zone_preference`.
    pub fn zone(mut self, zone: &str) -> Self {
        self.0.zone = Arc::from(zone);
        self
    }

    /// Tells `observer` what the stages do. Circuits tell that of the machines, where those are
    /// given.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.0.observer = observer;
        self
    }

    /// Shares machines with other clients. A circuit or budget is shared by clients of the same
    /// service; a limit by clients whose policies give it the same name.
    pub fn machines(mut self, machines: Arc<Machines>) -> Self {
        self.0.machines = Some(machines);
        self
    }

    /// Says who keeps requests that are made later, for `defer` steps and [`Calls::defer`].
    pub fn deferred(mut self, port: Arc<dyn Deferred>) -> Self {
        self.0.deferred = Some(port);
        self
    }

    /// The client.
    pub fn build(self) -> Calls<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let Ready { service, watch, listed, http, policy, zone, machines, deferred, observer } =
            self.0;
        let machines = machines.unwrap_or_else(|| Arc::new(Machines::new(Arc::clone(&observer))));
        let service: Arc<str> = Arc::from(service.as_str());
        let deferred = deferred.map(|port| Defers { port, service: Arc::clone(&service) });
        let (own, shared): (Vec<_>, Vec<_>) =
            policy.circuits.into_iter().partition(|(_, circuit)| circuit.scope == Scope::Instance);
        let of_service = |(policy, circuit): (Arc<str>, _)| {
            machines.circuit(CircuitKey { policy, subject: Arc::clone(&service) }, &circuit)
        };
        let circuits = shared.into_iter().map(of_service).collect();
        let limits: Vec<_> =
            policy.limits.iter().map(|(name, limit)| machines.limit(name, limit)).collect();
        let learns = Arc::new(Learns {
            service: Arc::clone(&service),
            classifier: Arc::clone(&policy.classifier),
            failure_penalty: policy.balance.failure_penalty,
            consecutive: policy.outlier.consecutive,
            wake: AtomicU64::new(0),
            observer: Arc::clone(&observer),
        });
        let hash = policy.balance.layout.map(Layout::function);
        let hash = hash.map(|function| (function, policy.balance.hash.clone()));
        let retries = Arc::new(Retries {
            most: MostAttempts::default(),
            service: Arc::clone(&service),
            budget: machines.budget(&service, policy.retry.budget),
            policy: policy.retry,
            observer: Arc::clone(&observer),
        });
        let steps = policy.fallback.as_deref().cloned();
        let mut fallbacks = Fallbacks::new(Arc::clone(&service), steps);
        fallbacks.classifier = Arc::clone(&policy.classifier);
        fallbacks.observer = Arc::clone(&observer);
        fallbacks.deferred.clone_from(&deferred);
        fallbacks.stale =
            keeps(fallbacks.policy()).then(|| Arc::new(StaleStore::new(STALE_BYTES_MAX)));
        let make = Make {
            http,
            service,
            machines: Arc::clone(&machines),
            circuits: own,
            classifier: policy.classifier,
            timeout: TimeoutPolicy { attempt: retries.policy.try_timeout, hop: policy.hop },
        };
        let balanced =
            InstancesPolicy { balance: policy.balance, outlier: policy.outlier, zone, listed };
        let instances = Instances::new(balanced, learns, watch, Box::new(make), &[]);
        let instances = Arc::new(instances);
        let stack = Balance::new(Arc::clone(&instances));
        let stack = RetryLayer::new(retries).layer(stack);
        let stack = FallbackLayer::new(Arc::new(fallbacks), ()).layer(stack);
        let stack = LimitLayer::new(limits, FromRequest, observer).layer(stack);
        // Everything below that waits has a timer of its own.
        let deadline = DeadlinePolicy { patience: policy.patience, idle: policy.idle };
        let stack = DeadlineLayer::new(deadline).kept_below().layer(stack);
        let patience = policy.patience;
        let shared = Shared { patience, hash, circuits, instances, machines, deferred };
        Calls { stack, shared: Arc::new(shared) }
    }
}

/// Whether some step answers with what was kept.
fn keeps(policy: Option<&FallbackPolicy>) -> bool {
    let mut steps = policy.into_iter().flat_map(FallbackPolicy::steps);
    steps.any(|step| matches!(step.action, Action::Stale { .. }))
}

/// Makes endpoints and the services that send to them.
struct Make<S> {
    http: S,
    service: Arc<str>,
    machines: Arc<Machines>,
    /// Circuits of each instance.
    circuits: Vec<(Arc<str>, Arc<CircuitPolicy>)>,
    classifier: Arc<Classifier>,
    timeout: TimeoutPolicy,
}

impl<S: Clone + Send + Sync> MakeEndpoint<Attempts<S>> for Make<S> {
    fn endpoint(&self, instance: &Instance, now: Instant) -> Arc<Endpoint> {
        let subject: Arc<str> = format!("{}@{}", self.service, instance.name).into();
        let circuits = self.circuits.iter().map(|(policy, circuit)| {
            let key = CircuitKey { policy: Arc::clone(policy), subject: Arc::clone(&subject) };
            self.machines.circuit(key, circuit)
        });
        let circuits: Box<[Arc<SharedCircuit>]> = circuits.collect();
        let (name, address) = (Arc::clone(&instance.name), Arc::clone(&instance.address));
        Arc::new(Endpoint::new(name, address, now, circuits))
    }

    fn service(&self, endpoint: &Arc<Endpoint>) -> Attempts<S> {
        let send = Transport::new(self.http.clone(), Arc::clone(endpoint.address()));
        let bounded = TimeoutLayer::new(self.timeout).layer(send);
        CircuitLayer::new(endpoint.circuits().into(), Arc::clone(&self.classifier)).layer(bounded)
    }
}

impl<S> fmt::Debug for Ready<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("service", &self.service).finish_non_exhaustive()
    }
}
