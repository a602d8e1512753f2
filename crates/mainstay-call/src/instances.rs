//! The instances of one upstream: who they are now, and one service for each.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, Guard};
use mainstay_core::{Clock, Instant};
use mainstay_resilience::balance::{
    Ask, BalancePolicy, Candidate, Kind, LevelState, Order, Picker, RoundRobin, Snapshot, Unpicked,
};
use mainstay_resilience::outlier::{Change, Ejection, OutlierPolicy, Outliers, Peer, Tally};
use parking_lot::Mutex;

use crate::clock::MonotonicClock;
use crate::context::{ATTEMPTS_MAX, Context};
use crate::endpoint::Endpoint;
use crate::resolve::{self, Watch};
use crate::stage::balance::Learns;

/// Makes the service that sends attempts to one instance.
pub trait MakeEndpoint<S>: Send + Sync {
    /// The endpoint for an instance that was not there before; `now` is when it was met.
    fn endpoint(&self, instance: &resolve::Instance, now: Instant) -> Arc<Endpoint>;

    /// The endpoint for an instance that was there before, which keeps what was learnt of it.
    fn keep(&self, endpoint: &Arc<Endpoint>) -> Arc<Endpoint> {
        Arc::clone(endpoint)
    }

    /// The service that sends attempts to `endpoint`.
    fn service(&self, endpoint: &Arc<Endpoint>) -> S;
}

/// How an upstream is balanced.
#[derive(Clone, Debug)]
pub struct InstancesPolicy {
    /// How one is picked.
    pub balance: BalancePolicy,
    /// Who is ejected.
    pub outlier: OutlierPolicy,
    /// The zone of this process; empty when unknown.
    pub zone: Arc<str>,
    /// Whether the list comes in the same order everywhere.
    pub listed: bool,
}

/// The instances of one upstream.
pub struct Instances<S> {
    policy: InstancesPolicy,
    learns: Arc<Learns>,
    make: Box<dyn MakeEndpoint<S>>,
    watch: Watch,
    set: ArcSwap<Set<S>>,
    outliers: Mutex<Outliers>,
}

impl<S> fmt::Debug for Instances<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances").field("service", &self.learns.service).finish_non_exhaustive()
    }
}

/// The instances at one revision.
pub(crate) struct Set<S> {
    revision: u64,
    members: Vec<(Arc<Endpoint>, S)>,
    list: Arc<resolve::Snapshot>,
    picker: Picker,
    turn: Mutex<RoundRobin>,
}

impl<S: Clone> Instances<S> {
    /// The instances that `watch` tells of. Endpoints of `previous` are taken over with what was
    /// learnt of them, where name and address are the same.
    pub fn new(
        policy: InstancesPolicy,
        learns: Arc<Learns>,
        watch: Watch,
        make: Box<dyn MakeEndpoint<S>>,
        previous: &[Arc<Endpoint>],
    ) -> Self {
        let now = MonotonicClock.now();
        let mut outliers = Outliers::new(policy.outlier, now);
        let list = Arc::clone(&watch.borrow());
        let members = members(make.as_ref(), &list, previous, now);
        outliers.set(now, &peers(&members, &list));
        let picker = with_candidates(&members, &list, &outliers, &policy, |s| {
            Picker::new(&policy.balance, s, now)
        });
        let set = Set { revision: list.revision, members, list, picker, turn: Mutex::default() };
        learns.wake.store(outliers.next_wake().as_nanos(), Ordering::Relaxed);
        Self {
            policy,
            learns,
            make,
            watch,
            set: ArcSwap::from_pointee(set),
            outliers: Mutex::new(outliers),
        }
    }
}

impl<S> Instances<S> {
    /// Name of the service.
    pub fn service(&self) -> &Arc<str> {
        &self.learns.service
    }

    /// What attempts teach.
    pub(crate) fn learns(&self) -> Arc<Learns> {
        Arc::clone(&self.learns)
    }

