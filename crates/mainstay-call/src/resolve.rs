//! Who can answer for a service.
//!
//! [`Resolve`] is the port between balancing and whatever knows the instances: a list in a file,
//! the registry in the same process, a client of a remote one. Whoever implements it keeps the
//! last good list while its source is away; the balancer never goes back to asking nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::name::ServiceName;
use tokio::sync::watch;

/// One instance of a service, as its registration describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Stable name; also what an instance is called in logs, metrics and the ring.
    pub name: Arc<str>,
    /// `host:port`.
    pub address: Arc<str>,
    /// Share relative to the others; 0 keeps it listed but never picked.
    pub weight: u32,
    /// Where it runs, for zone preference; empty when unknown.
    pub zone: Arc<str>,
    /// Level: 0 is asked first, higher ones only when lower levels are not healthy enough.
    pub priority: u32,
    /// Whether its health allows calls: passing, warning or unknown.
    pub usable: bool,
}

impl Instance {
    /// An instance known only by its address: weight 100, no zone, first level.
    pub fn at(address: &str) -> Self {
        let address: Arc<str> = Arc::from(address);
        Self {
            name: Arc::clone(&address),
            address,
            weight: 100,
            zone: Arc::from(""),
            priority: 0,
            usable: true,
        }
    }
}

/// The instances of one service at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Grows with every change.
    pub revision: u64,
    /// In the order of the list they come from.
    pub instances: Vec<Instance>,
    /// The registry protects the service: too many instances went at once to believe it.
    pub protected: bool,
    /// The source is away; this is the last list it gave.
    pub stale: bool,
    /// Why there is no instance, when there is none.
    pub empty_because: Option<&'static str>,
}

/// A view of a service's instances that is told of every change.
pub type Watch = watch::Receiver<Arc<Snapshot>>;

/// Finds the instances of a service.
pub trait Resolve: Send + Sync {
    /// The instances of `service` in `namespace`, now and from now on. A service nobody knows has
    /// an empty list that says why; it may be filled later.
    fn watch(&self, namespace: &str, service: &ServiceName) -> Watch;
}

/// Lists written down once: in a file, in code. Every namespace has the same.
#[derive(Debug, Default)]
pub struct StaticList {
    services: BTreeMap<ServiceName, watch::Sender<Arc<Snapshot>>>,
    /// What services that are not listed are told. Held so that their watches stay open.
    unknown: watch::Sender<Arc<Snapshot>>,
}

impl StaticList {
    /// An empty list.
    pub fn new() -> Self {
        let unknown = Snapshot {
            empty_because: Some("no instances are configured for this service"),
            ..Snapshot::default()
        };
        Self { services: BTreeMap::new(), unknown: watch::Sender::new(Arc::new(unknown)) }
    }

    /// Adds or replaces `service`; those who watch it are told.
    pub fn set(&mut self, service: ServiceName, instances: Vec<Instance>) {
        let sender = self.services.entry(service).or_default();
        sender.send_modify(|snapshot| {
            let empty_because = instances.is_empty().then_some("the configured list is empty");
            *snapshot = Arc::new(Snapshot {
                revision: snapshot.revision + 1,
                instances,
                empty_because,
                ..Snapshot::default()
            });
        });
    }

    /// A list with one service.
    #[must_use]
    pub fn with<'a>(
        mut self,
        service: ServiceName,
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.set(service, addresses.into_iter().map(Instance::at).collect());
        self
    }
}

impl Resolve for StaticList {
    fn watch(&self, _namespace: &str, service: &ServiceName) -> Watch {
        self.services.get(service).unwrap_or(&self.unknown).subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_watches_is_told_of_a_change_and_an_unknown_service_says_why_it_is_empty() {
        let order = ServiceName::new("order").unwrap();
        let mut list = StaticList::new().with(order.clone(), ["10.0.0.7:8080"]);
        let mut watch = list.watch("default", &order);
        assert_eq!(&*watch.borrow_and_update().instances[0].address, "10.0.0.7:8080");
        list.set(order, vec![Instance::at("10.0.0.8:8080"), Instance::at("10.0.0.9:8080")]);
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow().instances.len(), 2);
        let nobody = list.watch("default", &ServiceName::new("nobody").unwrap());
        assert!(nobody.borrow().empty_because.is_some());
        assert!(!nobody.has_changed().unwrap(), "the watch stays open");
    }
}
