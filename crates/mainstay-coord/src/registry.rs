//! The registry: who can answer for a service.
//!
//! ```text
//!  store ──watch──▶ copy ──▶ views ──▶ whoever asks or watches
//!    ▲                │
//!    │                ▼
//!    └──writes── owner's duties ◀── heartbeats, checks
//! ```
//!
//! An instance is a record in the store. It has an *owner*, the node that hears its heartbeats,
//! sends its checks and removes it when it is gone; the record says which. Heartbeats move a
//! moment in the owner's memory and write nothing, so a hundred thousand instances cost the disk
//! nothing as long as all is well. A beat that comes to another node moves the ownership there; if
//! a node dies, the first of those alive takes its instances over, each with a full ttl.
//!
//! Every node answers from a copy of its own ([`copy`]), and a write answers when the copy has it.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | an instance, a registration, settings of a service | [`instance`], [`registration`], [`service`] | – |
//! | the copy, and what it shows | [`copy`], [`view`] | decides |
//! | what the owner owes | [`owned`] | decides |
//! | whether too many went at once | [`protection`], [`budget`] | decides |
//! | hearing heartbeats; waiting for the copy | `beats`, `fresh` | act |
//! | keeping the copy in step; writing; looking after instances, nodes, checks | `feed`, `write`, `owner`, `nodes`, `checker` | act |

mod beats;
pub mod budget;
pub mod changes;
mod checker;
pub mod copy;
pub mod error;
mod feed;
pub mod figures;
mod fresh;
pub mod instance;
pub(crate) mod listing;
mod local;
mod nodes;
pub mod observation;
pub mod own_check;
pub mod owned;
mod owner;
pub mod protection;
mod publisher;
pub mod registration;
pub mod service;
pub mod share;
mod shared;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_store::{Revision, Store};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::audit::Outbox;
use crate::clock::Timer;
use crate::health::targets::Addresses;
use crate::keys::{InstanceRef, RegistryArea, ServiceRef};
use crate::name::NodeName;
use crate::tasks::Tasks;
use copy::Copy;
use figures::Figures;
use local::Local;
use shared::Shared;

pub use beats::HEARTBEATS_MAX;
pub use changes::{Change, Changes};
pub use error::{Invalid, RegistryError};
pub use instance::{CheckStatus, Gone, GoneReason, Instance, Kind, State};
pub use own_check::{ConsulService, NewCheck, OwnCheck, TaggedAddress};
pub use owned::Stands;
pub use registration::{RawRegistration, Registration};
pub use service::{RawSettings, Settings, Shares};
pub use share::Share;
pub use view::{EmptyBecause, Endpoint, Filter, Listed, Protected, View, Why};
pub use write::{Beside, Registered, Tried, Written};

/// How a node takes part in the registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name; one process at a time goes by it.
    pub node: NodeName,
    /// Where others reach it; shown.
    pub address: String,
    /// Ttl of instances that name none.
    pub ttl_seconds: u32,
    /// Shares that hold where a service says nothing.
    pub shares: Shares,
    /// How long changes are gathered before they are pushed.
    pub push_merge: Duration,
    /// Checks sent at once.
    pub check_concurrency_max: usize,
    /// How many callers must report an instance.
    pub passive_quorum: u32,
    /// Where checks may go beyond the addresses of instances.
    pub check_targets: Addresses,
}

impl Options {
    /// The defaults, for `node`.
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            address: String::new(),
            ttl_seconds: 15,
            shares: Shares::default(),
            push_merge: Duration::from_millis(50),
            check_concurrency_max: 512,
            passive_quorum: 2,
            check_targets: Addresses::default(),
        }
    }
}