    /// The endpoints there are now.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.set.load().members.iter().map(|(endpoint, _)| Arc::clone(endpoint)).collect()
    }

    /// What a console shows of each instance and level.
    pub fn view(&self) -> Vec<InstanceView> {
        let set = self.set.load();
        let outliers = self.outliers.lock();
        let listed = set.members.iter().zip(&set.list.instances);
        let rows = listed.map(|((endpoint, _), instance)| InstanceView {
            endpoint: Arc::clone(endpoint),
            instance: instance.clone(),
            ejection: outliers.ejection(u64::from(endpoint.id())).copied(),
        });
        rows.collect()
    }

    /// The levels there are now.
    pub fn levels(&self) -> Vec<LevelState> {
        self.set.load().picker.levels().copied().collect()
    }
}

/// One instance as it is balanced.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// What was learnt of it.
    pub endpoint: Arc<Endpoint>,
    /// What its registration says.
    pub instance: resolve::Instance,
    /// The ejection it is under.
    pub ejection: Option<Ejection>,
}

impl<S: Clone> Instances<S> {
    /// The set at `now`. Replaces it first when the source has news or time something to say;
    /// whoever finds that being done goes on with the set there is.
    pub(crate) fn at(&self, now: Instant) -> Guard<Arc<Set<S>>> {
        let set = self.set.load();
        let news = self.watch.borrow().revision != set.revision;
        if news || now.as_nanos() >= self.learns.wake.load(Ordering::Relaxed) {
            drop(set);
            self.replace(now);
            return self.set.load();
        }
        set
    }

    #[cold]
    fn replace(&self, now: Instant) {
        let Some(mut outliers) = self.outliers.try_lock() else { return };
        // A run that is completed from here on sets this to zero, and that must not be lost.
        self.learns.wake.store(u64::MAX, Ordering::Relaxed);
        let before = self.set.load();
        let list = Arc::clone(&self.watch.borrow());
        let mut changes = Vec::new();
        if list.revision != before.revision {
            let known: Vec<Arc<Endpoint>> =
                before.members.iter().map(|(endpoint, _)| Arc::clone(endpoint)).collect();
            let fresh = members(self.make.as_ref(), &list, &known, now);
            changes = outliers.set(now, &peers(&fresh, &list));
            self.store(&outliers, fresh, list, now);
        }
        let set = self.set.load();
        for (endpoint, _) in set.members.iter().filter(|(endpoint, _)| endpoint.take_run()) {
            changes.extend(outliers.run_completed(now, u64::from(endpoint.id())));
        }
        let tally = |id: u64| {
            let found = set.members.iter().find(|(endpoint, _)| u64::from(endpoint.id()) == id);
            found.map_or_else(Tally::default, |(endpoint, _)| endpoint.take_tally())
        };
        changes.extend(outliers.poll(now, tally));
        self.renew(&outliers, changes, now);
    }

    /// Takes `changes` into the set, and tells of them.
    fn renew(&self, outliers: &Outliers, changes: Vec<Change>, now: Instant) {
        self.learns.wake.fetch_min(outliers.next_wake().as_nanos(), Ordering::Relaxed);
        if changes.is_empty() {
            return;
        }
        let set = self.set.load_full();
        self.store(outliers, set.members.clone(), Arc::clone(&set.list), now);
        for change in &changes {
            let (Change::Ejected { id, .. }
            | Change::Returned { id, .. }
            | Change::Withheld { id, .. }) = change;
            let of = set.members.iter().find(|(endpoint, _)| u64::from(endpoint.id()) == *id);
            let endpoint = of.map(|(endpoint, _)| endpoint.as_ref());
            self.learns.observer.ejection(&self.learns.service, endpoint, change);
        }
    }

    fn store(
        &self,
        outliers: &Outliers,
        members: Vec<(Arc<Endpoint>, S)>,
        list: Arc<resolve::Snapshot>,
        now: Instant,
    ) {
        let before = self.set.load();
        let picker = with_candidates(&members, &list, outliers, &self.policy, |snapshot| {
            before.picker.renew(&self.policy.balance, snapshot, now)
        });
        let panics = |picker: &Picker| picker.levels().any(|level| level.panic.is_some());
        let (was, is) = (panics(&before.picker), panics(&picker));
        let old = |new: usize| {
            let id = members.get(new)?.0.id();
            before.members.iter().position(|(endpoint, _)| endpoint.id() == id)
        };
        let turn = before.turn.lock().moved(members.len(), old);
        let revision = list.revision;
        self.set.store(Arc::new(Set { revision, members, list, picker, turn: Mutex::new(turn) }));
        if was != is {
            self.learns.observer.panicking(&self.learns.service, is);
        }
    }
}

