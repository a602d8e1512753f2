//! Global transactions, as this process coordinates them.
//!
//! The coordinator itself is `mainstay-txn`; here is what it asks of others, and how it starts and
//! ends with the process.
//!
//! | what | module |
//! |---|---|
//! | `[transaction]` | [`settings`] |
//! | where branches may be called | [`targets`] |
//! | what a branch is sent, and what its answer means | `request`, `reply` |
//! | calling it | `caller`, `connector` |
//! | databases that take part | [`databases`] |
//! | making deferred requests | [`deliveries`] |
//! | locks that transactions hold | `locks` |

mod caller;
mod connector;
pub mod databases;
pub mod deliveries;
mod events;
pub(crate) mod figures;
mod locks;
mod reply;
pub(crate) mod request;
pub mod settings;
pub mod targets;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::health::targets::Addresses;
use mainstay_coord::{BootClock, Coordination, Timer as _};
use mainstay_core::problem::Code;
use mainstay_core::{Clock as _, Instant};
use mainstay_store::Store;
use mainstay_txn::meta;
use mainstay_txn::owner::Replace;
use mainstay_txn::port::{Answering, Hooks, Surroundings};
use mainstay_txn::resource::ResourceSettings;
use mainstay_txn::run::{Ports, Settings};
use mainstay_txn::{
    Begin, Coordinator, Finding, Gid, Moment, NewBranch, Part, ResourceName, State, Submit,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::cluster::resolve::RegistryResolver;
use crate::cluster::settings::Backend;
use crate::report::causes;
pub(crate) use caller::ByHand;
use caller::Caller;
pub(crate) use connector::believed as trusting_this_machine;
use databases::{Databases, InUse};
use deliveries::{Deliveries, Outlets};
use events::{Away, Found};
use locks::Ends;
use settings::TransactionConfig;
use targets::{TargetDenied, Targets};

/// Before a coordinator that could not start is tried again.
const START_EVERY: Duration = Duration::from_secs(1);

/// Names drawn until one lies where this node owns the log.
const DRAWS_MAX: usize = 1_024;

fn first(mut draws: impl Iterator<Item = Gid>) -> Gid {
    draws.next().expect("draws do not end")
}

/// The coordinator of this process, once it has started. Clones stand for the same.
#[derive(Clone, Debug)]
pub struct Coordinators(watch::Receiver<Option<Coordinator>>);

impl Coordinators {
    /// The coordinator, if it has started.
    pub fn get(&self) -> Option<Coordinator> {
        self.0.borrow().clone()
    }
}

/// Global transactions, as this process coordinates them.
pub struct Transactions {
    config: TransactionConfig,
    coordinators: Coordinators,
    targets: Arc<Targets>,
    databases: Databases,
    calls: figures::Figures,
    counts: mainstay_txn::figures::Figures,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Somebody who is named may not take part. Nothing was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// A branch may not be called there.
    #[error(transparent)]
    Denied(#[from] TargetDenied),
    /// No database of this name is configured.
    #[error("no database is configured as `{resource}`")]
    ResourceUnknown {
        /// The name.
        resource: ResourceName,
    },
    /// The database cannot prepare a branch, or the coordinator could not end it there.
    #[error("database `{resource}` cannot take part: {why}")]
    CannotPrepare {
        /// Which.
        resource: ResourceName,
        /// What is wrong with it.
        why: String,
    },
    /// The database does not answer, or was not asked yet.
    #[error("database `{resource}` does not answer")]
    Away {
        /// Which.
        resource: ResourceName,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
}

impl NotAdmitted {
    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Denied(_) => Code::BranchTargetDenied,
            Self::ResourceUnknown { .. } => Code::ResourceUnknown,
            Self::CannotPrepare { .. } => Code::ResourceCannotPrepare,
            Self::Away { .. } => Code::ResourceUnreachable,
        }
    }

    /// When it makes sense to ask again, if it passes by itself.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Away { retry_after, .. } => Some(*retry_after),
            Self::Denied(_) | Self::ResourceUnknown { .. } | Self::CannotPrepare { .. } => None,
        }
    }
}

