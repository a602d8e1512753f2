//! What the registry tells its operator.

use std::time::Duration;

use mainstay_store::{Key, Revision};

use crate::keys::{InstanceRef, RegistryArea, ServiceRef};
use crate::name::NodeName;
use crate::registry::figures::Figures;
use crate::registry::protection::{Counts, Turn};

/// Protection of a service began or ended.
#[derive(Debug)]
pub(crate) struct ProtectionTurned<'a> {
    pub(crate) service: &'a ServiceRef,
    pub(crate) turn: Turn,
    pub(crate) counts: Counts,
}

impl ProtectionTurned<'_> {
    pub(crate) fn emit(self) {
        let Self { service, turn, counts: Counts { total, healthy } } = self;
        match turn {
            Turn::Began => tracing::warn!(
                finding = "registry-protected",
                %service,
                healthy,
                total,
                "too many instances went at once: everybody is answered"
            ),
            Turn::Ended { lasted } => {
                let seconds = lasted.as_secs_f64();
                tracing::info!(%service, healthy, total, seconds, "protection of the service ended");
            }
        }
    }
}

/// An instance would have been removed, had too many not gone at once.
#[derive(Debug)]
pub(crate) struct ExpiryHeld<'a> {
    pub(crate) instance: &'a InstanceRef,
}

impl ExpiryHeld<'_> {
    pub(crate) fn emit(self, figures: &Figures) {
        figures.expiry_held();
        let instance = self.instance;
        tracing::warn!(finding = "registry-expiry-held", %instance, "removal held back");
    }
}

/// An instance was removed since nothing was heard of it.
#[derive(Debug)]
pub(crate) struct Expired<'a> {
    pub(crate) instance: &'a InstanceRef,
}

impl Expired<'_> {
    pub(crate) fn emit(self) {
        let instance = self.instance;
        tracing::info!(%instance, "instance removed: nothing was heard of it");
    }
}

/// Instances of a node that is gone were taken over.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) instances: usize,
}

impl Adopted {
    pub(crate) fn emit(self) {
        let instances = self.instances;
        tracing::info!(instances, "instances without an owner taken over");
    }
}

/// This node is known to the others, or no longer.
#[derive(Debug)]
pub(crate) struct Membership<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) is_known: bool,
}

impl Membership<'_> {
    pub(crate) fn emit(self) {
        let node = self.node;
        if self.is_known {
            tracing::info!(%node, "node known to the others");
        } else {
            tracing::warn!(%node, "node lost its lease: others may take its instances over");
        }
    }
}

/// History was lost before it was read; the whole list was read instead.
#[derive(Debug)]
pub(crate) struct Resynced {
    pub(crate) area: RegistryArea,
    pub(crate) compacted: Revision,
}

impl Resynced {
    pub(crate) fn emit(self, figures: &Figures) {
        figures.resynced();
        let (area, compacted) = (self.area.as_str(), self.compacted.get());
        tracing::warn!(area, compacted, "history lost: listing anew");
    }
}

/// The store does not answer, or answers again.
#[derive(Debug)]
pub(crate) struct StoreReach<'a> {
    pub(crate) area: RegistryArea,
    /// `None` when it answers again.
    pub(crate) why: Option<&'a str>,
}

impl StoreReach<'_> {
    pub(crate) fn emit(self) {
        let area = self.area.as_str();
        match self.why {
            Some(why) => tracing::warn!(area, why, "registry answers from its last copy"),
            None => tracing::info!(area, "registry follows the store again"),
        }
    }
}

/// The process stood still, so nothing could be heard.
#[derive(Debug)]
pub(crate) struct StoodStill {
    pub(crate) span: Duration,
}

impl StoodStill {
    pub(crate) fn emit(self) {
        let seconds = self.span.as_secs_f64();
        tracing::warn!(seconds, "process stood still: every instance gets that much more time");
    }
}

/// A record cannot be read: what was understood of it last stays.
#[derive(Debug)]
pub(crate) struct RecordUnreadable<'a> {
    pub(crate) key: &'a Key,
}

impl RecordUnreadable<'_> {
    pub(crate) fn emit(self) {
        let key = self.key;
        tracing::error!(%key, "record cannot be read: the last that could be stays, if there was one");
    }
}

/// What the owner had to do about an instance could not be written; it is tried again.
#[derive(Debug)]
pub(crate) struct DutyFailed<'a> {
    pub(crate) instance: &'a InstanceRef,
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl DutyFailed<'_> {
    pub(crate) fn emit(self) {
        let Self { instance, error } = self;
        tracing::warn!(%instance, error, "instance could not be looked after");
    }
}
