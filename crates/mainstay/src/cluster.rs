//! What the nodes of one store share: the store itself, and the recipes over it.
//!
//! The product alone knows which backend runs. A role that keeps agreed state (`dev`, `server`)
//! opens the store of its configuration and takes part in the registry; everything else is handed
//! the [`Cluster`] and neither knows nor asks where the state lies. Without a store (`gateway`)
//! there is none.
//!
//! | what | module |
//! |---|---|
//! | `[store]`, `[registry]` | [`settings`] |
//! | `[consul]` | [`consul`](mod@consul) |
//! | opening the store; its format; which etcd was known last | [`opening`], [`formats`], [`known`] |
//! | `[security.keyring]`; whether this node has the keys of the others | [`keys`] |
//! | whether the store takes writes | [`probe`] |
//! | what the store counts, in Prometheus' words | `figures` |
//! | instances for the data plane of the same process | [`resolve`] |

pub mod consul;
pub(crate) mod figures;
pub mod formats;
pub mod keys;
pub mod known;
pub mod opening;
pub mod probe;
pub mod resolve;
pub mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::centre::{self, Centre};
use mainstay_coord::consul::Consul;
use mainstay_coord::health::targets::Addresses;
use mainstay_coord::keyring::Ring;
use mainstay_coord::name::{NodeName, OwnerName};
use mainstay_coord::plan::PLANS;
use mainstay_coord::registry::{Options, Registry};
use mainstay_coord::revisions::Kind;
use mainstay_coord::session::Owner;
use mainstay_coord::switch::SWITCHES;
use mainstay_coord::{
    BootClock, Coordination, Outbox, Plans, Revisions, Switches, Timer as _, Timers,
};
use mainstay_store::{Revision, State, Store};
use parking_lot::Mutex;

use crate::audit::settings::AuditConfig;
use crate::audit::{self, AuditLog};
use crate::deferred::Deferrals;
use crate::dns::nodes::Nodes;
use crate::rules::{self, Copies};
use crate::transaction::deliveries::Outlets;
use crate::transaction::settings::TransactionConfig;
use crate::transaction::{Around, Transactions};
use consul::{ConsulConfig, Known};
use keys::Keys;
use opening::Opened;
use probe::Probe;
use resolve::RegistryResolver;
use settings::recipes::RecipesConfig;
use settings::{Backend, RegistryConfig};

use crate::switching::Book;

/// How long a start waits for the registry to be read. A store that takes longer is away; the
/// process serves what needs none, and says that the rest is loading.
const LOADING_MAX: Duration = Duration::from_secs(5);

/// Every kind of object with a history.
pub const KINDS: [Kind; 7] = {
    let [route, upstream, circuit, limit, fallback] = rules::KINDS;
    [route, upstream, circuit, limit, fallback, SWITCHES, PLANS]
};

/// How long each part of a leave may take; together with the two seconds that streams have, less
/// than the ten a node may take to stop.
const DUTIES_MAX: Duration = Duration::from_secs(2);
const RECIPES_MAX: Duration = Duration::from_secs(3);
const OUTBOX_MAX: Duration = Duration::from_secs(1);
const LOG_MAX: Duration = Duration::from_millis(700);
const CLOSING_MAX: Duration = Duration::from_millis(1_200);

