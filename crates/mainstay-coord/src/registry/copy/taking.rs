//! Taking one key in, as it is now.

use std::sync::Arc;

use mainstay_core::Instant;
use mainstay_store::{Entry, Key, Revision};

use super::kept::{Observed, Row};
use super::{Copy, Touched};
use crate::keys::{InstanceRef, RegistryKey, ServiceRef, parse_registry};
use crate::name::Reporter;
use crate::registry::instance::{Gone, GoneReason, Instance};
use crate::registry::observation::Observation;
use crate::registry::service::{RawSettings, Settings};

impl Copy {
    /// Takes in that `key` is `entry` at `revision`; `resync` when it is known from a list, after
    /// history was lost.
    pub(super) fn set(
        &mut self,
        now: Instant,
        key: &Key,
        entry: Option<&Entry>,
        revision: Revision,
        resync: bool,
    ) -> Option<Touched> {
        let touched = match parse_registry(key)? {
            RegistryKey::Settings(service) => self.set_settings(service, entry),
            RegistryKey::Gone(service) => self.set_gone(now, service, entry, resync),
            RegistryKey::Instance(instance) => self.set_instance(instance, entry),
            RegistryKey::Observation(instance, reporter) => {
                Some(self.set_observation(instance, reporter, entry))
            }
            RegistryKey::Node(node) => {
                let has_changed = if entry.is_some() {
                    self.nodes.insert(node)
                } else {
                    self.nodes.remove(&node)
                };
                has_changed.then_some(Touched::Node)
            }
        };
        match &touched {
            Some(Touched::Settings(service) | Touched::Instance(InstanceRef { service, .. })) => {
                if let Some(kept) = self.services.get_mut(service) {
                    let moved = entry.map_or(revision, |entry| entry.mod_revision);
                    kept.revision = kept.revision.max(moved);
                    kept.resync |= resync;
                    kept.changed();
                }
            }
            Some(Touched::Unseen(instance)) => {
                if let Some(kept) = self.services.get_mut(&instance.service) {
                    kept.outdate();
                }
            }
            Some(Touched::Node | Touched::Unreadable(_)) | None => {}
        }
        touched
    }

    fn set_settings(&mut self, service: ServiceRef, entry: Option<&Entry>) -> Option<Touched> {
        let defaults = self.defaults;
        let kept = self.services.entry(service.clone()).or_default();
        let Some(entry) = entry else {
            kept.settings = None;
            return Some(Touched::Settings(service));
        };
        if kept.settings.as_ref().is_some_and(|(_, known)| *known == entry.mod_revision) {
            return None;
        }
        let settings = RawSettings::read(&entry.value);
        let settings = settings.and_then(|raw| Settings::stored(raw, defaults).ok());
        let Some(settings) = settings else { return Some(Touched::Unreadable(entry.key.clone())) };
        kept.settings = Some((Arc::new(settings), entry.mod_revision));
        Some(Touched::Settings(service))
    }

    fn set_gone(
        &mut self,
        now: Instant,
        service: ServiceRef,
        entry: Option<&Entry>,
        resync: bool,
    ) -> Option<Touched> {
        let kept = self.services.entry(service.clone()).or_default();
        let Some(entry) = entry else {
            kept.gone = None;
            return Some(Touched::Settings(service));
        };
        if kept.gone.as_ref().is_some_and(|(_, known)| *known == entry.mod_revision) {
            return None;
        }
        let Some(gone) = Gone::read(&entry.value) else {
            return Some(Touched::Unreadable(entry.key.clone()));
        };
        // The mark is written before the instance is deleted, so the census counts it still. When
        // history was lost, when it went is not known; the owner holds back then.
        if gone.reason == GoneReason::Expired && !resync {
            let census = kept.census(&gone.zone);
            kept.budget.spend(now, &gone.zone, census);
        }
        kept.gone = Some((gone, entry.mod_revision));
        Some(Touched::Settings(service))
    }

    fn set_instance(&mut self, at: InstanceRef, entry: Option<&Entry>) -> Option<Touched> {
        let kept = self.services.entry(at.service.clone()).or_default();
        let Some(entry) = entry else {
            if !kept.take(&at.id) {
                return None;
            }
            self.instances -= 1;
            return Some(Touched::Instance(at));
        };
        let before = kept.instances().get(&at.id);
        if before.is_some_and(|row| row.written == entry.mod_revision) {
            return None;
        }
        // A newer node wrote it, and it is there: that it cannot be read is no reason to stop
        // calling it.
        let Some(record) = Instance::read(&entry.value) else {
            return Some(Touched::Unreadable(entry.key.clone()));
        };
        let same = before.filter(|row| row.record.shows_as(&record));
        let shown = same.map_or(entry.mod_revision, |row| row.shown);
        let is_seen = same.is_none();
        let row = Row { record: Arc::new(record), written: entry.mod_revision, shown };
        if kept.put(at.id.clone(), row) {
            self.instances += 1;
        }
        Some(if is_seen { Touched::Instance(at) } else { Touched::Unseen(at) })
    }

    fn set_observation(
        &mut self,
        at: InstanceRef,
        reporter: Reporter,
        entry: Option<&Entry>,
    ) -> Touched {
        let kept = self.services.entry(at.service.clone()).or_default();
        let of_instance = kept.observations.entry(at.id.clone()).or_default();
        match entry {
            None => drop(of_instance.remove(&reporter)),
            Some(entry) => match Observation::read(&entry.value) {
                None => return Touched::Unreadable(entry.key.clone()),
                Some(observation) => {
                    let observed = Observed { observation, lease: entry.lease };
                    drop(of_instance.insert(reporter, observed));
                }
            },
        }
        if of_instance.is_empty() {
            kept.observations.remove(&at.id);
        }
        Touched::Instance(at)
    }
}
