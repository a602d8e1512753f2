//! What a picker is made from, and the levels it is made into.

use std::sync::Arc;

use mainstay_core::Instant;

use super::{BalancePolicy, Count, PanicMode, RingKey, Spread};
use crate::hash::{Layout, Member as Keyed, Table};

/// One instance, as registry, health checks and outlier ejection see it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `address:port`, the host in brackets if it is IPv6.
    pub address: &'a str,
    /// Name or id.
    pub name: &'a str,
    /// Relative share. An instance of weight 0 is never picked, not even in panic: somebody took
    /// it out on purpose. It still counts as one of its level that cannot be used.
    pub weight: u32,
    /// Lower comes first.
    pub priority: u32,
    /// Whether it is in the caller's own zone; counts with `zone_preference` only.
    pub same_zone: bool,
    /// Up, health not critical, not ejected. The weight is looked at separately.
    pub usable: bool,
    /// When it was registered or came back from its last ejection, whichever is later: slow start
    /// counts from here.
    pub since: Instant,
}

/// All instances of a service at one moment. Picks are indices into `instances`.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The instances.
    pub instances: &'a [Candidate<'a>],
    /// In which order hash tables take them.
    pub order: Order,
    /// Whether the registry protects the service: so many instances went silent at once that it
    /// no longer believes itself. Every level is then in panic.
    pub protected: bool,
}

/// In which order hash tables take the instances: it decides between equal points, and in Maglev
/// who comes first, so all processes must agree on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As listed: a static list, in the same order everywhere.
    Listed,
    /// Ascending by key text: any list whose order is chance.
    #[default]
    ByKey,
}

/// A level is using instances that look unusable, or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panic {
    /// Why.
    pub reason: PanicReason,
    /// Since when, whatever the reason was at first.
    pub since: Instant,
}

/// Why a level is in panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicReason {
    /// The registry protects the service.
    Protected,
    /// Less than `panic_percent` of the level is usable, and all levels together cannot carry
    /// the load.
    FewUsable,
}

/// What a console shows of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelState {
    /// 2 × priority, + 1 for other zones.
    pub level: u64,
    /// Its instances.
    pub count: Count,
    /// Health with overprovision, in percent, 0 to 100.
    pub health: u32,
    /// Share of the load, in percent.
    pub load: u32,
    /// Whether it is in panic.
    pub panic: Option<Panic>,
}

/// A level, ready to be picked from.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) state: LevelState,
    /// In panic, with a policy that then refuses.
    pub(super) fails: bool,
    /// Those that can be picked.
    pub(super) members: Vec<Member>,
    /// Running sums of the members' weights.
    pub(super) sums: Vec<u64>,
    pub(super) ring: Option<Ring>,
}

/// An instance that can be picked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) index: usize,
    pub(super) weight: u32,
    pub(super) since: Instant,
}

/// A hash table over all instances of a level that have a weight.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// Shared with later pickers for as long as keys and weights stay the same.
    pub(super) built: Arc<Built>,
    /// Index of the instance at each position of the table's list; `None` while not usable.
    pub(super) indices: Vec<Option<usize>>,
}

#[derive(Debug)]
pub(super) struct Built {
    keys: Vec<(String, u32)>,
    pub(super) table: Table,
}

/// The levels of `snapshot`, most preferred first. Tables and the start of a panic are taken over
/// from `previous`.
pub(super) fn levels(
    previous: &[Level],
    policy: &BalancePolicy,
    snapshot: &Snapshot<'_>,
    now: Instant,
) -> Vec<Level> {
    let groups = group(policy, snapshot);
    let counts: Vec<Count> = groups.iter().map(|(_, indices)| count(snapshot, indices)).collect();
    let spread = Spread::over(&counts, policy.overprovision_percent);
    let mut levels = Vec::with_capacity(groups.len());
    for (i, (level, indices)) in groups.iter().enumerate() {
        let before = previous.iter().find(|before| before.state.level == *level);
        let panic = panic_reason(policy, snapshot, counts[i], spread.healthy).map(|reason| {
            let since = before.and_then(|before| before.state.panic).map_or(now, |p| p.since);
            Panic { reason, since }
        });
        let (health, load) = (spread.health[i], spread.load[i]);
        let state = LevelState { level: *level, count: counts[i], health, load, panic };
        levels.push(Level::new(state, before, policy, snapshot, indices));
    }
    levels
}

