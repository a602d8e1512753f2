//! Why the registry did not do as asked.

use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_store::{Error, Revision};

use super::instance::Kind;
use super::registration::Refused;
use crate::audit::AuditError;
use crate::consul::ConsulError;
use crate::health::targets::AddressRefused;
use crate::keys::{InstanceRef, ServiceRef};

/// Most instances of one service: a list of them is about 3 MiB.
pub const SERVICE_INSTANCES_MAX: usize = 10_000;

/// Most instances of a store: every node keeps a copy of them, about 1 KiB each.
pub const INSTANCES_MAX: usize = 100_000;

/// One wrong field, named the way the caller wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    field: &'static str,
    problem: &'static str,
}

impl Invalid {
    pub(crate) const fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }

    /// Which field.
    pub const fn field(&self) -> &'static str {
        self.field
    }
}

/// Why the registry did not do as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// A field is wrong. The caller's fault.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nobody may be called there. The caller's fault.
    #[error(transparent)]
    AddressRefused(#[from] AddressRefused),
    /// Nobody registered such a service.
    #[error("service {service} not found")]
    ServiceNotFound {
        /// The service asked for.
        service: ServiceRef,
    },
    /// No such instance, or it has been removed. Its owner registers it again.
    #[error("instance {instance} not found")]
    InstanceNotFound {
        /// The instance asked for.
        instance: InstanceRef,
    },
    /// It is not there as it was registered then: it went, or somebody registered it anew.
    #[error("instance {instance} is not there by registration {registration:?}")]
    RegistrationGone {
        /// The instance asked for.
        instance: InstanceRef,
        /// The registration that was to be withdrawn.
        registration: String,
    },
    /// No such check.
    #[error("instance {instance} has no ttl check {check:?}")]
    CheckNotFound {
        /// The instance asked for.
        instance: InstanceRef,
        /// The check asked for.
        check: String,
    },
    /// A service with instances is not deleted. Deregister them first.
    #[error("service {service} has {instances} instances")]
    ServiceInUse {
        /// The service.
        service: ServiceRef,
        /// How many instances it has.
        instances: u64,
    },
    /// A service is ephemeral or persistent as a whole, as long as it has instances.
    #[error("service {service} has {} instances", kind.as_str())]
    KindConflict {
        /// The service.
        service: ServiceRef,
        /// What its instances are.
        kind: Kind,
    },
    /// As many instances as there may be. Deregister some first.
    #[error("{what} has {max} instances, as many as it may have")]
    Full {
        /// The service, or the registry.
        what: String,
        /// The limit.
        max: usize,
    },
    /// Somebody else changed it since. Read again, then decide again.
    #[error("service {service} is at revision {found}, not {expected}")]
    Changed {
        /// The service.
        service: ServiceRef,
        /// The revision the caller had read.
        expected: Revision,
        /// The one found.
        found: Revision,
    },
    /// Somebody else changed it since. Read again, then decide again.
    #[error("instance {instance} is at revision {found}, not {expected}")]
    InstanceChanged {
        /// The instance.
        instance: InstanceRef,
        /// The revision the caller had read.
        expected: Revision,
        /// The one found.
        found: Revision,
    },
    /// This node has not read the registry yet: it would answer with less than there is.
    #[error("registry is loading")]
    Loading,
    /// What is written there cannot be read: a newer version wrote it.
    #[error("record of {what} cannot be read")]
    Unreadable {
        /// What it is of.
        what: String,
    },
    /// The reason is none, or no record can be put; so nothing is changed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store did not do as asked.
    #[error("registry could not be changed")]
    Store(#[from] Error),
}

impl From<Refused> for RegistryError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(invalid) => Self::Invalid(invalid),
            Refused::Address(address) => Self::AddressRefused(address),
        }
    }
}

/// What is wrong with a node that is registered together with its services.
impl From<ConsulError> for RegistryError {
    fn from(error: ConsulError) -> Self {
        match error {
            ConsulError::Store(error) => Self::Store(error),
            ConsulError::ChecksTooMany => Invalid::new("Checks", "must be at most 16").into(),
            ConsulError::NodeName(_) | ConsulError::NodeUnknown(_) => {
                Invalid::new("Node", "must be one that is known").into()
            }
            other => Self::Unreadable { what: other.to_string() },
        }
    }
}

impl RegistryError {
    /// Whether the same request may be sent again as it is.
    ///
    /// A registration may, even after an unknown outcome: it is written under its own id.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Loading => true,
            Self::Audit(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// What the request may have done.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Audit(error) => error.effect(),
            Self::Store(error) => error.effect(),
            _ => Effect::None,
        }
    }

    /// The code of the problem it becomes at the edge.
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidRequest,
            Self::AddressRefused(_) => Code::AddressRefused,
            Self::ServiceNotFound { .. } => Code::ServiceNotFound,
            Self::InstanceNotFound { .. } | Self::RegistrationGone { .. } => Code::InstanceNotFound,
            Self::CheckNotFound { .. } => Code::NotFound,
            Self::ServiceInUse { .. } => Code::ServiceInUse,
            Self::KindConflict { .. } => Code::KindConflict,
            Self::Full { .. } => Code::RegistryFull,
            Self::Changed { .. } | Self::InstanceChanged { .. } => Code::RevisionMoved,
            Self::Loading => Code::RegistryLoading,
            Self::Unreadable { .. } => Code::Internal,
            Self::Audit(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}
