//! What a node knows and owes, in one place, under one short lock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_core::Instant;
use tokio::sync::watch;

use super::budget::WINDOW;
use super::copy::{Copy, Touched};
use super::figures::Figures;
use super::instance::Instance;
use super::own_check::OwnCheck;
use super::owned::Owned;
use super::protection::Turn;
use super::service::Settings;
use super::view::View;
use crate::events::registry::{ProtectionTurned, RecordUnreadable};
use crate::health::check::Check;
use crate::health::rounds::Rounds;
use crate::keys::{InstanceRef, RegistryArea, ServiceRef};
use crate::name::NodeName;
use crate::random;

/// What a node knows of the registry, and what it owes the instances it looks after.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) node: NodeName,
    pub(super) copy: Copy,
    pub(super) owned: Owned,
    pub(super) rounds: Rounds,
    /// Who wants to be told of which service. One whose last listener left goes when its service
    /// is pushed, and all of those at `clear_at`.
    subscribers: BTreeMap<ServiceRef, watch::Sender<Arc<View>>>,
    /// How many subscribers there may be before those without listeners are cleared away.
    clear_at: usize,
    /// Services that changed and were not pushed yet.
    dirty: BTreeSet<ServiceRef>,
    /// Services whose protection may end without a further change.
    calming: BTreeSet<ServiceRef>,
    /// What of the store is away, and since when by the wall clock.
    away: BTreeSet<RegistryArea>,
    away_since_unix_ms: Option<u64>,
    /// Since when the copy is whole and the store is there.
    whole_since: Option<Instant>,
}

/// Subscribers without listeners are looked for from this many on, and again at twice as many as
/// were left: so there are never more than two for each listener, and looking costs next to
/// nothing for each that is added.
const SUBSCRIBERS_KEPT: usize = 64;

impl Local {
    pub(super) fn new(node: NodeName, copy: Copy) -> Self {
        Self {
            node,
            copy,
            owned: Owned::default(),
            rounds: Rounds::default(),
            subscribers: BTreeMap::new(),
            clear_at: SUBSCRIBERS_KEPT,
            dirty: BTreeSet::new(),
            calming: BTreeSet::new(),
            away: BTreeSet::new(),
            away_since_unix_ms: None,
            whole_since: None,
        }
    }

    /// Follows what the copy has taken in.
    pub(super) fn take(&mut self, now: Instant, touched: Vec<Touched>) {
        for touched in touched {
            match touched {
                Touched::Settings(service) => {
                    for id in self.copy.ids(&service) {
                        self.follow(now, &service.instance(&id));
                    }
                    self.dirty.insert(service);
                }
                Touched::Instance(instance) => {
                    self.follow(now, &instance);
                    self.dirty.insert(instance.service);
                }
                Touched::Unseen(instance) => self.follow(now, &instance),
                Touched::Node => {}
                Touched::Unreadable(key) => RecordUnreadable { key: &key }.emit(),
            }
        }
    }

    fn follow(&mut self, now: Instant, at: &InstanceRef) {
        let found = self.copy.instance(at).map(|(record, _)| Arc::clone(record));
        let found = found.filter(|record| *record.owner == *self.node.as_str());
        let (settings, _) = self.copy.settings(&at.service);
        let checks = found.as_ref().map(|record| checks(&settings, record)).unwrap_or_default();
        let owned = found.as_ref().map(|record| (record, &*checks));
        self.owned.follow(now, at, owned);
        let checked = found.as_ref().map(|record| (&**record, &*checks));
        self.rounds.follow(now, at, checked, random::share);
    }

    /// `area` was listed: the store answers for it for the first time or again, or its history was
    /// lost. With that of the instances it is lost what was removed in the last minute.
    pub(super) fn is_back(&mut self, now: Instant, area: RegistryArea) {
        let was_away = self.away.remove(&area);
        if self.copy.is_loaded() && self.away.is_empty() {
            let is_lost = was_away || area == RegistryArea::Instances;
            if is_lost || self.whole_since.is_none() {
                self.whole_since = Some(now);
            }
            if self.away_since_unix_ms.take().is_some() {
                self.dirty.extend(self.subscribers.keys().cloned());
            }
        }
    }

    /// The store does not answer for `area`; `true` when it did before.
    pub(super) fn is_away(&mut self, unix_ms: u64, area: RegistryArea) -> bool {
        let is_new = self.away.insert(area);
        if self.away_since_unix_ms.is_none() {
            self.away_since_unix_ms = Some(unix_ms);
            self.dirty.extend(self.subscribers.keys().cloned());
        }
        self.whole_since = None;
        is_new
    }

    /// Whether the copy is whole and the store is there.
    pub(super) const fn is_whole(&self) -> bool {
        self.whole_since.is_some()
    }