/// Of what this process is made besides.
#[derive(Clone)]
pub struct Around {
    /// Where the log lies.
    pub store: Arc<dyn Store>,
    /// Of which kind it is.
    pub backend: Backend,
    /// Where locks are.
    pub coordination: Coordination,
    /// Who knows instances of services.
    pub resolver: Arc<RegistryResolver>,
    /// Where instances may lie that go by a name.
    pub addresses: Addresses,
    /// What this process is called.
    pub node: String,
    /// Where its control port is.
    pub control: SocketAddr,
    /// How services are reached that requests are deferred for.
    pub outlets: Outlets,
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Around").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Transactions {
    /// Coordinates as `config` says. Must be called within a tokio runtime. While the store does
    /// not answer it is tried again.
    pub fn start(config: TransactionConfig, around: Around) -> Self {
        let Around { store, backend, coordination, resolver, addresses, node, control, outlets } =
            around;
        let targets = Arc::new(Targets::new(config.targets.clone(), control));
        let (calls, counts) = (figures::Figures::default(), config.settings.figures.clone());
        let (ends, ended) = locks::ends();
        let surroundings: Arc<dyn Surroundings> = Arc::new(NodeClock::new());
        let databases =
            Databases::new(config.resources.clone(), config.sweeps, Arc::clone(&surroundings));
        let caller = Caller::new(
            (resolver, addresses.clone()),
            Arc::clone(&targets),
            databases.clone(),
            config.dtm.body_markers,
            calls.clone(),
        );
        let ports = Ports {
            store,
            participants: Arc::new(Deliveries::new(caller, outlets, addresses, calls.clone())),
            hooks: Arc::new(AtEnds(ends)),
            surroundings,
        };
        let settings = Settings {
            node,
            address: door(control),
            replace: match backend {
                Backend::Embedded => Replace::Everybody,
                Backend::Etcd => Replace::OwnName,
            },
            ..config.settings.clone()
        };
        let (started, coordinators) = watch::channel(None);
        let own = Self {
            coordinators: Coordinators(coordinators),
            config,
            targets,
            databases: databases.clone(),
            calls,
            counts,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let (stop, locks) = (&own.stop, coordination.locks());
        own.spawn("transaction locks", locks::run(ended, locks.clone(), stop.clone()));
        let patience = own.config.settings.policy.lifetime_max;
        let now = || BootClock.now();
        let swept = locks::sweep(locks, own.coordinators.clone(), patience, now, stop.clone());
        own.spawn("transaction lock sweep", swept);
        let begun = begin(settings, ports, coordination, (databases, started), stop.clone());
        own.spawn("transaction start", begun);
        own
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(task.instrument(tracing::info_span!("task", name))));
    }

    /// Waits until it coordinates.
    pub async fn ready(&self) {
        // An error is the end of whoever starts it.
        drop(self.coordinators.0.clone().wait_for(Option::is_some).await);
    }

    /// The coordinator, once it has started.
    pub fn coordinators(&self) -> Coordinators {
        self.coordinators.clone()
    }

    /// The coordinator, if it has started.
    pub fn coordinator(&self) -> Option<Coordinator> {
        self.coordinators.get()
    }

    /// A name for a transaction that nobody has used, in a part of the log that this node owns.
    pub fn generate(&self) -> Gid {
        let mut draws = std::iter::repeat_with(|| {
            let draw = u128::from(mainstay_call::draw::next()) << 64;
            let draw = draw | u128::from(mainstay_call::draw::next());
            Gid::generate(Moment::from_unix_millis(BootClock.unix_millis()), draw)
        });
        let Some(coordinator) = self.coordinator() else { return first(draws) };
        // A node that owns one part of 64 finds it in 256 draws all but surely; one that owns none
        // refuses whatever it is given.
        let own = draws.by_ref().take(DRAWS_MAX).find(|gid| coordinator.owns(gid));
        own.unwrap_or_else(|| first(draws))
    }

    /// What holds for transactions.
    pub const fn config(&self) -> &TransactionConfig {
        &self.config
    }

    /// Whether all that `begin` names may take part.
    ///
    /// # Errors
    ///
    /// [`NotAdmitted`] of the first that may not.
    pub fn admit(&self, begin: &Begin) -> Result<(), NotAdmitted> {
        begin.check.iter().try_for_each(|check| self.targets.check(check))?;
        begin.steps.iter().try_for_each(|step| self.admit_branch(step))
    }

    /// Whether all that `branch` names may take part.
    ///
    /// # Errors
    ///
    /// [`NotAdmitted`] of the first that may not.
    pub fn admit_branch(&self, branch: &NewBranch) -> Result<(), NotAdmitted> {
        match &branch.part {
            Part::Endpoint { targets, .. } => {
                Ok(targets.values().try_for_each(|target| self.targets.check(target))?)
            }
            Part::Resource(resource) => self.databases.admit(resource),
        }
    }

    /// Whether the databases that `submit` names are known. One that is away ends its branch once
    /// it is back.
    ///
    /// # Errors
    ///
    /// [`NotAdmitted`] of the first that may not.
    pub fn admit_votes(&self, submit: &Submit) -> Result<(), NotAdmitted> {
        let named = submit.votes.iter().filter_map(|vote| vote.resource.as_ref());
        match named.into_iter().find(|resource| !self.databases.has(resource)) {
            Some(resource) => Err(NotAdmitted::ResourceUnknown { resource: resource.clone() }),
            None => Ok(()),
        }
    }

    /// The databases that take part.
    pub const fn databases(&self) -> &Databases {
        &self.databases
    }

    /// Whether the databases may be `wanted` and no others.
    ///
    /// # Errors
    ///
    /// [`InUse`] of one that would go.
    pub fn rehearse_databases(&self, wanted: &[ResourceSettings]) -> Result<(), InUse> {
        self.databases.rehearse(wanted, self.coordinator().as_ref())
    }