/// A service for each instance of `list`, in its order.
fn members<S>(
    make: &dyn MakeEndpoint<S>,
    list: &resolve::Snapshot,
    known: &[Arc<Endpoint>],
    now: Instant,
) -> Vec<(Arc<Endpoint>, S)> {
    let of = |instance: &resolve::Instance| {
        let same =
            |e: &&Arc<Endpoint>| *e.name() == instance.name && *e.address() == instance.address;
        let found = known.iter().find(same).map(|known| make.keep(known));
        let endpoint = found.unwrap_or_else(|| make.endpoint(instance, now));
        let service = make.service(&endpoint);
        (endpoint, service)
    };
    list.instances.iter().map(of).collect()
}

fn peers<S>(members: &[(Arc<Endpoint>, S)], list: &resolve::Snapshot) -> Vec<Peer> {
    let all = members.iter().zip(&list.instances);
    all.map(|((endpoint, _), instance)| Peer {
        id: u64::from(endpoint.id()),
        healthy: instance.usable && instance.weight > 0,
    })
    .collect()
}

/// Makes something of the instances as the picker wants to see them.
fn with_candidates<S, R>(
    members: &[(Arc<Endpoint>, S)],
    list: &resolve::Snapshot,
    outliers: &Outliers,
    policy: &InstancesPolicy,
    work: impl FnOnce(&Snapshot<'_>) -> R,
) -> R {
    let all = members.iter().zip(&list.instances);
    let candidates: Vec<Candidate<'_>> = all
        .map(|((endpoint, _), instance)| {
            let id = u64::from(endpoint.id());
            Candidate {
                address: &instance.address,
                name: &instance.name,
                weight: instance.weight,
                priority: instance.priority,
                same_zone: !policy.zone.is_empty() && instance.zone == policy.zone,
                usable: instance.usable && outliers.ejection(id).is_none(),
                since: endpoint.since().max(outliers.returned(id)),
            }
        })
        .collect();
    let order = if policy.listed { Order::Listed } else { Order::ByKey };
    work(&Snapshot { instances: &candidates, order, protected: list.protected })
}

impl<S> Set<S> {
    /// Number of instances, usable or not.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The instance at `index`, which a pick gave.
    pub(crate) fn member(&self, index: usize) -> (&Arc<Endpoint>, &S) {
        let (endpoint, service) = &self.members[index];
        (endpoint, service)
    }

    /// Indices of the instances that the call has tried, in `room`.
    pub(crate) fn tried<'a>(
        &self,
        context: &Context,
        room: &'a mut [usize; ATTEMPTS_MAX],
    ) -> &'a [usize] {
        let mut count = 0;
        if context.attempts() > 0 {
            let all = self.members.iter().enumerate();
            for (index, _) in all.filter(|(_, (e, _))| context.has_tried(e.id())) {
                if let Some(slot) = room.get_mut(count) {
                    *slot = index;
                    count += 1;
                }
            }
        }
        &room[..count]
    }

    /// Index of the instance to ask.
    pub(crate) fn pick(
        &self,
        ask: &Ask<'_>,
        admits: impl Fn(usize) -> bool,
    ) -> Result<usize, Unpicked> {
        if self.picker.kind() == Kind::RoundRobin {
            return self.turn.lock().pick(&self.picker, ask, admits);
        }
        self.picker.pick(ask, |index| self.members[index].0.load(ask.now), admits)
    }

    /// How long until the first open circuit lets a probe through.
    pub(crate) fn reopens(&self, now: Instant) -> Option<std::time::Duration> {
        let circuits = self.members.iter().flat_map(|(endpoint, _)| endpoint.circuits());
        circuits.filter_map(|c| c.view(now).next_change).map(|at| at.since(now)).min()
    }
}