/// The registry as one node takes part in it. Clones share everything.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl Registry {
    /// Takes part in the registry that `store` holds: reads it, makes this node known, and looks
    /// after the instances it owns, until [`shutdown`](Registry::shutdown). Must be called within
    /// a tokio runtime. What people change is recorded in `outbox`, of the same store.
    pub fn start(
        store: Arc<dyn Store>,
        timer: Arc<dyn Timer>,
        outbox: Outbox,
        options: Options,
    ) -> Self {
        let copy = Copy::new(options.shares, options.passive_quorum);
        let local = Mutex::new(Local::new(options.node.clone(), copy));
        let shared = Arc::new(Shared {
            store,
            timer,
            outbox,
            options,
            tasks: Tasks::default(),
            figures: Figures::default(),
            local,
            taken: watch::Sender::new(0),
            news: Notify::new(),
            nodes: Notify::new(),
        });
        for area in RegistryArea::ALL {
            let feed = Arc::clone(&shared);
            shared.tasks.spawn("registry feed", move |stop| feed::run(feed, area, stop));
        }
        let (of, tasks) = (|| Arc::clone(&shared), &shared.tasks);
        let (publisher, owner, checker) = (of(), of(), of());
        let (member, sweeper) = (of(), of());
        tasks.spawn("registry publisher", move |stop| publisher::run(publisher, stop));
        tasks.spawn("registry owner", move |stop| owner::run(owner, stop));
        tasks.spawn("registry checks", move |stop| checker::run(checker, stop));
        tasks.spawn("registry node", move |stop| nodes::be_known(member, stop));
        tasks.spawn("registry sweeper", move |stop| nodes::sweep(sweeper, stop));
        Self { shared }
    }

    /// Waits until the copy has been read. Before that every question is answered with
    /// [`RegistryError::Loading`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ready(&self) {
        self.shared.when(|local| local.copy.is_loaded().then_some(())).await;
    }

    /// Leaves: other nodes take over what this one looked after. Waits up to `grace` for its
    /// tasks; returns how many are still running.
    ///
    /// # Cancel safety
    ///
    /// Safe: tasks stay told to stop, and calling again waits again.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.shared.tasks.shutdown(grace).await
    }

    /// What has been counted.
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// What a service looks like now. One that nobody registered is empty and says so. Until it
    /// changes this is the same list, shared.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`].
    pub fn view(&self, service: &ServiceRef) -> Result<Arc<View>, RegistryError> {
        let shared = &self.shared;
        let mut local = shared.loaded()?;
        Ok(local.view(shared.now(), shared.timer.unix_millis(), service, &shared.figures))
    }

    /// Every service, with how many instances it has.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`].
    pub fn services(&self) -> Result<Vec<(ServiceRef, usize)>, RegistryError> {
        let local = self.shared.loaded()?;
        let there = local.copy.services().filter(|service| local.copy.has(service));
        Ok(there.map(|service| (service.clone(), local.copy.counts(service).0)).collect())
    }

    /// Settings of a service, and the revision that wrote them.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`], [`RegistryError::ServiceNotFound`].
    pub fn settings(
        &self,
        service: &ServiceRef,
    ) -> Result<(Arc<Settings>, Revision), RegistryError> {
        let local = self.shared.loaded()?;
        if !local.copy.has(service) {
            return Err(RegistryError::ServiceNotFound { service: service.clone() });
        }
        Ok(local.copy.settings(service))
    }

    /// What a service looks like now, and every later state. States that follow each other within
    /// [`Options::push_merge`] are merged; the last one wins.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`].
    pub fn watch(&self, service: &ServiceRef) -> Result<watch::Receiver<Arc<View>>, RegistryError> {
        let shared = &self.shared;
        let mut local = shared.loaded()?;
        let unix_ms = shared.timer.unix_millis();
        Ok(local.subscribe(shared.now(), unix_ms, service, &shared.figures))
    }

    /// Every change of a service after `after`, one by one.
    ///
    /// # Errors
    ///
    /// What the store says to a watch.
    pub fn changes(&self, service: &ServiceRef, after: Revision) -> Result<Changes, RegistryError> {
        Changes::start(Arc::clone(&self.shared.store), service.clone(), after)
    }

    /// The revision this node's copy of the instances is at.
    pub fn revision(&self) -> Revision {
        self.shared.local.lock().copy.revision(RegistryArea::Instances)
    }

    /// Every instance of every service.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`].
    pub fn instances(&self) -> Result<Vec<(InstanceRef, Arc<Instance>)>, RegistryError> {
        let local = self.shared.loaded()?;
        let all = local.copy.all();
        Ok(all.map(|(service, id, record)| (service.instance(id), Arc::clone(record))).collect())
    }

    /// One instance, as its record tells.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`].
    pub fn instance(&self, at: &InstanceRef) -> Result<Option<Arc<Instance>>, RegistryError> {
        let local = self.shared.loaded()?;
        Ok(local.copy.instance(at).map(|(record, _)| Arc::clone(record)))
    }

    /// How a ttl check stands now, if its reports come here; the record follows.
    pub fn stands(&self, at: &InstanceRef, check: &str) -> Option<Stands> {
        let shared = &self.shared;
        shared.local.lock().owned.stands(shared.now(), at, check)
    }

    /// The nodes alive.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Loading`].
    pub fn nodes(&self) -> Result<Vec<NodeName>, RegistryError> {
        Ok(self.shared.loaded()?.copy.nodes().iter().cloned().collect())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("node", &self.shared.options.node).finish_non_exhaustive()
    }
}