    /// Since when the store is away, by the wall clock.
    pub(super) const fn away_since_unix_ms(&self) -> Option<u64> {
        self.away_since_unix_ms
    }

    /// Whether it is known what was removed in the last minute.
    pub(super) fn may_expire(&self, now: Instant) -> bool {
        self.whole_since.is_some_and(|since| WINDOW <= now.since(since))
    }

    /// What a service looks like now.
    pub(super) fn view(
        &mut self,
        now: Instant,
        unix_ms: u64,
        service: &ServiceRef,
        figures: &Figures,
    ) -> Arc<View> {
        self.judge(now, unix_ms, service, figures);
        self.copy.view(service, self.away_since_unix_ms)
    }

    fn judge(&mut self, now: Instant, unix_ms: u64, service: &ServiceRef, figures: &Figures) {
        if let Some((turn, counts)) = self.copy.judge(now, unix_ms, service) {
            figures.protected(turn == Turn::Began);
            self.dirty.insert(service.clone());
            ProtectionTurned { service, turn, counts }.emit();
        }
        if self.copy.judge_at(service).is_some() {
            self.calming.insert(service.clone());
        } else {
            self.calming.remove(service);
        }
    }

    /// Who wants to be told of `service` gets what it looks like now, and every later state.
    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        unix_ms: u64,
        service: &ServiceRef,
        figures: &Figures,
    ) -> watch::Receiver<Arc<View>> {
        let view = self.view(now, unix_ms, service, figures);
        match self.subscribers.get(service) {
            Some(sender) => {
                send(sender, view);
                sender.subscribe()
            }
            None => {
                if self.clear_at <= self.subscribers.len() {
                    self.subscribers.retain(|_service, sender| sender.receiver_count() > 0);
                    self.clear_at = (2 * self.subscribers.len()).max(SUBSCRIBERS_KEPT);
                }
                let (sender, receiver) = watch::channel(view);
                self.subscribers.insert(service.clone(), sender);
                receiver
            }
        }
    }

    /// How many follow `service` at this node: the gateways and clients that call it.
    pub(super) fn followers(&self, service: &ServiceRef) -> usize {
        self.subscribers.get(service).map_or(0, watch::Sender::receiver_count)
    }

    /// Whether `service` may look otherwise than it did at its revision: its protection ended, or
    /// the store is away.
    pub(super) fn is_unlike_its_revision(&self, service: &ServiceRef) -> bool {
        self.away_since_unix_ms.is_some() || self.copy.has_turned(service)
    }

    /// When to publish though nothing has changed.
    pub(super) fn publish_at(&self) -> Option<Instant> {
        self.calming.iter().filter_map(|service| self.copy.judge_at(service)).min()
    }

    /// Whether something changed that was not pushed.
    pub(super) fn has_news(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Tells whoever wants to know what has changed; returns how many services it pushed.
    pub(super) fn publish(&mut self, now: Instant, unix_ms: u64, figures: &Figures) -> usize {
        let is_due =
            |service: &&ServiceRef| self.copy.judge_at(service).is_some_and(|at| at <= now);
        let due: Vec<ServiceRef> = self.calming.iter().filter(is_due).cloned().collect();
        let services: Vec<ServiceRef> =
            std::mem::take(&mut self.dirty).into_iter().chain(due).collect();
        let mut pushed = 0;
        for service in services {
            self.judge(now, unix_ms, &service, figures);
            self.dirty.remove(&service);
            if let Some(sender) = self.subscribers.get(&service) {
                if sender.receiver_count() == 0 {
                    self.subscribers.remove(&service);
                } else {
                    let view = self.copy.view(&service, self.away_since_unix_ms);
                    pushed += usize::from(send(sender, view));
                }
            }
            self.copy.told(&service);
            self.copy.prune(&service);
        }
        pushed
    }
}

/// What is checked of an instance: what its service says, and what it says itself.
pub(super) fn checks<'a>(settings: &'a Settings, record: &Instance) -> Cow<'a, [Check]> {
    if record.own_checks.is_empty() {
        return Cow::Borrowed(settings.checks());
    }
    let is_own = |check: &&Check| record.own_checks.iter().any(|own| own.id == check.name);
    let of_service = settings.checks().iter().filter(|check| !is_own(check)).cloned();
    of_service.chain(record.own_checks.iter().filter_map(OwnCheck::check)).collect()
}

/// Sends `view` unless it is what was sent last.
fn send(sender: &watch::Sender<Arc<View>>, view: Arc<View>) -> bool {
    sender.send_if_modified(|last| {
        let is_new = !Arc::ptr_eq(last, &view) && *last != view;
        if is_new {
            *last = view;
        }
        is_new
    })
}

#[cfg(test)]
mod tests;
