//! A node's copy of the registry.
//!
//! Every answer comes from here, at the revision the copy stands at. It takes changes as watches
//! deliver them, and whole lists where history was lost; in both cases it says what it touched,
//! and nothing else in the node keeps a second account of what is registered.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_core::Instant;
use mainstay_store::{Entry, Event, Key, Revision};

use super::instance::{Gone, GoneReason, Instance, Kind};
use super::observation::Observation;
use super::protection::{Counts, Turn};
use super::service::{RawSettings, Settings, Shares};
use super::view::View;
use crate::keys::{InstanceRef, RegistryArea, RegistryKey, ServiceRef, parse_registry};
use crate::name::{InstanceId, NodeName, Reporter};
use kept::{Kept, Row};

pub(super) use kept::effective;

/// What a change touched.
#[derive(Clone, Debug, PartialEq)]
pub enum Touched {
    /// Settings of a service.
    Settings(ServiceRef),
    /// An instance, or what callers report of it.
    Instance(InstanceRef),
    /// An instance, in nothing that lists show.
    Unseen(InstanceRef),
    /// A node came or went.
    Node,
    /// What is written there cannot be read, and is left out.
    Unreadable(Key),
}

/// The registry as this node knows it.
#[derive(Debug)]
pub struct Copy {
    defaults: Shares,
    passive_quorum: u32,
    services: BTreeMap<ServiceRef, Kept>,
    nodes: BTreeSet<NodeName>,
    instances: usize,
    loaded: BTreeMap<RegistryArea, Revision>,
}

impl Copy {
    /// An empty copy, not loaded yet.
    pub const fn new(defaults: Shares, passive_quorum: u32) -> Self {
        Self {
            defaults,
            passive_quorum,
            services: BTreeMap::new(),
            nodes: BTreeSet::new(),
            instances: 0,
            loaded: BTreeMap::new(),
        }
    }

    /// Whether it has read everything once.
    pub fn is_loaded(&self) -> bool {
        self.loaded.len() == RegistryArea::ALL.len()
    }

    /// The revision it stands at in `area`; [`Revision::NEVER`] before it was read.
    pub fn revision(&self, area: RegistryArea) -> Revision {
        self.loaded.get(&area).copied().unwrap_or(Revision::NEVER)
    }

    /// Takes the changes of one revision.
    pub fn apply(
        &mut self,
        now: Instant,
        area: RegistryArea,
        revision: Revision,
        events: &[Event],
    ) -> Vec<Touched> {
        let mut touched = Vec::new();
        for event in events {
            let entry = event.entry();
            touched.extend(self.set(now, event.key(), entry, revision, false));
        }
        self.reached(area, revision);
        touched
    }

    /// Nothing happened in `area` up to `revision`.
    pub fn reached(&mut self, area: RegistryArea, revision: Revision) {
        let known = self.loaded.entry(area).or_insert(revision);
        *known = (*known).max(revision);
    }

