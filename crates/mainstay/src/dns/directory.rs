//! What the registry knows, as this door asks it.
//!
//! Names of DNS have no case and names of services do. Those in lower case are asked for directly,
//! at the state of this moment. For the rest, for names that only have others below them, and for
//! addresses, there are two indexes over the whole registry; they are made anew when somebody asks
//! and the registry has changed since, at most once a second each: walking over 100,000 instances
//! takes some ten milliseconds, and questions cost a stranger nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_coord::name::Namespace;
use mainstay_coord::registry::{Registry, RegistryError, View};
use mainstay_coord::{InstanceRef, ServiceRef};
use mainstay_core::name::ServiceName;
use mainstay_core::{Clock as _, Instant};
use mainstay_store::Revision;
use parking_lot::Mutex;

use super::nodes::Nodes;

/// The registry has not been read yet: nothing may be said, least of all that there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loading;

/// What answers are made from.
pub trait Directory {
    /// The revision all of it is at.
    ///
    /// # Errors
    ///
    /// [`Loading`], as for all calls that return it.
    fn revision(&self) -> Result<u64, Loading>;

    /// A service by its namespace and its name in lower case; `None` when nobody ever registered
    /// it.
    ///
    /// # Errors
    ///
    /// [`Loading`].
    fn service(&self, namespace: &str, name: &str) -> Result<Option<Arc<View>>, Loading>;

    /// Whether a service's `<service>.<namespace>` ends in `.` and `suffix`, which is in lower case.
    ///
    /// # Errors
    ///
    /// [`Loading`].
    fn is_parent(&self, suffix: &str) -> Result<bool, Loading>;

    /// An instance that is registered with `address`.
    ///
    /// # Errors
    ///
    /// [`Loading`].
    fn instance_at(&self, address: IpAddr) -> Result<Option<InstanceRef>, Loading>;

    /// The addresses, as far as they are known, of the node of this name, in lower case; `None`
    /// when there is no such node.
    ///
    /// # Errors
    ///
    /// [`Loading`].
    fn node(&self, name: &str) -> Result<Option<Vec<IpAddr>>, Loading>;

    /// The node at `address`.
    fn node_at(&self, address: IpAddr) -> Option<String>;
}

/// How old an index may be while the registry changes.
const INDEX_AGE_MAX: Duration = Duration::from_secs(1);

/// The registry of this process.
pub struct RegistryDirectory {
    registry: Registry,
    /// This node and where it is reached.
    node: (String, IpAddr),
    /// The others.
    nodes: Nodes,
    names: Mutex<Option<Indexed<Names>>>,
    addresses: Mutex<Option<Indexed<BTreeMap<IpAddr, InstanceRef>>>>,
}

/// An index, and what it was made of when.
struct Indexed<T> {
    of: Revision,
    at: Instant,
    index: Arc<T>,
}

#[derive(Default)]
struct Names {
    /// Services whose names have capitals, by namespace and name in lower case.
    capital: BTreeMap<(String, String), ServiceRef>,
    /// What names of services end in, the namespace included, in lower case.
    parents: BTreeSet<String>,
}

impl RegistryDirectory {
    /// What `registry` and `nodes` know; this process is `node`, reached at `address`.
    pub fn new(registry: Registry, node: String, address: IpAddr, nodes: Nodes) -> Self {
        let (names, addresses) = (Mutex::default(), Mutex::default());
        Self { registry, node: (node, address), nodes, names, addresses }
    }

    fn view(&self, service: &ServiceRef) -> Result<Option<Arc<View>>, Loading> {
        match self.registry.settings(service) {
            Ok(_) => self.registry.view(service).map(Some).map_err(|_loading| Loading),
            Err(RegistryError::ServiceNotFound { .. }) => Ok(None),
            Err(_loading) => Err(Loading),
        }
    }

    fn index<T>(
        &self,
        kept: &Mutex<Option<Indexed<T>>>,
        make: impl FnOnce(&Registry) -> Result<T, Loading>,
    ) -> Result<Arc<T>, Loading> {
        let (now, revision) = (MonotonicClock.now(), self.registry.revision());
        let mut kept = kept.lock();
        if let Some(indexed) = &*kept
            && (indexed.of == revision || now.since(indexed.at) < INDEX_AGE_MAX)
        {
            return Ok(Arc::clone(&indexed.index));
        }
        let index = Arc::new(make(&self.registry)?);
        *kept = Some(Indexed { of: revision, at: now, index: Arc::clone(&index) });
        Ok(index)
    }

    fn names(&self) -> Result<Arc<Names>, Loading> {
        self.index(&self.names, |registry| {
            let mut names = Names::default();
            for (service, _) in registry.services().map_err(|_loading| Loading)? {
                let lower = service.name.as_str().to_ascii_lowercase();
                let namespace = service.namespace.as_str().to_owned();
                let whole = format!("{lower}.{namespace}");
                let tails = whole.match_indices('.').filter_map(|(at, _)| whole.get(at + 1..));
                names.parents.extend(tails.map(str::to_owned));
                if lower != service.name.as_str() {
                    names.capital.entry((namespace, lower)).or_insert(service);
                }
            }
            Ok(names)
        })
    }
}

impl Directory for RegistryDirectory {
    fn revision(&self) -> Result<u64, Loading> {
        match self.registry.revision() {
            Revision::NEVER => Err(Loading),
            revision => Ok(revision.get()),
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Result<Option<Arc<View>>, Loading> {
        let (Ok(space), Ok(service)) = (Namespace::new(namespace), ServiceName::new(name)) else {
            return Ok(None);
        };
        let direct = ServiceRef { namespace: space, name: service };
        if let Some(view) = self.view(&direct)? {
            return Ok(Some(view));
        }
        let names = self.names()?;
        let capital = names.capital.get(&(namespace.to_owned(), name.to_owned()));
        capital.map_or(Ok(None), |service| self.view(service))
    }

    fn is_parent(&self, suffix: &str) -> Result<bool, Loading> {
        Ok(self.names()?.parents.contains(suffix))
    }

    fn instance_at(&self, address: IpAddr) -> Result<Option<InstanceRef>, Loading> {
        let index = self.index(&self.addresses, |registry| {
            let mut index = BTreeMap::new();
            for (service, _) in registry.services().map_err(|_loading| Loading)? {
                let view = registry.view(&service).map_err(|_loading| Loading)?;
                for listed in &view.instances {
                    if let Ok(ip) = listed.instance.address.parse() {
                        index.entry(ip).or_insert_with(|| service.instance(&listed.id));
                    }
                }
            }
            Ok(index)
        })?;
        Ok(index.get(&address).cloned())
    }

    fn node(&self, name: &str) -> Result<Option<Vec<IpAddr>>, Loading> {
        let (own, address) = &self.node;
        if own.eq_ignore_ascii_case(name) {
            return Ok(Some(vec![*address]));
        }
        if let Some(found) = self.nodes.find(name) {
            return Ok(Some(found));
        }
        let nodes = self.registry.nodes().map_err(|_loading| Loading)?;
        let is_there = nodes.iter().any(|node| node.as_str().eq_ignore_ascii_case(name));
        Ok(is_there.then(Vec::new))
    }

    fn node_at(&self, address: IpAddr) -> Option<String> {
        let own = || self.node.0.clone();
        (self.node.1 == address).then(own).or_else(|| self.nodes.at(address))
    }
}

impl fmt::Debug for RegistryDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryDirectory").field("node", &self.node).finish_non_exhaustive()
    }
}