/// What the nodes of one store share, as this process takes part in it.
pub struct Cluster {
    /// The store itself.
    pub store: Arc<dyn Store>,
    /// The same, as what it is.
    pub opened: Opened,
    /// Sessions, locks, semaphores, elections.
    pub coordination: Coordination,
    /// Who can answer for a service.
    pub registry: Registry,
    /// Configuration of services.
    pub centre: Centre,
    /// The keys that seal secrets, in step with those of other nodes.
    pub ring: Ring,
    /// Where audit records wait for the log.
    pub outbox: Outbox,
    /// The log.
    pub audit: AuditLog,
    /// Objects with a history.
    pub rules: Revisions,
    /// Routes, upstreams and policies among them, as this node knows them.
    pub copies: Copies,
    /// Switches.
    pub switches: Switches,
    /// Plans of switches.
    pub plans: Plans,
    timers: Timers,
    /// How registrations are read.
    pub registry_config: RegistryConfig,
    /// What holds for locks.
    pub recipes_config: RecipesConfig,
    /// The door for clients of Consul, if there is one.
    pub consul: Option<ConsulDoor>,
    /// Instances for the data plane.
    pub resolver: Arc<RegistryResolver>,
    /// Global transactions; `None` where this node coordinates none.
    pub transactions: Option<Transactions>,
    /// Requests that are made later; `None` where this node coordinates no transactions.
    pub deferrals: Option<Deferrals>,
    /// Whether clients of DTM on this machine need no token.
    pub dtm_is_open: bool,
    /// This process, as others see it.
    pub node: NodeName,
    /// One backup at a time is taken or checked for callers.
    pub backups: Arc<tokio::sync::Semaphore>,
    /// Whether the store takes writes.
    pub probe: Probe,
}

/// The door for clients of Consul.
#[derive(Debug)]
pub struct ConsulDoor {
    /// Pairs, sessions, indexes.
    pub recipes: Consul,
    /// What it says of itself.
    pub config: ConsulConfig,
    /// Whether callers on this machine need no token.
    pub is_open: bool,
    /// The same where the door is listened on alone.
    pub is_open_alone: bool,
    /// Where its nodes are, for whoever asks by name.
    pub nodes: Nodes,
    /// The address of this node, for services that name none.
    pub address: String,
    /// Services that clients registered, as of a revision of the registry.
    pub known: Mutex<Option<(Revision, Arc<Known>)>>,
}

impl ConsulDoor {
    /// Answers as `config` says for `node`, which others reach at `reached`.
    fn start(
        store: Arc<dyn Store>,
        (config, [is_open, is_open_alone]): (ConsulConfig, [bool; 2]),
        (node, reached): (NodeName, &str),
        check_targets: Addresses,
    ) -> Self {
        let address = config.address(reached);
        let options =
            mainstay_coord::consul::Options { node, address: address.clone(), check_targets };
        let recipes = Consul::start(store, Arc::new(BootClock), options);
        let (nodes, known) = (Nodes::default(), Mutex::default());
        Self { recipes, config, is_open, is_open_alone, nodes, address, known }
    }
}

impl Cluster {
    /// Takes part in what the store holds as `node`, which others reach at `address`. Must be called
    /// within a tokio runtime. `door` is how clients of Consul are answered, and whether those on
    /// this machine need no token.
    ///
    /// # Cancel safety
    ///
    /// Not safe: what was started goes on. It is awaited to its end when a process starts.
    pub async fn start(
        opened: Opened,
        keys: Keys,
        (config, recipes_config): (RegistryConfig, RecipesConfig),
        door: Option<(ConsulConfig, [bool; 2])>,
        (node, address): (NodeName, String),
        (audit, data): (AuditConfig, &Path),
    ) -> Self {
        let store = opened.store();
        let (reached, check_targets) = (address.clone(), config.addresses());
        let options = Options {
            address,
            ttl_seconds: config.ttl_seconds,
            shares: config.shares,
            push_merge: config.push_merge,
            check_concurrency_max: config.check_concurrency_max,
            passive_quorum: config.passive_quorum,
            check_targets: config.addresses(),
            ..Options::new(node.clone())
        };
        let timer = Arc::new(BootClock);
        let outbox =
            Outbox::start(Arc::clone(&store), timer.clone(), keys.keyring.mask(), audit.limits());
        let registry = Registry::start(Arc::clone(&store), timer.clone(), outbox.clone(), options);
        let retention = recipes_config.releases;
        let options = centre::Options { retention, ..centre::Options::new(node.clone()) };
        let (centre, ring) = sealing(&store, &outbox, keys, options);
        let place = (node.to_string(), reached.clone());
        let audit = logging(&opened, (&outbox, &ring), (audit, data), place);
        let rules = Revisions::new(Arc::clone(&store), timer.clone(), outbox.clone());
        let copies = Copies::start(&rules);
        let switches = Switches::start(&rules);
        let plans = Plans::start(&switches);
        let coordination = Coordination::new(Arc::clone(&store), timer);
        coordination.locks().keep_swept(owner(&node));
        let timers =
            Timers::start(coordination.clone(), owner(&node), plans.clone(), KINDS.to_vec());
        let (switched, planned) = (switches.followed(), plans.followed());
        loaded(async {
            let read = async { tokio::join!(switched.ready(), planned.ready(), copies.ready()) };
            tokio::join!(registry.ready(), centre.ready(), audit.begin(), read);
        })
        .await;
        let consul = door.map(|door| {
            ConsulDoor::start(Arc::clone(&store), door, (node.clone(), &reached), check_targets)
        });
        Self {
            consul,
            coordination,
            ring,
            outbox,
            audit,
            rules,
            copies,
            switches,
            plans,
            timers,
            resolver: Arc::new(RegistryResolver::new(registry.clone())),
            registry,
            centre,
            registry_config: config,
            recipes_config,
            store,
            opened,
            transactions: None,
            deferrals: None,
            dtm_is_open: false,
            node,
            backups: Arc::new(tokio::sync::Semaphore::new(1)),
            probe: Probe::default(),
        }
    }

