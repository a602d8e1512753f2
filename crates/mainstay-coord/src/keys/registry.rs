//! Keys of the registry.

#[cfg(test)]
mod tests;

use std::fmt;

use mainstay_core::name::ServiceName;
use mainstay_store::{Key, Range};

use super::{made, segment, unescape};
use crate::name::{InstanceId, Namespace, NodeName, Reporter};

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    /// Whose it is.
    pub namespace: Namespace,
    /// Which it is.
    pub name: ServiceName,
}

impl ServiceRef {
    /// The key of its settings.
    pub fn settings(&self) -> Key {
        made(format!("svc/{self}"))
    }

    /// The key that says which instance went last, and why.
    ///
    /// It lies beside the instances, so that one watch sees in one revision that an instance has
    /// gone and why; and outside the range of [`instances`](ServiceRef::instances), so that an
    /// empty range is a service without instances.
    pub fn gone(&self) -> Key {
        made(format!("ins/{self}"))
    }

    /// Every instance.
    pub fn instances(&self) -> Range {
        Range::prefix(format!("ins/{self}/"))
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> InstanceRef {
        InstanceRef { service: self.clone(), id: id.clone() }
    }
}

impl fmt::Display for ServiceRef {
    /// As people write it: `namespace/service`. Neither part needs escaping.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceRef {
    /// Of which service.
    pub service: ServiceRef,
    /// Which it is.
    pub id: InstanceId,
}

impl InstanceRef {
    /// The key of its record.
    pub fn key(&self) -> Key {
        made(format!("ins/{}", self.path()))
    }

    /// The key of what `reporter` saw of it.
    pub fn observation(&self, reporter: &Reporter) -> Key {
        made(format!("obs/{}/{}", self.path(), segment(reporter.as_str())))
    }

    fn path(&self) -> String {
        format!("{}/{}", self.service, segment(self.id.as_str()))
    }
}

impl fmt::Display for InstanceRef {
    /// As people write it: `namespace/service/instance`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

/// The key of a process of Mainstay.
pub fn node(name: &NodeName) -> Key {
    made(format!("node/{}", segment(name.as_str())))
}

/// A part of the key space that a node keeps a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryArea {
    /// Settings of services.
    Settings,
    /// Instances, and what became of the last one.
    Instances,
    /// What callers saw.
    Observations,
    /// Processes of Mainstay.
    Nodes,
}

impl RegistryArea {
    /// Every area.
    pub const ALL: [Self; 4] = [Self::Settings, Self::Instances, Self::Observations, Self::Nodes];

    /// All of its keys.
    pub fn range(self) -> Range {
        Range::prefix(format!("{}/", self.as_str()))
    }

    /// First segment of its keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "svc",
            Self::Instances => "ins",
            Self::Observations => "obs",
            Self::Nodes => "node",
        }
    }
}

/// What a key of the registry stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryKey {
    /// Settings of a service.
    Settings(ServiceRef),
    /// Which instance of a service went last, and why.
    Gone(ServiceRef),
    /// An instance.
    Instance(InstanceRef),
    /// What a caller saw of an instance.
    Observation(InstanceRef, Reporter),
    /// A process of Mainstay.
    Node(NodeName),
}

/// What `key` stands for; `None` when it is none of the registry's.
pub fn parse_registry(key: &[u8]) -> Option<RegistryKey> {
    let mut segments = std::str::from_utf8(key).ok()?.split('/');
    let area = segments.next()?;
    let rest: Vec<String> = segments.map(unescape).collect::<Option<_>>()?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let service = |namespace: &str, name: &str| {
        let namespace = Namespace::new(namespace).ok()?;
        Some(ServiceRef { namespace, name: ServiceName::new(name).ok()? })
    };
    let instance = |namespace: &str, name: &str, id: &str| {
        Some(InstanceRef { service: service(namespace, name)?, id: InstanceId::new(id).ok()? })
    };
    match (area, &*rest) {
        ("svc", [namespace, name]) => service(namespace, name).map(RegistryKey::Settings),
        ("ins", [namespace, name]) => service(namespace, name).map(RegistryKey::Gone),
        ("ins", [namespace, name, id]) => instance(namespace, name, id).map(RegistryKey::Instance),
        ("obs", [namespace, name, id, reporter]) => {
            let reporter = Reporter::new(*reporter).ok()?;
            Some(RegistryKey::Observation(instance(namespace, name, id)?, reporter))
        }
        ("node", [name]) => NodeName::new(*name).ok().map(RegistryKey::Node),
        _ => None,
    }
}