    /// Takes the whole of `area` as of `revision`, after history was lost; touches only what
    /// differs.
    pub fn replace(
        &mut self,
        now: Instant,
        area: RegistryArea,
        revision: Revision,
        entries: &[Entry],
    ) -> Vec<Touched> {
        let is_resync = self.loaded.contains_key(&area);
        let there: BTreeSet<&Key> = entries.iter().map(|entry| &entry.key).collect();
        let gone: Vec<Key> =
            self.keys(area).into_iter().filter(|key| !there.contains(key)).collect();
        let mut touched = Vec::new();
        // What explains a missing instance comes first, so that no list is empty without reason.
        let (gone_marks, rest): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| is_gone_mark(&entry.key));
        for entry in gone_marks {
            touched.extend(self.set(now, &entry.key, Some(entry), revision, is_resync));
        }
        for key in &gone {
            touched.extend(self.set(now, key, None, revision, is_resync));
        }
        for entry in rest {
            touched.extend(self.set(now, &entry.key, Some(entry), revision, is_resync));
        }
        self.reached(area, revision);
        touched
    }

    fn set(
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
        if let Some(Touched::Settings(service) | Touched::Instance(InstanceRef { service, .. })) =
            &touched
            && let Some(kept) = self.services.get_mut(service)
        {
            let moved = entry.map_or(revision, |entry| entry.mod_revision);
            kept.revision = kept.revision.max(moved);
            kept.resync |= resync;
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
            kept.instances.remove(&at.id)?;
            self.instances -= 1;
            return Some(Touched::Instance(at));
        };
        let before = kept.instances.get(&at.id);
        if before.is_some_and(|row| row.written == entry.mod_revision) {
            return None;
        }
        let Some(record) = Instance::read(&entry.value) else {
            if kept.instances.remove(&at.id).is_some() {
                self.instances -= 1;
            }
            return Some(Touched::Unreadable(entry.key.clone()));
        };
        let same = before.filter(|row| row.record.shows_as(&record));
        let shown = same.map_or(entry.mod_revision, |row| row.shown);
        let is_seen = same.is_none();
        let row = Row { record: Arc::new(record), written: entry.mod_revision, shown };
        if kept.instances.insert(at.id.clone(), row).is_none() {
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
                Some(observation) => drop(of_instance.insert(reporter, observation)),
            },
        }
        if of_instance.is_empty() {
            kept.observations.remove(&at.id);
        }
        Touched::Instance(at)
    }

    /// Every key of `area` it knows.
    fn keys(&self, area: RegistryArea) -> Vec<Key> {
        if area == RegistryArea::Nodes {
            return self.nodes.iter().map(crate::keys::node).collect();
        }
        let of_service = |(service, kept): (&ServiceRef, &Kept)| -> Vec<Key> {
            match area {
                RegistryArea::Settings => {
                    kept.settings.iter().map(|_| service.settings()).collect()
                }
                RegistryArea::Instances => {
                    let ids = kept.instances.keys().map(|id| service.instance(id).key());
                    ids.chain(kept.gone.iter().map(|_| service.gone())).collect()
                }
                RegistryArea::Observations => {
                    let of_instance = kept.observations.iter().flat_map(|(id, by)| {
                        let at = service.instance(id);
                        by.keys().map(move |reporter| at.observation(reporter))
                    });
                    of_instance.collect()
                }
                RegistryArea::Nodes => Vec::new(),
            }
        };
        self.services.iter().flat_map(of_service).collect()
    }

    /// Whoever watches `service` has been told that history was lost.
    pub fn told(&mut self, service: &ServiceRef) {
        if let Some(kept) = self.services.get_mut(service) {
            kept.resync = false;
        }
    }

    /// Forgets a service of which nothing is left; `true` when it did.
    pub fn prune(&mut self, service: &ServiceRef) -> bool {
        let is_empty = self.services.get(service).is_some_and(|kept| {
            kept.settings.is_none()
                && kept.instances.is_empty()
                && kept.gone.is_none()
                && kept.observations.is_empty()
        });
        is_empty && self.services.remove(service).is_some()
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = &ServiceRef> {
        self.services.keys()
    }

    /// Whether there is such a service.
    pub fn has(&self, service: &ServiceRef) -> bool {
        let known = self.services.get(service);
        known.is_some_and(|kept| kept.settings.is_some() || !kept.instances.is_empty())
    }

    /// The nodes alive.
    pub const fn nodes(&self) -> &BTreeSet<NodeName> {
        &self.nodes
    }

    /// Every instance of every service.
    pub fn all(&self) -> impl Iterator<Item = (InstanceRef, &Arc<Instance>)> {
        self.services.iter().flat_map(|(service, kept)| {
            let of_service = kept.instances.iter();
            of_service.map(|(id, row)| (service.instance(id), &row.record))
        })
    }

    /// An instance, and when it was written.
    pub fn instance(&self, at: &InstanceRef) -> Option<(&Arc<Instance>, Revision)> {
        let row = self.services.get(&at.service)?.instances.get(&at.id)?;
        Some((&row.record, row.written))
    }

    /// The ids of a service's instances.
    pub fn ids(&self, service: &ServiceRef) -> Vec<InstanceId> {
        let kept = self.services.get(service);
        kept.map(|kept| kept.instances.keys().cloned().collect()).unwrap_or_default()
    }

    /// Settings of a service, or those that hold where there are none.
    pub fn settings(&self, service: &ServiceRef) -> (Arc<Settings>, Revision) {
        let known = self.services.get(service).and_then(|kept| kept.settings.clone());
        known.unwrap_or_else(|| (Arc::new(Settings::absent(self.defaults)), Revision::NEVER))
    }

    /// Instances of a service, and of all.
    pub fn counts(&self, service: &ServiceRef) -> (usize, usize) {
        let of_service = self.services.get(service).map_or(0, |kept| kept.instances.len());
        (of_service, self.instances)
    }

    /// How many callers report an instance.
    pub fn reporters(&self, at: &InstanceRef) -> usize {
        let kept = self.services.get(&at.service);
        kept.and_then(|kept| kept.observations.get(&at.id)).map_or(0, BTreeMap::len)
    }

    /// Whether an instance may be removed for missed beats; with it the revision of the service's
    /// mark of what went last, which the removal compares.
    pub fn expiry(&self, now: Instant, at: &InstanceRef) -> Option<(bool, Revision)> {
        let kept = self.services.get(&at.service)?;
        let record = &kept.instances.get(&at.id)?.record;
        let mark = kept.gone.as_ref().map_or(Revision::NEVER, |(_, revision)| *revision);
        let share = self.settings(&at.service).0.expire_share_max();
        let census = kept.census(&record.zone);
        let allowed =
            record.kind == Kind::Persistent || kept.budget.allows(now, &record.zone, census, share);
        Some((allowed, mark))
    }

    /// Judges the protection of a service anew; returns a turn, if there was one, and what was
    /// counted.
    pub fn judge(
        &mut self,
        now: Instant,
        unix_ms: u64,
        service: &ServiceRef,
    ) -> Option<(Turn, Counts)> {
        let threshold = self.settings(service).0.protect_threshold();
        let quorum = self.passive_quorum;
        let kept = self.services.get_mut(service)?;
        let counts = kept.counts(quorum);
        let turn = kept.protection.judge(now, counts, threshold)?;
        if turn == Turn::Began {
            kept.protected_unix_ms = unix_ms;
        }
        Some((turn, counts))
    }

    /// When to judge the protection of a service though nothing has changed.
    pub fn judge_at(&self, service: &ServiceRef) -> Option<Instant> {
        self.services.get(service)?.protection.next()
    }

    /// What a service looks like.
    pub fn view(&self, service: &ServiceRef, stale_since_unix_ms: Option<u64>) -> View {
        let unknown = Kept::default();
        let kept = self.services.get(service).unwrap_or(&unknown);
        kept.view(service, self.passive_quorum, stale_since_unix_ms)
    }
}

fn is_gone_mark(key: &Key) -> bool {
    matches!(parse_registry(key), Some(RegistryKey::Gone(_)))
}