    /// The same, which coordinates global transactions as `config` says, if it says so; its control
    /// port is `control`. Must be called within a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Not safe: what was started goes on.
    #[must_use]
    pub async fn coordinating(self, config: TransactionConfig, control: SocketAddr) -> Self {
        if !config.enabled {
            return self;
        }
        let outlets = Outlets::default();
        let body_bytes_max = config.settings.policy.payload_bytes_max;
        let transactions = Transactions::start(
            config,
            Around {
                outlets: outlets.clone(),
                store: Arc::clone(&self.store),
                backend: match &self.opened {
                    Opened::Embedded(_) => Backend::Embedded,
                    Opened::Etcd(_) => Backend::Etcd,
                },
                coordination: self.coordination.clone(),
                resolver: Arc::clone(&self.resolver),
                addresses: self.registry_config.addresses(),
                node: self.node.to_string(),
                control,
            },
        );
        drop(tokio::time::timeout(LOADING_MAX, transactions.ready()).await);
        let deferrals = Deferrals::new(transactions.coordinators(), outlets, body_bytes_max);
        Self { transactions: Some(transactions), deferrals: Some(deferrals), ..self }
    }

    /// The same, where clients of DTM on this machine need no token if it `is_open` to them.
    #[must_use]
    pub fn open_to_dtm(self, is_open: bool) -> Self {
        Self { dtm_is_open: is_open, ..self }
    }

    /// The switches, for the data plane of this process.
    pub fn switch_book(&self) -> Book {
        Book::new(self.switches.followed().subscribe(), &self.node)
    }