/// Indices of the instances of each level, in the order of the levels.
fn group(policy: &BalancePolicy, snapshot: &Snapshot<'_>) -> Vec<(u64, Vec<usize>)> {
    let mut placed: Vec<(u64, usize)> = snapshot
        .instances
        .iter()
        .enumerate()
        .map(|(index, instance)| {
            let away = policy.zone_preference && !instance.same_zone;
            (2 * u64::from(instance.priority) + u64::from(away), index)
        })
        .collect();
    placed.sort_unstable();
    placed
        .chunk_by(|a, b| a.0 == b.0)
        .map(|level| (level[0].0, level.iter().map(|&(_, index)| index).collect()))
        .collect()
}

fn count(snapshot: &Snapshot<'_>, indices: &[usize]) -> Count {
    let usable = indices.iter().filter(|&&i| is_usable(&snapshot.instances[i])).count();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Count { usable: number(usable), total: number(indices.len()) }
}

const fn is_usable(instance: &Candidate<'_>) -> bool {
    instance.usable && instance.weight > 0
}

fn panic_reason(
    policy: &BalancePolicy,
    snapshot: &Snapshot<'_>,
    count: Count,
    healthy: u32,
) -> Option<PanicReason> {
    let few =
        100 * u64::from(count.usable) < u64::from(policy.panic_percent) * u64::from(count.total);
    if snapshot.protected {
        Some(PanicReason::Protected)
    } else {
        (healthy < 100 && few).then_some(PanicReason::FewUsable)
    }
}

impl Level {
    fn new(
        state: LevelState,
        before: Option<&Self>,
        policy: &BalancePolicy,
        snapshot: &Snapshot<'_>,
        indices: &[usize],
    ) -> Self {
        let fails = state.panic.is_some() && policy.panic == PanicMode::Fail;
        let all = state.panic.is_some() && !fails;
        let picked = |instance: &Candidate<'_>| {
            if all { instance.weight > 0 } else { !fails && is_usable(instance) }
        };
        let members: Vec<Member> = indices
            .iter()
            .map(|&index| (index, &snapshot.instances[index]))
            .filter(|(_, instance)| picked(instance))
            .map(|(index, instance)| Member {
                index,
                weight: instance.weight,
                since: instance.since,
            })
            .collect();
        let sums = members
            .iter()
            .scan(0, |sum, member| {
                *sum += u64::from(member.weight);
                Some(*sum)
            })
            .collect();
        let ring = policy.layout.map(|layout| {
            let before = before.and_then(|before| before.ring.as_ref());
            let keyed = keyed(policy, snapshot, indices);
            let usable = |index| picked(&snapshot.instances[index]).then_some(index);
            Ring {
                built: Built::reuse(before, layout, &keyed),
                indices: keyed.iter().map(|&(_, index)| usable(index)).collect(),
            }
        });
        Self { state, fails, members, sums, ring }
    }
}

/// The instances that get a place in the table, in its order.
fn keyed<'a>(
    policy: &BalancePolicy,
    snapshot: &Snapshot<'a>,
    indices: &[usize],
) -> Vec<(Keyed<'a>, usize)> {
    let mut keyed: Vec<(Keyed<'a>, usize)> = indices
        .iter()
        .map(|&index| (&snapshot.instances[index], index))
        .filter(|(instance, _)| instance.weight > 0)
        .map(|(instance, index)| {
            let key = match policy.ring_key {
                RingKey::Address => instance.address,
                RingKey::Name => instance.name,
            };
            (Keyed { key, weight: instance.weight }, index)
        })
        .collect();
    if snapshot.order == Order::ByKey {
        keyed.sort_by_key(|(keyed, _)| keyed.key);
    }
    keyed
}

impl Built {
    fn reuse(before: Option<&Ring>, layout: Layout, keyed: &[(Keyed<'_>, usize)]) -> Arc<Self> {
        let members = || keyed.iter().map(|(member, _)| member);
        if let Some(before) = before
            && before.built.table.layout() == layout
            && before
                .built
                .keys
                .iter()
                .map(|(key, weight)| (key.as_str(), *weight))
                .eq(members().map(|member| (member.key, member.weight)))
        {
            return Arc::clone(&before.built);
        }
        let table = Table::build(layout, &members().copied().collect::<Vec<_>>());
        let keys = members().map(|member| (member.key.to_owned(), member.weight)).collect();
        Arc::new(Self { keys, table })
    }
}