    /// Goes by the databases of `wanted` from now on.
    pub fn replace_databases(&self, wanted: &[ResourceSettings]) {
        self.databases.replace(wanted.to_vec());
    }

    /// Puts what is counted into `registry`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.counts.register(registry);
        self.calls.register(registry);
        self.databases.register(registry);
    }

    /// Brings what is counted of this moment up to date.
    pub fn look(&self) {
        if let Some(coordinator) = self.coordinator() {
            coordinator.look();
        }
    }

    /// Begins nothing any more, lets calls under way end, writes what waits, and gives shards up.
    /// Returns how many tasks are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was told to stop stays told, and calling again waits again.
    pub async fn shutdown(&self) -> usize {
        let started = self.coordinator();
        let mut left = match &started {
            Some(coordinator) => coordinator.shutdown(self.config.drain).await,
            None => 0,
        };
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(START_EVERY, self.tasks.wait()).await.is_err() {
            left += self.tasks.len();
        }
        // It may have started just before it could be told not to.
        if let (None, Some(coordinator)) = (started, self.coordinator()) {
            left += coordinator.shutdown(self.config.drain).await;
        }
        left + self.databases.shutdown(START_EVERY).await
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions")
            .field("coordinators", &self.coordinators)
            .finish_non_exhaustive()
    }
}

/// Where others find the control port at `control`: the machine's name, and the address there.
fn door(control: SocketAddr) -> String {
    format!("{}/{control}", host())
}

/// The address in what [`door`] said, if it leads to the same port from here. Loopback does on the
/// machine itself alone: elsewhere anybody may listen there, and would be sent a caller's token.
pub(crate) fn reachable(door: &str) -> Option<SocketAddr> {
    let (machine, address) = door.rsplit_once('/')?;
    let address: SocketAddr = address.parse().ok()?;
    (!address.ip().is_loopback() || machine == host()).then_some(address)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Starts the coordinator, as often as it takes, and keeps the word on it until told to stop.
async fn begin(
    settings: Settings,
    ports: Ports,
    coordination: Coordination,
    (databases, started): (Databases, watch::Sender<Option<Coordinator>>),
    stop: CancellationToken,
) {
    let mut said = String::new();
    let coordinator = loop {
        let began = async {
            let base = coordination.fence_base().await.map_err(|error| causes(&error))?;
            let settings = Settings { fence_base: base, ..settings.clone() };
            // Branches are ended from the first moment on, under the names that the log gives them.
            let draw = || ports.surroundings.draw();
            let identity = meta::settle(&*ports.store, settings.shards, draw).await;
            let identity = identity.map_err(|error| causes(&error))?;
            databases.open(identity.cluster, &settings.node);
            Coordinator::start(settings, ports.clone()).await.map_err(|error| causes(&error))
        };
        let error = tokio::select! {
            began = began => match began {
                Ok(coordinator) => break coordinator,
                Err(error) => error,
            },
            () = stop.cancelled() => return,
        };
        if error != said {
            Away { error: &error }.emit();
            said = error;
        }
        tokio::select! {
            () = tokio::time::sleep(START_EVERY) => {}
            () = stop.cancelled() => return,
        }
    };
    databases.look_after(coordinator.clone());
    // Before it is known whether the log is behind, nothing is begun.
    tokio::select! {
        () = databases.first_look() => {}
        () = stop.cancelled() => {}
    }
    // Told to stop or not: whoever shuts down ends it.
    started.send_replace(Some(coordinator));
    stop.cancelled().await;
}

/// Hears of ends and findings.
struct AtEnds(Ends);

impl Hooks for AtEnds {
    fn ended(&self, gid: &Gid, _state: State) -> Answering<'_, Result<(), String>> {
        let gid = gid.clone();
        Box::pin(async move { self.0.release(&gid).await })
    }

    fn found(&self, gid: &Gid, finding: &Finding) {
        Found { gid: gid.as_str(), finding }.emit();
    }
}

/// The wall clock as it was when the process began, and progress since that counts suspension.
struct NodeClock {
    wall: Moment,
    began: Instant,
}

impl NodeClock {
    fn new() -> Self {
        Self { wall: Moment::from_unix_millis(BootClock.unix_millis()), began: BootClock.now() }
    }
}

impl Surroundings for NodeClock {
    fn now(&self) -> Moment {
        self.wall.plus(BootClock.now().since(self.began))
    }

    fn draw(&self) -> u32 {
        u32::try_from(mainstay_call::draw::next() >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_of_another_machine_is_not_ours() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let own = at("127.0.0.1:7400");
        assert_eq!(reachable(&door(own)), Some(own));
        assert_eq!(reachable("another/10.0.0.8:7400"), Some(at("10.0.0.8:7400")));
        for away in ["another/127.0.0.1:7400", "another/[::1]:7400", "127.0.0.1:7400", "a/b", ""] {
            assert_eq!(reachable(away), None, "{away:?}");
        }
    }
}