    /// Puts what the recipes count into `registry`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        figures::register(&self.opened, registry);
        self.registry.figures().register(registry);
        self.centre.figures().register(registry);
        self.coordination.figures().register(registry);
        self.outbox.figures().register(registry);
        self.audit.figures().register(registry);
        self.switches.figures().register(registry);
        if let Some(transactions) = &self.transactions {
            transactions.register(registry);
        }
        if let Some(deferrals) = &self.deferrals {
            deferrals.register(registry);
        }
    }

    /// Milliseconds since 1970, to be shown.
    pub fn unix_millis(&self) -> u64 {
        BootClock.unix_millis()
    }

    /// Whether the store of this process has failed and takes no more writes until it is opened
    /// again. Nothing is said of one elsewhere, which is not asked.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn has_failed(&self) -> bool {
        let Opened::Embedded(store) = &self.opened else { return false };
        store.status().await.is_ok_and(|status| status.state == State::Failed)
    }

    /// Most bytes the store of this process may have; one elsewhere sets its own limit.
    pub fn bytes_max(&self) -> Option<u64> {
        match &self.opened {
            Opened::Embedded(store) => Some(store.bytes_max()),
            Opened::Etcd(_) => None,
        }
    }

    /// Most revisions the store keeps, where it is this process that sees to it.
    pub fn revisions_max(&self) -> Option<u64> {
        match &self.opened {
            Opened::Embedded(store) => Some(store.revisions_max()),
            Opened::Etcd(_) => None,
        }
    }

    /// As whom this node stands for duties.
    pub fn owner(&self) -> Owner {
        owner(&self.node)
    }

    /// Leaves, within eight seconds: gives duties back, ends sessions, lets other nodes take over the
    /// instances this one owns, and closes the store. Returns how many tasks were still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was told to stop stays told, and calling again waits again.
    pub async fn leave(&self) -> usize {
        let consul = async {
            match &self.consul {
                Some(door) => door.recipes.shutdown(DUTIES_MAX).await,
                None => 0,
            }
        };
        // First those who call others and release locks.
        let transactions = match &self.transactions {
            Some(transactions) => transactions.shutdown().await,
            None => 0,
        };
        // Duties next: they are given back by sessions.
        let (resolver, timers, consul) = tokio::join!(
            self.resolver.shutdown(DUTIES_MAX),
            self.timers.shutdown(DUTIES_MAX),
            consul
        );
        let (sessions, centre, registry, rules, ring) = tokio::join!(
            self.coordination.shutdown(RECIPES_MAX),
            self.centre.shutdown(RECIPES_MAX),
            self.registry.shutdown(RECIPES_MAX),
            self.rules.shutdown(RECIPES_MAX),
            self.ring.shutdown(RECIPES_MAX),
        );
        let outbox = self.outbox.shutdown(OUTBOX_MAX).await;
        if tokio::time::timeout(LOG_MAX, self.audit.finish()).await.is_err() {
            tracing::warn!("the newest audit records wait for the next start");
        }
        match tokio::time::timeout(CLOSING_MAX, self.store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store was not closed well"),
            Err(_elapsed) => tracing::error!("the store was not closed in time"),
        }
        let rest = transactions + resolver + timers + consul;
        rest + sessions + centre + registry + rules + ring + outbox
    }
}

/// Waits until what the store holds is read, for as long as a start may take.
async fn loaded(ready: impl Future<Output = ()>) {
    if tokio::time::timeout(LOADING_MAX, ready).await.is_err() {
        tracing::warn!("the store does not answer; what it holds is loaded when it does");
    }
}

/// The audit log of a node, which others reach at an address.
fn logging(
    opened: &Opened,
    (outbox, ring): (&Outbox, &Ring),
    (config, data): (AuditConfig, &Path),
    node: (String, String),
) -> AuditLog {
    AuditLog::new(audit::Around {
        data: data.to_owned(),
        config,
        store: opened.store(),
        outbox: outbox.clone(),
        ring: ring.clone(),
        node,
        is_alone: matches!(opened, Opened::Embedded(_)),
    })
}

/// The config centre of `store`, and the keys it seals with.
fn sealing(
    store: &Arc<dyn Store>,
    outbox: &Outbox,
    Keys { keyring, file }: Keys,
    options: centre::Options,
) -> (Centre, Ring) {
    let (of, timer) = (|| Arc::clone(store), Arc::new(BootClock));
    let centre = Centre::start(of(), timer.clone(), outbox.clone(), keyring.clone(), options);
    let ring = Ring::start(of(), timer, (keyring, file), centre.clone(), outbox.clone());
    (centre, ring)
}

/// As whom a node stands for its duties.
fn owner(node: &NodeName) -> Owner {
    let host = OwnerName::new(node.as_str()).expect("a node's name can be an owner's");
    let name = OwnerName::new("mainstay").expect("letters");
    Owner::new(host, std::process::id(), name)
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.node).finish_non_exhaustive()
    }
}
