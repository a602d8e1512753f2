//! A node's copy of the registry.
//!
//! Every answer comes from here, at the revision the copy stands at. It takes changes as watches
//! deliver them, and whole lists where history was lost; in both cases it says what it touched,
//! and nothing else in the node keeps a second account of what is registered.

mod kept;
mod taking;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_core::Instant;
use mainstay_store::{Entry, Event, Key, LeaseId, Revision};

use super::instance::{Instance, Kind};
use super::protection::{Counts, Turn};
use super::service::{Settings, Shares};
use super::view::View;
use crate::keys::{InstanceRef, RegistryArea, RegistryKey, ServiceRef, parse_registry};
use crate::name::{InstanceId, NodeName, Reporter};
use kept::Kept;

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
    /// What is written there cannot be read: what was understood last stays.
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
                    let ids = kept.instances().keys().map(|id| service.instance(id).key());
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
        if let Some(kept) = self.services.get_mut(service).filter(|kept| kept.resync) {
            kept.resync = false;
            kept.outdate();
        }
    }

    /// Forgets a service of which nothing is left; `true` when it did.
    pub fn prune(&mut self, service: &ServiceRef) -> bool {
        let is_empty = self.services.get(service).is_some_and(|kept| {
            kept.settings.is_none()
                && kept.instances().is_empty()
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
        known.is_some_and(|kept| kept.settings.is_some() || !kept.instances().is_empty())
    }

    /// The nodes alive.
    pub const fn nodes(&self) -> &BTreeSet<NodeName> {
        &self.nodes
    }

    /// Every instance of every service.
    pub fn all(&self) -> impl Iterator<Item = (&ServiceRef, &InstanceId, &Arc<Instance>)> {
        self.services.iter().flat_map(|(service, kept)| {
            kept.instances().iter().map(move |(id, row)| (service, id, &row.record))
        })
    }

    /// An instance, and when it was written.
    pub fn instance(&self, at: &InstanceRef) -> Option<(&Arc<Instance>, Revision)> {
        let row = self.services.get(&at.service)?.instances().get(&at.id)?;
        Some((&row.record, row.written))
    }

    /// The ids of a service's instances.
    pub fn ids(&self, service: &ServiceRef) -> Vec<InstanceId> {
        let kept = self.services.get(service);
        kept.map(|kept| kept.instances().keys().cloned().collect()).unwrap_or_default()
    }

    /// Settings of a service, or those that hold where there are none.
    pub fn settings(&self, service: &ServiceRef) -> (Arc<Settings>, Revision) {
        let known = self.services.get(service).and_then(|kept| kept.settings.clone());
        known.unwrap_or_else(|| (Arc::new(Settings::absent(self.defaults)), Revision::NEVER))
    }

    /// Instances of a service, and of all.
    pub fn counts(&self, service: &ServiceRef) -> (usize, usize) {
        let of_service = self.services.get(service).map_or(0, |kept| kept.instances().len());
        (of_service, self.instances)
    }

    /// How many callers report an instance.
    pub fn reporters(&self, at: &InstanceRef) -> usize {
        let kept = self.services.get(&at.service);
        kept.and_then(|kept| kept.observations.get(&at.id)).map_or(0, BTreeMap::len)
    }

    /// The lease that `reporter`'s report of an instance lives by.
    pub fn observed_by(&self, at: &InstanceRef, reporter: &Reporter) -> Option<LeaseId> {
        let kept = self.services.get(&at.service)?;
        kept.observations.get(&at.id)?.get(reporter)?.lease
    }

    /// The revision of the mark that says which instance of a service went last, and why.
    pub fn mark(&self, service: &ServiceRef) -> Revision {
        let gone = self.services.get(service).and_then(|kept| kept.gone.as_ref());
        gone.map_or(Revision::NEVER, |(_, revision)| *revision)
    }

    /// Whether an instance may be removed for missed beats; with it the service's
    /// [`mark`](Copy::mark), which the removal compares.
    pub fn expiry(&self, now: Instant, at: &InstanceRef) -> Option<(bool, Revision)> {
        let kept = self.services.get(&at.service)?;
        let record = &kept.instances().get(&at.id)?.record;
        let mark = self.mark(&at.service);
        let share = self.settings(&at.service).0.expire_share_max();
        let census = kept.census(&record.zone);
        let allowed =
            record.kind == Kind::Persistent || kept.budget.allows(now, &record.zone, census, share);
        Some((allowed, mark))
    }

    /// Judges the protection of a service anew, if it has changed or time alone may end it; returns
    /// a turn, if there was one, and what was counted.
    pub fn judge(
        &mut self,
        now: Instant,
        unix_ms: u64,
        service: &ServiceRef,
    ) -> Option<(Turn, Counts)> {
        if !self.services.get(service)?.is_to_be_judged(now) {
            return None;
        }
        let threshold = self.settings(service).0.protect_threshold();
        let quorum = self.passive_quorum;
        let kept = self.services.get_mut(service)?;
        kept.is_judged = true;
        let counts = kept.counts(quorum);
        let turn = kept.protection.judge(now, counts, threshold)?;
        kept.outdate();
        if turn == Turn::Began {
            kept.protected_unix_ms = unix_ms;
        } else {
            kept.has_turned = true;
        }
        Some((turn, counts))
    }

    /// Whether protection of a service ended after the last revision that changed it: no revision
    /// tells whoever asks for what is newer.
    pub fn has_turned(&self, service: &ServiceRef) -> bool {
        self.services.get(service).is_some_and(|kept| kept.has_turned)
    }

    /// The newest revision of any area.
    pub fn newest(&self) -> Revision {
        self.loaded.values().copied().max().unwrap_or(Revision::NEVER)
    }

    /// When to judge the protection of a service though nothing has changed.
    pub fn judge_at(&self, service: &ServiceRef) -> Option<Instant> {
        self.services.get(service)?.protection.next()
    }

    /// What a service looks like. Until it changes this is the same list, so asking costs no more
    /// for one of 10,000 instances.
    pub fn view(&mut self, service: &ServiceRef, stale_since_unix_ms: Option<u64>) -> Arc<View> {
        let mut unknown = Kept::default();
        let kept = self.services.get_mut(service).unwrap_or(&mut unknown);
        kept.view(service, self.passive_quorum, stale_since_unix_ms)
    }
}

fn is_gone_mark(key: &Key) -> bool {
    matches!(parse_registry(key), Some(RegistryKey::Gone(_)))
}
