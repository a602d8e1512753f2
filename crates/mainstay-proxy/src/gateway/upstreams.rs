//! The services this process calls: instances, retries, budgets, connections.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use mainstay_call::circuit::{CircuitKey, SharedCircuit};
use mainstay_call::endpoint::Endpoint;
use mainstay_call::instances::{Instances, InstancesPolicy, MakeEndpoint};
use mainstay_call::machines::Machines;
use mainstay_call::resolve::{Instance, Resolve, StaticList, Watch};
use mainstay_call::stage::balance::Learns;
use mainstay_call::stage::retry::{MostAttempts, Retries};
use mainstay_call::stage::timeout::TimeoutPolicy;
use mainstay_core::Instant;
use mainstay_core::name::{PolicyName, ServiceName};
use mainstay_resilience::circuit::{CircuitPolicy, Scope};
use parking_lot::Mutex;

use super::Parts;
use super::copies::{self, Copies};
use super::observer::Attempts;
use crate::config::upstream::Protocol;
use crate::config::{Plane, UpstreamConfig};
use crate::faults::{FaultBook, Place};
use crate::pipeline::{Attempt, AttemptStages, SentBody, attempt};
use crate::tls::{ClientTls, ClientTlsFiles, Pair, TlsError};
use crate::upstream::{Protocol as Spoken, Upstream, UpstreamSettings};

/// Handles to endpoints kept for reuse; beyond this many the memory starts anew, which costs
/// connections and nothing else.
const HANDLES_MAX: usize = 16_384;

/// A service as this process calls it.
#[derive(Debug)]
pub struct UpstreamRuntime {
    /// What it was made from.
    pub config: Arc<UpstreamConfig>,
    /// Its instances.
    pub instances: Arc<Instances<Attempt>>,
    /// When calls are sent again.
    pub retries: Arc<Retries>,
    /// Handles to endpoints, so that a new configuration keeps open connections.
    handles: Arc<Handles>,
    /// Sends copies to it, once some route is mirrored to it.
    copies: OnceLock<Copies>,
}

/// How a service is connected to: in the way of `before` while that serves, so that open
/// connections are kept. The one part of setting up a service that can fail.
pub(super) fn handles(
    config: &UpstreamConfig,
    before: Option<&UpstreamRuntime>,
) -> Result<Arc<Handles>, TlsError> {
    match before.filter(|before| same_way(&before.config, config)) {
        Some(before) => Ok(Arc::clone(&before.handles)),
        None => Ok(Arc::new(Handles {
            settings: Arc::new(settings(config)?),
            by_address: Mutex::default(),
        })),
    }
}

/// Handles by address, all made with the same settings.
#[derive(Debug)]
pub(super) struct Handles {
    settings: Arc<UpstreamSettings>,
    by_address: Mutex<BTreeMap<Arc<str>, Upstream<SentBody>>>,
}

impl Handles {
    fn of(&self, address: &Arc<str>) -> Upstream<SentBody> {
        let mut all = self.by_address.lock();
        if all.len() >= HANDLES_MAX {
            all.clear();
        }
        let make = || Upstream::new(Arc::clone(address), Arc::clone(&self.settings));
        all.entry(Arc::clone(address)).or_insert_with(make).clone()
    }
}

impl UpstreamRuntime {
    /// The service `name`; what `before` had learnt is taken over. `handles` come from [`handles`].
    pub(super) fn build(
        name: &ServiceName,
        config: &Arc<UpstreamConfig>,
        plane: &Plane,
        parts: &Parts,
        (before, handles): (Option<&Self>, Arc<Handles>),
    ) -> Self {
        let observer = parts.machines.observer();
        let service: Arc<str> = Arc::from(name.as_str());
        let circuits = config.circuits.iter().filter_map(|circuit| {
            let policy = plane.circuits.get(circuit)?;
            (policy.scope == Scope::Instance).then(|| (circuit.clone(), Arc::clone(policy)))
        });
        let make = Maker {
            service: Arc::clone(&service),
            circuits: circuits.collect(),
            config: Arc::clone(config),
            machines: Arc::clone(&parts.machines),
            faults: Arc::clone(&parts.faults),
            handles: Arc::clone(&handles),
        };
        let learns = Learns {
            service: Arc::clone(&service),
            classifier: Arc::clone(&config.classifier),
            failure_penalty: config.balance.failure_penalty,
            consecutive: config.outlier.consecutive,
            wake: 0.into(),
            observer: Arc::new(Attempts::new(
                Arc::clone(&service),
                Arc::clone(&parts.metrics),
                Arc::clone(&observer),
            )),
        };
        let (listed, watch) = watch(name, config, parts);
        let policy = InstancesPolicy {
            balance: config.balance.clone(),
            outlier: config.outlier,
            zone: Arc::from(""),
            listed,
        };
        let known = before.map(|before| before.instances.endpoints()).unwrap_or_default();
        let instances = Instances::new(policy, Arc::new(learns), watch, Box::new(make), &known);
        let retries = Retries {
            most: MostAttempts::default(),
            budget: parts.machines.budget(&service, config.retry.budget),
            service,
            policy: config.retry.clone(),
            observer,
        };
        Self {
            config: Arc::clone(config),
            instances: Arc::new(instances),
            retries: Arc::new(retries),
            handles,
            copies: OnceLock::new(),
        }
    }

    /// What sends copies to this service, called `name`; all routes share it.
    pub(super) fn copies(&self, name: &ServiceName, parts: &Parts) -> Copies {
        let make = || copies::sender(name, &self.config, &self.handles.settings, parts);
        self.copies.get_or_init(make).clone()
    }
}

/// What an instance of `service` is called where services are not told apart otherwise.
pub(super) fn subject(service: &str, instance: &str) -> Arc<str> {
    format!("{service}@{instance}").into()
}

/// Whether the instances of a service are those of its list, and who they are.
pub(super) fn watch(name: &ServiceName, config: &UpstreamConfig, parts: &Parts) -> (bool, Watch) {
    match &parts.resolve {
        Some(resolve) if config.instances.is_empty() => {
            (false, resolve.watch(&config.namespace, name))
        }
        _ => (true, list(name, config).watch(&config.namespace, name)),
    }
}

/// The configured instances.
fn list(name: &ServiceName, config: &UpstreamConfig) -> StaticList {
    let instances = config.instances.iter().map(|instance| Instance {
        name: Arc::from(&*instance.name),
        address: Arc::from(&*instance.address),
        weight: instance.weight,
        zone: Arc::from(instance.zone.as_deref().unwrap_or_default()),
        priority: u32::from(instance.priority),
        usable: true,
    });
    let mut list = StaticList::new();
    list.set(name.clone(), instances.collect());
    list
}

/// Whether connections made for one configuration serve the other.
fn same_way(a: &UpstreamConfig, b: &UpstreamConfig) -> bool {
    // Files may have changed under the same name, so TLS is always set up anew.
    let plain = a.tls.is_none() && b.tls.is_none();
    plain
        && a.protocol == b.protocol
        && (a.connect, a.stall) == (b.connect, b.stall)
        && (a.connections_max, a.pending_max) == (b.connections_max, b.pending_max)
}

fn settings(config: &UpstreamConfig) -> Result<UpstreamSettings, TlsError> {
    let tls = config.tls.as_ref().map(|tls| {
        let certificate = tls
            .client
            .as_ref()
            .map(|(certificate, key)| Pair { certificate: certificate.clone(), key: key.clone() });
        ClientTls::new(&ClientTlsFiles {
            ca_file: tls.ca_file.clone(),
            sni: tls.sni.as_deref().map(str::to_owned),
            certificate,
        })
    });
    Ok(UpstreamSettings {
        protocol: match config.protocol {
            Protocol::Auto => Spoken::Auto,
            Protocol::Http1 => Spoken::Http1,
            Protocol::Http2 => Spoken::Http2,
        },
        tls: tls.transpose()?,
        connect_timeout: config.connect,
        stall: config.stall,
        connections_max: config.connections_max as usize,
        pending_max: config.pending_max as usize,
        ..UpstreamSettings::default()
    })
}

/// Makes what belongs to one instance.
struct Maker {
    service: Arc<str>,
    circuits: Vec<(PolicyName, Arc<CircuitPolicy>)>,
    config: Arc<UpstreamConfig>,
    machines: Arc<Machines>,
    faults: Arc<FaultBook>,
    handles: Arc<Handles>,
}

impl Maker {
    fn circuits(&self, instance: &str) -> Box<[Arc<SharedCircuit>]> {
        let of = |(name, policy): &(PolicyName, Arc<CircuitPolicy>)| {
            let subject = subject(&self.service, instance);
            let key = CircuitKey { policy: Arc::from(name.as_str()), subject };
            self.machines.circuit(key, policy)
        };
        self.circuits.iter().map(of).collect()
    }
}

impl MakeEndpoint<Attempt> for Maker {
    fn endpoint(&self, instance: &Instance, now: Instant) -> Arc<Endpoint> {
        let circuits = self.circuits(&instance.name);
        let (name, address) = (Arc::clone(&instance.name), Arc::clone(&instance.address));
        let endpoint = Endpoint::new(name, address, now, circuits);
        if let Some(left) = self.machines.ban(&subject(&self.service, endpoint.name())) {
            endpoint.ask_later(now, left);
        }
        Arc::new(endpoint)
    }

    fn keep(&self, endpoint: &Arc<Endpoint>) -> Arc<Endpoint> {
        // By this its circuits get their present policies, too.
        endpoint.guarded_by(self.circuits(endpoint.name()))
    }

    fn service(&self, endpoint: &Arc<Endpoint>) -> Attempt {
        let stages = AttemptStages {
            circuits: endpoint.circuits().into(),
            classifier: Arc::clone(&self.config.classifier),
            timeout: TimeoutPolicy { attempt: self.config.retry.try_timeout, hop: self.config.hop },
            faults: Arc::clone(&self.faults),
            place: Arc::new(Place {
                service: Arc::clone(&self.service),
                instance: Arc::clone(endpoint.name()),
                connect: self.config.connect,
            }),
        };
        attempt(stages, self.handles.of(endpoint.address()))
    }
}

impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maker").field("service", &self.service).finish_non_exhaustive()
    }
}
